# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Batch norms of a file that the network has not: folded into the convolution before each.

Such a layer has ``norm.weight`` to ``norm.running_var`` beside its weight in the file, and a bias
in the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

NORM_TENSORS: Final = ('weight', 'bias', 'running_mean', 'running_var')


def unfolded_shapes(
    expected: Mapping[str, Sequence[int]], layers: Iterable[str]
) -> dict[str, Sequence[int]]:
    """Return the shapes that a file has where batch norms follow some layers."""
    shapes = dict(expected)
    for layer in layers:
        shape = shapes.pop(f'{layer}.bias')
        shapes.update({f'{layer}.norm.{name}': shape for name in NORM_TENSORS})
    return shapes


def fold(state: dict[str, Tensor], layers: Iterable[str], norm_eps: float) -> None:
    """Put weight and bias of each layer in the place of weight and norm, in place.

    Args:
        state: float32, checked, of ``unfolded_shapes``.
        layers: the convolutions that norms follow.
        norm_eps: what is added to a variance before it divides.
    """
    for layer in layers:
        gamma, beta, mean, variance = (
            state.pop(f'{layer}.norm.{name}').double() for name in NORM_TENSORS
        )
        scale = gamma * torch.rsqrt(variance + norm_eps)
        weight = state[f'{layer}.weight'].double() * scale[:, None, None, None]
        state[f'{layer}.weight'] = weight.float()
        state[f'{layer}.bias'] = (beta - mean * scale).float()


def unfold(
    state: Mapping[str, Tensor], layers: Iterable[str], norm_eps: float
) -> dict[str, Tensor]:
    """Return a state dict with norms that do nothing but add the bias; undone by ``fold``."""
    unfolded = dict(state)
    for layer in layers:
        bias = unfolded.pop(f'{layer}.bias')
        ones, zeros = torch.ones_like(bias), torch.zeros_like(bias)
        tensors = (ones, bias, zeros, ones - norm_eps)
        for name, tensor in zip(NORM_TENSORS, tensors, strict=True):
            unfolded[f'{layer}.norm.{name}'] = tensor
    return unfolded
