# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Every frame is counted, also when several threads count."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from segnode.live.accounting import DROP_REASONS, FrameAccounting, Percentiles, RollingPercentiles


class ManualClock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_new_accounting_is_empty() -> None:
    counts = FrameAccounting().counts()
    assert (counts.received, counts.published, counts.in_flight) == (0, 0, 0)
    assert counts.dropped == dict.fromkeys(DROP_REASONS, 0)
    assert (counts.received_hz, counts.published_hz) == (0.0, 0.0)
    assert counts.failures_in_row == 0
    assert counts.failed_s == float('inf')


def test_every_frame_is_accounted_for() -> None:
    accounting = FrameAccounting()
    for _ in range(len(DROP_REASONS) + 2):
        accounting.receive()
    accounting.publish()
    for reason in DROP_REASONS:
        accounting.drop(reason)
    counts = accounting.counts()
    assert counts.in_flight == 1
    assert counts.received == counts.published + sum(counts.dropped.values()) + counts.in_flight
    assert all(counts.dropped[reason] == 1 for reason in DROP_REASONS)


def test_snapshots_are_consistent_under_threads() -> None:
    accounting = FrameAccounting()
    snapshots = []

    def camera() -> None:
        for index in range(2000):
            accounting.receive()
            if index % 3:
                accounting.publish()
            else:
                accounting.drop('superseded')

    threads = [threading.Thread(target=camera) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        snapshots.append(accounting.counts())
    snapshots.append(accounting.counts())
    for counts in snapshots:
        assert (
            counts.received == counts.published + sum(counts.dropped.values()) + counts.in_flight
        )
        assert 0 <= counts.in_flight <= 3
    assert snapshots[-1].received == 6000
    assert snapshots[-1].in_flight == 0


def test_failures_in_row_end_with_a_published_frame() -> None:
    clock = ManualClock()
    accounting = FrameAccounting(clock)
    for _ in range(4):
        accounting.receive()
    accounting.drop('decode', 'no such encoding')
    accounting.drop('superseded')
    accounting.drop('error', 'out of luck')
    clock.now_s += 2
    counts = accounting.counts()
    assert (counts.failures_in_row, counts.failure, counts.failed_s) == (2, 'out of luck', 2.0)
    accounting.publish()
    assert accounting.counts().failures_in_row == 0


def test_rates_are_of_the_last_seconds() -> None:
    clock = ManualClock()
    accounting = FrameAccounting(clock)
    for index in range(81):
        accounting.receive()
        if index % 2 == 0:
            accounting.publish()
        clock.now_s += 0.125
    counts = accounting.counts()
    assert counts.received_hz == pytest.approx(8)
    assert counts.published_hz == pytest.approx(4)
    clock.now_s += 10
    counts = accounting.counts()
    assert (counts.received_hz, counts.published_hz) == (0, 0)
    assert counts.idle_s == pytest.approx(10.125)
    accounting.restart_idle()
    assert accounting.counts().idle_s == 0


@pytest.mark.parametrize('count', [1, 2, 7, 100])
def test_percentiles_match_numpy(count: int) -> None:
    values = np.random.default_rng(count).gamma(2, 10, count)
    rolling = RollingPercentiles()
    for value in values:
        rolling.add({'backbone': value, 'paste': -value})
    found = rolling.percentiles()
    assert list(found) == ['backbone', 'paste']
    expected = np.percentile(values, [50, 95, 100], method='inverted_cdf')
    np.testing.assert_allclose(
        [found['backbone'].p50, found['backbone'].p95, found['backbone'].max], expected
    )


def test_percentiles_forget_what_left_the_window() -> None:
    rolling = RollingPercentiles(window=3)
    assert rolling.percentiles() == {}
    for value in (1000.0, 1.0, 2.0, 3.0):
        rolling.add({'age': value})
    assert rolling.percentiles() == {'age': Percentiles(2.0, 3.0, 3.0)}
