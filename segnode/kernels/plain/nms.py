# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Greedy non-maximum suppression over fixed-capacity, score-ordered boxes.

Shapes: B independent sets (any leading dimensions), K boxes a set.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms as torchvision_nms

# What ``nms_static`` holds for a box that stays; a box that is dropped has infinity. Both it and
# its reciprocal are float32, and the reciprocal divided by it is beyond that: infinity.
STAYS = 2.0**-100
# Boxes whose overlaps with all behind them ``nms_static`` holds at a time.
ROWS = 1024


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
    """As ``nms``, one box after the other: one shape, no host stop.

    It is the plain twin of the device kernel. Whatever the number of sets, it launches a kernel a
    box, and some 20 for every ``ROWS`` of them that find the overlaps. Fewer would not do: whether
    a box stays can hang on every box before it, and without a host stop nobody can tell that all
    is settled earlier.
    A ``threshold`` on the device, () float32, should come from ``largest_float32``.
    """
    if not isinstance(threshold, Tensor):
        threshold = largest_float32(threshold)
    # An overlap is 1 or 0, times 1 / STAYS. Divided by a box that stays it is infinite or 0, and
    # divided by one that is dropped it is 0: added, it drops a box, or changes nothing. Logic on
    # bool would take two kernels a box.
    state = torch.full(valid.shape, math.inf, device=valid.device).masked_fill_(valid, STAYS)
    each = state[..., None].unbind(-2)
    for start in range(0, valid.shape[-1], ROWS):
        overlaps = _overlaps(
            boxes[..., start:, :], threshold, None if groups is None else groups[..., start:]
        ).float()
        for i, row in enumerate(overlaps.unbind(-2), start):
            state[..., i + 1 :].addcdiv_(row[..., i + 1 - start :], each[i], value=1 / STAYS)
    return state < math.inf


def _overlaps(boxes: Tensor, threshold: float | Tensor, groups: Tensor | None) -> Tensor:
    """Return which of the first R boxes overlap which of all K: (..., R, K) bool, R <= ``ROWS``.

    They do where they are of one group and their IoU exceeds the threshold.
    """
    x0, y0, x1, y1 = boxes[..., None, :, :].unbind(-1)
    left, top, right, bottom = boxes[..., :ROWS, None, :].unbind(-1)
    width = (torch.minimum(right, x1) - torch.maximum(left, x0)).clamp(min=0)
    height = (torch.minimum(bottom, y1) - torch.maximum(top, y0)).clamp(min=0)
    intersection = width * height
    area, own = (x1 - x0) * (y1 - y0), (right - left) * (bottom - top)
    overlaps = intersection / (own + area - intersection) > threshold
    if groups is not None:
        overlaps &= groups[..., :ROWS, None] == groups[..., None, :]
    return overlaps
