# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Arithmetic on boxes: xyxy, float32, pixels of the image at hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

# Largest dw and dh: what is 16 px wide becomes at most 1000 px (Detectron2, torchvision).
SCALE_CLAMP = math.log(1000.0 / 16)

# Of PyTorch 2.7; without it nothing is exported whole (segnode/torch_features.py).
_is_exporting: Callable[[], bool] = getattr(torch.compiler, 'is_exporting', lambda: False)


def decode_boxes(
    deltas: Tensor,
    boxes: Tensor,
    weights: tuple[float, float, float, float],
    *,
    clamp_shrinking: bool = False,
) -> Tensor:
    """Apply regression deltas to boxes (``Box2BoxTransform.apply_deltas``).

    MMDetection's ``delta2bbox`` is the same with ``clamp_shrinking``.

    Args:
        deltas: (..., 4) dx, dy, dw, dh of any float dtype; computed in float32.
        boxes: (..., 4) float32 xyxy, broadcast against ``deltas``.
        weights: scale of each delta.
        clamp_shrinking: dw and dh have a lower bound as well, the negative of the upper one.

    Returns:
        (..., 4) float32 xyxy.
    """
    dx, dy, dw, dh = deltas.float().unbind(-1)
    x0, y0, x1, y1 = boxes.unbind(-1)
    widths, heights = x1 - x0, y1 - y0
    wx, wy, ww, wh = weights
    center_x = dx / wx * widths + (x0 + 0.5 * widths)
    center_y = dy / wy * heights + (y0 + 0.5 * heights)
    least = -SCALE_CLAMP if clamp_shrinking else None
    half_w = 0.5 * torch.exp((dw / ww).clamp(least, SCALE_CLAMP)) * widths
    half_h = 0.5 * torch.exp((dh / wh).clamp(least, SCALE_CLAMP)) * heights
    return torch.stack(
        (center_x - half_w, center_y - half_h, center_x + half_w, center_y + half_h),
        dim=-1,
    )


def clip_boxes(boxes: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """Clip (..., 4) xyxy boxes to an image of ``image_hw`` pixels."""
    height, width = image_hw
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack(
        (
            x0.clamp(0, width),
            y0.clamp(0, height),
            x1.clamp(0, width),
            y1.clamp(0, height),
        ),
        dim=-1,
    )


def box_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return width and height, each (...), of (..., 4) xyxy boxes."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return x1 - x0, y1 - y0


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the ``k`` highest of the last dimension, equal scores by lower index first.

    ``torch.topk`` leaves the order of ties open; here score and index are packed into one
    integer, so that the answer is the same on every device.

    Args:
        scores: (..., S) float32 without NaN.
        k: at most S.

    Returns:
        scores (..., k) float32 and indices (..., k) int64, highest first.
    """
    if _is_exporting():
        # No exchange format reads the bits of a float; ONNX's TopK has the same rule for ties.
        values, indices = torch.topk(scores, k, dim=-1)
        return values, indices
    bits = scores.view(torch.int32).long()
    # Negative floats order backwards as integers; mirroring them at -0.0 restores it.
    ordered = torch.where(bits < 0, -(2**31) - bits, bits)
    index = torch.arange(scores.shape[-1], device=scores.device)
    key = (ordered << 32) + (0xFFFFFFFF - index)
    best = torch.topk(key, k, dim=-1).indices
    return scores.gather(-1, best), best
