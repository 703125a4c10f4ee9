# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Where the milliseconds of a frame go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageClock:
    """Wall time of each stage, from a monotonic clock.

    On a CPU every operation has finished when its call returns, so wall time is the stage's own.
    """

    def __init__(self) -> None:
        self._milliseconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time inside the ``with`` block to stage ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = (time.perf_counter() - start) * 1e3
            self._milliseconds[name] = self._milliseconds.get(name, 0.0) + elapsed

    def milliseconds(self) -> dict[str, float]:
        """Return the stages so far, in the order in which they were first entered."""
        return dict(self._milliseconds)
