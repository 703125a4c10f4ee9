# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Layers whose channels are the last dimension, each in the number format that it holds."""

from __future__ import annotations

from torch import Tensor, nn


class Linear(nn.Linear):
    """A fully connected layer that brings its input into the format of its weight."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C_in) to (..., C_out)."""
        return super().forward(x.to(self.weight.dtype))


class LayerNorm(nn.LayerNorm):
    """A layer norm in float32, whatever the format of its input, as under autocast."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C) float32."""
        return super().forward(x.float())

    def of_map(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W) float32 in channels_last."""
        out: Tensor = self(x.permute(0, 2, 3, 1))
        return out.permute(0, 3, 1, 2)


class MLP(nn.Module):
    """Two layers with a GELU between them, named as in MMDetection's ``FFN``."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Sequential(Linear(channels, hidden), nn.GELU()), Linear(hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        out: Tensor = self.layers(x)
        return out
