# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Published models that can be had by name.

Detectron2's MODEL_ZOO.md: file names carry the beginning of the MD5, all models are CC BY-SA 3.0.
torchvision and MMDetection: file names carry the beginning of the SHA-256.
AP is COCO's on val2017, as the publishers say, in percent.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from dataclasses import dataclass
from typing import Final

from segnode.checkpoint import mmdetection, torchvision
from segnode.checkpoint.download import Checksum
from segnode.errors import ConfigError
from segnode.model.architecture import Architecture
from segnode.model.backbone_specs import (
    BackboneSpec,
    ConvNeXtSpec,
    ResNeStSpec,
    ResNetSpec,
    SwinSpec,
)

# Presets that a mistyped name may mean.
_MOST_HINTS: Final = 3
_ZOO: Final = 'https://dl.fbaipublicfiles.com/detectron2/'
_ZOO_LICENCE: Final = 'CC BY-SA 3.0 (Detectron2 model zoo)'
_MMDETECTION: Final = 'https://download.openmmlab.com/mmdetection/v2.0/'
_MMDETECTION_LICENCE: Final = 'not stated by the publisher; MMDetection itself is Apache-2.0'
_TORCHVISION_LICENCE: Final = 'BSD-3-Clause (torchvision), trained on COCO'


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A published model.

    Attributes:
        architecture: the network.
        url: of the weights.
        checksum: what the publisher says of the file.
        licence: of the weights.
        family: its backbone, for people.
        box_ap, mask_ap: as published; None where nothing is.
    """

    architecture: Architecture
    url: str
    checksum: Checksum
    licence: str
    family: str
    box_ap: float | None = None
    mask_ap: float | None = None


def _zoo(
    file: str, architecture: Architecture, family: str, box_ap: float, mask_ap: float
) -> Preset:
    """Return one of Detectron2's zoo, by its place there."""
    return Preset(
        architecture=architecture,
        url=f'{_ZOO}COCO-InstanceSegmentation/{file}',
        checksum=Checksum('md5', file.rpartition('_')[2].removesuffix('.pkl')),
        licence=_ZOO_LICENCE,
        family=family,
        box_ap=box_ap,
        mask_ap=mask_ap,
    )


def _mmdetection(
    file: str, architecture: Architecture, family: str, box_ap: float, mask_ap: float
) -> Preset:
    """Return one of MMDetection's zoo, by its place there without the folder of its own name."""
    folder, _, name = file.rpartition('/')
    # Behind the config's name of 2.x stands when it was trained, and the checksum.
    config = re.sub(r'_\d{8}(_\d{6})?-\w{8}$', '', name)
    return Preset(
        architecture=architecture,
        url=f'{_MMDETECTION}{folder}/{config}/{name}.pth',
        checksum=Checksum('sha256', name.rpartition('-')[2]),
        licence=_MMDETECTION_LICENCE,
        family=family,
        box_ap=box_ap,
        mask_ap=mask_ap,
    )


_R50: Final = Architecture()
_R101: Final = dataclasses.replace(_R50, backbone=ResNetSpec(depth=101))
_X101: Final = dataclasses.replace(
    _R101,
    backbone=ResNetSpec(depth=101, num_groups=32, width_per_group=8, stride_in_1x1=False),
    pixel_std=(57.375, 57.12, 58.395),
)


def _mm(backbone: BackboneSpec) -> Architecture:
    return dataclasses.replace(mmdetection.ARCHITECTURE, backbone=backbone)


def _mm_resnest(backbone: ResNeStSpec) -> Architecture:
    # With batch norms in the heads, which loading folds.
    return dataclasses.replace(
        _mm(backbone),
        box_conv_dims=(256,) * 4,
        box_fc_dims=(1024,),
        pixel_mean=(123.68, 116.779, 103.939),
        pixel_std=(58.393, 57.12, 57.375),
    )


