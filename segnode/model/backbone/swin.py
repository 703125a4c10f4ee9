# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Swin Transformer (Liu et al., 2021), version 1, named as in MMDetection's files.

What passes from block to block is float32 in every format.

Shapes: N images, H and W of the map at hand, C channels, B windows of all images, S side of a
window, P = S * S patches in one, A heads, D channels of each.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnode.model.backbone.layers import MLP, LayerNorm, Linear
from segnode.model.backbone_specs import SwinSpec
from segnode.model.conv import Conv
from segnode.model.maps import PLAIN, MapSteps

EPS = 1e-5
# What attention loses between patches that only the shift has brought into one window.
APART = -100.0


class WindowAttention(nn.Module):
    """Attention among the patches of each window, biased by where they lie to each other.

    Of windows that are shifted, the last column and the last row hold patches of both edges of
    the map, which must not see each other. That gives four biases for maps of any size: inside,
    in the last column, in the last row, and in the corner. They are made once by ``expand``.
    """

    def __init__(self, channels: int, heads: int, side: int, shift: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads, self.side, self.shift = heads, side, shift
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))
        self.qkv = Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = Linear(channels, channels)
        self._expanded: Tensor | None
        self.register_buffer('_expanded', None, persistent=False)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map (B, P, C), the windows of a grid for each image, to the same."""
        b, p, c = x.shape
        q, k, v = self.qkv(x).view(b, p, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        biases = self.biases() if self._expanded is None else self._expanded
        biases = biases.to(q.dtype).unflatten(0, (-1, self.heads))
        if self.shift:
            kind = torch.zeros(
                (b // (grid[0] * grid[1]), *grid), dtype=torch.long, device=x.device
            )
            kind[:, :, -1] += 1
            kind[:, -1] += 2
            biases = biases[kind.flatten()]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=biases)
        mixed: Tensor = self.proj(out.transpose(1, 2).reshape(b, p, c))
        return mixed

    def biases(self) -> Tensor:
        """Return the four biases, or the only one without a shift: (4 A or A, P, P)."""
        table, side = self.relative_position_bias_table, self.side
        patch = torch.arange(side * side, device=table.device)
        row, column = patch // side, patch % side
        down = row[:, None] - row + side - 1
        right = column[:, None] - column + side - 1
        bias = table[down * (2 * side - 1) + right].permute(2, 0, 1)
        if not self.shift:
            return bias
        rows_apart, columns_apart = (
            (at[:, None] >= side - self.shift) != (at >= side - self.shift) for at in (row, column)
        )
        apart = torch.stack(
            [
                torch.zeros_like(rows_apart),
                columns_apart,
                rows_apart,
                rows_apart | columns_apart,
            ]
        )
        return (bias + APART * apart[:, None]).flatten(0, 1)

    @torch.no_grad()
    def expand(self) -> None:
        """Make the biases from the weights, once these are final."""
        # Three dimensions: with four, a change of memory format would reorder them.
        self._expanded = self.biases()


class ShiftedWindows(nn.Module):
    """Cuts a map into windows for their attention; MMDetection's ``ShiftWindowMSA``."""

    def __init__(self, channels: int, heads: int, shifted: bool, spec: SwinSpec) -> None:
        super().__init__()
        self.side = spec.window
        self.shift = spec.window // 2 if shifted else 0
        self.w_msa = WindowAttention(channels, heads, self.side, self.shift, spec.qkv_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to the same."""
        n, h, w, c = x.shape
        side, shift = self.side, self.shift
        # Before it is copied about.
        x = x.to(self.w_msa.qkv.weight.dtype)
        rows, columns = -(-h // side), -(-w // side)
        x = F.pad(x, (0, 0, 0, columns * side - w, 0, rows * side - h))
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
        x = x.view(n, rows, side, columns, side, c).transpose(2, 3).reshape(-1, side * side, c)
        x = self.w_msa(x, (rows, columns))
        x = x.view(n, rows, columns, side, side, c).transpose(2, 3)
        x = x.reshape(n, rows * side, columns * side, c)
        if shift:
            x = x.roll((shift, shift), (1, 2))
        return x[:, :h, :w]


class Block(nn.Module):
    """Attention in windows and two layers on every patch, each with a shortcut."""

    def __init__(self, channels: int, heads: int, shifted: bool, spec: SwinSpec) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels, eps=EPS)
        self.attn = ShiftedWindows(channels, heads, shifted, spec)
        self.norm2 = LayerNorm(channels, eps=EPS)
        self.ffn = MLP(channels, channels * spec.mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) float32 to the same."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.ffn(self.norm2(x))
        return out


class Merging(nn.Module):
    """Each 2 x 2 patches become one of twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm(4 * channels, eps=EPS)
        self.reduction = Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, H / 2, W / 2, 2 C)."""
        n, h, w, c = x.shape
        # By channel, then row, then column, as ``nn.Unfold`` orders them.
        x = x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 5, 2, 4)
        out: Tensor = self.reduction(self.norm(x.reshape(n, h // 2, w // 2, 4 * c)))
        return out


class Stage(nn.Module):
    """Blocks on a map, and what merges its patches for the next stage."""

    def __init__(self, channels: int, depth: int, heads: int, last: bool, spec: SwinSpec) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(Block(channels, heads, index % 2 == 1, spec) for index in range(depth))
        )
        self.downsample = None if last else Merging(channels)


class PatchEmbedding(nn.Module):
    """4x4 pixels become a patch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.projection = Conv(3, channels, 4, stride=4, padding=0)
        self.norm = LayerNorm(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, H / 4, W / 4, C)."""
        out: Tensor = self.norm(self.projection(x).permute(0, 2, 3, 1))
        return out


class Swin(nn.Module):
    """The bottom-up path: four stages, norms on what is given."""

    def __init__(self, spec: SwinSpec) -> None:
        super().__init__()
        self.out_channels = [spec.channels * 2**index for index in range(4)]
        self.patch_embed = PatchEmbedding(spec.channels)
        self.stages = nn.ModuleList(
            Stage(channels, spec.depths[index], spec.heads[index], index == 3, spec)
            for index, channels in enumerate(self.out_channels)
        )
        for level, channels in enumerate(self.out_channels):
            self.add_module(f'norm{level}', LayerNorm(channels, eps=EPS))

    def forward(self, x: Tensor, steps: MapSteps = PLAIN) -> list[Tensor]:
        """Map (N, 3, H, W), multiples of 32, to four maps, (N, C_l, H / 4.., W / 4..)."""
        x = self.patch_embed(x)
        maps = []
        for level, stage in enumerate(self.stages):
            assert isinstance(stage, Stage)
            x = stage.blocks(x)
            maps.append(self.get_submodule(f'norm{level}')(x).permute(0, 3, 1, 2))
            if stage.downsample is not None:
                x = stage.downsample(x).float()
        return maps
