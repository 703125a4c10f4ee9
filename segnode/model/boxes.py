# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Arithmetic on boxes: xyxy, float32, pixels of the image at hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Largest dw and dh: what is 16 px wide becomes at most 1000 px (Detectron2, torchvision).
SCALE_CLAMP = math.log(1000.0 / 16)

# Of PyTorch 2.7 (segnode/torch_features.py). Before, there is one question for exports and for
# compiling, which nothing here does.
is_exporting: Callable[[], bool] = getattr(
    torch.compiler, 'is_exporting', torch.compiler.is_compiling
)


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
    # x and y in one operator, and each coordinate in one stretch of memory.
    deltas, boxes = (_by_coordinate(x) for x in torch.broadcast_tensors(deltas, boxes))
    low, sides = boxes[:2], boxes[2:] - boxes[:2]
    center = _unscaled(deltas[:2], weights[:2]) * sides + torch.add(low, sides, alpha=0.5)
    least = -SCALE_CLAMP if clamp_shrinking else None
    growth = torch.exp(_unscaled(deltas[2:], weights[2:]).clamp(least, SCALE_CLAMP))
    half = 0.5 * growth * sides
    return torch.cat((center - half, center + half)).movedim(0, -1)


def _by_coordinate(x: Tensor) -> Tensor:
    """Return (..., C) as (C, ...) float32, contiguous; one copy does it all."""
    x = x.movedim(-1, 0)
    return x.to(torch.float32, memory_format=torch.contiguous_format).contiguous()


def _unscaled(deltas: Tensor, weights: tuple[float, float]) -> Tensor:
    """Divide (2, ...) by a weight each."""
    if weights == (1.0, 1.0):
        return deltas
    if weights[0] == weights[1]:
        return deltas / weights[0]
    return torch.stack([x / weight for x, weight in zip(deltas, weights, strict=True)])


def clip_boxes(boxes: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """Clip (..., 4) xyxy boxes to an image of ``image_hw`` pixels."""
    height, width = image_hw
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack((x, y), dim=-1).flatten(-2)


def are_finite(boxes: Tensor) -> Tensor:
    """Return which of (..., 4) boxes are numbers throughout: (...) bool."""
    return (boxes.abs() < torch.inf).all(-1)


def box_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return width and height, each (...), of (..., 4) xyxy boxes."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return x1 - x0, y1 - y0


def smaller_sides(boxes: Tensor) -> Tensor:
    """Return the smaller of width and height, (...), of (..., 4) xyxy boxes."""
    return (boxes[..., 2:] - boxes[..., :2]).amin(-1)


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the ``k`` highest of the last dimension, equal scores by lower index first.

    Args:
        scores: (..., S) float32 without NaN.
        k: at most S.

    Returns:
        scores (..., k) float32 and indices (..., k) int64, highest first.
    """
    (index,) = top_k_of_parts(scores, [scores.shape[-1]], k)
    return scores.gather(-1, index), index


def top_k_of_parts(scores: Tensor, sizes: Sequence[int], k: int) -> list[Tensor]:
    """Return the ``k`` highest of each part of the last dimension, or all where there are fewer.

    ``torch.topk`` leaves the order of ties open; here score and index are packed into one
    integer, so that the answer is the same on every device: equal scores by lower index first.

    Args:
        scores: (..., S) float32 without NaN.
        sizes: of the parts, S together.
        k: how many.

    Returns:
        Indices (..., k or a part's size) int64 into each part, highest first.
    """
    if is_exporting():
        # No exchange format reads the bits of a float; ONNX's TopK has the same rule for ties.
        keys = scores
    else:
        bits = scores.view(torch.int32)
        # Negative floats order backwards as integers; mirroring them at -0.0 restores it.
        ordered = torch.where(bits < 0, -(2**31) - bits, bits)
        falling = torch.arange(0, -scores.shape[-1], -1, device=scores.device)
        keys = torch.add(falling, ordered, alpha=2**32)
    parts = keys.split(list(sizes), dim=-1)
    return [
        torch.topk(part, min(k, size), dim=-1).indices
        for part, size in zip(parts, sizes, strict=True)
    ]
