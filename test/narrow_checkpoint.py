# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A Mask R-CNN small enough to be written to disk in every test."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from segnode.model.architecture import Architecture
from segnode.model.backbone_specs import ResNetSpec
from segnode.model.mask_rcnn import expected_state_dict

CLASSES = 3
CONFIG = """
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  MASK_ON: true
  WEIGHTS: model.pth
  BACKBONE: {NAME: build_resnet_fpn_backbone}
  RESNETS:
    DEPTH: 50
    OUT_FEATURES: [res2, res3, res4, res5]
    WIDTH_PER_GROUP: 4
    STEM_OUT_CHANNELS: 8
    RES2_OUT_CHANNELS: 16
  FPN: {IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 8}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]]}
  RPN: {IN_FEATURES: [p2, p3, p4, p5, p6], PRE_NMS_TOPK_TEST: 1000}
  ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [p2, p3, p4, p5], NUM_CLASSES: 3}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 2, FC_DIM: 16, POOLER_RESOLUTION: 7}
  ROI_MASK_HEAD: {NUM_CONV: 4, CONV_DIM: 8}
VERSION: 2
"""
ARCHITECTURE = Architecture(
    backbone=ResNetSpec(width_per_group=4, stem_out_channels=8, res2_out_channels=16),
    fpn_channels=8,
    box_fc_dims=(16, 16),
    mask_conv_dims=(8, 8, 8, 8),
    num_classes=CLASSES,
)


def random_state(architecture: Architecture = ARCHITECTURE, seed: int = 0) -> dict[str, Tensor]:
    """Return random weights under Detectron2's names; variances are positive."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(shape, generator=generator) + 0.1
        for name, shape in expected_state_dict(architecture).items()
    }


def write_checkpoint(folder: Path, state: object | None = None) -> Path:
    """Write config and weights; return the config's path."""
    (folder / 'config.yaml').write_text(CONFIG)
    torch.save({'model': random_state() if state is None else state}, folder / 'model.pth')
    return folder / 'config.yaml'
