# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""An image as the engine takes it, and image files read as Detectron2 reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from segnode.errors import ImageError

MAX_PIXELS = 2**26
"""Largest image that is decoded, 8192 x 8192: a few bytes can announce far more than fits."""
DARK = 64
"""A picture is dark where 99 of 100 of its 8-bit values are below this, a quarter of the range."""
Lend: TypeAlias = Callable[[int], npt.NDArray[np.uint8]]
"""Lends so many bytes to decode a picture into, for as long as a view of them is held."""


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """One colour image in host memory.

    Attributes:
        pixels: (H, W, 3) uint8, at least 1 x 1. It may be a read-only view of a message's data
            with padded rows.
        order: order of the three channels.

    Raises:
        ImageError: shape, dtype or order is another.
    """

    pixels: npt.NDArray[np.uint8]
    order: Literal['bgr', 'rgb']

    def __post_init__(self) -> None:
        pixels = self.pixels
        if not isinstance(pixels, np.ndarray):
            raise ImageError(f'expected a numpy array, found {type(pixels).__name__}')
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ImageError(
                f'expected pixels of shape (H, W, 3) and type uint8, '
                f'found {pixels.shape} and {pixels.dtype}'
            )
        check_size(*pixels.shape[:2])
        if self.order not in ('bgr', 'rgb'):
            raise ImageError(f"expected channel order 'bgr' or 'rgb', found {self.order!r}")

    @property
    def height(self) -> int:
        """Number of rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self.pixels.shape[1])


def check_size(height: int, width: int) -> None:
    """Raise ImageError unless an image has 1 x 1 to ``MAX_PIXELS`` pixels."""
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ImageError(
            f'expected an image of 1 to {MAX_PIXELS} pixels, found {width} x {height} (w x h)'
        )
