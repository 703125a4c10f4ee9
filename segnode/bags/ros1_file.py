# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""ROS 1 bags, whole, cut or not closed (specification: wiki.ros.org/Bags/Format/2.0).

A file is records: a header of named fields, then data. Messages are in chunks, compressed one by
one; the end of the file lists connections and chunks. A bag that was not closed does not have
that list, so that the whole file is read once to make it.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from segnode.bags.damage import Damage
from segnode.bags.decompress import (
    LARGEST,
    DamagedDataError,
    decompressed,
    decompressed_beginning,
)
from segnode.bags.log_order import Span, in_log_order
from segnode.bags.record import Record, Topic
from segnode.bags.topics import normal_type
from segnode.errors import BagError

MAGIC = b'#ROSBAG V'

_VERSION = b'2.0\n'
_MESSAGE, _BAG, _INDEX, _CHUNK, _CHUNK_INFO, _CONNECTION = 2, 3, 4, 5, 6, 7
_LARGEST_HEADER = 1 << 20
_MALFORMED = (KeyError, struct.error, ValueError)


class _Part(NamedTuple):
    """A record: its fields, and where it and its data lie, cut at the end of the file."""

    op: int
    fields: dict[str, bytes]
    offset: int
    start: int
    end: int
    is_whole: bool


