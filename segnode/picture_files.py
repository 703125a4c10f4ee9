# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Image files, read as Detectron2 reads them."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps

from segnode.cli import note
from segnode.errors import ImageError, first_line
from segnode.image import MAX_PIXELS, Image, check_size

IMAGE_SUFFIXES = (
    '.bmp',
    '.gif',
    '.jpeg',
    '.jpg',
    '.pgm',
    '.png',
    '.ppm',
    '.tif',
    '.tiff',
    '.webp',
)

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


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return the images that files and folders name; what else is in a folder is skipped.

    Raises:
        ImageError: there is none.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        files = sorted(item for item in path.iterdir() if item.is_file())
        images = [item for item in files if item.suffix.lower() in IMAGE_SUFFIXES]
        others = [item.name for item in files if item not in set(images)]
        if others:
            shown = ', '.join(others[:3]) + (', ...' if len(others) > 3 else '')
            note(f'{path}: skipped {len(others)} files that are no images ({shown})')
        found += images
    if not found:
        raise ImageError(f'{", ".join(map(str, paths))}: expected images, found none')
    return found


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
        reason = getattr(error, 'strerror', None) or f'damaged image ({first_line(error)})'
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
