# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the node says of itself: levels, reasons and numbers."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from diagnostic_msgs.msg import DiagnosticStatus
from ros_harness import values

from segnode.live.accounting import FrameAccounting, Percentiles
from segnode.ros.diagnostics import (
    FAILURES_IN_ROW_LIMIT,
    NodeState,
    judge,
    process_memory,
    status_message,
)

pytestmark = pytest.mark.ros


class ManualClock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def accounting(clock: ManualClock) -> FrameAccounting:
    return FrameAccounting(clock)


def _judge(accounting: FrameAccounting, lifecycle: str = 'active', **more: Any) -> tuple[Any, str]:
    return judge(NodeState(lifecycle=lifecycle, counts=accounting.counts(), **more))


def test_all_is_well(accounting: FrameAccounting) -> None:
    accounting.receive()
    accounting.publish()
    assert _judge(accounting)[0] == DiagnosticStatus.OK


def test_silence_is_a_warning_with_its_reason(
    accounting: FrameAccounting, clock: ManualClock
) -> None:
    clock.now_s = 4.9
    assert _judge(accounting)[0] == DiagnosticStatus.OK
    clock.now_s = 5.1
    level, message = _judge(accounting, silence='nobody publishes /image')
    assert level == DiagnosticStatus.WARN
    assert 'no image for 5 s: nobody publishes /image' in message
    assert _judge(accounting, lifecycle='inactive') == (DiagnosticStatus.OK, 'inactive')


def test_what_is_remarkable_is_a_warning(accounting: FrameAccounting) -> None:
    accounting.receive()
    accounting.publish()
    remarks = ['do this', 'and that']
    assert _judge(accounting, remarks=remarks) == (DiagnosticStatus.WARN, 'do this')


def test_failure_is_an_error_for_a_while(accounting: FrameAccounting, clock: ManualClock) -> None:
    accounting.receive()
    accounting.drop('decode', "image encoding 'jp2'")
    level, message = _judge(accounting)
    assert level == DiagnosticStatus.ERROR
    assert "image encoding 'jp2'" in message
    for _ in range(6):
        clock.now_s += 1
        accounting.receive()
        accounting.publish()
    assert _judge(accounting)[0] == DiagnosticStatus.OK


def test_ten_failures_in_a_row_stay_an_error_and_say_what_to_do(
    accounting: FrameAccounting, clock: ManualClock
) -> None:
    for _ in range(FAILURES_IN_ROW_LIMIT):
        accounting.receive()
        accounting.drop('error', 'device lost')
    clock.now_s = 60.0
    level, message = _judge(accounting)
    assert level == DiagnosticStatus.ERROR
    assert 'the last 10 frames failed (device lost)' in message
    assert 'restart the node' in message
    accounting.receive()
    accounting.publish()
    assert _judge(accounting)[0] == DiagnosticStatus.OK


def test_want_of_memory_is_a_warning_first(accounting: FrameAccounting) -> None:
    accounting.receive()
    accounting.drop('error', 'out of memory')
    assert _judge(accounting, out_of_memory=True)[0] == DiagnosticStatus.WARN
    for _ in range(FAILURES_IN_ROW_LIMIT):
        accounting.receive()
        accounting.drop('error', 'out of memory')
    level, message = _judge(accounting, out_of_memory=True)
    assert level == DiagnosticStatus.ERROR
    assert 'resolution.short_side' in message


def test_status_has_every_number(accounting: FrameAccounting) -> None:
    for _ in range(3):
        accounting.receive()
    accounting.publish()
    accounting.drop('superseded')
    status = status_message(
        'segnode: segmentation',
        'cpu',
        NodeState(
            lifecycle='active',
            counts=accounting.counts(),
            messages_lost=None,
            age_s=Percentiles(0.1, 0.2, 0.3),
            stage_ms={'backbone': Percentiles(1, 2, 3)},
            memory={'device_memory_peak': 3 * 2**20},
            properties={'model': 'demo'},
        ),
    )
    found = values(status)
    assert (
        found.items()
        >= {
            'state': 'active',
            'received': '3',
            'published': '1',
            'dropped_superseded': '1',
            'dropped_stale': '0',
            'dropped_decode': '0',
            'dropped_inactive': '0',
            'dropped_error': '0',
            'in_flight': '1',
            'message_lost': 'unknown',
            'age_ms_p50': '100.000',
            'age_ms_p95': '200.000',
            'age_ms_max': '300.000',
            'backbone_ms_p50': '1.000',
            'device_memory_peak_mib': '3.0',
            'model': 'demo',
        }.items()
    )
    assert {'received_hz', 'published_hz'} <= set(found)


def test_process_memory_is_plausible() -> None:
    memory = process_memory()
    assert 2**20 < memory['process_memory'] <= memory['process_memory_peak'] * 1.1
