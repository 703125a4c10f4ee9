# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a network costs by shapes alone, against what can be worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from narrow_checkpoint import ARCHITECTURE
from torch import Tensor

from segnode.model.backbone_specs import SwinSpec
from segnode.model.costs import _Watch, count_costs
from segnode.model.mask_rcnn import expected_state_dict


def test_live_tensors_are_counted_once_and_until_they_end() -> None:
    with _Watch() as watch:
        a = torch.empty(1000, device='meta')
        assert watch.peak == 4000
        b = a.view(10, 100).half()  # A view holds nothing of its own.
        assert watch.peak == 6000
        del a
        c = b + b
        assert watch.peak == 6000
        d = torch.relu_(c)  # In place.
        del c
        e = torch.cat((b, d))
        assert watch.peak == 2000 + 2000 + 4000
        del b, d, e
        torch.empty(2001, device='meta')
    assert watch.peak == 8004


def test_operations_and_traffic_of_layers() -> None:
    def meta(*shape: int) -> Tensor:
        return torch.empty(shape, device='meta')

    x, n = meta(1, 6, 10, 14), 5 * 7
    with torch.no_grad(), _Watch() as watch:
        F.conv2d(x, meta(8, 3, 3, 3), meta(8), stride=2, padding=1, groups=2)
        F.conv_transpose2d(x, meta(6, 4, 2, 2), meta(4), stride=2)
        F.linear(meta(11, 6), meta(5, 6), meta(5))
        F.scaled_dot_product_attention(*(meta(2, 3, 49, 8) for _ in range(3)))
    conv, deconv, linear, *attention = watch.layers
    assert conv.flop == 2 * 8 * n * 3 * 9
    assert conv.bytes == 2 * (6 * 140 + 8 * 27 + 8 * n)
    assert deconv.flop == 2 * 6 * 140 * 4 * 4
    assert linear.flop == 2 * 11 * 6 * 5
    assert linear.bytes == 2 * (11 * 6 + 30 + 11 * 5)
    assert sum(layer.flop for layer in attention) == 2 * 2 * 2 * 3 * 49 * 49 * 8


def test_weights_in_half_precision() -> None:
    costs = count_costs(ARCHITECTURE, (64, 64), proposals=10, masks=2)
    shapes = expected_state_dict(ARCHITECTURE)
    trained = sum(shape.numel() for name, shape in shapes.items() if 'running_' not in name)
    assert costs.parameters == trained
    # A norm's weight and bias become the bias of its convolution, which a shortcut gives away.
    norms = {name: shape.numel() for name, shape in shapes.items() if name.endswith('running_var')}
    shortcuts = sum(count for name, count in norms.items() if '.shortcut.' in name)
    assert shortcuts > 0
    assert costs.weight_bytes == 2 * (trained - sum(norms.values()) - shortcuts)


def test_what_sizes_and_counts_scale() -> None:
    narrow = dataclasses.replace(ARCHITECTURE, size_divisibility=64)
    one = count_costs(narrow, (64, 64), proposals=10, masks=2)
    padded = count_costs(narrow, (40, 33), proposals=10, masks=2)
    assert padded.layers == one.layers
    more = count_costs(narrow, (64, 128), proposals=30, masks=4)
    for part, factor in (('backbone', 2), ('rpn', 2), ('box_head', 3), ('mask_head', 2)):
        assert more.gflop(part) == factor * one.gflop(part)
    parts = ('backbone', 'rpn', 'box_head', 'mask_head')
    assert one.gflop() == pytest.approx(sum(map(one.gflop, parts)))
    assert more.activation_bytes > one.activation_bytes
    assert more.weight_bytes == one.weight_bytes
    without = count_costs(narrow, (64, 64), proposals=10, masks=0)
    assert without.gflop('mask_head') == 0
    assert without.gflop('backbone') == one.gflop('backbone')


def test_attention_is_counted() -> None:
    """Of a Swin whose maps are whole windows: its products, and attention's two."""
    spec = SwinSpec(depths=(2, 2, 2, 2), heads=(1, 2, 4, 8), channels=16)
    swin = dataclasses.replace(ARCHITECTURE, backbone=spec)
    side = 7 * 32
    layers = count_costs(swin, (side, side), proposals=1, masks=0).layers
    counted = sum(layer.flop for layer in layers if layer.part == 'backbone')
    expected = 2 * (side // 4) ** 2 * 16 * 48  # The patches.
    for level in range(4):
        patches, c = (side // 4 >> level) ** 2, 16 << level
        expected += 2 * (2 * patches * (3 + 1 + 8) * c * c + 2 * 2 * patches * 49 * c)
        if level < 3:
            expected += 2 * patches // 4 * 4 * c * 2 * c
        fpn = ARCHITECTURE.fpn_channels
        expected += 2 * patches * (c * fpn + 9 * fpn * fpn)
    assert counted == expected
