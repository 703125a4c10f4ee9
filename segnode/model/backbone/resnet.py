# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""ResNet and ResNeXt, named and wired as in Detectron2's ``modeling/backbone/resnet.py``.

Shapes: N images, C channels, H and W of the map at hand.
"""

from __future__ import annotations

from torch import Tensor, nn

from segnode.model.architecture import Norm
from segnode.model.backbone_specs import ResNetSpec
from segnode.model.conv import Conv
from segnode.model.maps import PLAIN, MapSteps

BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and -34)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.shortcut = (
            Conv(in_channels, out_channels, 1, stride=stride, norm=norm)
            if in_channels != out_channels
            else None
        )
        self.conv1 = Conv(in_channels, out_channels, 3, stride=stride, norm=norm, relu=True)
        self.conv2 = Conv(out_channels, out_channels, 3, norm=norm, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        out: Tensor = self.conv2(self.conv1(x), shortcut)
        return out


class BottleneckBlock(nn.Module):
    """1x1, 3x3 (grouped for ResNeXt) and 1x1 convolutions and a shortcut."""

    def __init__(
        self,
        in_channels: int,
        bottleneck_channels: int,
        out_channels: int,
        stride: int,
        spec: ResNetSpec,
    ) -> None:
        super().__init__()
        norm = spec.norm
        stride_1x1, stride_3x3 = (stride, 1) if spec.stride_in_1x1 else (1, stride)
        self.shortcut = (
            Conv(in_channels, out_channels, 1, stride=stride, norm=norm)
            if in_channels != out_channels
            else None
        )
        self.conv1 = Conv(
            in_channels, bottleneck_channels, 1, stride=stride_1x1, norm=norm, relu=True
        )
        self.conv2 = Conv(
            bottleneck_channels,
            bottleneck_channels,
            3,
            stride=stride_3x3,
            groups=spec.num_groups,
            norm=norm,
            relu=True,
        )
        self.conv3 = Conv(bottleneck_channels, out_channels, 1, norm=norm, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        out: Tensor = self.conv3(self.conv2(self.conv1(x)), shortcut)
        return out


class Stem(nn.Module):
    """7x7 convolution and max pooling: stride 4."""

    def __init__(self, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = Conv(3, out_channels, 7, stride=2, norm=norm, relu=True)

    def forward(self, x: Tensor, steps: MapSteps = PLAIN) -> Tensor:
        """Map (N, 3, H, W) to (N, C, H / 4, W / 4)."""
        return steps.max_pool(self.conv1(x), kernel=3, stride=2, padding=1)


class ResNet(nn.Module):
    """The bottom-up path: stem and four stages, strides 4, 8, 16, 32."""

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        self.stem = Stem(spec.stem_out_channels, spec.norm)
        in_channels = spec.stem_out_channels
        out_channels = spec.res2_out_channels
        bottleneck = spec.num_groups * spec.width_per_group
        self.out_channels: list[int] = []
        for index, blocks in enumerate(BLOCKS_PER_STAGE[spec.depth]):
            stage = nn.Sequential()
            for block in range(blocks):
                stride = 2 if index > 0 and block == 0 else 1
                stage.append(
                    BasicBlock(in_channels, out_channels, stride, spec.norm)
                    if spec.depth < 50
                    else BottleneckBlock(in_channels, bottleneck, out_channels, stride, spec)
                )
                in_channels = out_channels
            self.add_module(f'res{index + 2}', stage)
            self.out_channels.append(out_channels)
            out_channels *= 2
            bottleneck *= 2

    def forward(self, x: Tensor, steps: MapSteps = PLAIN) -> list[Tensor]:
        """Map (N, 3, H, W) to res2..res5, each (N, C_l, H / 2^l, W / 2^l)."""
        x = self.stem(x, steps)
        stages = []
        for name in ('res2', 'res3', 'res4', 'res5'):
            x = self.get_submodule(name)(x)
            stages.append(x)
        return stages
