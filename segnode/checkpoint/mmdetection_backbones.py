# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Backbones as MMDetection's configs describe them (its own, and ``mmpretrain``'s ConvNeXt)."""

from __future__ import annotations

from typing import Final, Literal

from segnode.checkpoint.config_part import REQUIRED, ConfigPart
from segnode.model.backbone_specs import (
    BackboneSpec,
    ConvNeXtSpec,
    ResNeStSpec,
    ResNetSpec,
    SwinSpec,
)
from segnode.model.conv import GROUPS

# Of norms where a config does not say another: PyTorch's, and that of mmpretrain's ConvNeXt.
NORM_EPS: Final = 1e-5
_CONVNEXT_EPS: Final = 1e-6
# Far above those of any model: ConvNeXt's largest have 27 blocks a stage and 2816 channels.
_MOST_BLOCKS: Final = 64
_MOST_CHANNELS: Final = 4096
_BATCH_NORMS: Final = ('BN', 'BN2d', 'SyncBN', 'MMSyncBN', 'NaiveSyncBN')
_EXPECTED: Final = "'ResNet', 'ResNeXt', 'ResNeSt', 'SwinTransformer' or 'mmpretrain.ConvNeXt'"
_CONVNEXTS: Final = {
    'atto': ((2, 2, 6, 2), (40, 80, 160, 320)),
    'femto': ((2, 2, 6, 2), (48, 96, 192, 384)),
    'pico': ((2, 2, 6, 2), (64, 128, 256, 512)),
    'nano': ((2, 2, 8, 2), (80, 160, 320, 640)),
    'tiny': ((3, 3, 9, 3), (96, 192, 384, 768)),
    'small': ((3, 3, 27, 3), (96, 192, 384, 768)),
    'base': ((3, 3, 27, 3), (128, 256, 512, 1024)),
    'large': ((3, 3, 27, 3), (192, 384, 768, 1536)),
    'xlarge': ((3, 3, 27, 3), (256, 512, 1024, 2048)),
    'huge': ((3, 3, 27, 3), (352, 704, 1408, 2816)),
}


def read_backbone(part: ConfigPart) -> BackboneSpec:
    """Return what ``model.backbone`` describes.

    Raises:
        ConfigError: a key asks for another backbone, or is not known.
    """
    kind = part.kind(
        _EXPECTED, *('ResNet', 'ResNeXt', 'ResNeSt', 'SwinTransformer', 'mmpretrain.ConvNeXt')
    )
    part.ignore('frozen_stages', 'with_cp')
    part.only('in_channels', 3)
    spec: BackboneSpec
    if kind == 'SwinTransformer':
        spec = _swin(part)
    elif kind == 'ConvNeXt':
        spec = _convnext(part)
    else:
        spec = _resnet(part, kind)
    part.end()
    return spec


def read_norm(part: ConfigPart, default: str, *widths: int) -> Literal['', 'BN', 'GN']:
    """Return the norm that ``norm_cfg`` puts behind a part's convolutions.

    Args:
        part: has ``norm_cfg``.
        default: where it has none.
        widths: channels that a group norm would divide.

    Raises:
        ConfigError: it is another norm, or has another epsilon or number of groups.
    """
    if not part.has('norm_cfg'):
        part.ignore('norm_cfg')
        return 'BN' if default == 'BN' else ''
    norm = part.part('norm_cfg')
    norm.ignore('requires_grad', 'momentum')
    norm.only('eps', NORM_EPS)
    kind = norm.kind("'BN', 'SyncBN' or 'GN'", *_BATCH_NORMS, 'GN')
    if kind == 'GN':
        norm.only('num_groups', REQUIRED, GROUPS)
        if odd := [width for width in widths if width % GROUPS]:
            raise norm.error('type', f"a norm for {odd[0]} channels ('GN' takes {GROUPS} groups)")
    norm.end()
    return 'GN' if kind == 'GN' else 'BN'


def _resnet(part: ConfigPart, kind: str) -> ResNetSpec | ResNeStSpec:
    """Return a ResNet or what is made from one; its subclasses take its keys, too."""
    part.ignore('norm_eval', 'zero_init_residual', 'stage_with_dcn')
    part.only('num_stages', 4)
    part.only('strides', (1, 2, 2, 2))
    part.only('dilations', (1, 1, 1, 1))
    part.only('out_indices', (0, 1, 2, 3))
    part.only('conv_cfg', None, {'type': 'Conv'}, {'type': 'Conv2d'})
    part.only('dcn', None, hint='deformable convolutions are not run')
    part.only('plugins', None)
    if kind == 'ResNeSt':
        return _resnest(part)
    part.only('deep_stem', False, hint='ResNetV1d is not run')
    part.only('avg_down', False, hint='ResNetV1d is not run')
    depths = (18, 34, 50, 101, 152) if kind == 'ResNet' else (50, 101, 152)
    depth = part.choice('depth', REQUIRED, *depths)
    style = part.choice('style', 'pytorch', 'pytorch', 'caffe')
    base = part.integer('base_channels', 64, 1, 4096)
    stem = part.integer('stem_channels', None, 1, 4096) if part.has('stem_channels') else base
    part.ignore('stem_channels')
    groups, width = 1, base
    if kind == 'ResNeXt':
        groups = part.integer('groups', 1, 1, 4096)
        # At other base channels MMDetection rounds the width.
        part.only('base_channels', 64)
        width = part.integer('base_width', 4, 1, 4096) if groups > 1 else base
        part.ignore('base_width')
    bottleneck = depth >= 50
    norm = read_norm(part, 'BN', stem, base, groups * width)
    return ResNetSpec(
        depth=depth,
        num_groups=groups,
        width_per_group=width,
        stem_out_channels=stem,
        res2_out_channels=base * 4 if bottleneck else base,
        # A block of two 3x3 convolutions has but one place for it.
        stride_in_1x1=style == 'caffe' and bottleneck,
        norm='GN' if norm == 'GN' else 'BN',
    )


