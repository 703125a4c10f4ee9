# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Anchors against Detectron2's and torchvision's generators."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from segnode.model.anchors import make_anchors
from segnode.model.architecture import TORCHVISION, Architecture, Pooler

PADDED_HW = [(480, 640), (800, 1344), (256, 352), (32, 32), (32, 1024)]
CPU = torch.device('cpu')


def feature_sizes(padded_hw: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the sizes of p2 to p6; p6 is every second pixel of p5."""
    height, width = padded_hw
    sizes = [(height // stride, width // stride) for stride in (4, 8, 16, 32)]
    return [*sizes, ((sizes[3][0] + 1) // 2, (sizes[3][1] + 1) // 2)]


@pytest.mark.parametrize('offset', [0.0, 0.5])
@pytest.mark.parametrize('padded_hw', PADDED_HW)
def test_anchors_are_detectron2s(
    detectron2: ModuleType, padded_hw: tuple[int, int], offset: float
) -> None:
    from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

    architecture = Architecture(
        anchor_sizes=((24, 32), (64, 80.5), (128, 150), (256, 300), (512, 700)),
        anchor_ratios=((0.4, 1.0, 2.5),) * 5,
        anchor_offset=offset,
    )
    generator = DefaultAnchorGenerator(
        sizes=architecture.anchor_sizes,
        aspect_ratios=architecture.anchor_ratios,
        strides=[4, 8, 16, 32, 64],
        offset=offset,
    )
    sizes = feature_sizes(padded_hw)
    assert architecture.feature_hw(padded_hw) == sizes
    expected = generator([torch.zeros((1, 1, *size)) for size in sizes])
    theirs = torch.cat([boxes.tensor for boxes in expected])
    torch.testing.assert_close(make_anchors(architecture, sizes, CPU), theirs, rtol=0, atol=1e-3)


@pytest.mark.parametrize('padded_hw', PADDED_HW)
def test_anchors_are_torchvisions(padded_hw: tuple[int, int]) -> None:
    """There a stride is the padded size over the map's, which is 60 for p6 at 480 pixels."""
    architecture = Architecture(semantics=TORCHVISION)
    sizes = feature_sizes(padded_hw)
    images = ImageList(torch.zeros((1, 3, *padded_hw)), [padded_hw])
    generator = AnchorGenerator(architecture.anchor_sizes, architecture.anchor_ratios)
    (expected,) = generator(images, [torch.zeros((1, 1, *size)) for size in sizes])
    assert torch.equal(make_anchors(architecture, sizes, CPU), expected)


@pytest.mark.parametrize(
    ('box', 'mask'),
    [((8, 16), (8, 16)), ((4, 8, 16, 32), (8, 16)), ((16,), (16,)), ((), ()), ((4, 8, 32), (4,))],
)
def test_heads_are_pooled_from_the_finest_maps(
    box: tuple[int, ...], mask: tuple[int, ...]
) -> None:
    """A pooler finds its maps by their place: others would be read without a word."""
    with pytest.raises(ValueError, match='the finest of the strides'):
        Architecture(
            box_pooler=Pooler(resolution=7, strides=box),
            mask_pooler=Pooler(resolution=14, strides=mask),
        )
    one = Architecture(
        strides=(16,),
        box_pooler=Pooler(resolution=14, strides=(16,)),
        mask_pooler=Pooler(resolution=14, strides=(16,)),
    )
    assert one.pooled_strides == (16,)
