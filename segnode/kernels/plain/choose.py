# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Detections that get a mask, moved to the front, and what the host is told of them.

Shapes: N images, D detections.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from segnode.model.architecture import Semantics
from segnode.model.box_head import BoxDetections
from segnode.model.mask_filter import filter_detections

# Fields of the packet's header: kept, detected, filtered_class, filtered_area, overflow.
HEADER = 5
# Fields of a detection in the packet: box, score, class index.
FIELDS = 6


class Choice(NamedTuple):
    """Detections in an order in which those that get a mask come first; highest score first.

    Attributes:
        network_boxes: (N, D, 4) float32 xyxy, network pixels.
        boxes: (N, D, 4) float32 xyxy, input pixels.
        class_ids: (N, D) int64.
        keep: (N, D) bool, which get a mask.
        packet: (N, HEADER + D * FIELDS) float32, counts and detections for the host.
    """

    network_boxes: Tensor
    boxes: Tensor
    class_ids: Tensor
    keep: Tensor
    packet: Tensor


def choose_static(
    detections: BoxDetections,
    network_hw: tuple[int, int],
    image_hw: tuple[int, int],
    *,
    min_mask_area: Tensor,
    cells: int,
    mask_threshold: Tensor,
    semantics: Semantics,
) -> Choice:
    """Filter as ``filter_detections`` does, sort and lay out: one shape, no host stop.

    Args:
        detections: in network pixels.
        network_hw: network input before padding.
        image_hw: the input image.
        min_mask_area: () int64, input pixels.
        cells: the side of a mask.
        mask_threshold: () float32, probability from which a pixel is set.
        semantics: whether boxes are clipped, and whose paste follows.
    """
    filtered = filter_detections(
        detections.boxes,
        detections.valid,
        network_hw,
        image_hw,
        min_mask_area=min_mask_area,
        cells=cells,
        mask_threshold=mask_threshold,
        semantics=semantics,
    )
    keep = filtered.keep
    order = torch.sort(keep.to(torch.uint8), dim=1, descending=True, stable=True)[1]
    scores, class_ids = detections.scores[..., None], detections.class_ids
    rows = torch.cat(
        (detections.boxes, filtered.boxes, scores, class_ids[..., None].float()), dim=-1
    )
    rows = rows.gather(1, order[..., None].expand(-1, -1, rows.shape[-1]))
    network_boxes, told = rows.split((4, FIELDS), dim=-1)
    header = (
        keep.sum(1),
        detections.valid.sum(1),
        detections.filtered_class,
        filtered.filtered_area,
        detections.overflow,
    )
    return Choice(
        network_boxes.contiguous(),
        told[..., :4].contiguous(),
        class_ids.gather(1, order),
        keep.gather(1, order),
        torch.cat((torch.stack(header, dim=1).float(), told.flatten(1)), dim=1),
    )
