# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Pairs of nearest moments out of two series."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def nearest_pairs(
    first_ns: Sequence[int], second_ns: Sequence[int], window_ns: int
) -> list[tuple[int, int]]:
    """Pair moments of two series, each at most once, the nearest two that are left first.

    The nearest two of different series always lie side by side among those that are left, so
    that neither the window nor gaps cost memory.

    Args:
        first_ns: moments in any order.
        second_ns: moments in any order.
        window_ns: how far apart a pair may be.

    Returns:
        Positions in the first and in the second series, the nearest pairs first.
    """
    moments = sorted(
        [(ns, False, i) for i, ns in enumerate(first_ns)]
        + [(ns, True, i) for i, ns in enumerate(second_ns)]
    )
    before, after = list(range(-1, len(moments) - 1)), list(range(1, len(moments) + 1))
    heap: list[tuple[int, int, int]] = []

    def consider(left: int, right: int) -> None:
        if left >= 0 and right < len(moments) and moments[left][1] != moments[right][1]:
            distance = moments[right][0] - moments[left][0]
            if distance <= window_ns:
                heapq.heappush(heap, (distance, left, right))

    for left in range(len(moments) - 1):
        consider(left, left + 1)
    free = [True] * len(moments)
    pairs = []
    while heap:
        _, left, right = heapq.heappop(heap)
        if not (free[left] and free[right]):
            continue
        free[left] = free[right] = False
        one, other = sorted((left, right), key=lambda place: moments[place][1])
        pairs.append((moments[one][2], moments[other][2]))
        outer_left, outer_right = before[left], after[right]
        if outer_left >= 0:
            after[outer_left] = outer_right
        if outer_right < len(moments):
            before[outer_right] = outer_left
        consider(outer_left, outer_right)
    return pairs
