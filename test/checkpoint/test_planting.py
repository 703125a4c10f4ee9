# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Planted weights: repeatable, within half precision, and good for some dozen detections."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch
from narrow_backbones import SPECS, narrow
from pictures import rendered
from torch import Tensor, nn

from segnode.checkpoint.planting import plant_weights
from segnode.checkpoint.torchvision import ARCHITECTURE as TORCHVISION
from segnode.engine.answers import Instances
from segnode.engine.dynamic import DynamicBackend
from segnode.engine.network import NativeNetwork
from segnode.engine.timing import StageClock
from segnode.kernels.preprocess import preprocess, resized_hw
from segnode.model.architecture import Architecture
from segnode.model.backbone_specs import ResNetSpec
from segnode.model.mask_rcnn import build_mask_rcnn, expected_state_dict

NARROW = Architecture(
    backbone=ResNetSpec(width_per_group=16, res2_out_channels=64),
    fpn_channels=64,
    box_fc_dims=(256, 256),
    mask_conv_dims=(64, 64),
    num_classes=5,
    short_side=256,
)
ARCHITECTURES = {
    'one class': dataclasses.replace(NARROW, num_classes=1),
    'many classes': dataclasses.replace(NARROW, num_classes=300),
    'agnostic': dataclasses.replace(NARROW, box_cls_agnostic=True, mask_cls_agnostic=True),
    'two RPN layers': dataclasses.replace(NARROW, rpn_conv_dims=(-1, -1)),
    'box convolutions': dataclasses.replace(NARROW, box_conv_dims=(64,), box_fc_dims=(64,)),
    'X101-like': dataclasses.replace(
        NARROW,
        backbone=dataclasses.replace(
            NARROW.backbone, depth=101, num_groups=8, width_per_group=4, stride_in_1x1=False
        ),
        pixel_std=(57.375, 57.12, 58.395),
    ),
    'torchvision': dataclasses.replace(
        TORCHVISION,
        backbone=dataclasses.replace(
            TORCHVISION.backbone, width_per_group=16, res2_out_channels=64
        ),
        fpn_channels=64,
        box_fc_dims=(256, 256),
        short_side=256,
    ),
}


FAMILIES = {
    'ResNet': NARROW,
    **{
        family: dataclasses.replace(narrow(family), rpn_pre_nms_topk=1000, short_side=256)
        for family in SPECS
    },
}
ARCHITECTURES.update(FAMILIES)
EACH_FAMILY = pytest.mark.parametrize('family', FAMILIES)


def pixels(architecture: Architecture, image_hw: tuple[int, int] = (300, 400)) -> Tensor:
    hw = resized_hw(image_hw, architecture.short_side, 1333, architecture.semantics.resize)
    return preprocess(rendered(9, image_hw), hw, architecture)[None]


@functools.cache
def planted(family: str) -> dict[str, Tensor]:
    architecture = FAMILIES[family]
    return plant_weights(architecture, pixels(architecture), 0)


def find(architecture: Architecture, state: dict[str, Tensor], threshold: float) -> Instances:
    network = NativeNetwork(architecture, state, torch.device('cpu'))
    settings = dataclasses.replace(
        network.defaults(),
        score_threshold=threshold,
        classes=frozenset(range(architecture.num_classes)),
    )
    backend = DynamicBackend(network)
    return backend.run([rendered(9, (300, 400))], settings, StageClock())[0]


@pytest.mark.parametrize('name', ARCHITECTURES)
def test_a_few_dozen_detections_with_scores_apart(name: str) -> None:
    architecture = ARCHITECTURES[name]
    found = find(architecture, plant_weights(architecture, pixels(architecture), 0), 0.5)
    scores = found.scores.numpy()
    assert 5 <= len(scores) <= 50
    assert scores[0] - scores[-1] > 0.2
    assert np.median(scores) < 0.95
    assert len(found.class_ids.unique()) >= min(architecture.num_classes, 3)
    covered = (found.masks > 0.5).float().mean()
    assert 0.5 < covered < 0.99


@EACH_FAMILY
def test_weights_are_complete_and_finite(family: str) -> None:
    architecture, state = FAMILIES[family], planted(family)
    expected = expected_state_dict(architecture)
    assert {name: tensor.shape for name, tensor in state.items()} == expected
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    assert all(tensor.dtype == torch.float32 for tensor in state.values())


@EACH_FAMILY
def test_the_seed_decides_and_nothing_else(family: str) -> None:
    architecture = FAMILIES[family]
    x = pixels(architecture)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = plant_weights(architecture, x, 0)
    assert torch.equal(torch.get_rng_state(), before)
    again, other = planted(family), plant_weights(architecture, x, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = 'roi_heads.box_head.fc1.weight'
    assert not torch.equal(first[name], other[name])


@EACH_FAMILY
def test_no_layer_comes_near_the_range_of_half_precision(family: str) -> None:
    largest = 0.0

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, float(output.abs().max()))

    architecture = FAMILIES[family]
    x = pixels(architecture)
    model = build_mask_rcnn(architecture, planted(family))
    for module in model.modules():
        module.register_forward_hook(watch)
    with torch.inference_mode():
        features = model.backbone(x)
        model.proposal_generator.rpn_head(features)
        model.roi_heads.box_predictor(model.roi_heads.box_head(features[0][:, :, :7, :7]))
        model.roi_heads.mask_head(features[0][:, :, :14, :14])
    assert 2 < largest < 500
    assert max(float(p.abs().max()) for p in model.parameters()) < 100


@EACH_FAMILY
def test_residual_branches_are_damped(family: str) -> None:
    """What is rounded in float32 must not grow from layer to layer, or nothing could agree."""
    architecture = FAMILIES[family]
    x = pixels(architecture)
    model = build_mask_rcnn(architecture, planted(family))
    generator = torch.Generator().manual_seed(0)
    moved = x + torch.randn(x.shape, generator=generator) * 1e-3 * x.std()
    with torch.inference_mode():
        for a, b in zip(model.backbone(x), model.backbone(moved), strict=True):
            assert (a - b).abs().mean() / a.std() < 8e-3


@pytest.mark.parametrize('family', SPECS)
def test_channels_of_norms_and_biases_of_positions_differ(family: str) -> None:
    """Else two of them could change places, and no comparison would show it."""
    state = planted(family)
    for name, tensor in state.items():
        # A batch norm's statistics differ, its weight need not.
        normalised = name.replace('weight', 'running_mean') in state
        if name.endswith(('gamma', 'table', 'weight')) and not normalised:
            assert len(tensor.unique()) > 1, name
