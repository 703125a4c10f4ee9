# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Where frames leave for a device and label images arrive: memory that is lent.

It is used again once nobody looks at it.

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
# Bytes for frames, which the system cannot move elsewhere: eight frames of 4K, 64 of 720p.
MOST_FOR_FRAMES: Final = 2**28


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


class FrameMemory:
    """Memory to decode frames into, from which a device fetches them with no copy in between.

    A node decodes a frame while another is inferred and a third published. None of them may be
    overwritten, so that a stretch is lent again only when no array that looks at it is alive.
    That is late enough for the device, too: whoever runs a frame holds its pixels, and waits for
    its packet, which comes behind the upload on one stream. A frame that fails may let go of its
    pixels before they have gone up. Then others may go up in their place, and nobody misses them:
    what the next frame uploads comes behind.

    Stretches are of bytes, and of as many as the next power of two, as PyTorch pins no others:
    cameras of several sizes share them. None is given back, as PyTorch would keep it.
    One thread at a time may ask for memory; any may let go of it.
    """

    def __init__(self, *, pinned: bool) -> None:
        """Begin without any, as nobody knows yet how large frames are; pinned for a GPU."""
        self._pinned = pinned
        self._left = MOST_FOR_FRAMES
        self._free: dict[int, list[Tensor]] = {}
        self._by_address: dict[int, Tensor] = {}

    def lend(self, size: int) -> npt.NDArray[np.uint8]:
        """Return (size,) uint8 that nobody else holds; what is in it has no meaning.

        Where ``MOST_FOR_FRAMES`` are held, or no more can be pinned, it is plain memory.
        """
        stretch = self._take(size)
        if stretch is None:
            return np.empty(size, dtype=np.uint8)
        memory: npt.NDArray[np.uint8] = stretch[:size].numpy()
        # As for label images.
        end = weakref.finalize(memory.base, _free_again, weakref.ref(self), stretch)
        end.atexit = False
        return memory

    def source(self, pixels: npt.NDArray[np.uint8]) -> Tensor | None:
        """Return pixels as a tensor that a device can fetch, None where they lie elsewhere.

        Args:
            pixels: of any shape, which the tensor has, too.
        """
        stretch = self._by_address.get(pixels.ctypes.data)
        if stretch is None or not pixels.flags.c_contiguous:
            return None
        return stretch[: pixels.size].view(pixels.shape)

    def _take(self, size: int) -> Tensor | None:
        wanted = 1 << (size - 1).bit_length()
        for each in sorted(self._free):
            if each >= wanted and self._free[each]:
                return self._free[each].pop()
        if wanted > self._left:
            return None
        try:
            stretch = torch.empty(wanted, dtype=torch.uint8, pin_memory=self._pinned)
        except RuntimeError:
            self._left = 0  # The system pins no more.
            return None
        self._left -= wanted
        self._free.setdefault(wanted, [])
        self._by_address[stretch.data_ptr()] = stretch
        return stretch


def _free_again(owner: weakref.ref[FrameMemory], stretch: Tensor) -> None:
    memory = owner()
    if memory is not None:
        memory._free[stretch.numel()].append(stretch)
