# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Box arithmetic against Detectron2 and torchvision."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from random_boxes import random_boxes
from seeds import fresh_seeds
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import clip_boxes_to_image

from segnode.model.boxes import box_sides, clip_boxes, decode_boxes, top_k

IMAGE_HW = (480, 641)
WEIGHTS = [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)]


@pytest.mark.parametrize('weights', WEIGHTS)
@pytest.mark.parametrize('seed', fresh_seeds(3))
def test_decode_boxes_is_detectron2s_and_torchvisions(
    detectron2: ModuleType, seed: int, weights: tuple[float, float, float, float]
) -> None:
    from detectron2.modeling.box_regression import Box2BoxTransform

    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(generator, 500, IMAGE_HW)
    # Some deltas would blow a box up without the clamp.
    deltas = torch.randn((500, 4), generator=generator) * 8
    decoded = decode_boxes(deltas, boxes, weights)
    expected = Box2BoxTransform(weights=weights).apply_deltas(deltas, boxes)
    torch.testing.assert_close(decoded, expected, rtol=0, atol=1e-2)
    small = expected.abs().amax(1) < 2000
    torch.testing.assert_close(decoded[small], expected[small], rtol=0, atol=1e-3)
    torchvision = BoxCoder(weights).decode_single(deltas, boxes)
    torch.testing.assert_close(decoded[small], torchvision[small], rtol=0, atol=1e-3)


def test_decode_boxes_computes_half_deltas_in_float32_and_broadcasts() -> None:
    boxes = torch.tensor([[1000.0, 900.0, 1300.0, 1100.0]])
    deltas = torch.tensor([[[0.1, -0.2, 0.3, 0.1]], [[0.0, 0.0, 0.0, 0.0]]])
    half = decode_boxes(deltas.half(), boxes, WEIGHTS[0])
    assert half.dtype == torch.float32
    assert half.shape == (2, 1, 4)
    torch.testing.assert_close(half, decode_boxes(deltas, boxes, WEIGHTS[0]), rtol=0, atol=0.1)
    torch.testing.assert_close(half[1], boxes)


def test_decode_boxes_of_nothing() -> None:
    assert decode_boxes(torch.zeros((0, 4)), torch.zeros((0, 4)), WEIGHTS[0]).shape == (0, 4)


@pytest.mark.parametrize('seed', fresh_seeds(2))
def test_clip_boxes_is_detectron2s_and_torchvisions(detectron2: ModuleType, seed: int) -> None:
    from detectron2.structures import Boxes

    generator = torch.Generator().manual_seed(seed)
    boxes = torch.randn((300, 4), generator=generator) * 700
    clipped = clip_boxes(boxes, IMAGE_HW)
    expected = Boxes(boxes.clone())
    expected.clip(IMAGE_HW)
    assert torch.equal(clipped, expected.tensor)
    assert torch.equal(clipped, clip_boxes_to_image(boxes, IMAGE_HW))
    width, height = box_sides(boxes.view(3, 100, 4))
    assert torch.equal(width.flatten(), boxes[:, 2] - boxes[:, 0])
    assert torch.equal(height.flatten(), boxes[:, 3] - boxes[:, 1])


@pytest.mark.parametrize('count', [1, 7, 5000])
@pytest.mark.parametrize('seed', fresh_seeds(2))
def test_top_k_breaks_ties_by_index(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn((3, count), generator=generator)
    # Half precision ties often, also across the sign of zero.
    scores = ((scores * 4).round() / 4).where(scores > -1, -torch.inf)
    k = min(count, 4000)
    values, index = top_k(scores, k)
    expected, order = scores.sort(dim=1, descending=True, stable=True)
    assert torch.equal(index, order[:, :k])
    assert torch.equal(values, expected[:, :k])


def test_top_k_orders_every_kind_of_number() -> None:
    scores = torch.tensor([-0.0, 0.0, -1e-45, 1e-45, -3e38, 3e38, -torch.inf, torch.inf, -1.0])
    _, index = top_k(scores, len(scores))
    assert index.tolist() == [7, 5, 3, 0, 1, 2, 8, 4, 6]
