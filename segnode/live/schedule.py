# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Which frame is worked on next: every camera has its newest one waiting, and has its turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from segnode.config import Settings, setting
from segnode.errors import ConfigError

T = TypeVar('T')

MOST_CAMERAS = 8
SLOWEST_HZ = 0.01
ASKED_AGAIN_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig(Settings):
    """Which frames are worked on, when, and at what price."""

    max_age_ms: float = setting(
        0.0,
        'Age of a frame (now - stamp) from which it is dropped before it costs device time; '
        '0 is off',
        unit='ms',
        minimum=0.0,
        maximum=3.6e6,
        runtime=True,
    )
    latency_budget_ms: float = setting(
        0.0,
        "Age at publication (now - stamp) that 95 of 100 frames keep to: the network's input "
        'shrinks in steps, down to 41 % of its sides, while they do not; 0 is off',
        unit='ms',
        minimum=0.0,
        maximum=3.6e6,
        runtime=True,
    )
    max_batch: int = setting(
        1,
        'Most frames of different cameras and one size that go through the network together, '
        'where that was measured to answer them sooner on average; 1 is off',
        minimum=1,
        maximum=MOST_CAMERAS,
        runtime=True,
    )
    max_rate_hz: float = setting(
        0.0,
        'Most frames a second, of all cameras together, for power or for a shared GPU; 0 is off',
        unit='Hz',
        minimum=0.0,
        maximum=1000.0,
        runtime=True,
    )

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        if 0 < self.max_rate_hz < SLOWEST_HZ:
            raise ConfigError(
                f'schedule.max_rate_hz: expected 0 or {SLOWEST_HZ} or more, found '
                f'{self.max_rate_hz}'
            )


def _at_once() -> float:
    return 0.0


def _the_first(waiting: Sequence[int]) -> Sequence[int]:
    return waiting[:1]


class Schedule(Generic[T]):
    """Hand frames from the cameras' thread to a worker.

    A camera has room for one frame, and a newer one replaces it. The camera that has had one
    waiting for longest is served first: a fast camera's frames are always the newest, a slow one's
    always the oldest, and neither starves the other.
    """

    def __init__(self, cameras: int, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        """Make room for so many cameras, numbered from 0."""
        self._monotonic_s = monotonic_s
        self._condition = threading.Condition()
        # In the order in which the cameras are served; a newer frame takes the place of the older.
        self._waiting: dict[int, T] = {}
        self._cameras = range(cameras)
        self._closed = False

    def put(self, camera: int, frame: T) -> T | None:
        """Let a camera's frame wait, and return the one that is dropped for it.

        That is its older frame that waited, None where none did, and ``frame`` itself once the
        schedule is closed.
        """
        with self._condition:
            if self._closed or camera not in self._cameras:
                return frame
            replaced = self._waiting.get(camera)
            self._waiting[camera] = frame
            self._condition.notify()
            return replaced

    def take(
        self,
        not_before_s: Callable[[], float] = _at_once,
        choose: Callable[[Sequence[int]], Sequence[int]] = _the_first,
    ) -> list[tuple[int, T]]:
        """Wait for frames and remove them; none once the schedule is closed.

        Args:
            not_before_s: tells the monotonic time until which newer frames may still replace
                them; asked again and again, as it may change meanwhile.
            choose: tells which cameras' frames are taken together, of those that have one
                waiting; the one that has waited for longest comes first, and must be taken.

        Returns:
            Numbers of cameras and their frames, in the order of ``choose``.
        """
        with self._condition:
            while not self._closed:
                rest_s = not_before_s() - self._monotonic_s()
                if rest_s > 0:
                    self._condition.wait(min(rest_s, ASKED_AGAIN_S))
                elif self._waiting:
                    chosen = choose(list(self._waiting))
                    return [(camera, self._waiting.pop(camera)) for camera in chosen]
                else:
                    self._condition.wait()
            return []

    def wake(self) -> None:
        """Have ``not_before_s`` asked again, as its answer may be another now."""
        with self._condition:
            self._condition.notify()

    def close(self) -> Iterable[tuple[int, T]]:
        """End all waiting; return the frames that nobody took, with their cameras."""
        with self._condition:
            self._closed = True
            left, self._waiting = self._waiting, {}
            self._condition.notify_all()
            return left.items()
