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
    box and some 20 that find the overlaps. Fewer would not do: whether a box stays can hang on
    every box before it, and without a host stop nobody can tell that all is settled earlier.
    A ``threshold`` on the device, () float32, should come from ``largest_float32``.
    """
    if not isinstance(threshold, Tensor):
        threshold = largest_float32(threshold)
    overlaps = _overlaps(boxes, threshold, groups).float()
    # An overlap is 1 or 0, times 1 / STAYS. Divided by a box that stays it is infinite or 0, and
    # divided by one that is dropped it is 0: added, it drops a box, or changes nothing. Logic on
    # bool would take two kernels a box.
    state = torch.full(valid.shape, math.inf, device=valid.device).masked_fill_(valid, STAYS)
    each = state[..., None].unbind(-2)
    for i, (box, row) in enumerate(zip(each, overlaps.unbind(-2), strict=True)):
        state[..., i + 1 :].addcdiv_(row[..., i + 1 :], box, value=1 / STAYS)
    return state < math.inf


def _overlaps(boxes: Tensor, threshold: float | Tensor, groups: Tensor | None) -> Tensor:
    """Return (..., K, K) bool, which boxes of one group overlap by more than ``threshold``."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    area = (x1 - x0) * (y1 - y0)
    width = torch.minimum(x1[..., :, None], x1[..., None, :])
    width = (width - torch.maximum(x0[..., :, None], x0[..., None, :])).clamp(min=0)
    height = torch.minimum(y1[..., :, None], y1[..., None, :])
    height = (height - torch.maximum(y0[..., :, None], y0[..., None, :])).clamp(min=0)
    intersection = width * height
    overlaps = intersection / (area[..., :, None] + area[..., None, :] - intersection) > threshold
    if groups is not None:
        overlaps &= groups[..., :, None] == groups[..., None, :]
    return overlaps
