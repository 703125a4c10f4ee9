# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The node's state as a DiagnosticStatus: counts, rates, ages, stage times, and what is wrong."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticStatus

from segnode.live.accounting import DROP_REASONS, Counts
from segnode.percentiles import Percentiles
from segnode.ros.messages import key_values

IDLE_WARNING_S = 5.0
FAILURE_SHOWN_S = 5.0
FAILURES_IN_ROW_LIMIT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """All that one diagnostics message reports.

    Attributes:
        lifecycle: label of the lifecycle state.
        counts: the frames' accounting.
        messages_lost: losses that the middleware reported, None where it cannot.
        out_of_memory: whether the last failure was for want of device memory.
        fault: why the last transition failed, empty where it did not.
        progress: what was done last while the model was loaded.
        silence: why no image comes, as far as it is known.
        remarks: what else is not as it should be, and what to do; what matters most comes first.
        age_s: age at publication (now - stamp), None before the first frame.
        stage_ms: each stage's times.
        memory: bytes on the device, by name.
        properties: model, weights, precision and the like, as text.
    """

    lifecycle: str
    counts: Counts
    messages_lost: int | None = None
    out_of_memory: bool = False
    fault: str = ''
    progress: str = ''
    silence: str = ''
    remarks: Sequence[str] = ()
    age_s: Percentiles | None = None
    stage_ms: Mapping[str, Percentiles] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)


def judge(state: NodeState) -> tuple[bytes, str]:
    """Return level and message: the worst of what is wrong, with what to do about it."""
    counts = state.counts
    if counts.failures_in_row >= FAILURES_IN_ROW_LIMIT:
        remedy = (
            'lower resolution.short_side, proposals or filter.max_instances, or free the device'
            if state.out_of_memory
            else 'see the log, check the image encoding and the device, '
            'then restart the node or cycle it through deactivate, cleanup, configure, activate'
        )
        return (
            DiagnosticStatus.ERROR,
            f'the last {counts.failures_in_row} frames failed ({counts.failure}): {remedy}',
        )
    if counts.failed_s < FAILURE_SHOWN_S:
        level = DiagnosticStatus.WARN if state.out_of_memory else DiagnosticStatus.ERROR
        return level, f'a frame failed: {counts.failure}'
    if state.fault:
        return DiagnosticStatus.ERROR, f'{state.lifecycle}: {state.fault}'
    if state.lifecycle == 'configuring':
        return DiagnosticStatus.OK, f'configuring: {state.progress}'
    if state.lifecycle != 'active':
        return DiagnosticStatus.OK, state.lifecycle
    if counts.idle_s > IDLE_WARNING_S:
        return (DiagnosticStatus.WARN, f'no image for {counts.idle_s:.0f} s: {state.silence}')
    if state.remarks:
        return DiagnosticStatus.WARN, state.remarks[0]
    return DiagnosticStatus.OK, f'{counts.published_hz:.1f} frames a second'


def status_message(name: str, hardware_id: str, state: NodeState) -> DiagnosticStatus:
    """Return the state with every number as a key and a value."""
    counts = state.counts
    values = {
        'state': state.lifecycle,
        'received': str(counts.received),
        'published': str(counts.published),
        **{f'dropped_{reason}': str(counts.dropped[reason]) for reason in DROP_REASONS},
        'in_flight': str(counts.in_flight),
        'message_lost': 'unknown' if state.messages_lost is None else str(state.messages_lost),
        'received_hz': f'{counts.received_hz:.2f}',
        'published_hz': f'{counts.published_hz:.2f}',
    }
    if state.age_s is not None:
        values.update(_percentile_values('age', state.age_s, scale=1e3))
    for stage, percentiles in state.stage_ms.items():
        values.update(_percentile_values(stage, percentiles))
    values.update({f'{memory}_mib': f'{b / 2**20:.1f}' for memory, b in state.memory.items()})
    values.update(state.properties)
    level, message = judge(state)
    return DiagnosticStatus(
        level=level, name=name, message=message, hardware_id=hardware_id, values=key_values(values)
    )


def process_memory() -> dict[str, int]:
    """Return this process's resident memory and its high-water mark, in bytes."""
    pages = int(Path('/proc/self/statm').read_text(encoding='ascii').split()[1])
    return {
        'process_memory': pages * resource.getpagesize(),
        'process_memory_peak': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _percentile_values(name: str, p: Percentiles, scale: float = 1.0) -> dict[str, str]:
    return {
        f'{name}_ms_p50': f'{p.p50 * scale:.3f}',
        f'{name}_ms_p95': f'{p.p95 * scale:.3f}',
        f'{name}_ms_max': f'{p.max * scale:.3f}',
    }
