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
from segnode.model.boxes import box_sides, clip_boxes


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
    scale_y, scale_x = image_hw[0] / network_hw[0], image_hw[1] / network_hw[1]
    scaled = torch.stack(
        [x * s for x, s in zip(boxes.unbind(-1), (scale_x, scale_y) * 2, strict=True)],
        dim=-1,
    )
    keep = valid
    if semantics.clip_detections:
        scaled = clip_boxes(scaled, image_hw)
        width, height = box_sides(scaled)
        keep = valid & (width > 0) & (height > 0)
    fits = pixel_bound(scaled, image_hw, cells, mask_threshold, semantics) >= min_mask_area
    return FilteredDetections(scaled, keep & fits, (keep & ~fits).sum(-1))


def pixel_bound(
    boxes: Tensor,
    image_hw: tuple[int, int],
    cells: int,
    mask_threshold: float | Tensor,
    semantics: Semantics,
) -> Tensor:
    """Return the most pixels that the mask of each box can have.

    For Detectron2's paste at a threshold of 0.5 and more it is the number of pixel centres in
    the closed box, clipped to the image. Otherwise a mask may reach beyond its box: the box is
    widened by one mask cell and one pixel a side first.

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
        margin = margin * (torch.as_tensor(mask_threshold, device=boxes.device) < 0.5)
    first = torch.ceil(low - margin - 0.5).clamp(min=0)
    last = torch.floor(high + margin - 0.5)
    columns = last[..., 0].clamp(max=image_hw[1] - 1) - first[..., 0] + 1
    rows = last[..., 1].clamp(max=image_hw[0] - 1) - first[..., 1] + 1
    return (columns.clamp(min=0) * rows.clamp(min=0)).long()
