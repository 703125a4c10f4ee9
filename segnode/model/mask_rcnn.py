# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The network: its modules under Detectron2's names, and the stages that a frame passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnode.model.architecture import Architecture
from segnode.model.backbone.swin import WindowAttention
from segnode.model.box_head import BoxDetections, BoxHead, BoxPredictor, Limits
from segnode.model.conv import Conv
from segnode.model.fpn import FPN
from segnode.model.maps import PLAIN, MapSteps
from segnode.model.mask_filter import FilteredDetections, filter_detections
from segnode.model.mask_head import MaskHead, mask_probabilities
from segnode.model.rpn import Proposals, RPNHead
from segnode.model.steps import Mark, Parts, Steps, Trunk


class FrameSizes(NamedTuple):
    """Height and width of one frame, or of all in a batch.

    Attributes:
        network_hw: the network's input before padding.
        image_hw: the input image.
    """

    network_hw: tuple[int, int]
    image_hw: tuple[int, int]


class Found(NamedTuple):
    """What ``detect`` found.

    Attributes:
        features: the maps that masks are pooled from.
        detections: in network pixels.
    """

    features: list[Tensor]
    detections: BoxDetections


class ProposalGenerator(nn.Module):
    """Holds the RPN's head under Detectron2's name."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.rpn_head = RPNHead(architecture)


class RoIHeads(nn.Module):
    """Holds box head, box predictor and mask head under Detectron2's names."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.box_head = BoxHead(architecture)
        self.box_predictor = BoxPredictor(architecture, self.box_head.out_features)
        self.mask_head = MaskHead(architecture)


