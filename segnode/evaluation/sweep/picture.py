# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The Pareto picture: what a row is worth against the time it takes, as SVG for light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from xml.sax.saxutils import escape

from segnode.evaluation.sweep.grid import short_name, shown

WIDTH: Final = 760
HEIGHT: Final = 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 56, 52
# A budget of so many times the slowest row is told and not drawn.
_FAR = 2.0
# More labels than these hide each other: then the front alone has some.
_MOST_LABELS = 30
_LINE = 13  # px, of a label
_CHARACTER = 6.2  # px, about

_STYLE = """\
svg { --ink: #1c2330; --faint: #6a7485; --grid: #e3e7ee; --paper: #ffffff; --front: #0b6bcb;
  --best: #c2410c; background: var(--paper); font: 11px system-ui, sans-serif }
@media (prefers-color-scheme: dark) { svg { --ink: #e7ebf2; --faint: #9aa5b8; --grid: #2c3443;
  --paper: #12161d; --front: #6bb4ff; --best: #ff9d5c } }
text { fill: var(--ink) } .faint { fill: var(--faint) } .title { font-size: 15px }
.label { paint-order: stroke; stroke: var(--paper); stroke-width: 3px }
.grid { stroke: var(--grid) } .front { stroke: var(--front); fill: none; stroke-width: 1.5 }
.budget { stroke: var(--best); stroke-dasharray: 4 4 }
circle { fill: var(--faint) } circle.on { fill: var(--front) }
circle.best { fill: var(--paper); stroke: var(--best); stroke-width: 3 }
"""


def pareto_svg(
    rows: Sequence[Mapping[str, Any]],
    metric: str,
    *,
    name: str,
    front: Sequence[int],
    recommended: int | None = None,
    budget_ms: float | None = None,
    title: str = '',
) -> str:
    """Return the picture.

    Args:
        rows: with ``settings``, ``latency_ms`` and the metric; those that lack one are left out.
        metric: key of the value, of which more is better.
        name: of the metric, for people.
        front: positions of the rows that none beats, the fastest first.
        recommended: position of the row to take.
        budget_ms: drawn as a line.
        title: above it, plain text.
    """
    points = {
        position: (row['latency_ms']['p50'], row[metric])
        for position, row in enumerate(rows)
        if row['latency_ms'] is not None and row[metric] is not None
    }
    varied = ' / '.join(short_name(name) for name in rows[0]['settings'])
    return '\n'.join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'role="img" aria-labelledby="t d">',
            f'<title id="t">{escape(title)}</title>',
            f'<desc id="d">{len(points)} settings by p50 latency and {escape(name)}</desc>',
            f'<style>{_STYLE}</style>',
            f'<text class="title" x="{_LEFT}" y="24">{escape(title)}</text>',
            f'<text class="faint" x="{_LEFT}" y="42">points: {escape(varied)}</text>',
            *_drawing(rows, name, points, front, recommended, budget_ms),
            '</svg>',
            '',
        )
    )


