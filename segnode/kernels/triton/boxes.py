# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the kernels that select boxes share: the arithmetic on boxes."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def on_device(value: float | Tensor, like: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a limit as a scalar on the device, where it mostly is already."""
    if isinstance(value, Tensor):
        return value
    return torch.full((), value, dtype=dtype, device=like.device)


@triton.jit
def decode_box(
    moves,
    origin,
    there,
    weight_x,
    weight_y,
    weight_w,
    weight_h,
    width,
    height,
    clamp,
    clamp_shrinking: tl.constexpr,
):
    """Return x0, y0, x1, y1, clipped to the image, and whether all were numbers before.

    ``moves`` and ``origin`` point to the four deltas and to the box of each, see
    ``segnode.model.boxes.decode_boxes``. What is no number is 0.
    """
    x0 = tl.load(origin, mask=there, other=0.0)
    y0 = tl.load(origin + 1, mask=there, other=0.0)
    old_w = tl.load(origin + 2, mask=there, other=0.0) - x0
    old_h = tl.load(origin + 3, mask=there, other=0.0) - y0
    dx = tl.load(moves, mask=there, other=0.0).to(tl.float32)
    dy = tl.load(moves + 1, mask=there, other=0.0).to(tl.float32)
    dw = tl.load(moves + 2, mask=there, other=0.0).to(tl.float32)
    dh = tl.load(moves + 3, mask=there, other=0.0).to(tl.float32)
    center_x = tl.div_rn(dx, tl.zeros_like(dx) + weight_x) * old_w + (x0 + 0.5 * old_w)
    center_y = tl.div_rn(dy, tl.zeros_like(dy) + weight_y) * old_h + (y0 + 0.5 * old_h)
    half_w = 0.5 * tl.exp(_clamped(dw, weight_w, clamp, clamp_shrinking)) * old_w
    half_h = 0.5 * tl.exp(_clamped(dh, weight_h, clamp, clamp_shrinking)) * old_h
    left, left_is = _clipped(center_x - half_w, width)
    top, top_is = _clipped(center_y - half_h, height)
    right, right_is = _clipped(center_x + half_w, width)
    bottom, bottom_is = _clipped(center_y + half_h, height)
    return left, top, right, bottom, left_is & top_is & right_is & bottom_is


@triton.jit
def _clamped(delta, weight, clamp, clamp_shrinking: tl.constexpr):
    """Divide by the weight and bound; a minimum would make a number of what is none."""
    moved = tl.div_rn(delta, tl.zeros_like(delta) + weight)
    moved = tl.where(moved > clamp, clamp, moved)
    if clamp_shrinking:
        moved = tl.where(moved < -clamp, -clamp, moved)
    return moved


@triton.jit
def _clipped(position, size):
    """Return a coordinate within 0 and ``size``, and whether it was a number."""
    finite = tl.abs(position) < float('inf')
    return tl.minimum(tl.maximum(tl.where(finite, position, 0.0), 0.0), size), finite


@triton.jit
def store_box(target, left, top, right, bottom, there):
    """Store xyxy boxes."""
    tl.store(target, left, mask=there)
    tl.store(target + 1, top, mask=there)
    tl.store(target + 2, right, mask=there)
    tl.store(target + 3, bottom, mask=there)
