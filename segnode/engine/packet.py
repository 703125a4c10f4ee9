# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the device tells the host of a frame's detections, in one small copy.

Shapes: D detections.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from segnode.engine.answers import Counts
from segnode.kernels.plain.choose import FIELDS, HEADER


class Packet(NamedTuple):
    """One image's detections that get a mask, on the host.

    Attributes:
        boxes: (D, 4) float32 xyxy, input pixels.
        scores: (D,) float32, highest first.
        class_ids: (D,) int64.
        counts: before masks are pasted.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int64]
    counts: Counts


def read_packet(packet: npt.NDArray[np.float32], count: int) -> Packet:
    """Read one image's row of a packet, ``count`` detections of it."""
    _, detected, filtered_class, filtered_area, overflow = packet[:HEADER].astype(int).tolist()
    rows = packet[HEADER : HEADER + count * FIELDS].reshape(count, FIELDS).copy()
    counts = Counts(
        detected=detected,
        filtered_class=filtered_class,
        filtered_area=filtered_area,
        candidate_overflow=overflow,
    )
    return Packet(rows[:, :4], rows[:, 4].copy(), rows[:, 5].astype(np.int64), counts)
