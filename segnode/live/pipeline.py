# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The way of a frame from a message's bytes to its answer, and where its time went.

A node and the replay of a bag share it: they differ in where bytes come from and answers go.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from segnode.engine import Engine, Segmentation
from segnode.engine.timing import StageClock
from segnode.image import Image

Header = TypeVar('Header')


class StaleFrame(Exception):  # noqa: N818 - nothing is wrong with it
    """A frame is too old to be worth the device's time."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A serialised image message and when it came (monotonic seconds)."""

    data: bytes
    received_s: float


@dataclass(frozen=True, slots=True)
class Processed(Generic[Header]):
    """What became of one frame.

    Attributes:
        header: of the message.
        result: the engine's answer.
        stage_ms: milliseconds by stage: wait, decode, those of the engine, publish.
    """

    header: Header
    result: Segmentation
    stage_ms: dict[str, float]


class Pipeline(Generic[Header]):
    """Decodes, segments and delivers one frame after the other, in the caller's thread."""

    def __init__(
        self,
        engine: Engine,
        decode: Callable[[bytes], tuple[Header, Image]],
        deliver: Callable[[Header, Image, Segmentation], None],
        admit: Callable[[Header], None] = lambda _: None,
    ) -> None:
        """Take the steps.

        Args:
            engine: with its settings.
            decode: gives header and pixels of a message; raises ImageError.
            deliver: takes the answer; its time counts as ``publish``.
            admit: raises StaleFrame for what must not reach the engine any more.
        """
        self._engine = engine
        self._decode = decode
        self._deliver = deliver
        self._admit = admit

    def process(self, frame: Frame) -> Processed[Header]:
        """Answer one frame.

        Raises:
            ImageError: it cannot be decoded.
            StaleFrame: it was not admitted.
            SegnodeError: the engine refused it.
        """
        clock = StageClock()
        wait_ms = (time.monotonic() - frame.received_s) * 1e3
        with clock.stage('decode'):
            header, image = self._decode(frame.data)
        self._admit(header)
        (result,) = self._engine.segment([image])
        with clock.stage('publish'):
            self._deliver(header, image, result)
        host_ms = clock.milliseconds()
        stage_ms = {
            'wait': wait_ms,
            'decode': host_ms['decode'],
            **result.stage_ms,
            'publish': host_ms['publish'],
        }
        return Processed(header, result, stage_ms)
