# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Group norms, which nothing can fold away: on both paths and in half precision."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from narrow_checkpoint import random_state
from pictures import rendered

from segnode.checkpoint import NativeModel
from segnode.checkpoint.planting import plant_weights
from segnode.config import Config
from segnode.engine import Engine, Segmentation
from segnode.kernels.preprocess import preprocess
from segnode.model.architecture import Architecture
from segnode.model.conv import Conv
from segnode.model.mask_rcnn import build_mask_rcnn

SIZE = (128, 160)
NARROW = Architecture(
    width_per_group=32,
    res2_out_channels=64,
    backbone_norm='GN',
    fpn_channels=64,
    fpn_norm='GN',
    box_conv_dims=(64,),
    box_norm='GN',
    box_fc_dims=(128,),
    mask_conv_dims=(64,),
    mask_norm='GN',
    num_classes=5,
    score_threshold=0.5,
    short_side=128,
    long_side=160,
)


@pytest.fixture(scope='module')
def model() -> NativeModel:
    state = plant_weights(NARROW, preprocess(rendered(5, SIZE), SIZE, NARROW)[None], seed=0)
    return NativeModel(
        architecture=NARROW,
        state_dict=state,
        class_names=tuple('abcde'),
        category_ids=None,
        name='planted',
        weights_path=Path('none'),
        weights_sha256='',
        licence='',
    )


def answer(model: NativeModel, *, static: bool, precision: str) -> Segmentation:
    config = Config(device='cpu', precision=precision)
    return Engine(config, model=model, static=static).segment([rendered(5, SIZE)])[0]


def test_both_paths_answer_alike(model: NativeModel) -> None:
    a, b = (answer(model, static=static, precision='fp32') for static in (False, True))
    assert 5 <= len(a.detections) == len(b.detections)
    np.testing.assert_allclose(a.detections.boxes_xyxy, b.detections.boxes_xyxy, atol=1e-2)
    np.testing.assert_allclose(a.detections.scores, b.detections.scores, atol=1e-4)
    assert (a.label_image != b.label_image).mean() < 1e-3


@pytest.mark.parametrize('static', [False, True], ids=['dynamic', 'static'])
def test_bfloat16_answers_much_alike(model: NativeModel, static: bool) -> None:
    exact = answer(model, static=False, precision='fp32')
    found = answer(model, static=static, precision='bf16')
    assert abs(len(found.detections) - len(exact.detections)) <= 0.3 * len(exact.detections)
    assert ((found.label_image > 0) != (exact.label_image > 0)).mean() < 0.1


def test_epsilon_is_the_architectures() -> None:
    architecture = dataclasses.replace(NARROW, norm_eps=0.5)
    network = build_mask_rcnn(architecture, random_state(architecture))
    convs = [m for m in network.modules() if isinstance(m, Conv) and m.norm is not None]
    assert len(convs) == 52 + 8 + 1 + 1
    assert {conv.norm.eps for conv in convs if conv.norm is not None} == {0.5}
    assert all(isinstance(conv.norm, torch.nn.GroupNorm) for conv in convs)
