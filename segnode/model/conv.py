# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A convolution with what follows it: norm, residual, ReLU.

Shapes: N images, C channels, H and W of the map at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnode.model.architecture import Norm

# Groups of a group norm (Detectron2's ``get_norm``).
GROUPS: Final = 32

# One call for convolution, bias, residual and ReLU: see fusion.py.
FusedConv: TypeAlias = Callable[['Conv', Tensor, Tensor | None], Tensor]


class Conv(nn.Conv2d):
    """Convolution, then ``norm``, a residual and ReLU where asked for.

    A batch norm can be folded into the convolution; a group norm depends on what it is given.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = False,
        norm: Norm = '',
        relu: bool = False,
    ) -> None:
        """Make the layer, its weights not set.

        Args:
            in_channels: C_in.
            out_channels: C_out.
            kernel: its side.
            stride: pixels from one output to the next.
            padding: pixels on each side; None leaves a map's size to the stride alone.
            groups: of channels that see each other.
            bias: it has one although a norm follows.
            norm: what follows it.
            relu: ReLU at the end.
        """
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=kernel // 2 if padding is None else padding,
            groups=groups,
            bias=bias or not norm,
        )
        self.norm: nn.BatchNorm2d | nn.GroupNorm | None = None
        if norm == 'BN':
            self.norm = nn.BatchNorm2d(out_channels)
        elif norm == 'GN':
            self.norm = nn.GroupNorm(GROUPS, out_channels)
        self.relu = relu
        self.fused: FusedConv | None = None

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H', W'); a ``residual`` is added before the ReLU."""
        # A neighbour may have had to stay in float32.
        x = x.to(self.weight.dtype)
        residual = None if residual is None else residual.to(self.weight.dtype)
        if self.fused is not None:
            return self.fused(self, x, residual)
        x = super().forward(x)
        if isinstance(self.norm, nn.GroupNorm):
            # Sums over whole groups of a map, whatever the format of the convolutions.
            x = self.norm(x.float()).to(x.dtype)
        elif self.norm is not None:
            x = self.norm(x)
        if residual is not None:
            x = x + residual
        return F.relu(x) if self.relu else x

    @torch.no_grad()
    def fold_norm(self) -> None:
        """Move the batch norm's running statistics into weight and bias, and drop it."""
        norm = self.norm
        if not isinstance(norm, nn.BatchNorm2d):
            return
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        self.weight.mul_(scale[:, None, None, None])
        mean = norm.running_mean if self.bias is None else norm.running_mean - self.bias
        self.bias = nn.Parameter(norm.bias - mean * scale, requires_grad=False)
        self.norm = None

    @torch.no_grad()
    def widen_input(self, channels: int) -> None:
        """Take an input of more channels, of which those beyond its own weigh nothing.

        What was its fused form is another convolution's.
        """
        assert self.groups == 1
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, channels - self.in_channels))
        weight = weight.contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.in_channels = channels
        self.fused = None

    @torch.no_grad()
    def take_bias(self, shortcut: Conv) -> None:
        """Add the bias of what this is added to to its own: one sum of two maps is saved."""
        if self.bias is None or shortcut.bias is None or shortcut.norm or self.norm:
            return
        self.bias = nn.Parameter(self.bias + shortcut.bias, requires_grad=False)
        shortcut.bias = None
