# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""From frames on the device to the network's input in plain PyTorch: one shape, no host stop.

Shapes: N frames, H and W of a frame, H' and W' of the padded network input.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segnode.kernels.resampling import (
    COLOURS,
    COLUMN_SHIFT,
    COLUMNS,
    PRECISION_BITS,
    ROW_SHIFT,
    ROWS,
    SUM_SHIFT,
    BlendTable,
    PreprocessPlan,
    ResampleTable,
    unknown_rule,
)


def preprocess_static(
    frames: Tensor,
    plan: PreprocessPlan,
    mean: Tensor,
    std: Tensor,
    swap: bool,
    dtype: torch.dtype,
    channels: int = COLOURS,
) -> Tensor:
    """Resize, reorder, normalise and pad, as ``segnode.kernels.preprocess.preprocess`` does.

    Args:
        frames: (N, H, W, 3) uint8, contiguous.
        plan: of the frames' size.
        mean: (3,) float32, in the network's order of channels.
        std: (3,) float32.
        swap: the frames' order of channels is the reverse of the network's.
        dtype: of the result; computed in float32.
        channels: C of the result; those beyond the colours are zero.

    Returns:
        (N, C, H', W'), channels_last; the padding is zero, at the bottom and on the right.
    """
    x = _resize(frames, plan)
    if swap:
        x = x.flip(-1)
    x = (x.float() - mean) / std
    x = x.permute(0, 3, 1, 2)
    if plan.resize == 'torchvision' and plan.image_hw != plan.size_hw:
        x = F.interpolate(x, size=plan.size_hw, mode='bilinear', align_corners=False)
    (height, width), (padded_h, padded_w) = plan.size_hw, plan.padded_hw
    x = F.pad(x.to(dtype), (0, padded_w - width, 0, padded_h - height, 0, channels - COLOURS))
    return x.contiguous(memory_format=torch.channels_last)


def _resize(frames: Tensor, plan: PreprocessPlan) -> Tensor:
    """Resize (N, H, W, 3) uint8 where the rule does so before it normalises."""
    if plan.blend is not None:
        return _blend(frames, *plan.blend)
    if plan.last is not None:
        x = frames
        for table in plan.passes:
            x = _resample(x, table)
        return x if plan.last.source == plan.last.taps.shape[1] else _resample(x, plan.last)
    if plan.resize != 'torchvision':
        raise unknown_rule(plan.resize)
    return frames


def _blend(x: Tensor, rows: BlendTable, columns: BlendTable) -> Tensor:
    """Resize (N, H, W, 3) uint8 as OpenCV does; the answer is in 0..255 and int32."""
    left, right = (
        x.index_select(COLUMNS, index).int().mul_(weight[:, None])
        for index, weight in zip(columns.neighbours, columns.weights, strict=True)
    )
    across = left.add_(right) >> COLUMN_SHIFT
    upper, lower = (
        across.index_select(ROWS, index).mul_(weight[:, None, None]) >> ROW_SHIFT
        for index, weight in zip(rows.neighbours, rows.weights, strict=True)
    )
    return upper.add_(lower).add_(1 << (SUM_SHIFT - 1)) >> SUM_SHIFT


def _resample(x: Tensor, table: ResampleTable) -> Tensor:
    """Resample one dimension of (N, H, W, 3) uint8."""
    shape = list(x.shape)
    shape[table.dim] = table.taps.shape[1]
    half = 1 << (PRECISION_BITS - 1)
    total = torch.full(shape, half, dtype=torch.int32, device=x.device)
    for pixels, weight in zip(table.taps, table.weights, strict=True):
        weight = weight[:, None, None] if table.dim == ROWS else weight[:, None]
        total.addcmul_(x.index_select(table.dim, pixels).int(), weight)
    return (total >> PRECISION_BITS).clamp_(0, 255).to(torch.uint8)
