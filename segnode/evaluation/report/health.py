# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Health of the bag: rates, gaps, clocks, delays, damage, and what was skipped and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from segnode.evaluation.frames import PROCESSED, FrameRow
from segnode.evaluation.report.axes import linear_axis
from segnode.evaluation.report.charts import bars, chart, legend, stack
from segnode.evaluation.report.intervals import Intervals
from segnode.evaluation.report.markup import (
    Html,
    count,
    duration,
    element,
    figure,
    join,
    missing,
    moment,
    number,
    section,
    share,
    table,
)
from segnode.evaluation.report.run_files import Entry
from segnode.evaluation.report.timeline import Timeline

_MEANS = {
    'decode': 'the message holds no usable image',
    'error': 'the engine failed on it',
    'every': 'left out by --every',
    'range': 'outside of --start and --end',
}
_COLOURS = {PROCESSED: 'c0', 'decode': 'c1', 'error': 'c6', 'every': 'c8', 'range': 'c4'}
_EXAMPLES = 3
_MOST_TEXTS = 1000
_HISTOGRAMS = 4
_GAPS_SHOWN = 8


class Health:
    """Counts the frames by what became of them."""

    def __init__(self, summary: Mapping[str, Any], timeline: Timeline) -> None:
        self._summary = summary
        self._timeline = timeline
        self._intervals = Intervals(timeline)
        self._statuses: list[Counter[str]] = [Counter() for _ in range(timeline.bins)]
        self._examples: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, row: FrameRow, entries: Sequence[Entry]) -> None:
        """Count a frame."""
        self._intervals.add(row, entries)
        self._statuses[self._timeline.bin(row)][row.status] += 1
        texts = self._examples[row.status]
        # Texts that name a place or a number are all different: so many are counted at most.
        if not row.processed and (row.reason in texts or len(texts) < _MOST_TEXTS):
            texts[row.reason] += 1

    def html(self) -> Html:
        """Return the section."""
        return section(
            'health',
            'Health of the bag',
            self._topics(),
            element('div', *self._figures(), class_='figures'),
            self._gaps(),
            element('h3', 'Skipped frames'),
            self._skipped(),
            element('h3', 'What the bags hold'),
            self._bags(),
            self._damage(),
        )

    def _topics(self) -> Html:
        health = self._summary.get('health') or {}
        if not health:
            return missing('No image was found on any topic.')
        head = (
            'topic', 'frames', 'rate [Hz]', 'from', 'lasts', 'clock', 'gaps', 'duplicate',
            'backward', 'delay [ms]', 'size',
        )  # fmt: skip
        rows = []
        for topic, found in health.items():
            gaps, delay = found.get('gaps') or [], found.get('delay_ms') or {}
            longest = max((gap['seconds'] for gap in gaps), default=0.0)
            first_ns, last_ns = found.get('first_ns'), found.get('last_ns')
            lasts = None not in (first_ns, last_ns)
            rows.append(
                (
                    topic,
                    count(found.get('frames')),
                    number(found.get('rate_hz')),
                    moment(first_ns),
                    duration((last_ns - first_ns) / 1e9) if lasts else '–',
                    _clock(found.get('clock') or {}),
                    f'{count(len(gaps))}, up to {duration(longest)}' if gaps else '0',
                    count(found.get('duplicates')),
                    count(found.get('backward')),
                    ', '.join(number(delay.get(key)) for key in ('p50', 'p95', 'max')),
                    ', '.join(size.replace('x', '×') for size in found.get('sizes') or ()),
                )
            )
        note = (
            'Times are those of the clock that counts: the stamp of the header, or the time of '
            'recording where the stamp is zero; dates are UTC. The delay (p50, p95, maximum) is '
            'from the stamp to the recording.'
        )
        return join((table(head, rows), element('p', note, class_='note')))

    def _figures(self) -> list[Html]:
        delays = self._delays()
        # Two in a line: the first takes a whole one where another would be left alone.
        if sum((self._summary.get('skipped') or {}).values()):
            first = self._frames(wide=len(delays) % 2 == 1)
            return [first, self._intervals.html(wide=False), *delays]
        return [self._intervals.html(wide=len(delays) % 2 == 0), *delays]

    def _frames(self, *, wide: bool) -> Html:
        names = [
            status
            for status in (PROCESSED, *_MEANS)
            if any(counts[status] for counts in self._statuses)
        ]
        if not names:
            return missing('There is no frame to show over time.')
        series = {name: [float(counts[name]) for counts in self._statuses] for name in names}
        highest = max(sum(counts.values()) for counts in self._statuses)
        y = linear_axis(highest, 'frames', whole=True)
        colours = [_COLOURS[name] for name in names]
        drawing = chart(
            'Frames by what became of them',
            'Stacked counts of frames in the order of the run.',
            self._timeline.axis(),
            y,
            stack(series, y, colours),
        )
        caption = 'What became of the frames, in the order in which they were replayed.'
        return figure(
            join((legend(zip(colours, names, strict=True)), drawing)), caption, wide=wide
        )

    def _delays(self) -> list[Html]:
        drawings = []
        for topic, found in list((self._summary.get('health') or {}).items()):
            histogram = (found.get('delay_ms') or {}).get('histogram') or {}
            edges, counts = histogram.get('edges') or [], histogram.get('counts') or []
            if not any(counts) or len(edges) != len(counts) + 1:
                continue
            x = linear_axis(edges[-1], 'delay from stamp to recording [ms]', lowest=edges[0])
            y = linear_axis(max(counts), 'frames', whole=True)
            drawing = chart(
                f'Delay of {topic}',
                'Histogram of the time from the stamp to the recording.',
                x,
                y,
                bars(edges, counts, x, y),
            )
            drawings.append(figure(drawing, f'Delay of the messages of {topic}.'))
        if not drawings:
            return [missing('No delays: no message has both a stamp and a time of recording.')]
        return drawings[:_HISTOGRAMS]

    def _gaps(self) -> Html | None:
        gaps = sorted(
            (
                (gap['seconds'], gap['at_ns'], topic)
                for topic, found in (self._summary.get('health') or {}).items()
                for gap in found.get('gaps') or ()
            ),
            reverse=True,
        )
        if not gaps:
            return element('p', 'No topic has a gap.', class_='note')
        rows = [(topic, moment(at), duration(length)) for length, at, topic in gaps[:_GAPS_SHOWN]]
        title = f'The longest of {count(len(gaps))} gaps' if len(gaps) > _GAPS_SHOWN else 'Gaps'
        return join((element('h3', title), table(('topic', 'begins', 'lasts'), rows)))

    def _skipped(self) -> Html:
        skipped = {name: n for name, n in (self._summary.get('skipped') or {}).items() if n}
        if not skipped:
            return missing('None: every frame was processed.')
        rows = []
        for reason, number_of in skipped.items():
            texts = [
                f'{text} ({count(times)}×)'
                for text, times in self._examples[reason].most_common(_EXAMPLES)
                if text
            ]
            of_all = share(number_of / max(1, self._summary['frames']))
            examples = join(element('div', text) for text in texts) if texts else '–'
            rows.append((reason, _MEANS.get(reason, ''), examples, count(number_of), of_all))
        return table(('reason', 'means', 'for example', 'frames', 'share'), rows, texts=3)

    def _bags(self) -> Html:
        rows = [
            (bag['path'], topic['name'], topic['type'], count(topic.get('messages')))
            for bag in self._summary.get('bags') or ()
            for topic in bag.get('topics') or ()
        ]
        if not rows:
            return missing('No topic was found.')
        return table(('bag', 'topic', 'type', 'messages'), rows, texts=3)

    def _damage(self) -> Html:
        items: list[Html] = []
        for bag in self._summary.get('bags') or ():
            damage = bag.get('damage') or {}
            texts = list(damage.get('remarks') or ())
            if damage.get('unreadable_bytes'):
                texts.append(f'{count(damage["unreadable_bytes"])} bytes could not be read')
            texts += [
                f'{count(times)} messages could not be read: {reason}'
                for reason, times in (damage.get('skipped') or {}).items()
            ]
            if texts and damage.get('last_ns') is not None:
                texts.append(f'the last message read was recorded at {moment(damage["last_ns"])}')
            items += [element('li', element('b', bag['path']), ': ', text) for text in texts]
        if not items:
            return element('p', 'No damage was found.', class_='note')
        return join((element('h3', 'Damage and remarks'), element('ul', *items, class_='damage')))


def _clock(clocks: Mapping[str, int]) -> str:
    used = {name: times for name, times in clocks.items() if times}
    if len(used) == 1:
        return next(iter(used))
    return ', '.join(f'{name} {count(times)}' for name, times in used.items()) or '–'
