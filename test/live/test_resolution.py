# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The latency promise, on a device that takes as long as its input is large."""

from __future__ import annotations

import itertools
import random

import pytest

from segnode.live.resolution import SCALES, LatencyBudget
from segnode.percentiles import Percentiles


class Device:
    """Frames one after the other; everything takes simulated time."""

    def __init__(self, full_ms: float, other_ms: float, seed: int = 1) -> None:
        self.now_s = 0.0
        self.full_ms = full_ms
        self.other_ms = other_ms
        self.jitter = random.Random(seed)
        self.budget = LatencyBudget(1, lambda: self.now_s)
        self.costs_ms = [full_ms * scale**2 for scale in SCALES]
        self.ages_ms: list[tuple[float, float]] = []
        self.scales: list[float] = []

    def run(self, seconds: float, budget_ms: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            scale = self.budget.scale
            inference_ms = self.full_ms * scale**2 * self.jitter.uniform(0.97, 1.1)
            age_ms = inference_ms + self.other_ms * self.jitter.uniform(0.9, 1.2)
            self.now_s += inference_ms / 1e3
            self.budget.observe(age_ms, scale, budget_ms, self.costs_ms)
            self.ages_ms.append((self.now_s, age_ms))
            self.scales.append(scale)

    def p95_ms(self, from_s: float, to_s: float) -> float:
        ages = [age for now_s, age in self.ages_ms if from_s <= now_s < to_s]
        return Percentiles.that_occurred(ages).p95


@pytest.mark.parametrize('full_ms', [60.0, 150.0, 280.0])
def test_the_age_comes_within_the_budget_and_stays(full_ms: float) -> None:
    device = Device(full_ms, other_ms=15)
    budget_ms = 0.5 * full_ms + 15
    device.run(65, budget_ms)
    assert device.p95_ms(0, 0.5) > budget_ms
    for second in range(5, 60, 5):
        assert device.p95_ms(second, second + 5) <= budget_ms
    # No smaller than it has to be: the next one would be too late, or nearly.
    larger = SCALES[SCALES.index(device.scales[-1]) - 1]
    assert 1.1 * full_ms * larger**2 + 1.2 * 15 > 0.9 * budget_ms


def test_with_room_again_it_climbs_back() -> None:
    device = Device(100, other_ms=10)
    device.run(20, 60)
    low = device.scales[-1]
    assert low < 1
    device.full_ms = 20
    device.costs_ms = [20 * scale**2 for scale in SCALES]
    device.run(15, 60)
    assert device.scales[-1] == 1
    # Step by step.
    climbed = list(dict.fromkeys(device.scales[device.scales.index(low) :]))
    assert climbed == sorted(climbed)


def test_it_does_not_swing() -> None:
    """Where the costs tell that there is room and there is none, it is tried more rarely."""
    device = Device(100, other_ms=10)
    changes = []
    for _ in range(12):
        before = len(device.scales)
        device.costs_ms = [40 * scale**2 for scale in SCALES]
        device.run(20, 78)
        part = device.scales[before:]
        changes.append(sum(a != b for a, b in itertools.pairwise(part)))
    assert changes[0] >= 2
    assert sum(changes[-4:]) < sum(changes[:4])


def test_one_late_frame_is_no_reason() -> None:
    device = Device(30, other_ms=5)
    device.run(3, 50)
    for _ in range(3):
        device.budget.observe(500.0, 1.0, 50, device.costs_ms)
        device.run(2.5, 50)
    assert set(device.scales) == {1.0}
    assert device.budget.missed == ''


def test_what_cannot_be_kept_is_said() -> None:
    device = Device(100, other_ms=50)
    device.run(5, 40)
    assert device.scales[-1] == SCALES[-1]
    assert 'more than schedule.latency_budget_ms (40)' in device.budget.missed
    device.run(5, 120)
    assert device.budget.missed == ''


def test_sizes_that_cannot_be_used_are_not() -> None:
    device = Device(100, other_ms=5)
    device.costs_ms = device.costs_ms[:2]
    device.run(5, 30)
    assert set(device.scales) == set(SCALES[:2])
    assert device.budget.missed


def test_frames_that_were_under_way_do_not_count() -> None:
    device = Device(100, other_ms=5)
    device.run(5, 70)
    scale = device.scales[-1]
    assert scale < 1
    for _ in range(50):
        device.budget.observe(500.0, 1.0, 70, device.costs_ms)
    assert device.budget.scale == scale
    device.budget.restart()
    assert device.budget.scale == 1


def test_it_begins_at_what_the_costs_allow() -> None:
    device = Device(2000, other_ms=10)
    device.budget.restart(900, device.costs_ms)
    device.run(15, 900)
    assert set(device.scales) == {0.64}


def test_what_a_smaller_input_cannot_mend_is_said_and_left() -> None:
    """Frames that come late already, or a clock that is behind."""
    device = Device(20, other_ms=300)
    device.run(5, 100)
    assert set(device.scales) == {1.0}
    assert 'inference takes too little of it' in device.budget.missed
