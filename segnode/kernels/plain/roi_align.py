# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""RoIAlign (He et al., 2017) over the levels of a pyramid by torchvision's operator.

Shapes: N images, R RoIs, C channels, S side of the output.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from segnode.model.architecture import Pooler
from segnode.model.pooler import assign_levels, index_images

# Far enough that no sample of an RoI there touches the coarsest map.
OFF_THE_MAP = -1e4


def roi_align(
    features: list[Tensor], boxes: Tensor, image_index: Tensor | None, pooler: Pooler
) -> Tensor:
    """Pool every RoI from its own level.

    Args:
        features: a level each of ``pooler`` (more are ignored), (N, C, h, w).
        boxes: (R, 4) float32 xyxy, network pixels.
        image_index: (R,) int64, the image of each RoI; None for equally many of each, in order.
        pooler: how.

    Returns:
        (R, C, S, S) in the dtype of the features, channels_last. It synchronises with the host.
    """
    levels = assign_levels(boxes, pooler)
    image_index = index_images(image_index, len(features[0]), boxes)
    rois = torch.cat((image_index[:, None].to(boxes.dtype), boxes), dim=1)
    side = pooler.resolution
    pooled = features[0].new_zeros((len(rois), features[0].shape[1], side, side))
    for level, stride in enumerate(pooler.strides):
        chosen = (levels == level).nonzero().squeeze(1)
        if len(chosen) == 0:
            continue
        pooled[chosen] = torchvision_roi_align(
            features[level],
            rois[chosen].to(features[level].dtype),
            side,
            1.0 / stride,
            pooler.sampling_ratio,
            pooler.aligned,
        )
    return pooled.contiguous(memory_format=torch.channels_last)


def roi_align_static(
    features: list[Tensor], boxes: Tensor, image_index: Tensor | None, pooler: Pooler
) -> Tensor:
    """As ``roi_align``, in one shape and without a host stop, whatever the features' format.

    It is the plain twin of the device kernel. Every level pools all RoIs, those of other levels
    moved off the map, where nothing is read and the answer is zero. It computes in float32.
    """
    levels = torch.arange(len(pooler.strides), device=boxes.device)[:, None]
    elsewhere = (assign_levels(boxes, pooler) != levels)[..., None]
    images = index_images(image_index, len(features[0]), boxes)[:, None].to(boxes.dtype)
    placed = boxes.masked_fill(elsewhere, OFF_THE_MAP)
    rois = torch.cat((images.expand(len(levels), -1, -1), placed), dim=-1)
    pooled: Tensor
    pooled, *others = (
        torchvision_roi_align(
            feature.float(),
            own,
            pooler.resolution,
            1.0 / stride,
            pooler.sampling_ratio,
            pooler.aligned,
        )
        for feature, own, stride in zip(features[: len(levels)], rois, pooler.strides, strict=True)
    )
    for each in others:
        pooled += each
    return pooled.to(features[0].dtype, memory_format=torch.channels_last)
