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
        """Make the first buffer, so that no frame has to wait for it: (N, H, W)."""
        self._shape = shape
        self._pinned = pinned
        self._free = [self._make()]
        self._made = 1

    def take(self) -> LabelBuffer:
        """Return a buffer that nobody holds; what is in it has no meaning.

        Where ``MOST`` are held, or no more can be pinned, it is one in plain memory, for this
        once.
        """
        if not self._free and self._made < MOST:
            self._made += 1
            try:
                self._free.append(self._make())
            except RuntimeError:
                self._made = MOST  # The system pins no more.
        if not self._free:
            target = torch.empty(self._shape, dtype=torch.uint16)
            return LabelBuffer(target, target.numpy())
        target = self._free.pop()
        labels = target.numpy()
        # An array is based on a tensor that is made for it, and its views are based on the array.
        # An answer that outlives its path holds its own buffer and no other.
        end = weakref.finalize(labels.base, _give_back, weakref.ref(self), target)
        end.atexit = False
        return LabelBuffer(target, labels)

    def _make(self) -> Tensor:
        return torch.empty(self._shape, dtype=torch.uint16, pin_memory=self._pinned)


def _give_back(owner: weakref.ref[LabelBuffers], target: Tensor) -> None:
    buffers = owner()
    if buffers is not None:
        buffers._free.append(target)