def _drawing(
    rows: Sequence[Mapping[str, Any]],
    name: str,
    points: Mapping[int, tuple[float, float]],
    front: Sequence[int],
    recommended: int | None,
    budget_ms: float | None,
) -> Iterator[str]:
    if not points:
        yield f'<text x="{_LEFT}" y="{HEIGHT // 2}">no row has both a latency and a value</text>'
        return
    xs, ys = ([point[axis] for point in points.values()] for axis in (0, 1))
    # One that is far away would push the points together.
    near = budget_ms is not None and budget_ms <= _FAR * max(xs)
    x_ticks, y_ticks = _ticks([*xs, budget_ms] if near and budget_ms else xs), _ticks(ys)
    x_axis = _scale(x_ticks, _LEFT, WIDTH - _RIGHT)
    y_axis = _scale(y_ticks, HEIGHT - _BOTTOM, _TOP)
    yield from _axes(x_ticks, y_ticks, x_axis, y_axis, name)
    if budget_ms is not None and not near:
        yield f'<text class="faint" x="{WIDTH - _RIGHT}" y="{_TOP - 4}" text-anchor="end">'
        yield f'the budget of {budget_ms:g} ms lies far to the right</text>'
    elif budget_ms is not None:
        at = _px(x_axis(budget_ms))
        yield f'<line class="budget" x1="{at}" x2="{at}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
        # The axis has medians, and the budget is kept by the tail.
        anchor = 'end' if x_axis(budget_ms) > WIDTH / 2 else 'start'
        yield f'<text class="faint" x="{at}" y="{_TOP - 4}" text-anchor="{anchor}">'
        yield f'budget of {budget_ms:g} ms, kept by p95</text>'
    steps = [f'M{_px(x_axis(points[front[0]][0]))} {_px(y_axis(points[front[0]][1]))}']
    for position in front[1:]:
        x, y = points[position]
        steps.append(f'H{_px(x_axis(x))}V{_px(y_axis(y))}')
    yield f'<path class="front" d="{"".join(steps)}"/>'
    # Left, right and base of what a label must not cover: the points, and other labels.
    taken = [(x_axis(x) - 5, x_axis(x) + 5, y_axis(y) + 4) for x, y in points.values()]
    labelled = points if len(points) <= _MOST_LABELS else set(front)
    # The front first, as its labels have the first choice of places.
    for position in sorted(points, key=lambda p: (p != recommended, p not in front, p)):
        (value_x, value_y), settings = points[position], rows[position]['settings']
        x, y = x_axis(value_x), y_axis(value_y)
        kind = 'best' if position == recommended else 'on' if position in front else ''
        values = ', '.join(f'{key} {shown(value)}' for key, value in settings.items())
        yield (
            f'<circle class="{kind}" cx="{_px(x)}" cy="{_px(y)}" r="5">'
            f'<title>{escape(values)}: {value_x:.2f} ms, {value_y:.3f}</title></circle>'
        )
        if position in labelled:
            text = ' / '.join(shown(value) for value in settings.values())
            yield _label(text, x, y, taken, faint=position not in front)


def _axes(
    x_ticks: Sequence[float], y_ticks: Sequence[float], x_axis: Any, y_axis: Any, name: str
) -> Iterator[str]:
    bottom = HEIGHT - _BOTTOM
    for tick in x_ticks:
        x = _px(x_axis(tick))
        yield f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP}" y2="{bottom}"/>'
        yield f'<text class="faint" x="{x}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>'
    for tick in y_ticks:
        y = _px(y_axis(tick))
        yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
        yield (
            f'<text class="faint" x="{_LEFT - 8}" y="{y}" dy="4" text-anchor="end">{tick:g}</text>'
        )
    middle = (_LEFT + WIDTH - _RIGHT) // 2
    yield f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle">latency p50, ms</text>'
    yield (
        f'<text transform="translate(16 {(_TOP + bottom) // 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(name)}</text>'
    )


def _label(
    text: str, x: float, y: float, taken: list[tuple[float, float, float]], *, faint: bool
) -> str:
    """Return a label above or below its point, the nearest place that nothing else has."""
    width = _CHARACTER * len(text)
    left = min(max(x - width / 2, _LEFT + 2), WIDTH - _RIGHT - width)
    places = [place for k in range(9) for place in (y - 9 - k * _LINE, y + 18 + k * _LINE)]

    def free(base: float) -> bool:
        return _TOP <= base <= HEIGHT - _BOTTOM and all(
            abs(base - other) >= _LINE or left + width < start or left > end
            for start, end, other in taken
        )

    base = next(filter(free, places), places[0])
    taken.append((left, left + width, base))
    kind = 'label faint' if faint else 'label'
    return f'<text class="{kind}" x="{_px(left)}" y="{_px(base)}">{escape(text)}</text>'


def _ticks(values: Sequence[float]) -> list[float]:
    """Return about six round numbers around some values."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.floor((low - 0.05 * span) / step)
    last = math.ceil((high + 0.05 * span) / step)
    # No latency and no score is negative.
    return [round(k * step, 12) for k in range(max(first, 0), last + 1)]


def _scale(ticks: Sequence[float], first: float, last: float) -> Any:
    low, high = ticks[0], ticks[-1]
    return lambda value: first + (value - low) / (high - low) * (last - first)


def _px(value: float) -> str:
    return f'{value:.1f}'
