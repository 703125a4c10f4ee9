# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The newest frame of each camera waits, none is lost, and no camera starves."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from segnode.live.schedule import ASKED_AGAIN_S, Schedule

pytestmark = pytest.mark.timed


def test_newest_frame_wins() -> None:
    schedule: Schedule[int] = Schedule(1)
    assert schedule.put(0, 1) is None
    assert schedule.put(0, 2) == 1
    assert schedule.take() == [(0, 2)]
    assert schedule.put(0, 3) is None
    assert schedule.take() == [(0, 3)]


def test_cameras_do_not_replace_each_other() -> None:
    schedule: Schedule[str] = Schedule(3)
    assert schedule.put(2, 'c') is None
    assert schedule.put(0, 'a') is None
    assert schedule.put(2, 'C') == 'c'
    # Camera 2 has waited for longest, though its frame is newer.
    assert [*schedule.take(), *schedule.take()] == [(2, 'C'), (0, 'a')]


def test_a_fast_and_a_slow_camera_are_served_in_turn() -> None:
    schedule: Schedule[int] = Schedule(2)
    served: Counter[int] = Counter()
    for turn in range(100):
        for frame in range(7):
            schedule.put(0, 7 * turn + frame)
        schedule.put(1, turn)
        ((camera, _),) = schedule.take()
        served[camera] += 1
    assert served == {0: 50, 1: 50}


def test_frames_of_several_cameras_are_taken_together() -> None:
    schedule: Schedule[str] = Schedule(3)
    for camera, frame in ((1, 'b'), (0, 'a'), (2, 'c')):
        schedule.put(camera, frame)
    asked: list[list[int]] = []

    def choose(waiting: Sequence[int]) -> Sequence[int]:
        asked.append(list(waiting))
        return [waiting[0], waiting[-1]]

    assert schedule.take(choose=choose) == [(1, 'b'), (2, 'c')]
    assert schedule.take(choose=lambda waiting: waiting) == [(0, 'a')]
    assert asked == [[1, 0, 2]]


def test_whoever_knows_of_another_time_wakes_it() -> None:
    woken_s = []
    # The best of some: the machine may have other work.
    for _ in range(5):
        schedule: Schedule[int] = Schedule(1)
        schedule.put(0, 1)
        begin_s = [time.monotonic() + 60.0]
        asked = threading.Event()

        def not_before_s(begin_s: list[float] = begin_s, asked: threading.Event = asked) -> float:
            asked.set()
            return begin_s[0]

        with ThreadPoolExecutor(1) as pool:
            taken = pool.submit(schedule.take, not_before_s)
            assert asked.wait(60)
            begin_s[0] = 0.0
            started_s = time.monotonic()
            schedule.wake()
            assert taken.result(60) == [(0, 1)]
        woken_s.append(time.monotonic() - started_s)
    # Asking again and again would have found out, too, only later.
    assert min(woken_s) < ASKED_AGAIN_S / 2


def test_closed_schedule_gives_everything_back() -> None:
    schedule: Schedule[int] = Schedule(2)
    schedule.put(1, 5)
    schedule.put(0, 4)
    assert list(schedule.close()) == [(1, 5), (0, 4)]
    assert list(schedule.close()) == []
    assert schedule.put(0, 2) == 2
    assert schedule.take() == []


@pytest.mark.parametrize('rest_s', [0.0, 3600.0])
def test_close_ends_a_waiting_worker(rest_s: float) -> None:
    schedule: Schedule[int] = Schedule(1)
    taken: list[object] = []
    worker = threading.Thread(
        target=lambda: taken.append(schedule.take(lambda: time.monotonic() + rest_s))
    )
    worker.start()
    schedule.close()
    worker.join(60)
    assert not worker.is_alive()
    assert taken == [[]]


def test_a_frame_may_be_replaced_until_its_time() -> None:
    now_s = [0.0]
    schedule: Schedule[int] = Schedule(1, lambda: now_s[0])
    schedule.put(0, 1)
    asked = threading.Event()

    def not_before_s() -> float:
        asked.set()
        return 1.0

    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(schedule.take, not_before_s)
        assert asked.wait(60)
        assert schedule.put(0, 2) == 1
        time.sleep(2 * ASKED_AGAIN_S)
        assert not taken.done()
        now_s[0] = 1.0
        assert taken.result(60) == [(0, 2)]


def test_the_time_may_change_meanwhile() -> None:
    schedule: Schedule[int] = Schedule(1)
    schedule.put(0, 1)
    end_s = [time.monotonic() + 1e12]
    sooner = threading.Timer(0.05, end_s.__setitem__, (0, 0.0))
    sooner.start()
    started_s = time.monotonic()
    assert schedule.take(lambda: end_s[0]) == [(0, 1)]
    assert time.monotonic() - started_s < 60
    sooner.join()


def test_no_frame_is_lost_between_threads() -> None:
    schedule: Schedule[int] = Schedule(3)
    taken: list[tuple[int, int]] = []
    given_back: list[tuple[int, int]] = []

    def work() -> None:
        while items := schedule.take():
            taken.extend(items)

    def see(camera: int) -> None:
        for frame in range(1, 3001):
            dropped = schedule.put(camera, frame)
            if dropped is not None:
                given_back.append((camera, dropped))

    worker = threading.Thread(target=work)
    cameras = [threading.Thread(target=see, args=(camera,)) for camera in range(3)]
    for thread in (worker, *cameras):
        thread.start()
    for thread in cameras:
        thread.join(60)
    left = list(schedule.close())
    worker.join(60)
    everything = [(camera, frame) for camera in range(3) for frame in range(1, 3001)]
    assert sorted(taken + given_back + left) == everything
    for camera in range(3):
        frames = [frame for number, frame in taken if number == camera]
        assert frames == sorted(frames)
