# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Percentiles of what was measured.

A running node tells values that occurred; a report over whole runs interpolates, as NumPy does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Median, tail and maximum of a series, in the unit of its values."""

    p50: float
    p95: float
    max: float

    @classmethod
    def that_occurred(cls, values: Iterable[float]) -> Percentiles:
        """Return the nearest-rank percentiles of a series that is not empty."""
        ascending = sorted(values)
        p50, p95 = (
            ascending[max(0, math.ceil(fraction * len(ascending)) - 1)] for fraction in (0.5, 0.95)
        )
        return cls(p50, p95, ascending[-1])

    @classmethod
    def interpolated(cls, values: Sequence[float]) -> Percentiles:
        """Return the interpolated percentiles of a series that is not empty."""
        return cls(*percentiles(values, 50, 95, 100))


def percentiles(values: Sequence[float], *percents: float) -> tuple[float, ...]:
    """Return interpolated percentiles of a series that is not empty."""
    return tuple(float(value) for value in np.percentile(values, percents))
