# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What an MCAP file holds and where: from the index at its end, or from reading it once."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO

from mcap import records
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from tqdm import tqdm

from segnode.bags.damage import Damage
from segnode.bags.decompress import DamagedDataError
from segnode.bags.log_order import Span
from segnode.bags.mcap_records import MAGIC, McapRecords, Part, message_head, records_of_chunk
from segnode.bags.record import Topic
from segnode.bags.topics import normal_type

_FOOTER_BYTES = 9 + 20 + len(MAGIC)
# Messages outside of chunks are read by so many bytes together.
_RUN_BYTES = 4 << 20
# Schemas are texts; the others have 65536 entries at most.
_LARGEST_RECORD = 4 << 20
_MALFORMED = (McapError, struct.error, ValueError)


@dataclass(slots=True)
class McapIndex:
    """What a file holds.

    Attributes:
        channels: what its writer noted of each.
        types: names of types by the number of the schema.
        counts: messages by channel, None where the file does not tell.
        spans: its chunks, and runs of messages outside of them.
        span_ns: log times of the first and the last message, None where there is none.
    """

    channels: dict[int, records.Channel] = field(default_factory=dict)
    types: dict[int, str] = field(default_factory=dict)
    counts: Counter[int] | None = None
    spans: list[Span] = field(default_factory=list)
    span_ns: tuple[int, int] | None = None

    def topics(self) -> dict[int, Topic]:
        """Return the topic of each channel."""
        return {number: self._topic(channel) for number, channel in self.channels.items()}

    def register(self, opcode: int, data: bytes) -> None:
        """Take note of a schema or a channel; others are passed over.

        Raises:
            McapError, struct.error, ValueError: it is damaged.
        """
        if opcode == Opcode.SCHEMA:
            schema = records.Schema.read(_stream(data))
            self.types[schema.id] = schema.name
        elif opcode == Opcode.CHANNEL:
            channel = records.Channel.read(_stream(data))
            self.channels[channel.id] = channel

    def _topic(self, channel: records.Channel) -> Topic:
        encoding = channel.message_encoding
        type_name = self.types.get(channel.schema_id, '')
        if encoding in ('cdr', 'ros1'):
            type_name = normal_type(type_name)
        count = None if self.counts is None else self.counts[channel.id]
        return Topic(channel.topic, type_name, encoding, count)


def read_index(file: McapRecords) -> McapIndex | None:
    """Return the index at the end of a file, None where that is missing or not complete."""
    footer = file.read(file.size - _FOOTER_BYTES, _FOOTER_BYTES)
    if len(footer) < _FOOTER_BYTES or not footer.endswith(MAGIC):
        return None
    opcode, length, start = struct.unpack_from('<BQQ', footer)
    if (opcode, length) != (Opcode.FOOTER, 20) or start < len(MAGIC):
        return None
    index = McapIndex()
    statistics: records.Statistics | None = None
    chunks: dict[int, Span] = {}
    ends: dict[int, int] = {}
    try:
        for part in file.parts(start):
            if part.opcode == Opcode.FOOTER:
                break
            if part.opcode == Opcode.STATISTICS:
                statistics = records.Statistics.read(_stream(_data(file, part)))
            elif part.opcode == Opcode.CHUNK_INDEX:
                chunk = records.ChunkIndex.read(_stream(_data(file, part)))
                offset = chunk.chunk_start_offset
                chunks[offset] = Span(chunk.message_start_time, offset, chunk.chunk_length)
                ends[offset] = offset + chunk.chunk_length + chunk.message_index_length
            elif part.opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                index.register(part.opcode, _data(file, part))
    except _MALFORMED:
        return None
    if statistics is None or not statistics.chunk_count == len(chunks) > 0:
        return None
    if _is_more_there(file, ends, start):
        return None
    # Topics and types may be in the chunks alone.
    types = {channel.schema_id for channel in index.channels.values()} - {0}
    if statistics.channel_count != len(index.channels) or not types <= index.types.keys():
        return None
    # Not every writer counts by channel.
    if sum(statistics.channel_message_counts.values()) == statistics.message_count:
        index.counts = Counter(statistics.channel_message_counts)
    if statistics.message_count:
        index.span_ns = statistics.message_start_time, statistics.message_end_time
    index.spans = list(chunks.values())
    return index


def _is_more_there(file: McapRecords, ends: Mapping[int, int], summary: int) -> bool:
    """Return whether messages or chunks lie between the chunks of an index.

    Args:
        file: an open one.
        ends: where each chunk with what belongs to it ends, by where it starts.
        summary: where the index starts.
    """
    position = len(MAGIC)
    for start in [*sorted(ends), summary]:
        if position < start:
            for part in file.parts(position):
                if part.offset >= start:
                    break
                if part.opcode in (Opcode.MESSAGE, Opcode.CHUNK):
                    return True
        position = max(position, ends.get(start, start))
    return False


