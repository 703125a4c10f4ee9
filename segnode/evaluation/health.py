# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Which time of a frame counts, and how healthy the recording is.

The clock policy: the header's stamp counts where it is one; a frame whose stamp is zero, or whose
header cannot be read, has the time at which it was recorded. Frames stay in the order in which
they were recorded whatever their stamps say; stamps that repeat or go back are reported.
"""

from __future__ import annotations

import array
from collections import Counter
from typing import Any

import numpy as np

from segnode.evaluation.frames import FrameRow
from segnode.percentiles import Percentiles

# An interval is a gap where it is longer than so many usual ones, and than this.
GAP_INTERVALS = 2.5
SHORTEST_GAP_S = 0.01
# So many gaps are told one by one, the longest; all are counted.
GAPS_TOLD = 50
BINS = 40
# What lies beyond stands in the outermost bins: one stamp of another clock hides all others.
_SHOWN_PERCENTS = (0.5, 99.5)


def time_of(stamp_ns: int, log_ns: int) -> tuple[int, str]:
    """Return the time of a frame that counts, and which it is: ``stamp`` or ``log``."""
    return (stamp_ns, 'stamp') if stamp_ns else (log_ns, 'log')


class TopicHealth:
    """What was seen of one topic; of each frame it keeps two numbers."""

    def __init__(self) -> None:
        """Start without frames."""
        self._times_ns = array.array('q')
        self._delays_ms = array.array('d')
        self._clocks: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()
        self._duplicates = self._backward = 0
        # Positions of frames before which another bag ends: that is no interval.
        self._begins = array.array('q')
        self._bag: int | None = None

    def add(self, row: FrameRow) -> None:
        """Take a frame, in the order of the recording."""
        if self._bag != row.bag:
            self._bag = row.bag
            self._begins.append(len(self._times_ns))
        else:
            self._duplicates += row.time_ns == self._times_ns[-1]
            self._backward += row.time_ns < self._times_ns[-1]
        self._times_ns.append(row.time_ns)
        self._clocks[row.clock] += 1
        if row.clock == 'stamp':
            self._delays_ms.append((row.log_ns - row.stamp_ns) / 1e6)

    def add_size(self, row: FrameRow) -> None:
        """Take the size of a frame that was decoded."""
        self._sizes[f'{row.width}x{row.height}'] += 1

    def summary(self) -> dict[str, Any]:
        """Return rate, clocks, gaps, delays between stamp and recording, and sizes."""
        times_ns = np.frombuffer(self._times_ns, np.int64)
        intervals_ns = np.diff(times_ns)
        intervals_ns[[begin - 1 for begin in self._begins if begin]] = 0
        # A bag that was looped or joined goes back once: that is no interval.
        forward_ns = intervals_ns[intervals_ns > 0]
        usual_ns = int(np.median(forward_ns)) if len(forward_ns) else 0
        limit_ns = max(GAP_INTERVALS * usual_ns, SHORTEST_GAP_S * 1e9)
        gaps = np.flatnonzero(intervals_ns > limit_ns) if usual_ns else np.array([], np.int64)
        told = np.sort(gaps[np.argsort(-intervals_ns[gaps], kind='stable')[:GAPS_TOLD]])
        return {
            'frames': len(times_ns),
            'rate_hz': 1e9 / usual_ns if usual_ns else None,
            'first_ns': int(times_ns.min()) if len(times_ns) else None,
            'last_ns': int(times_ns.max()) if len(times_ns) else None,
            'clock': {clock: self._clocks[clock] for clock in ('stamp', 'log')},
            'duplicates': int(self._duplicates),
            'backward': int(self._backward),
            'gap_count': len(gaps),
            'gaps': [
                {'at_ns': int(times_ns[i]), 'seconds': float(intervals_ns[i] / 1e9)} for i in told
            ],
            'delay_ms': self._delays(),
            'sizes': dict(self._sizes.most_common()),
        }

    def _delays(self) -> dict[str, Any] | None:
        if not self._delays_ms:
            return None
        delays_ms = np.frombuffer(self._delays_ms, np.float64)
        found = Percentiles.interpolated(delays_ms.tolist())
        # Of another clock they are years, of which the bins have to tell milliseconds.
        beside_ms = delays_ms - found.p50
        low, high = np.percentile(beside_ms, _SHOWN_PERCENTS)
        # Equal delays are one bar, and still have a width.
        high = max(high, low + 1e-3)
        counts, edges = np.histogram(beside_ms.clip(low, high), bins=BINS, range=(low, high))
        return {
            'p50': found.p50,
            'p95': found.p95,
            'max': found.max,
            'histogram': {'edges': (edges + found.p50).tolist(), 'counts': counts.tolist()},
        }
