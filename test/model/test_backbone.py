# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""ResNet, FPN and mask head against Detectron2's and torchvision's."""

from __future__ import annotations

import dataclasses
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from seeds import fresh_seeds
from torch import Tensor, nn
from torchvision.models import resnet34, resnet50

from segnode.model.architecture import Architecture
from segnode.model.backbone.resnet import ResNet
from segnode.model.backbone_specs import ResNetSpec
from segnode.model.conv import Conv
from segnode.model.fpn import FPN
from segnode.model.maps import add_enlarged
from segnode.model.mask_head import MaskHead, mask_probabilities
from segnode.model.mask_rcnn import MaskRCNN, build_mask_rcnn, expected_state_dict

NARROW = Architecture(
    backbone=ResNetSpec(width_per_group=8, stem_out_channels=16, res2_out_channels=16)
)
ARCHITECTURES = {
    # Detectron2 builds ResNet-18 and -34 in full width alone.
    'r18': Architecture(backbone=ResNetSpec(depth=18, res2_out_channels=64)),
    'r34': Architecture(backbone=ResNetSpec(depth=34, res2_out_channels=64)),
    'r50': NARROW,
    'r101': dataclasses.replace(
        NARROW, backbone=dataclasses.replace(NARROW.backbone, depth=101, stride_in_1x1=False)
    ),
    'x152': dataclasses.replace(
        NARROW,
        backbone=dataclasses.replace(
            NARROW.backbone, depth=152, num_groups=4, width_per_group=4, stride_in_1x1=False
        ),
    ),
    'avg': dataclasses.replace(NARROW, fpn_fuse='avg'),
}


