# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Convolution, bias, residual and ReLU in one call, where the PyTorch at hand offers it.

oneDNN's pointwise fusion serves CPUs and cuDNN's serves NVIDIA GPUs. Neither is a documented
interface, so each is tried first and must agree with the plain operators.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnode.errors import is_out_of_memory
from segnode.model.conv import Conv, FusedConv

# Height and width of the inputs that a fused form is tried on.
TRIAL_SIZES = ((16, 16), (25, 42))
# Whether the fused form of a convolution agrees, by what ``_form`` tells of it.
_tried: dict[tuple[object, ...], bool] = {}


class OneDNNConv:
    """Runs one folded convolution by oneDNN.

    The weight is brought into the order that suits the first input, once; oneDNN would do it at
    every call. Inputs of other sizes are right as well.
    """

    def __init__(self) -> None:
        self._weight: Tensor | None = None

    def __call__(self, conv: Conv, x: Tensor, residual: Tensor | None) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H', W')."""
        pads, strides = _ints(conv.padding), _ints(conv.stride)
        geometry = (pads, strides, _ints(conv.dilation), conv.groups)
        if self._weight is None:
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(
                conv.weight.detach(), *geometry, list(x.shape)
            )
        operator = torch.ops.mkldnn._convolution_pointwise
        out: Tensor
        if residual is not None and conv.groups > 1 and conv.weight.dtype != torch.float32:
            # PyTorch offers no summand here.
            out = operator(x, self._weight, conv.bias, *geometry, 'none', [], '') + residual
            out = torch.relu_(out) if conv.relu else out
        elif residual is None:
            relu = 'relu' if conv.relu else 'none'
            out = operator(x, self._weight, conv.bias, *geometry, relu, [], '')
        else:
            relu_or_none = 'relu' if conv.relu else None
            arguments = (x, residual, self._weight, conv.bias, *geometry, 'add', 1.0)
            out = operator.binary(*arguments, relu_or_none, [], '')
        return out


def cudnn_conv(conv: Conv, x: Tensor, residual: Tensor | None) -> Tensor:
    """Run one folded convolution by cuDNN; only those with a ReLU have a fused form.

    Of the others, one that is a product of matrices is run as such in half precision: cuBLAS adds
    its bias, which PyTorch adds to cuDNN's in a pass of its own. In float32 a convolution may be
    TF32, and a product is not unless it is asked for.
    """
    strides, pads, dilation = _ints(conv.stride), _ints(conv.padding), _ints(conv.dilation)
    if not conv.relu:
        if conv.bias is not None and residual is None and _is_product(conv):
            pixels = len(x) * x.shape[2] * x.shape[3]
            rows = x.permute(0, 2, 3, 1).reshape(pixels, conv.in_channels)
            rows = F.linear(rows, conv.weight.flatten(1), conv.bias)
            return rows.view(len(x), *x.shape[2:], conv.out_channels).permute(0, 3, 1, 2)
        x = torch.conv2d(x, conv.weight, conv.bias, strides, pads, dilation, conv.groups)
        return x if residual is None else x + residual
    if residual is None:
        return torch.cudnn_convolution_relu(
            x, conv.weight, conv.bias, strides, pads, dilation, conv.groups
        )
    return torch.cudnn_convolution_add_relu(
        x, conv.weight, residual, 1.0, conv.bias, strides, pads, dilation, conv.groups
    )


def _is_product(conv: Conv) -> bool:
    """Return whether it is in half precision, and each output pixel hangs on one input pixel."""
    geometry = (conv.kernel_size, conv.stride, conv.padding, conv.groups)
    return conv.weight.dtype != torch.float32 and geometry == ((1, 1), (1, 1), (0, 0), 1)


def _ints(geometry: Iterable[int | str]) -> list[int]:
    return [int(value) for value in geometry]


def fuse_convolutions(model: nn.Module) -> str:
    """Give every convolution of a model, but those before a group norm, its fused form.

    Args:
        model: on its device, in its dtypes, batch norms folded.

    Returns:
        ``onednn``, ``cudnn`` or ``none``.
    """
    convs = [m for m in model.modules() if isinstance(m, Conv) and m.norm is None]
    for conv in convs:
        # The formats and geometries of one network differ, and so may what is supported.
        fuse_convolution(conv)
    name = 'cudnn' if convs[0].weight.is_cuda else 'onednn'
    return name if any(conv.fused is not None for conv in convs) else 'none'


def fuse_convolution(conv: Conv) -> None:
    """Give a convolution its fused form where that agrees, else none, as before a norm.

    It is tried once for all of its form that a process has.
    """
    conv.fused = None
    if conv.norm is None:
        form = _form(conv)
        if form not in _tried:
            like = _of_random_numbers(conv)
            _tried[form] = _agrees(like, _fused_form(like))
        if _tried[form]:
            conv.fused = _fused_form(conv)


def _fused_form(conv: Conv) -> FusedConv:
    return cudnn_conv if conv.weight.is_cuda else OneDNNConv()


@torch.no_grad()
def _of_random_numbers(conv: Conv) -> Conv:
    """Return a convolution like another, whose own numbers may hide what is wrong: all zeros."""
    like = copy.deepcopy(conv)
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(like.weight.shape, generator=generator)
    like.weight.copy_(numbers / like.weight[0].numel() ** 0.5)
    if like.bias is not None:
        like.bias.copy_(torch.randn(like.bias.shape, generator=generator))
    return like


def _form(conv: Conv) -> tuple[object, ...]:
    """Return what a library may choose a convolution's kernel by, apart from its input's size."""
    weight = conv.weight
    memory = (weight.device, weight.dtype, weight.shape, weight.stride())
    geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
    return (*memory, *geometry, conv.bias is None, conv.relu)


@contextmanager
def measured_convolutions() -> Iterator[None]:
    """Have cuDNN choose its algorithms by measuring; whether TF32 is allowed stays as it is."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def whole_sums() -> Iterator[None]:
    """Keep cuBLAS from adding parts of a half-precision product in half precision.

    It may by default where it splits a long sum, and a part can be beyond FP16's 65504 where the
    whole is not. Convolutions are summed in float32.
    """
    cublas = torch.backends.cuda.matmul
    before = (
        cublas.allow_fp16_reduced_precision_reduction,
        cublas.allow_bf16_reduced_precision_reduction,
    )
    cublas.allow_fp16_reduced_precision_reduction = False
    cublas.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        cublas.allow_fp16_reduced_precision_reduction = before[0]
        cublas.allow_bf16_reduced_precision_reduction = before[1]


