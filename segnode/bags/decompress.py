# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Decompression of what nobody vouches for: a few bytes can announce or become any amount."""

from __future__ import annotations

import bz2
import io
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import lz4.frame  # type: ignore[import-untyped]
import zstandard

LARGEST = 1 << 29
"""Most bytes that a message or a chunk may have, 512 MiB.

The largest image has `segnode.image.MAX_PIXELS`, 256 MiB at 4 bytes a pixel, and a chunk may hold
more messages than one. A few kilobytes can become as much, so that it bounds the memory, too.
"""

MAGICS = {b'\x28\xb5\x2f\xfd': 'zstd', b'\x04\x22\x4d\x18': 'lz4'}
"""How a compressed file or message begins."""

_IN, _OUT = 1 << 18, 1 << 20


class DamagedDataError(ValueError):
    """Data are not what they are said to be; the text says how, as a part of a sentence."""


def decompressed(data: bytes, compression: str, size: int | None = None) -> bytes:
    """Return data decompressed.

    Args:
        data: all of it.
        compression: ``zstd``, ``lz4``, ``bz2``; ``none`` or nothing for none.
        size: that it must have then, where that is known.

    Raises:
        DamagedDataError: it does not decompress, to another size, or to more than ``LARGEST``.
    """
    if compression in ('', 'none'):
        whole = data
    else:
        limit = LARGEST if size is None else min(size, LARGEST)
        # It gives its bytes away without a copy, other than a list of pieces that is joined.
        stream = io.BytesIO()
        for piece in _limited(pieces(io.BytesIO(data), compression), limit):
            stream.write(piece)
        whole = stream.getvalue()
    if size is not None and len(whole) != size:
        raise DamagedDataError(f'it has {len(whole)} bytes and not {size}')
    return whole


def decompressed_beginning(data: bytes, compression: str) -> bytes:
    """Return as much as can be had of data whose end is missing."""
    if compression in ('', 'none'):
        return data
    stream = io.BytesIO()
    with suppress(DamagedDataError):
        for piece in _limited(pieces(io.BytesIO(data), compression), LARGEST):
            stream.write(piece)
    return stream.getvalue()


def decompressed_message(data: bytes) -> bytes:
    """Return a message decompressed where it is: a bag may not say that its messages are.

    CDR begins with a zero, so that nothing else is taken for compressed.

    Raises:
        DamagedDataError: as ``decompressed``.
    """
    compression = MAGICS.get(data[:4])
    if compression is None:
        return data
    size = None
    if compression == 'zstd':
        try:
            size = zstandard.frame_content_size(data)
        except zstandard.ZstdError as error:
            raise DamagedDataError(str(error)) from None
    return decompressed(data, compression, None if size == -1 else size)


def pieces(source: BinaryIO, compression: str) -> Iterator[bytes]:
    """Yield what a stream holds, decompressed.

    Raises:
        DamagedDataError: it does not decompress, or nothing here knows the compression, or its
            end is missing, which zstd alone does not tell.
        OSError: the source cannot be read.
    """
    readers = {'zstd': _zstd, 'lz4': _lz4, 'bz2': _bz2}
    if compression not in readers:
        raise DamagedDataError(f'its compression is {compression[:20]!r}, which is not known')
    try:
        yield from readers[compression](source)
    except (zstandard.ZstdError, RuntimeError, ValueError, EOFError, OSError) as error:
        # Those of bz2 have no number, those of the system do.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DamagedDataError(f'it does not decompress ({error})') from None


def _limited(found: Iterator[bytes], limit: int) -> Iterator[bytes]:
    total = 0
    for piece in found:
        total += len(piece)
        if total > limit:
            raise DamagedDataError(f'it becomes more than {limit} bytes')
        yield piece


def _zstd(source: BinaryIO) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
    while piece := reader.read(_OUT):
        yield piece


def _lz4(source: BinaryIO) -> Iterator[bytes]:
    decompressor: Any = lz4.frame.LZ4FrameDecompressor()
    rest, is_within = b'', False
    while True:
        data = rest or (source.read(_IN) if decompressor.needs_input else b'')
        if not data and decompressor.needs_input:
            if is_within:
                raise EOFError('its end is missing')
            return
        yield decompressor.decompress(data, max_length=_OUT)
        rest, is_within = b'', not decompressor.eof
        if decompressor.eof:
            rest = decompressor.unused_data or b''
            decompressor.reset()


def _bz2(source: BinaryIO) -> Iterator[bytes]:
    decompressor = bz2.BZ2Decompressor()
    while not decompressor.eof:
        data = source.read(_IN) if decompressor.needs_input else b''
        if decompressor.needs_input and not data:
            raise EOFError('its end is missing')
        yield decompressor.decompress(data, _OUT)
