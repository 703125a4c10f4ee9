# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Which rows no other beats, and which one to take within a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def pareto_front(rows: Sequence[Row], metric: str) -> list[int]:
    """Return the positions of the rows that none beats, the fastest first.

    A row beats another where it is at least as fast (``latency_ms.p50``) and at least as good
    (``metric``), and one of the two is better. Rows that lack either are on no front.
    """
    known = [
        (row['latency_ms']['p50'], -row[metric], position)
        for position, row in enumerate(rows)
        if row['latency_ms'] is not None and row[metric] is not None
    ]
    front: list[int] = []
    best, last = float('inf'), (0.0, 0.0)
    # The fastest first, and of equally fast ones the best: one is beaten by those before it only.
    for p50, loss, position in sorted(known):
        if loss < best or (p50, loss) == last:
            front.append(position)
            best, last = loss, (p50, loss)
    return front


def choose(rows: Sequence[Row], metric: str, budget_ms: float | None) -> int | None:
    """Return the position of the best row, the faster one of equals.

    Args:
        rows: all of them.
        metric: of which more is better.
        budget_ms: which the row's ``latency_ms.p95`` must not exceed; None for none.

    Returns:
        None where no row fits.
    """
    fitting = [
        (-row[metric], row['latency_ms']['p50'], position)
        for position, row in enumerate(rows)
        if row['latency_ms'] is not None
        and row[metric] is not None
        and (budget_ms is None or row['latency_ms']['p95'] <= budget_ms)
    ]
    return min(fitting)[2] if fitting else None


_PRECISIONS = ('bf16', 'fp16', 'fp32')


def reference(rows: Sequence[Row]) -> int | None:
    """Return the row that agreement is measured against: the most expensive, then the loosest.

    That is the highest precision, the largest network input and most proposals; among equals the
    lowest score threshold, the widest limits of area, most classes and most instances.
    """

    def rank(position: int) -> tuple[float, ...]:
        e = rows[position]['effective']
        # A short side of 0 keeps the image's size.
        return (
            _PRECISIONS.index(e['precision']) if e['precision'] in _PRECISIONS else -1,
            e['short_side'] or float('inf'),
            e['long_side'],
            e['proposals'],
            -e['score_threshold'],
            -e['min_mask_area'],
            e['max_mask_area'] or float('inf'),
            len(e['classes']),
            e['max_instances'],
            -position,
        )

    usable = [position for position, row in enumerate(rows) if row['failed'] is None]
    return max(usable, key=rank, default=None)