def _resnest(part: ConfigPart) -> ResNeStSpec:
    part.ignore('base_width')  # of more groups than one
    part.only('groups', 1)
    part.only('avg_down_stride', True)
    part.only('style', 'pytorch')
    base = part.integer('base_channels', 64, 1, _MOST_CHANNELS // 8)
    stem = (
        part.integer('stem_channels', None, 2, _MOST_CHANNELS // 8)
        if part.has('stem_channels')
        else base
    )
    part.ignore('stem_channels')
    if read_norm(part, 'BN') != 'BN':
        raise part.error('norm_cfg', "'BN' or 'SyncBN'")
    return ResNeStSpec(
        depth=part.choice('depth', REQUIRED, 50, 101),
        radix=part.integer('radix', 2, 1, 16),
        reduction=part.integer('reduction_factor', 4, 1, 64),
        # MMDetection counts those of the third convolution.
        stem_channels=stem // 2,
        width=base,
    )


def _swin(part: ConfigPart) -> SwinSpec:
    part.ignore('pretrain_img_size', 'convert_weights')
    part.ignore('drop_rate', 'attn_drop_rate', 'drop_path_rate')
    part.only('patch_size', 4)
    part.only('strides', (4, 2, 2, 2))
    part.only('out_indices', (0, 1, 2, 3))
    part.only('qk_scale', None)
    part.only('patch_norm', True)
    part.only('use_abs_pos_embed', False)
    part.only('act_cfg', {'type': 'GELU'})
    _layer_norm(part, 'LN', NORM_EPS)
    heads = part.integers('num_heads', (3, 6, 12, 24), 4, _MOST_CHANNELS)
    channels = part.integer('embed_dims', 96, 1, _MOST_CHANNELS // 8)
    if any(channels * 2**stage % count for stage, count in enumerate(heads)):
        raise part.error('num_heads', 'numbers that divide the channels of their stages')
    depths = part.integers('depths', (2, 2, 6, 2), 4, _MOST_BLOCKS)
    return SwinSpec(
        depths=(depths[0], depths[1], depths[2], depths[3]),
        heads=(heads[0], heads[1], heads[2], heads[3]),
        channels=channels,
        window=part.integer('window_size', 7, 1, 64),
        mlp_ratio=part.integer('mlp_ratio', 4, 1, 16),
        qkv_bias=part.flag('qkv_bias', True),
    )


def _convnext(part: ConfigPart) -> ConvNeXtSpec:
    part.ignore('drop_path_rate')
    part.only('stem_patch_size', 4)
    part.only('act_cfg', {'type': 'GELU'})
    part.only('linear_pw_conv', True)
    part.only('use_grn', False, hint='ConvNeXt V2 is not run')
    part.number('layer_scale_init_value', 1e-6, 1e-30, 1e9)
    part.only('out_indices', REQUIRED, (0, 1, 2, 3))
    part.only('gap_before_final_norm', REQUIRED, False)
    _layer_norm(part, 'LN2d', _CONVNEXT_EPS)
    arch = part.value('arch', 'tiny', 'a name or a dict')
    if isinstance(arch, dict):
        given = part.part('arch')
        depths = given.integers('depths', REQUIRED, 4, _MOST_BLOCKS)
        channels = given.integers('channels', REQUIRED, 4, _MOST_CHANNELS)
        given.end()
    else:
        depths, channels = _CONVNEXTS[part.choice('arch', 'tiny', *_CONVNEXTS)]
    return ConvNeXtSpec(
        depths=(depths[0], depths[1], depths[2], depths[3]),
        channels=(channels[0], channels[1], channels[2], channels[3]),
    )


def _layer_norm(part: ConfigPart, kind: str, eps: float) -> None:
    """Refuse another norm than that of the family."""
    if not part.has('norm_cfg'):
        part.ignore('norm_cfg')
        return
    norm = part.part('norm_cfg')
    norm.ignore('requires_grad')
    norm.kind(repr(kind), kind)
    # A config that gives the norm gives its epsilon, too, or has PyTorch's.
    if norm.number('eps', NORM_EPS, 0, 1) != eps:
        raise norm.error('eps', f'{eps:g}')
    norm.end()
