# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Latencies of rows in turns: on which frames, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from segnode.bags.record import Header
from segnode.config import Config
from segnode.errors import DeviceError, OutOfMemoryError
from segnode.evaluation.frames import FrameRow
from segnode.evaluation.sweep.latency import (
    FRAMES_A_TURN,
    choose_sample,
    measure,
    session,
    summary,
)
from segnode.image import Image
from segnode.live.pipeline import Decoded


class RecordingEngine:
    """An engine that writes down its calls, and fails where it is told to."""

    def __init__(self, fails: dict[int, list[Exception]] | None = None) -> None:
        self.calls: list[tuple[int, int]] = []
        self.reserved = 0
        self._fails = fails or {}
        self._side = 0

    def reserve(self, paths: int) -> None:
        self.reserved = paths

    def configure(self, config: Config) -> None:
        self._side = config.resolution.short_side

    def segment(self, images: Sequence[Image], **_: Any) -> list[Any]:
        if self._fails.get(self._side):
            raise self._fails[self._side].pop(0)
        self.calls.append((self._side, int(images[0].pixels[0, 0, 0])))
        return [SimpleNamespace(stage_ms={}) for _ in images]


def frames(count: int) -> list[Decoded[Header]]:
    return [
        Decoded(Header(k, ''), Image(np.full((4, 4, 3), k, np.uint8), 'bgr'), 0.0, 0.0, {})
        for k in range(count)
    ]


CONFIGS = {f'row{side}': Config().replace({'resolution.short_side': side}) for side in (1, 2, 3)}


def test_the_sample_is_even_over_what_was_processed() -> None:
    rows = [
        FrameRow(frame=k, bag=0, topic='', number=k, stamp_ns=0, log_ns=0, time_ns=0,
                 status='processed' if k % 2 else 'decode')
        for k in range(200)
    ]  # fmt: skip
    chosen = [row.frame for row in choose_sample(rows, 10)]
    assert chosen == [11, 31, 51, 71, 91, 111, 131, 151, 171, 191]
    assert len(choose_sample(rows, 1000)) == 100
    assert len(choose_sample(rows[:3], 5)) == 1
    assert choose_sample([], 5) == []


def test_rows_take_turns_and_each_sees_every_frame() -> None:
    engine: Any = RecordingEngine()
    times = measure(engine, CONFIGS, frames(2 * FRAMES_A_TURN))
    assert engine.reserved == 3
    # A frame that warms up and those that count, a row after the other, twice.
    turn = FRAMES_A_TURN + 1
    sides = [side for side, _ in engine.calls]
    assert sides == [side for _ in range(2) for side in (1, 2, 3) for _ in range(turn)]
    for name, side in (('row1', 1), ('row2', 2), ('row3', 3)):
        seen = [frame for each, frame in engine.calls if each == side]
        counted = seen[1:turn] + seen[turn + 1 :]
        assert sorted(counted) == list(range(2 * FRAMES_A_TURN))
        assert [len(each) for each in times[name]['turns_ms']] == [FRAMES_A_TURN] * 2


def test_a_session_without_frames_has_no_turns() -> None:
    engine: Any = RecordingEngine()
    found = session(engine, CONFIGS, [])
    assert found['rows'] == {name: {'turns_ms': []} for name in CONFIGS}
    assert datetime.now(timezone.utc) >= datetime.fromisoformat(found['session'])
    assert engine.calls == []


def test_a_row_that_fails_does_not_stop_the_others() -> None:
    engine: Any = RecordingEngine({2: [DeviceError('no such device\nreally')]})
    times = measure(engine, CONFIGS, frames(2 * FRAMES_A_TURN))
    assert times['row2'] == {'failed': 'no such device'}
    assert {side for side, _ in engine.calls} == {1, 3}
    assert len(times['row3']['turns_ms']) == 2


def test_memory_that_other_rows_took_is_tried_once_more() -> None:
    engine: Any = RecordingEngine({2: [OutOfMemoryError('full')]})
    times = measure(engine, CONFIGS, frames(3))
    assert [len(each) for each in times['row2']['turns_ms']] == [3]
    engine = RecordingEngine({3: [OutOfMemoryError('full'), OutOfMemoryError('full')]})
    assert measure(engine, CONFIGS, frames(3))['row3'] == {'failed': 'full'}


def test_the_summary_is_over_all_turns() -> None:
    found = summary([[1.0, 2.0], [3.0], [4.0, 10.0]])
    assert found['min'] == 1.0
    assert found['p50'] == 3.0
    assert found['p95'] == pytest.approx(np.percentile([1, 2, 3, 4, 10], 95))
