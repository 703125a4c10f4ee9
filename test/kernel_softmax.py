# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The class probabilities of the Triton kernel, for its twin to choose from.

Of two scores that are equal, or nearly so, another softmax may make others; what is chosen of one
and the same has to be the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, inf


def kernel_softmax(logits: Tensor, *_: Any, **__: Any) -> Tensor:
    """Return what the kernel makes of (N, P, C + 1) logits in place of softmax, background as 0.

    It is compared with softmax. The exponential of a GPU is in base 2: it is exact to a few units
    in the last place, and to more where two logits of a proposal lie far apart.
    """
    from segnode.kernels.triton.detections import probability_keys

    there = torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)
    n, p, columns = logits.shape
    selection = probability_keys(logits, there, -1.0, 1)
    keys = selection.keys
    found = torch.where(keys < 0, -inf, keys.view(torch.float32)).view(n, p, columns - 1)
    assert torch.equal((found >= 0).sum((1, 2)), selection.spare[:, 0])
    softmax = torch.softmax(logits, -1, dtype=torch.float32)
    expected = softmax[..., :-1].nan_to_num(nan=-inf)
    torch.testing.assert_close(found, expected, rtol=5e-6, atol=1e-30)
    return torch.nn.functional.pad(found, (0, 1))
