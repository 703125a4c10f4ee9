# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The head of the page: what was run on what, its main figures, and the command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from segnode.evaluation.report.markup import Html, count, element, missing, number, precision, tile

SECTIONS = (
    ('health', 'Health of the bag'),
    ('latency', 'Latency'),
    ('instances', 'Instances'),
    ('stability', 'Mask stability'),
    ('accuracy', 'Accuracy'),
    ('gallery', 'Frames'),
    ('settings', 'Settings'),
)
_NAMES_SHOWN = 4


def bag_names(summary: Mapping[str, Any]) -> str:
    """Return the names of the bags of a run, of many the first few."""
    names = [PurePath(bag['path']).name or bag['path'] for bag in summary.get('bags') or ()]
    more = f' and {len(names) - _NAMES_SHOWN} more' if len(names) > _NAMES_SHOWN else ''
    return ', '.join(names[:_NAMES_SHOWN]) + more or 'no bag'


def head(summary: Mapping[str, Any]) -> Html:
    """Return the title, the tiles, the command and the list of sections."""
    model = summary.get('model') or 'embedded demo model'
    command = summary.get('command')
    links = [element('a', title, href=f'#{name}') for name, title in SECTIONS]
    return element(
        'header',
        element('p', 'segnode evaluate', class_='kicker'),
        element('h1', PurePath(model).name if '/' in model else model, ' on ', bag_names(summary)),
        element('div', *_tiles(summary), class_='tiles'),
        element('pre', element('code', command, class_='command'), class_='scroll', tabindex=0)
        if command
        else missing('The command that made this run was not recorded.'),
        element('nav', *links, aria_label='Sections'),
    )


def _tiles(summary: Mapping[str, Any]) -> list[Html]:
    total = summary.get('total_ms') or {}
    skipped = sum((summary.get('skipped') or {}).values())
    scored = summary.get('scores') is not None
    boxes, masks = (summary.get(f'{kind}_ap') for kind in ('box', 'mask'))
    tiles = [
        tile('Mask AP', precision(masks), f'at IoU 0.5: {precision(summary.get("mask_ap50"))}'),
        tile('Box AP', precision(boxes), f'at IoU 0.5: {precision(summary.get("box_ap50"))}'),
    ]
    if not scored:
        tiles = [tile('Average precision', '–', 'no ground truth was given')]
    if summary.get('streaming') is not None:
        tiles.append(
            tile(
                'Streaming mask AP',
                precision(summary.get('streaming_mask_ap')),
                f'boxes: {precision(summary.get("streaming_box_ap"))}',
            )
        )
    tiles += [
        tile(
            'Frames processed',
            count(summary.get('processed')),
            f'of {count(summary.get("frames"))}; {count(skipped)} skipped',
        ),
        tile(
            'Median latency',
            number(total.get('p50'), 'ms'),
            f'p95: {number(total.get("p95"), "ms")}',
        ),
        tile(
            'Device',
            summary.get('device') or '–',
            ', '.join(
                text
                for text in (
                    str(summary.get('precision') or ''),
                    f'{summary["threads"]} threads' if summary.get('threads') else '',
                )
                if text
            ),
        ),
    ]
    return tiles
