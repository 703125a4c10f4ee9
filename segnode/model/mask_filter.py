# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Which detections get a mask, and which masks stay.

Shapes: N images, D detections, M side of a mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segnode.model.architecture import Semantics
from segnode.model.boxes import smaller_sides

# Of a mask cell and a pixel, how far beyond a box's edge float32 may see a pixel's centre in it.
ROUNDING = 2.0**-14


@dataclass(frozen=True, slots=True)
class FilteredDetections:
    """Detections in input pixels and which of them get a mask.

    Attributes:
        boxes: (N, D, 4) float32 xyxy, input pixels, clipped to the image.
        keep: (N, D) bool.
        filtered_area: (N,) int64, detections that cannot hold ``min_mask_area`` pixels.
    """

    boxes: Tensor
    keep: Tensor
    filtered_area: Tensor


def filter_detections(
    boxes: Tensor,
    valid: Tensor,
    network_hw: tuple[int, int],
    image_hw: tuple[int, int],
    *,
    min_mask_area: int | Tensor,
    cells: int,
    mask_threshold: float | Tensor,
    semantics: Semantics,
) -> FilteredDetections:
    """Scale boxes to the input image and drop those that are empty or too small.

    Source: Detectron2's ``detector_postprocess``; torchvision scales alone, and never drops.

    Args:
        boxes: (N, D, 4) float32 xyxy, network pixels.
        valid: (N, D) bool.
        network_hw: network input before padding.
        image_hw: the input image.
        min_mask_area: input pixels, 0 is off.
        cells: M.
        mask_threshold: probability from which a pixel is set.
        semantics: whether boxes are clipped, and whose paste follows.
    """
    y, x = (boxes[..., 1 - i :: 2] * (image_hw[i] / network_hw[i]) for i in range(2))
    if semantics.clip_detections:
        y, x = y.clamp(0, image_hw[0]), x.clamp(0, image_hw[1])
    scaled = torch.stack((x, y), dim=-1).flatten(-2)
    if semantics.clip_detections:
        valid = valid & (smaller_sides(scaled) > 0)
    fits = pixel_bound(scaled, image_hw, cells, mask_threshold, semantics) >= min_mask_area
    keep = valid & fits
    return FilteredDetections(scaled, keep, (keep != valid).sum(-1))


def pixel_bound(
    boxes: Tensor,
    image_hw: tuple[int, int],
    cells: int,
    mask_threshold: float | Tensor,
    semantics: Semantics,
) -> Tensor:
    """Return the most pixels that the mask of each box can have.

    For Detectron2's paste at a threshold of 0.5 and more it is the number of pixel centres in
    the closed box, clipped to the image, with those that rounding may put into it. Otherwise a
    mask may reach beyond its box: the box is widened by one mask cell and one pixel a side first.

    Args:
        boxes: (..., 4) float32 xyxy, input pixels.
        image_hw: the input image.
        cells: M.
        mask_threshold: probability from which a pixel is set.
        semantics: whose paste follows.

    Returns:
        (...) int64.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    margin = (high - low) / cells + 1
    if semantics.paste == 'detectron2':
        below = torch.as_tensor(mask_threshold, device=boxes.device) < 0.5
        margin = torch.where(below, margin, margin * ROUNDING)
    first = torch.ceil(low - margin - 0.5).clamp(min=0)
    end = torch.floor(high + margin + 0.5)
    columns, rows = (end[..., i].clamp(max=image_hw[1 - i]) for i in range(2))
    pixels = (torch.stack((columns, rows), dim=-1) - first).clamp(min=0)
    return pixels.prod(-1).long()
