# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The rendered scenes: what the demo and the training promise of them."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from pycocotools.coco import COCO

from segnode.demo.scene import (
    CLASS_NAMES,
    DEMO_SEEDS,
    MIN_VISIBLE_FRACTION,
    MIN_VISIBLE_PX,
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    Scene,
    SceneFrame,
    coco_annotations,
    mask_boxes,
)

SEEDS = (*TRAIN_SEEDS[:4], *VALIDATION_SEEDS[:4], *DEMO_SEEDS[:4])


@pytest.fixture(scope='module')
def frames() -> list[SceneFrame]:
    """Three frames of each scene, spread over twenty seconds."""
    return [Scene(seed).frame(index) for seed in SEEDS for index in (0, 90, 199)]


def test_seed_ranges_are_disjoint() -> None:
    ranges = (TRAIN_SEEDS, VALIDATION_SEEDS, DEMO_SEEDS)
    assert len(set().union(*map(set, ranges))) == sum(map(len, ranges))


def test_a_frame_depends_on_seed_and_index_alone() -> None:
    scene = Scene(DEMO_SEEDS[0])
    in_order = [frame.image for frame in scene.frames(3)]
    assert np.array_equal(Scene(DEMO_SEEDS[0]).frame(2).image, in_order[2])
    assert np.array_equal(scene.frame(0).image, in_order[0])
    assert not np.array_equal(Scene(DEMO_SEEDS[1]).frame(0).image, in_order[0])


def test_arrays_have_their_shapes_and_types(frames: list[SceneFrame]) -> None:
    for frame in frames:
        count = len(frame.class_ids)
        assert frame.image.shape == (480, 640, 3)
        assert frame.image.dtype == np.uint8
        assert frame.masks.shape == (count, 480, 640)
        assert frame.boxes_xyxy.shape == (count, 4)
        assert frame.boxes_xyxy.dtype == np.float32
        assert len(set(frame.instance_ids.tolist())) == count


def test_every_frame_has_four_instances_or_more(frames: list[SceneFrame]) -> None:
    assert min(len(frame.class_ids) for frame in frames) >= 4


def test_every_class_occurs(frames: list[SceneFrame]) -> None:
    assert len(CLASS_NAMES) >= 5
    assert set(np.concatenate([frame.class_ids for frame in frames])) == set(range(5))


def test_a_fifth_of_the_instances_is_occluded(frames: list[SceneFrame]) -> None:
    occlusion = np.concatenate([frame.occlusion for frame in frames])
    assert np.mean(occlusion > 0.2) >= 0.2
    assert occlusion.min() >= 0
    assert occlusion.max() <= 1 - MIN_VISIBLE_FRACTION


def test_masks_are_big_enough_and_fill_their_boxes(frames: list[SceneFrame]) -> None:
    for frame in frames:
        for mask, box in zip(frame.masks, frame.boxes_xyxy, strict=True):
            assert mask.sum() >= MIN_VISIBLE_PX
            rows, columns = np.nonzero(mask)
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == expected


def test_masks_do_not_overlap(frames: list[SceneFrame]) -> None:
    assert max(frame.masks.sum(axis=0).max() for frame in frames) == 1


def test_masks_follow_the_picture() -> None:
    """Across an outline the colour jumps more than within an object or within the floor."""
    jumps, others = [], []
    for seed in VALIDATION_SEEDS[:6]:
        frame = Scene(seed).frame(0)
        image = frame.image.astype(float)
        step = np.abs(np.diff(image, axis=1)).sum(axis=2)
        outline = np.diff(frame.instance_map.astype(int), axis=1) != 0
        jumps.append(step[outline].mean())
        others.append(step[~outline].mean())
    assert np.mean(jumps) > 2.5 * np.mean(others)


def test_the_scene_moves_smoothly() -> None:
    frames = list(Scene(DEMO_SEEDS[0]).frames(12))
    assert all(one.stamp_ns + 100_000_000 == two.stamp_ns for one, two in pairwise(frames))
    moved = []
    for one, two in pairwise(frames):
        earlier = dict(zip(one.instance_ids.tolist(), one.boxes_xyxy, strict=True))
        moved += [
            np.abs(box - earlier[key]).max()
            for key, box in zip(two.instance_ids.tolist(), two.boxes_xyxy, strict=True)
            if key in earlier
        ]
    assert 0 < np.median(moved) < 20


def test_light_changes_with_time() -> None:
    spread = [
        np.ptp([Scene(seed).frame(index).image.mean() for index in (0, 20, 40)])
        for seed in DEMO_SEEDS[:4]
    ]
    assert max(spread) > 3


def test_another_image_size_shows_the_same_scene() -> None:
    small, large = (Scene(DEMO_SEEDS[0], hw).frame(5) for hw in ((240, 320), (480, 640)))
    assert small.image.shape == (240, 320, 3)
    both = set(small.instance_ids.tolist()) & set(large.instance_ids.tolist())
    assert len(both) >= 4
    for key in both:
        one = small.boxes_xyxy[small.instance_ids == key]
        two = large.boxes_xyxy[large.instance_ids == key]
        assert np.abs(2 * one - two).max() <= 8


def test_boxes_of_no_instance() -> None:
    assert mask_boxes(np.zeros((4, 6), np.uint8), ()).shape == (0, 4)


def test_coco_annotations_are_the_masks(frames: list[SceneFrame]) -> None:
    dataset = json.loads(json.dumps(coco_annotations(frames[:3])))
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    assert [image['id'] for image in dataset['images']] == [0, 1, 2]
    assert [category['name'] for category in dataset['categories']] == list(CLASS_NAMES)
    for image_id, frame in enumerate(frames[:3]):
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        assert [a['category_id'] for a in annotations] == frame.class_ids.tolist()
        for annotation, mask in zip(annotations, frame.masks, strict=True):
            assert np.array_equal(coco.annToMask(annotation).astype(bool), mask)


def test_coco_annotations_of_nothing() -> None:
    assert coco_annotations([])['annotations'] == []
