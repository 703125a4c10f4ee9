# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Pictures that the commands write, marked so that they are known again."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.PngImagePlugin

from segnode.errors import OutputError, first_line
from segnode.output_files import MARK, is_replaceable, write_whole


def write_picture(path: Path, bgr: npt.NDArray[np.uint8]) -> None:
    """Write a (H, W, 3) uint8 BGR picture, whole or not at all, marked as segnode's own.

    Args:
        path: ends in ``.jpg`` or ``.png``.
        bgr: the pixels.

    Raises:
        OutputError: a picture that is not segnode's own lies there, or it cannot be written.
    """
    if not is_replaceable(path, is_own_picture):
        raise OutputError(f'{path}: expected no picture of somebody else, found one; move it away')
    image = PIL.Image.fromarray(np.ascontiguousarray(bgr[..., ::-1]))
    data = io.BytesIO()
    try:
        if path.suffix == '.png':
            mark = PIL.PngImagePlugin.PngInfo()
            mark.add_text('Software', MARK)
            image.save(data, 'PNG', pnginfo=mark, compress_level=1)
        else:
            image.save(data, 'JPEG', quality=95, comment=MARK.encode())
    except (OSError, ValueError, SystemError) as error:
        raise OutputError(f'{path}: cannot be written ({first_line(error)})') from None
    write_whole(path, data.getvalue())


def is_own_picture(path: Path) -> bool:
    """Return whether a file is a picture that `write_picture` wrote."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with PIL.Image.open(path, formats=('JPEG', 'PNG')) as image:
                return MARK in (image.info.get('Software'), _text(image.info.get('comment')))
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError):
        return False


def _text(comment: object) -> object:
    return comment.decode('latin-1') if isinstance(comment, bytes) else comment
