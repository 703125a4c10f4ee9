# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Configs of other models and other libraries, known by name so that a refusal says what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from segnode.errors import CheckpointError

REMEDY: Final = (
    'segnode runs Mask R-CNN with FPN of Detectron2, MMDetection and torchvision; another model '
    'can run as a TorchScript file that answers boxes and masks (README, "Own models")'
)
_COMMENT: Final = re.compile(r'#.*')
_LAZY: Final = re.compile(
    r'\bLazy(Call|Config)[ \t]*[(.]|^\s*(from|import)\s+detectron2\b'
    r'|^\s*from\b.*\bimport\b.*\bLazy(Call|Config)\b',
    re.M,
)
_MMDETECTION: Final = re.compile(
    r'^(_base_|model|custom_imports|default_scope)[ \t]*(:[^=\n]*)?=|^with read_base\(', re.M
)
_LARGEST: Final = 256 << 10
_MMDETECTION_CONFIG: Final = 'a config of MMDetection'

# Whose keys a config has, by their first parts; case does not count.
_PROJECTS: Final = {
    'MODEL.POINT_HEAD': 'PointRend',
    'MODEL.ROI_MASK_HEAD.FC_DIM': 'PointRend',
    'MODEL.ROI_MASK_HEAD.NUM_FC': 'PointRend',
    'MODEL.ROI_MASK_HEAD.OUTPUT_SIDE_RESOLUTION': 'PointRend',
    'MODEL.ROI_MASK_HEAD.POINT_HEAD_ON': 'PointRend',
    'MODEL.TENSOR_MASK': 'TensorMask',
    'MODEL.PANOPTIC_DEEPLAB': 'Panoptic-DeepLab',
    'MODEL.INS_EMBED_HEAD': 'Panoptic-DeepLab',
    'MODEL.RESNETS.RES4_DILATION': 'DeepLab',
    'MODEL.RESNETS.RES5_MULTI_GRID': 'DeepLab',
    'MODEL.RESNETS.STEM_TYPE': 'DeepLab',
    'MODEL.ROI_DENSEPOSE_HEAD': 'DensePose',
    'MODEL.DENSEPOSE_ON': 'DensePose',
    'MODEL.HRNET': 'DensePose',
    'MODEL.TRIDENT': 'TridentNet',
    'MODEL.VIT': 'ViTDet',
    'MODEL.MVIT': 'MViT',
    'MODEL.SWIN': 'a Swin Transformer',
    'MODEL.SWINT': 'a Swin Transformer',
    'MODEL.CONVNEXT': 'ConvNeXt',
    'MODEL.VOVNET': 'VoVNet',
    'MODEL.DLA': 'DLA',
    'MODEL.DLA34': 'DLA',
    'MODEL.MOBILENET': 'MobileNet',
    'MODEL.EFFICIENTNET': 'EfficientNet',
    'MODEL.FBNET_V2': 'Detectron2Go',
    'MODEL.BIFPN': 'a BiFPN',
    'MODEL.CENTERNET': 'CenterNet',
    'MODEL.FCOS': 'FCOS (AdelaiDet)',
    'MODEL.BLENDMASK': 'BlendMask (AdelaiDet)',
    'MODEL.BASIS_MODULE': 'BlendMask (AdelaiDet)',
    'MODEL.CONDINST': 'CondInst (AdelaiDet)',
    'MODEL.BOXINST': 'BoxInst (AdelaiDet)',
    'MODEL.MEINST': 'MEInst (AdelaiDet)',
    'MODEL.SOLOV2': 'SOLOv2 (AdelaiDet)',
    'MODEL.BATEXT': 'ABCNet (AdelaiDet)',
    'MODEL.TOP_MODULE': 'AdelaiDet',
    'MODEL.MASK_FORMER': 'MaskFormer or Mask2Former',
    'MODEL.ONE_FORMER': 'OneFormer',
    'MODEL.DETR': 'DETR',
    'MODEL.DEFORMABLEDETR': 'Deformable DETR',
    'MODEL.SPARSERCNN': 'Sparse R-CNN',
    'MODEL.YOLO': 'a YOLO',
}
# A Mask R-CNN that is trained in another way.
_POINT_SUP: Final = ('INPUT.POINT_SUP', 'INPUT.SAMPLE_POINTS')

