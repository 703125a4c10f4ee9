# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Image files, read as Detectron2 reads them."""

from __future__ import annotations

import contextlib
import os
import struct
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps

from segnode.errors import ImageError, first_line
from segnode.image import DARK, MAX_PIXELS, Image, check_size
from segnode.output_files import shown

IMAGE_SUFFIXES = (
    '.apng',
    '.bmp',
    '.gif',
    '.jfif',
    '.jpe',
    '.jpeg',
    '.jpg',
    '.pbm',
    '.pfm',
    '.pgm',
    '.png',
    '.pnm',
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


_NEARLY_BLACK = 16
_FLAT = 16
"""A picture is flat where 98 of 100 of its 8-bit values lie closer together than this."""


def _nobody(_: str) -> None:
    pass


class Remarks:
    """What is unusual about pictures: the first of a kind is told at once, the rest counted."""

    def __init__(self, report: Callable[[str], None] = _nobody) -> None:
        """Start with none.

        Args:
            report: is told lines.
        """
        self._report = report
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, text: str) -> None:
        """Tell a line, unless one of its kind was told already."""
        if not self._counts[kind]:
            self._report(text)
        self._counts[kind] += 1

    def close(self) -> None:
        """Tell how many more there were of each kind."""
        for kind, count in self._counts.items():
            if count > 1:
                self._report(f'{kind}: {count} pictures in all')
        self._counts.clear()


def find_images(paths: Sequence[Path], report: Callable[[str], None] = _nobody) -> list[Path]:
    """Return the images that files and folders name; what else is in a folder is skipped.

    Args:
        paths: of files and folders.
        report: is told in a line what was skipped of a folder, and what was given twice.

    Raises:
        ImageError: there is none, or a folder cannot be read.
    """
    found: list[Path] = []
    for path in paths:
        # Those of os.path are False for what cannot be examined, which is told by itself later.
        found += _images_of(path, report) if os.path.isdir(path) else [path]  # noqa: PTH112
    if not found:
        raise ImageError(f'{", ".join(map(str, paths))}: expected images, found none')
    times = Counter(map(os.path.realpath, found))
    twice = [path for path, count in times.items() if count > 1]
    if twice:
        report(f'{len(twice)} images are given more than once ({shown(twice)})')
    return found


