# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What is timed: segnode and others, from uint8 frames on the host to answers on the host.

Shapes: D detections, H and W of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segnode.benchmark.planted import PlantedDetections
from segnode.engine import Engine
from segnode.errors import MeasurementError
from segnode.image import Image

# What two implementations of one network may differ by in float32.
BOX_TOLERANCE_PX = 0.05
SCORE_TOLERANCE = 1e-3
LEAST_AGREEMENT = 0.999


@dataclass(frozen=True, slots=True)
class Answer:
    """What every contender gives for one frame, all of it on the host.

    Attributes:
        boxes: (D, 4) float32 xyxy, pixels of the frame, highest score first.
        scores: (D,) float32.
        class_ids: (D,) int64, 0-based.
        labels: (H, W) uint16; 0 is background, k is detection k - 1.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One setting of the benchmark.

    Attributes:
        image_hw: size of the frames, which is the network's input as well.
        batch: frames in one call.
        planted: takes the place of what is found, None to leave that.
    """

    image_hw: tuple[int, int]
    batch: int
    planted: PlantedDetections | None


class Contender(Protocol):
    """An implementation under the clock.

    Attributes:
        name: for the report.
        precision: its number format.
    """

    name: str
    precision: str

    def prepare(self, case: Case) -> None:
        """Get ready for a case; not timed."""
        ...

    def run(self, frames: Sequence[Image]) -> list[Answer]:
        """Answer frames of one size."""
        ...


class SegnodeContender:
    """The engine, as the node and ``predict`` run it.

    Attributes:
        stages: milliseconds by stage of every call since they were last cleared.
        overflow: in some call more candidates were found than NMS takes.
    """

    name = 'segnode'

    def __init__(self, engine: Engine) -> None:
        """Take an engine; its resolution and detections will be changed."""
        self.engine = engine
        self.precision = engine.precision
        self.stages: list[dict[str, float]] = []
        self.overflow = False

    def prepare(self, case: Case) -> None:
        """Set the network's input to the frames' size, and plant."""
        self.overflow = False
        self.engine.replace_detections(None if case.planted is None else case.planted.replace)
        sides = {
            'resolution.short_side': min(case.image_hw),
            'resolution.long_side': max(case.image_hw),
        }
        self.engine.configure(self.engine.config.replace(sides))

    def run(self, frames: Sequence[Image]) -> list[Answer]:
        """Answer frames of one size."""
        answers = self.engine.segment(frames)
        self.stages.append(answers[0].stage_ms)
        self.overflow |= any(answer.counts.candidate_overflow for answer in answers)
        return [
            Answer(
                answer.detections.boxes_xyxy,
                answer.detections.scores,
                answer.detections.class_ids,
                answer.label_image,
            )
            for answer in answers
        ]


def agreement(ours: Sequence[Answer], theirs: Sequence[Answer]) -> float:
    """Return the share of pixels that have the same label."""
    equal = [np.mean(a.labels == b.labels) for a, b in zip(ours, theirs, strict=True)]
    return float(np.mean(equal))


def check_counts(answers: Sequence[Answer], planted: PlantedDetections | None, name: str) -> None:
    """Refuse a contender that did not answer every planted detection.

    Raises:
        MeasurementError: it has more or fewer.
    """
    if planted is None:
        return
    for answer in answers:
        if len(answer.scores) != len(planted):
            raise MeasurementError(
                f'{name}: expected the {len(planted)} planted detections, found '
                f'{len(answer.scores)}; nothing was timed'
            )


def check_equal(ours: Sequence[Answer], theirs: Sequence[Answer], name: str) -> float:
    """Refuse to time what does not do the same; both in float32.

    Returns:
        The share of pixels that have the same label.

    Raises:
        MeasurementError: detections or label images differ.
    """
    for a, b in zip(ours, theirs, strict=True):
        problem = ''
        if len(a.scores) != len(b.scores):
            problem = f'{len(a.scores)} and {len(b.scores)} detections'
        elif not np.array_equal(a.class_ids, b.class_ids):
            problem = 'other classes'
        elif not np.allclose(a.boxes, b.boxes, rtol=0, atol=BOX_TOLERANCE_PX):
            problem = f'boxes {np.abs(a.boxes - b.boxes).max():.3g} px apart'
        elif not np.allclose(a.scores, b.scores, rtol=0, atol=SCORE_TOLERANCE):
            problem = f'scores {np.abs(a.scores - b.scores).max():.3g} apart'
        if problem:
            raise MeasurementError(
                f'segnode and {name} differ in fp32: {problem}; nothing was timed'
            )
    share = agreement(ours, theirs)
    if share < LEAST_AGREEMENT:
        raise MeasurementError(
            f'segnode and {name} differ in fp32: expected {LEAST_AGREEMENT} of the pixels to '
            f'have one label, found {share:.4f}; nothing was timed'
        )
    return share
