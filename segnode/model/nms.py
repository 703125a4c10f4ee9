# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Greedy non-maximum suppression over fixed-capacity, score-ordered boxes.

Shapes: B independent sets (any leading dimensions), K boxes a set.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms as torchvision_nms

# boxes, valid, threshold, groups -> keep
Suppress: TypeAlias = Callable[[Tensor, Tensor, float | Tensor, Tensor | None], Tensor]

# Boxes resolved serially before their rows are applied to all that follow.
BLOCK = 64


def nms(
    boxes: Tensor,
    valid: Tensor,
    threshold: float | Tensor,
    groups: Tensor | None = None,
) -> Tensor:
    """Keep each box that no kept box before it overlaps by more than ``threshold``.

    Args:
        boxes: (..., K, 4) float32 xyxy, highest score first.
        valid: (..., K) bool; other boxes neither stay nor suppress.
        threshold: IoU.
        groups: (..., K) int64; boxes of different groups do not suppress each other.

    Returns:
        (..., K) bool, the boxes that stay.
    """
    *outer, k = valid.shape
    n = math.prod(outer)  # -1 has no meaning where k is 0
    flat_boxes, flat_valid = boxes.reshape(n, k, 4), valid.reshape(n, k)
    flat_groups = None if groups is None else groups.reshape(n, k)
    keep = torch.stack(
        [
            _nms_of_one(
                flat_boxes[i],
                flat_valid[i],
                float(threshold),
                None if flat_groups is None else flat_groups[i],
            )
            for i in range(flat_boxes.shape[0])
        ]
    )
    return keep.view(valid.shape)


def _nms_of_one(boxes: Tensor, valid: Tensor, threshold: float, groups: Tensor | None) -> Tensor:
    """Run torchvision's NMS on what is valid; it synchronises with the host."""
    keep = torch.zeros_like(valid)
    index = valid.nonzero().squeeze(1)
    if groups is None:
        parts = [index]
    else:
        present = groups[index]
        parts = [index[present == group] for group in present.unique().tolist()]
    for part in parts:
        order = -torch.arange(len(part), dtype=torch.float32, device=boxes.device)
        keep[part[torchvision_nms(boxes[part], order, threshold)]] = True
    return keep


def largest_float32(threshold: float) -> float:
    """Return the largest float32 not above ``threshold``.

    torchvision compares float32 overlaps with a float64 threshold; this one, compared in
    float32, gives the same answer where an overlap is the threshold rounded up (0.3, for one).
    """
    nearest = np.float32(threshold)
    above = float(nearest) > threshold
    return float(np.nextafter(nearest, np.float32(-1)) if above else nearest)


def nms_static(
    boxes: Tensor,
    valid: Tensor,
    threshold: float | Tensor,
    groups: Tensor | None = None,
) -> Tensor:
    """As ``nms``, by a block-wise suppression matrix: one shape, no host stop.

    It is the plain twin of the device kernel: within a block of 64 boxes the order is resolved
    serially, then the rows of those that stay are applied to everything behind the block.
    A ``threshold`` on the device, () float32, should come from ``largest_float32``.
    """
    if not isinstance(threshold, Tensor):
        threshold = largest_float32(threshold)
    k = valid.shape[-1]
    x0, y0, x1, y1 = boxes.unbind(-1)
    area = (x1 - x0) * (y1 - y0)
    width = torch.minimum(x1[..., :, None], x1[..., None, :])
    width = (width - torch.maximum(x0[..., :, None], x0[..., None, :])).clamp(min=0)
    height = torch.minimum(y1[..., :, None], y1[..., None, :])
    height = (height - torch.maximum(y0[..., :, None], y0[..., None, :])).clamp(min=0)
    intersection = width * height
    overlap = intersection / (area[..., :, None] + area[..., None, :] - intersection) > threshold
    if groups is not None:
        overlap &= groups[..., :, None] == groups[..., None, :]
    overlap = overlap.triu(1)
    keep = valid.clone()
    for start in range(0, k, BLOCK):
        end = min(start + BLOCK, k)
        block = overlap[..., start:end, :]
        for i in range(end - start - 1):
            suppressed = keep[..., start + i, None] & block[..., i, start + i + 1 : end]
            keep[..., start + i + 1 : end] &= ~suppressed
        if end < k:
            rows = keep[..., start:end, None] & block[..., end:]
            keep[..., end:] &= ~rows.any(-2)
    return keep
