# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A small Mask R-CNN of each family that MMDetection has and Detectron2 has not."""

from __future__ import annotations

from segnode.model.architecture import MMDETECTION, Architecture, Pooler
from segnode.model.backbone_specs import BackboneSpec, ConvNeXtSpec, ResNeStSpec, SwinSpec

SPECS: dict[str, BackboneSpec] = {
    'resnest': ResNeStSpec(width=8, stem_channels=8),
    # Heads of 8, the fewest channels that all attention kernels of a GPU take.
    'swin': SwinSpec(depths=(2, 2, 3, 2), heads=(2, 4, 8, 16), channels=16),
    'convnext': ConvNeXtSpec(depths=(1, 1, 2, 1), channels=(16, 32, 64, 128)),
}


def narrow(family: str) -> Architecture:
    """Return the network of one of ``SPECS``."""
    return Architecture(
        semantics=MMDETECTION,
        backbone=SPECS[family],
        fpn_channels=32,
        box_pooler=Pooler(resolution=7, levels='mmdetection'),
        mask_pooler=Pooler(resolution=14, levels='mmdetection'),
        box_fc_dims=(64, 64),
        mask_conv_dims=(16, 16, 16, 16),
        # The plain operators' NMS is an operator a box.
        rpn_pre_nms_topk=100,
        num_classes=3,
        color='RGB',
        pixel_mean=(123.675, 116.28, 103.53),
        pixel_std=(58.395, 57.12, 57.375),
    )
