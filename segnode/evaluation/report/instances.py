# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What was found: what the filters took, classes over the run, areas, and how steady masks are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from segnode.evaluation.frames import FrameRow
from segnode.evaluation.report.axes import linear_axis, log_axis
from segnode.evaluation.report.charts import COLOURS, bars, chart, legend, marker, stack
from segnode.evaluation.report.markup import (
    Html,
    count,
    element,
    figure,
    join,
    missing,
    number,
    section,
    share,
    table,
)
from segnode.evaluation.report.rows import bar_row
from segnode.evaluation.report.run_files import Entry
from segnode.evaluation.report.settings import flat
from segnode.evaluation.report.timeline import Timeline
from segnode.evaluation.stability import SAME_MASK_IOU, StabilityMeter

OTHER = 'other classes'
_BARS_PER_DECADE = 8
_FILTERS = (
    ('filtered_class', '− by class', 'c3'),
    ('filtered_area', '− by area', 'c1'),
)


class Instances:
    """Counts the instances that were kept."""

    def __init__(self, summary: Mapping[str, Any], timeline: Timeline) -> None:
        self._summary = summary
        self._timeline = timeline
        ranked = Counter(summary.get('classes') or {}).most_common()
        names = [name for name, found in ranked if found]
        self._names = names if len(names) <= COLOURS else names[: COLOURS - 1]
        self._classes: list[Counter[str]] = [Counter() for _ in range(timeline.bins)]
        self._frames = [0] * timeline.bins
        self._areas: Counter[int] = Counter()
        self._without_area = 0

    def add(self, row: FrameRow, entries: Sequence[Entry]) -> None:
        """Take a frame's instances."""
        if not row.processed:
            return
        at = self._timeline.bin(row)
        self._frames[at] += 1
        for entry in entries:
            name = entry['category_name']
            self._classes[at][name if name in self._names else OTHER] += 1
            if entry['area'] > 0:
                self._areas[math.floor(math.log10(entry['area']) * _BARS_PER_DECADE)] += 1
            else:
                self._without_area += 1

    def html(self) -> Html:
        """Return the section, to be called when all frames were added."""
        return section(
            'instances',
            'Instances',
            element('div', self._over_time(), self._filtered(), self._area(), class_='figures'),
        )

    def _filtered(self) -> Html:
        counts = self._summary.get('counts') or {}
        detected = counts.get('detected') or 0
        if not detected:
            return missing('Nothing was detected, so nothing was filtered.')
        x = linear_axis(detected, 'instances', whole=True)
        rows, left = [('detected', (0.0, float(detected)), detected, 'c0')], float(detected)
        for key, name, colour in _FILTERS:
            taken = counts.get(key) or 0
            rows.append((name, (left - taken, left), taken, colour))
            left -= taken
        kept = counts.get('kept') or 0
        rows.append(('kept', (0.0, float(kept)), kept, 'c2'))
        drawing = chart(
            'What the filters took',
            'Instances detected, taken by each filter, and kept.',
            x,
            None,
            *(
                bar_row(k, len(rows), name, ends, f'{count(n)}, {share(n / detected)}', x, colour)
                for k, (name, ends, n, colour) in enumerate(rows)
            ),
        )
        caption = (
            'Instances above the score threshold, what the filters for class and then for mask '
            'area took of them, and what was kept.'
        )
        return figure(drawing, caption)

    def _over_time(self) -> Html:
        names = [*self._names]
        if any(counts[OTHER] for counts in self._classes):
            names.append(OTHER)
        if not names:
            return missing('No instance was kept, so there are no classes to show.')
        series = {
            name: [
                counts[name] / frames if frames else None
                for counts, frames in zip(self._classes, self._frames, strict=True)
            ]
            for name in names
        }
        highest = max(
            sum(counts.values()) / max(1, frames)
            for counts, frames in zip(self._classes, self._frames, strict=True)
        )
        y = linear_axis(highest, 'instances a frame')
        drawing = chart(
            'Instances by class over the run',
            'Stacked mean number of instances in a frame.',
            self._timeline.axis(),
            y,
            stack(series, y),
        )
        totals = self._summary.get('classes') or {}
        entries = [
            (f'c{k}', f'{name} ({count(totals[name])})' if name in totals else name)
            for k, name in enumerate(names)
        ]
        caption = 'Instances kept in a frame, by class; in brackets how many in the whole run.'
        return figure(join((legend(entries), drawing)), caption, wide=True)

    def _area(self) -> Html:
        settings = flat(self._summary.get('settings') or {})
        limits = {
            name: value
            for name, key in (('min', 'filter.min_mask_area'), ('max', 'filter.max_mask_area'))
            if isinstance(value := settings.get(key), int | float) and value > 0
        }
        if not self._areas:
            return missing('No instance was kept that has a mask, so there are no areas to show.')
        first, last = min(self._areas), max(self._areas)
        edges = [10 ** (k / _BARS_PER_DECADE) for k in range(first, last + 2)]
        ends = (edges[0], edges[-1], *limits.values())
        x = log_axis(min(ends), max(ends), 'mask area [image px], logarithmic')
        counts = [self._areas[k] for k in range(first, last + 1)]
        y = linear_axis(max(counts), 'instances', whole=True)
        drawing = chart(
            'Histogram of mask areas',
            'How many of the instances that were kept have a mask of which area.',
            x,
            y,
            bars(edges, counts, x, y),
            *(
                marker(value, f'{name} {count(round(value))}', x, line)
                for line, (name, value) in enumerate(limits.items())
            ),
        )
        drawn = (
            'the dashed lines are the limits of mask area'
            if limits
            else 'no limit of mask area was set'
        )
        empty = (
            f' {count(self._without_area)} have a mask without a pixel and are not drawn.'
            if self._without_area
            else ''
        )
        return figure(drawing, f'Areas of the masks that were kept; {drawn}.{empty}')


class Steadiness:
    """Gathers how steady the masks are from frame to frame."""

    def __init__(self) -> None:
        self._meter = StabilityMeter()

    def add(self, row: FrameRow, entries: Sequence[Entry]) -> None:
        """Take a frame's instances."""
        self._meter.add(row, entries)

    def html(self) -> Html:
        """Return the section."""
        rows = [
            (
                topic,
                count(found.pairs),
                count(found.instances),
                share(found.persistence),
                number(found.mean_iou),
                share(found.flicker),
                number(found.score_jitter),
            )
            for topic, found in self._meter.by_topic.items()
            if found.instances
        ]
        if not rows:
            why = (
                'Nothing to compare: no topic has two consecutive frames less than a second apart '
                'of which the first has an instance.'
            )
            return section('stability', 'Mask stability', missing(why))
        head = (
            'topic', 'frame pairs', 'instances', 'persist', 'mean mask IoU', 'flicker',
            'score jitter',
        )  # fmt: skip
        note = (
            'From one processed frame to the next, less than a second apart: an instance persists '
            f'where one of its class has a mask IoU of {SAME_MASK_IOU:g} or more with it; it '
            'flickers where it lives in one frame only. The jitter is the mean change of score. '
            'What really appears, leaves or moves fast counts as well.'
        )
        return section(
            'stability', 'Mask stability', table(head, rows), element('p', note, class_='note')
        )
