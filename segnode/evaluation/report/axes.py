# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Axes of charts: where a value lies between two ends, and round values to label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from segnode.evaluation.report.markup import tick


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of a chart.

    Attributes:
        low, high: values at its ends, ``low < high``; above 0 where it is logarithmic.
        label: what it shows, with the unit.
        ticks: labelled values and their texts.
        logarithmic: whether equal ratios are equally far apart.
    """

    low: float
    high: float
    label: str
    ticks: Sequence[tuple[float, str]]
    logarithmic: bool = False

    def percent(self, value: float) -> float:
        """Return where a value lies, 0 at the low and 100 at the high end, no further."""
        if self.logarithmic:
            value = max(value, self.low)
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return 100 * min(1.0, max(0.0, part))


def linear_axis(highest: float, label: str, *, lowest: float = 0.0, whole: bool = False) -> Axis:
    """Return an axis from ``lowest`` or below to a round value at or above ``highest``.

    Args:
        highest: of the values.
        label: what it shows, with the unit.
        lowest: of the values.
        whole: whether they are whole numbers, so that no fraction is labelled.
    """
    if not highest > lowest:
        highest = lowest + 1.0
    step = round_step(highest - lowest)
    if whole:
        step = max(1.0, float(round(step)))
    first, last = math.floor(lowest / step), math.ceil(highest / step - 1e-9)
    values = [k * step for k in range(first, last + 1)]
    return Axis(values[0], values[-1], label, [(value, tick(value)) for value in values])


def round_step(span: float, most: int = 5) -> float:
    """Return a round step that divides a span into at most so many.

    It is the smallest that is 1, 2, 2.5 or 5 times a power of ten.
    """
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * k for k in (1, 2, 2.5, 5, 10) if power * k >= rough * (1 - 1e-9))


def log_axis(lowest: float, highest: float, label: str) -> Axis:
    """Return a logarithmic axis over whole decades around two values above 0."""
    first = math.floor(math.log10(lowest) + 1e-9)
    last = max(first + 1, math.ceil(math.log10(highest) - 1e-9))
    every = math.ceil((last - first) / 6)
    values = [10.0**k for k in range(first, last + 1, every)]
    ticks = [(value, tick(value)) for value in values]
    return Axis(10.0**first, 10.0**last, label, ticks, logarithmic=True)
