# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Which map an RoI is pooled from: its level (Detectron2's ``poolers.py``) and its image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from segnode.model.architecture import Pooler
from segnode.model.boxes import box_sides

# An RoI of 224 x 224 pixels, ImageNet's size, is read from the map of stride 16 (Lin et al.,
# 2017).
CANONICAL_SIDE = 224
CANONICAL_STRIDE = 16
# In MMDetection (``SingleRoIExtractor``) one of twice this side is the first on the second map.
FINEST_SIDE = 56


def assign_levels(boxes: Tensor, pooler: Pooler) -> Tensor:
    """Return the level, 0 for the finest of ``pooler``, of (..., 4) boxes as (...) int64."""
    width, height = box_sides(boxes)
    side = torch.sqrt(width * height)
    if pooler.levels == 'mmdetection':
        level = torch.floor(torch.log2(side / FINEST_SIDE + 1e-6))
        return level.clamp(0, len(pooler.strides) - 1).long()
    scale = side / CANONICAL_SIDE
    canonical = math.log2(CANONICAL_STRIDE)
    if pooler.levels == 'detectron2':
        level = canonical + torch.log2(scale + 1e-8)
    else:
        # Added in torchvision's order (``LevelMapper``): near a border rounding decides.
        level = canonical + torch.log2(scale) + 1e-6
    # An empty RoI has no logarithm; it takes the finest level, as clamping -inf does.
    level = torch.floor(level).nan_to_num(nan=0.0, neginf=0.0)
    finest, coarsest = (int(math.log2(pooler.strides[end])) for end in (0, -1))
    return level.clamp(finest, coarsest).long() - finest


def index_images(image_index: Tensor | None, images: int, boxes: Tensor) -> Tensor:
    """Return the image of each of (R, 4) boxes, (R,) int64: what is given, if anything is.

    If not, equally many boxes of each image follow one another.
    """
    if image_index is not None:
        return image_index
    every = torch.arange(images, device=boxes.device)
    return every.repeat_interleave(len(boxes) // images, output_size=len(boxes))
