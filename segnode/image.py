# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""An image as the engine takes it, and image files read as Detectron2 reads them."""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps

from segnode.errors import ImageError

MAX_PIXELS = 2**26
"""Largest image that is decoded, 8192 x 8192: a few bytes can announce far more than fits."""

# Pillow's other formats stay out: one of them (EPS) starts a program to draw the file.
_FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')

# What Pillow raises on damaged files, depending on where the damage is.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
)


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


def read_image(path: Path) -> Image:
    """Read an image file as Detectron2's ``read_image`` does (detection_utils.py), as RGB.

    The picture is turned upright by its EXIF orientation, alpha is dropped without blending, of
    an animation the first frame is taken, and 16-bit grey becomes value // 256.

    Raises:
        ImageError: the file is missing, damaged, incomplete, too large or no image.
    """
    try:
        if path.exists() and not path.is_file():
            raise ImageError('expected an image file, found a folder or a device')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            warnings.simplefilter('error', PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path, formats=_FORMATS) as image:
                check_size(image.height, image.width)
                image.load()
                return Image(_to_rgb(_turn_upright(image)), 'rgb')
    except ImageError as error:
        raise ImageError(f'{path}: {error}') from None
    except PIL.UnidentifiedImageError:
        found = 'something else' if path.stat().st_size else 'an empty file'
        raise ImageError(
            f'{path}: expected an image ({", ".join(_FORMATS)}), found {found}'
        ) from None
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
        raise ImageError(f'{path}: expected an image of at most {MAX_PIXELS} pixels') from None
    except _DAMAGE as error:
        reason = getattr(error, 'strerror', None) or f'damaged image ({_first_line(error)})'
        raise ImageError(f'{path}: expected an image file, found: {reason}') from None


def _turn_upright(image: PIL.Image.Image) -> PIL.Image.Image:
    try:
        return PIL.ImageOps.exif_transpose(image)
    except _DAMAGE:
        # A broken EXIF block tells no orientation; Detectron2 passes over it as well.
        return image


def _to_rgb(image: PIL.Image.Image) -> npt.NDArray[np.uint8]:
    if not image.mode.startswith('I'):
        return np.array(image.convert('RGB'))
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ImageError('expected grey values of at most 16 bits, found more')
    return np.repeat((values // 256).astype(np.uint8)[..., None], 3, axis=2)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