@torch.inference_mode()
def _agrees(conv: Conv, fused: FusedConv) -> bool:
    """Return whether a fused form runs and gives what the plain operators give in float64.

    It is tried at two sizes, as libraries choose their kernels by size, and on memory that held
    no numbers: cuDNN is handed the output, not yet written, as a summand with the factor 0.
    """
    tolerance = 3e-2
    if conv.weight.dtype == torch.float32:
        # On a GPU it may be TF32, as the caller has it.
        tolerance = 5e-3 if conv.weight.is_cuda else 1e-4
    generator = torch.Generator().manual_seed(0)
    for size in TRIAL_SIZES:
        x = torch.randn((1, conv.in_channels, *size), generator=generator).to(conv.weight)
        x = x.to(memory_format=torch.channels_last)
        plain = _plainly(conv, x)
        summand = torch.ones_like(plain, dtype=x.dtype, memory_format=torch.channels_last)
        for residual in (False, True):
            expected = plain + 1 if residual else plain
            expected = torch.relu(expected) if conv.relu else expected
            _leave_nan_behind(summand)
            try:
                with measured_convolutions(), whole_sums():  # as where it is captured
                    found = fused(conv, x, summand if residual else None)
            except (RuntimeError, AttributeError, TypeError) as error:
                if is_out_of_memory(error):
                    raise
                return False
            spread = expected.abs().max().clamp(min=1e-6)
            # Not "further apart", which what is no number never is.
            if not bool((found.double() - expected).abs().max() <= tolerance * spread):
                return False
    return True


def _plainly(conv: Conv, x: Tensor) -> Tensor:
    """Return a convolution's answer in float64, before a residual and ReLU."""
    return torch.conv2d(
        x.double(),
        conv.weight.double(),
        None if conv.bias is None else conv.bias.double(),
        _ints(conv.stride),
        _ints(conv.padding),
        _ints(conv.dilation),
        conv.groups,
    )


def _leave_nan_behind(like: Tensor) -> None:
    """Give memory back that holds NaN; an allocator hands it out for the next such tensor."""
    torch.full_like(like, torch.nan)