class Ros1File:
    """An open ROS 1 bag.

    Attributes:
        topics: a topic for every connection, so that names may repeat.
        span_ns: log times of the first and the last message, None where there is none.
    """

    def __init__(self, path: Path, damage: Damage, report: Callable[[str], None]) -> None:
        """Open a file and read its index, or make one.

        Args:
            path: the file.
            damage: gets what is found damaged, here and while messages are read.
            report: takes a remark.

        Raises:
            BagError: it cannot be read at all.
        """
        self._path, self._damage = path, damage
        self._file = path.open('rb')
        self._size = os.fstat(self._file.fileno()).st_size
        self._connections: dict[int, Topic] = {}
        self._counts: Counter[int] = Counter()
        self._spans: list[Span] = []
        self._passed = 0
        self.span_ns: tuple[int, int] | None = None
        try:
            self._start = len(MAGIC + _VERSION)
            self._check_version()
            if not self._read_index():
                report(f'{path}: has no complete index, so that it is read once to make one')
                self._make_index()
        except BaseException:
            self.close()
            raise
        self._spans.sort()

    @property
    def topics(self) -> list[Topic]:
        """A topic for every connection; names may repeat."""
        return [
            Topic(t.name, t.type_name, t.encoding, self._counts[key])
            for key, t in self._connections.items()
        ]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def passed(self) -> float:
        """Return how much of the file has been read, from 0 to 1."""
        return min(self._passed / max(1, sum(span.length for span in self._spans)), 1.0)

    def records(self, names: Collection[str]) -> Iterator[Record]:
        """Yield the messages of some topics in log order."""
        self._passed = 0
        wanted = {key for key, topic in self._connections.items() if topic.name in names}

        def load(span: Span) -> Iterator[Record]:
            part = next(self._parts(self._file, span.offset, self._size), None)
            if part is None or part.op != _CHUNK:
                self._damage.remark(
                    f'{self._path.name}: its index names a chunk that is not there'
                )
            else:
                for key, log_ns, data in self._messages_of_chunk(part, wanted):
                    yield Record(self._connections[key], log_ns, data)
            self._passed += span.length

        def late(record: Record) -> None:
            self._damage.remark(
                f'{self._path.name}: its messages are further out of order than can be put '
                f'right, the first at log time {record.log_ns}'
            )

        yield from in_log_order(self._spans, load, late)

    # The index.

    def _check_version(self) -> None:
        head = self._read(0, self._start)
        if head != MAGIC + _VERSION:
            version = head.removeprefix(MAGIC).strip().decode(errors='replace')
            raise BagError(
                f'{self._path}: expected a ROS 1 bag of version 2.0, found version {version!r}; '
                'migrate it with ROS 1 (rosbag fix)'
            )

    def _read_index(self) -> bool:
        """Return whether the file ends in an index that is complete, and read it."""
        part = next(self._parts(self._file, self._start, self._size), None)
        if part is None or part.op != _BAG:
            return False
        if part.fields.get('encryptor'):
            raise BagError(f'{self._path}: is encrypted; decrypt it with ROS 1 (rosbag decrypt)')
        try:
            position = _number(part.fields['index_pos'])
            connections = _number(part.fields['conn_count'])
            chunks = _number(part.fields['chunk_count'])
            if not part.end <= position <= self._size:
                return False
            spans: list[tuple[int, int]] = []
            times: list[int] = []
            for part in self._parts(self._file, position, self._size):
                if not part.is_whole:
                    return False
                data = self._read(part.start, part.end - part.start)
                if part.op == _CONNECTION:
                    self._register(part.fields, data)
                elif part.op == _CHUNK_INFO:
                    first_ns = _time(part.fields['start_time'])
                    spans.append((_number(part.fields['chunk_pos']), first_ns))
                    tallies = dict(struct.iter_unpack('<II', data))
                    self._counts.update(tallies)
                    if sum(tallies.values()):
                        times += [first_ns, _time(part.fields['end_time'])]
        except _MALFORMED:
            self._counts.clear()
            return False
        if len(self._connections) != connections or len(spans) != chunks:
            self._counts.clear()
            return False
        spans.sort()
        ends = [*(offset for offset, _ in spans[1:]), position]
        self._spans = [
            Span(start_ns, offset, end - offset)
            for (offset, start_ns), end in zip(spans, ends, strict=True)
        ]
        if times:
            self.span_ns = min(times), max(times)
        return True

    def _make_index(self) -> None:
        """Read the whole file for what an index would tell."""
        first_ns, last_ns = 1 << 64, -1
        end = self._start
        for part in self._parts(self._file, self._start, self._size):
            end = part.end
            if part.op == _CHUNK:
                times = []
                for key, log_ns, _ in self._messages_of_chunk(part, None):
                    self._counts[key] += 1
                    times.append(log_ns)
                self._spans.append(Span(min(times, default=0), part.offset, end - part.offset))
                first_ns, last_ns = min([first_ns, *times]), max([last_ns, *times])
            elif not part.is_whole:
                self._damage.unreadable_bytes += end - part.offset
        self._damage.unreadable_bytes += self._size - end
        self._damage.remark(
            f'{self._path.name}: is cut off or was not closed; what it held behind byte {end} is '
            'lost'
        )
        if last_ns >= 0:
            self.span_ns = first_ns, last_ns

    def _register(self, fields: dict[str, bytes], data: bytes) -> None:
        """Take note of a connection."""
        inner = _fields(data)
        self._connections[_number(fields['conn'])] = Topic(
            fields['topic'].decode(), normal_type(inner['type'].decode()), 'ros1'
        )

    # Messages.

    def _messages_of_chunk(
        self, part: _Part, wanted: Collection[int] | None
    ) -> Iterator[tuple[int, int, bytes]]:
        """Yield connection, log time and data of a chunk's messages.

        Args:
            part: the chunk.
            wanted: connections; None for all without their data, with damage not noted: that is
                for the index, and is met again when the messages are read.
        """
        try:
            content = self._content(part)
        except (DamagedDataError, *_MALFORMED) as error:
            if wanted is not None:
                self._note_damaged(part, str(error), wanted)
            return
        end = 0
        for inner in self._parts(BytesIO(content), 0, len(content)):
            if not inner.is_whole:
                break
            end = inner.end
            try:
                if inner.op == _CONNECTION and wanted is None:
                    self._register(inner.fields, content[inner.start : inner.end])
                elif inner.op == _MESSAGE:
                    key, log_ns = _number(inner.fields['conn']), _time(inner.fields['time'])
                    if wanted is None:
                        yield key, log_ns, b''
                    elif key not in self._connections:
                        self._damage.skipped['its topic is not known'] += 1
                    elif key in wanted:
                        yield key, log_ns, content[inner.start : inner.end]
            except _MALFORMED:
                self._damage.remark(
                    f'{self._path.name}: a record in the chunk at byte {part.offset} is damaged'
                )
        if wanted is not None and end < len(content):
            self._damage.unreadable_bytes += len(content) - end
            if part.is_whole:
                self._damage.remark(
                    f'{self._path.name}: the chunk at byte {part.offset} is damaged'
                )

    def _content(self, part: _Part) -> bytes:
        """Return a chunk's records, decompressed; of a chunk that is cut, what there is of them.

        Raises:
            DamagedDataError: they cannot be had.
        """
        compression, size = part.fields['compression'].decode(), _number(part.fields['size'])
        if max(size, part.end - part.start) > LARGEST:
            raise DamagedDataError(f'it has more than {LARGEST} bytes')
        data = self._read(part.start, part.end - part.start)
        if part.is_whole:
            return decompressed(data, compression, size)
        return decompressed_beginning(data, compression)[:size]

    def _note_damaged(self, part: _Part, reason: str, wanted: Collection[int]) -> None:
        """Count what a chunk held, of which nothing can be had."""
        self._damage.unreadable_bytes += part.end - part.offset
        self._damage.remark(
            f'{self._path.name}: the chunk at byte {part.offset} cannot be read: {reason}'
        )
        # Behind a chunk there is an index of its messages, connection by connection.
        for following in self._parts(self._file, part.end, self._size):
            if following.op != _INDEX or not following.is_whole:
                return
            if _number(following.fields.get('conn', b'')) in wanted:
                entries = (following.end - following.start) // 12
                self._damage.skipped['in a damaged chunk'] += entries

    # The file.

    def _parts(self, stream: BinaryIO, offset: int, end: int) -> Iterator[_Part]:
        """Walk over records, until there is none or one whose header is cut."""
        while offset + 4 <= end:
            stream.seek(offset)
            length = _number(stream.read(4))
            start = offset + 4 + length + 4
            if length > _LARGEST_HEADER or start > end:
                return
            try:
                fields = _fields(stream.read(length))
                op = fields['op'][0]
            except (*_MALFORMED, IndexError):
                return
            stop = start + _number(stream.read(4))
            yield _Part(op, fields, offset, start, min(stop, end), stop <= end)
            offset = stop

    def _read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, fewer where it ends."""
        self._file.seek(offset)
        return self._file.read(max(0, min(length, self._size - offset)))


def _fields(data: bytes) -> dict[str, bytes]:
    """Return the named fields of a header.

    Raises:
        ValueError: it is none.
    """
    fields = {}
    offset = 0
    while offset < len(data):
        end = offset + 4 + _number(data[offset : offset + 4])
        name, separator, value = data[offset + 4 : end].partition(b'=')
        if end > len(data) or not separator:
            raise ValueError('a field is cut')
        fields[name.decode()] = value
        offset = end
    return fields


def _number(data: bytes) -> int:
    return int.from_bytes(data, 'little')


def _time(data: bytes) -> int:
    """Return nanoseconds."""
    seconds, nanoseconds = struct.unpack('<II', data)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
