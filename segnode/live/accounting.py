# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Where every frame went, how often frames come and go, and how long things take.

``received = published + dropped (by reason) + in flight`` holds in every snapshot. Nothing here
knows of ROS; all classes may be used from several threads at once.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from segnode.percentiles import Percentiles

DropReason = Literal['superseded', 'stale', 'decode', 'inactive', 'error']
DROP_REASONS: tuple[DropReason, ...] = get_args(DropReason)
FAILURES: tuple[DropReason, ...] = ('decode', 'error')


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """A consistent view of one camera's frames.

    Attributes:
        received: frames that reached the node.
        published: frames whose results were published.
        dropped: frames given up, by reason.
        in_flight: frames that wait or are being worked on.
        received_hz: input rate over the last seconds.
        published_hz: output rate over the last seconds.
        idle_s: seconds since the last frame came, or since the start.
        failures_in_row: frames that failed since the last one that was published.
        failed_s: seconds since the last failure, infinite for none.
        failure: text of the last failure.
    """

    received: int
    published: int
    dropped: Mapping[DropReason, int]
    in_flight: int
    received_hz: float
    published_hz: float
    idle_s: float
    failures_in_row: int
    failed_s: float
    failure: str


class Rate:
    """Events a second over a sliding window; not thread-safe by itself."""

    def __init__(self, window_s: float = 5.0) -> None:
        self._window_s = window_s
        self._times: deque[float] = deque(maxlen=1024)

    def add(self, now_s: float) -> None:
        """Note an event at a monotonic time in seconds."""
        self._times.append(now_s)

    def hz(self, now_s: float) -> float:
        """Return the mean rate of the window's events; 0 for fewer than two."""
        while self._times and self._times[0] < now_s - self._window_s:
            self._times.popleft()
        if len(self._times) < 2 or self._times[-1] <= self._times[0]:
            return 0.0
        return (len(self._times) - 1) / (self._times[-1] - self._times[0])


class FrameAccounting:
    """Count one camera's frames from arrival to publication or to the reason of their drop."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._received = 0
        self._published = 0
        self._dropped: dict[DropReason, int] = dict.fromkeys(DROP_REASONS, 0)
        self._in_flight = 0
        self._received_rate = Rate()
        self._published_rate = Rate()
        self._last_received_s = monotonic_s()
        self._failures_in_row = 0
        self._last_failure_s = -math.inf
        self._failure = ''

    def receive(self) -> None:
        """Count a frame in."""
        with self._lock:
            self._received += 1
            self._in_flight += 1
            self._last_received_s = self._monotonic_s()
            self._received_rate.add(self._last_received_s)

    def publish(self) -> None:
        """Count a frame out: its results were published."""
        with self._lock:
            self._published += 1
            self._in_flight -= 1
            self._published_rate.add(self._monotonic_s())
            self._failures_in_row = 0

    def drop(self, reason: DropReason, detail: str = '') -> None:
        """Count a frame out: it was given up; ``detail`` says how a failure looked."""
        with self._lock:
            self._dropped[reason] += 1
            self._in_flight -= 1
            if reason in FAILURES:
                self._failures_in_row += 1
                self._last_failure_s = self._monotonic_s()
                self._failure = detail

    def restart_idle(self) -> None:
        """Start the clock of ``idle_s`` anew: from now on frames are expected."""
        with self._lock:
            self._last_received_s = self._monotonic_s()

    def counts(self) -> Counts:
        """Return all numbers of one moment."""
        with self._lock:
            now_s = self._monotonic_s()
            return Counts(
                received=self._received,
                published=self._published,
                dropped=dict(self._dropped),
                in_flight=self._in_flight,
                received_hz=self._received_rate.hz(now_s),
                published_hz=self._published_rate.hz(now_s),
                idle_s=now_s - self._last_received_s,
                failures_in_row=self._failures_in_row,
                failed_s=now_s - self._last_failure_s,
                failure=self._failure,
            )


class RollingPercentiles:
    """Percentiles of the last values of several named series."""

    def __init__(self, window: int = 256) -> None:
        self._window = window
        self._lock = threading.Lock()
        self._series: dict[str, deque[float]] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """Append one value to each named series; a new name starts a series."""
        with self._lock:
            for name, value in values.items():
                self._series.setdefault(name, deque(maxlen=self._window)).append(value)

    def percentiles(self) -> dict[str, Percentiles]:
        """Return the percentiles of every series, in the order in which they began."""
        with self._lock:
            series = {name: list(values) for name, values in self._series.items()}
        return {name: Percentiles.that_occurred(values) for name, values in series.items()}
