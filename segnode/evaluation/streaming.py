# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Streaming AP: how good the newest finished result is at the time of every frame.

The rule is that of Li, Wang and Ramanan, "Towards Streaming Perception" (ECCV 2020,
https://arxiv.org/abs/2005.10420). One worker takes the newest frame as soon as it is idle; where
it has had that one, it waits for the next. A result counts from the moment it is finished, that
moment included, and a frame is scored against the newest result at its own time: none is an
empty answer. What is finished after the last frame is of no use to any.

Several cameras share the worker: of their newest frames that wait, it takes the one that came
first. All times are integer nanoseconds, so that a boundary falls on the same side everywhere.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from segnode.evaluation.annotations import Annotations
from segnode.evaluation.coco_evaluation import evaluate_results
from segnode.evaluation.entries import Id
from segnode.evaluation.frames import FrameRow

_LEFT_OUT = ('every', 'range')
# By so much no transport delays a frame more than the others: the stamp is of another clock.
_OTHER_CLOCK_NS = 10_000_000_000


@dataclass(frozen=True, slots=True)
class Pairing:
    """Which result counts for every frame of a camera.

    Attributes:
        answered: frames that were worked on, in order, the last one even if it was not finished
            in time for any frame.
        newest: for each frame the one whose result is the newest at its time, None where none is
            finished.
        lags_ms: for each frame how much older the frame of its result is, None as `newest`.
    """

    answered: list[int]
    newest: list[int | None]
    lags_ms: list[float | None]


def pair(
    times_ns: Sequence[int], latency_ms: Callable[[int], float | None] | Sequence[float | None]
) -> Pairing:
    """Pair the frames of one camera with results.

    Args:
        times_ns: when each frame comes; one that is earlier than the frame before it comes with
            that one.
        latency_ms: how long the worker takes for a frame, by its position; None for a frame that
            cannot be answered, which the worker passes over.
    """
    taken = latency_ms if callable(latency_ms) else latency_ms.__getitem__
    return pair_cameras([times_ns], lambda _, frame: taken(frame))[0]


def pair_cameras(
    times_ns: Sequence[Sequence[int]], latency_ms: Callable[[int, int], float | None]
) -> list[Pairing]:
    """Pair the frames of several cameras with the results of one worker; one camera is `pair`.

    Args:
        times_ns: of each camera, as in `pair`.
        latency_ms: by positions of camera and frame, as in `pair`.
    """
    comes_ns = [list(accumulate(times, max)) for times in times_ns]
    # What the worker can take: positions, and when they come.
    takes = [
        [frame for frame in range(len(times)) if latency_ms(camera, frame) is not None]
        for camera, times in enumerate(comes_ns)
    ]
    takes_ns = [
        [times[frame] for frame in frames] for times, frames in zip(comes_ns, takes, strict=True)
    ]
    taken = [0] * len(takes)  # how many of them were taken or superseded
    done: list[list[tuple[int, int]]] = [[] for _ in takes]  # moment and frame of each result
    idle_ns: int | None = None
    while any(count < len(frames) for count, frames in zip(taken, takes, strict=True)):
        next_ns = min(
            times[count]
            for times, count in zip(takes_ns, taken, strict=True)
            if count < len(times)
        )
        now_ns = next_ns if idle_ns is None else max(idle_ns, next_ns)
        _, camera, come = min(
            (takes_ns[camera][come - 1], camera, come)
            for camera, count in enumerate(taken)
            if (come := bisect_right(takes_ns[camera], now_ns)) > count
        )
        frame = takes[camera][come - 1]
        milliseconds = latency_ms(camera, frame)
        assert milliseconds is not None
        idle_ns = now_ns + max(round(milliseconds * 1e6), 1)
        done[camera].append((idle_ns, frame))
        taken[camera] = come
    return [_paired(times, results) for times, results in zip(comes_ns, done, strict=True)]


def _paired(times_ns: Sequence[int], results: Sequence[tuple[int, int]]) -> Pairing:
    moments = [moment_ns for moment_ns, _ in results]
    newest: list[int | None] = []
    for time_ns in times_ns:
        finished = bisect_right(moments, time_ns)
        newest.append(results[finished - 1][1] if finished else None)
    lags = [
        None if other is None else (times_ns[frame] - times_ns[other]) / 1e6
        for frame, other in enumerate(newest)
    ]
    return Pairing([frame for _, frame in results], newest, lags)


def arrivals_ns(rows: Sequence[FrameRow]) -> list[int]:
    """Return when the frames of a camera come, on the clock of the recording.

    That is the stamp plus the camera's usual delay to the recording, so that the jitter of the
    transport counts for nothing. Where a frame has no stamp, or one that lies far from the
    others' (of another clock, or of a file that was played again), it is the time at which it was
    recorded: one such stamp must not make the frames after it late.
    """
    delays = sorted(row.log_ns - row.stamp_ns for row in rows if row.clock == 'stamp')
    usual_ns = delays[len(delays) // 2] if delays else 0
    return [
        row.stamp_ns + usual_ns
        if row.clock == 'stamp' and abs(row.log_ns - row.stamp_ns - usual_ns) <= _OTHER_CLOCK_NS
        else row.log_ns
        for row in rows
    ]


def streaming_scores(
    frames: Sequence[FrameRow],
    latency_ms: Callable[[FrameRow], float],
    annotations: Annotations | None,
    results: Iterable[Mapping[str, Any]],
    image_ids: Mapping[int, Id],
) -> dict[str, Any]:
    """Return streaming AP and how well the worker kept up with the frames.

    Frames that ``--every``, ``--start`` and ``--end`` left out are no part of the stream. The
    worker passes over frames that could not be used; they are scored all the same. A bag is a
    stream for itself.

    Args:
        frames: of the run, in their order.
        latency_ms: how long a processed frame takes (`segnode.evaluation.latencies`).
        annotations: ground truth, None where there is none.
        results: COCO entries as for `scores.score`, read once.
        image_ids: annotated image by frame.

    Returns:
        JSON values: ``box_ap``, ``box_ap50``, ``mask_ap``, ``mask_ap50`` over the annotated
        frames, each with the result that counts for it (None without annotations); ``frames`` of
        the stream; ``worked_on``; ``missed``, the usable ones never worked on; ``without_result``,
        those that come before any result; ``in_time``, the share of usable frames that are
        answered before the next of their camera comes, the last one apart (None with less than
        two); ``mean_lag_ms``, from the frame whose result counts to the frame itself (None
        without results); ``other_size``, annotated frames whose result is of another image size
        and counts as empty.
    """
    streams: dict[int, dict[str, list[FrameRow]]] = defaultdict(lambda: defaultdict(list))
    for row in frames:
        if row.status not in _LEFT_OUT:
            streams[row.bag][row.topic].append(row)
    counts_for: dict[int, FrameRow | None] = {}
    worked_on = in_time = followed = 0
    lags_ms: list[float] = []
    for by_topic in streams.values():
        cameras = list(by_topic.values())
        pairings = pair_cameras(
            [arrivals_ns(rows) for rows in cameras],
            lambda camera, frame: (
                latency_ms(cameras[camera][frame]) if cameras[camera][frame].processed else None  # noqa: B023
            ),
        )
        for rows, pairing in zip(cameras, pairings, strict=True):
            worked_on += len(pairing.answered)
            lags_ms += [lag for lag in pairing.lags_ms if lag is not None]
            for row, newest in zip(rows, pairing.newest, strict=True):
                counts_for[row.frame] = None if newest is None else rows[newest]
            usable = [frame for frame, row in enumerate(rows) if row.processed]
            for frame, after in pairwise(usable):
                followed += 1
                in_time += pairing.newest[after] == frame
    scores, other_size = _scores(annotations, results, image_ids, counts_for)
    usable_frames = sum(row.processed for row in frames)
    return {
        **scores,
        'frames': len(counts_for),
        'worked_on': worked_on,
        'missed': usable_frames - worked_on,
        'without_result': sum(row is None for row in counts_for.values()),
        'in_time': in_time / followed if followed else None,
        'mean_lag_ms': sum(lags_ms) / len(lags_ms) if lags_ms else None,
        'other_size': other_size,
    }


def _scores(
    annotations: Annotations | None,
    results: Iterable[Mapping[str, Any]],
    image_ids: Mapping[int, Id],
    counts_for: Mapping[int, FrameRow | None],
) -> tuple[dict[str, float | None], int]:
    """Return AP with every frame's newest result, and how many results have another size."""
    keys = ('box_ap', 'box_ap50', 'mask_ap', 'mask_ap50')
    if annotations is None or not image_ids:
        return dict.fromkeys(keys), 0
    other_size = 0
    images_of: dict[int, list[Id]] = defaultdict(list)  # by the frame whose result counts
    for frame, image_id in image_ids.items():
        row = counts_for.get(frame)
        if row is None:
            continue
        if (row.height, row.width) == annotations.images[image_id].image_hw:
            images_of[row.frame].append(image_id)
        else:
            other_size += 1
    entries = [
        {**result, 'image_id': image_id, 'category_id': category_id}
        for result in results
        if (category_id := annotations.categories.get(result['category_name'])) is not None
        for image_id in images_of.get(result['image_id'], ())
    ]
    images = list(image_ids.values())
    box = evaluate_results(annotations, entries, 'bbox', images)
    mask = evaluate_results(annotations, entries, 'segm', images)
    return dict(
        zip(keys, (box.ap(), box.ap(0.5), mask.ap(), mask.ap(0.5)), strict=True)
    ), other_size
