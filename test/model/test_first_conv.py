# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The convolution that reads the images, of every family, on images of more channels."""

from __future__ import annotations

import pytest
import torch
from narrow_backbones import SPECS
from random_weights import fill
from seeds import fresh_seeds
from torch import Tensor

from segnode.model.architecture import Architecture
from segnode.model.backbone_specs import BackboneSpec, ResNetSpec
from segnode.model.mask_rcnn import MaskRCNN

BACKBONES: dict[str, BackboneSpec] = {
    **SPECS,
    'resnet': ResNetSpec(width_per_group=4, stem_out_channels=8, res2_out_channels=16),
    'resnext': ResNetSpec(
        num_groups=4, width_per_group=4, stem_out_channels=8, res2_out_channels=16
    ),
}


def narrow(family: str, seed: int) -> MaskRCNN:
    architecture = Architecture(
        backbone=BACKBONES[family],
        fpn_channels=8,
        box_fc_dims=(8,),
        mask_conv_dims=(8, 8, 8, 8),
        num_classes=2,
    )
    model = MaskRCNN(architecture)
    fill(model, seed)
    model.requires_grad_(requires_grad=False)
    model.fold_norms()
    return model


def maps(model: MaskRCNN, x: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        return model.parts(lambda _: None).trunk(x).features


@pytest.mark.parametrize('family', BACKBONES)
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_a_wider_input_gives_the_same(family: str, seed: int) -> None:
    model = narrow(family, seed)
    x = torch.randn((2, 3, 64, 96), generator=torch.Generator().manual_seed(seed))
    expected = maps(model, x)
    assert model.first_conv.in_channels == 3
    for channels in (4, 8):
        model.first_conv.widen_input(channels)
        wide = torch.cat((x, torch.zeros((2, channels - 3, 64, 96))), 1)
        wide = wide.contiguous(memory_format=torch.channels_last)
        # A picture's own channels are taken, too.
        for given in (wide, x):
            for found, wanted in zip(maps(model, given), expected, strict=True):
                tolerance = 1e-5 * float(wanted.abs().max())
                torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


def test_what_lies_in_other_channels_weighs_nothing() -> None:
    model = narrow('resnet', 0)
    x = torch.randn((1, 3, 64, 64))
    expected = maps(model, x)
    # It may hold the weight of before, in another order.
    model.first_conv.fused = lambda conv, x, residual: x
    model.first_conv.widen_input(8)
    wide = torch.cat((x, torch.full((1, 5, 64, 64), 7.0)), 1)
    for found, wanted in zip(maps(model, wide), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