# What a value of a key stands for.
_VALUES: Final = {
    'RRPN': 'rotated boxes',
    'RROIHeads': 'rotated boxes',
    'RotatedAnchorGenerator': 'rotated boxes',
    'RotatedFastRCNN': 'rotated boxes',
    'CascadeROIHeads': 'a Cascade R-CNN',
    'Res5ROIHeads': 'a C4 model, without FPN',
    'PointRendROIHeads': 'PointRend',
    'PointRendMaskHead': 'PointRend',
    'ImplicitPointRendMaskHead': 'PointRend',
    'CoarseMaskHead': 'PointRend',
    'DensePoseROIHeads': 'DensePose',
    'PanopticFPN': 'Panoptic FPN',
    'PanopticDeepLab': 'Panoptic-DeepLab',
    'SemanticSegmentor': 'semantic segmentation',
    'RetinaNet': 'RetinaNet',
    'FCOS': 'FCOS',
    'TensorMask': 'TensorMask',
    'ProposalNetwork': 'an RPN alone',
    'MaskFormer': 'MaskFormer or Mask2Former',
    'OneStageDetector': 'AdelaiDet',
    'CondInst': 'CondInst (AdelaiDet)',
    'BlendMask': 'BlendMask (AdelaiDet)',
    'CenterNetDetector': 'CenterNet',
    'CenterNet': 'CenterNet',
    'build_trident_resnet_backbone': 'TridentNet',
    'build_resnet_backbone': 'a ResNet without FPN',
    'build_retinanet_resnet_fpn_backbone': 'RetinaNet',
    'build_swin_backbone': 'a Swin Transformer',
    'D2SwinTransformer': 'a Swin Transformer',
    'MaskRCNNConvUpsamplePointSupHead': (
        "PointSup, which runs as a Mask R-CNN: name Detectron2's head in its place"
    ),
}


def is_mmdetection(path: Path) -> bool:
    """Tell whether a file is a config of MMDetection, which can be read though it is Python."""
    return _program(path) == _MMDETECTION_CONFIG


def check_language(path: Path) -> None:
    """Refuse a config that is a Python program where it would have to be run.

    Raises:
        CheckpointError: it is one.
    """
    if found := _program(path):
        remedy = 'name it as the model itself' if found == _MMDETECTION_CONFIG else REMEDY
        raise CheckpointError(
            f'{path}: expected a Detectron2 config (YAML), found {found}, and Python is never '
            f'run; {remedy}'
        )


def _program(path: Path) -> str:
    """Return what Python program a file is, '' for none."""
    if path.suffix.lower() != '.py' or not path.is_file():
        return ''
    with path.open('rb') as stream:
        text = _COMMENT.sub('', stream.read(_LARGEST).decode('utf-8-sig', 'replace'))
    if _LAZY.search(text):
        return 'a LazyConfig of Detectron2'
    return _MMDETECTION_CONFIG if _MMDETECTION.search(text) else 'a Python program'


def check_library(content: Mapping[str, Any], path: Path) -> None:
    """Refuse the YAML dump of a LazyConfig, which names what is to be called.

    Raises:
        CheckpointError: it is one.
    """
    inner = [value for value in content.values() if isinstance(value, dict)]
    if any('_target_' in each for each in (content, *inner)):
        raise CheckpointError(
            f'{path}: expected a Detectron2 config of keys such as MODEL.RESNETS.DEPTH, found a '
            f'LazyConfig (_target_), which would have to be run; {REMEDY}'
        )


def describe_key(key: str) -> str:
    """Return whose a key is that Detectron2 itself has not, and what to do; '' if unknown."""
    upper = key.upper()
    if upper.startswith(_POINT_SUP):
        return (
            'one of PointSup, which runs as a Mask R-CNN: take this key out and set '
            'MODEL.ROI_MASK_HEAD.NAME to MaskRCNNConvUpsampleHead'
        )
    parts = upper.split('.')
    for length in range(len(parts), 0, -1):
        if project := _PROJECTS.get('.'.join(parts[:length])):
            return f'one of {project}; {REMEDY}'
    return ''


def describe_value(value: object) -> str:
    """Return what the value of a key stands for, '' if unknown."""
    return _VALUES.get(value, '') if isinstance(value, str) else ''
