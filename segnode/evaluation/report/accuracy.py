# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Accuracy against ground truth: precision and recall, AP by class and size, confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segnode.evaluation.report.axes import Axis
from segnode.evaluation.report.charts import chart, curve, legend
from segnode.evaluation.report.markup import (
    Html,
    count,
    element,
    figure,
    join,
    missing,
    number,
    precision,
    section,
    share,
    table,
    tile,
)
from segnode.evaluation.report.rows import bar_row

MOST_CLASSES = 12
_CURVES = (
    ('mask', 'iou50', 'masks, IoU 0.50', 'c0'),
    ('mask', 'iou75', 'masks, IoU 0.75', 'c5'),
    ('box', 'iou50', 'boxes, IoU 0.50', 'c1'),
    ('box', 'iou75', 'boxes, IoU 0.75', 'c4'),
)
_FIGURES = (
    ('ap', 'AP'),
    ('ap50', 'AP at 0.50'),
    ('ap75', 'AP at 0.75'),
    ('ap_small', 'small'),
    ('ap_medium', 'medium'),
    ('ap_large', 'large'),
    ('ar100', 'recall (AR 100)'),
)


def accuracy_section(summary: Mapping[str, Any]) -> Html:
    """Return the section."""
    scores = summary.get('scores')
    if not scores:
        why = (
            'No annotations were given, so there is no accuracy to show: give --annotations with '
            'a COCO file, or --label-topic with a topic of label images.'
        )
        return section('accuracy', 'Accuracy', missing(why), _streaming(summary))
    return section(
        'accuracy',
        'Accuracy',
        _truth(summary.get('truth') or {}),
        _overall(scores),
        element(
            'div',
            _curves(scores.get('precision_recall') or {}),
            _class_bars(scores.get('by_class') or []),
            class_='figures',
        ),
        element('h3', 'By class'),
        _by_class(scores.get('by_class') or []),
        element('h3', 'Confusion'),
        _confusion(scores.get('confusion') or {}),
        _streaming(summary),
    )


def _truth(truth: Mapping[str, Any]) -> Html | None:
    if not truth:
        return None
    left_out = [f'{count(n)} {reason}' for reason, n in (truth.get('skipped') or {}).items() if n]
    text = (
        f'{count(truth.get("matched"))} of {count(truth.get("annotated"))} annotated images were '
        f'matched with frames: {truth.get("rule", "")}. '
        + (f'Left out: {"; ".join(left_out)}. ' if left_out else '')
        + 'Frames that are not annotated count neither way.'
    )
    return element('p', text, class_='note')


def _overall(scores: Mapping[str, Any]) -> Html:
    rows = [
        (name, *(precision((scores.get(kind) or {}).get(key)) for key, _ in _FIGURES))
        for kind, name in (('mask', 'masks'), ('box', 'boxes'))
    ]
    return table(('', *(name for _, name in _FIGURES)), rows)


def _curves(found: Mapping[str, Any]) -> Html:
    ticks = [(k / 5, f'{k / 5:g}') for k in range(6)]
    x, y = Axis(0.0, 1.0, 'recall', ticks), Axis(0.0, 1.0, 'precision', ticks)
    lines, names = [], []
    for kind, key, name, colour in _CURVES:
        values = found.get(kind) or {}
        points = [
            (recall, value)
            for recall, value in zip(
                values.get('recall') or (), values.get(key) or (), strict=False
            )
            if value is not None and value >= 0
        ]
        if points:
            lines.append(curve(points, x, y, colour))
            names.append((colour, name))
    if not lines:
        return missing('No precision-recall curve: nothing is annotated that counts.')
    drawing = chart(
        'Precision and recall', 'Precision at every recall, mean over the classes.', x, y, *lines
    )
    caption = 'Precision at every recall, mean over the classes that are annotated.'
    return figure(join((legend(names), drawing)), caption)