def make_index(file: McapRecords, damage: Damage) -> McapIndex:
    """Read a whole file for what an index would tell.

    Args:
        file: an open one.
        damage: gets what is known to be lost; what chunks have lost shows when they are read.
    """
    index = McapIndex(counts=Counter())
    run: Span | None = None
    end = len(MAGIC)
    is_open = True
    with tqdm(total=file.size, unit='B', unit_scale=True, disable=None, leave=False) as bar:
        for part in file.parts(end):
            if run and (part.opcode != Opcode.MESSAGE or part.end - run.offset > _RUN_BYTES):
                index.spans.append(run)
                run = None
            if part.opcode == Opcode.CHUNK:
                _index_chunk(file, part, index, damage)
            elif not part.is_whole or part.opcode == Opcode.FOOTER:
                break
            elif part.opcode == Opcode.MESSAGE:
                head = file.message_head(part)
                if head is not None:
                    _count(index, head.channel, head.log_ns)
                    offset = run.offset if run else part.offset
                    start_ns = min(run.start_ns, head.log_ns) if run else head.log_ns
                    run = Span(start_ns, offset, part.end - offset)
            elif part.opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                _register(file, index, part.opcode, _data(file, part), damage)
            elif part.opcode == Opcode.STATISTICS:
                _compare(file, part, index, damage)
            end = part.end
            bar.update(part.end - part.offset)
            # Behind it, topics without messages may be listed.
            is_open = is_open and part.opcode != Opcode.DATA_END
    if run:
        index.spans.append(run)
    if is_open:
        _note_end(file, end, damage)
    return index


def _index_chunk(file: McapRecords, part: Part, index: McapIndex, damage: Damage) -> None:
    try:
        content = file.chunk(part)
    except DamagedDataError:
        content = b''
    times = []
    # The index behind a chunk counts what is lost of it, too.
    counts: Counter[int] = Counter()
    for record in records_of_chunk(content):
        if record.opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
            stop = min(record.end, record.start + _LARGEST_RECORD + 1)
            _register(file, index, record.opcode, content[record.start : stop], damage)
        elif record.opcode == Opcode.MESSAGE and (head := message_head(content, record)):
            _count(index, head.channel, head.log_ns)
            counts[head.channel] += 1
            times.append(head.log_ns)
    if part.is_whole and index.counts is not None:
        index.counts += Counter(dict(file.messages_behind(part))) - counts
    start_ns = min(times) if times else int.from_bytes(file.read(part.start, 8), 'little')
    index.spans.append(Span(start_ns, part.offset, part.end - part.offset))


def _count(index: McapIndex, channel: int, log_ns: int) -> None:
    if index.counts is not None:
        index.counts[channel] += 1
    first_ns, last_ns = index.span_ns or (log_ns, log_ns)
    index.span_ns = min(first_ns, log_ns), max(last_ns, log_ns)


def _register(
    file: McapRecords, index: McapIndex, opcode: int, data: bytes, damage: Damage
) -> None:
    try:
        index.register(opcode, data)
    except _MALFORMED:
        damage.remark(f'{file.path.name}: the record of a topic or a type is damaged')


def _compare(file: McapRecords, part: Part, index: McapIndex, damage: Damage) -> None:
    """Note where a file had more messages when it was closed than there are now."""
    # Its first number counts them.
    said = int.from_bytes(file.read(part.start, min(part.end - part.start, 8)), 'little')
    found = sum((index.counts or {}).values())
    if found < said:
        damage.remark(f'{file.path.name}: {found} of its {said} messages are there')


def _note_end(file: McapRecords, end: int, damage: Damage) -> None:
    """Note that the file has no end, and how many bytes are no whole record."""
    damage.unreadable_bytes += file.size - end
    is_closed = file.read(file.size - len(MAGIC), len(MAGIC)) == MAGIC and file.size > end
    damage.remark(
        f'{file.path.name}: is damaged from byte {end} on'
        if is_closed
        else f'{file.path.name}: is cut off or was not closed, so that it ends at byte '
        f'{file.size}; what followed is lost'
    )


def _data(file: McapRecords, part: Part) -> bytes:
    return file.read(part.start, min(part.end - part.start, _LARGEST_RECORD + 1))


def _stream(data: bytes) -> ReadDataStream:
    """Return a record for ``mcap`` to read.

    Raises:
        ValueError: it is larger than any.
    """
    if len(data) > _LARGEST_RECORD:
        raise ValueError(f'a record has more than {_LARGEST_RECORD} bytes')
    return ReadDataStream(BytesIO(data))
