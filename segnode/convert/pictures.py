# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Image files as frames, so that the node sees in them what ``predict`` sees in the files.

A JPEG or PNG file passes as it is where that holds. Where it does not, as the node passes over an
EXIF orientation and knows no other formats, the frame is what ``predict`` sees, as a PNG.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import PIL.Image

from segnode.convert.frames import Frame
from segnode.errors import ImageError
from segnode.image import Image
from segnode.live.image_message import decode_compressed
from segnode.picture_files import Remarks, is_turned, read_image

_PNG_DEPTH_AT = 24
"""Where the header of a PNG file has the bits of a channel (RFC 2083, 4.1.1)."""


def picture_frames(
    paths: Sequence[Path], report: Callable[[str], None], left_out: Counter[str], *, raw: bool
) -> Iterator[Frame]:
    """Yield the frames of image files.

    Args:
        paths: of the files, in order.
        report: is told of every file that is left out, and what a person would not expect.
        left_out: counts the files that cannot be read.
        raw: whether all are decoded.
    """
    remarks = Remarks(report)
    for path in paths:
        try:
            image = read_image(path, remarks)
            frame = _raw(path, image) if raw else _compressed(path, image, remarks)
        except ImageError as error:
            report(f'error: {error}')
            left_out['cannot be read'] += 1
            continue
        yield frame
    remarks.close()


def _raw(path: Path, image: Image) -> Frame:
    bgr = image.pixels[..., ::-1] if image.order == 'rgb' else image.pixels
    return Frame(path, (image.height, image.width), pixels_bgr=bgr)


def _compressed(path: Path, image: Image, remarks: Remarks) -> Frame:
    """Return the file itself, or what ``predict`` sees in it as a PNG.

    Raises:
        ImageError: the file has gone meanwhile.
    """
    image_hw = (image.height, image.width)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f'{path}: cannot be read ({error.strerror})') from None
    stored_as = _stored_as(path, data, image)
    if stored_as:
        return Frame(path, image_hw, encoded=data, format=stored_as)
    remarks.add(
        'written anew as PNG',
        f'{path}: written anew as a PNG, as the node would see another picture in the file',
    )
    _, encoded = cv2.imencode(
        '.png', np.ascontiguousarray(image.pixels[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    return Frame(path, image_hw, encoded=encoded.tobytes(), format='png')


def _stored_as(path: Path, data: bytes, image: Image) -> str:
    """Return ``jpeg`` or ``png`` where the node sees the image in the file's bytes, else ''."""
    try:
        with PIL.Image.open(path, formats=('JPEG', 'PNG')) as picture:
            if is_turned(picture):
                return ''
            colours, is_png = picture.mode, picture.format == 'PNG'
        seen = decode_compressed(format='png' if is_png else 'jpeg', data=data)
    except (OSError, ImageError):
        return ''
    if not is_png:
        # Decoders of JPEG may differ by a rounding, and in what they make of CMYK altogether.
        same_size = (seen.height, seen.width) == (image.height, image.width)
        return 'jpeg' if colours in ('L', 'RGB') and same_size else ''
    # What a grey value of 16 bits means is a setting of the node.
    if data[_PNG_DEPTH_AT] > 8:
        return ''
    return 'png' if np.array_equal(seen.pixels, image.pixels[..., ::-1]) else ''
