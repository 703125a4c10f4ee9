# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Region Proposal Network (Ren et al., 2015) as in Detectron2's ``proposal_generator``.

Shapes: N images, L levels, A anchors a location, K candidates a level, P proposals.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnode.model.architecture import Architecture
from segnode.model.boxes import box_sides, clip_boxes, decode_boxes, top_k
from segnode.model.conv import Conv
from segnode.model.nms import NMS


@dataclass(frozen=True, slots=True)
class Proposals:
    """Boxes that may hold an object, highest objectness first.

    Attributes:
        boxes: (N, P, 4) float32 xyxy, network pixels.
        scores: (N, P) float32 objectness, logits or probabilities, -inf where not valid.
        valid: (N, P) bool.
    """

    boxes: Tensor
    scores: Tensor
    valid: Tensor


class RPNHead(nn.Module):
    """3x3 convolution(s), then objectness and anchor deltas by 1x1 convolutions."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels = architecture.fpn_channels
        convs = []
        for dim in architecture.rpn_conv_dims:
            out = channels if dim == -1 else dim
            convs.append(Conv(channels, out, 3, relu=True))
            channels = out
        self.conv: nn.Module = convs[0]
        if len(convs) > 1:
            self.conv = nn.Sequential()
            for index, conv in enumerate(convs):
                self.conv.add_module(f'conv{index}', conv)
        anchors = len(architecture.anchor_sizes[0]) * len(architecture.anchor_ratios[0])
        self.objectness_logits = Conv(channels, anchors, 1)
        self.anchor_deltas = Conv(channels, anchors * 4, 1)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map L maps (N, C, h, w) to logits (N, A, h, w) and deltas (N, 4A, h, w)."""
        hidden = [self.conv(feature) for feature in features]
        return (
            [self.objectness_logits(x) for x in hidden],
            [self.anchor_deltas(x) for x in hidden],
        )


def select_proposals(
    logits: list[Tensor],
    deltas: list[Tensor],
    anchors: list[Tensor],
    image_hw: tuple[int, int],
    architecture: Architecture,
    post_nms_topk: int,
    nms: NMS,
) -> Proposals:
    """Decode, clip, clean up and thin out the anchors (``find_top_rpn_proposals``).

    MMDetection's ``RPNHead`` ranks probabilities, see ``Semantics``.

    Args:
        logits: a level (N, A, h, w), any float dtype.
        deltas: a level (N, 4A, h, w), any float dtype.
        anchors: a level (h * w * A, 4) float32 xyxy, network pixels.
        image_hw: network input before padding.
        architecture: gives the candidates a level, the IoU threshold and the smallest side.
        post_nms_topk: the number P of proposals, fewer only where fewer candidates exist.
        nms: the suppression to use.

    Returns:
        Proposals of one fixed shape; it does not synchronise where ``nms`` does not.
    """
    semantics = architecture.semantics
    boxes_by_level, scores_by_level = [], []
    for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors, strict=True):
        n, a, h, w = level_logits.shape
        scores = level_logits.permute(0, 2, 3, 1).reshape(n, -1).float()
        k = min(architecture.rpn_pre_nms_topk, h * w * a)
        if semantics.rank_probabilities:
            scores = torch.sigmoid(scores)
        # A NaN would poison the sort; the finite test below drops what was one.
        scores, index = top_k(scores.masked_fill(scores.isnan(), -torch.inf), k)
        level_deltas = level_deltas.view(n, a, 4, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, 4)
        chosen = level_deltas.gather(1, index[..., None].expand(-1, -1, 4))
        boxes = decode_boxes(
            chosen,
            level_anchors[index],
            architecture.rpn_bbox_weights,
            clamp_shrinking=semantics.clamp_shrinking,
        )
        finite = torch.isfinite(boxes).all(-1) & torch.isfinite(scores)
        boxes = clip_boxes(boxes.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0), image_hw)
        width, height = box_sides(boxes)
        minimum = architecture.rpn_min_size
        valid = finite & (
            (width >= minimum) & (height >= minimum)
            if semantics.inclusive_sides
            else (width > minimum) & (height > minimum)
        )
        boxes_by_level.append(F.pad(boxes, (0, 0, 0, architecture.rpn_pre_nms_topk - k)))
        scores = scores.masked_fill(~valid, -torch.inf)
        scores_by_level.append(
            F.pad(scores, (0, architecture.rpn_pre_nms_topk - k), value=-torch.inf)
        )
    boxes = torch.stack(boxes_by_level, 1)
    scores = torch.stack(scores_by_level, 1)
    keep = nms(boxes, scores > -torch.inf, architecture.rpn_nms_threshold, None)
    scores = scores.masked_fill(~keep, -torch.inf).flatten(1)
    scores, index = top_k(scores, min(post_nms_topk, scores.shape[1]))
    boxes = boxes.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, 4))
    return Proposals(boxes, scores, scores > -torch.inf)
