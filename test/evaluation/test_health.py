# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Which time of a frame counts, and what is said of a recording."""

from __future__ import annotations

import numpy as np
import pytest

from segnode.evaluation.frames import FrameRow
from segnode.evaluation.health import TopicHealth, time_of

SECOND = 1_000_000_000
START_NS = 1_700_000_000 * SECOND


def health_of(stamps_ns: list[int], logs_ns: list[int]) -> dict:
    health = TopicHealth()
    for number, (stamp_ns, log_ns) in enumerate(zip(stamps_ns, logs_ns, strict=True)):
        time_ns, clock = time_of(stamp_ns, log_ns)
        row = FrameRow(
            frame=number, bag=0, topic='/a', number=number, stamp_ns=stamp_ns, log_ns=log_ns,
            time_ns=time_ns, clock=clock, height=480, width=640 + 2 * (number % 2),
        )  # fmt: skip
        health.add(row)
        health.add_size(row)
    return health.summary()


def test_a_steady_recording() -> None:
    stamps = [START_NS + k * SECOND // 10 for k in range(50)]
    delays_ms = np.random.default_rng().uniform(2, 30, 50)
    logs = [s + round(ms * 1e6) for s, ms in zip(stamps, delays_ms, strict=True)]
    found = health_of(stamps, logs)
    assert found['rate_hz'] == pytest.approx(10)
    assert (found['frames'], found['duplicates'], found['backward']) == (50, 0, 0)
    assert (found['gap_count'], found['gaps']) == (0, [])
    assert (found['first_ns'], found['last_ns']) == (stamps[0], stamps[-1])
    assert found['clock'] == {'stamp': 50, 'log': 0}
    assert found['sizes'] == {'640x480': 25, '642x480': 25}
    delay = found['delay_ms']
    assert delay['p50'] == pytest.approx(np.median(delays_ms), abs=1e-3)
    assert delay['max'] == pytest.approx(delays_ms.max(), abs=1e-3)
    histogram = delay['histogram']
    assert sum(histogram['counts']) == 50
    assert len(histogram['edges']) == len(histogram['counts']) + 1


def test_frames_without_a_stamp_have_the_time_of_their_recording() -> None:
    logs = [START_NS + k * SECOND // 5 for k in range(10)]
    found = health_of([0] * 10, logs)
    assert found['clock'] == {'stamp': 0, 'log': 10}
    assert found['rate_hz'] == pytest.approx(5)
    # There is no delay between a stamp that is none and the recording.
    assert found['delay_ms'] is None


def test_gaps_repeats_and_steps_back_are_told() -> None:
    tenths = [0, 1, 2, 2, 3, 4, 9, 10, 8, 9, 10, 11, 31, 32]
    stamps = [START_NS + t * SECOND // 10 for t in tenths]
    found = health_of(stamps, [START_NS + k * SECOND // 10 for k in range(len(tenths))])
    assert (found['duplicates'], found['backward']) == (1, 1)
    assert found['gap_count'] == 2
    assert [(g['at_ns'], g['seconds']) for g in found['gaps']] == [
        (START_NS + 4 * SECOND // 10, 0.5),
        (START_NS + 11 * SECOND // 10, 2.0),
    ]


def test_one_stamp_of_another_clock_hides_no_delay() -> None:
    stamps = [START_NS + k * SECOND // 10 for k in range(999)] + [12 * SECOND]
    logs = [s + 5_000_000 + k * 1000 for k, s in enumerate(stamps[:-1])] + [
        START_NS + 100 * SECOND
    ]
    edges = health_of(stamps, logs)['delay_ms']['histogram']['edges']
    assert 4.9 < edges[0] < edges[-1] < 7


@pytest.mark.parametrize('count', [0, 1, 2])
def test_few_frames(count: int) -> None:
    stamps = [START_NS] * count
    found = health_of(stamps, stamps)
    assert found['frames'] == count
    assert found['rate_hz'] is None
    assert found['duplicates'] == max(0, count - 1)
