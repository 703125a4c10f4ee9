# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The records of a ROS 1 bag, whole or cut (specification: wiki.ros.org/Bags/Format/2.0).

A record is a header of named fields, then data. No size that a file claims is believed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from segnode.bags.decompress import (
    LARGEST,
    DamagedDataError,
    decompressed,
    decompressed_beginning,
)
from segnode.bags.file_bytes import FileBytes

MAGIC = b'#ROSBAG V'
MESSAGE, BAG, INDEX, CHUNK, CHUNK_INFO, CONNECTION = 2, 3, 4, 5, 6, 7
"""Values of a record's field ``op``."""

_LARGEST_HEADER = 1 << 20


class Part(NamedTuple):
    """A record: its fields; where it and its data begin, and where they end or the file does."""

    op: int
    fields: dict[str, bytes]
    offset: int
    start: int
    end: int
    is_whole: bool

    def number(self, name: str) -> int:
        """Return a field as a number.

        Raises:
            ValueError: there is none.
        """
        return int.from_bytes(self._field(name), 'little')

    def time_ns(self, name: str) -> int:
        """Return a field as a time in nanoseconds.

        Raises:
            ValueError: there is none.
        """
        field = self._field(name)
        if len(field) != 8:
            raise ValueError(f'expected a time in the field {name}, found {len(field)} bytes')
        seconds, nanoseconds = struct.unpack('<II', field)
        return int(seconds) * 1_000_000_000 + int(nanoseconds)

    def text(self, name: str) -> str:
        """Return a field as a text.

        Raises:
            ValueError: there is none.
        """
        return self._field(name).decode()

    def _field(self, name: str) -> bytes:
        if name not in self.fields:
            raise ValueError(f'expected the field {name}, found none')
        return self.fields[name]


class Ros1Records(FileBytes):
    """An open file, which need not be a bag."""

    def parts(self, offset: int) -> Iterator[Part]:
        """Walk over records to the end of the file, or until one is none."""
        return _parts(self.read, offset, self.size)

    def data(self, part: Part) -> bytes:
        """Return the data of a record.

        Raises:
            DamagedDataError: they are larger than any.
        """
        if part.end - part.start > LARGEST:
            raise DamagedDataError(f'it has more than {LARGEST} bytes')
        return self.read(part.start, part.end - part.start)

    def chunk(self, part: Part) -> bytes:
        """Return a chunk's records, decompressed; of a chunk that is cut, what there is of them.

        Raises:
            ValueError: they cannot be had.
        """
        size = part.number('size')
        if size > LARGEST:
            raise DamagedDataError(f'it has more than {LARGEST} bytes')
        if part.is_whole:
            return decompressed(self.data(part), part.text('compression'), size)
        return decompressed_beginning(self.data(part), part.text('compression'))[:size]

    def messages_behind(self, chunk: Part) -> Iterator[tuple[int, int]]:
        """Yield connections and how many messages a chunk has of each, by its index."""
        for part in self.parts(chunk.end):
            if part.op != INDEX or not part.is_whole:
                return
            number = int.from_bytes(part.fields.get('conn', b''), 'little')
            yield number, (part.end - part.start) // 12


def records_of_chunk(content: bytes) -> Iterator[Part]:
    """Walk over the whole records of a chunk: positions in the chunk."""
    for part in _parts(lambda offset, length: content[offset : offset + length], 0, len(content)):
        if not part.is_whole:
            return
        yield part


def read_fields(data: bytes) -> dict[str, bytes]:
    """Return the named fields of a header.

    Raises:
        ValueError: it is none.
    """
    fields = {}
    offset = 0
    while offset < len(data):
        end = offset + 4 + int.from_bytes(data[offset : offset + 4], 'little')
        name, separator, value = data[offset + 4 : end].partition(b'=')
        if end > len(data) or not separator:
            raise ValueError('a field is cut')
        fields[name.decode()] = value
        offset = end
    return fields


def _parts(read: Callable[[int, int], bytes], offset: int, end: int) -> Iterator[Part]:
    while offset + 4 <= end:
        length = int.from_bytes(read(offset, 4), 'little')
        start = offset + 4 + length + 4
        if length > _LARGEST_HEADER or start > end:
            return
        try:
            fields = read_fields(read(offset + 4, length))
            op = fields['op'][0]
        except (ValueError, LookupError):
            return
        stop = start + int.from_bytes(read(start - 4, 4), 'little')
        yield Part(op, fields, offset, start, min(stop, end), stop <= end)
        offset = stop
