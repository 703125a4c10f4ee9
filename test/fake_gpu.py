# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Whether the PyTorch at hand has fake tensors of a GPU that is not there."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode


def fakes_a_gpu() -> bool:
    """Up to 2.5 such a tensor asks for a driver, in a build with CUDA."""
    try:
        with FakeTensorMode():
            fake = torch.empty((1, 2, 2, 2), device='cuda:1')
            fake.contiguous(memory_format=torch.channels_last)
    except RuntimeError:
        return False
    return True


needs_fake_gpu = pytest.mark.skipif(
    not fakes_a_gpu(), reason=f'PyTorch {torch.__version__} cannot fake an absent GPU'
)
