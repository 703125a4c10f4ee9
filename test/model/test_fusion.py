# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Fused convolutions are taken where they give what the plain operators give, and only there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from segnode.model import fusion
from segnode.model.conv import Conv

DTYPES = pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)


def conv(dtype: torch.dtype, *, relu: bool = True) -> Conv:
    torch.manual_seed(1)
    made = Conv(16, 24, 3, relu=relu).requires_grad_(requires_grad=False)
    return made.to(dtype).to(memory_format=torch.channels_last)


def plainly(layer: Conv, x: Tensor, residual: Tensor | None) -> Tensor:
    out = torch.conv2d(x, layer.weight, layer.bias, padding=1)
    out = out if residual is None else out + residual
    return torch.relu(out) if layer.relu else out


@DTYPES
@pytest.mark.parametrize('relu', [True, False])
def test_a_right_one_is_taken(dtype: torch.dtype, relu: bool) -> None:
    assert fusion._agrees(conv(dtype, relu=relu), plainly)


@DTYPES
@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason='oneDNN lacks bfloat16 here'
)
def test_onednns_is_taken(dtype: torch.dtype, groups: int) -> None:
    layer = Conv(16, 24, 3, groups=groups, relu=True).requires_grad_(requires_grad=False)
    layer = layer.to(dtype).to(memory_format=torch.channels_last)
    assert fusion._agrees(layer, fusion.OneDNNConv())


@DTYPES
def test_one_that_is_wrong_at_a_larger_size_is_refused(dtype: torch.dtype) -> None:
    """Libraries choose their kernels by size."""

    def wrong(layer: Conv, x: Tensor, residual: Tensor | None) -> Tensor:
        return plainly(layer, x, residual) * (1.0 if x.shape[-1] <= 16 else 1.1)

    assert not fusion._agrees(conv(dtype), wrong), 'what is wrong beyond 16x16 was taken'


@DTYPES
def test_one_that_reads_its_output_before_it_is_written_is_refused(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where cuDNN adds 0 times what the output's memory holds."""
    memory: list[Tensor] = []

    def remember(like: Tensor) -> None:
        memory[:] = [torch.full_like(like, torch.nan)]

    def careless(layer: Conv, x: Tensor, residual: Tensor | None) -> Tensor:
        out = plainly(layer, x, residual)
        return out + 0 * memory[0] if memory else out

    monkeypatch.setattr(fusion, '_leave_nan_behind', remember, raising=False)
    assert not fusion._agrees(conv(dtype), careless), 'what reads unwritten memory was taken'


@DTYPES
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize(
    ('kernel', 'stride', 'groups'), [(1, 1, 1), (1, 2, 1), (1, 1, 2), (3, 1, 1)]
)
def test_cudnns_without_a_relu_is_taken(
    dtype: torch.dtype,
    kernel: int,
    stride: int,
    groups: int,
    bias: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It needs no cuDNN; a product of matrices with a bias is run as such in half precision."""
    products = []
    linear = torch.nn.functional.linear

    def counted(*inputs: Tensor) -> Tensor:
        products.append(inputs)
        return linear(*inputs)

    monkeypatch.setattr(fusion.F, 'linear', counted)
    layer = Conv(16, 24, kernel, stride=stride, groups=groups)
    layer = layer.requires_grad_(requires_grad=False).to(dtype)
    layer = layer.to(memory_format=torch.channels_last)
    if not bias:
        layer.bias = None
    assert fusion._agrees(layer, fusion.cudnn_conv)
    # At each of two sizes without a summand.
    product = bias and dtype != torch.float32 and (kernel, stride, groups) == (1, 1, 1)
    assert len(products) == (2 if product else 0)
    x = torch.randn((2, 16, 6, 10)).to(dtype).to(memory_format=torch.channels_last)
    assert fusion.cudnn_conv(layer, x, None).is_contiguous(memory_format=torch.channels_last)


@DTYPES
def test_one_that_gives_no_number_or_fails_is_refused(dtype: torch.dtype) -> None:
    def nothing(layer: Conv, x: Tensor, residual: Tensor | None) -> Tensor:
        return plainly(layer, x, residual) * torch.nan

    def fail(*_: Any) -> Tensor:
        raise RuntimeError('no kernel for it')

    assert not fusion._agrees(conv(dtype), nothing)
    assert not fusion._agrees(conv(dtype), fail)


def test_each_form_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network has some seventy convolutions, of some twenty forms."""
    forms = [
        {'relu': True},
        {'relu': False},
        {'relu': True, 'stride': 2},
        {'relu': True, 'padding': 0},
        {'relu': True, 'groups': 2},
        {'relu': True, 'norm': 'BN'},
    ]
    layers = [Conv(16, 24, 3, **form) for form in forms for _ in range(3)]
    layers += [Conv(16, 24, 1, relu=True), Conv(16, 32, 3, relu=True)]
    for layer in layers:
        layer.fold_norm()
    network = torch.nn.Sequential(*layers, Conv(16, 32, 3, norm='GN', relu=True)).eval()
    network[0].to(torch.bfloat16)
    network.requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
    # What one is trained to does not vouch for the others.
    for parameter in network[1].parameters():
        parameter.zero_()
    network[3].weight.fill_(torch.nan)
    tried: list[Conv] = []

    def agrees(layer: Conv, fused: Any) -> bool:
        assert isinstance(fused, fusion.OneDNNConv)
        assert 0.05 < layer.weight.float().std() < 1
        assert 0.1 < layer.bias.float().std() < 3
        tried.append(layer)
        return layer.stride == (1, 1)

    monkeypatch.setattr(fusion, '_agrees', agrees)
    monkeypatch.setattr(fusion, '_tried', {})
    assert fusion.fuse_convolutions(network) == 'onednn'
    # A norm that is folded leaves a convolution as others are.
    wanted = [layers[index] for index in (0, 1, 3, 6, 9, 12, 18, 19)]
    assert list(map(fusion._form, tried)) == list(map(fusion._form, wanted))
    assert not layers[1].weight.any()
    for layer in layers:
        assert (layer.fused is None) == (layer.stride == (2, 2))
    # Each has its weight in the order that suits its own input.
    fused = [layer.fused for layer in layers if layer.fused]
    assert len(set(map(id, fused))) == len(fused)
    assert network[-1].fused is None


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize('size', [(16, 16), (25, 42), (120, 160), (200, 336)])
@pytest.mark.parametrize('kernel', [1, 3])
def test_cudnns_answer_does_not_hang_on_what_memory_held(
    dtype: torch.dtype, size: tuple[int, int], kernel: int
) -> None:
    """At the sizes of a ResNet-50, where its kernels are others than in the trial at loading."""
    layer = Conv(64, 256, kernel, relu=True).requires_grad_(requires_grad=False)
    layer = layer.to('cuda', dtype).to(memory_format=torch.channels_last)
    x = torch.randn((1, 64, *size), device='cuda').to(dtype)
    x = x.to(memory_format=torch.channels_last)
    answers = []
    for value in (0.0, torch.nan, torch.inf):
        left = [torch.full((1, 256, *size), value, device='cuda', dtype=dtype) for _ in range(4)]
        del left
        answers.append(fusion.cudnn_conv(layer, x, None))
    assert torch.isfinite(answers[0]).all()
    assert all(torch.equal(answer, answers[0]) for answer in answers[1:])
