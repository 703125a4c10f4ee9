# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the device tells the host of a frame's detections, in one small copy.

Shapes: N images, D detections.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segnode.engine.answers import Counts
from segnode.model.box_head import BoxDetections
from segnode.model.mask_filter import FilteredDetections

# Fields of the packet's header: kept, detected, filtered_class, filtered_area, overflow.
HEADER = 5
# Fields of a detection in the packet: box, score, class index.
FIELDS = 6


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


def make_packet(detections: BoxDetections, filtered: FilteredDetections, order: Tensor) -> Tensor:
    """Lay out counts and detections, in ``order`` (N, D): (N, HEADER + D * FIELDS) float32."""
    header = (
        filtered.keep.sum(1),
        detections.valid.sum(1),
        detections.filtered_class,
        filtered.filtered_area,
        detections.overflow,
    )
    rows = (
        filtered.boxes,
        detections.scores[..., None],
        detections.class_ids[..., None].float(),
    )
    table = torch.cat(rows, dim=-1).gather(1, order[..., None].expand(-1, -1, FIELDS))
    return torch.cat((torch.stack(header, dim=1).float(), table.flatten(1)), dim=1)


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
