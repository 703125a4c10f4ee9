# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Annotated images find their frames: by stamp, by number, by file name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated_runs import H, W, dataset, frame_row
from seeds import fresh_seeds

from segnode.errors import AnnotationError
from segnode.evaluation.bag_truth import BagTruth, Matching
from segnode.evaluation.entries import AnnotatedImage
from segnode.evaluation.frame_keys import frame_key
from segnode.evaluation.frames import FrameRow
from segnode.evaluation.nearest import nearest_pairs

WINDOW_NS = 20_000_000
START_NS = 1_700_000_000_000_000_000


def truth_of(*images: dict[str, Any]) -> BagTruth:
    coco = dataset(len(images))
    for image, more in zip(coco['images'], images, strict=True):
        image.update(more)
    return BagTruth.from_coco(coco, 'truth.json', lambda _: None)


def stamps_ns(count: int) -> list[int]:
    return [frame_row(frame).stamp_ns for frame in range(count)]


def matched(truth: BagTruth, frames: list[FrameRow], window_ns: int = WINDOW_NS) -> Matching:
    matching = truth.match(frames, window_ns)
    # Every annotated image counts or has a reason.
    assert len(matching.image_ids) + matching.skipped.total() == len(truth.annotations.images)
    assert all(matching.skipped.values())
    return matching