def _images_of(folder: Path, report: Callable[[str], None]) -> list[Path]:
    images: list[Path] = []
    skipped: dict[str, list[str]] = defaultdict(list)
    try:
        items = sorted(folder.iterdir())
    except OSError as error:
        raise ImageError(f'{folder}: this folder cannot be read ({error.strerror})') from None
    for item in items:
        is_file = os.path.isfile(item)  # noqa: PTH113
        if is_file and item.suffix.lower() in IMAGE_SUFFIXES:
            images.append(item)
        elif is_file:
            skipped['files that are no images'].append(item.name)
        elif os.path.isdir(item):  # noqa: PTH112
            skipped['subfolders'].append(item.name)
        elif item.is_symlink():
            skipped['broken links'].append(item.name)
        else:
            skipped['things that are no files'].append(item.name)
    if skipped:
        kinds = (f'{len(names)} {kind} ({shown(names)})' for kind, names in skipped.items())
        report(f'{folder}: skipped {", ".join(kinds)}')
    return images


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return the name of every file, with the folders above it that tell it from another.

    ``a/1.png`` and ``b/1.png`` keep their folders, ``2.png`` has its name alone. A file that is
    given twice has one name.
    """
    whole = [Path(os.path.abspath(path)).parts for path in paths]  # noqa: PTH100 - links stay
    depths: dict[str, int] = {}
    groups: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for parts in whole:
        groups[parts[-1]].add(parts)
    for name, group in groups.items():
        depth = 1
        while len({parts[-depth:] for parts in group}) < len(group):
            depth += 1
        depths[name] = depth
    return ['/'.join(parts[-depths[parts[-1]] :]) for parts in whole]


def read_image(path: Path, remarks: Remarks | None = None) -> Image:
    """Read an image file as Detectron2's ``read_image`` does (detection_utils.py), as RGB.

    The picture is turned upright by its EXIF orientation, alpha is dropped without blending, of
    an animation or of several pages the first is taken, 16-bit grey becomes value // 256, and
    fractions of 0 to 255 are cut off to integers.

    Args:
        path: of the file.
        remarks: gets what a person would not expect: of several pages the first, transparency
            that is dropped, and few grey levels left of many.

    Raises:
        ImageError: the file is missing, damaged, incomplete, too large or no image, or its values
            mean nothing in 8 bits.
    """
    remarks = Remarks() if remarks is None else remarks
    try:
        if path.exists() and not path.is_file():
            raise ImageError('expected an image file, found a folder or a device')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            warnings.simplefilter('error', PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path, formats=_FORMATS) as image:
                check_size(image.height, image.width)
                # The decoder alone knows that colours have 16 bits: Pillow keeps the upper 8.
                deep = any(
                    ';16' in str(tile[3]) or tile[3] == ('RGB', 65535) for tile in image.tile
                )
                image.load()
                pixels = _to_rgb(_turn_upright(image), deep, path, remarks)
                _remark_on_form(image, path, remarks)
                return Image(pixels, 'rgb')
    except ImageError as error:
        raise ImageError(f'{path}: {error}') from None
    except PIL.UnidentifiedImageError:
        found = 'something else' if path.stat().st_size else 'an empty file'
        raise ImageError(
            f'{path}: expected an image ({", ".join(_FORMATS)}; fractions in one channel alone), '
            f'found {found}'
        ) from None
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
        raise ImageError(f'{path}: expected an image of at most {MAX_PIXELS} pixels') from None
    except _DAMAGE as error:
        reason = getattr(error, 'strerror', None) or f'damaged image ({first_line(error)})'
        raise ImageError(f'{path}: expected an image file, found: {reason}') from None


def is_turned(image: PIL.Image.Image) -> bool:
    """Return whether `read_image` turns or mirrors a picture by its EXIF orientation."""
    with contextlib.suppress(*_DAMAGE):
        return image.getexif().get(PIL.ExifTags.Base.Orientation) in range(2, 9)
    return False


def _turn_upright(image: PIL.Image.Image) -> PIL.Image.Image:
    try:
        return PIL.ImageOps.exif_transpose(image)
    except _DAMAGE:
        # A broken EXIF block tells no orientation; Detectron2 passes over it as well.
        return image


def _to_rgb(
    image: PIL.Image.Image, deep: bool, path: Path, remarks: Remarks
) -> npt.NDArray[np.uint8]:
    """Return (H, W, 3) uint8; ``deep`` tells that the file has 16 bits a channel."""
    if image.mode == 'F':
        return _from_fractions(np.asarray(image), path, remarks)
    if not image.mode.startswith('I'):
        pixels = np.array(image.convert('RGB'))
        if deep:
            low, high = int(pixels.min()) * 256, int(pixels.max()) * 256 + 255
            _remark_on_range('16-bit colour', low, high, pixels, path, remarks)
        return pixels
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 0xFFFF:
        raise ImageError(
            f'expected grey values of 16 bits, 0 to 65535, found {low} to {high}: scale them, and '
            'save the picture with 16 or 8 bits'
        )
    eight = (values // 256).astype(np.uint8)
    _remark_on_range('16-bit grey', low, high, eight, path, remarks)
    return np.repeat(eight[..., None], 3, axis=2)


def _from_fractions(
    values: npt.NDArray[np.float32], path: Path, remarks: Remarks
) -> npt.NDArray[np.uint8]:
    """Return (H, W, 3) uint8 of (H, W) float32, where its values are those of 8 bits."""
    low, high = float(values.min()), float(values.max())
    # Fractions of 0 to 1 would come out black and larger ones white, without a word.
    if not (low >= 0 and 1 < high <= 255):
        raise ImageError(
            f'expected fractional values of 0 to 255, found {low:g} to {high:g}: '
            'scale them, and save the picture with 8 bits'
        )
    eight = values.astype(np.uint8)
    levels = np.percentile(eight, 99)
    if levels < DARK:
        remarks.add(
            'dark fractional values',
            f'{path}: fractional values {low:g} to {high:g} of 255: {_darkness(levels)}',
        )
    return np.repeat(eight[..., None], 3, axis=2)


def _remark_on_range(
    kind: str, low: int, high: int, eight: npt.NDArray[np.uint8], path: Path, remarks: Remarks
) -> None:
    """Tell where 16-bit values use so little of their range that nothing is to be seen."""
    share = np.cumsum(np.bincount(eight.ravel(), minlength=256)) / eight.size
    dimmest, brightest = (int(np.searchsorted(share, part)) for part in (0.01, 0.99))
    found = f'{path}: {kind}, values {low} to {high} of 65535'
    if brightest < DARK:
        if high >= DARK * 256:
            found += f', 99% of them below {brightest * 256 + 256}'
        remarks.add(f'dark {kind}', f'{found}: {_darkness(brightest)} after // 256')
    elif brightest - dimmest < _FLAT:
        remarks.add(f'flat {kind}', f'{found}: hardly any contrast after // 256')


def _darkness(brightest: float) -> str:
    return 'dark' if brightest >= _NEARLY_BLACK else 'nearly black'


def _remark_on_form(image: PIL.Image.Image, path: Path, remarks: Remarks) -> None:
    """Tell of pages and of transparency that nothing comes of."""
    count = 1
    # A camera's JPEG file often has a second picture: a preview, which nobody would miss.
    if image.format in ('GIF', 'PNG', 'TIFF', 'WEBP'):
        with contextlib.suppress(*_DAMAGE):
            count = getattr(image, 'n_frames', 1)
    if count > 1:
        remarks.add('first of several pages', f'{path}: the first of {count} pages is taken')
    if _is_transparent(image):
        text = 'transparency is dropped, and the colours below it are taken, as Detectron2 does'
        remarks.add('transparency dropped', f'{path}: {text}')


def _is_transparent(image: PIL.Image.Image) -> bool:
    if image.mode in ('LA', 'PA', 'RGBA', 'La', 'RGBa'):
        alpha = np.asarray(image.getchannel(image.getbands()[-1]))
        return bool(alpha.min() < 255)
    return 'transparency' in image.info