_MM_R50: Final = _mm(ResNetSpec(stride_in_1x1=False))
_MM_R101: Final = _mm(ResNetSpec(depth=101, stride_in_1x1=False))
_MM_X101_32: Final = _mm(
    ResNetSpec(depth=101, num_groups=32, width_per_group=4, stride_in_1x1=False)
)
_MM_X101_64: Final = _mm(
    ResNetSpec(depth=101, num_groups=64, width_per_group=4, stride_in_1x1=False)
)
_MM_SWIN_T: Final = _mm(SwinSpec())

PRESETS: Final[dict[str, Preset]] = {
    'mask_rcnn_R_50_FPN_3x': _zoo(
        'mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl', _R50, 'ResNet-50', 41.0, 37.2
    ),
    'mask_rcnn_R_101_FPN_3x': _zoo(
        'mask_rcnn_R_101_FPN_3x/138205316/model_final_a3ec72.pkl', _R101, 'ResNet-101', 42.9, 38.6
    ),
    'mask_rcnn_X_101_32x8d_FPN_3x': _zoo(
        'mask_rcnn_X_101_32x8d_FPN_3x/139653917/model_final_2d9806.pkl',
        _X101,
        'ResNeXt-101-32x8d',
        44.3,
        39.5,
    ),
    'maskrcnn_resnet50_fpn': Preset(
        architecture=torchvision.ARCHITECTURE,
        url='https://download.pytorch.org/models/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth',
        checksum=Checksum('sha256', 'bf2d0c1e'),
        licence=_TORCHVISION_LICENCE,
        family='ResNet-50',
        box_ap=37.9,
        mask_ap=34.6,
    ),
    'mask-rcnn_r50_fpn_1x_coco': _mmdetection(
        'mask_rcnn/mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6',
        _MM_R50,
        'ResNet-50',
        38.2,
        34.7,
    ),
    'mask-rcnn_r50_fpn_ms-poly-3x_coco': _mmdetection(
        'mask_rcnn/mask_rcnn_r50_fpn_mstrain-poly_3x_coco_20210524_201154-21b550bb',
        _MM_R50,
        'ResNet-50',
        40.9,
        37.1,
    ),
    'mask-rcnn_r101_fpn_1x_coco': _mmdetection(
        'mask_rcnn/mask_rcnn_r101_fpn_1x_coco_20200204-1efe0ed5',
        _MM_R101,
        'ResNet-101',
        40.0,
        36.1,
    ),
    'mask-rcnn_r101_fpn_ms-poly-3x_coco': _mmdetection(
        'mask_rcnn/mask_rcnn_r101_fpn_mstrain-poly_3x_coco_20210524_200244-5675c317',
        _MM_R101,
        'ResNet-101',
        42.7,
        38.5,
    ),
    'mask-rcnn_x101-32x4d_fpn_1x_coco': _mmdetection(
        'mask_rcnn/mask_rcnn_x101_32x4d_fpn_1x_coco_20200205-478d0b67',
        _MM_X101_32,
        'ResNeXt-101-32x4d',
        41.9,
        37.5,
    ),
    'mask-rcnn_x101-32x4d_fpn_ms-poly-3x_coco': _mmdetection(
        'mask_rcnn/mask_rcnn_x101_32x4d_fpn_mstrain-poly_3x_coco_20210524_201410-abcd7859',
        _MM_X101_32,
        'ResNeXt-101-32x4d',
        43.6,
        39.0,
    ),
    'mask-rcnn_x101-64x4d_fpn_1x_coco': _mmdetection(
        'mask_rcnn/mask_rcnn_x101_64x4d_fpn_1x_coco_20200201-9352eb0d',
        _MM_X101_64,
        'ResNeXt-101-64x4d',
        42.8,
        38.4,
    ),
    'mask-rcnn_x101-64x4d_fpn_ms-poly_3x_coco': _mmdetection(
        'mask_rcnn/mask_rcnn_x101_64x4d_fpn_mstrain-poly_3x_coco_20210526_120447-c376f129',
        _MM_X101_64,
        'ResNeXt-101-64x4d',
        44.5,
        39.7,
    ),
    'mask-rcnn_s50_fpn_syncbn-backbone+head_ms-1x_coco': _mmdetection(
        'resnest/mask_rcnn_s50_fpn_syncbn-backbone%2Bhead_mstrain_1x_coco_20200926_125503-8a2c3d47',
        _mm_resnest(ResNeStSpec()),
        'ResNeSt-50',
        42.6,
        38.1,
    ),
    'mask-rcnn_s101_fpn_syncbn-backbone+head_ms-1x_coco': _mmdetection(
        'resnest/mask_rcnn_s101_fpn_syncbn-backbone%2Bhead_mstrain_1x_coco_20201005_215831-af60cdf9',
        _mm_resnest(ResNeStSpec(depth=101, stem_channels=64)),
        'ResNeSt-101',
        45.2,
        40.2,
    ),
    'mask-rcnn_swin-t-p4-w7_fpn_1x_coco': _mmdetection(
        'swin/mask_rcnn_swin-t-p4-w7_fpn_1x_coco_20210902_120937-9d6b7cfa',
        _MM_SWIN_T,
        'Swin-T',
        42.7,
        39.3,
    ),
    'mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco': _mmdetection(
        'swin/mask_rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco_20210906_131725-bacf6f7b',
        _MM_SWIN_T,
        'Swin-T',
        46.0,
        41.6,
    ),
    'mask-rcnn_swin-s-p4-w7_fpn_amp-ms-crop-3x_coco': _mmdetection(
        'swin/mask_rcnn_swin-s-p4-w7_fpn_fp16_ms-crop-3x_coco_20210903_104808-b92c91f1',
        _mm(SwinSpec(depths=(2, 2, 18, 2))),
        'Swin-S',
        48.2,
        43.2,
    ),
    'mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco': _mmdetection(
        'convnext/mask_rcnn_convnext-t_p4_w7_fpn_fp16_ms-crop_3x_coco_20220426_154953-050731f4',
        _mm(ConvNeXtSpec()),
        'ConvNeXt-T',
        46.2,
        41.7,
    ),
    'maskrcnn_resnet50_fpn_v2': Preset(
        architecture=torchvision.ARCHITECTURE_V2,
        url='https://download.pytorch.org/models/maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth',
        checksum=Checksum('sha256', '73cbd019'),
        licence=_TORCHVISION_LICENCE,
        family='ResNet-50 v2',
        box_ap=47.4,
        mask_ap=41.8,
    ),
}


def preset_architecture(name: str) -> Architecture:
    """Return the network of a preset.

    Raises:
        ConfigError: no preset has this name.
    """
    if name not in PRESETS:
        raise ConfigError(unknown_model(name))
    return PRESETS[name].architecture


def unknown_model(name: str) -> str:
    """Return the message for a model that is neither preset nor file."""
    # A part first: by likeness alone another name of its length would come before the whole one.
    near = [preset for preset in PRESETS if name.lower() in preset.lower()][:_MOST_HINTS]
    near = near or difflib.get_close_matches(name, PRESETS, n=1)
    hint = f'; did you mean {" or ".join(near)}?' if near else ''
    return (
        f'{name}: expected a file or a preset (`python -m segnode models` lists them), found '
        f'neither{hint}'
    )


def published_url(location: str) -> str:
    """Return the URL that ``detectron2://`` stands for, others as they are."""
    return (
        _ZOO + location.removeprefix('detectron2://')
        if (location.startswith('detectron2://'))
        else location
    )


def published_checksum(url: str) -> Checksum | None:
    """Return the checksum of a preset's URL, None for others."""
    return next((preset.checksum for preset in PRESETS.values() if preset.url == url), None)