def _class_bars(classes: Sequence[Mapping[str, Any]]) -> Html:
    scored = [found for found in _by_frequency(classes) if found.get('mask_ap') is not None]
    shown = scored[:MOST_CLASSES]
    if not shown:
        return missing('No AP by class: no class is annotated with masks.')
    x = Axis(0.0, 1.0, 'mask AP', [(k / 5, f'{k / 5:g}') for k in range(6)])
    rows = [
        bar_row(k, len(shown), found['name'], (0.0, ap), precision(ap), x, 'c0')
        for k, found in enumerate(shown)
        for ap in [found['mask_ap']]
    ]
    drawing = chart('Mask AP by class', 'A bar for each class.', x, None, *rows)
    rest = f', the {MOST_CLASSES} most frequent' if len(scored) > MOST_CLASSES else ''
    return figure(drawing, f'Mask AP of the classes that are annotated{rest}.')


def _by_frequency(classes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(classes, key=lambda found: -(found.get('truth') or 0))


def _by_class(classes: Sequence[Mapping[str, Any]]) -> Html:
    if not classes:
        return missing('No class is annotated.')
    keys = ('mask_ap', 'mask_ap50', 'box_ap', 'box_ap50')
    rows = [
        (
            found.get('name', ''),
            count(found.get('truth')),
            count(found.get('detected')),
            count(found.get('found')),
            *(precision(found.get(key)) for key in keys),
        )
        for found in _by_frequency(classes)
    ]
    head = ('class', 'annotated', 'detected', 'found', 'mask AP', 'at 0.50', 'box AP', 'at 0.50')
    return table(head, rows)


def _confusion(confusion: Mapping[str, Any]) -> Html:
    """Return the heat table of `segnode.evaluation.confusion`."""
    names, counts = (confusion.get('rows') or [])[:-1], confusion.get('counts') or []
    if not names:
        return missing('No confusion: nothing is annotated, and nothing was answered.')
    last = len(names)
    weight = [sum(counts[k]) + sum(row[k] for row in counts) for k in range(last)]
    shown = sorted(range(last), key=lambda k: -weight[k])[:MOST_CLASSES]
    places = [*shown, last]
    rows = []
    for k in places:
        whole = sum(counts[k]) or 1
        cells = [
            # Background taken for background: it has no count.
            '' if k == column == last else _cell(counts[k][column], counts[k][column] / whole)
            for column in places
        ]
        rows.append((confusion['rows'][k], *cells))
    head = ('annotated ↓ detected →', *(confusion['columns'][k] for k in places))
    note = (
        f'Boxes at IoU {confusion.get("iou", 0.5):g}, score '
        f'{confusion.get("score_threshold", 0.5):g} or more. The deeper the colour, the larger '
        'the share of its row.'
        + (f' The {MOST_CLASSES} most frequent of {last} classes.' if last > MOST_CLASSES else '')
    )
    return join((table(head, rows), element('p', note, class_='note')))


def _cell(value: int, part: float) -> Html | str:
    if not value:
        return '·'
    return element('span', count(value), class_='heat', style=f'--share:{100 * part:.0f}%')


def _streaming(summary: Mapping[str, Any]) -> Html:
    found = summary.get('streaming')
    title = element('h3', 'Streaming')
    if not found:
        why = 'Nothing about streaming was computed in this run.'
        return join((title, missing(why)))
    tiles = (
        tile('Mask AP', precision(summary.get('streaming_mask_ap'))),
        tile('Box AP', precision(summary.get('streaming_box_ap'))),
        tile(
            'Worked on', count(found.get('worked_on')), f'of {count(found.get("frames"))} frames'
        ),
        tile('Never worked on', count(found.get('missed')), 'as newer ones had come'),
        tile('In time', share(found.get('in_time')), 'answered before the next frame'),
        tile('Mean lag', number(found.get('mean_lag_ms'), 'ms'), 'of what is known at a frame'),
    )
    note = (
        'What is known of the world when a frame comes: every frame is scored against the newest '
        'answer finished by its time, with one worker that always takes the newest frame (Li et '
        'al. 2020, Towards Streaming Perception).'
    )
    return join((title, element('div', *tiles, class_='tiles'), element('p', note, class_='note')))
