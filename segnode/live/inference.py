# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""How frames go through the engine: which of them together, and at what resolution.

Both are decided by what was measured: an image size that keeps coming is rehearsed once, at every
scale and number of frames that may be needed, so that nothing is built in mid-stream.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic

from segnode.engine import Engine
from segnode.errors import first_line
from segnode.image import Image
from segnode.live.pipeline import Answered, Decoded, Header, segment
from segnode.live.resolution import SCALES, LatencyBudget
from segnode.live.schedule import ScheduleConfig

# The first run builds what it needs, and the others may be disturbed.
TIMED = 3
# Measured so often before a smaller input is taken for one of no use, as that holds for good.
ATTEMPTS = 3
# What the settings have to stay for before a size is rehearsed with them.
SETTLED_S = 1.0
# A smaller input that takes more than this of the larger one's time is of no use.
OF_USE = 0.9
KINDS = 8


@dataclass(frozen=True, slots=True)
class Kind:
    """What frames have in common that can be answered together."""

    image_hw: tuple[int, int]
    order: str

    @classmethod
    def of(cls, image: Image) -> Kind:
        """Return the kind of an image."""
        return cls((image.height, image.width), image.order)


@dataclass(slots=True)
class Measured:
    """What inference of a kind takes.

    Attributes:
        alone_ms: of one frame, at each of ``SCALES`` that is of use.
        most: most frames that are answered together, at each of the same.
    """

    alone_ms: list[float] = field(default_factory=list)
    most: list[int] = field(default_factory=list)


