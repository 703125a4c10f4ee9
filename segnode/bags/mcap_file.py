# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""MCAP files, whole, cut or damaged (specification: mcap.dev/spec).

A file is records, most of them within chunks that are compressed one by one, and at its end an
index of the chunks. Where that is missing or not complete, the whole file is read once to make
one. ``mcap`` reads the small records; messages and chunks are taken apart here, as it believes the
sizes that a file claims.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from mcap import records
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode

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

MAGIC = b'\x89MCAP0\r\n'

_RECORD = struct.Struct('<BQ')
_MESSAGE = struct.Struct('<HIQQ')
_CHUNK = struct.Struct('<QQQI')
_FOOTER_BYTES = _RECORD.size + 20 + len(MAGIC)
# What a chunk's header has at most, with the longest name of a compression that is believed.
_CHUNK_HEADER_BYTES = _CHUNK.size + 4 + 64 + 8
# Messages outside of chunks are read by so many bytes together.
_RUN_BYTES = 4 << 20
_MALFORMED = (McapError, struct.error, ValueError)


class _Part(NamedTuple):
    """A record of a file: where what it holds begins and ends, cut at the end of the file."""

    opcode: int
    offset: int
    start: int
    end: int
    is_whole: bool


class McapFile:
    """An open MCAP file.

    Attributes:
        topics: a topic for every channel, so that names may repeat.
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
        self._channels: dict[int, Topic] = {}
        self._schemas: dict[int, tuple[str, str]] = {}
        self._counts: Counter[int] | None = None
        self._spans: list[Span] = []
        self.span_ns: tuple[int, int] | None = None
        self._passed = 0
        if self._read(0, len(MAGIC)) != MAGIC:
            raise BagError(f'{path}: expected an mcap file, found another')
        if not self._read_index():
            report(f'{path}: has no complete index, so that it is read once to make one')
            self._make_index()
        self._spans.sort()

    @property
    def topics(self) -> list[Topic]:
        """A topic for every channel; names may repeat."""
        counts = self._counts
        return [
            Topic(t.name, t.type_name, t.encoding, None if counts is None else counts[channel])
            for channel, t in self._channels.items()
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
        wanted = {channel for channel, topic in self._channels.items() if topic.name in names}

        def load(span: Span) -> Iterator[Record]:
            yield from self._load(span, wanted)
            self._passed += span.length

        def late(record: Record) -> None:
            self._damage.remark(
                f'{self._path.name}: its messages are further out of order than can be put '
                f'right, the first at log time {record.log_ns}'
            )

        yield from in_log_order(self._spans, load, late)

    # The index.

    def _read_index(self) -> bool:
        """Return whether the file ends in an index that is complete, and read it."""
        footer = self._read(self._size - _FOOTER_BYTES, _FOOTER_BYTES)
        if len(footer) < _FOOTER_BYTES or not footer.endswith(MAGIC):
            return False
        opcode, length, start = struct.unpack_from('<BQQ', footer)
        if (opcode, length) != (Opcode.FOOTER, 20) or not len(MAGIC) < start < self._size:
            return False
        statistics: records.Statistics | None = None
        chunks: dict[int, Span] = {}
        try:
            for part in self._parts(start):
                if part.opcode == Opcode.FOOTER:
                    break
                if part.opcode == Opcode.STATISTICS:
                    statistics = records.Statistics.read(self._stream(part))
                elif part.opcode == Opcode.CHUNK_INDEX:
                    chunk = records.ChunkIndex.read(self._stream(part))
                    chunks[chunk.chunk_start_offset] = Span(
                        chunk.message_start_time, chunk.chunk_start_offset, chunk.chunk_length
                    )
                else:
                    self._register(part.opcode, self._stream(part))
        except _MALFORMED:
            return False
        # Messages outside of chunks are not in such an index.
        if statistics is None or not statistics.chunk_count == len(chunks) > 0:
            return False
        if statistics.channel_count != len(self._channels):
            return False
        # Not every writer counts by channel.
        if sum(statistics.channel_message_counts.values()) == statistics.message_count:
            self._counts = Counter(statistics.channel_message_counts)
        self._spans = list(chunks.values())
        if statistics.message_count:
            self.span_ns = statistics.message_start_time, statistics.message_end_time
        return True

    def _make_index(self) -> None:
        """Read the whole file for what an index would tell."""
        counts: Counter[int] = Counter()
        run: list[int] = []
        first_ns, last_ns = 1 << 64, -1
        end = len(MAGIC)

        def end_run(offset: int) -> None:
            if run:
                self._spans.append(Span(run[0], run[1], offset - run[1]))
                run.clear()

        self._spans = []
        for part in self._parts(len(MAGIC)):
            end = part.end
            if part.opcode != Opcode.MESSAGE or (run and end - run[1] > _RUN_BYTES):
                end_run(part.offset)
            if part.opcode == Opcode.DATA_END:
                break
            if part.opcode == Opcode.CHUNK:
                times = []
                for channel, log_ns, _ in self._messages_of_chunk(part, None):
                    counts[channel] += 1
                    times.append(log_ns)
                start_ns = min(times) if times else self._chunk_start_ns(part)
                self._spans.append(Span(start_ns, part.offset, part.end - part.offset))
                first_ns, last_ns = min([first_ns, *times]), max([last_ns, *times])
            elif part.opcode == Opcode.MESSAGE and part.is_whole:
                head = self._read(part.start, min(part.end - part.start, _MESSAGE.size))
                if len(head) < _MESSAGE.size:
                    continue
                channel, _, log_ns, _ = _MESSAGE.unpack(head)
                counts[channel] += 1
                first_ns, last_ns = min(first_ns, log_ns), max(last_ns, log_ns)
                run[:] = [min(run[0], log_ns), run[1]] if run else [log_ns, part.offset]
            elif part.is_whole:
                try:
                    self._register(part.opcode, self._stream(part))
                except _MALFORMED:
                    self._damage.remark(
                        f'{self._path.name}: a topic is damaged at byte {part.offset}'
                    )
            if not part.is_whole:
                end_run(part.offset)
                self._note_cut(part)
                break
        else:
            end_run(end)
            self._note_end(end)
        self._counts = counts
        if last_ns >= 0:
            self.span_ns = first_ns, last_ns

    def _note_cut(self, part: _Part) -> None:
        self._damage.remark(
            f'{self._path.name}: is cut off at byte {self._size}; what followed is lost'
        )
        # What is lost of a chunk shows when it is read.
        if part.opcode != Opcode.CHUNK:
            self._damage.unreadable_bytes += self._size - part.offset

    def _note_end(self, end: int) -> None:
        left = self._size - end
        self._damage.unreadable_bytes += left
        self._damage.remark(
            f'{self._path.name}: is damaged from byte {end} on'
            if left > _RECORD.size
            else f'{self._path.name}: was not closed; what it held behind byte {end} is lost'
        )

    def _register(self, opcode: int, stream: ReadDataStream) -> None:
        """Take note of a schema or a channel."""
        if opcode == Opcode.SCHEMA:
            schema = records.Schema.read(stream)
            self._schemas[schema.id] = schema.name, schema.encoding
        elif opcode == Opcode.CHANNEL:
            channel = records.Channel.read(stream)
            type_name, _ = self._schemas.get(channel.schema_id, ('', ''))
            encoding = channel.message_encoding
            if encoding in ('cdr', 'ros1'):
                type_name = normal_type(type_name)
            self._channels[channel.id] = Topic(channel.topic, type_name, encoding)

    # Messages.

    def _load(self, span: Span, wanted: Collection[int]) -> Iterator[Record]:
        """Yield the messages of a chunk, or of a run of messages outside of chunks."""
        parts = self._parts(span.offset)
        part = next(parts, None)
        if part is None or part.opcode not in (Opcode.CHUNK, Opcode.MESSAGE):
            self._damage.remark(f'{self._path.name}: its index names a chunk that is not there')
            return
        if part.opcode == Opcode.CHUNK:
            for channel, log_ns, data in self._messages_of_chunk(part, wanted):
                yield Record(self._channels[channel], log_ns, data)
            return
        while part is not None and part.offset < span.offset + span.length and part.is_whole:
            head = self._read(part.start, min(part.end - part.start, _MESSAGE.size))
            if len(head) == _MESSAGE.size:
                channel, _, log_ns, _ = _MESSAGE.unpack(head)
                if self._is_readable(channel, part.end - part.start, wanted):
                    start = part.start + _MESSAGE.size
                    data = self._read(start, part.end - start)
                    yield Record(self._channels[channel], log_ns, data)
            part = next(parts, None)

    def _is_readable(self, channel: int, length: int, wanted: Collection[int]) -> bool:
        """Return whether a message is wanted and can be had."""
        if channel not in self._channels:
            self._damage.skipped['its topic is not known'] += 1
        elif channel in wanted and length > LARGEST:
            self._damage.skipped[f'larger than {LARGEST} bytes'] += 1
        else:
            return channel in wanted
        return False

    def _messages_of_chunk(
        self, part: _Part, wanted: Collection[int] | None
    ) -> Iterator[tuple[int, int, bytes]]:
        """Yield channel, log time and data of a chunk's messages.

        Args:
            part: the chunk.
            wanted: channels; None for all without their data, with damage not noted: that is for
                the index, and is met again when the messages are read.
        """
        try:
            content = self._content(part)
        except DamagedDataError as error:
            if wanted is not None:
                self._note_damaged(part, str(error), wanted)
            return
        view = memoryview(content)
        offset = 0
        while offset + _RECORD.size <= len(view):
            opcode, length = _RECORD.unpack_from(view, offset)
            start = offset + _RECORD.size
            if length > len(view) - start or opcode == 0:
                break
            offset = start + length
            if opcode == Opcode.MESSAGE and length >= _MESSAGE.size:
                channel, _, log_ns, _ = _MESSAGE.unpack_from(view, start)
                if wanted is None:
                    yield channel, log_ns, b''
                elif self._is_readable(channel, length, wanted):
                    yield channel, log_ns, bytes(view[start + _MESSAGE.size : offset])
            elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL) and wanted is None:
                try:
                    self._register(opcode, ReadDataStream(BytesIO(view[start:offset])))
                except _MALFORMED:
                    self._damage.remark(
                        f'{self._path.name}: a topic in the chunk at byte {part.offset} is damaged'
                    )
        if wanted is not None and offset < len(view):
            self._damage.unreadable_bytes += len(view) - offset
            if part.is_whole:
                self._damage.remark(
                    f'{self._path.name}: the chunk at byte {part.offset} is damaged'
                )

    def _content(self, part: _Part) -> bytes:
        """Return a chunk's records, decompressed; of a chunk that is cut, what there is of them.

        Raises:
            DamagedDataError: they cannot be had.
        """
        head = self._read(part.start, min(part.end - part.start, _CHUNK_HEADER_BYTES))
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
            content = decompressed(self._read(start, length), compression, size)
            if crc and zlib.crc32(content) != crc:
                raise DamagedDataError('its checksum differs')
            return content
        if part.is_whole:
            raise DamagedDataError('its length differs')
        # A frame of zstd tells nothing before its end that could be relied on.
        if compression == 'zstd':
            raise DamagedDataError('it is cut')
        return decompressed_beginning(self._read(start, available), compression)[:size]

    def _chunk_start_ns(self, part: _Part) -> int:
        head = self._read(part.start, 8)
        return int.from_bytes(head, 'little')

    def _note_damaged(self, part: _Part, reason: str, wanted: Collection[int]) -> None:
        """Count what a chunk held, of which nothing can be had."""
        self._damage.unreadable_bytes += part.end - part.offset
        if not part.is_whole:
            return
        self._damage.remark(
            f'{self._path.name}: the chunk at byte {part.offset} cannot be read: {reason}'
        )
        # Behind a chunk there is an index of its messages, channel by channel.
        for following in self._parts(part.end):
            if following.opcode != Opcode.MESSAGE_INDEX or not following.is_whole:
                return
            channel, length = struct.unpack('<HI', self._read(following.start, 6).ljust(6, b'\0'))
            if channel in wanted:
                entries = min(length, following.end - following.start - 6) // 16
                self._damage.skipped['in a damaged chunk'] += entries

    # The file.

    def _parts(self, offset: int, end: int | None = None) -> Iterator[_Part]:
        """Walk over records, until one is cut or is none."""
        end = self._size if end is None else min(end, self._size)
        while offset + _RECORD.size <= end:
            opcode, length = _RECORD.unpack(self._read(offset, _RECORD.size))
            start = offset + _RECORD.size
            if opcode == 0:
                return
            is_whole = length <= self._size - start
            part_end = start + length if is_whole else self._size
            yield _Part(opcode, offset, start, part_end, is_whole)
            offset = part_end

    def _stream(self, part: _Part) -> ReadDataStream:
        """Return a small record for ``mcap`` to read.

        Raises:
            ValueError: it is none.
        """
        if part.end - part.start > LARGEST // 16:
            raise ValueError(f'a record has {part.end - part.start} bytes')
        return ReadDataStream(BytesIO(self._read(part.start, part.end - part.start)))

    def _read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, fewer where it ends."""
        if offset < 0:
            return b''
        self._file.seek(offset)
        return self._file.read(max(0, min(length, self._size - offset)))
