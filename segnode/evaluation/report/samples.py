# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A bounded sample of a series of any length."""

from __future__ import annotations


class Sample:
    """Keeps every value of a series up to a limit, then every second, every fourth, and so on."""

    def __init__(self, limit: int = 4000) -> None:
        self._limit = limit
        self._every = 1
        self._seen = 0
        self.values: list[float] = []

    def add(self, value: float) -> None:
        """Take the next value."""
        if self._seen % self._every == 0:
            self.values.append(value)
            if len(self.values) > self._limit:
                self.values = self.values[::2]
                self._every *= 2
        self._seen += 1
