# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a backbone is, apart from its weights: one class a family, whose fields change the answer.

Names in brackets are keys of Detectron2's config, those after them of MMDetection's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetSpec:
    """A ResNet (He et al., 2015) or ResNeXt (Xie et al., 2016).

    Attributes:
        depth: layers: 18, 34, 50, 101 or 152 [RESNETS.DEPTH] depth.
        num_groups: groups of the 3x3 convolutions; 32 makes a ResNeXt [RESNETS.NUM_GROUPS]
            groups.
        width_per_group: bottleneck channels a group in res2 [RESNETS.WIDTH_PER_GROUP] base_width.
        stem_out_channels: channels after the stem [RESNETS.STEM_OUT_CHANNELS] stem_channels.
        res2_out_channels: channels after res2, doubled every stage [RESNETS.RES2_OUT_CHANNELS]
            base_channels.
        stride_in_1x1: the stride sits in the 1x1, not the 3x3 [RESNETS.STRIDE_IN_1X1] style.
        norm: behind every convolution [RESNETS.NORM] norm_cfg.
    """

    depth: int = 50
    num_groups: int = 1
    width_per_group: int = 64
    stem_out_channels: int = 64
    res2_out_channels: int = 256
    stride_in_1x1: bool = True
    norm: Literal['BN', 'GN'] = 'BN'


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNeStSpec:
    """A ResNeSt (Zhang et al., 2020): a ResNet with split attention in place of its 3x3.

    The stem has three convolutions, and average pooling strides: in front of a stage's first
    block's shortcut, and behind its split attention. Batch norms follow all convolutions.

    Attributes:
        depth: layers: 50 or 101.
        radix: splits of each group.
        reduction: by which the attention's hidden layer is narrower than all splits together.
        stem_channels: channels of the stem's first two convolutions; the third has twice as many.
        width: bottleneck channels in res2, doubled every stage; a stage gives four times as many.
    """

    depth: int = 50
    radix: int = 2
    reduction: int = 4
    stem_channels: int = 32
    width: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SwinSpec:
    """A Swin Transformer (Liu et al., 2021), version 1, patches of 4 x 4 pixels.

    Attributes:
        depths: blocks a stage; every second one shifts its windows by half of one.
        heads: of the attention a stage.
        channels: after the patch embedding, doubled every stage.
        window: side of a window in patches.
        mlp_ratio: hidden channels of a block's two layers, in those of its stage.
        qkv_bias: queries, keys and values have a bias.
    """

    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    channels: int = 96
    window: int = 7
    mlp_ratio: int = 4
    qkv_bias: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvNeXtSpec:
    """A ConvNeXt (Liu et al., 2022), version 1.

    Attributes:
        depths: blocks a stage.
        channels: a stage.
    """

    depths: tuple[int, int, int, int] = (3, 3, 9, 3)
    channels: tuple[int, int, int, int] = (96, 192, 384, 768)


RESNET_50: Final = ResNetSpec()
BackboneSpec: TypeAlias = ResNetSpec | ResNeStSpec | SwinSpec | ConvNeXtSpec
