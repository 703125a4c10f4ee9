# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Which frame is worked on next: every camera has its newest one waiting, and has its turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar('T')

ASKED_AGAIN_S = 0.2


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

    def take(self, not_before_s: Callable[[], float] = lambda: 0.0) -> tuple[int, T] | None:
        """Wait for a frame and remove it; None once the schedule is closed.

        Args:
            not_before_s: tells the monotonic time until which newer frames may still replace it;
                asked again and again, as it may change meanwhile.

        Returns:
            The camera's number and its frame.
        """
        with self._condition:
            while not self._closed:
                rest_s = not_before_s() - self._monotonic_s()
                if rest_s > 0:
                    self._condition.wait(min(rest_s, ASKED_AGAIN_S))
                elif self._waiting:
                    camera = next(iter(self._waiting))
                    return camera, self._waiting.pop(camera)
                else:
                    self._condition.wait()
            return None

    def close(self) -> Iterable[tuple[int, T]]:
        """End all waiting; return the frames that nobody took, with their cameras."""
        with self._condition:
            self._closed = True
            left, self._waiting = self._waiting, {}
            self._condition.notify_all()
            return left.items()
