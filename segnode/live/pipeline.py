# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The way of a frame from a message's bytes to its answer, and where its time went.

A node and the replay of a bag share it: they differ in where bytes come from, where answers go,
and in that a node does the three steps of successive frames at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from segnode.engine import Engine, Segmentation
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
class Decoded(Generic[Header]):
    """A frame that is ready for the engine.

    Attributes:
        header: of the message.
        image: its pixels.
        received_s: when the message came, monotonic.
        decoded_s: when it was decoded, monotonic.
        stage_ms: milliseconds by stage so far: wait, decode.
    """

    header: Header
    image: Image
    received_s: float
    decoded_s: float
    stage_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Answered(Generic[Header]):
    """A frame and the engine's answer.

    Attributes:
        header: of the message.
        image: its pixels.
        result: the engine's answer.
        scale: of the network's input, 1 for the size of the settings.
        received_s: when the message came, monotonic.
        answered_s: when the engine had answered, monotonic.
        stage_ms: milliseconds by stage so far: wait, decode, device_wait, those of the engine.
    """

    header: Header
    image: Image
    result: Segmentation
    scale: float
    received_s: float
    answered_s: float
    stage_ms: dict[str, float]


def decode(
    frame: Frame,
    read: Callable[[bytes], tuple[Header, Image]],
    admit: Callable[[Header], None] = lambda _: None,
) -> Decoded[Header]:
    """Make a frame ready for the engine.

    Args:
        frame: as it came.
        read: gives header and pixels of a message.
        admit: raises StaleFrame for what must not reach the engine any more.

    Raises:
        ImageError: it cannot be decoded.
        StaleFrame: it was not admitted.
    """
    began_s = time.monotonic()
    header, image = read(frame.data)
    admit(header)
    decoded_s = time.monotonic()
    stage_ms = {
        'wait': (began_s - frame.received_s) * 1e3,
        'decode': (decoded_s - began_s) * 1e3,
    }
    return Decoded(header, image, frame.received_s, decoded_s, stage_ms)


def segment(
    frames: Sequence[Decoded[Header]],
    engine: Engine,
    scale: float = 1.0,
    *,
    raw_masks: bool = False,
    whole_masks: bool = False,
) -> list[Answered[Header]]:
    """Answer frames of one size, together.

    Args:
        frames: that are decoded.
        engine: with its settings.
        scale: of the network's input, 1 for the size of the settings.
        raw_masks: whether the network's own masks are wanted, too.
        whole_masks: whether every instance's mask is wanted, too, covered or not.

    Raises:
        SegnodeError: the engine refused them.
    """
    began_s = time.monotonic()
    results = engine.segment(
        [f.image for f in frames], scale=scale, raw_masks=raw_masks, whole_masks=whole_masks
    )
    answered_s = time.monotonic()
    return [
        Answered(
            frame.header,
            frame.image,
            result,
            scale,
            frame.received_s,
            answered_s,
            {
                **frame.stage_ms,
                'device_wait': (began_s - frame.decoded_s) * 1e3,
                **result.stage_ms,
            },
        )
        for frame, result in zip(frames, results, strict=True)
    ]


def deliver(
    answered: Answered[Header], give: Callable[[Header, Image, Segmentation], None]
) -> dict[str, float]:
    """Give the answer away; return milliseconds by stage, with publish_wait and publish."""
    began_s = time.monotonic()
    give(answered.header, answered.image, answered.result)
    return {
        **answered.stage_ms,
        'publish_wait': (began_s - answered.answered_s) * 1e3,
        'publish': (time.monotonic() - began_s) * 1e3,
    }
