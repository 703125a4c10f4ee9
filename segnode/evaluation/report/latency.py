# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Latency by stage: over the run, and as distributions."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segnode.evaluation.frames import FrameRow
from segnode.evaluation.report.axes import linear_axis, log_axis
from segnode.evaluation.report.charts import (
    COLOURS,
    bars,
    chart,
    legend,
    marker,
    stack,
    steps,
)
from segnode.evaluation.report.markup import (
    Html,
    element,
    figure,
    join,
    missing,
    number,
    section,
    table,
)
from segnode.evaluation.report.rows import box_row
from segnode.evaluation.report.run_files import Entry
from segnode.evaluation.report.samples import Sample
from segnode.evaluation.report.timeline import Timeline
from segnode.percentiles import percentiles

TOTAL = 'total'
_HISTOGRAM_BINS = 40


class Latency:
    """Gathers the stages' times."""

    def __init__(self, summary: Mapping[str, Any], timeline: Timeline) -> None:
        self._summary = summary
        self._timeline = timeline
        self._samples: dict[str, Sample] = defaultdict(Sample)
        self._maxima: dict[str, float] = defaultdict(float)
        self._bin: dict[str, list[float]] = defaultdict(list)
        self._bin_at = 0
        # Of every bin the stages' medians, and the highest total.
        self._medians: list[dict[str, float]] = [{} for _ in range(timeline.bins)]
        self._highest: list[float | None] = [None] * timeline.bins

    def add(self, row: FrameRow, entries: Sequence[Entry]) -> None:
        """Take a frame's times."""
        if not row.stage_ms:
            return
        if self._timeline.bin(row) != self._bin_at:
            self._close_bin()
            self._bin_at = self._timeline.bin(row)
        for name, ms in (*row.stage_ms.items(), (TOTAL, row.total_ms)):
            self._samples[name].add(ms)
            self._maxima[name] = max(self._maxima[name], ms)
            self._bin[name].append(ms)

    def _close_bin(self) -> None:
        if self._bin:
            self._highest[self._bin_at] = max(self._bin.pop(TOTAL))
            self._medians[self._bin_at] = {
                name: statistics.median(values) for name, values in self._bin.items()
            }
            self._bin.clear()

    def html(self) -> Html:
        """Return the section, to be called when all frames were added."""
        self._close_bin()
        if not self._samples:
            why = 'There are no times: no frame was processed.'
            return section('latency', 'Latency', missing(why))
        return section(
            'latency',
            'Latency by stage',
            element(
                'div',
                self._over_time(),
                self._distributions(),
                self._totals(),
                class_='figures',
            ),
            self._table(),
        )

    def _colour(self, name: str) -> str:
        names = list(self._samples)
        return f'c{min(COLOURS - 1, names.index(name))}'

    def _stages(self) -> list[str]:
        return [name for name in self._samples if name != TOTAL]

    def _over_time(self) -> Html:
        stages = self._stages()
        shown = stages if len(stages) <= COLOURS else stages[: COLOURS - 1]
        series: dict[str, list[float | None]] = {
            name: [bin_.get(name, 0.0) if bin_ else None for bin_ in self._medians]
            for name in shown
        }
        if len(shown) < len(stages):
            series['other'] = [
                sum(bin_.get(name, 0.0) for name in stages[COLOURS - 1 :]) if bin_ else None
                for bin_ in self._medians
            ]
        # One frame that took a hundred times as long must not flatten all others.
        highest = [value for value in self._highest if value is not None]
        sums = [sum(bin_.values()) for bin_ in self._medians if bin_]
        top = min(max(highest), 2.5 * percentiles(sums, 95)[0])
        y = linear_axis(top, 'ms')
        names = [(f'c{k}', name) for k, name in enumerate(series)]
        marks = [stack(series, y)]
        caption = 'Median of every stage, on top of each other'
        together = -(-self._timeline.frames // self._timeline.bins)
        if together > 1:
            marks.append(steps(self._highest, y, 'thin'))
            names.append(('line', 'slowest frame'))
            caption += f' for every {together} frames; the line is the slowest of them'
        if max(highest) > y.high:
            caption += '; what is higher than the chart is cut'
        drawing = chart(
            'Latency by stage over the run',
            'Stacked medians of the stages, and the slowest frame of each part of the run.',
            self._timeline.axis(),
            y,
            *marks,
        )
        return figure(join((legend(names), drawing)), f'{caption}.', wide=True)

    def _distributions(self) -> Html:
        names = [*self._stages()[: COLOURS + 3], TOTAL]
        boxes = {
            name: (*percentiles(self._samples[name].values, 5, 25, 50, 75, 95), self._maxima[name])
            for name in names
        }
        # A stage that took no measurable time has no place on a logarithmic axis.
        lowest = max(0.01, min(box[0] for box in boxes.values()))
        x = log_axis(lowest, max(0.1, *self._maxima.values()), 'ms, logarithmic')
        rows = [
            box_row(
                row,
                len(names),
                name,
                boxes[name],
                x,
                'total' if name == TOTAL else self._colour(name),
            )
            for row, name in enumerate(names)
        ]
        drawing = chart(
            'Distribution of the latency of every stage',
            'A row for each stage with its percentiles.',
            x,
            None,
            *rows,
        )
        caption = (
            'Box: the middle half of the frames, with the median; line: percentiles 5 to 95; dot: '
            'the slowest frame.'
        )
        return figure(drawing, caption)

    def _totals(self) -> Html:
        values = self._samples[TOTAL].values
        p50, p95, p99 = percentiles(values, 50, 95, 99)
        x = linear_axis(max(p99 * 1.1, p95 * 1.2, 1e-3), 'total [ms]')
        counts, edges = np.histogram(
            np.clip(values, x.low, x.high), _HISTOGRAM_BINS, (x.low, x.high)
        )
        y = linear_axis(float(counts.max()), 'frames', whole=True)
        drawing = chart(
            'Histogram of the total latency',
            'How many frames took how long in all stages together.',
            x,
            y,
            bars(edges.tolist(), counts.tolist(), x, y),
            marker(p50, f'p50 {number(p50)}', x),
            marker(p95, f'p95 {number(p95)}', x, line=1),
        )
        caption = 'All stages together; the last bar holds all that took longer.'
        return figure(drawing, caption)

    def _table(self) -> Html:
        stages = dict(self._summary.get('stage_ms') or {})
        if self._summary.get('total_ms'):
            stages[TOTAL] = self._summary['total_ms']
        rows = [
            (name, *(number(ms.get(key)) for key in ('p50', 'p95', 'max')))
            for name, ms in stages.items()
        ]
        return table(('stage', 'p50 [ms]', 'p95 [ms]', 'max [ms]'), rows)
