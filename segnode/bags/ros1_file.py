# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A ROS 1 bag, whole, cut or not closed.

Messages are in chunks, compressed one by one; the end of the file lists connections and chunks. A
bag that was not closed lacks that list, so that the whole file is read once to make it.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from tqdm import tqdm

from segnode.bags.damage import Damage
from segnode.bags.decompress import LARGEST
from segnode.bags.log_order import Span, Spans
from segnode.bags.record import Record, Topic
from segnode.bags.ros1_records import (
    BAG,
    CHUNK,
    CHUNK_INFO,
    CONNECTION,
    MAGIC,
    MESSAGE,
    Part,
    Ros1Records,
    read_fields,
    records_of_chunk,
)
from segnode.bags.tally import Tally
from segnode.bags.topics import normal_type
from segnode.errors import BagError

_VERSION = b'2.0\n'
_START = len(MAGIC + _VERSION)
# Of what a connection says of its type.
_LARGEST_TYPE = 4 << 20


class Ros1File:
    """An open ROS 1 bag.

    Attributes:
        span_ns: log times of the first and the last message, None where there is none.
    """

    def __init__(self, path: Path, damage: Damage, report: Callable[[str], None]) -> None:
        """Open a file and read its index, or make one.

        Args:
            path: the file.
            damage: gets what is found damaged, here and while messages are read.
            report: takes a remark.

        Raises:
            BagError: it is of another version, or encrypted.
        """
        self._damage, self._tally = damage, Tally(damage)
        self._file = Ros1Records(path)
        self.span_ns: tuple[int, int] | None = None
        self._forget_index()
        try:
            self._check_version()
            if not self._read_index():
                report(f'{path}: has no complete index, so that it is read once to make one')
                self._forget_index()
                self._make_index()
        finally:
            self._file.close()
        self._chunks = Spans(self._spans, damage, path.name)

    @property
    def topics(self) -> list[Topic]:
        """A topic for every connection; names may repeat."""
        return [
            Topic(t.name, t.type_name, t.encoding, self._counts[number])
            for number, t in self._topics.items()
        ]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def passed(self) -> float:
        """Return how much of the file has been read, from 0 to 1."""
        return self._chunks.passed()

    def records(self, names: Collection[str]) -> Iterator[Record]:
        """Yield the messages of some topics in log order."""
        wanted = {number for number, topic in self._topics.items() if topic.name in names}
        records = self._chunks.records(lambda span: self._load(span, wanted))
        try:
            yield from self._tally.counted(records, self.topics, names)
        finally:
            self._file.close()

    # The index.

    def _check_version(self) -> None:
        version = self._file.read(0, _START).removeprefix(MAGIC)
        if version != _VERSION:
            raise BagError(
                f'{self._file.path}: expected a ROS 1 bag of version 2.0, found version '
                f'{version.decode(errors="replace").strip()!r}; migrate it with rosbag fix'
            )

    def _forget_index(self) -> None:
        self._topics: dict[int, Topic] = {}
        self._counts: Counter[int] = Counter()
        self._spans: list[Span] = []

    def _read_index(self) -> bool:
        """Return whether the file ends in an index that is complete, and read it."""
        head = next(self._file.parts(_START), None)
        if head is None or head.op != BAG:
            return False
        if head.fields.get('encryptor'):
            raise BagError(
                f'{self._file.path}: expected a plain bag, found an encrypted one; decrypt it '
                'with rosbag decrypt'
            )
        starts: dict[int, int] = {}
        times: list[int] = []
        try:
            position = head.number('index_pos')
            if not head.end <= position <= self._file.size:
                return False
            for part in self._file.parts(position):
                if not part.is_whole:
                    return False
                if part.op == CONNECTION:
                    self._register(part, self._file.data(part))
                elif part.op == CHUNK_INFO:
                    starts[part.number('chunk_pos')] = part.time_ns('start_time')
                    counts = dict(struct.iter_unpack('<II', self._file.data(part)))
                    self._counts.update(counts)
                    if any(counts.values()):
                        times += [part.time_ns('start_time'), part.time_ns('end_time')]
            if len(self._topics) != head.number('conn_count'):
                return False
            if len(starts) != head.number('chunk_count'):
                return False
        except (ValueError, struct.error):
            return False
        ends = [*sorted(starts)[1:], position]
        self._spans = [
            Span(starts[offset], offset, end - offset)
            for offset, end in zip(sorted(starts), ends, strict=False)
        ]
        self.span_ns = (min(times), max(times)) if times else None
        return True

    def _make_index(self) -> None:
        """Read the whole file for what an index would tell."""
        end = _START
        with tqdm(
            total=self._file.size, unit='B', unit_scale=True, disable=None, leave=False
        ) as bar:
            for part in self._file.parts(_START):
                if part.op == CHUNK:
                    self._index_chunk(part)
                elif not part.is_whole:
                    break
                elif part.op in (CONNECTION, MESSAGE):
                    # A chunk that was never closed has its records outside of it.
                    length = min(part.end - part.start, _LARGEST_TYPE)
                    start_ns = self._index_record(part, self._file.read(part.start, length))
                    if start_ns is not None:
                        self._spans.append(Span(start_ns, part.offset, part.end - part.offset))
                end = part.end
                bar.update(part.end - part.offset)
        self._damage.unreadable_bytes += self._file.size - end
        self._remark(f'is cut off or was not closed; what it held behind byte {end} is lost')

    def _index_chunk(self, chunk: Part) -> None:
        try:
            content = self._file.chunk(chunk)
        except ValueError:
            content = b''
        before = self._counts.copy()
        times = [
            self._index_record(
                part, content[part.start : min(part.end, part.start + _LARGEST_TYPE)]
            )
            for part in records_of_chunk(content)
        ]
        if chunk.is_whole:
            # The index behind a chunk counts what is lost of it, too.
            behind = Counter(dict(self._file.messages_behind(chunk)))
            self._counts += behind - (self._counts - before)
        start_ns = min((time for time in times if time is not None), default=0)
        self._spans.append(Span(start_ns, chunk.offset, chunk.end - chunk.offset))

    def _index_record(self, part: Part, data: bytes) -> int | None:
        """Take note of a connection, or count a message and return its log time."""
        try:
            if part.op == CONNECTION:
                self._register(part, data)
            if part.op != MESSAGE:
                return None
            number, log_ns = part.number('conn'), part.time_ns('time')
        except ValueError as error:
            self._remark(f'a record is damaged: {error}')
            return None
        self._counts[number] += 1
        first_ns, last_ns = self.span_ns or (log_ns, log_ns)
        self.span_ns = min(first_ns, log_ns), max(last_ns, log_ns)
        return log_ns

    def _register(self, part: Part, data: bytes) -> None:
        """Take note of a connection; a ValueError says what is wrong with it."""
        type_name = read_fields(data).get('type', b'').decode()
        topic = Topic(part.text('topic'), normal_type(type_name), 'ros1')
        self._topics[part.number('conn')] = topic

    # Messages.

    def _load(self, span: Span, wanted: Collection[int]) -> Iterator[Record]:
        """Yield the messages of a chunk, or one that is outside of chunks."""
        part = next(self._file.parts(span.offset), None)
        if part is None or part.op not in (CHUNK, MESSAGE):
            self._remark('its index names a chunk that is not there')
        elif part.op == CHUNK:
            yield from self._messages_of_chunk(part, wanted)
        elif part.end - part.start > LARGEST:
            self._tally.skip(f'larger than {LARGEST} bytes')
        elif part.number('conn') in wanted:
            topic = self._topics[part.number('conn')]
            yield Record(topic, part.time_ns('time'), self._file.data(part))

    def _messages_of_chunk(self, chunk: Part, wanted: Collection[int]) -> Iterator[Record]:
        try:
            content = self._file.chunk(chunk)
        except ValueError as error:
            self._damage.unreadable_bytes += chunk.end - chunk.offset
            self._remark(f'the chunk at byte {chunk.offset} cannot be read: {error}')
            for number, count in self._file.messages_behind(chunk):
                if number in wanted and count:
                    self._tally.skip('in a damaged chunk', count)
            return
        end = 0
        for part in records_of_chunk(content):
            end = part.end
            if part.op != MESSAGE:
                continue
            try:
                number, log_ns = part.number('conn'), part.time_ns('time')
            except ValueError:
                self._tally.skip('its record is damaged')
                continue
            if number in wanted:
                yield Record(self._topics[number], log_ns, content[part.start : part.end])
            elif number not in self._topics:
                self._tally.skip('its topic is not known')
        if end < len(content):
            self._damage.unreadable_bytes += len(content) - end
            if chunk.is_whole:
                self._remark(f'the chunk at byte {chunk.offset} is damaged')

    def _remark(self, sentence: str) -> None:
        self._damage.remark(f'{self._file.path.name}: {sentence}')
