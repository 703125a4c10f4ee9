# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The messages of an MCAP file, whole, cut or damaged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeGuard

from mcap.opcode import Opcode

from segnode.bags.damage import Damage
from segnode.bags.decompress import LARGEST, DamagedDataError
from segnode.bags.log_order import Span, Spans
from segnode.bags.mcap_index import make_index, read_index
from segnode.bags.mcap_records import (
    MAGIC,
    McapRecords,
    MessageHead,
    Part,
    message_head,
    records_of_chunk,
)
from segnode.bags.record import Record, Topic
from segnode.bags.tally import Tally
from segnode.errors import BagError


class McapFile:
    """An open MCAP file.

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
            BagError: it is another file.
        """
        self._damage, self._tally = damage, Tally(damage)
        self._file = McapRecords(path)
        try:
            if self._file.read(0, len(MAGIC)) != MAGIC:
                raise BagError(f'{path}: expected an mcap file, found another')
            index = read_index(self._file)
            if index is None:
                report(
                    f'{path}: has no complete index of chunks, so that it is read once to make one'
                )
                index = make_index(self._file, damage)
        finally:
            self._file.close()
        self._topics = index.topics()
        self._spans = Spans(index.spans, damage, path.name)
        self.span_ns = index.span_ns

    @property
    def topics(self) -> list[Topic]:
        """A topic for every channel; names may repeat."""
        return list(self._topics.values())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def passed(self) -> float:
        """Return how much of the file has been read, from 0 to 1."""
        return self._spans.passed()

    def records(self, names: Collection[str]) -> Iterator[Record]:
        """Yield the messages of some topics in log order."""
        wanted = {channel for channel, topic in self._topics.items() if topic.name in names}
        records = self._spans.records(lambda span: self._load(span, wanted))
        try:
            yield from self._tally.counted(records, self.topics, names)
        finally:
            self._file.close()

    def _load(self, span: Span, wanted: Collection[int]) -> Iterator[Record]:
        """Yield the messages of a chunk, or of a run of messages outside of chunks."""
        parts = self._file.parts(span.offset)
        part = next(parts, None)
        if part is None or part.opcode not in (Opcode.CHUNK, Opcode.MESSAGE):
            self._remark('its index names a chunk that is not there')
            return
        if part.opcode == Opcode.CHUNK:
            yield from self._messages_of_chunk(part, wanted)
            return
        while part is not None and part.offset < span.offset + span.length:
            head = self._file.message_head(part)
            if self._is_readable(head, part, wanted):
                data = self._file.read(head.start, part.end - head.start)
                yield Record(self._topics[head.channel], head.log_ns, data)
            part = next(parts, None)

    def _messages_of_chunk(self, chunk: Part, wanted: Collection[int]) -> Iterator[Record]:
        try:
            content = self._file.chunk(chunk)
        except DamagedDataError as error:
            self._note_damaged(chunk, str(error), wanted)
            return
        end = 0
        for part in records_of_chunk(content):
            end = part.end
            if part.opcode != Opcode.MESSAGE:
                continue
            head = message_head(content, part)
            if self._is_readable(head, part, wanted):
                data = content[head.start : part.end]
                yield Record(self._topics[head.channel], head.log_ns, data)
        if end < len(content):
            self._damage.unreadable_bytes += len(content) - end
            if chunk.is_whole:
                self._remark(f'the chunk at byte {chunk.offset} is damaged')

    def _is_readable(
        self, head: MessageHead | None, part: Part, wanted: Collection[int]
    ) -> TypeGuard[MessageHead]:
        """Return whether a message is wanted and can be had; one that cannot is counted."""
        if head is None:
            self._tally.skip('shorter than a message can be')
        elif head.channel not in self._topics:
            self._tally.skip('its topic is not known')
        elif head.channel in wanted:
            if part.end - part.start <= LARGEST:
                return True
            self._tally.skip(f'larger than {LARGEST} bytes')
        return False

    def _note_damaged(self, chunk: Part, reason: str, wanted: Collection[int]) -> None:
        """Count what a chunk held, of which nothing can be had."""
        self._damage.unreadable_bytes += chunk.end - chunk.offset
        if chunk.is_whole:
            self._remark(f'the chunk at byte {chunk.offset} cannot be read: {reason}')
            for channel, count in self._file.messages_behind(chunk):
                if channel in wanted and count:
                    self._tally.skip('in a damaged chunk', count)

    def _remark(self, sentence: str) -> None:
        self._damage.remark(f'{self._file.path.name}: {sentence}')
