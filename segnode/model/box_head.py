# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Box head and the selection of detections (Detectron2's ``box_head.py``, ``fast_rcnn.py``).

Shapes: N images, P proposals, C classes, K candidates, D detections, F hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnode.model.architecture import Architecture
from segnode.model.backbone.layers import Linear
from segnode.model.boxes import are_finite, clip_boxes, decode_boxes, smaller_sides, top_k
from segnode.model.conv import Conv
from segnode.model.nms import NMS
from segnode.model.rpn import Proposals


@dataclass(frozen=True, slots=True)
class BoxDetections:
    """What the box head found, highest score first, in one fixed shape.

    Attributes:
        boxes: (N, D, 4) float32 xyxy, network pixels.
        scores: (N, D) float32 class probabilities, 0 where not valid.
        class_ids: (N, D) int64.
        valid: (N, D) bool; the valid ones come first.
        filtered_class: (N,) int64, detections that the allow-list took out.
        overflow: (N,) bool, more candidates than K and fewer survivors than D: a larger K could
            have found more.
    """

    boxes: Tensor
    scores: Tensor
    class_ids: Tensor
    valid: Tensor
    filtered_class: Tensor
    overflow: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds the answer: numbers, or scalars on the device that may change between frames.

    Attributes:
        proposals: P.
        capacity: D.
        candidates: K, None for as many as there are.
        score_threshold: a score must exceed it.
        nms_threshold: IoU between boxes of one class; on the device, from ``largest_float32``.
        allowed: (C,) bool, the classes to keep.
        max_instances: how many of the D may be valid.
        min_mask_area: input pixels that a detection must be able to hold.
        mask_threshold: probability from which a pixel belongs to a mask.
    """

    proposals: int
    capacity: int
    candidates: int | None
    score_threshold: float | Tensor
    nms_threshold: float | Tensor
    allowed: Tensor
    max_instances: int | Tensor
    min_mask_area: int | Tensor = 0
    mask_threshold: float | Tensor = 0.5


class BoxHead(nn.Module):
    """Optional 3x3 convolutions, then fully connected layers (``FastRCNNConvFCHead``)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels = architecture.fpn_channels
        self.convs: list[str] = []
        self.fcs: list[str] = []
        for index, dim in enumerate(architecture.box_conv_dims, start=1):
            conv = Conv(channels, dim, 3, norm=architecture.box_norm, relu=True)
            self.add_module(f'conv{index}', conv)
            self.convs.append(f'conv{index}')
            channels = dim
        self.pooled_side = architecture.box_pooler.resolution
        size = channels * self.pooled_side**2
        for index, dim in enumerate(architecture.box_fc_dims, start=1):
            self.add_module(f'fc{index}', Linear(size, dim))
            self.fcs.append(f'fc{index}')
            size = dim
        self.out_features = size
        self._channels_last = False

    @torch.no_grad()
    def expect_channels_last(self) -> None:
        """Reorder the first layer for pooled features in channels_last memory.

        Flattening them as they lie saves a copy of all RoIs a frame.
        """
        fc = self.get_submodule(self.fcs[0])
        assert isinstance(fc, nn.Linear)
        side = self.pooled_side
        weight = fc.weight.view(fc.out_features, -1, side, side).permute(0, 2, 3, 1)
        fc.weight = nn.Parameter(weight.reshape(fc.out_features, -1), requires_grad=False)
        self._channels_last = True

    def forward(self, x: Tensor) -> Tensor:
        """Map pooled features (R, C, S, S) to (R, F)."""
        for name in self.convs:
            x = self.get_submodule(name)(x)
        x = x.permute(0, 2, 3, 1).flatten(1) if self._channels_last else x.flatten(1)
        for name in self.fcs:
            x = F.relu(self.get_submodule(name)(x))
        return x


class BoxPredictor(nn.Module):
    """Class logits, background last, and box deltas (``FastRCNNOutputLayers``)."""

    def __init__(self, architecture: Architecture, in_features: int) -> None:
        super().__init__()
        self.cls_score = Linear(in_features, architecture.num_classes + 1)
        boxes = 1 if architecture.box_cls_agnostic else architecture.num_classes
        self.bbox_pred = Linear(in_features, boxes * 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (R, F) to logits (R, C + 1) and deltas (R, 4 C), or (R, 4) if class-agnostic."""
        return self.cls_score(x), self.bbox_pred(x)


def select_detections(
    logits: Tensor,
    deltas: Tensor,
    proposals: Proposals,
    image_hw: tuple[int, int],
    architecture: Architecture,
    limits: Limits,
    nms: NMS,
) -> BoxDetections:
    """Turn the predictor's output into detections (``fast_rcnn_inference``).

    The K best (proposal, class) pairs above the threshold replace the reference's P * C ones:
    greedy NMS over the K best by score gives a prefix of the full result, so the answer is exact
    unless ``overflow`` says otherwise.

    Args:
        logits: (N, P, C + 1), any float dtype.
        deltas: (N, P, 4 C) or (N, P, 4), any float dtype.
        proposals: what the predictor was run on.
        image_hw: network input before padding.
        architecture: gives the deltas' weights and the least side.
        limits: D, K and what is kept; without a K it synchronises.
        nms: the suppression to use.

    Returns:
        Detections of one fixed shape; with a fixed K it does not synchronise where ``nms`` does
        not.
    """
    classes = logits.shape[2] - 1
    probabilities = logits.softmax(-1, dtype=torch.float32)[..., :classes]
    usable = (probabilities > limits.score_threshold) & proposals.valid[..., None]
    scores = torch.where(usable, probabilities, -torch.inf).flatten(1)
    total = usable.flatten(1).sum(1)
    considered = limits.candidates or max(int(total.max()), 1)
    scores, index = top_k(scores, min(considered, scores.shape[1]))
    proposal, class_ids = index // classes, index % classes
    boxes = decode_boxes(
        _rows(deltas, proposal if deltas.shape[-1] == 4 else index),
        _rows(proposals.boxes, proposal),
        architecture.box_bbox_weights,
        clamp_shrinking=architecture.semantics.clamp_shrinking,
    )
    valid = (scores > -torch.inf) & are_finite(boxes)
    boxes = clip_boxes(boxes.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0), image_hw)
    if least := architecture.semantics.least_detection_side:
        valid &= smaller_sides(boxes) >= least

    kept = nms(boxes, valid, limits.nms_threshold, class_ids)
    passed = kept & limits.allowed[class_ids]
    scores = torch.where(passed, scores, -torch.inf)
    scores, index = top_k(scores, min(limits.capacity, scores.shape[1]))
    rank = torch.arange(scores.shape[1], device=scores.device)
    valid = (scores > -torch.inf) & (rank < limits.max_instances)
    return BoxDetections(
        boxes=_rows(boxes, index),
        scores=torch.where(valid, scores, 0.0),
        class_ids=class_ids.gather(1, index),
        valid=valid,
        filtered_class=(kept != passed).sum(1),
        overflow=(total > considered) & (valid.sum(1) < limits.max_instances),
    )


def _rows(boxes: Tensor, index: Tensor) -> Tensor:
    """Return of each image the (N, K) of what is (N, ..., 4 C) as rows of four."""
    rows = boxes.view(len(boxes), boxes.shape[1] * boxes.shape[2] // 4, 4)  # there may be none
    return rows.gather(1, index[..., None].expand(-1, -1, 4))
