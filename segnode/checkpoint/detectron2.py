# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Detectron2's weights as the state dict of this package's network; the names are the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from segnode.checkpoint.folded_norms import fold, unfolded_shapes
from segnode.checkpoint.state_dict import fit_state_dict
from segnode.model.architecture import Architecture
from segnode.model.mask_rcnn import expected_state_dict


def with_norm_eps(architecture: Architecture, norm_eps: float) -> Architecture:
    """Return an architecture with the epsilon that a user set; -1 leaves its own."""
    return architecture if norm_eps < 0 else dataclasses.replace(architecture, norm_eps=norm_eps)


def fit_weights(
    tensors: Mapping[str, Tensor],
    architecture: Architecture,
    normed: tuple[str, ...],
    path: Path,
) -> dict[str, Tensor]:
    """Return the state dict of ``MaskRCNN(architecture)``, checked and in float32.

    Args:
        tensors: what the file holds.
        architecture: the network.
        normed: from ``Detectron2Config``.
        path: the file, for the message.

    Raises:
        CheckpointError: the tensors are not those of the architecture.
    """
    expected = expected_state_dict(architecture)
    layers = [
        name.removesuffix('.bias')
        for name in expected
        if name.startswith(normed) and name.endswith('.bias')
    ]
    state = fit_state_dict(tensors, unfolded_shapes(expected, layers), path, architecture.norm_eps)
    fold(state, layers, architecture.norm_eps)
    return state
