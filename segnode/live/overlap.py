# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Three steps that overlap: one frame is decoded while another is inferred and a third published.

The rate is that of the longest step alone. A frame is not taken before the next step is about to
be free for it, so that it is the newest there is, and nothing grows old in between.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from segnode.live.schedule import Schedule

T = TypeVar('T')
D = TypeVar('D')
A = TypeVar('A')
Q = TypeVar('Q')

# Last durations of a step by which the next one is foreseen.
REMEMBERED = 8
# A thread that is woken may run as much later.
MARGIN_S = 0.002
# How soon it is noticed that a step has ended that should not have.
LOOKED_AGAIN_S = 0.5


class Step:
    """One of the steps: whether it is busy, and for how long it is likely to be.

    One thread works, and others ask.
    """

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        """Begin idle."""
        self._monotonic_s = monotonic_s
        # Of each group of cameras, as their images may differ; replaced whole, never changed.
        self._spent_s: dict[tuple[int, ...], tuple[float, ...]] = {}
        self._busy_with: tuple[int, ...] | None = None
        self._began_s = 0.0

    @contextmanager
    def busy(self, *cameras: int) -> Iterator[Callable[[], None]]:
        """Be busy with frames of these cameras inside the ``with`` block.

        Yields:
            What has to be called where something came of them: frames that are given up tell
            nothing of the time that others take.
        """
        done: list[bool] = []
        self._began_s, self._busy_with = self._monotonic_s(), cameras
        try:
            yield lambda: done.append(True)
        finally:
            spent_s = self._monotonic_s() - self._began_s
            self._busy_with = None
            if done:
                before = self._spent_s.get(cameras, ())
                self._spent_s = {**self._spent_s, cameras: (*before[1 - REMEMBERED :], spent_s)}

    @property
    def longest_s(self) -> float:
        """The longest of the last durations, 0 before the first."""
        return max((max(spent) for spent in self._spent_s.values()), default=0.0)

    @property
    def shortest_s(self) -> float:
        """The shortest of the last durations, 0 before the first."""
        return min((min(spent) for spent in self._spent_s.values()), default=0.0)

    def free_s(self) -> float | None:
        """Return the monotonic time before which it is not likely to be free, None if it is."""
        cameras = self._busy_with
        if cameras is None:
            return None
        return self._began_s + min(self._spent_s.get(cameras, ()), default=0.0)


class Overlap(Generic[T, D, A]):
    """Work on the frames of a schedule, each step in a thread of its own.

    Between two steps there is room for one. Frames come out in the order in which they were taken.
    The steps see to what fails in them, and must not raise.
    """

    def __init__(
        self,
        schedule: Schedule[T],
        decode: Callable[[int, T], D | None],
        infer: Callable[[list[tuple[int, D]]], Iterable[tuple[int, A]]],
        deliver: Callable[[int, A], None],
        choose: Callable[[Sequence[int]], Sequence[int]],
        pause_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Take the steps; nothing runs yet.

        Args:
            schedule: gives frames by their camera.
            decode: makes a camera's frame ready, None where it is given up.
            infer: answers frames that were taken together, one after the other as they are ready;
                one that is missing was given up.
            deliver: takes a camera's answer.
            choose: tells whose frames are taken together, as in ``Schedule.take``.
            pause_s: least time between two frames that were not given up.
        """
        self._schedule = schedule
        self._decode = decode
        self._infer = infer
        self._deliver = deliver
        self._choose = choose
        self._pause_s = pause_s
        self._decoding, self._inferring, self._delivering = Step(), Step(), Step()
        self._decoded: queue.Queue[list[tuple[int, D]] | None] = queue.Queue(1)
        self._answered: queue.Queue[tuple[int, A] | None] = queue.Queue(1)
        self._begun_s, self._begun_frames = 0.0, 0
        # A step has ended that should not have.
        self._broken = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=f'segnode {name}', daemon=True)
            for name, work in (
                ('decode', self._decode_all),
                ('infer', self._infer_all),
                ('publish', self._deliver_all),
            )
        ]

    def start(self) -> None:
        """Begin to take frames."""
        for thread in self._threads:
            thread.start()

    def broken(self) -> bool:
        """Return whether a step has ended that should not have."""
        return self._broken.is_set()

    def join(self, timeout_s: float | None) -> bool:
        """Wait for the frames that were taken, after the schedule was closed.

        Returns:
            Whether all threads have ended.
        """
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        begun = [thread for thread in self._threads if thread.ident is not None]
        for thread in begun:
            thread.join(None if end_s is None else max(0.0, end_s - time.monotonic()))
        return not any(thread.is_alive() for thread in begun)

    def _begin_s(self) -> float:
        """Return when to take the next frame: the device shall be free when it is decoded."""
        if not self._decoded.empty():
            return math.inf  # Asked again when it is taken.
        infer, deliver = self._inferring, self._delivering
        lead_s = self._decoding.longest_s + MARGIN_S
        infer_s, deliver_s = infer.free_s(), deliver.free_s() or 0.0
        # Answers that come before this frame's.
        deliver_s += self._answered.qsize() * deliver.shortest_s
        if infer_s is not None:
            deliver_s = max(infer_s, deliver_s) + deliver.shortest_s
        return max(
            (infer_s or 0.0) - lead_s,
            deliver_s - infer.longest_s - lead_s,
            self._begun_s + self._begun_frames * self._pause_s(),
        )

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException:
            # The others would wait for it for ever.
            self._broken.set()
            self._schedule.wake()
            raise

    def _decode_all(self) -> None:
        while not self._broken.is_set() and (
            taken := self._schedule.take(self._begin_s, self._choose)
        ):
            began_s = time.monotonic()
            with self._decoding.busy(*(camera for camera, _ in taken)) as done:
                decoded = [
                    (camera, frame)
                    for camera, each in taken
                    if (frame := self._decode(camera, each)) is not None
                ]
                if decoded:
                    done()
            if decoded:
                self._begun_s, self._begun_frames = began_s, len(decoded)
                self._put(self._decoded, decoded)
        self._put(self._decoded, None)

    def _infer_all(self) -> None:
        while (decoded := self._get(self._decoded)) is not None:
            with self._inferring.busy(*(camera for camera, _ in decoded)) as done:
                self._schedule.wake()
                for answered in self._infer(decoded):
                    done()
                    self._put(self._answered, answered)
            self._schedule.wake()
        self._put(self._answered, None)

    def _deliver_all(self) -> None:
        while (answered := self._get(self._answered)) is not None:
            camera, answer = answered
            with self._delivering.busy(camera) as done:
                self._deliver(camera, answer)
                done()
            self._schedule.wake()

    def _put(self, place: queue.Queue[Q | None], item: Q | None) -> None:
        while not self._broken.is_set():
            try:
                return place.put(item, timeout=LOOKED_AGAIN_S)
            except queue.Full:
                continue
        return None

    def _get(self, place: queue.Queue[Q | None]) -> Q | None:
        while not self._broken.is_set():
            try:
                return place.get(timeout=LOOKED_AGAIN_S)
            except queue.Empty:
                continue
        return None
