# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What was read at one moment; what a machine does not tell is not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_REMEDIES = {
    'thermal': 'cool it',
    'power': 'give it a stronger supply, or a higher power limit (nvidia-smi -pl, nvpmodel)',
}


@dataclass(frozen=True, slots=True)
class Throttle:
    """Something that slows the machine down.

    Attributes:
        kind: ``thermal`` or ``power``.
        reason: what it is, in words.
    """

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reading:
    """Values and throttles of one moment.

    Attributes:
        values: numbers with their unit in the key: ``_c``, ``_w``, ``_mhz``, ``_mib``,
            ``_percent``.
        throttles: None where nothing would tell.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    throttles: tuple[Throttle, ...] | None = None

    def joined(self, other: Reading) -> Reading:
        """Return both; this one's value where both have one."""
        throttles = None
        if self.throttles is not None or other.throttles is not None:
            throttles = (*(self.throttles or ()), *(other.throttles or ()))
        return Reading({**other.values, **self.values}, throttles)

    def texts(self) -> dict[str, str]:
        """Return all of it by key, as diagnostics have it."""
        texts = {key: f'{value:.1f}' for key, value in self.values.items()}
        if self.throttles is not None:
            texts['throttle_reasons'] = _listed(t.reason for t in self.throttles) or 'none'
        return texts

    def warning(self) -> str:
        """Return that it is throttled and what to do, empty where it is not."""
        if not self.throttles:
            return ''
        kinds = sorted({t.kind for t in self.throttles}, reverse=True)
        remedies = ', '.join(_REMEDIES[kind] for kind in kinds)
        reasons = _listed(t.reason for t in self.throttles)
        return (
            f'the device is throttled ({", ".join(kinds)}): {reasons}; {remedies}, or lower '
            'resolution.short_side or schedule.max_rate_hz'
        )


def _listed(reasons: Iterable[str]) -> str:
    return ', '.join(dict.fromkeys(reasons))
