# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Where the milliseconds of a frame go, and which of several ways takes the fewest."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch

from segnode.errors import is_out_of_memory

Name = TypeVar('Name')

# Rounds in which candidates take turns, launches of one in each, and milliseconds that all of them
# together may take: as many rounds as three are made whatever they take.
ROUNDS, LEAST_ROUNDS, LAUNCHES, MOST_MS = 9, 3, 4, 60.0
# What another candidate than the first must save, as a share: less may be chance.
GAIN = 0.03
# Clock cycles that a device is kept busy for while work for it is queued: half a millisecond.
BUSY_CYCLES = 10**6


class StageClock:
    """Wall time of each stage, from a monotonic clock.

    On a CPU every operation has finished when its call returns, so wall time is the stage's own.
    """

    def __init__(self) -> None:
        self._milliseconds: dict[str, float] = {}
        self._last_s = time.perf_counter()

    def begin(self) -> None:
        """Begin a lap."""
        self._last_s = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last lap ended, or began, to stage ``name``."""
        now_s = time.perf_counter()
        self.add({name: (now_s - self._last_s) * 1e3})
        self._last_s = now_s

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time inside the ``with`` block to stage ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add({name: (time.perf_counter() - start) * 1e3})

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
    """Ends of a frame's stages on a device's own timeline, recorded without stopping it.

    On a CPU a mark is a reading of the monotonic clock. On a GPU it is an event, one for each
    name and for good: graphs record it at every replay and must never outlive it. Where this
    PyTorch cannot record an event in a graph, the stages inside of one count to the mark behind.
    """

    def __init__(self, device: torch.device, names: Iterable[str]) -> None:
        """Make the marks of a path's stages.

        Args:
            device: whose timeline it is.
            names: of all stages; others cannot be marked.
        """
        self._names: list[str] = []
        self._seconds = dict.fromkeys(names, 0.0)
        self._events: dict[str, torch.cuda.Event] = {}
        self._in_graphs = False
        if is_asynchronous(device):
            self._events, self._in_graphs = _events(self._seconds)

    def begin(self) -> None:
        """Begin a frame: forget the marks of the one before."""
        self._names = []

    def mark(self, name: str) -> None:
        """Record that stage ``name`` ends here, on the current stream."""
        if not self._events:
            self._seconds[name] = time.perf_counter()
        elif self._in_graphs or not torch.cuda.is_current_stream_capturing():
            self._events[name].record()
        else:
            return
        self._names.append(name)

    def made(self) -> tuple[str, ...]:
        """Return the marks since ``begin``, in order."""
        return tuple(self._names)

    def add(self, names: Iterable[str]) -> None:
        """Count marks as made that a replay records by itself."""
        self._names.extend(names)

    def rewind(self, made: tuple[str, ...]) -> None:
        """Forget the marks behind those that were ``made`` once; they may be made anew."""
        self._names = list(made)

    def milliseconds(self) -> dict[str, float]:
        """Return the time from each mark of this frame to the next one, by the later one's name.

        The device must have finished.
        """
        times: dict[str, float] = {}
        for before, name in itertools.pairwise(self._names):
            if self._events:
                times[name] = self._events[before].elapsed_time(self._events[name])
            else:
                times[name] = (self._seconds[name] - self._seconds[before]) * 1e3
        return times


def _events(names: Iterable[str]) -> tuple[dict[str, torch.cuda.Event], bool]:
    """Return an event a name, and whether a graph can record them.

    Only an external event is a node of a graph. Older releases have none; ROCm may refuse one
    when it is first recorded.
    """
    if torch.version.hip is None:
        try:
            return {n: torch.cuda.Event(enable_timing=True, external=True) for n in names}, True
        except TypeError:
            pass
    return {name: torch.cuda.Event(enable_timing=True) for name in names}, False


def fastest(
    candidates: Mapping[Name, Callable[[], object]],
    milliseconds: Callable[[Callable[[], object]], float],
) -> tuple[Name, dict[Name, float]]:
    """Return which of several ways to do one thing takes least, and the median time of each.

    They are timed in turns, after a round that is not counted. The first is returned unless
    another saves ``GAIN``. One that fails is left out; running out of memory is raised.

    Args:
        candidates: what launches each way; the first is the usual one.
        milliseconds: runs one and returns what it took.
    """
    times: dict[Name, list[float]] = {name: [] for name in candidates}
    for number in range(1 + ROUNDS):
        for name in list(times):
            try:
                took = milliseconds(candidates[name])
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                del times[name]  # Whatever it is, the others may run.
                continue
            if number:
                times[name].append(took)
        if number >= LEAST_ROUNDS and sum(map(sum, times.values())) * LAUNCHES > MOST_MS:
            break
    medians = {name: statistics.median(each) for name, each in times.items()}
    first = next(iter(candidates))
    best = min(medians, key=lambda name: medians[name], default=first)
    if first in medians and medians[best] > medians[first] * (1 - GAIN):
        best = first
    return best, medians


def device_milliseconds(run: Callable[[], object]) -> float:
    """Return what a run takes on the current stream of a GPU, from several back to back.

    It waits for the device, so that it has no place in a capture.
    """
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    # Else it would be timed how fast the host launches, where the device is faster.
    torch.cuda._sleep(BUSY_CYCLES)
    begin.record()
    for _ in range(LAUNCHES):
        run()
    end.record()
    end.synchronize()
    elapsed_ms: float = begin.elapsed_time(end)
    return elapsed_ms / LAUNCHES
