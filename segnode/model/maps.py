# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the trunk does with maps between its convolutions: pooling, and the pyramid's sums.

Shapes: N images, C channels, H and W of the map at hand, h and w of one half as fine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from segnode.model.boxes import is_exporting


class MaxPool(Protocol):
    """See ``max_pool``."""

    def __call__(self, x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
        """Map (N, C, H, W) to (N, C, H', W')."""
        ...


class AddEnlarged(Protocol):
    """See ``add_enlarged``."""

    def __call__(self, x: Tensor, small: Tensor) -> Tensor:
        """Map (N, C, 2 h, 2 w) and (N, C, h, w) to their sum, (N, C, 2 h, 2 w)."""
        ...


def max_pool(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Map (N, C, H, W) to (N, C, H', W'), the largest of a window each; NaN is the largest.

    Args:
        x: any float dtype.
        kernel: side of a window.
        stride: pixels from one window to the next.
        padding: pixels on each side, at most half a window; they are never the largest.
    """
    return F.max_pool2d(x, kernel, stride, padding)


def add_enlarged(x: Tensor, small: Tensor) -> Tensor:
    """Add (N, C, h, w), each pixel of it to two by two, to (N, C, 2 h, 2 w).

    It is what the nearest neighbour's upsampling gives, which is never written. Other engines are
    given the upsampling, for which they have an operator.
    """
    if is_exporting():
        return x + F.interpolate(small, scale_factor=2.0, mode='nearest')
    pairs: Tensor = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    pairs = pairs + small[:, :, :, None, :, None]
    return pairs.flatten(4).flatten(2, 3)


@dataclass(frozen=True, slots=True)
class MapSteps:
    """The steps between the trunk's convolutions, as one path has them.

    Attributes:
        max_pool: of the stem, and of the pyramid's last level.
        add_enlarged: the pyramid's way down.
    """

    max_pool: MaxPool = max_pool
    add_enlarged: AddEnlarged = add_enlarged


# As PyTorch has them, which is what exports see.
PLAIN = MapSteps()
