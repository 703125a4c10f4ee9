# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""RoIAlign over the pyramid against Detectron2's and torchvision's poolers."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from random_boxes import random_boxes
from seeds import fresh_seeds
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from segnode.kernels.plain.roi_align import roi_align, roi_align_static
from segnode.model.architecture import Pooler
from segnode.model.pooler import assign_levels

IMAGE_HW = (608, 800)
SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
OF_DETECTRON2 = Pooler(resolution=7)
OF_TORCHVISION = Pooler(resolution=7, sampling_ratio=2, aligned=False, levels='torchvision')


def pyramid(generator: torch.Generator, images: int, channels: int = 3) -> list[Tensor]:
    return [
        torch.randn(
            (images, channels, int(IMAGE_HW[0] * scale), int(IMAGE_HW[1] * scale)),
            generator=generator,
        )
        for scale in SCALES
    ]


def some_boxes(generator: torch.Generator, count: int) -> Tensor:
    """Return boxes of all sizes; the last ones are extreme."""
    whole, wide, tall = (0, 0, 800, 608), (0, 300, 800, 303), (400, 0, 402, 608)
    tiny, corner = (17.2, 30.1, 17.3, 30.2), (799, 607, 800, 608)
    extreme = torch.tensor([whole, wide, tall, tiny, corner], dtype=torch.float32)
    return torch.cat((random_boxes(generator, count, IMAGE_HW), extreme))


@pytest.mark.parametrize('seed', fresh_seeds(2))
def test_levels_are_the_references(detectron2: ModuleType, seed: int) -> None:
    from detectron2.modeling.poolers import assign_boxes_to_levels
    from detectron2.structures import Boxes

    generator = torch.Generator().manual_seed(seed)
    boxes = some_boxes(generator, 3000)
    # On the borders between two levels, where rounding decides.
    sides = torch.tensor([56.0, 112.0, 224.0, 448.0, 896.0])
    exact = torch.stack((torch.zeros(5), torch.zeros(5), sides, sides), dim=1)
    boxes = torch.cat((boxes, exact, torch.zeros((1, 4))))
    expected = assign_boxes_to_levels([Boxes(boxes)], 2, 5, 224, 4)
    assert torch.equal(assign_levels(boxes, OF_DETECTRON2), expected)
    assert set(expected.tolist()) == {0, 1, 2, 3}
    expected = LevelMapper(2, 5)([boxes])
    assert torch.equal(assign_levels(boxes, OF_TORCHVISION), expected)
    assert assign_levels(boxes[:10].view(2, 5, 4), OF_DETECTRON2).shape == (2, 5)


@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_levels_beside_a_border_are_the_references(detectron2: ModuleType, seed: int) -> None:
    """Sides a few roundings from where the level changes, and one that was drawn by chance."""
    from detectron2.modeling.poolers import assign_boxes_to_levels
    from detectron2.structures import Boxes

    generator = torch.Generator().manual_seed(seed)
    border = torch.tensor([112.0, 224.0, 448.0]).repeat_interleave(20_000)[:, None]
    shape = torch.exp(torch.rand((len(border), 1), generator=generator) - 0.5)
    off = 1 + 1e-5 * (torch.rand((len(border), 1), generator=generator) - 0.5)
    low = torch.rand((len(border), 2), generator=generator) * 300
    boxes = torch.cat((low, low + torch.cat((border * shape * off, border / shape), 1)), 1)
    drawn = torch.tensor([[563.04065, 99.635635, 797.16003, 313.9533]])
    boxes = torch.cat((boxes, drawn))
    expected = LevelMapper(2, 5)([boxes])
    assert torch.equal(assign_levels(boxes, OF_TORCHVISION), expected)
    assert expected[:-1].view(3, -1).float().std(dim=1).min() > 0, 'no side of a border is empty'
    expected = assign_boxes_to_levels([Boxes(boxes)], 2, 5, 224, 4)
    assert torch.equal(assign_levels(boxes, OF_DETECTRON2), expected)


@pytest.mark.parametrize(('resolution', 'images'), [(7, 1), (14, 3)])
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_pooling_is_detectron2s(
    detectron2: ModuleType, seed: int, resolution: int, images: int
) -> None:
    from detectron2.modeling.poolers import ROIPooler
    from detectron2.structures import Boxes

    generator = torch.Generator().manual_seed(seed)
    features = pyramid(generator, images)
    boxes = [some_boxes(generator, 30) for _ in range(images)]
    expected = ROIPooler(resolution, SCALES, 0, 'ROIAlignV2')(features, [Boxes(b) for b in boxes])
    flat = torch.cat(boxes)
    index = torch.arange(images).repeat_interleave(len(boxes[0]))
    pooler = Pooler(resolution=resolution, sampling_ratio=0, aligned=True, levels='detectron2')
    pooled = roi_align([*features, features[-1][..., ::2, ::2]], flat, index, pooler)
    assert torch.equal(pooled, expected)
    static = roi_align_static(features, flat, index, pooler)
    torch.testing.assert_close(static, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('seed', fresh_seeds(2))
def test_pooling_is_torchvisions(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = pyramid(generator, 2)
    boxes = [some_boxes(generator, 30) for _ in range(2)]
    names = ['0', '1', '2', '3']
    pooler = MultiScaleRoIAlign(names, output_size=7, sampling_ratio=2)
    expected = pooler(dict(zip(names, features, strict=True)), boxes, [IMAGE_HW] * 2)
    flat = torch.cat(boxes)
    index = torch.arange(2).repeat_interleave(len(boxes[0]))
    pooled = roi_align(features, flat, index, OF_TORCHVISION)
    torch.testing.assert_close(pooled, expected, rtol=1e-6, atol=1e-6)
    static = roi_align_static(features, flat, index, OF_TORCHVISION)
    torch.testing.assert_close(static, expected, rtol=1e-5, atol=1e-5)


def test_pooling_nothing() -> None:
    features = pyramid(torch.Generator().manual_seed(0), 1)
    index = torch.zeros(0, dtype=torch.long)
    pooled = roi_align(features, torch.zeros((0, 4)), index, OF_DETECTRON2)
    assert pooled.shape == (0, 3, 7, 7)