NAMES: dict[str, Callable[[int, int], dict[str, Any]]] = {
    'stamp_ns': lambda k, ns: {'stamp_ns': ns},
    'stamp_ns-text': lambda k, ns: {'timestamp_ns': str(ns)},
    'stamp-seconds': lambda k, ns: {'stamp': ns / 1e9},
    'stamp-seconds-text': lambda k, ns: {'timestamp': f'{ns // 10**9}.{ns % 10**9:09d}'},
    'stamp-ros2': lambda k, ns: {'stamp': {'sec': ns // 10**9, 'nanosec': ns % 10**9}},
    'stamp-ros1': lambda k, ns: {'stamp': {'secs': ns // 10**9, 'nsecs': ns % 10**9}},
    'stamp-milliseconds': lambda k, ns: {'timestamp': ns // 10**6},
    'no-file-name': lambda k, ns: {'file_name': None, 'stamp_ns': ns},
    'frame': lambda k, ns: {'frame': k},
    'frame_number': lambda k, ns: {'frame_number': str(k), 'file_name': f'{ns}.png'},
    'name-nanoseconds': lambda k, ns: {'file_name': f'images/{ns}.png'},
    'name-label-topic': lambda k, ns: {'file_name': str(ns)},
    'name-microseconds': lambda k, ns: {'file_name': f'left_{ns // 1000}.jpg'},
    'name-milliseconds': lambda k, ns: {'file_name': f'{ns // 10**6}.jpg'},
    'name-sec.nsec': lambda k, ns: {'file_name': f'{ns // 10**9}.{ns % 10**9:09d}.png'},
    'name-sec.usec': lambda k, ns: {'file_name': f'{ns // 10**9}.{ns % 10**9 // 1000:06d}.png'},
    'name-sec_nsec': lambda k, ns: {'file_name': f'im_{ns // 10**9}_{ns % 10**9:09d}.jpeg'},
    'name-number': lambda k, ns: {'file_name': f'out/frame_{k:06d}.jpg'},
    'name-number-alone': lambda k, ns: {'file_name': f'{k:06d}.png'},
    'name-roboflow': lambda k, ns: {'file_name': f'frame_{k:04d}_jpg.rf.0a17e7{k}.jpg'},
}


@pytest.mark.parametrize('name', NAMES)
def test_every_way_of_naming_a_frame(name: str, tmp_path: Path) -> None:
    # Some frames in another order; frame 3 is not annotated.
    order = [4, 0, 1, 2]
    coco = dataset(4)
    for image, k in zip(coco['images'], order, strict=True):
        image.update(NAMES[name](k, stamps_ns(6)[k]))
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(coco))
    matching = matched(BagTruth.read(path, pytest.fail), [frame_row(k) for k in range(6)])
    assert matching.image_ids == {frame: image for image, frame in enumerate(order)}
    assert not matching.skipped


@pytest.mark.parametrize(
    ('file_name', 'kind', 'value'),
    [
        ('12.345000000.png', 'stamp', 12_345_000_000),
        ('1305031102.175304.png', 'stamp', 1_305_031_102_175_304_000),
        ('1700000000_50000000.png', 'stamp', 1_700_000_000_050_000_000),
        ('1700000000_0012.png', 'number', 12),
        ('cam0/000000397133.jpg', 'number', 397133),
        ('video.mp4_12.5.png', 'number', 5),
        ('a1700000000000000000b.png', 'stamp', START_NS),
        ('12345678901234567890.png', None, None),
        ('left.png', None, None),
        ('', None, None),
    ],
)
def test_file_names(file_name: str, kind: str | None, value: int | None) -> None:
    key = frame_key(AnnotatedImage(1, file_name, (H, W)))
    if key is None:
        assert kind is None
    else:
        assert kind is not None
        assert kind in key.kind
        assert key.value == value


@pytest.mark.parametrize(
    'fields',
    [
        {'stamp_ns': True},
        {'stamp_ns': -5},
        {'stamp_ns': [1]},
        {'stamp_ns': 1e300},
        {'stamp': 'yesterday'},
        {'stamp': float('nan')},
        {'stamp': '1e999999999'},
        {'stamp': -3.5},
        {'stamp': {'sec': 1}},
        {'stamp': {'sec': {}, 'nanosec': 1}},
        {'frame': 1.5},
        {'frame': '9' * 40},
    ],
)
def test_fields_that_tell_nothing(fields: dict[str, Any]) -> None:
    assert frame_key(AnnotatedImage(1, 'a.png', (H, W), fields)) is None


def test_nothing_in_the_file_tells_a_frame() -> None:
    with pytest.raises(AnnotationError, match=r"'stamp_ns' or a 'frame'.*found 0_.png"):
        truth_of({}, {})


def test_one_rule_for_a_file() -> None:
    stamps = stamps_ns(4)
    truth = truth_of({'stamp_ns': stamps[0]}, {'stamp_ns': stamps[1]}, {'frame': 2}, {})
    matching = matched(truth, [frame_row(k) for k in range(4)])
    assert matching.image_ids == {0: 0, 1: 1}
    assert matching.skipped.total() == 2
    assert matching.rule == (
        'by the stamps of the annotated images, the nearest frame within 20 ms'
    )


def test_numbers_from_one() -> None:
    # The last one has the number of frames, so that counting from 0 leaves it without a frame.
    names = [{'file_name': f'frame_{k:04d}.jpg'} for k in (1, 3, 4)]
    matching = matched(truth_of(*names), [frame_row(k) for k in range(4)])
    assert matching.image_ids == {0: 0, 2: 1, 3: 2}
    assert matching.rule.endswith('counted from 1')
    matching = matched(truth_of(*names), [frame_row(k) for k in range(5)])
    assert matching.image_ids == {1: 0, 3: 1, 4: 2}
    assert matching.rule.endswith('counted from 0')
    matching = matched(
        truth_of(*names, {'file_name': '0000.jpg'}), [frame_row(k) for k in range(4)]
    )
    assert matching.image_ids == {0: 3, 1: 0, 3: 1}
    assert matching.skipped.total() == 1


def test_log_time_where_the_clock_policy_took_it() -> None:
    frames = [frame_row(k, stamp_ns=0, clock='log') for k in range(2)]
    matching = matched(truth_of({'stamp_ns': frames[1].log_ns}), frames)
    assert matching.image_ids == {1: 0}


def test_the_window() -> None:
    frames = [frame_row(0)]
    for off_ns in (-WINDOW_NS, WINDOW_NS):
        truth = truth_of({'stamp_ns': frames[0].stamp_ns + off_ns})
        assert matched(truth, frames).image_ids == {0: 0}
        with pytest.raises(AnnotationError, match='no free frame within'):
            truth.match(frames, WINDOW_NS - 1)


def test_the_nearer_image_has_the_frame() -> None:
    frames = [frame_row(0), frame_row(1)]
    stamp = frames[0].stamp_ns
    truth = truth_of({'stamp_ns': stamp - 9_000_000}, {'stamp_ns': stamp + 2_000_000})
    matching = matched(truth, frames)
    assert matching.image_ids == {0: 1}
    assert matching.skipped == {'no free frame within 20 ms of its stamp': 1}


def test_frames_that_do_not_count_and_frames_that_do() -> None:
    frames = [frame_row(k) for k in range(6)]
    frames[1].status, frames[2].status, frames[3].status = 'every', 'range', 'decode'
    frames[1].height = frames[2].height = frames[3].height = 0
    frames[4].status = 'error'
    frames[5].width = W + 1
    matching = matched(truth_of(*({'frame': k} for k in range(6))), frames)
    assert matching.image_ids == {0: 0, 3: 3, 4: 4}
    assert matching.skipped == {
        'its frame was left out by --every': 1,
        'its frame lies outside of --start and --end': 1,
        f'annotated with {W} x {H} pixels, its frame has {W + 1} x {H}': 1,
    }


def two_cameras() -> list[FrameRow]:
    return [
        frame_row(2 * k + right, time_ms=50 * k, number=k, topic=topic)
        for k in range(3)
        for right, topic in enumerate(('/left/image', '/right/image/compressed'))
    ]


@pytest.mark.parametrize('key', ['stamp_ns', 'frame'])
def test_topics(key: str) -> None:
    frames = two_cameras()
    value = {'stamp_ns': frames[2].stamp_ns, 'frame': 1}[key]
    truth = truth_of(
        {key: value, 'topic': 'left/image'},
        {key: value, 'topic': '/right/image'},
        {key: value, 'topic': '/rear/image'},
        {key: value},
    )
    matching = matched(truth, frames)
    assert matching.image_ids == {2: 0, 3: 1}
    assert matching.skipped == {
        'its topic was not replayed': 1,
        'it has no topic, and several were replayed': 1,
    }
    with pytest.raises(AnnotationError, match=r'2 image topics.*/left/image.*--topic'):
        matched(truth_of({key: value}), frames)


def test_raw_and_compressed_of_one_camera() -> None:
    topics = ('/image', '/image/compressed')
    frames = [frame_row(k, time_ms=0, number=0, topic=topic) for k, topic in enumerate(topics)]
    for k, topic in enumerate(topics):
        assert matched(truth_of({'frame': 0, 'topic': topic}), frames).image_ids == {k: 0}


def test_numbers_over_several_bags() -> None:
    frames = [frame_row(0), frame_row(1, bag=1, number=0)]
    with pytest.raises(AnnotationError, match=r'begin anew in each of the 2 bags.*stamp_ns'):
        truth_of({'frame': 0}).match(frames, WINDOW_NS)
    matching = matched(truth_of({'stamp_ns': frames[1].stamp_ns}), frames)
    assert matching.image_ids == {1: 0}


def test_nothing_matches() -> None:
    truth = truth_of({'stamp_ns': 17}, {'stamp_ns': 18})
    with pytest.raises(AnnotationError) as caught:
        truth.match([frame_row(0)], WINDOW_NS)
    assert 'stamp_ns 17' in str(caught.value)
    assert str(START_NS) in str(caught.value)
    assert '\n' not in str(caught.value)
    with pytest.raises(AnnotationError, match='there is no frame'):
        truth.match([], WINDOW_NS)


def test_file_names_do_not_hide_in_messages() -> None:
    truth = truth_of({'file_name': 'a\x1b[2J\n0000000000001.png'})
    with pytest.raises(AnnotationError) as caught:
        truth.match([frame_row(0)], WINDOW_NS)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize('seed', fresh_seeds(3))
def test_nearest_pairs_are_those_of_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(200):
        first, second = (rng.integers(0, 60, int(rng.integers(0, 15))).tolist() for _ in range(2))
        window = int(rng.integers(0, 12))
        pairs = nearest_pairs(first, second, window)
        assert all(abs(first[i] - second[j]) <= window for i, j in pairs)
        assert all(len(set(side)) == len(side) for side in zip(*pairs, strict=True))
        distances = [abs(first[i] - second[j]) for i, j in pairs]
        assert distances == sorted(distances)
        # No pair that was passed over is nearer than what both of its moments have.
        has_first = {i: abs(first[i] - second[j]) for i, j in pairs}
        has_second = {j: abs(first[i] - second[j]) for i, j in pairs}
        for i, one in enumerate(first):
            for j, other in enumerate(second):
                distance = abs(one - other)
                assert (
                    distance > window
                    or distance >= has_first.get(i, window + 1)
                    or distance >= has_second.get(j, window + 1)
                )
