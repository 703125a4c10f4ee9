# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""ConvNeXt against its own definition, in float64 and channels last, and torchvision's stages."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from random_weights import fill, relative
from seeds import fresh_seeds
from torch import Tensor, nn
from torchvision.models.convnext import CNBlock

from segnode.model.backbone import build_backbone
from segnode.model.backbone_specs import ConvNeXtSpec

NARROW = ConvNeXtSpec(depths=(1, 2, 1, 1), channels=(16, 32, 48, 80))


def reference(w: dict[str, Tensor], x: Tensor, spec: ConvNeXtSpec) -> list[Tensor]:
    """Compute the four maps of ConvNeXt (N, C, H, W) in the format of what is given."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = ((x - mean) ** 2).mean(1, keepdim=True)
        x = (x - mean) / (variance + 1e-6).sqrt()
        return x * w[name + '.weight'][:, None, None] + w[name + '.bias'][:, None, None]

    def conv(x: Tensor, name: str, stride: int) -> Tensor:
        return F.conv2d(x, w[name + '.weight'], w[name + '.bias'], stride)

    def pointwise(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, w[name + '.weight'][..., None, None], w[name + '.bias'])

    maps = []
    for level, depth in enumerate(spec.depths):
        at = f'downsample_layers.{level}'
        if level:
            x = conv(norm(x, at + '.0'), at + '.1', 2)
        else:
            x = norm(conv(x, at + '.0', 4), at + '.1')
        for block in range(depth):
            at = f'stages.{level}.{block}'
            weight, bias = (w[f'{at}.depthwise_conv.{key}'] for key in ('weight', 'bias'))
            y = F.conv2d(x, weight, bias, padding=3, groups=x.shape[1])
            y = pointwise(norm(y, at + '.norm'), at + '.pointwise_conv1')
            y = pointwise(y * (1 + torch.erf(y / 2**0.5)) / 2, at + '.pointwise_conv2')
            x = x + w[at + '.gamma'][:, None, None] * y
        maps.append(norm(x, f'norm{level}'))
    return maps


# Small pixels leave the first norm variances by which its epsilon counts.
@pytest.mark.parametrize('scale', [1.0, 0.01])
@pytest.mark.parametrize('seed', fresh_seeds(1))
@torch.inference_mode()
def test_maps_are_the_definitions(seed: int, scale: float) -> None:
    backbone = build_backbone(NARROW)
    weights = {name: tensor.double() for name, tensor in fill(backbone, seed).items()}
    x = torch.randn((2, 3, 96, 160), generator=torch.Generator().manual_seed(seed)) * scale
    expected = reference(weights, x.double(), NARROW)
    for given in (x, x.to(memory_format=torch.channels_last)):
        maps = backbone(given)
        for ours, theirs in zip(maps, expected, strict=True):
            assert relative(ours, theirs) < 1e-5
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in maps)
    assert [each.shape[1] for each in maps] == backbone.out_channels
    assert [each.shape[-1] for each in maps] == [40, 20, 10, 5]


@pytest.mark.parametrize('seed', fresh_seeds(1))
@torch.inference_mode()
def test_block_is_torchvisions(seed: int) -> None:
    backbone = build_backbone(NARROW)
    weights = fill(backbone, seed)
    block = CNBlock(32, layer_scale=1.0, stochastic_depth_prob=0.0, norm_layer=norm_layer)
    layers = ('depthwise_conv', 'norm', 'pointwise_conv1', 'pointwise_conv2')
    renamed = {
        f'block.{index}.{key}': weights[f'stages.1.1.{layer}.{key}']
        for index, layer in zip((0, 2, 3, 5), layers, strict=True)
        for key in ('weight', 'bias')
    }
    gamma = weights['stages.1.1.gamma'][:, None, None]
    block.load_state_dict({**renamed, 'layer_scale': gamma})
    x = torch.randn((2, 32, 13, 17), generator=torch.Generator().manual_seed(seed))
    ours = backbone.get_submodule('stages.1.1')(x)
    assert relative(ours, block.eval()(x)) < 1e-5


def norm_layer(channels: int) -> nn.LayerNorm:
    return nn.LayerNorm(channels, eps=1e-6)
