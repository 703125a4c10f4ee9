# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Masks from frame to frame, on sequences small enough to count by hand."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from seeds import fresh_seeds

from segnode.evaluation.frames import FrameRow
from segnode.evaluation.stability import SAME_MASK_IOU, Stability, StabilityMeter, matches

H, W = 20, 40


def box(
    left: int, right: int, *, category: int = 1, score: float = 0.5, width: int = W
) -> dict[str, Any]:
    """An instance that covers the columns from ``left`` to before ``right``."""
    pixels = np.zeros((H, width), np.uint8, order='F')
    pixels[:, left:right] = 1
    return {'category_id': category, 'score': score, 'segmentation': coco_mask.encode(pixels)}


def frame(number: int, time_s: float, topic: str = '/a', **values: Any) -> FrameRow:
    time_ns = round(time_s * 1e9)
    usual = {'bag': 0, 'stamp_ns': time_ns, 'log_ns': time_ns, 'time_ns': time_ns}
    return FrameRow(frame=number, topic=topic, number=number, **(usual | values))


def measure(*frames: tuple[FrameRow, list[dict[str, Any]]]) -> dict[str, Stability]:
    meter = StabilityMeter()
    for row, entries in frames:
        meter.add(row, entries)
    return dict(meter.by_topic)


def test_nothing_is_known_without_a_pair() -> None:
    assert measure() == {}
    alone = measure((frame(0, 0), [box(0, 10)]))['/a']
    assert alone == Stability()
    figures = (alone.persistence, alone.mean_iou, alone.flicker, alone.score_jitter)
    assert figures == (None, None, None, None)


def test_an_instance_that_stays_persists_with_its_iou_and_change_of_score() -> None:
    found = measure(
        (frame(0, 0.0), [box(0, 10, score=0.9), box(20, 30, score=0.4)]),
        (frame(1, 0.1), [box(0, 8, score=0.7)]),
    )['/a']
    assert (found.pairs, found.instances, found.persisted) == (1, 2, 1)
    assert found.persistence == 0.5
    assert found.mean_iou == pytest.approx(0.8)
    assert found.score_jitter == pytest.approx(0.2)
    assert found.flicker is None


def test_an_instance_of_one_frame_flickers() -> None:
    stays, once = box(0, 10), box(20, 30)
    found = measure(
        (frame(0, 0.0), [stays]), (frame(1, 0.1), [stays, once]), (frame(2, 0.2), [stays])
    )['/a']
    # Only the second frame has a neighbour on both sides.
    assert (found.inner, found.flickers, found.flicker) == (2, 1, 0.5)


def test_another_class_or_image_size_is_no_match() -> None:
    before = [box(0, 10, category=1), box(20, 30)]
    assert matches(before, [box(0, 10, category=2)]) == []
    assert matches(before, [box(0, 10, width=W + 1)]) == []
    assert matches(before, []) == matches([], before) == []


def test_the_higher_iou_takes_a_match_first_and_once() -> None:
    before = [box(0, 10), box(2, 12)]
    found = matches(before, [box(1, 12)])
    assert [(row, column) for _, row, column in found] == [(1, 0)]
    assert found[0][0] == pytest.approx(10 / 11)


@pytest.mark.parametrize(
    ('second', 'why'),
    [
        (frame(1, 1.0), 'a second and more'),
        (frame(1, 0.0), 'a duplicate'),
        (frame(1, -0.5), 'a step backward'),
        (frame(1, 0.1, bag=1), 'another bag'),
        (frame(1, 0.1, clock='log'), 'another clock'),
    ],
)
def test_frames_that_are_no_neighbours_are_not_compared(second: FrameRow, why: str) -> None:
    found = measure((frame(0, 0.0), [box(0, 10)]), (second, [box(0, 10)]))
    assert found['/a'].pairs == 0, why


def test_topics_are_apart_and_a_frame_that_was_not_processed_is_passed_over() -> None:
    found = measure(
        (frame(0, 0.0), [box(0, 10)]),
        (frame(1, 0.0, '/b'), [box(20, 30)]),
        (frame(2, 0.1, status='decode', reason='short'), []),
        (frame(3, 0.2), [box(0, 10)]),
        (frame(4, 0.2, '/b'), [box(0, 10)]),
    )
    assert (found['/a'].pairs, found['/a'].persisted) == (1, 1)
    assert (found['/b'].pairs, found['/b'].persisted) == (1, 0)


@pytest.mark.parametrize('seed', fresh_seeds(3))
def test_matches_agree_with_masks_counted_pixel_by_pixel(seed: int) -> None:
    draw = random.Random(seed)

    def instances() -> list[dict[str, Any]]:
        lefts = [draw.randrange(W - 12) for _ in range(draw.randrange(7))]
        return [
            box(left, left + draw.randrange(3, 12), category=draw.randrange(2)) for left in lefts
        ]

    before, now = instances(), instances()
    pixels = [[coco_mask.decode(e['segmentation']) > 0 for e in side] for side in (before, now)]
    pairs = [
        ((a & b).sum() / (a | b).sum(), row, column)
        for row, a in enumerate(pixels[0])
        for column, b in enumerate(pixels[1])
        if before[row]['category_id'] == now[column]['category_id']
    ]
    left = sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))
    expected = []
    while left and left[0][0] >= SAME_MASK_IOU:
        best = left[0]
        expected.append(best)
        left = [pair for pair in left if pair[1] != best[1] and pair[2] != best[2]]
    assert matches(before, now) == [(pytest.approx(iou), row, col) for iou, row, col in expected]
