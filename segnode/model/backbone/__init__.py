# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The bottom-up paths: one module a family."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from segnode.model.backbone.convnext import ConvNeXt
from segnode.model.backbone.resnest import ResNeSt
from segnode.model.backbone.resnet import ResNet
from segnode.model.backbone.swin import Swin
from segnode.model.backbone_specs import BackboneSpec, ResNeStSpec, ResNetSpec, SwinSpec
from segnode.model.maps import PLAIN, MapSteps


class Backbone(Protocol):
    """A bottom-up path, a module.

    Attributes:
        out_channels: of each of its maps.
    """

    out_channels: list[int]

    def __call__(self, x: Tensor, steps: MapSteps = PLAIN) -> list[Tensor]:
        """Map (N, 3, H, W), multiples of 32, to the maps of strides 4, 8, 16 and 32.

        Those that pool nothing have no use for ``steps``.
        """
        ...


def build_backbone(spec: BackboneSpec) -> ResNet | ResNeSt | Swin | ConvNeXt:
    """Return the module of a backbone, its weights not set."""
    if isinstance(spec, ResNetSpec):
        return ResNet(spec)
    if isinstance(spec, ResNeStSpec):
        return ResNeSt(spec)
    if isinstance(spec, SwinSpec):
        return Swin(spec)
    return ConvNeXt(spec)
