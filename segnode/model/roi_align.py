# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""RoIAlign (He et al., 2017) over the levels of a pyramid (Detectron2's ``poolers.py``).

Shapes: N images, R RoIs, C channels, S side of the output.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import roi_align

from segnode.model.anchors import STRIDES
from segnode.model.boxes import box_sides

# An RoI of 224 x 224 pixels, ImageNet's size, is read from p4 (Lin et al., 2017).
CANONICAL_SIDE = 224
CANONICAL_LEVEL = 4
LEVELS = 4

# Far enough that no sample of an RoI there touches the coarsest map.
OFF_THE_MAP = -1e4


def assign_levels(boxes: Tensor, family: Literal['detectron2', 'torchvision']) -> Tensor:
    """Return the level, 0 for p2 to 3 for p5, of (..., 4) boxes as (...) int64."""
    width, height = box_sides(boxes)
    scale = torch.sqrt(width * height) / CANONICAL_SIDE
    level = torch.log2(scale + 1e-8) if family == 'detectron2' else torch.log2(scale) + 1e-6
    # An empty RoI has no logarithm; it takes the finest level, as clamping -inf does.
    level = torch.floor(CANONICAL_LEVEL + level).nan_to_num(nan=0.0, neginf=0.0)
    return level.clamp(2, 5).long() - 2


def multilevel_roi_align(
    features: list[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    levels: Tensor,
    *,
    resolution: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Pool every RoI from its own level.

    Args:
        features: p2 to p5 (more are ignored), each (N, C, h, w).
        boxes: (R, 4) float32 xyxy, network pixels.
        image_index: (R,) int64, the image of each RoI.
        levels: (R,) int64, 0 for p2.
        resolution: S.
        sampling_ratio: samples a bin and side; 0 takes as many as pixels fit.
        aligned: half-pixel correction (ROIAlignV2).

    Returns:
        (R, C, S, S) in the dtype of the features. It synchronises with the host.
    """
    rois = torch.cat((image_index[:, None].to(boxes.dtype), boxes), dim=1)
    channels = features[0].shape[1]
    pooled = features[0].new_zeros((len(rois), channels, resolution, resolution))
    for level in range(LEVELS):
        chosen = (levels == level).nonzero().squeeze(1)
        if len(chosen) == 0:
            continue
        pooled[chosen] = roi_align(
            features[level],
            rois[chosen].to(features[level].dtype),
            resolution,
            1.0 / STRIDES[level],
            sampling_ratio,
            aligned,
        )
    return pooled


def multilevel_roi_align_static(
    features: list[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    *,
    resolution: int,
    sampling_ratio: int,
    aligned: bool,
    family: Literal['detectron2', 'torchvision'],
) -> Tensor:
    """Pool every RoI from the level that its size gives it: one shape, no host stop.

    It is the plain twin of the device kernel. Every level pools all RoIs, those of other levels
    moved off the map, where nothing is read and the answer is zero.

    Args:
        features: p2 to p5 (more are ignored), each (N, C, h, w), any float dtype.
        boxes: (R, 4) float32 xyxy, network pixels, within the image.
        image_index: (R,) int, the image of each RoI.
        resolution: S.
        sampling_ratio: samples a bin and side; 0 takes as many as pixels fit.
        aligned: half-pixel correction (ROIAlignV2).
        family: whose assignment of levels to follow.

    Returns:
        (R, C, S, S) in the dtype of the features, channels_last; computed in float32.
    """
    levels = assign_levels(boxes, family)
    pooled = boxes.new_zeros((len(boxes), features[0].shape[1], resolution, resolution))
    for level in range(LEVELS):
        placed = boxes.masked_fill((levels != level)[:, None], OFF_THE_MAP)
        rois = torch.cat((image_index[:, None].to(boxes.dtype), placed), dim=1)
        pooled += roi_align(
            features[level].float(),
            rois,
            resolution,
            1.0 / STRIDES[level],
            sampling_ratio,
            aligned,
        )
    return pooled.to(features[0].dtype).contiguous(memory_format=torch.channels_last)
