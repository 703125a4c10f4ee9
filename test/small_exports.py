# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Networks that are small enough to be exported in seconds, and how the tests export them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segnode.benchmark.planted import render_frames
from segnode.checkpoint import NativeModel
from segnode.checkpoint.exported import Format
from segnode.checkpoint.planting import plant_weights
from segnode.config import Config
from segnode.export.request import Request
from segnode.export.run import export
from segnode.kernels.preprocess import preprocess
from segnode.model.architecture import Architecture
from segnode.model.backbone_specs import ConvNeXtSpec, ResNetSpec, SwinSpec
from segnode.torch_features import missing_features

HW = (96, 128)
SMALL = Architecture(
    backbone=ResNetSpec(depth=18, stem_out_channels=16, res2_out_channels=16),
    fpn_channels=16,
    box_fc_dims=(32, 32),
    mask_conv_dims=(16, 16),
    rpn_pre_nms_topk=200,
    rpn_post_nms_topk=100,
    num_classes=5,
    short_side=HW[0],
    long_side=HW[1],
)
# Backbones of other families.
CONVNEXT = ConvNeXtSpec(depths=(1, 1, 1, 1), channels=(8, 16, 16, 16))
SWIN = SwinSpec(depths=(1, 1, 1, 1), heads=(1, 1, 1, 1), channels=8)
FORMATS: tuple[Format, ...] = ('openvino', 'onnx')
_MISSING = missing_features('export')
# A test of what such a PyTorch cannot export.
needs_new_torch = pytest.mark.skipif(
    bool(_MISSING), reason=' '.join(feature.line() for feature in _MISSING)
)


def silently(pictures: Any, _: str) -> Any:
    return pictures


def small_model(seed: int = 0, architecture: Architecture = SMALL) -> NativeModel:
    (frame,) = render_frames(HW, 1)
    return NativeModel(
        architecture=architecture,
        state_dict=plant_weights(architecture, preprocess(frame, HW, architecture)[None], seed),
        class_names=('a', 'b', 'c', 'd', 'e'),
        category_ids=None,
        name='small',
        weights_path=Path('(planted)'),
        weights_sha256='0' * 64,
        licence='',
    )


def request(form: Format, output: Path, **changes: Any) -> Request:
    fields = {
        'form': form,
        'precision': 'fp32',
        'shapes': (),
        'output': output,
        'calibration': None,
        'check': render_frames(HW, 2),
        'truth': None,
        'search': False,
    }
    return Request(**{**fields, **changes})


# For a test of an export that takes any size.
FORMATS_OF_ANY_SIZE = (pytest.param('openvino', marks=needs_new_torch), 'onnx')


def any_or(form: Format, *sizes: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Return the shapes of an export for any size, or these where PyTorch is too old for that."""
    return sizes if _MISSING and form == 'openvino' else ()


def made(model: NativeModel, wanted: Request) -> dict[str, Any]:
    return export(Config(), model, wanted, lambda _: None, silently)
