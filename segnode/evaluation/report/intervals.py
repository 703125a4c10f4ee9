# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Times between the frames of a topic over the run: gaps and jitter at a glance."""

from __future__ import annotations

from collections.abc import Sequence

from segnode.evaluation.frames import FrameRow
from segnode.evaluation.report.axes import log_axis
from segnode.evaluation.report.charts import chart, legend, steps
from segnode.evaluation.report.markup import Html, figure, join, missing
from segnode.evaluation.report.run_files import Entry
from segnode.evaluation.report.timeline import Timeline

MOST_TOPICS = 6


class Intervals:
    """Keeps the longest interval of every part of the run, for the first few topics."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._last: dict[str, FrameRow] = {}
        self._longest_ms: dict[str, list[float | None]] = {}

    def add(self, row: FrameRow, entries: Sequence[Entry]) -> None:
        """Take a frame, processed or not."""
        if row.topic not in self._longest_ms and len(self._longest_ms) == MOST_TOPICS:
            return
        longest = self._longest_ms.setdefault(row.topic, [None] * self._timeline.bins)
        last = self._last.get(row.topic)
        self._last[row.topic] = row
        if last is None or (last.bag, last.clock) != (row.bag, row.clock):
            return
        interval_ms = (row.time_ns - last.time_ns) / 1e6
        # Duplicates and steps backward are counted by themselves.
        if interval_ms > 0:
            at = self._timeline.bin(row)
            longest[at] = max(longest[at] or 0.0, interval_ms)

    def html(self, *, wide: bool) -> Html:
        """Return the figure."""
        found = [ms for values in self._longest_ms.values() for ms in values if ms is not None]
        if not found:
            return missing('No intervals: no topic has two frames, one after the other.')
        y = log_axis(max(min(found), 1e-3), max(found), 'ms, logarithmic')
        names = [(f'c{k}', topic) for k, topic in enumerate(self._longest_ms)]
        drawing = chart(
            'Time between frames',
            'The longest interval between two frames of a topic, over the run.',
            self._timeline.axis(),
            y,
            *(steps(values, y, f'c{k}') for k, values in enumerate(self._longest_ms.values())),
        )
        caption = (
            'Time from one frame of a topic to its next: the longest in each part of the run. '
            'What stands out is a gap.'
        )
        return figure(join((legend(names), drawing)), caption, wide=wide)
