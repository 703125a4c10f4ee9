# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Random weights of a module that keep the numbers of every layer near 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Of a residual branch: at 1 what float32 rounds grows with the depth of a random network.
WEAK = 0.3


def fill(module: nn.Module, seed: int) -> dict[str, Tensor]:
    """Give a backbone random weights, its norms statistics, and return its state dict."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in module.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith('num_batches_tracked'):
            state[name] = tensor
        elif name.endswith(('relative_position_bias_table', 'gamma')):
            state[name] = noise
        elif name.endswith('running_var') or (tensor.ndim == 1 and name.endswith('weight')):
            state[name] = 0.5 + noise.abs()
        elif tensor.ndim > 1:
            state[name] = noise / tensor[0].numel() ** 0.5
        else:
            state[name] = noise * 0.1
        if name.endswith(('conv3.norm.weight', 'gamma', 'proj.weight', 'ffn.layers.1.weight')):
            state[name] = state[name] * WEAK
    module.load_state_dict(state)
    module.eval()
    return state


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference in the largest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())
