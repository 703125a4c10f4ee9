# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the run was made with: settings, model, versions, and what a robot does otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segnode.evaluation.report.markup import Html, element, missing, section, table

_MODEL = ('model', 'weights_sha256', 'device', 'precision', 'threads')


def flat(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Return nested settings by dotted name; what is flat already stays as it is."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f'{prefix}{name}.')
        else:
            found[f'{prefix}{name}'] = value
    return found


def settings_section(summary: Mapping[str, Any]) -> Html:
    """Return the section."""
    model = {name: summary[name] for name in _MODEL if summary.get(name) is not None}
    left_off = summary.get('left_off') or {}
    note = (
        'Every frame is answered here, so what a robot uses to keep up is off: '
        + ', '.join(f'{name} {_text(value)}' for name, value in flat(left_off).items())
        + '.'
        if left_off
        else None
    )
    return section(
        'settings',
        'Settings and versions',
        element(
            'div',
            *(
                element('div', element('h3', title), _values(flat(values)))
                for title, values in (
                    ('Model and machine', model),
                    ('Settings', summary.get('settings') or {}),
                    ('Versions', summary.get('versions') or {}),
                )
            ),
            class_='columns',
        ),
        element('p', note, class_='note') if note else None,
    )


def _values(values: Mapping[str, Any]) -> Html:
    if not values:
        return missing('Not recorded.')
    rows = [(name, element('code', _text(value))) for name, value in values.items()]
    return table(('name', 'value'), rows, texts=2)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return 'on' if value else 'off'
    if isinstance(value, list | tuple):
        return ', '.join(map(str, value)) or '–'
    return '–' if value in ('', None) else str(value)
