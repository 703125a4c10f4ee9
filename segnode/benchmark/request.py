# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a benchmark is asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be measured.

    Attributes:
        shapes: H and W of the frames.
        detections: counts to plant, (None,) to leave what is found.
        batches: frames in a call.
        references: names of ``REFERENCES``.
        parts: time the parts on their own.
        rounds: timed, 0 for as many as suit the device.
    """

    shapes: tuple[tuple[int, int], ...]
    detections: tuple[int | None, ...]
    batches: tuple[int, ...]
    references: tuple[str, ...]
    parts: bool
    rounds: int

    @property
    def plant(self) -> bool:
        """Whether weights and detections are planted."""
        return self.detections != (None,)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRequest:
    """What is to be measured of the whole node.

    Attributes:
        shapes: H and W of the images.
        transports: raw, compressed.
        cameras: of the node.
        rate_hz: of each camera.
        seconds: for which each camera plays to the node, and to the relay, in a row.
    """

    shapes: tuple[tuple[int, int], ...]
    transports: tuple[str, ...]
    cameras: int
    rate_hz: float
    seconds: float

    def frames(self, rounds: int) -> int:
        """Return how many of each camera make up one of several rounds."""
        return max(2, round(self.rate_hz * self.seconds / rounds))
