# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The stop-free path on a CPU: the very code that a GPU captures, against the dynamic path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segnode.config import Config
from segnode.demo.scene import VALIDATION_SEEDS, Scene
from segnode.engine import Engine, Segmentation
from segnode.engine.path import CAPACITIES
from segnode.image import Image

CONFIG = Config(precision='fp32').replace({'resolution.short_side': 240})
SEEDS = VALIDATION_SEEDS[300:304]


def frames(count: int) -> list[Image]:
    return [Image(Scene(seed).frame(0).image, 'bgr') for seed in SEEDS[:count]]


@pytest.fixture(scope='module')
def dynamic() -> Engine:
    return Engine(CONFIG)


@pytest.fixture(scope='module')
def static() -> Engine:
    return Engine(CONFIG, static=True)


def assert_same(a: Segmentation, b: Segmentation) -> None:
    assert len(a.detections) == len(b.detections)
    np.testing.assert_allclose(a.detections.boxes_xyxy, b.detections.boxes_xyxy, atol=1e-2)
    np.testing.assert_allclose(a.detections.scores, b.detections.scores, atol=1e-4)
    np.testing.assert_array_equal(a.detections.class_ids, b.detections.class_ids)
    np.testing.assert_allclose(a.detections.mask_areas, b.detections.mask_areas, atol=3)
    assert (a.label_image != b.label_image).mean() < 1e-4
    for count in ('detected', 'kept', 'filtered_class', 'filtered_area'):
        assert getattr(a.counts, count) == getattr(b.counts, count)


@pytest.mark.parametrize('batch', [1, 4])
def test_same_answer_as_the_dynamic_path(dynamic: Engine, static: Engine, batch: int) -> None:
    images = frames(batch)
    answers = static.segment(images)
    assert sum(len(answer.detections) for answer in answers) >= batch
    for image, answer in zip(images, answers, strict=True):
        assert_same(dynamic.segment([image])[0], answer)


def test_whole_masks_are_the_same(dynamic: Engine, static: Engine) -> None:
    (image,) = frames(1)
    (a,), (b,) = dynamic.predict([image]), static.predict([image])
    assert len(a.crops) == len(b.crops) > 0
    for index in range(len(a.crops)):
        left, right = a.mask(index), b.mask(index)
        assert (left & right).sum() >= 0.999 * (left | right).sum()


@pytest.mark.parametrize(
    'changes',
    [
        {'filter.score_threshold': 0.9},
        {'filter.nms_threshold': 0.2},
        {'filter.classes': ['cone', 'ball']},
        {'filter.max_instances': 2},
        {'filter.min_mask_area': 1500},
        {'filter.max_mask_area': 1500},
        {'mask_threshold': 0.3},
        {'resolution.short_side': 200},
        {'proposals': 100},
        {'filter.score_threshold': 1.0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_settings_change_both_alike(
    dynamic: Engine, static: Engine, changes: dict[str, object]
) -> None:
    (image,) = frames(1)
    plain = static.segment([image])[0]
    try:
        for engine in (dynamic, static):
            engine.configure(CONFIG.replace(changes))
        assert_same(dynamic.segment([image])[0], static.segment([image])[0])
    finally:
        for engine in (dynamic, static):
            engine.configure(CONFIG)
    assert_same(plain, static.segment([image])[0])


def test_image_size_and_colour_order_may_change(dynamic: Engine, static: Engine) -> None:
    (image,) = frames(1)
    smaller = Image(np.ascontiguousarray(image.pixels[::2, ::3]), 'bgr')
    swapped = Image(np.ascontiguousarray(image.pixels[..., ::-1]), 'rgb')
    for each in (smaller, swapped, image):
        assert_same(dynamic.segment([each])[0], static.segment([each])[0])


def test_stages_are_in_order(static: Engine) -> None:
    (answer,) = static.segment(frames(1))
    assert list(answer.stage_ms) == [
        'upload',
        'preprocess',
        'backbone',
        'rpn',
        'box_head',
        'filter',
        'packet',
        'mask_head',
        'paste',
        'download',
    ]
    assert all(elapsed >= 0 for elapsed in answer.stage_ms.values())


def test_results_outlive_the_next_frame(static: Engine) -> None:
    first, second = frames(2)
    (kept,) = static.segment([first])
    copy = kept.label_image.copy(), kept.detections.boxes_xyxy.copy()
    static.segment([second])
    np.testing.assert_array_equal(kept.label_image, copy[0])
    np.testing.assert_array_equal(kept.detections.boxes_xyxy, copy[1])


def test_more_instances_than_the_largest_capacity(tmp_path: Path) -> None:
    wanted = CAPACITIES[-1] + 20
    changes = {
        'filter.score_threshold': 0.0,
        'filter.nms_threshold': 1.0,
        'filter.max_instances': wanted,
        'resolution.short_side': 128,
    }
    (image,) = frames(1)
    engine = Engine(CONFIG.replace(changes), static=True)
    (answer,) = engine.segment([image])
    assert answer.counts.detected == wanted


def test_overflow_is_flagged(static: Engine) -> None:
    """With every class of every proposal a candidate, and few that survive, K is too few."""
    changes = {
        'filter.score_threshold': 0.0,
        'filter.nms_threshold': 0.01,
        'proposals': 1000,
        'filter.classes': ['cone'],
    }
    (image,) = frames(1)
    assert static.segment([image])[0].counts.candidate_overflow == 0
    try:
        static.configure(CONFIG.replace(changes))
        assert static.segment([image])[0].counts.candidate_overflow == 1
    finally:
        static.configure(CONFIG)
