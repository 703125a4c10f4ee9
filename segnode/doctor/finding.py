# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""One line of what ``segnode doctor`` answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal['ok', 'warn', 'FAIL']


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer; the remedy is empty where all is well."""

    level: Level
    name: str
    found: str
    remedy: str = ''

    def line(self) -> str:
        """Return it as text."""
        text = ' '.join(self.found.split())
        return f'{self.level:<4}  {self.name:<14}  {text}' + (
            f' -> {self.remedy}' if self.remedy else ''
        )
