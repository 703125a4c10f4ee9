# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""How frames go through the engine: which of them together, and at what resolution.

Both are decided by what was measured: an image size that keeps coming is rehearsed once, at every
scale and number of frames that may be needed, so that nothing is built in mid-stream.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic

from segnode.engine import Engine
from segnode.errors import first_line
from segnode.image import Image
from segnode.live.pipeline import Answered, Decoded, Header, segment
from segnode.live.resolution import SCALES, LatencyBudget
from segnode.live.schedule import ScheduleConfig

# A size is rehearsed when it comes for the second time: one that never does is not worth it.
COMES_AGAIN = 2
KINDS = 16
# The first run builds what it needs, and the others may be disturbed.
TIMED = 3


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
        alone_ms: of one frame at each of ``SCALES``, as far as they can be used.
        most: by scale, most frames that are answered together.
    """

    alone_ms: list[float]
    most: dict[float, int] = field(default_factory=dict)


class Inference(Generic[Header]):
    """The engine, with what is to be decided for each frame. One thread runs frames."""

    def __init__(
        self,
        engine: Engine,
        settings: Callable[[], ScheduleConfig],
        cameras: int,
        report: Callable[[str], None],
    ) -> None:
        """Take the engine.

        Args:
            engine: with its settings.
            settings: asked at every frame.
            cameras: how many there are.
            report: is told in a line what was measured.
        """
        self._engine = engine
        self._settings = settings
        self._cameras = cameras
        self._report = report
        self._kinds: dict[int, Kind] = {}
        self._seen: Counter[Kind] = Counter()
        self._measured: dict[Kind, Measured] = {}
        self._measured_for: tuple[float, ...] = ()
        self._budget_ms = 0.0
        self.budget = LatencyBudget()

    @property
    def scale(self) -> float:
        """Part of the network's input sides to run the next frame at."""
        return self.budget.scale if self._settings().latency_budget_ms else 1.0

    def choose(self, waiting: Sequence[int]) -> Sequence[int]:
        """Return the cameras whose frames are taken together, by the kinds that they last had."""
        if self._settings().max_batch == 1:
            return waiting[:1]
        kind = self._kinds.get(waiting[0])
        measured = None if kind is None else self._measured.get(kind)
        most = 1 if measured is None else measured.most.get(self.scale, 1)
        most = min(most, self._settings().max_batch)
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
            self._kinds[camera] = Kind.of(frame.image)
        for kind, group in itertools.groupby(frames, lambda each: Kind.of(each[1].image)):
            together = list(group)
            self._prepare(kind, together[0][1].image)
            yield from self._answer(together, wants_raw_masks, fail)

    def observe(self, answered: Answered[Header], age_ms: float) -> None:
        """Note the age at which a frame was published."""
        budget_ms = self._settings().latency_budget_ms
        if budget_ms != self._budget_ms:
            self._budget_ms = budget_ms
            self.budget.restart()
        if budget_ms:
            measured = self._measured.get(Kind.of(answered.image))
            if measured is not None:
                costs_ms = measured.alone_ms
            else:
                here_ms = sum(answered.result.stage_ms.values())
                costs_ms = [here_ms * (each / answered.scale) ** 2 for each in SCALES]
            self.budget.observe(age_ms, answered.scale, budget_ms, costs_ms)

    def _answer(
        self,
        frames: Sequence[tuple[int, Decoded[Header]]],
        wants_raw_masks: Callable[[int], bool],
        fail: Callable[[int, Exception], None],
    ) -> Iterator[tuple[int, Answered[Header]]]:
        raw = any(wants_raw_masks(camera) for camera, _ in frames)
        try:
            answers = segment([f for _, f in frames], self._engine, self.scale, raw_masks=raw)
        except Exception as error:  # noqa: BLE001 - handed on
            if len(frames) == 1:
                fail(frames[0][0], error)
                return
            # One of them must not cost the others theirs.
            for each in frames:
                yield from self._answer([each], wants_raw_masks, fail)
            return
        for (camera, _), answered in zip(frames, answers, strict=True):
            yield camera, answered

    # What was measured

    def _prepare(self, kind: Kind, image: Image) -> None:
        """Rehearse an image size that comes again, where something is to be decided for it."""
        schedule, settings = self._settings(), self._engine.settings
        scales = SCALES if schedule.latency_budget_ms else SCALES[:1]
        most = min(schedule.max_batch, self._cameras)
        # What the time of a frame hangs on.
        measured_for = (
            *(settings.short_side, settings.long_side),
            *(settings.proposals, settings.max_instances, len(scales), most),
        )
        if measured_for != self._measured_for:
            self._measured_for = measured_for
            self._measured.clear()
        if kind in self._measured or (len(scales) == 1 and most == 1):
            return
        if len(self._seen) > KINDS:
            self._seen.clear()
        self._seen[kind] += 1
        if self._seen[kind] >= COMES_AGAIN:
            while len(self._measured) >= KINDS:
                del self._measured[next(iter(self._measured))]
            self._measured[kind] = self._rehearse(image, scales, most)

    def _rehearse(self, image: Image, scales: Sequence[float], most: int) -> Measured:
        began_s = time.monotonic()
        self._engine.reserve(len(scales) * most)
        alone_ms: list[float] = []
        together: dict[float, int] = {}
        said = []
        try:
            for scale in scales:
                alone_ms.append(self._time_ms(image, 1, scale))
                said.append(f'{alone_ms[-1]:.0f} ms at {scale:.0%}')
                together[scale] = 1
                for frames in range(2, most + 1):
                    batch_ms = self._time_ms(image, frames, scale)
                    # The mean of their answers' times, one after the other.
                    in_turn_ms = alone_ms[-1] * (frames + 1) / 2
                    said.append(
                        f'{frames} together {batch_ms:.0f} ms, in turn {in_turn_ms:.0f} ms'
                    )
                    if batch_ms >= in_turn_ms:
                        break
                    together[scale] = frames
        except Exception as error:  # noqa: BLE001 - the frames themselves will tell of it
            said.append(f'no further, as {first_line(error)}')
        height, width = image.height, image.width
        self._report(
            f'rehearsed {height}x{width} in {time.monotonic() - began_s:.1f} s: {", ".join(said)}'
        )
        return Measured(alone_ms, together)

    def _time_ms(self, image: Image, frames: int, scale: float) -> float:
        spent_s = []
        for _ in range(TIMED):
            began_s = time.monotonic()
            self._engine.segment([image] * frames, scale=scale)
            spent_s.append(time.monotonic() - began_s)
        return min(spent_s) * 1e3
