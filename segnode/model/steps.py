# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a Mask R-CNN is run with: parts of the network and steps between them, handed in.

A path or an engine replaces these and leaves the forward as it is.

Shapes: N images, L levels, S_l anchors of a level, P proposals, R RoIs, C channels or classes, S
side of what is pooled, M side of a mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from segnode.model.architecture import Architecture, Pooler
from segnode.model.box_head import BoxDetections, Limits
from segnode.model.rpn import Proposals

# Records that a stage ends here.
Mark = Callable[[str], None]


class RoIAlign(Protocol):
    """Pooling of RoIs, each from the level that its size gives it."""

    def __call__(
        self, features: list[Tensor], boxes: Tensor, image_index: Tensor | None, pooler: Pooler
    ) -> Tensor:
        """Pool (R, 4) float32 xyxy boxes, network pixels, of images (R,) to (R, C, S, S).

        Without an ``image_index``, equally many boxes of each image follow one another. The
        features are a level each of ``pooler``; what is pooled has their format and lies in
        channels_last.
        """
        ...


class SelectProposals(Protocol):
    """See ``segnode.model.rpn.select_proposals``."""

    def __call__(
        self,
        logits: list[Tensor],
        deltas: list[Tensor],
        anchors: Tensor,
        image_hw: tuple[int, int],
        architecture: Architecture,
        post_nms_topk: int,
    ) -> Proposals:
        """Choose among the anchors of all levels."""
        ...


class SelectDetections(Protocol):
    """See ``segnode.model.box_head.select_detections``."""

    def __call__(
        self,
        logits: Tensor,
        deltas: Tensor,
        proposals: Proposals,
        image_hw: tuple[int, int],
        architecture: Architecture,
        limits: Limits,
    ) -> BoxDetections:
        """Turn (N, P, C + 1) logits and deltas into detections."""
        ...


class Trunk(NamedTuple):
    """What the trunk gives of L levels.

    Attributes:
        features: maps (N, C, h, w).
        logits: of the RPN, (N, S_l), by row, column and base anchor.
        deltas: of the RPN, (N, S_l, 4).
    """

    features: list[Tensor]
    logits: list[Tensor]
    deltas: list[Tensor]


@dataclass(frozen=True, slots=True)
class Parts:
    """The dense parts of a Mask R-CNN, from tensors of a fixed or bounded shape to such.

    Attributes:
        trunk: backbone, pyramid and the RPN's convolutions, from images (N, 3, H, W), or of
            as many channels as its first convolution was widened to. It marks the end of the stage
            ``backbone``.
        box_heads: a stage each, from pooled RoIs (R, C, S, S) to logits (R, C + 1) and deltas
            (R, 4 or 4 C). Mask R-CNN has one stage.
        mask_head: from pooled RoIs to logits (R, C or 1, M, M), or as ``MaskHead`` gives them.
    """

    trunk: Callable[[Tensor], Trunk]
    box_heads: tuple[Callable[[Tensor], tuple[Tensor, Tensor]], ...]
    mask_head: Callable[[Tensor], Tensor]


def _as_found(detections: BoxDetections) -> BoxDetections:
    return detections


def _all(proposals: Proposals) -> Proposals:
    return proposals


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """How one path runs a Mask R-CNN.

    Attributes:
        parts: the dense parts.
        select_proposals: the choice among anchors.
        select_detections: the choice among proposals and classes.
        roi_align: pooling.
        mark: records the stages ``rpn``, ``box_head`` and ``mask_head``.
        poolable: gives the maps in the format that ``roi_align`` takes.
        narrow: gives the proposals that the box head is run on.
        replace: gives what is taken for the box head's detections, all of whose work is done.
    """

    parts: Parts
    select_proposals: SelectProposals
    select_detections: SelectDetections
    roi_align: RoIAlign
    mark: Mark
    poolable: Callable[[list[Tensor]], list[Tensor]] = list
    narrow: Callable[[Proposals], Proposals] = _all
    replace: Callable[[BoxDetections], BoxDetections] = _as_found