class Inference(Generic[Header]):
    """The engine, with what is to be decided for each frame.

    One thread runs frames; others choose cameras and tell ages.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Callable[[], ScheduleConfig],
        cameras: int,
        report: Callable[[str], None],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the engine.

        Args:
            engine: with its settings.
            settings: asked at every frame.
            cameras: how many there are.
            report: is told in a line what was measured.
            monotonic_s: tells the time.
        """
        self._engine = engine
        self._settings = settings
        self._cameras = cameras
        self._report = report
        self._monotonic_s = monotonic_s
        self._kinds: dict[int, Kind] = {}
        self._measured: dict[Kind, Measured] = {}
        # What the measurements are made for, from when on, and when the last one ended.
        self._made_for: tuple[int, ...] = ()
        self._settled_s = self._rehearsed_s = monotonic_s()
        self._budget = LatencyBudget(cameras, monotonic_s)
        self._budget_ms = 0.0
        # By how much inference lately took longer than it did when it was rehearsed.
        self._slower: deque[float] = deque(maxlen=20)
        self._closed = threading.Event()

    def close(self) -> None:
        """Rehearse no more; frames that are under way are still answered."""
        self._closed.set()

    @property
    def scale(self) -> float:
        """Part of the network's input sides to run the next frame at."""
        return self._budget.scale if self._settings().latency_budget_ms else 1.0

    @property
    def budget_missed(self) -> str:
        """That frames are too old whatever is done; empty where they are not."""
        return self._budget.missed if self._settings().latency_budget_ms else ''

    def choose(self, waiting: Sequence[int]) -> Sequence[int]:
        """Return the cameras whose frames are taken together, by the kinds that they last had."""
        kind = self._kinds.get(waiting[0])
        most = 1 if kind is None else self._most(kind, self.scale)
        if most == 1:
            return waiting[:1]
        return [camera for camera in waiting if self._kinds.get(camera) == kind][:most]

    def answer(
        self,
        frames: Sequence[tuple[int, Decoded[Header]]],
        wants_raw_masks: Callable[[int], bool],
        fail: Callable[[int, Exception], None],
    ) -> Iterator[tuple[int, Answered[Header]]]:
        """Answer the cameras' frames, those of one kind together.

        Args:
            frames: decoded, by camera.
            wants_raw_masks: asked for each camera.
            fail: told of each frame that cannot be answered.
        """
        for camera, frame in frames:
            kind = Kind.of(frame.image)
            # A size that never comes again is not worth it.
            if self._kinds.get(camera) == kind:
                self._rehearse_once(kind, frame.image)
            self._kinds[camera] = kind
        for kind, group in itertools.groupby(frames, lambda each: Kind.of(each[1].image)):
            scale, rest = self.scale, list(group)
            while rest:
                most = self._most(kind, scale)
                together, rest = rest[:most], rest[most:]
                yield from self._answer(together, scale, wants_raw_masks, fail)

    def observe(self, answered: Answered[Header], age_ms: float) -> None:
        """Note the age at which a frame was published."""
        budget_ms = self._settings().latency_budget_ms
        costs_ms = self._costs_ms()
        if budget_ms != self._budget_ms:
            self._budget_ms = budget_ms
            if budget_ms and costs_ms:
                self._budget.restart(budget_ms, costs_ms)
            else:
                self._budget.restart()
        # Frames that waited for a rehearsal are old for that alone.
        if budget_ms and costs_ms and answered.received_s > self._rehearsed_s:
            # Beside other work everything takes longer than when it was rehearsed.
            rehearsed_ms = dict(zip(SCALES, costs_ms, strict=False)).get(answered.scale)
            if rehearsed_ms:
                took_ms = sum(answered.result.stage_ms.values())
                self._slower.append(max(1.0, took_ms / rehearsed_ms))
            slower = statistics.median(self._slower or [1.0])
            costs_ms = [slower * cost_ms for cost_ms in costs_ms]
            self._budget.observe(age_ms, answered.scale, budget_ms, costs_ms)

    def _answer(
        self,
        frames: Sequence[tuple[int, Decoded[Header]]],
        scale: float,
        wants_raw_masks: Callable[[int], bool],
        fail: Callable[[int, Exception], None],
    ) -> Iterator[tuple[int, Answered[Header]]]:
        try:
            raw = any(wants_raw_masks(camera) for camera, _ in frames)
            answers = segment([f for _, f in frames], self._engine, scale, raw_masks=raw)
        except Exception as error:  # noqa: BLE001 - handed on
            if len(frames) == 1:
                fail(frames[0][0], error)
                return
            # One of them must not cost the others theirs, nor this be tried at every frame.
            self._report(f'frames go one by one from here on: {first_line(error)}')
            for measured in self._measured.values():
                measured.most = [1] * len(measured.most)
            for each in frames:
                yield from self._answer([each], scale, wants_raw_masks, fail)
            return
        for (camera, _), answered in zip(frames, answers, strict=True):
            yield camera, answered

    # What was measured

    def _most(self, kind: Kind, scale: float) -> int:
        """Return how many frames of a kind go together."""
        wanted, measured = self._settings().max_batch, self._measured.get(kind)
        if wanted == 1 or measured is None:
            return 1
        return min(wanted, dict(zip(SCALES, measured.most, strict=False)).get(scale, 1))

    def _costs_ms(self) -> list[float]:
        """Return what inference takes at each of ``SCALES``, of the slowest kind in use."""
        # Copied at once, as another thread may add a camera.
        used = [self._measured.get(kind) for kind in list(self._kinds.values())]
        known = [measured.alone_ms for measured in used if measured and measured.alone_ms]
        return [max(each) for each in zip(*known, strict=False)]

    def _rehearse_once(self, kind: Kind, image: Image) -> None:
        """Rehearse a kind where something is to be decided for it that is not known yet."""
        schedule, settings = self._settings(), self._engine.settings
        scales = SCALES if schedule.latency_budget_ms else SCALES[:1]
        most = min(schedule.max_batch, self._cameras)
        # What the time of a frame hangs on.
        wanted = (settings.short_side, settings.long_side, settings.proposals, len(scales), most)
        if wanted != self._made_for:
            if self._made_for:
                self._settled_s = self._monotonic_s() + SETTLED_S
            self._made_for = wanted
            self._measured.clear()
        if kind in self._measured or (len(scales) == 1 and most == 1) or self._closed.is_set():
            return
        if self._monotonic_s() < self._settled_s:
            return
        while len(self._measured) >= KINDS:
            del self._measured[next(iter(self._measured))]
        self._engine.reserve((len(self._measured) + 1) * len(scales) * most)
        began_s = self._monotonic_s()
        measured, said = self._rehearse(image, scales, most)
        if self._closed.is_set():
            return
        self._measured[kind] = measured
        self._rehearsed_s = self._monotonic_s()
        if costs_ms := self._costs_ms():
            self._budget.restart(schedule.latency_budget_ms, costs_ms)
        spent_s = self._rehearsed_s - began_s
        self._report(f'rehearsed {image.height}x{image.width} in {spent_s:.1f} s: {said}')

    def _rehearse(self, image: Image, scales: Sequence[float], most: int) -> tuple[Measured, str]:
        """Measure, and say what came out; what fails is of no use, and the frames will tell."""
        measured, said = Measured(), []
        for scale in scales:
            of_use_ms = OF_USE * measured.alone_ms[-1] if measured.alone_ms else math.inf
            alone_ms = math.inf
            try:
                for _ in range(ATTEMPTS):
                    alone_ms = min(alone_ms, self._time_ms(image, 1, scale))
                    if alone_ms <= of_use_ms:
                        break
            except Exception as error:  # noqa: BLE001 - see above
                said.append(f'none at {scale:.0%} ({first_line(error)})')
                break
            said.append(f'{alone_ms:.0f} ms at {scale:.0%}')
            if alone_ms > of_use_ms:
                said.append('which is of no use')
                break
            measured.alone_ms.append(alone_ms)
        measured.most = [1] * len(measured.alone_ms)
        for step, alone_ms in enumerate(measured.alone_ms):
            for frames in range(2, most + 1):
                # The mean of their answers' times, one after the other.
                in_turn_ms = alone_ms * (frames + 1) / 2
                try:
                    together_ms = self._time_ms(image, frames, scales[step])
                except Exception as error:  # noqa: BLE001 - see above
                    said.append(f'never together ({first_line(error)})')
                    measured.most = [1] * len(measured.alone_ms)
                    # Memory that ran out took along what had been built.
                    for scale in scales[: len(measured.alone_ms)]:
                        with contextlib.suppress(Exception):
                            self._time_ms(image, 1, scale)
                    return measured, ', '.join(said)
                said.append(f'{frames} together {together_ms:.0f}, in turn {in_turn_ms:.0f} ms')
                if together_ms >= in_turn_ms:
                    break
                measured.most[step] = frames
        return measured, ', '.join(said)

    def _time_ms(self, image: Image, frames: int, scale: float) -> float:
        """Return the least time of a few runs; none is begun any more once it is closed."""
        spent_s = [0.0]
        for run in range(TIMED):
            if self._closed.is_set():
                break
            began_s = self._monotonic_s()
            self._engine.segment([image] * frames, scale=scale)
            spent_s[run:] = [self._monotonic_s() - began_s]
        return min(spent_s) * 1e3
