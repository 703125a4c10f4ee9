# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Targets and losses of the training, and the crops they are made for."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from segnode.demo.losses import _mask_targets, _sample_rois, encode_boxes, mask_rcnn_losses
from segnode.demo.scene import TRAIN_SEEDS
from segnode.demo.train import ARCHITECTURE, initialise, normalise
from segnode.demo.training_data import MIN_CROPPED_PX, FramePool, Target
from segnode.model.boxes import decode_boxes
from segnode.model.mask_rcnn import MaskRCNN


@pytest.fixture(scope='module')
def pool(tmp_path_factory: pytest.TempPathFactory) -> FramePool:
    return FramePool.render(tmp_path_factory.mktemp('pool'), TRAIN_SEEDS[:1], workers=1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Whatever the tests before have drawn."""
    torch.manual_seed(0)


def random_boxes(count: int) -> torch.Tensor:
    corner = torch.rand(count, 2) * 200
    return torch.cat((corner, corner + 5 + torch.rand(count, 2) * 100), 1)


@pytest.mark.parametrize('weights', [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_encoding_inverts_decoding(weights: tuple[float, float, float, float]) -> None:
    boxes, origins = random_boxes(50), random_boxes(50)
    deltas = encode_boxes(boxes, origins, weights)
    assert torch.allclose(decode_boxes(deltas, origins, weights), boxes, atol=1e-3)


def test_mask_target_of_a_box_is_its_cut() -> None:
    masks = torch.zeros(2, 40, 60, dtype=torch.bool)
    masks[1, 8:36, 10:24] = True  # the left half of the box below
    boxes = torch.tensor([[10.0, 8, 38, 36], [10, 8, 38, 36]])
    target = _mask_targets(masks, boxes, torch.tensor([1, 0]), 28)
    assert target[0, :, :14].all()
    assert not target[0, :, 14:].any()
    assert not target[1].any()


def test_sampled_rois_are_labelled_by_overlap() -> None:
    target = Target(random_boxes(4), torch.tensor([3, 1, 0, 2]), torch.zeros(4, 1, 1))
    proposals = torch.cat((random_boxes(100), target.boxes + 1))
    rois = _sample_rois(proposals, target, 64)
    best, match = box_iou(rois.boxes, target.boxes).max(1)
    positive = rois.class_ids >= 0
    assert len(rois.boxes) == 64
    assert torch.equal(positive, best >= 0.5)
    assert 4 <= positive.sum() <= 16
    assert torch.equal(rois.class_ids[positive], target.class_ids[match[positive]])


def test_every_loss_is_finite_and_trains_every_layer(pool: FramePool) -> None:
    model = MaskRCNN(ARCHITECTURE)
    initialise(model)
    images, targets = pool.sample(np.random.default_rng(0), 2, (256, 320))
    losses = mask_rcnn_losses(model.train(), normalise(images, ARCHITECTURE), targets, 32)
    for field in fields(losses):
        assert torch.isfinite(getattr(losses, field.name)), field.name
        assert getattr(losses, field.name) > 0, field.name
    losses.total().backward()
    untouched = [name for name, p in model.named_parameters() if p.grad is None]
    assert not untouched


def test_crops_keep_image_and_truth_together(pool: FramePool) -> None:
    rng = np.random.default_rng(1)
    for size_hw in ((256, 320), (352, 480), (480, 640)):
        images, targets = pool.sample(rng, 4, size_hw)
        assert images.shape == (4, 3, *size_hw)
        assert images.dtype == torch.uint8
        for target in targets:
            assert len(target.boxes) == len(target.class_ids) == len(target.masks) > 0
            assert target.masks.shape[1:] == size_hw
            assert target.class_ids.min() >= 0
            for box, mask in zip(target.boxes, target.masks, strict=True):
                rows, columns = np.nonzero(mask.numpy())
                assert len(rows) >= MIN_CROPPED_PX
                expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert box.tolist() == expected


def test_a_pool_is_rendered_once(tmp_path: Path) -> None:
    first = FramePool.render(tmp_path, TRAIN_SEEDS[:1], workers=1)
    stamp = (tmp_path / 'images.npy').stat().st_mtime_ns
    again = FramePool.render(tmp_path, TRAIN_SEEDS[:1], workers=1)
    assert (tmp_path / 'images.npy').stat().st_mtime_ns == stamp
    assert np.array_equal(first.images, again.images)
