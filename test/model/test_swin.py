# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Swin against torchvision's where the two agree, and against its definition everywhere.

torchvision orders merged patches another way, and shifts nothing in a map of one window's width.
"""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from random_weights import fill, relative
from seeds import fresh_seeds
from torch import Tensor
from torchvision.models.swin_transformer import SwinTransformer

from segnode.model.backbone import build_backbone
from segnode.model.backbone.swin import WindowAttention
from segnode.model.backbone_specs import SwinSpec

NARROW = SwinSpec(depths=(2, 2, 3, 2), heads=(1, 2, 4, 8), channels=12)
WITHOUT_BIAS = SwinSpec(depths=(2, 2, 2, 2), heads=(2, 2, 2, 2), channels=8, qkv_bias=False)


def expand(backbone: torch.nn.Module) -> None:
    for module in backbone.modules():
        if isinstance(module, WindowAttention):
            module.expand()


def reference(w: dict[str, Tensor], x: Tensor, spec: SwinSpec) -> list[Tensor]:
    """Compute the four maps of a Swin Transformer, window by window.

    A padded map's patches are numbered by region, as a shift leaves them: what came from the
    other edge is another region, and is not attended.
    """
    side = spec.window

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[name + '.weight'], w[name + '.bias'])

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[name + '.weight'], w.get(name + '.bias'))

    def regions(length: int, shift: int) -> Tensor:
        at = torch.arange(length)
        return (at >= length - side).long() + (at >= length - shift).long()

    def attend(window: Tensor, region: Tensor, at: str, heads: int) -> Tensor:
        """Mix the (P, C) patches of one window."""
        table = w[at + '.relative_position_bias_table']
        q, k, v = linear(window, at + '.qkv').chunk(3, -1)
        place = [(i // side, i % side) for i in range(side * side)]
        index = [
            [(a[0] - b[0] + side - 1) * (2 * side - 1) + a[1] - b[1] + side - 1 for b in place]
            for a in place
        ]
        apart = region[:, None] != region
        mixed = []
        for head, (one_q, one_k, one_v) in enumerate(
            zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True)
        ):
            logits = one_q @ one_k.T / one_q.shape[-1] ** 0.5 + table[torch.tensor(index), head]
            weights = torch.where(apart, logits - 100, logits).exp()
            mixed.append(weights / weights.sum(1, keepdim=True) @ one_v)
        return linear(torch.cat(mixed, -1), at + '.proj')

    def windows(x: Tensor, at: str, heads: int, shift: int) -> Tensor:
        """Mix the patches of one (H, W, C) map."""
        h, width, c = x.shape
        rows, columns = -(-h // side), -(-width // side)
        padded = torch.zeros((rows * side, columns * side, c), dtype=x.dtype)
        padded[:h, :width] = x
        numbers = regions(rows * side, shift)[:, None] * 3 + regions(columns * side, shift)
        if not shift:
            numbers = torch.zeros_like(numbers)
        padded = torch.roll(padded, (-shift, -shift), (0, 1))
        out = torch.empty_like(padded)
        for row in range(0, rows * side, side):
            for column in range(0, columns * side, side):
                here = (slice(row, row + side), slice(column, column + side))
                mixed = attend(padded[here].reshape(-1, c), numbers[here].flatten(), at, heads)
                out[here] = mixed.view(side, side, c)
        return torch.roll(out, (shift, shift), (0, 1))[:h, :width]

    x = F.conv2d(x, w['patch_embed.projection.weight'], w['patch_embed.projection.bias'], 4)
    x = norm(x.permute(0, 2, 3, 1), 'patch_embed.norm')
    maps = []
    for level, depth in enumerate(spec.depths):
        for block in range(depth):
            at = f'stages.{level}.blocks.{block}'
            shift = side // 2 * (block % 2)
            y = norm(x, at + '.norm1')
            mixed = [windows(one, at + '.attn.w_msa', spec.heads[level], shift) for one in y]
            x = x + torch.stack(mixed)
            y = F.gelu(linear(norm(x, at + '.norm2'), at + '.ffn.layers.0.0'))
            x = x + linear(y, at + '.ffn.layers.1')
        maps.append(norm(x, f'norm{level}').permute(0, 3, 1, 2))
        if level < 3:
            n, h, width, c = x.shape
            unfolded = F.unfold(x.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2)
            x = norm(
                unfolded.view(n, h // 2, width // 2, 4 * c), f'stages.{level}.downsample.norm'
            )
            x = linear(x, f'stages.{level}.downsample.reduction')
    return maps


@pytest.mark.parametrize('spec', [NARROW, WITHOUT_BIAS], ids=['narrow', 'without bias'])
# Patches of the levels: 56x24 to 7x3, all but the last as many windows high; 24x40 to 3x5, which
# 7 never divides; 8x56 to 1x7.
@pytest.mark.parametrize('hw', [(224, 96), (96, 160), (32, 224)])
@pytest.mark.parametrize('seed', fresh_seeds(1))
@torch.inference_mode()
def test_maps_are_the_definitions(seed: int, hw: tuple[int, int], spec: SwinSpec) -> None:
    backbone = build_backbone(spec)
    weights = {name: tensor.double() for name, tensor in fill(backbone, seed).items()}
    x = torch.randn((2, 3, *hw), generator=torch.Generator().manual_seed(seed))
    expected = reference(weights, x.double(), spec)
    before = backbone(x)
    expand(backbone)
    maps = backbone(x.to(memory_format=torch.channels_last))
    for ours, again, theirs in zip(maps, before, expected, strict=True):
        assert relative(ours, theirs) < 1e-5
        assert relative(again, theirs) < 1e-5
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in maps)
    assert [each.shape[1] for each in maps] == backbone.out_channels


def to_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights, and reorder what merges patches from (c, row, column)."""
    names = {
        'patch_embed.projection': 'features.0.0',
        'patch_embed.norm': 'features.0.2',
        'attn.w_msa': 'attn',
        'ffn.layers.0.0': 'mlp.0',
        'ffn.layers.1': 'mlp.3',
    }
    renamed = {}
    for name, tensor in state.items():
        if 'downsample' in name:
            parts = tensor.unflatten(-1, (-1, 2, 2))
            # To (column, row, c).
            tensor = parts.movedim((-1, -2, -3), (-3, -2, -1)).flatten(-3)
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        name = re.sub(r'^stages\.(\d)\.blocks', lambda m: f'features.{2 * int(m[1]) + 1}', name)
        name = re.sub(
            r'^stages\.(\d)\.downsample', lambda m: f'features.{2 * int(m[1]) + 2}', name
        )
        renamed[name.replace('norm3', 'norm')] = tensor
    return renamed


@pytest.mark.parametrize('hw', [(480, 640), (448, 448)])
@pytest.mark.parametrize('seed', fresh_seeds(1))
@torch.inference_mode()
def test_maps_are_torchvisions(seed: int, hw: tuple[int, int]) -> None:
    backbone = build_backbone(NARROW)
    weights = fill(backbone, seed)
    expand(backbone)
    theirs = SwinTransformer([4, 4], 12, [2, 2, 3, 2], [1, 2, 4, 8], [7, 7], num_classes=1).eval()
    missing = theirs.load_state_dict(to_torchvision(weights), strict=False).missing_keys
    assert all(name.endswith('index') or name.startswith('head') for name in missing)
    x = torch.randn((1, 3, *hw), generator=torch.Generator().manual_seed(seed))
    ours = iter(backbone(x))
    y = x
    for index, layer in enumerate(theirs.features):
        y = layer(y)
        if index % 2:
            norm = [weights[f'norm{index // 2}.{key}'] for key in ('weight', 'bias')]
            expected = F.layer_norm(y, y.shape[-1:], *norm).permute(0, 3, 1, 2)
            assert relative(next(ours), expected) < 1e-5