class MaskRCNN(nn.Module):
    """All layers of a Mask R-CNN; ``state_dict`` has Detectron2's names and shapes."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = FPN(architecture)
        self.proposal_generator = ProposalGenerator(architecture)
        self.roi_heads = RoIHeads(architecture)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                module.eps = architecture.norm_eps

    def detect(
        self, x: Tensor, anchors: Tensor, sizes: FrameSizes, limits: Limits, steps: Steps
    ) -> Found:
        """Find the boxes of N images (Ren et al., 2015).

        Args:
            x: (N, 3, H', W'), preprocessed.
            anchors: of all levels, see ``make_anchors``.
            sizes: of the frames.
            limits: what bounds the answer.
            steps: what it is run with; it stops for the host where these do.
        """
        a, network_hw = self.architecture, sizes.network_hw
        features, logits, deltas = steps.parts.trunk(x)
        proposals = steps.select_proposals(
            logits, deltas, anchors, network_hw, a, limits.proposals
        )
        proposals = steps.narrow(proposals)
        steps.mark('rpn')
        features = steps.poolable(features)
        scores, moves = self._score(features, proposals, steps)
        detections = steps.select_detections(scores, moves, proposals, network_hw, a, limits)
        detections = steps.replace(detections)
        steps.mark('box_head')
        return Found(features, detections)

    def filter(
        self, detections: BoxDetections, sizes: FrameSizes, limits: Limits
    ) -> FilteredDetections:
        """Bring detections into input pixels, and find which of them get a mask."""
        return filter_detections(
            detections.boxes,
            detections.valid,
            *sizes,
            min_mask_area=limits.min_mask_area,
            cells=self.architecture.mask_side,
            mask_threshold=limits.mask_threshold,
            semantics=self.architecture.semantics,
        )

    def _score(
        self, features: list[Tensor], proposals: Proposals, steps: Steps
    ) -> tuple[Tensor, Tensor]:
        """Map P proposals of N images to logits (N, P, C + 1) and deltas (N, P, 4 or 4 C)."""
        n, count = proposals.valid.shape
        boxes = proposals.boxes.reshape(-1, 4)
        pooled = steps.roi_align(features, boxes, None, self.architecture.box_pooler)
        (box_head,) = steps.parts.box_heads
        scores, moves = box_head(pooled)
        # Without proposals a -1 would have no meaning.
        return scores.view(n, count, scores.shape[-1]), moves.view(n, count, moves.shape[-1])

    def masks(
        self,
        features: list[Tensor],
        boxes: Tensor,
        image_index: Tensor | None,
        class_ids: Tensor,
        steps: Steps,
    ) -> Tensor:
        """Give R boxes their masks (He et al., 2017): (R, M, M) float32 probabilities.

        Args:
            features: from ``detect``.
            boxes: (R, 4) float32 xyxy, network pixels.
            image_index: (R,) int64, the image of each; None for equally many of each, in order.
            class_ids: (R,) int64.
            steps: what it is run with.
        """
        if len(boxes) == 0:
            steps.mark('mask_head')
            side = self.architecture.mask_side
            return torch.zeros((0, side, side), device=boxes.device)
        pooled = steps.roi_align(features, boxes, image_index, self.architecture.mask_pooler)
        probabilities = mask_probabilities(steps.parts.mask_head(pooled), class_ids)
        steps.mark('mask_head')
        return probabilities

    @property
    def first_conv(self) -> Conv:
        """The convolution that reads the images, of whatever family the backbone is."""
        return next(m for m in self.backbone.bottom_up.modules() if isinstance(m, Conv))

    def parts(self, mark: Mark, map_steps: MapSteps = PLAIN) -> Parts:
        """Return the dense parts as they are here.

        Args:
            mark: the trunk marks the stage ``backbone``.
            map_steps: what the trunk does between its convolutions. It takes images of as many
                channels as ``first_conv``, and gives those of fewer the zeros that they lack.
        """
        heads, rpn_head = self.roi_heads, self.proposal_generator.rpn_head
        first_conv = self.first_conv

        def trunk(x: Tensor) -> Trunk:
            missing = first_conv.in_channels - x.shape[1]
            if missing:
                x = F.pad(x, (0, 0, 0, 0, 0, missing))
            features: list[Tensor] = self.backbone(x, map_steps)
            mark('backbone')
            return Trunk(features, *rpn_head(features))

        def box_head(pooled: Tensor) -> tuple[Tensor, Tensor]:
            scores, deltas = heads.box_predictor(heads.box_head(pooled))
            return scores, deltas

        return Parts(trunk, (box_head,), heads.mask_head)

    def fold_norms(self) -> None:
        """Fold every batch norm into its convolution, and expand what biases attention.

        Where a block adds a shortcut's convolution, the one that it is added to has both biases.
        """
        for module in self.modules():
            if isinstance(module, Conv):
                module.fold_norm()
            elif isinstance(module, WindowAttention):
                module.expand()
        for block in self.modules():
            if isinstance(shortcut := getattr(block, 'shortcut', None), Conv):
                *_, last = (each for each in block.children() if isinstance(each, Conv))
                last.take_bias(shortcut)

    def join_layers(self) -> None:
        """Make of several layers one that gives the same in fewer steps, in their final formats.

        ``state_dict`` has other names afterwards.
        """
        self.proposal_generator.rpn_head.join_predictors()
        self.roi_heads.mask_head.join_deconv()


def expected_state_dict(architecture: Architecture) -> dict[str, torch.Size]:
    """Return name and shape of every tensor that the weights must hold."""
    with torch.device('meta'):
        state = MaskRCNN(architecture).state_dict()
    return {k: v.shape for k, v in state.items() if not k.endswith('num_batches_tracked')}


def build_mask_rcnn(architecture: Architecture, state_dict: Mapping[str, Tensor]) -> MaskRCNN:
    """Return the network with its weights, batch norms folded, ready for inference.

    Args:
        architecture: what to build.
        state_dict: complete and of the shapes of ``expected_state_dict``, float32.
    """
    with torch.device('meta'):
        model = MaskRCNN(architecture)
    counters = {
        name: torch.zeros((), dtype=torch.long)
        for name in model.state_dict()
        if name.endswith('num_batches_tracked')
    }
    weights = {name: tensor.clone() for name, tensor in state_dict.items()}
    model.load_state_dict({**counters, **weights}, assign=True)
    model.requires_grad_(requires_grad=False)
    model.fold_norms()
    return model.eval()
