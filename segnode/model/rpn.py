# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Region Proposal Network (Ren et al., 2015) as in Detectron2's ``proposal_generator``.

Shapes: N images, L levels, A anchors a location, S_l anchors of a level, S of all levels, K
candidates a level, P proposals.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnode.model.architecture import Architecture
from segnode.model.boxes import (
    are_finite,
    clip_boxes,
    decode_boxes,
    smaller_sides,
    top_k,
    top_k_of_parts,
)
from segnode.model.conv import Conv
from segnode.model.nms import NMS

# Numbers of an anchor where one layer predicts them all: deltas, objectness, and what makes rows
# a multiple of 16 bytes in half precision, as fast products ask for.
JOINED = 8


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
        self.joined: Conv | None = None

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map L maps (N, C, h, w) to logits (N, S_l) and deltas (N, S_l, 4) of their anchors."""
        if self.joined is None:
            return anchor_rows(*self.maps(features))
        rows = [
            self.joined(self.conv(x)).permute(0, 2, 3, 1).reshape(len(x), -1, JOINED)
            for x in features
        ]
        return [x[..., 4] for x in rows], [x[..., :4] for x in rows]

    def maps(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """As ``forward``, but logits (N, A, h, w) and deltas (N, 4A, h, w), not once joined."""
        hidden = [self.conv(feature) for feature in features]
        return (
            [self.objectness_logits(x) for x in hidden],
            [self.anchor_deltas(x) for x in hidden],
        )

    @torch.no_grad()
    def join_predictors(self) -> None:
        """Make one layer of the two predictors, which reads a map once, where formats agree.

        What it gives of an anchor lies together, so that nothing is copied into order afterwards.
        """
        logits, deltas = self.objectness_logits, self.anchor_deltas
        if logits.weight.dtype != deltas.weight.dtype:
            return
        anchors, channels = logits.out_channels, logits.in_channels
        with torch.device('meta'):
            joined = Conv(channels, anchors * JOINED, 1)
        for name in ('weight', 'bias'):
            score, move = logits.get_parameter(name), deltas.get_parameter(name)
            rows = score.new_zeros((anchors, JOINED, *score.shape[1:]))
            rows[:, :4], rows[:, 4] = move.unflatten(0, (anchors, 4)), score
            setattr(joined, name, nn.Parameter(rows.flatten(0, 1), requires_grad=False))
        self.joined = joined
        del self.objectness_logits, self.anchor_deltas


def anchor_rows(logits: list[Tensor], deltas: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Map maps (N, A, h, w) and (N, 4A, h, w) to rows (N, S_l) and (N, S_l, 4), in anchors' order.

    Of maps in channels_last nothing is copied.
    """
    return (
        [x.permute(0, 2, 3, 1).flatten(1) for x in logits],
        [x.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in deltas],
    )


def select_proposals(
    logits: list[Tensor],
    deltas: list[Tensor],
    anchors: Tensor,
    image_hw: tuple[int, int],
    architecture: Architecture,
    post_nms_topk: int,
    nms: NMS,
) -> Proposals:
    """Decode, clip, clean up and thin out the anchors (``find_top_rpn_proposals``).

    MMDetection's ``RPNHead`` ranks probabilities, see ``Semantics``.

    Args:
        logits: a level (N, S_l), any float dtype.
        deltas: a level (N, S_l, 4), any float dtype.
        anchors: (S, 4) float32 xyxy, network pixels, see ``make_anchors``.
        image_hw: network input before padding.
        architecture: gives the candidates a level, the IoU threshold and the smallest side.
        post_nms_topk: the number P of proposals, fewer only where fewer candidates exist.
        nms: the suppression to use.

    Returns:
        Proposals of one fixed shape; it does not synchronise where ``nms`` does not.
    """
    scores, deltas_of_best, index = _best_of_levels(logits, deltas, architecture)
    boxes = decode_boxes(
        deltas_of_best,
        anchors[index],
        architecture.rpn_bbox_weights,
        clamp_shrinking=architecture.semantics.clamp_shrinking,
    )
    finite = are_finite(boxes) & (scores.abs() < torch.inf)
    boxes = clip_boxes(boxes.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0), image_hw)
    side, minimum = smaller_sides(boxes), architecture.rpn_min_size
    large = side >= minimum if architecture.semantics.inclusive_sides else side > minimum
    levels = (len(logits), -1)
    keep = nms(
        boxes.unflatten(1, levels),
        (finite & large).unflatten(1, levels),
        architecture.rpn_nms_threshold,
        None,
    )
    scores = torch.where(keep.flatten(1), scores, -torch.inf)
    scores, index = top_k(scores, min(post_nms_topk, scores.shape[1]))
    boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
    return Proposals(boxes, scores, scores > -torch.inf)


def _best_of_levels(
    logits: list[Tensor], deltas: list[Tensor], architecture: Architecture
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores (N, L * K), deltas (N, L * K, 4) and anchors (N, L * K) of K a level.

    Where a level has fewer, deltas that are no numbers fill it up.
    """
    candidates = architecture.rpn_pre_nms_topk
    if architecture.semantics.rank_probabilities:
        # Level by level: on a CPU the last few of a stretch may be rounded otherwise.
        logits = [torch.sigmoid(x.float().contiguous()) for x in logits]
    scores = torch.cat(logits, 1).float()
    # A NaN would poison the sort; its place is not taken by what is infinite either.
    scores = scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    sizes = [x.shape[1] for x in logits]
    starts = [sum(sizes[:level]) for level in range(len(sizes))]
    best, chosen = [], []
    parts = zip(top_k_of_parts(scores, sizes, candidates), starts, deltas, strict=True)
    for index, start, level_deltas in parts:
        missing = candidates - index.shape[1]
        moves = level_deltas.gather(1, index[..., None].expand(-1, -1, 4))
        chosen.append(F.pad(moves, (0, 0, 0, missing), value=torch.nan) if missing else moves)
        index = index + start if start else index
        best.append(F.pad(index, (0, missing)) if missing else index)
    anchor = torch.cat(best, 1)
    return scores.gather(1, anchor), torch.cat(chosen, 1), anchor
