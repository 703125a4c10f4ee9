# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""ConvNeXt (Liu et al., 2022), version 1, named as in MMDetection's files.

Its maps lie in channels_last, so that layer norms and fully connected layers work on a view. What
passes from block to block is float32 in every format.

Shapes: N images, C channels, H and W of the map at hand.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnode.model.backbone.layers import LayerNorm, Linear
from segnode.model.backbone_specs import ConvNeXtSpec
from segnode.model.conv import Conv
from segnode.model.maps import PLAIN, MapSteps

EPS = 1e-6


class Block(nn.Module):
    """A depthwise 7x7 convolution, two layers on every pixel, a factor a channel, a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.depthwise_conv = Conv(channels, channels, 7, groups=channels)
        self.norm = LayerNorm(channels, eps=EPS)
        self.pointwise_conv1 = Linear(channels, 4 * channels)
        self.pointwise_conv2 = Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same."""
        y = self.norm(self.depthwise_conv(x).permute(0, 2, 3, 1))
        y = self.pointwise_conv2(F.gelu(self.pointwise_conv1(y)))
        return torch.addcmul(x.permute(0, 2, 3, 1), self.gamma, y).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """The bottom-up path: four stages, each behind its downsampling; norms on what is given."""

    def __init__(self, spec: ConvNeXtSpec) -> None:
        super().__init__()
        self.out_channels = list(spec.channels)
        first = spec.channels[0]
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(Conv(3, first, 4, stride=4, padding=0), LayerNorm(first, eps=EPS))]
        )
        for finer, coarser in zip(spec.channels, spec.channels[1:], strict=False):
            self.downsample_layers.append(
                nn.Sequential(
                    LayerNorm(finer, eps=EPS), Conv(finer, coarser, 2, stride=2, padding=0)
                )
            )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(channels) for _ in range(depth)))
            for depth, channels in zip(spec.depths, spec.channels, strict=True)
        )
        for level, channels in enumerate(spec.channels):
            self.add_module(f'norm{level}', LayerNorm(channels, eps=EPS))

    def forward(self, x: Tensor, steps: MapSteps = PLAIN) -> list[Tensor]:
        """Map (N, 3, H, W), multiples of 32, to four maps, (N, C_l, H / 4.., W / 4..)."""
        maps = []
        for level, stage in enumerate(self.stages.children()):
            for layer in self.downsample_layers[level].children():
                x = layer.of_map(x) if isinstance(layer, LayerNorm) else layer(x)
            x = stage(x.float())
            norm = self.get_submodule(f'norm{level}')
            assert isinstance(norm, LayerNorm)
            maps.append(norm.of_map(x))
        return maps
