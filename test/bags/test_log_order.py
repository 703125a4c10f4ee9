# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The order of messages, and how many of them wait for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from seeds import fresh_seeds

from segnode.bags.damage import Damage
from segnode.bags.log_order import Span, in_log_order, merged
from segnode.bags.record import Record, Topic

TOPIC = Topic('/a', 'b/msg/C', 'cdr')


def record(log_ns: int, size: int = 1) -> Record:
    return Record(TOPIC, log_ns, bytes(size))


def spans_of(chunks: list[list[Record]]) -> list[Span]:
    return sorted(
        Span(min((r.log_ns for r in chunk), default=0), number, 1)
        for number, chunk in enumerate(chunks)
    )


@pytest.mark.parametrize('seed', fresh_seeds(20))
def test_all_messages_in_order_and_those_of_one_time_as_they_lie(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chunks = [
        [record(int(t)) for t in rng.integers(5 * number, 5 * number + 20, rng.integers(0, 8))]
        for number in range(10)
    ]
    damage = Damage()
    spans = spans_of(chunks)
    found = list(in_log_order(spans, lambda span: chunks[span.offset], damage, 'a'))
    flat = [each for chunk in chunks for each in chunk]
    # Python's sort is stable, and so is the way it is done here.
    assert [id(each) for each in found] == [id(r) for r in sorted(flat, key=lambda r: r.log_ns)]
    assert not damage


def test_no_more_waits_than_the_order_takes() -> None:
    loaded: list[int] = []
    chunks = [[record(10 * number + offset) for offset in (5, 0, 12)] for number in range(100)]

    def load(span: Span) -> list[Record]:
        loaded.append(span.offset)
        return chunks[span.offset]

    for number, _ in enumerate(in_log_order(spans_of(chunks), load, Damage(), 'a')):
        assert len(loaded) <= number // 3 + 2


def test_a_window_that_is_full_lets_messages_go_and_says_so() -> None:
    # Every chunk begins with the bag and ends later than the ones before.
    chunks = [[record(0, 100), record(1000 - number, 100)] for number in range(50)]
    damage = Damage()
    spans = spans_of(chunks)
    found = list(
        in_log_order(spans, lambda span: chunks[span.offset], damage, 'a', window_bytes=1000)
    )
    assert sorted(map(id, found)) == sorted(id(r) for chunk in chunks for r in chunk)
    assert damage.remarks == ['a: its messages are further out of order than can be put right']
    damage = Damage()
    found = list(in_log_order(spans, lambda span: chunks[span.offset], damage, 'a'))
    assert [r.log_ns for r in found] == sorted(r.log_ns for r in found)
    assert not damage


def test_a_start_that_is_wrong_is_noticed() -> None:
    chunks = [[record(50), record(60)], [record(10), record(70)]]
    damage = Damage()
    spans = [Span(50, 0, 1), Span(65, 1, 1)]
    found = list(in_log_order(spans, lambda span: chunks[span.offset], damage, 'a'))
    assert [r.log_ns for r in found] == [50, 60, 10, 70]
    assert damage


@pytest.mark.parametrize('seed', fresh_seeds(20))
def test_files_are_merged_and_begun_when_they_are_due(seed: int) -> None:
    rng = np.random.default_rng(seed)
    files = [
        sorted(rng.integers(10 * number, 10 * number + 25, rng.integers(0, 6)).tolist())
        for number in range(8)
    ]
    begun: list[int] = []

    def read(number: int) -> Iterator[Record]:
        begun.append(number)
        yield from map(record, files[number])

    found = []
    for each in merged(range(8), lambda number: min(files[number], default=0), read):
        assert all(min(files[number], default=0) <= each.log_ns for number in begun)
        found.append(each.log_ns)
    assert found == sorted(time for file in files for time in file)
    assert sorted(begun) == list(range(8))
