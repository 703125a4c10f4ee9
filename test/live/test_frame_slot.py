# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The slot keeps the newest frame and loses none."""

from __future__ import annotations

import threading

from segnode.live.frame_slot import FrameSlot


def test_newest_frame_wins() -> None:
    slot: FrameSlot[int] = FrameSlot()
    assert slot.put(1) is None
    assert slot.put(2) == 1
    assert slot.take() == 2
    assert slot.put(3) is None
    assert slot.take() == 3


def test_closed_slot_gives_everything_back() -> None:
    slot: FrameSlot[int] = FrameSlot()
    slot.put(1)
    assert slot.close() == 1
    assert slot.close() is None
    assert slot.put(2) == 2
    assert slot.take() is None


def test_close_ends_a_waiting_worker() -> None:
    slot: FrameSlot[int] = FrameSlot()
    taken: list[int | None] = []
    worker = threading.Thread(target=lambda: taken.append(slot.take()))
    worker.start()
    slot.close()
    worker.join(5)
    assert not worker.is_alive()
    assert taken == [None]


def test_no_frame_is_lost_between_threads() -> None:
    slot: FrameSlot[int] = FrameSlot()
    taken, given_back = [], []

    def work() -> None:
        while (item := slot.take()) is not None:
            taken.append(item)

    worker = threading.Thread(target=work)
    worker.start()
    for item in range(1, 5001):
        dropped = slot.put(item)
        if dropped is not None:
            given_back.append(dropped)
    last = slot.close()
    worker.join(5)
    if last is not None:
        given_back.append(last)
    assert sorted(taken + given_back) == list(range(1, 5001))
    assert taken == sorted(taken)
