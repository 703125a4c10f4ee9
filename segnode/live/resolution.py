# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The latency promise: the network's input shrinks while frames are published too late."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from segnode.percentiles import Percentiles

# Of the sides of the network's input; each step takes about two thirds of the time before.
SCALES = (1.0, 0.8, 0.64, 0.512, 0.41)

# Ages are judged over the last 2 s, and over so many frames at least and at most.
WINDOW_S = 2.0
ENOUGH = 20
WINDOW = 40
# So few are enough where the most of them are too late, and so many to see that there is room.
FEW = 4
MANY = 10
# Where a step aims, as a part of the budget: below it, so that it does not come back at once.
AIM_DOWN = 0.95
AIM_UP = 0.9
# What a larger size may cost, in p95, for each millisecond more that inference takes: that varies
# with the frame, and the next frame waits for this one.
COSTS = 1.3
# How long a size is kept before a larger one is tried: twice as long whenever a larger one had
# to be left again so soon.
HOLD_S = 2.0
LONGEST_HOLD_S = 60.0
TRIED_S = 10.0


class LatencyBudget:
    """Chooses the step of ``SCALES`` by the ages at which frames are published.

    Ages are told by one thread and the step is asked by another.

    Attributes:
        missed: in words, that no step keeps the budget; empty where one does.
    """

    def __init__(
        self, cameras: int = 1, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin at full size.

        Args:
            cameras: how many frames may be worked on in turn.
            monotonic_s: tells the time.
        """
        self._cameras = cameras
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._ages: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self.missed = ''
        self._step = 0
        self._since_s = monotonic_s()
        # Whether a larger size is being tried, and for how long one has to wait for that.
        self._on_trial = False
        self._hold_s = HOLD_S

    @property
    def scale(self) -> float:
        """Part of the network's input sides to run the next frame at."""
        return SCALES[self._step]

    def restart(self, budget_ms: float = math.inf, costs_ms: Sequence[float] = (0.0,)) -> None:
        """Begin anew, at the largest size that may keep the budget by what it costs."""
        with self._lock:
            last = len(costs_ms) - 1
            fits = (step for step in range(last) if costs_ms[step] <= AIM_DOWN * budget_ms)
            self._take(next(fits, last))
            self._hold_s, self.missed = HOLD_S, ''

    def observe(
        self, age_ms: float, scale: float, budget_ms: float, costs_ms: Sequence[float]
    ) -> None:
        """Note a published frame, and step where it is time to.

        Args:
            age_ms: at publication.
            scale: that it was run at.
            budget_ms: that 95 of 100 frames shall keep to.
            costs_ms: what inference takes at each of ``SCALES``, as far as they can be used.
        """
        with self._lock:
            if scale != self.scale:
                return  # It was under way before the last step.
            now_s = self._monotonic_s()
            self._ages.append((now_s, age_ms))
            while self._ages[0][0] < now_s - WINDOW_S and len(self._ages) > ENOUGH:
                self._ages.popleft()
            frames = len(self._ages)
            ages = Percentiles.that_occurred([age for _, age in self._ages])
            if ages.p95 > budget_ms:
                # One frame of few may be late for any reason.
                if frames >= (FEW if ages.p50 > budget_ms else ENOUGH):
                    self._step_down(ages, budget_ms, costs_ms)
                return
            self.missed = ''
            kept_s = now_s - self._since_s
            if self._on_trial and kept_s >= TRIED_S:
                self._on_trial, self._hold_s = False, HOLD_S
            if frames >= MANY and kept_s >= self._hold_s:
                self._step_up(ages.p95, budget_ms, costs_ms)

    def _step_down(self, ages: Percentiles, budget_ms: float, costs_ms: Sequence[float]) -> None:
        last, here_ms = len(costs_ms) - 1, costs_ms[min(self._step, len(costs_ms) - 1)]
        late_ms = ages.p95
        # What a frame usually waits for, at most: every camera's, and the one under way.
        elsewhere_ms = ages.p50 - (self._cameras + 1) * here_ms
        if self._step >= last or elsewhere_ms > budget_ms:
            self.missed = (
                f'frames are {late_ms:.0f} ms old when they are published (p95), more than '
                f'schedule.latency_budget_ms ({budget_ms:g}), '
            ) + (
                'and inference takes too little of it for a smaller network input to help'
                if elsewhere_ms > budget_ms
                else f'at {self.scale:.0%} of the network input, the smallest that is of use'
            )
            return
        if self._on_trial:
            self._hold_s = min(2 * self._hold_s, LONGEST_HOLD_S)
        saving_ms = late_ms - AIM_DOWN * budget_ms
        fits = (
            step for step in range(self._step + 1, last) if here_ms - costs_ms[step] >= saving_ms
        )
        self._take(next(fits, last))

    def _step_up(self, late_ms: float, budget_ms: float, costs_ms: Sequence[float]) -> None:
        if not 0 < self._step < len(costs_ms):
            return
        more_ms = COSTS * (costs_ms[self._step - 1] - costs_ms[self._step])
        if late_ms + more_ms <= AIM_UP * budget_ms:
            self._take(self._step - 1)
            self._on_trial = True

    def _take(self, step: int) -> None:
        self._step, self._since_s, self._on_trial = step, self._monotonic_s(), False
        self._ages.clear()
