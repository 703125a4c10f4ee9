# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Text files as the editors and shells of every system write them."""

from __future__ import annotations

import codecs
from pathlib import Path

_MARKS = (
    (codecs.BOM_UTF8, 'utf-8'),
    (codecs.BOM_UTF16_LE, 'utf-16-le'),
    (codecs.BOM_UTF16_BE, 'utf-16-be'),
)


def decode(data: bytes) -> str:
    """Return a file's text: UTF-8, or UTF-16 where a byte order mark says so; without the mark.

    Raises:
        UnicodeDecodeError: the bytes are no such text.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding)
    return data.decode('utf-8')


def read_at_most(path: Path, largest: int) -> bytes | None:
    """Return a file's bytes, None where there are more than ``largest`` of them.

    A pipe is read as well as a file.

    Raises:
        OSError: it cannot be read.
    """
    data = bytearray()
    with path.open('rb') as stream:
        # Piece by piece, as a read of so many bytes asks for their memory at once.
        while piece := stream.read(1 << 20):
            data += piece
            if len(data) > largest:
                return None
    return bytes(data)


def shown(text: object, limit: int = 60) -> str:
    """Return the end of a text out of a file as a message may have it: printable, on one line."""
    whole = str(text)
    end = whole if len(whole) <= limit else f'...{whole[3 - limit :]}'
    return ''.join(c if c.isprintable() else '?' for c in end)
