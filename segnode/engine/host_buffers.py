# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Where label images arrive from a device: memory that is used again once nobody looks at it.

Shapes: N images, H and W of the image.
"""

from __future__ import annotations

import weakref
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# A node holds one or two; who keeps answers has the rest in plain memory.
MOST: Final = 4


class LabelBuffer(NamedTuple):
    """One stretch of memory, twice.

    Attributes:
        target: (N, H, W) uint16, to be copied to, and dropped.
        labels: the same for the answers, whose memory it is as long as any view of it is held.
    """

    target: Tensor
    labels: npt.NDArray[np.uint16]


class LabelBuffers:
    """Buffers of one shape, pinned where a GPU writes them; one thread at a time may take any."""

    def __init__(self, shape: tuple[int, int, int], *, pinned: bool) -> None:
        """Make no buffer yet: (N, H, W)."""
        self._shape = shape
        self._pinned = pinned
        self._made = 0
        self._free: list[Tensor] = []

    def take(self) -> LabelBuffer:
        """Return a buffer that nobody holds; what is in it has no meaning.

        Where ``MOST`` are held, it is one in plain memory, for this once.
        """
        if not self._free and self._made == MOST:
            target = torch.empty(self._shape, dtype=torch.uint16)
            return LabelBuffer(target, target.numpy())
        if self._free:
            target = self._free.pop()
        else:
            target = torch.empty(self._shape, dtype=torch.uint16, pin_memory=self._pinned)
            self._made += 1
        labels = target.numpy()
        # An array is based on a tensor that is made for it, and its views are based on the array.
        weakref.finalize(labels.base, self._free.append, target).atexit = False
        return LabelBuffer(target, labels)
