# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Charts as inline SVG.

A chart takes the width that it is given: its box is the plot, in which places are percentages, and
the texts, which keep their size, stand in the margin around it. What has to stretch, paths, is in
an inner drawing of its own units. Colours are classes, so that the style sheet decides them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from segnode.evaluation.report.axes import Axis
from segnode.evaluation.report.markup import Html, element, join

COLOURS = 9
"""Series that have a colour of their own; the last of them is that of the rest."""
ALL_COLOURS = tuple(f'c{k}' for k in range(COLOURS))
_HEIGHT = 1000


def chart(title: str, description: str, x: Axis, y: Axis | None, *marks: Html) -> Html:
    """Return a chart.

    Args:
        title: what it is, for those who do not see it.
        description: what it shows, likewise.
        x: the lower axis; a text of two lines has a line feed.
        y: the left axis; None where the marks are rows.
        marks: what is drawn in it.
    """
    grid = [
        element('line', x1=percent(at), x2=percent(at), y1='0', y2='100%', class_='grid')
        for at in (x.percent(value) for value, _ in x.ticks)
    ]
    texts = [_x_label(x.percent(value), text) for value, text in x.ticks]
    lines = 1 + max((text.count('\n') for _, text in x.ticks), default=0)
    texts.append(text_at('50%', '100%', x.label, dy=f'{1.3 + 1.2 * lines}em', class_='middle'))
    for value, text in y.ticks if y else ():
        at = percent(100 - y.percent(value)) if y else '0'
        grid.append(element('line', x1='0', x2='100%', y1=at, y2=at, class_='grid'))
        texts.append(text_at('0', at, text, dx='-0.5em', dy='0.35em', class_='end'))
    if y:
        texts.append(text_at('0', '0', y.label, dx='-2.6em', dy='-0.8em'))
    return element(
        'svg',
        element('title', title),
        element('desc', description),
        *grid,
        *marks,
        *texts,
        class_=f'plot{"" if y else " rows"}{" twice" if lines > 1 else ""}',
        role='img',
    )


def _x_label(at: float, text: str) -> Html:
    # A text at the edge of a narrow page would be cut where it is centred.
    end = 'end' if at > 97 else 'middle'
    return join(
        text_at(percent(at), '100%', line, dy=f'{1.3 + 1.2 * k}em', class_=end)
        for k, line in enumerate(text.split('\n'))
    )


def text_at(x: str, y: str, text: str, **attributes: object) -> Html:
    """Return a text at a place of a drawing, such as ``50%``."""
    return element('text', text, x=x, y=y, **attributes)


def percent(value: float) -> str:
    """Return a place in a drawing."""
    return f'{value:.2f}%'


def stack(
    series: Mapping[str, Sequence[float | None]], y: Axis, colours: Sequence[str] = ALL_COLOURS
) -> Html:
    """Return series on top of each other, in steps.

    Args:
        series: heights by name, all of one length; None where there is none, in all series at
            once.
        y: the axis of their sums.
        colours: classes of the series' colours.
    """
    tops: list[list[float | None]] = []
    for heights in series.values():
        below = tops[-1] if tops else [0.0] * len(heights)
        tops.append(
            [
                None if height is None or floor is None else floor + height
                for height, floor in zip(heights, below, strict=True)
            ]
        )
    # The highest first: each covers what is not its own of the one before.
    return join(
        _stretched(
            len(top),
            element('path', d=step_path(top, y, closed=True), class_=f'fill {colours[k]}'),
        )
        for k, top in reversed(list(enumerate(tops)))
    )


def steps(heights: Sequence[float | None], y: Axis, class_: str) -> Html:
    """Return a line in steps; it is interrupted where there is no height."""
    path = element('path', d=step_path(heights, y, closed=False), class_=f'stroke {class_}')
    return _stretched(len(heights), path)


def _stretched(width: int, *paths: Html) -> Html:
    box = f'0 0 {width} {_HEIGHT}'
    return element(
        'svg', *paths, viewBox=box, width='100%', height='100%', preserveAspectRatio='none'
    )


def step_path(heights: Sequence[float | None], y: Axis, *, closed: bool) -> Html:
    """Return the path of steps one unit wide, down to the axis where it is closed."""
    text: list[str] = []
    for left, run in _runs(heights):
        places = [round(_HEIGHT - y.percent(height) * _HEIGHT / 100) for height in run]
        text.append(f'M{left} {places[0]}')
        previous = places[0]
        for place, equal in itertools.groupby(places):
            text.append((f'v{place - previous}' if place != previous else '') + f'h{_size(equal)}')
            previous = place
        if closed:
            text.append(f'V{_HEIGHT}H{left}z')
    return Html(''.join(text))


def _size(items: Iterable[object]) -> int:
    return sum(1 for _ in items)


def _runs(heights: Sequence[float | None]) -> Iterator[tuple[int, list[float]]]:
    """Yield where a run of heights begins, and its heights."""
    start = 0
    for absent, group in itertools.groupby(heights, lambda height: height is None):
        run = list(group)
        if not absent:
            yield start, [height for height in run if height is not None]
        start += len(run)


def curve(points: Sequence[tuple[float, float]], x: Axis, y: Axis, class_: str) -> Html:
    """Return a line through points."""
    places = Html(
        ' '.join(
            f'{x.percent(a) * 10:.0f},{_HEIGHT - y.percent(b) * _HEIGHT / 100:.0f}'
            for a, b in points
        )
    )
    return _stretched(1000, element('path', d=Html(f'M{places}'), class_=f'stroke {class_}'))


def bars(edges: Sequence[float], counts: Sequence[float], x: Axis, y: Axis) -> Html:
    """Return a histogram; ``edges`` has one value more than ``counts``."""
    return join(
        _bar(x.percent(left), x.percent(right), y.percent(height))
        for left, right, height in zip(edges, edges[1:], counts, strict=False)
        if height
    )


def _bar(left: float, right: float, height: float) -> Html:
    return element(
        'rect',
        x=percent(left),
        y=percent(100 - height),
        width=percent(max(0.15, right - left - 0.15)),
        height=percent(height),
        class_='fill c0',
    )


def marker(value: float, text: str, x: Axis, line: int = 0) -> Html:
    """Return an upright line at a value with a text, ``line`` lines below the top."""
    at = x.percent(value)
    side: dict[str, object] = (
        {'dx': '-0.4em', 'class_': 'end strong'}
        if at > 60
        else {'dx': '0.4em', 'class_': 'strong'}
    )
    return join(
        (
            element('line', x1=percent(at), x2=percent(at), y1='0', y2='100%', class_='mark'),
            text_at(percent(at), '0', text, dy=f'{1.1 + 1.2 * line}em', **side),
        )
    )


def legend(entries: Iterable[tuple[str, str]]) -> Html:
    """Return what the colours stand for: class of the colour and name."""
    items = [
        element('li', element('span', class_=f'swatch {colour}'), element('span', name))
        for colour, name in entries
    ]
    return element('ul', *items, class_='legend')
