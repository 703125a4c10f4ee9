# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Convolution, bias, residual and ReLU in one call, where the PyTorch at hand offers it.

oneDNN's pointwise fusion serves CPUs and cuDNN's serves NVIDIA GPUs. Neither is a documented
interface, so each is tried on a small input first and must agree with the plain operators.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from segnode.model.backbone import Conv, FusedConv


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
        if residual is None:
            relu = 'relu' if conv.relu else 'none'
            out = operator(x, self._weight, conv.bias, *geometry, relu, [], '')
        else:
            relu_or_none = 'relu' if conv.relu else None
            arguments = (x, residual, self._weight, conv.bias, *geometry, 'add', 1.0)
            out = operator.binary(*arguments, relu_or_none, [], '')
        return out


def cudnn_conv(conv: Conv, x: Tensor, residual: Tensor | None) -> Tensor:
    """Run one folded convolution by cuDNN; only those with a ReLU have a fused form."""
    strides, pads, dilation = _ints(conv.stride), _ints(conv.padding), _ints(conv.dilation)
    if not conv.relu:
        x = torch.conv2d(x, conv.weight, conv.bias, strides, pads, dilation, conv.groups)
        return x if residual is None else x + residual
    if residual is None:
        return torch.cudnn_convolution_relu(
            x, conv.weight, conv.bias, strides, pads, dilation, conv.groups
        )
    return torch.cudnn_convolution_add_relu(
        x, conv.weight, residual, 1.0, conv.bias, strides, pads, dilation, conv.groups
    )


def _ints(geometry: Iterable[int | str]) -> list[int]:
    return [int(value) for value in geometry]


def fuse_convolutions(model: nn.Module) -> str:
    """Give every folded convolution of a model its fused form.

    Args:
        model: on its device, in its dtypes, batch norms folded.

    Returns:
        ``onednn``, ``cudnn`` or ``none``.
    """
    convs = [module for module in model.modules() if isinstance(module, Conv)]
    cuda = convs[0].weight.is_cuda
    for conv in convs:
        # The formats and geometries of one network differ, and so may what is supported.
        agrees = _agrees(conv, cudnn_conv if cuda else OneDNNConv())
        conv.fused = (cudnn_conv if cuda else OneDNNConv()) if agrees else None
    name = 'cudnn' if cuda else 'onednn'
    return name if any(conv.fused is not None for conv in convs) else 'none'


@torch.inference_mode()
def _agrees(conv: Conv, fused: FusedConv) -> bool:
    """Return whether a fused form runs and gives what the plain operators give."""
    shape = (1, conv.in_channels, 16, 16)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).to(conv.weight)
    x = x.to(memory_format=torch.channels_last)
    plain = conv.forward(x)
    residual = torch.ones_like(plain)
    try:
        results = [
            (fused(conv, x, None), plain),
            (fused(conv, x, residual), conv(x, residual)),
        ]
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    tolerance = 1e-4 if conv.weight.dtype == torch.float32 else 3e-2
    spread = plain.float().abs().max().clamp(min=1e-6)
    return all(
        ((a.float() - b.float()).abs().max() <= tolerance * spread).item() for a, b in results
    )
