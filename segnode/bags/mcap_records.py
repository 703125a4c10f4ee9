# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The records of an MCAP file, whole, cut or damaged (specification: mcap.dev/spec).

No size that a file claims is believed: nothing is read beyond its end, nothing is decompressed
beyond ``LARGEST``.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from mcap.opcode import Opcode

from segnode.bags.decompress import (
    LARGEST,
    DamagedDataError,
    decompressed,
    decompressed_beginning,
)
from segnode.bags.file_bytes import FileBytes

MAGIC = b'\x89MCAP0\r\n'

_RECORD = struct.Struct('<BQ')
_MESSAGE = struct.Struct('<HIQQ')
_CHUNK = struct.Struct('<QQQI')
# A chunk's header, with the longest name of a compression that is believed.
_CHUNK_HEADER_BYTES = _CHUNK.size + 4 + 64 + 8


class Part(NamedTuple):
    """A record of a file: where it and what it holds begin, and where it ends or the file does."""

    opcode: int
    offset: int
    start: int
    end: int
    is_whole: bool


class MessageHead(NamedTuple):
    """What stands in front of a message's data, and where those begin."""

    channel: int
    log_ns: int
    start: int


class McapRecords(FileBytes):
    """An open file, which need not be MCAP."""

    def parts(self, offset: int) -> Iterator[Part]:
        """Walk over records to the end of the file, or until one is none."""
        while offset + _RECORD.size <= self.size:
            opcode, length = _RECORD.unpack(self.read(offset, _RECORD.size))
            start = offset + _RECORD.size
            if opcode == 0:
                return
            is_whole = length <= self.size - start
            end = start + length if is_whole else self.size
            yield Part(opcode, offset, start, end, is_whole)
            offset = end

    def message_head(self, part: Part) -> MessageHead | None:
        """Return the head of a message outside of chunks, None where it has none."""
        if part.end - part.start < _MESSAGE.size:
            return None
        channel, _, log_ns, _ = _MESSAGE.unpack(self.read(part.start, _MESSAGE.size))
        return MessageHead(channel, log_ns, part.start + _MESSAGE.size)

    def chunk(self, part: Part) -> bytes:
        """Return a chunk's records, decompressed; of a chunk that is cut, what there is of them.

        Raises:
            DamagedDataError: they cannot be had.
        """
        head = self.read(part.start, min(part.end - part.start, _CHUNK_HEADER_BYTES))
        try:
            _, _, size, crc = _CHUNK.unpack_from(head)
            (letters,) = struct.unpack_from('<I', head, _CHUNK.size)
            offset = _CHUNK.size + 4 + letters
            compression = head[_CHUNK.size + 4 : offset].decode()
            (length,) = struct.unpack_from('<Q', head, offset)
        except (struct.error, UnicodeDecodeError):
            raise DamagedDataError('its header is not whole') from None
        start = part.start + offset + 8
        available = part.end - start
        if max(size, available) > LARGEST:
            raise DamagedDataError(f'it has more than {LARGEST} bytes')
        if length <= available:
            content = decompressed(self.read(start, length), compression, size)
            if crc and zlib.crc32(content) != crc:
                raise DamagedDataError('its checksum differs')
            return content
        if part.is_whole:
            raise DamagedDataError('its length differs')
        # Its blocks have 128 KiB, so that most chunks that are cut hold no whole message before.
        if compression == 'zstd':
            raise DamagedDataError('it is cut')
        return decompressed_beginning(self.read(start, available), compression)[:size]

    def messages_behind(self, chunk: Part) -> Iterator[tuple[int, int]]:
        """Yield channels and how many messages a chunk has of each, by the index behind it."""
        for part in self.parts(chunk.end):
            if part.opcode != Opcode.MESSAGE_INDEX or not part.is_whole:
                return
            channel = int.from_bytes(self.read(part.start, 2), 'little')
            yield channel, max(0, part.end - part.start - 6) // 16


def records_of_chunk(content: bytes) -> Iterator[Part]:
    """Walk over the records of a chunk until one is cut or is none: positions in the chunk."""
    offset = 0
    while offset + _RECORD.size <= len(content):
        opcode, length = _RECORD.unpack_from(content, offset)
        start = offset + _RECORD.size
        if opcode == 0 or length > len(content) - start:
            return
        yield Part(opcode, offset, start, start + length, True)
        offset = start + length


def message_head(content: bytes, part: Part) -> MessageHead | None:
    """Return the head of a message of a chunk, None where it has none."""
    if part.end - part.start < _MESSAGE.size:
        return None
    channel, _, log_ns, _ = _MESSAGE.unpack_from(content, part.start)
    return MessageHead(channel, log_ns, part.start + _MESSAGE.size)
