# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""ResNeSt against its own definition in float64, with its norms and with them folded."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from random_weights import fill, relative
from seeds import fresh_seeds
from torch import Tensor

from segnode.model.backbone import build_backbone
from segnode.model.backbone.resnet import BLOCKS_PER_STAGE
from segnode.model.backbone_specs import ResNeStSpec
from segnode.model.conv import Conv

SPECS = {
    's50': ResNeStSpec(width=8, stem_channels=8),
    # The attention's hidden layer is as wide as the least, and wider.
    's101, wider': ResNeStSpec(depth=101, width=16, stem_channels=12),
    'four splits': ResNeStSpec(width=8, stem_channels=8, radix=4, reduction=2),
    'one split': ResNeStSpec(width=8, stem_channels=8, radix=1),
}


def reference(w: dict[str, Tensor], x: Tensor, spec: ResNeStSpec) -> list[Tensor]:
    """Compute the four maps of a ResNeSt (N, C, H, W), batch norms as they stand."""

    def conv(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = w[name + '.weight']
        padding = kernel.shape[-1] // 2
        x = F.conv2d(x, kernel, w.get(name + '.bias'), stride, padding, groups=groups)
        if name + '.norm.weight' not in w:
            return x
        mean, var, scale, shift = (
            w[f'{name}.norm.{key}'][:, None, None]
            for key in ('running_mean', 'running_var', 'weight', 'bias')
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def attend(x: Tensor, at: str) -> Tensor:
        x = conv(x, at + '.conv', groups=spec.radix).clamp(min=0)
        n, channels = len(x), x.shape[1] // spec.radix
        splits = [x[:, i * channels : (i + 1) * channels] for i in range(spec.radix)]
        hidden = max(spec.radix * channels // spec.reduction, 32)
        assert w[at + '.fc1.weight'].shape == (hidden, channels, 1, 1)
        pooled = torch.stack(splits).sum(0).mean((2, 3))[..., None, None]
        votes = conv(conv(pooled, at + '.fc1').clamp(min=0), at + '.fc2')
        votes = votes.view(n, spec.radix, channels, 1, 1)
        if spec.radix > 1:
            shares = votes.exp() / votes.exp().sum(1, keepdim=True)
        else:
            shares = 1 / (1 + (-votes).exp())
        return torch.stack([split * shares[:, i] for i, split in enumerate(splits)]).sum(0)

    for name, stride in (('conv1', 2), ('conv2', 1), ('conv3', 1)):
        x = conv(x, 'stem.' + name, stride).clamp(min=0)
    x = F.max_pool2d(x, 3, 2, padding=1)
    maps = []
    for level, blocks in enumerate(BLOCKS_PER_STAGE[spec.depth]):
        for block in range(blocks):
            at = f'res{level + 2}.{block}'
            y = attend(conv(x, at + '.conv1').clamp(min=0), at + '.conv2')
            if level and not block:
                y = F.avg_pool2d(y, 3, 2, padding=1)
                x = F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
            shortcut = conv(x, at + '.shortcut') if not block else x
            x = (conv(y, at + '.conv3') + shortcut).clamp(min=0)
        maps.append(x)
    return maps


@pytest.mark.parametrize('name', SPECS)
@pytest.mark.parametrize('seed', fresh_seeds(1))
@torch.inference_mode()
def test_maps_are_the_definitions(seed: int, name: str) -> None:
    spec = SPECS[name]
    backbone = build_backbone(spec)
    weights = {key: tensor.double() for key, tensor in fill(backbone, seed).items()}
    x = torch.randn((2, 3, 96, 160), generator=torch.Generator().manual_seed(seed))
    expected = reference(weights, x.double(), spec)
    channels_last = x.to(memory_format=torch.channels_last)
    before = backbone(x)
    for module in backbone.modules():
        if isinstance(module, Conv):
            module.fold_norm()
    assert not any('norm' in key for key in backbone.state_dict())
    for maps in (before, backbone(channels_last)):
        for ours, theirs in zip(maps, expected, strict=True):
            assert relative(ours, theirs) < 1e-4
    assert [each.shape[1] for each in expected] == backbone.out_channels
