# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""HTML in which no text out of a bag can be anything but text, and figures as people write them.

What is `Html` was made here; every other text is escaped where it enters an element.
"""

from __future__ import annotations

import datetime
import html
import math
from collections.abc import Iterable, Sequence

LONGEST = 2000
"""Characters shown of one text; what is longer ends in an ellipsis."""
LONGEST_CELL = 160
"""The same of a cell in a table."""
MOST_ROWS = 60
_LONG_VALUE = 11
_VOID = ('meta', 'img', 'br', 'rect', 'line', 'circle', 'path')
_DATES_FROM_S = 946_684_800  # 2000-01-01: smaller stamps count from a machine's start
_LAST_DATE_S = 253_402_300_799  # 9999-12-31
_SPACES = '\n\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}'


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def escape(text: object, limit: int = LONGEST) -> Html:
    """Return a text as HTML shows it: what cannot be printed as a replacement character.

    Args:
        text: of any origin.
        limit: characters shown at most.
    """
    if isinstance(text, Html):
        return text
    whole = str(text)
    cut = whole if len(whole) <= limit else f'{whole[: limit - 1]}…'
    printable = ''.join(
        c if c.isprintable() or c in _SPACES else '\N{REPLACEMENT CHARACTER}' for c in cut
    )
    return Html(html.escape(printable, quote=True))


def element(tag: str, *children: object, **attributes: object) -> Html:
    """Return an element.

    Args:
        tag: its name.
        children: `Html` as it is, anything else escaped, None left out.
        attributes: escaped; ``class_`` is ``class``, and ``stroke_width`` ``stroke-width``; one
            that is None is left out.
    """
    words = ''.join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID and not children:
        return Html(f'<{tag}{words}>' if tag in _VOID[:3] else f'<{tag}{words}/>')
    inner = ''.join(escape(child) for child in children if child is not None)
    return Html(f'<{tag}{words}>{inner}</{tag}>')


def join(parts: Iterable[Html]) -> Html:
    """Return pieces of markup one after another."""
    return Html(''.join(parts))


def section(name: str, title: str, *body: Html | None) -> Html:
    """Return a section of the page; ``name`` is its anchor."""
    return element('section', element('h2', title), *body, id=name)


def missing(why: str) -> Html:
    """Return what stands where there is nothing to show: the reason."""
    return element('p', why, class_='missing')


def figure(drawing: Html, caption: str, *, wide: bool = False) -> Html:
    """Return a drawing with its caption; a wide one takes the whole width of the page."""
    caption_html = element('figcaption', element('span', caption))
    return element('figure', drawing, caption_html, class_='wide' if wide else None)


def tile(name: str, value: str, remark: str = '') -> Html:
    """Return one main figure with its name and a remark."""
    size = 'value' if len(value) <= _LONG_VALUE else 'value long'
    return element(
        'div',
        element('div', name, class_='name'),
        element('div', escape(value, LONGEST_CELL), class_=size),
        element('div', remark, class_='remark') if remark else None,
        class_='tile',
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, texts: int = 1) -> Html:
    """Return a table that scrolls by itself where it is wider than the page.

    Args:
        head: of the columns.
        rows: cells; of more than ``MOST_ROWS`` the first, and how many are left out.
        texts: so many columns from the left hold texts, the others numbers.
    """

    def cells(tag: str, row: Sequence[object]) -> Html:
        return join(
            element(tag, escape(cell, LONGEST_CELL), class_='number' if column >= texts else None)
            for column, cell in enumerate(row)
        )

    lines = [element('tr', cells('td', row)) for row in rows[:MOST_ROWS]]
    if len(rows) > MOST_ROWS:
        rest = f'and {len(rows) - MOST_ROWS} more, which summary.json has'
        lines.append(element('tr', element('td', rest, colspan=len(head), class_='rest')))
    inner = element(
        'table', element('thead', element('tr', cells('th', head))), element('tbody', *lines)
    )
    # A box that scrolls has to be reached by keyboard as well.
    return element('div', inner, class_='scroll', tabindex=0)


def count(number: int | None) -> str:
    """Return a count with its thousands apart."""
    return '–' if number is None else f'{number:,}'.replace(',', '\N{NARROW NO-BREAK SPACE}')


def number(value: float | None, unit: str = '') -> str:
    """Return a measured value with three digits that count, and its unit."""
    if value is None or not math.isfinite(value):
        return '–'
    if value == 0 or abs(value) >= 100:
        text = count(round(value))
    else:
        decimals = min(4, 2 - math.floor(math.log10(abs(value))))
        text = f'{value:.{decimals}f}'
    return f'{text}\N{NO-BREAK SPACE}{unit}' if unit else text


def tick(value: float) -> str:
    """Return a round value of an axis, without digits that say nothing."""
    return count(round(value)) if abs(value) >= 1000 else f'{value:.6g}'


def share(value: float | None) -> str:
    """Return a share of 1 in percent."""
    return '–' if value is None else f'{value * 100:.1f}\N{NO-BREAK SPACE}%'


def precision(value: float | None) -> str:
    """Return an average precision, a number from 0 to 1, with three decimals."""
    return '–' if value is None else f'{value:.3f}'


def duration(seconds: float) -> str:
    """Return a time span in the unit that suits it."""
    for size, unit in ((86_400, 'd'), (3600, 'h'), (60, 'min')):
        if abs(seconds) >= 2 * size:
            return f'{seconds / size:.1f}\N{NO-BREAK SPACE}{unit}'
    return number(seconds, 's')


def moment(time_ns: int | None) -> str:
    """Return a stamp as a date of UTC, or in seconds where it is none of this millennium."""
    if time_ns is None:
        return '–'
    seconds = time_ns // 10**9
    if not _DATES_FROM_S <= seconds <= _LAST_DATE_S:
        return f'{time_ns / 1e9:.3f}\N{NO-BREAK SPACE}s'
    date = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return f'{date:%Y-%m-%d %H:%M:%S}.{time_ns % 10**9 // 10**8}'
