# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Whether label images are begun before the host knows how many masks a frame needs.

A device that has found a frame's detections waits until the host has read the packet, picked a
capacity and launched ``label``. Launched behind ``detect`` for the capacity that the frame before
needed, ``label`` begins at once. Where that was the wrong one, its time is lost, and the right one
is launched after all.

What it saves hangs on the host, what it costs on the network, and how often it is wrong on what
the camera sees. So frames are timed with it and without, in turns, and the faster way is taken.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import Final

# Frames that a decision takes, and frames for which it stands: of all, too few go the slower way
# to be seen in the 99th percentile.
TIMED: Final = 64
STANDS: Final = 8000
# Share of a frame's time that the other way has to save.
WORTH: Final = 0.002


class Speculation:
    """One path's guesses, and whether guessing pays; for one thread.

    Only the very capacity that a frame needs is a right guess. A larger one holds its masks as
    well, but convolutions of another size may round otherwise, and an answer must not hang on the
    frame before.

    Attributes:
        pays: what was decided last; what was not decided yet does not.
    """

    def __init__(self) -> None:
        """Begin to measure."""
        self.pays = False
        self._capacity = 0
        self._guessed = False
        self._standing = 0
        self._timed = 0
        # Of frames with a guess and without, by whether it was right, or would have been.
        self._took_ms: dict[tuple[bool, bool], list[float]] = defaultdict(list)
        self._said = 'being measured'

    def guess(self) -> int:
        """Return the capacity to launch now; 0 for none, as always behind an empty frame."""
        self._guessed = bool(self._capacity) and self.wanted()
        return self._capacity if self._guessed else 0

    def wanted(self) -> bool:
        """Return whether a capacity that is likely is to be launched."""
        if self._standing:
            return self.pays
        # The other way round in the second half: cameras that take turns get as many of either.
        return bool((self._timed + self._timed * 2 // TIMED) % 2)

    def note(self, capacity: int, took_ms: Callable[[], float]) -> None:
        """Note what became of a frame.

        Args:
            capacity: that it needed; 0 for none, or for more than one.
            took_ms: gives its time on the device's timeline, from upload to answer.
        """
        before, self._capacity = self._capacity, capacity
        if not before:
            return
        if self._standing:
            self._standing -= 1
            return
        self._took_ms[self._guessed, capacity == before].append(took_ms())
        self._timed += 1
        if self._timed == TIMED:
            self._decide()

    def describe(self) -> str:
        """Say for people what is done, and what was measured."""
        return self._said

    def _decide(self) -> None:
        with_ms, without_ms = self._means_ms()
        saved_ms = without_ms - with_ms
        least_ms = WORTH * without_ms
        self.pays = saved_ms > (-least_ms if self.pays else least_ms)
        way = 'speculated' if self.pays else 'after the packet'
        timed = f'{with_ms:.2f} ms a frame speculated, {without_ms:.2f} ms not'
        self._said = f'{way} ({timed if without_ms else "no frames to compare"})'
        self._standing, self._timed = STANDS, 0
        self._took_ms.clear()

    def _means_ms(self) -> tuple[float, float]:
        """Return what a frame takes with a guess and without.

        Medians, as a frame that was disturbed says nothing. Of right and of wrong guesses apart,
        weighted by how many they are: the median of all would not see what few wrong ones cost.
        """
        with_ms = without_ms = weights = 0.0
        for right in (False, True):
            tried, plain = self._took_ms[True, right], self._took_ms[False, right]
            if tried and plain:
                weight = len(tried) + len(plain)
                with_ms += weight * statistics.median(tried)
                without_ms += weight * statistics.median(plain)
                weights += weight
        # Where either way had but one kind each, nothing can be compared.
        return (with_ms / weights, without_ms / weights) if weights else (0.0, 0.0)
