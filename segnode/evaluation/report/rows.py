# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Rows of a chart that has names, and no axis, at its left."""

from __future__ import annotations

from collections.abc import Sequence

from segnode.evaluation.report.axes import Axis
from segnode.evaluation.report.charts import percent, text_at
from segnode.evaluation.report.markup import Html, element, join

_LONGEST_NAME = 14
_CHARACTER = 3.0  # percent of the width that one takes in a narrow chart


def bar_row(
    row: int, rows: int, name: str, ends: tuple[float, float], text: str, x: Axis, colour: str
) -> Html:
    """Return a row with a bar between two values, and a text beside it where there is room.

    Args:
        row: its position from the top.
        rows: how many there are.
        name: stands left of it.
        ends: of the bar.
        text: stands after the bar, else before it, else in it.
        x: their axis.
        colour: class of its colour.
    """
    left, right = (x.percent(value) for value in ends)
    middle = percent(100 * (row + 0.5) / rows)
    room = _CHARACTER * (len(text) + 1)
    if right + room <= 100:
        place = (right, '0.5em', 'strong')
    elif left >= room:
        place = (left, '-0.5em', 'end strong')
    else:
        place = (right, '-0.5em', 'end within' if right - left >= room else 'end strong')
    at, shift, class_ = place
    return join(
        (
            text_at('0', middle, _row_name(name), dx='-0.6em', dy='0.35em', class_='end'),
            element(
                'rect',
                x=percent(left),
                y=percent(100 * (row + 0.5) / rows - 33 / rows),
                width=percent(max(0.3, right - left)),
                height=percent(66 / rows),
                class_=f'fill {colour}',
            ),
            text_at(percent(at), middle, text, dx=shift, dy='0.35em', class_=class_),
        )
    )


def _row_name(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f'{name[: _LONGEST_NAME - 1]}…'


def box_row(row: int, rows: int, name: str, values: Sequence[float], x: Axis, colour: str) -> Html:
    """Return a row of a chart of distributions.

    Args:
        row: its position from the top.
        rows: how many there are.
        name: stands left of it.
        values: percentiles 5, 25, 50, 75 and 95, and the maximum.
        x: their axis.
        colour: class of its colour.
    """
    middle, half = 100 * (row + 0.5) / rows, 28 / rows
    p5, p25, p50, p75, p95, most = (x.percent(value) for value in values)
    at, top, bottom = percent(middle), percent(middle - half), percent(middle + half)
    return join(
        (
            text_at('0', at, _row_name(name), dx='-0.6em', dy='0.35em', class_='end'),
            element('line', x1=percent(p5), x2=percent(p95), y1=at, y2=at, class_='whisker'),
            element(
                'rect',
                x=percent(p25),
                y=top,
                width=percent(max(0.3, p75 - p25)),
                height=percent(2 * half),
                class_=f'fill {colour}',
            ),
            element('line', x1=percent(p50), x2=percent(p50), y1=top, y2=bottom, class_='median'),
            element('circle', cx=percent(most), cy=at, r=3, class_=f'fill {colour}'),
        )
    )
