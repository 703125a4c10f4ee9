# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""ResNeSt (Zhang et al., 2020), in Detectron2's way of naming a ResNet.

Shapes: N images, C channels, H and W of the map at hand.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnode.model.backbone.resnet import BLOCKS_PER_STAGE
from segnode.model.backbone_specs import ResNeStSpec
from segnode.model.conv import Conv
from segnode.model.maps import PLAIN, MapSteps

# The attention's hidden layer is never narrower.
LEAST_HIDDEN = 32


class SplitAttention(nn.Module):
    """A grouped 3x3 convolution gives ``radix`` splits; what all of them hold weights each."""

    def __init__(self, channels: int, spec: ResNeStSpec) -> None:
        super().__init__()
        self.radix = spec.radix
        splits = channels * spec.radix
        hidden = max(splits // spec.reduction, LEAST_HIDDEN)
        self.conv = Conv(channels, splits, 3, groups=spec.radix, norm='BN', relu=True)
        self.fc1 = Conv(channels, hidden, 1, bias=True, norm='BN', relu=True)
        self.fc2 = Conv(hidden, splits, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same."""
        x = self.conv(x)
        # Means in float32: half precision cannot sum a map. That of the splits' sum is the sum
        # of theirs.
        means = x.mean((2, 3), keepdim=True, dtype=torch.float32).unflatten(1, (self.radix, -1))
        logits = self.fc2(self.fc1(means.sum(1))).unflatten(1, (self.radix, -1)).float()
        weights = (logits.softmax(1) if self.radix > 1 else logits.sigmoid()).to(x.dtype)
        splits = x.chunk(self.radix, 1)
        out: Tensor = splits[0] * weights[:, 0]
        for index, split in enumerate(splits[1:], start=1):
            out = torch.addcmul(out, split, weights[:, index])
        return out


class Block(nn.Module):
    """1x1, split attention and 1x1 and a shortcut; average pooling strides."""

    def __init__(
        self,
        in_channels: int,
        bottleneck_channels: int,
        out_channels: int,
        stride: int,
        spec: ResNeStSpec,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.shortcut = (
            Conv(in_channels, out_channels, 1, norm='BN') if in_channels != out_channels else None
        )
        self.conv1 = Conv(in_channels, bottleneck_channels, 1, norm='BN', relu=True)
        self.conv2 = SplitAttention(bottleneck_channels, spec)
        self.conv3 = Conv(bottleneck_channels, out_channels, 1, norm='BN', relu=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        y = self.conv2(self.conv1(x))
        if self.stride > 1:
            y = F.avg_pool2d(y, 3, self.stride, padding=1)
            x = F.avg_pool2d(x, self.stride)
        shortcut = x if self.shortcut is None else self.shortcut(x)
        out: Tensor = self.conv3(y, shortcut)
        return out


class Stem(nn.Module):
    """Three 3x3 convolutions and max pooling: stride 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv(3, channels, 3, stride=2, norm='BN', relu=True)
        self.conv2 = Conv(channels, channels, 3, norm='BN', relu=True)
        self.conv3 = Conv(channels, 2 * channels, 3, norm='BN', relu=True)

    def forward(self, x: Tensor, steps: MapSteps = PLAIN) -> Tensor:
        """Map (N, 3, H, W) to (N, C, H / 4, W / 4)."""
        x = self.conv3(self.conv2(self.conv1(x)))
        return steps.max_pool(x, kernel=3, stride=2, padding=1)


class ResNeSt(nn.Module):
    """The bottom-up path: stem and four stages, strides 4, 8, 16, 32."""

    def __init__(self, spec: ResNeStSpec) -> None:
        super().__init__()
        self.stem = Stem(spec.stem_channels)
        in_channels = 2 * spec.stem_channels
        self.out_channels = [4 * spec.width * 2**index for index in range(4)]
        for index, blocks in enumerate(BLOCKS_PER_STAGE[spec.depth]):
            stage = nn.Sequential()
            out_channels = self.out_channels[index]
            for block in range(blocks):
                stride = 2 if index > 0 and block == 0 else 1
                stage.append(Block(in_channels, out_channels // 4, out_channels, stride, spec))
                in_channels = out_channels
            self.add_module(f'res{index + 2}', stage)

    def forward(self, x: Tensor, steps: MapSteps = PLAIN) -> list[Tensor]:
        """Map (N, 3, H, W) to res2..res5, each (N, C_l, H / 2^l, W / 2^l)."""
        x = self.stem(x, steps)
        stages = []
        for name in ('res2', 'res3', 'res4', 'res5'):
            x = self.get_submodule(name)(x)
            stages.append(x)
        return stages
