# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Messages in the order of their log times, with no more of them in memory than that takes.

A recorder writes messages about in order, in chunks whose first log time is known beforehand. So
the chunks are read in the order of that time, and a message can go once no chunk that is left
begins before it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from segnode.bags.damage import Damage
from segnode.bags.record import Record

WINDOW_BYTES = 256 << 20
"""Most bytes of messages that wait for earlier ones of later chunks."""


class Span(NamedTuple):
    """A part of a file, of a first log time; in the order in which parts are read."""

    start_ns: int
    offset: int
    length: int


def in_log_order(
    spans: Sequence[Span],
    load: Callable[[Span], Iterable[Record]],
    damage: Damage,
    name: str,
    window_bytes: int = WINDOW_BYTES,
) -> Iterator[Record]:
    """Yield the messages of all parts of a file, those of one log time as they lie in the file.

    Args:
        spans: sorted.
        load: reads the messages of one part, which it may hold in any order.
        damage: gets a remark where messages come after later ones: where more than
            ``window_bytes`` would have to wait, or a part begins before its ``start_ns``.
        name: of the file.
        window_bytes: how many may wait.
    """
    waiting: list[tuple[int, int, int, Record]] = []
    held = number = 0
    last_ns: int | None = None
    for position, span in enumerate(spans):
        for record in load(span):
            heapq.heappush(waiting, (record.log_ns, span.offset, number, record))
            number += 1
            held += len(record.data)
        next_ns = spans[position + 1].start_ns if position + 1 < len(spans) else None
        while waiting and (next_ns is None or waiting[0][0] < next_ns or held > window_bytes):
            record = heapq.heappop(waiting)[-1]
            held -= len(record.data)
            if last_ns is not None and record.log_ns < last_ns:
                damage.remark(
                    f'{name}: its messages are further out of order than can be put right'
                )
            last_ns = record.log_ns
            yield record


class Spans:
    """The parts of a file, read in log order, and how much of them has been read."""

    def __init__(self, spans: Iterable[Span], damage: Damage, name: str) -> None:
        """Take the parts; ``damage`` and ``name`` as in `in_log_order`."""
        self._spans = sorted(spans)
        self._damage = damage
        self._name = name
        self._bytes = max(1, sum(span.length for span in self._spans))
        self._passed = 0

    def passed(self) -> float:
        """Return how much of them has been read, from 0 to 1."""
        return min(self._passed / self._bytes, 1.0)

    def records(self, load: Callable[[Span], Iterable[Record]]) -> Iterator[Record]:
        """Yield the messages of all parts, each read by ``load``."""
        self._passed = 0

        def counted(span: Span) -> Iterator[Record]:
            yield from load(span)
            self._passed += span.length

        yield from in_log_order(self._spans, counted, self._damage, self._name)
        self._passed = self._bytes


_Part = TypeVar('_Part')


def merged(
    parts: Iterable[_Part],
    start_ns: Callable[[_Part], int],
    read: Callable[[_Part], Iterator[Record]],
) -> Iterator[Record]:
    """Yield the messages of several files in log order, each file begun when it is due.

    Args:
        parts: the files; those that begin together are read in this order.
        start_ns: log time of a file's first message.
        read: yields the messages of a file in log order.
    """
    left = sorted(enumerate(parts), key=lambda numbered: (start_ns(numbered[1]), numbered[0]))
    left.reverse()
    open_parts: list[tuple[int, int, Record, Iterator[Record]]] = []
    while left or open_parts:
        while left and (not open_parts or start_ns(left[-1][1]) <= open_parts[0][0]):
            number, part = left.pop()
            messages = read(part)
            if (first := next(messages, None)) is not None:
                heapq.heappush(open_parts, (first.log_ns, number, first, messages))
        if not open_parts:
            continue
        _, number, record, messages = open_parts[0]
        yield record
        if (following := next(messages, None)) is None:
            heapq.heappop(open_parts)
        else:
            heapq.heapreplace(open_parts, (following.log_ns, number, following, messages))
