# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Published models that can be had by name.

Detectron2's MODEL_ZOO.md: file names carry the beginning of the MD5, all models are CC BY-SA 3.0.
torchvision: file names carry the beginning of the SHA-256.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Final

from segnode.checkpoint import torchvision
from segnode.checkpoint.download import Checksum
from segnode.errors import ConfigError
from segnode.model.architecture import Architecture
from segnode.model.backbone_specs import ResNetSpec

_ZOO: Final = 'https://dl.fbaipublicfiles.com/detectron2/'
_ZOO_LICENCE: Final = 'CC BY-SA 3.0 (Detectron2 model zoo)'


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A published model.

    Attributes:
        architecture: the network.
        url: of the weights.
        checksum: what the publisher says of the file.
        licence: of the weights.
    """

    architecture: Architecture
    url: str
    checksum: Checksum
    licence: str


def _zoo(name: str, file: str, architecture: Architecture) -> Preset:
    prefix = file.rpartition('_')[2].removesuffix('.pkl')
    return Preset(
        architecture=architecture,
        url=f'{_ZOO}COCO-InstanceSegmentation/{name}/{file}',
        checksum=Checksum('md5', prefix),
        licence=_ZOO_LICENCE,
    )


_R50: Final = Architecture()
_R101: Final = dataclasses.replace(_R50, backbone=ResNetSpec(depth=101))
_X101: Final = dataclasses.replace(
    _R101,
    backbone=ResNetSpec(depth=101, num_groups=32, width_per_group=8, stride_in_1x1=False),
    pixel_std=(57.375, 57.12, 58.395),
)

PRESETS: Final[dict[str, Preset]] = {
    'mask_rcnn_R_50_FPN_3x': _zoo(
        'mask_rcnn_R_50_FPN_3x', '137849600/model_final_f10217.pkl', _R50
    ),
    'mask_rcnn_R_101_FPN_3x': _zoo(
        'mask_rcnn_R_101_FPN_3x', '138205316/model_final_a3ec72.pkl', _R101
    ),
    'mask_rcnn_X_101_32x8d_FPN_3x': _zoo(
        'mask_rcnn_X_101_32x8d_FPN_3x', '139653917/model_final_2d9806.pkl', _X101
    ),
    'maskrcnn_resnet50_fpn': Preset(
        architecture=torchvision.ARCHITECTURE,
        url='https://download.pytorch.org/models/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth',
        checksum=Checksum('sha256', 'bf2d0c1e'),
        licence='BSD-3-Clause (torchvision), trained on COCO',
    ),
    'maskrcnn_resnet50_fpn_v2': Preset(
        architecture=torchvision.ARCHITECTURE_V2,
        url='https://download.pytorch.org/models/maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth',
        checksum=Checksum('sha256', '73cbd019'),
        licence='BSD-3-Clause (torchvision), trained on COCO',
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
    near = difflib.get_close_matches(name, PRESETS, n=1)
    hint = f'; did you mean {near[0]}?' if near else ''
    return f'{name}: expected a file or one of {", ".join(PRESETS)}, found neither{hint}'


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
