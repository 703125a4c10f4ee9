# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Detectron2's own model and predictor for one of our architectures.

Import it inside of tests that ask for the ``detectron2`` fixture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segnode.image import Image
from segnode.model.architecture import Architecture


def config_of(architecture: Architecture) -> Any:
    """Return Detectron2's config (``CfgNode``) of an architecture."""
    from detectron2.config import get_cfg

    a = architecture
    stages, levels = ['res2', 'res3', 'res4', 'res5'], ['p2', 'p3', 'p4', 'p5', 'p6']
    cfg = get_cfg()
    settings = {
        'INPUT.FORMAT': a.color,
        'INPUT.MIN_SIZE_TEST': a.short_side,
        'INPUT.MAX_SIZE_TEST': a.long_side,
        'MODEL.DEVICE': 'cpu',
        'MODEL.MASK_ON': True,
        'MODEL.META_ARCHITECTURE': 'GeneralizedRCNN',
        'MODEL.PIXEL_MEAN': list(a.pixel_mean),
        'MODEL.PIXEL_STD': list(a.pixel_std),
        'MODEL.BACKBONE.NAME': 'build_resnet_fpn_backbone',
        'MODEL.RESNETS.DEPTH': a.depth,
        'MODEL.RESNETS.NUM_GROUPS': a.num_groups,
        'MODEL.RESNETS.WIDTH_PER_GROUP': a.width_per_group,
        'MODEL.RESNETS.STEM_OUT_CHANNELS': a.stem_out_channels,
        'MODEL.RESNETS.RES2_OUT_CHANNELS': a.res2_out_channels,
        'MODEL.RESNETS.STRIDE_IN_1X1': a.stride_in_1x1,
        'MODEL.RESNETS.OUT_FEATURES': stages,
        'MODEL.FPN.IN_FEATURES': stages,
        'MODEL.FPN.OUT_CHANNELS': a.fpn_channels,
        'MODEL.ANCHOR_GENERATOR.SIZES': [list(sizes) for sizes in a.anchor_sizes],
        'MODEL.RPN.IN_FEATURES': levels,
        'MODEL.RPN.PRE_NMS_TOPK_TEST': a.rpn_pre_nms_topk,
        'MODEL.RPN.POST_NMS_TOPK_TEST': a.rpn_post_nms_topk,
        'MODEL.ROI_HEADS.NAME': 'StandardROIHeads',
        'MODEL.ROI_HEADS.IN_FEATURES': levels[:4],
        'MODEL.ROI_HEADS.NUM_CLASSES': a.num_classes,
        'MODEL.ROI_HEADS.SCORE_THRESH_TEST': a.score_threshold,
        'MODEL.ROI_BOX_HEAD.NAME': 'FastRCNNConvFCHead',
        'MODEL.ROI_BOX_HEAD.NUM_FC': len(a.box_fc_dims),
        'MODEL.ROI_BOX_HEAD.FC_DIM': a.box_fc_dims[0],
        'MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION': a.box_pooler_resolution,
        'MODEL.ROI_MASK_HEAD.NAME': 'MaskRCNNConvUpsampleHead',
        'MODEL.ROI_MASK_HEAD.NUM_CONV': len(a.mask_conv_dims),
        'MODEL.ROI_MASK_HEAD.CONV_DIM': a.mask_conv_dims[0],
        'MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION': a.mask_pooler_resolution,
        'TEST.DETECTIONS_PER_IMAGE': a.max_instances,
    }
    cfg.merge_from_list([item for pair in settings.items() for item in pair])
    return cfg


def predict(
    architecture: Architecture, state_dict: Mapping[str, Tensor], images: list[Image]
) -> list[Any]:
    """Return Detectron2's ``Instances`` of each image, by the steps of its predictor."""
    from detectron2.data.transforms import ResizeShortestEdge
    from detectron2.modeling import build_model

    cfg = config_of(architecture)
    model = build_model(cfg).eval()
    model.load_state_dict(state_dict)
    resize = ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
    answers = []
    for image in images:
        pixels = bgr(image)
        x = resize.get_transform(pixels).apply_image(pixels).astype('float32').transpose(2, 0, 1)
        request = {'image': torch.as_tensor(x), 'height': image.height, 'width': image.width}
        with torch.inference_mode():
            answers.append(model([request])[0]['instances'])
    return answers


def bgr(image: Image) -> np.ndarray:
    """Return an image's pixels as Detectron2's ``read_image`` would, in BGR."""
    return np.ascontiguousarray(image.pixels if image.order == 'bgr' else image.pixels[..., ::-1])
