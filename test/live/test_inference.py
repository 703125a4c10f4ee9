# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What is measured of a size, and what follows from it for batches and for the resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from segnode.config import Config
from segnode.engine import Engine, Segmentation
from segnode.errors import OutOfMemoryError
from segnode.image import Image
from segnode.live import pipeline
from segnode.live.inference import ATTEMPTS, SETTLED_S, TIMED, Inference
from segnode.live.pipeline import Answered, Decoded, Frame
from segnode.live.resolution import SCALES
from segnode.live.schedule import ScheduleConfig

SMALL, LARGE = (60, 80), (90, 120)


class Clock:
    """Passes as it is told to, so that nothing else on the machine decides a test."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def pass_ms(self, ms: float) -> None:
        self.now_s += ms / 1e3


class TimedEngine:
    """A real engine that takes as long as it is told to, by scale and number of frames."""

    def __init__(self, alone_ms: float, further_ms: float) -> None:
        self.clock = Clock()
        self.engine = Engine(
            Config(device='cpu').replace({'model': 'null', 'resolution.short_side': 60})
        )
        self.alone_ms = alone_ms
        self.further_ms = further_ms
        self.calls: list[tuple[int, float]] = []
        self.reserved = 0
        self.by_height: dict[int, float] = {}
        self.fails: type[Exception] | None = None
        self.held_up: dict[float, int] = {}
        self.after: dict[int, Callable[[], None]] = {}

    @property
    def settings(self) -> object:
        return self.engine.settings

    def reserve(self, paths: int) -> None:
        self.reserved = paths

    def segment(
        self,
        images: Sequence[Image],
        *,
        scale: float = 1.0,
        raw_masks: bool = False,
        whole_masks: bool = False,
    ) -> list[Segmentation]:
        self.calls.append((len(images), scale))
        self.after.get(len(self.calls), lambda: None)()
        if self.fails and (len(images) > 1 or scale < 0.7):
            raise self.fails('no')
        alone_ms = self.by_height.get(images[0].height, self.alone_ms)
        if self.held_up.get(scale, 0) > 0:
            self.held_up[scale] -= 1
            self.clock.pass_ms(alone_ms)
        self.clock.pass_ms((alone_ms + self.further_ms * (len(images) - 1)) * scale**2)
        return self.engine.segment(
            images, scale=scale, raw_masks=raw_masks, whole_masks=whole_masks
        )


def decoded(
    image_hw: tuple[int, int], stamp: str = 'stamp', received_s: float = 0.0
) -> Decoded[str]:
    image = Image(np.zeros((*image_hw, 3), np.uint8), 'bgr')
    return pipeline.decode(Frame(b'', received_s), lambda _: (stamp, image))


class Bench:
    """An inference with everything that it is asked and says."""

    def __init__(self, engine: TimedEngine, cameras: int, **settings: float) -> None:
        self.schedule = ScheduleConfig(**settings)
        self.said: list[str] = []
        self.failed: list[tuple[int, Exception]] = []
        self.engine = engine
        self.inference: Inference[str] = Inference(
            engine,  # type: ignore[arg-type]
            lambda: self.schedule,
            cameras,
            self.said.append,
            engine.clock,
        )

    def answer(self, *frames: tuple[int, Decoded[str]], raw: bool = False) -> list[Answered[str]]:
        return [
            answered
            for _, answered in self.inference.answer(
                list(frames), lambda _: raw, lambda *failed: self.failed.append(failed)
            )
        ]

    def publish(self, camera: int, image_hw: tuple[int, int]) -> Answered[str]:
        """Answer a frame that has just come, and tell its age."""
        clock = self.engine.clock
        clock.pass_ms(1)
        received_s = clock()
        (answered,) = self.answer((camera, decoded(image_hw, received_s=received_s)))
        self.inference.observe(answered, (clock() - received_s) * 1e3)
        return answered


def test_nothing_is_rehearsed_where_nothing_is_to_be_decided() -> None:
    bench = Bench(TimedEngine(1, 1), 3)
    for _ in range(4):
        bench.answer((0, decoded(SMALL)))
    assert bench.engine.calls == [(1, 1.0)] * 4
    assert not bench.said
    assert bench.inference.choose([2, 0, 1]) == [2]


def test_frames_go_together_where_that_is_sooner_on_average() -> None:
    """Alone 20 ms, three together 24: on average 24 ms in place of 40."""
    bench = Bench(TimedEngine(20, 2), 3, max_batch=8)
    for camera, size in enumerate((SMALL, SMALL, LARGE)):
        bench.answer((camera, decoded(size)))
    assert not bench.said  # None has come again.
    bench.answer((0, decoded(SMALL)))
    assert bench.engine.reserved == 3
    assert '2 together' in bench.said[0]
    # The oldest first, those alone of its kind.
    assert bench.inference.choose([1, 2, 0]) == [1, 0]
    assert bench.inference.choose([2, 1, 0]) == [2]
    bench.schedule = replace(bench.schedule, max_batch=1)
    assert bench.inference.choose([1, 2, 0]) == [1]
    bench.schedule = replace(bench.schedule, max_batch=8)
    before = len(bench.engine.calls)
    answers = bench.answer((0, decoded(SMALL, 'a')), (1, decoded(SMALL, 'b')))
    assert [answered.header for answered in answers] == ['a', 'b']
    assert bench.engine.calls[before:] == [(2, 1.0)]


def test_frames_do_not_go_together_where_the_first_would_wait_for_nothing() -> None:
    """Alone 30 ms, two together 55: on average 55 ms in place of 45."""
    bench = Bench(TimedEngine(30, 25), 3, max_batch=3)
    for _ in range(2):
        bench.answer((0, decoded(SMALL)), (1, decoded(SMALL)))
    assert (3, 1.0) not in bench.engine.calls  # It would be no better.
    assert bench.inference.choose([1, 0]) == [1]


def test_sizes_that_were_taken_together_may_differ() -> None:
    bench = Bench(TimedEngine(1, 1), 3, max_batch=3)
    answers = bench.answer(
        (0, decoded(SMALL, 'a')), (1, decoded(LARGE, 'b')), (2, decoded(LARGE, 'c'))
    )
    assert [answered.header for answered in answers] == ['a', 'b', 'c']
    assert [a.result.label_image.shape for a in answers] == [SMALL, LARGE, LARGE]


@pytest.mark.parametrize('fails', [OutOfMemoryError, RuntimeError])
def test_a_batch_that_fails_costs_no_frame(fails: type[Exception]) -> None:
    bench = Bench(TimedEngine(10, 0), 2, max_batch=2)
    bench.engine.fails = fails
    for _ in range(2):
        bench.answer((0, decoded(SMALL)))
    assert 'never together (no)' in bench.said[-1]
    assert bench.inference.choose([1, 0]) == [1]
    # And one that did not fail at first.
    bench = Bench(TimedEngine(10, 0), 2, max_batch=2)
    for _ in range(2):
        for camera in range(2):
            bench.answer((camera, decoded(SMALL)))
    assert bench.inference.choose([1, 0]) == [1, 0]
    bench.engine.fails = fails
    answers = bench.answer((0, decoded(SMALL, 'a')), (1, decoded(SMALL, 'b')))
    assert [answered.header for answered in answers] == ['a', 'b']
    assert not bench.failed
    assert 'one by one from here on: no' in bench.said[-1]
    assert bench.inference.choose([1, 0]) == [1]


def test_what_fails_alone_is_told() -> None:
    bench = Bench(TimedEngine(30, 0), 2, latency_budget_ms=1.0)
    bench.engine.fails = RuntimeError
    for _ in range(12):
        bench.publish(1, SMALL)
    # The sizes that fail are found out when they are rehearsed, not by the frames.
    assert not bench.failed
    assert bench.inference.scale == 0.8
    assert 'at 80% of the network input' in bench.inference.budget_missed


def test_the_resolution_keeps_the_budget_without_building_in_mid_stream() -> None:
    bench = Bench(TimedEngine(40, 0), 1, latency_budget_ms=24.0)
    answers: list[Answered[str]] = []
    while bench.engine.clock() < 1.5:
        answers.append(bench.publish(0, SMALL))
    rehearsed = [scale for _, scale in bench.engine.calls[1:13]]
    assert rehearsed == [scale for scale in SCALES[:4] for _ in range(TIMED)]
    assert f'rehearsed {SMALL[0]}x{SMALL[1]}' in bench.said[0]
    assert len(bench.said) == 1
    assert answers[0].scale == 1
    assert answers[-1].scale < 0.7
    height, width = answers[-1].result.network_hw
    assert height == round(60 * answers[-1].scale)
    assert width == pytest.approx(height * 4 / 3, abs=1)
    # Off and on again, it begins anew.
    bench.schedule = replace(bench.schedule, latency_budget_ms=0.0)
    (answered,) = bench.answer((0, decoded(SMALL)))
    assert answered.scale == 1


@pytest.mark.parametrize(('held_up', 'usable'), [(TIMED, 5), (ATTEMPTS * TIMED, 2)])
def test_a_smaller_input_is_measured_again_before_it_is_given_up(
    held_up: int, usable: int
) -> None:
    bench = Bench(TimedEngine(20, 0), 1, latency_budget_ms=1000.0)
    bench.engine.held_up = {SCALES[2]: held_up}
    for _ in range(2):
        bench.answer((0, decoded(SMALL)))
    (said,) = bench.said
    assert ('of no use' in said) == (usable < len(SCALES))
    assert {scale for _, scale in bench.engine.calls} == {*SCALES[: usable + 1]}


def test_sizes_that_do_not_stay_are_not_rehearsed() -> None:
    bench = Bench(TimedEngine(1, 0), 1, latency_budget_ms=1000.0)
    for number in range(40):
        bench.answer((0, decoded((40 + number % 20, 60))))
    assert len(bench.engine.calls) == 40
    assert not bench.said


def test_raw_masks_are_made_for_who_wants_them() -> None:
    bench = Bench(TimedEngine(1, 0), 2)
    (without,) = bench.answer((0, decoded(SMALL)))
    (with_them,) = bench.answer((0, decoded(SMALL)), raw=True)
    assert without.result.raw_masks is None
    raw = with_them.result.raw_masks
    assert raw is not None
    assert raw.shape == (len(with_them.result.detections), 28, 28)
    assert raw.dtype == np.uint8
    assert raw.max() > 200


def test_cameras_of_different_cost_share_one_budget() -> None:
    """The slow one's decides: the fast one must not lead it up and down."""
    engine = TimedEngine(0, 0)
    bench = Bench(engine, 2, latency_budget_ms=75.0)
    engine.by_height = {SMALL[0]: 8.0, LARGE[0]: 90.0}
    scales = []
    while engine.clock() < 3:
        for camera, size in enumerate((SMALL, LARGE)):
            scales.append(bench.publish(camera, size).scale)
    assert len(bench.said) == 2
    settled = scales[len(scales) // 2 :]
    # It may try the next one.
    assert set(settled) <= {0.8, 0.64}


def test_changes_have_to_settle() -> None:
    bench = Bench(TimedEngine(1, 0), 1, latency_budget_ms=1000.0)
    for _ in range(3):
        bench.answer((0, decoded(SMALL)))
    assert len(bench.said) == 1
    for number in range(10):
        config = bench.engine.engine.config.replace({'resolution.short_side': 50 + number})
        bench.engine.engine.configure(config)
        before = len(bench.engine.calls)
        for _ in range(3):
            bench.answer((0, decoded(SMALL)))
        assert len(bench.engine.calls) == before + 3
    bench.engine.clock.pass_ms(SETTLED_S * 1e3)
    bench.answer((0, decoded(SMALL)))
    assert len(bench.said) == 2


def test_a_rehearsal_ends_when_it_is_told_to() -> None:
    bench = Bench(TimedEngine(150, 0), 1, latency_budget_ms=1000.0)
    bench.answer((0, decoded(SMALL)))
    bench.engine.after[3] = bench.inference.close
    (answered,) = bench.answer((0, decoded(SMALL)))
    # Two of the rehearsal, and the frame.
    assert len(bench.engine.calls) == 4
    assert answered.scale == 1
    assert not bench.said
