# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Where the milliseconds of a frame go."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


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

    def add(self, milliseconds: Mapping[str, float]) -> None:
        """Add stages that were timed elsewhere, on a device's own timeline."""
        for name, elapsed in milliseconds.items():
            self._milliseconds[name] = self._milliseconds.get(name, 0.0) + elapsed

    def milliseconds(self) -> dict[str, float]:
        """Return the stages so far, in the order in which they were first entered."""
        return dict(self._milliseconds)


def is_asynchronous(device: torch.device) -> bool:
    """Return whether a call returns before the device has done its work, as on a GPU."""
    return device.type == 'cuda'


class StageMarks:
    """Ends of stages on a device's own timeline, recorded without stopping it.

    On a GPU a mark is an event; one that is made while a graph is captured becomes part of the
    graph and is recorded anew at every replay. On a CPU it is a reading of the monotonic clock.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = is_asynchronous(device)
        self._events: dict[str, torch.cuda.Event] = {}
        self._seconds: dict[str, float] = {}

    def mark(self, name: str) -> None:
        """Record that stage ``name`` ends here, on the current stream."""
        if not self._cuda:
            self._seconds[name] = time.perf_counter()
            return
        if torch.cuda.is_current_stream_capturing():
            # Only an external event is a node of the graph; older releases have none, and the
            # stage is then counted to the next mark.
            try:
                event = torch.cuda.Event(enable_timing=True, external=True)
            except TypeError:
                return
            self._events[name] = event
        else:
            event = self._events.setdefault(name, torch.cuda.Event(enable_timing=True))
        event.record()

    def milliseconds(self, order: tuple[str, ...]) -> dict[str, float]:
        """Return the time from each mark to the next one in ``order``, by the later one's name.

        The device must have finished; marks that were never made are passed over.
        """
        made: dict[str, torch.cuda.Event] | dict[str, float]
        made = self._events if self._cuda else self._seconds
        names = [name for name in order if name in made]
        times: dict[str, float] = {}
        for before, name in itertools.pairwise(names):
            if self._cuda:
                times[name] = self._events[before].elapsed_time(self._events[name])
            else:
                times[name] = (self._seconds[name] - self._seconds[before]) * 1e3
        return times
