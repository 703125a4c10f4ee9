# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Streaming AP's rule against an event simulation, and by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated_runs import BOX, H, dataset, entry, frame_row
from seeds import fresh_seeds

from segnode.errors import ConfigError
from segnode.evaluation.annotations import Annotations
from segnode.evaluation.frames import FramesWriter
from segnode.evaluation.latencies import latencies_of
from segnode.evaluation.streaming import pair, pair_cameras, streaming_scores

MS = 1_000_000


def simulate(
    times_ns: list[list[int]], latencies_ns: list[list[int | None]]
) -> tuple[list[list[int]], list[list[int | None]]]:
    """Play the rule moment by moment: what finishes, what arrives, what is taken.

    Returns:
        By camera: the frames in the order in which they were taken, and for each frame the one
        whose result is the newest.
    """
    arrivals: dict[int, list[tuple[int, int]]] = {}
    for camera, times in enumerate(times_ns):
        clock = times[0] if times else 0
        for frame, time in enumerate(times):
            clock = max(clock, time)
            arrivals.setdefault(clock, []).append((camera, frame))
    taken: list[list[int]] = [[] for _ in times_ns]
    newest: list[list[int | None]] = [[None] * len(times) for times in times_ns]
    waiting: dict[int, tuple[int, int]] = {}  # camera: arrival, frame
    finished: dict[int, int] = {}  # camera: frame
    busy: tuple[int, int, int] | None = None  # end, camera, frame
    while arrivals or waiting or busy:
        now = min([*arrivals, *([busy[0]] if busy else [])])
        if busy and busy[0] == now:
            finished[busy[1]] = busy[2]
            busy = None
        for camera, frame in arrivals.pop(now, []):
            if latencies_ns[camera][frame] is not None:
                waiting[camera] = (now, frame)
            newest[camera][frame] = finished.get(camera)
        if busy is None and waiting:
            camera = min(waiting, key=lambda c: (waiting[c][0], c))
            _, frame = waiting.pop(camera)
            latency = latencies_ns[camera][frame]
            assert latency is not None
            taken[camera].append(frame)
            busy = (now + latency, camera, frame)
    return taken, newest


@pytest.mark.parametrize('seed', fresh_seeds(3))
def test_equals_an_event_simulation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(300):
        times, latencies = [], []
        grid_ms = int(rng.choice([1, 10, 25]))  # coarse ones make moments coincide
        for _ in range(int(rng.integers(1, 4))):
            count = int(rng.integers(0, 25))
            gaps = rng.integers(-1 if rng.random() < 0.2 else 0, 6, count) * grid_ms * MS
            start = int(rng.choice([0, 1_700_000_000_000_000_000]))
            times.append((start + np.cumsum(gaps)).tolist())
            taken_ms = (rng.integers(1, 12, count) * grid_ms).tolist()
            latencies.append([None if rng.random() < 0.1 else ms for ms in taken_ms])
        taken, newest = simulate(
            times, [[ms and ms * MS for ms in camera] for camera in latencies]
        )
        pairings = pair_cameras(times, lambda camera, frame: latencies[camera][frame])  # noqa: B023
        assert [pairing.answered for pairing in pairings] == taken
        assert [pairing.newest for pairing in pairings] == newest
        if len(times) == 1:
            assert pair(times[0], latencies[0]) == pairings[0]


def test_done_exactly_at_a_frame_counts_for_it() -> None:
    times = [frame * 50 * MS for frame in range(20)]
    quick, just, late = (pair(times, [ms] * 20) for ms in (20, 50, 50.000001))
    assert quick == just
    assert quick.newest == [None, *range(19)]
    assert quick.lags_ms[1:] == [50.0] * 19
    assert late.newest[:4] == [None, None, 0, 1]


def test_newest_frame_wins() -> None:
    # Frame 0 takes until 120 ms; 1 is superseded by 2, which is taken then.
    pairing = pair([0, 50 * MS, 100 * MS, 150 * MS, 200 * MS], [120.0] * 5)
    assert pairing.answered == [0, 2, 4]
    assert pairing.newest == [None, None, None, 0, 0]


def test_cameras_take_turns_by_arrival() -> None:
    times = [[0, 10 * MS, 20 * MS, 30 * MS], [1 * MS, 11 * MS]]
    left, right = pair_cameras(times, lambda *_: 10.0)
    # At 10 ms the right one's frame of 1 ms waits, and at 20 ms the left one's of 20 ms and the
    # right one's of 11 ms.
    assert right.answered == [0, 1]
    assert left.answered == [0, 3]


def test_nothing_to_pair() -> None:
    assert pair([], []).newest == []
    assert pair_cameras([], lambda *_: 1.0) == []
    assert pair([0, 1], [None, None]).answered == []


def truth_of(count: int) -> Annotations:
    return Annotations.from_coco(dataset(count))


