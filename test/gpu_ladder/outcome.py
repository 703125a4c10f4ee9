# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What becomes of a check: figures held against limits, a failure, or a reason to leave it out."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from typing import Any, TypeAlias

# What the record has of a check or a command: ``status`` and whatever goes with it.
Result: TypeAlias = dict[str, Any]
# Lines that are kept of a traceback or a log.
TAIL = 30


class SkipCheck(Exception):  # noqa: N818 - no error
    """A check does not apply here; its text says why."""


def judged(
    figures: dict[str, Any],
    *,
    least: Mapping[str, float] | None = None,
    most: Mapping[str, float] | None = None,
    remark: str = '',
) -> Result:
    """Hold figures against their limits; one that is not a number is beyond any."""
    limits, problems = {}, []
    for sign, bounds in (('>=', least or {}), ('<=', most or {})):
        for name, bound in bounds.items():
            limits[name] = f'{sign} {bound:g}'
            value = float(figures[name])
            if not (value >= bound if sign == '>=' else value <= bound):
                problems.append(f'{name}: expected {sign} {bound:g}, found {value:g}')
    problem = '; '.join(problems) + (f' ({remark})' if remark else '')
    found = failure('WrongAnswer', problem, []) if problems else {'status': 'passed'}
    return {**found, 'figures': figures, 'limit': limits}


def failure(kind: str, text: str, trace: list[str]) -> Result:
    """Return a failure."""
    line = text.strip().partition('\n')[0][:400]
    return {'status': 'failed', 'error': {'type': kind, 'line': line, 'traceback': trace[-TAIL:]}}


def failed(error: Exception) -> Result:
    """Return the failure that an exception is."""
    lines = ''.join(traceback.format_exception(error)).splitlines()
    return failure(type(error).__name__, str(error), lines)


def skipped(reason: str, *, late: bool = False) -> Result:
    """Return what was not run; ``late`` counts against the whole."""
    return {'status': 'skipped', 'reason': reason, 'late': late, 'seconds': 0.0}


def no_time(left_s: float, needed_s: float = 1.0) -> str:
    """Return why something is not begun any more."""
    return f'no time: {max(left_s, 0):.0f} s are left, it needs {math.ceil(needed_s)} s'