def random_state(module: nn.Module, seed: int) -> dict[str, Tensor]:
    """Return weights that keep the numbers of every layer near 1."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in module.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith('running_var') or (tensor.ndim == 1 and name.endswith('weight')):
            state[name] = 0.5 + noise.abs()
        elif tensor.ndim > 1:
            state[name] = noise / tensor[0].numel() ** 0.5
        elif not name.endswith('num_batches_tracked'):
            state[name] = noise * 0.1
    return state


@pytest.mark.parametrize('name', ARCHITECTURES)
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_pyramid_is_detectron2s(detectron2: ModuleType, seed: int, name: str) -> None:
    from detectron2.config import get_cfg
    from detectron2.modeling import build_backbone

    architecture = dataclasses.replace(ARCHITECTURES[name], fpn_channels=24)
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = 'build_resnet_fpn_backbone'
    resnets, fpn = cfg.MODEL.RESNETS, cfg.MODEL.FPN
    resnets.OUT_FEATURES = fpn.IN_FEATURES = ['res2', 'res3', 'res4', 'res5']
    resnets.DEPTH = architecture.backbone.depth
    resnets.NUM_GROUPS = architecture.backbone.num_groups
    resnets.WIDTH_PER_GROUP = architecture.backbone.width_per_group
    resnets.STEM_OUT_CHANNELS = architecture.backbone.stem_out_channels
    resnets.RES2_OUT_CHANNELS = architecture.backbone.res2_out_channels
    resnets.STRIDE_IN_1X1 = architecture.backbone.stride_in_1x1
    fpn.OUT_CHANNELS = architecture.fpn_channels
    fpn.FUSE_TYPE = architecture.fpn_fuse
    theirs = build_backbone(cfg).eval()
    ours = FPN(architecture).eval()
    state = random_state(ours, seed)
    theirs.load_state_dict(state)
    ours.load_state_dict(state, strict=False)
    x = torch.randn((2, 3, 96, 64), generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        expected = list(theirs(x).values())
        plain = ours(x)
        for module in ours.modules():
            if isinstance(module, Conv):
                module.fold_norm()
        folded = ours(x)
    assert [tuple(f.shape[1:]) for f in plain] == [
        (24, 24, 16),
        (24, 12, 8),
        (24, 6, 4),
        (24, 3, 2),
        (24, 2, 1),
    ]
    for feature, folded_feature, reference in zip(plain, folded, expected, strict=True):
        tolerance = 1e-4 * float(reference.abs().max())
        torch.testing.assert_close(feature, reference, rtol=0, atol=tolerance)
        torch.testing.assert_close(folded_feature, reference, rtol=0, atol=tolerance)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in ours.modules())


@pytest.mark.parametrize('depth', [34, 50])
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_stages_are_torchvisions(seed: int, depth: int) -> None:
    """There the stride is in the 3x3 convolution, and the names differ."""
    architecture = Architecture(
        backbone=ResNetSpec(
            depth=depth, stride_in_1x1=False, res2_out_channels=64 if depth < 50 else 256
        )
    )
    ours = ResNet(architecture.backbone).eval()
    theirs = {34: resnet34, 50: resnet50}[depth](weights=None).eval()
    state = random_state(theirs, seed)
    theirs.load_state_dict(state, strict=False)
    names = {
        'bn': lambda n: f'conv{n}.norm',
        'layer': lambda n: f'res{int(n) + 1}',
    }
    renamed = {}
    for name, tensor in state.items():
        for old, new in names.items():
            for digit in '1234':
                name = name.replace(f'{old}{digit}', new(digit))
        name = name.replace('downsample.0', 'shortcut').replace('downsample.1', 'shortcut.norm')
        renamed[name if name.startswith('res') else f'stem.{name}'] = tensor
    ours.load_state_dict(
        {k: v for k, v in renamed.items() if not k.startswith('stem.fc')}, strict=False
    )
    x = torch.randn((1, 3, 64, 96), generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for stage, feature in enumerate(ours(x), start=1):
            expected = theirs.get_submodule(f'layer{stage}')(expected)
            tolerance = 1e-4 * float(expected.abs().max())
            torch.testing.assert_close(feature, expected, rtol=0, atol=tolerance)


def test_epsilon_and_counters() -> None:
    architecture = dataclasses.replace(NARROW, norm_eps=0.0, num_classes=2)
    expected = expected_state_dict(architecture)
    assert not any(name.endswith('num_batches_tracked') for name in expected)
    state = random_state(MaskRCNN(architecture), 0)
    assert {name: tensor.shape for name, tensor in state.items()} == expected
    before = {name: tensor.clone() for name, tensor in state.items()}
    model = build_mask_rcnn(architecture, state)
    stem = 'backbone.bottom_up.stem.conv1'
    scale = state[f'{stem}.norm.weight'] / state[f'{stem}.norm.running_var'].sqrt()
    torch.testing.assert_close(
        model.get_submodule(stem).weight, state[f'{stem}.weight'] * scale[:, None, None, None]
    )
    # The caller's weights are as they were.
    assert all(torch.equal(before[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize('agnostic', [False, True])
def test_mask_head_is_detectron2s(detectron2: ModuleType, agnostic: bool) -> None:
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.roi_heads.mask_head import (
        MaskRCNNConvUpsampleHead,
        mask_rcnn_inference,
    )
    from detectron2.structures import Instances

    architecture = Architecture(
        fpn_channels=16, mask_conv_dims=(24, 24), num_classes=5, mask_cls_agnostic=agnostic
    )
    ours = MaskHead(architecture)
    theirs = MaskRCNNConvUpsampleHead(
        ShapeSpec(channels=16, height=14, width=14),
        num_classes=1 if agnostic else 5,
        conv_dims=[24, 24, 24],
    )
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn((6, 16, 14, 14))
    class_ids = torch.tensor([0, 4, 2, 2, 1, 3])
    with torch.inference_mode():
        logits = ours(x)
        expected = theirs.layers(x)
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
        found = Instances((1, 1), pred_classes=class_ids)
        mask_rcnn_inference(expected, [found])
    probabilities = mask_probabilities(logits, class_ids)
    assert probabilities.shape == (6, 28, 28)
    torch.testing.assert_close(probabilities, found.pred_masks[:, 0], rtol=1e-5, atol=1e-6)

    ours.join_deconv()
    assert 'deconv' not in dict(ours.named_children())
    for layout in (torch.contiguous_format, torch.channels_last):
        with torch.inference_mode():
            logits = ours(x.to(memory_format=layout))
        assert logits.shape == (6, expected.shape[1], 14, 2, 14, 2)
        torch.testing.assert_close(logits.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
        found_at_once = mask_probabilities(logits, class_ids)
        torch.testing.assert_close(found_at_once, probabilities, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_a_map_is_enlarged_while_it_is_added(layout: torch.memory_format) -> None:
    x, small = (torch.randn((2, 5, *size)).to(memory_format=layout) for size in ((6, 14), (3, 7)))
    found = add_enlarged(x, small)
    assert torch.equal(found, x + F.interpolate(small, scale_factor=2.0, mode='nearest'))
    assert found.is_contiguous(memory_format=layout)


@pytest.mark.parametrize('depth', [18, 50])
def test_a_shortcut_gives_its_bias_away(depth: int) -> None:
    architecture = Architecture(
        backbone=ResNetSpec(
            depth=depth, width_per_group=8, stem_out_channels=16, res2_out_channels=32
        )
    )
    model = MaskRCNN(architecture).eval()
    model.load_state_dict(random_state(model, 0), strict=False)
    with torch.inference_mode():
        x = torch.randn((1, 3, 64, 96))
        expected = model.backbone.bottom_up(x)
        model.fold_norms()
        for found, apart in zip(model.backbone.bottom_up(x), expected, strict=True):
            tolerance = 1e-4 * float(apart.abs().max())
            torch.testing.assert_close(found, apart, rtol=0, atol=tolerance)
    shortcuts = [module for name, module in model.named_modules() if name.endswith('.shortcut')]
    assert len(shortcuts) == 4
    assert all(each.bias is None for each in shortcuts)