def test_a_result_that_comes_a_frame_late_is_scored_where_the_object_was() -> None:
    # The object moves by its width, so only results of the frame itself could be right; at rest
    # every frame but the first is right.
    frames = [frame_row(frame) for frame in range(4)]
    image_ids = {frame: frame for frame in range(4)}
    moving = Annotations.from_coco(dataset(4, boxes=[(20 * k, 5, 20, 20) for k in range(4)]))
    results = [entry(frame, (20 * frame, 5, 20, 20)) for frame in range(4)]
    scores = streaming_scores(frames, lambda _: 20.0, moving, results, image_ids)
    assert scores['box_ap'] == scores['mask_ap'] == 0.0
    resting = [entry(frame, BOX) for frame in range(4)]
    scores = streaming_scores(frames, lambda _: 20.0, truth_of(4), iter(resting), image_ids)
    assert scores == {
        'box_ap': pytest.approx(76 / 101),
        'box_ap50': pytest.approx(76 / 101),
        'mask_ap': pytest.approx(76 / 101),
        'mask_ap50': pytest.approx(76 / 101),
        'frames': 4,
        'worked_on': 4,
        'missed': 0,
        'without_result': 1,
        'in_time': 1.0,
        'mean_lag_ms': 50.0,
        'other_size': 0,
    }
    json.dumps(scores, allow_nan=False)
    slow = streaming_scores(frames, lambda _: 120.0, truth_of(4), resting, image_ids)
    assert (slow['worked_on'], slow['missed'], slow['in_time']) == (3, 1, 0.0)
    assert slow['mean_lag_ms'] == 150.0
    assert slow['without_result'] == 3


def test_frames_that_were_not_processed() -> None:
    frames = [frame_row(frame) for frame in range(6)]
    frames[1].status = 'decode'  # scored with the result of frame 0, never worked on, no miss
    frames[5].status = 'range'  # no part of the stream
    results = [entry(frame, BOX) for frame in (0, 2, 3, 4)]
    image_ids = {frame: frame for frame in range(5)}
    scores = streaming_scores(frames, lambda _: 20.0, truth_of(5), results, image_ids)
    assert (scores['frames'], scores['worked_on'], scores['missed']) == (5, 4, 0)
    assert scores['box_ap'] == pytest.approx(81 / 101)
    assert scores['in_time'] == 1.0


def test_bags_are_streams_for_themselves() -> None:
    # The second bag's clock begins before the first one's.
    frames = [frame_row(k, time_ms=1000 + 50 * k) for k in range(2)]
    frames += [frame_row(k, bag=1, time_ms=50 * (k - 2)) for k in (2, 3)]
    results = [entry(frame, BOX) for frame in range(4)]
    scores = streaming_scores(
        frames, lambda _: 20.0, truth_of(4), results, {frame: frame for frame in range(4)}
    )
    assert scores['without_result'] == 2
    assert scores['box_ap'] == pytest.approx(51 / 101)


def test_a_result_of_another_size_is_empty_and_counted() -> None:
    frames = [frame_row(frame) for frame in range(3)]
    frames[0].height = H + 1
    results = [entry(frame, BOX) for frame in (1, 2)]
    scores = streaming_scores(frames, lambda _: 20.0, truth_of(3), results, {1: 1, 2: 2})
    assert scores['other_size'] == 1
    assert scores['box_ap'] == pytest.approx(51 / 101)


def test_without_annotations_only_the_times_are_told() -> None:
    frames = [frame_row(frame) for frame in range(3)]
    scores = streaming_scores(frames, lambda _: 20.0, None, [], {})
    assert scores['box_ap'] is None
    assert scores['mask_ap50'] is None
    assert scores['mean_lag_ms'] == 50.0
    nothing = streaming_scores([], lambda _: 20.0, None, [], {})
    assert (nothing['in_time'], nothing['mean_lag_ms']) == (None, None)


@pytest.mark.parametrize('number', [0, 0.0, -1.0, math.nan, math.inf])
def test_latencies_that_are_none(number: float) -> None:
    with pytest.raises(ConfigError, match='above 0'):
        latencies_of(number)


def write_frames(path: Path, rows: list[Any]) -> Path:
    with path.open('w', newline='') as stream:
        writer = FramesWriter(stream, ['heads', 'masks'])
        for row in rows:
            writer.write(row)
    return path


def test_latencies_of_the_same_and_of_other_frames(tmp_path: Path) -> None:
    rows = [frame_row(frame, stage_ms={'heads': 10.0 + frame, 'masks': 5.0}) for frame in range(3)]
    rows.insert(1, frame_row(9, status='decode', stage_ms={}))
    latencies = latencies_of(write_frames(tmp_path / 'frames.csv', rows))
    said: list[str] = []
    # In another order, as `--every` leaves out frames.
    same = [frame_row(2), frame_row(0)]
    own = latencies.of(same, said.append)
    assert [own(row) for row in same] == [17.0, 15.0]
    others = [frame_row(frame + 40) for frame in range(5)]
    others.insert(2, frame_row(50, status='error'))
    drawn = latencies.of(others, said.append)
    assert [drawn(row) for row in others if row.processed] == [15.0, 16.0, 17.0, 15.0, 16.0]
    assert 'same frames' in said[0]
    assert 'in their order over 5 frames' in said[1]
    assert latencies_of(33.3).of(others, said.append)(others[0]) == 33.3


def test_latencies_from_files_that_tell_none(tmp_path: Path) -> None:
    none = write_frames(tmp_path / 'none.csv', [frame_row(0, status='decode', stage_ms={})])
    with pytest.raises(ConfigError, match='processed frames, found none'):
        latencies_of(none)
    zero = write_frames(tmp_path / 'zero.csv', [frame_row(0, stage_ms={'heads': 0.0})])
    with pytest.raises(ConfigError, match='above 0 ms, found 0'):
        latencies_of(zero)
    with pytest.raises(ConfigError, match='cannot be read'):
        latencies_of(tmp_path / 'missing.csv')
