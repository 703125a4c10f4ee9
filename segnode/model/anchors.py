# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Anchor boxes of every level.

Sources: Detectron2's ``DefaultAnchorGenerator``, torchvision's ``AnchorGenerator``, which rounds
the base anchors to whole pixels, and MMDetection's, which has the ratio in the outer loop.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from segnode.model.architecture import Architecture


def base_anchors(architecture: Architecture, level: int) -> Tensor:
    """Return the anchors around (0, 0) of one level: (A, 4) float32 xyxy, network pixels."""
    sizes, ratios = architecture.anchor_sizes[level], architecture.anchor_ratios[level]
    order = list(product(sizes, ratios))
    if architecture.semantics.anchors == 'mmdetection':
        order = [(size, ratio) for ratio, size in product(ratios, sizes)]
    anchors = []
    for size, ratio in order:
        if architecture.semantics.anchors == 'torchvision':
            height = size * math.sqrt(ratio)
            width = size / math.sqrt(ratio)
        else:
            width = math.sqrt(size**2 / ratio)
            height = ratio * width
        anchors.append((-width / 2, -height / 2, width / 2, height / 2))
    table = torch.tensor(anchors, dtype=torch.float32)
    return table.round() if architecture.semantics.anchors == 'torchvision' else table


def make_anchors(
    architecture: Architecture, feature_hw: list[tuple[int, int]], device: torch.device
) -> Tensor:
    """Return the anchors of all levels, one behind the other: (S, 4) float32 xyxy, network pixels.

    Those of a level are ordered by row, column and then base anchor, as the RPN's outputs are
    flattened.
    ``feature_hw`` are the maps' sizes, one a stride of the architecture.
    """
    padded_h, padded_w = (side * architecture.strides[0] for side in feature_hw[0])
    levels = []
    for level, (height, width) in enumerate(feature_hw):
        stride_y = stride_x = architecture.strides[level]
        if architecture.semantics.anchors == 'torchvision':
            # There p6, half of p5 rounded up, is stretched over the padded image.
            stride_y, stride_x = padded_h // height, padded_w // width
        offset = architecture.anchor_offset
        y = (torch.arange(height, dtype=torch.float32) + offset) * stride_y
        x = (torch.arange(width, dtype=torch.float32) + offset) * stride_x
        grid_y, grid_x = torch.meshgrid(y, x, indexing='ij')
        shifts = torch.stack((grid_x, grid_y, grid_x, grid_y), dim=-1).reshape(-1, 1, 4)
        levels.append((shifts + base_anchors(architecture, level)).reshape(-1, 4))
    return torch.cat(levels).to(device)
