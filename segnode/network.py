# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A native Mask R-CNN from images to mask probabilities, one stage after the other.

Shapes: N images, P proposals, D detections, M side of a mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segnode.image import Image
from segnode.mask_filter import filter_detections
from segnode.model.anchors import make_anchors
from segnode.model.architecture import Architecture
from segnode.model.box_head import BoxDetections, select_detections
from segnode.model.mask_head import mask_probabilities
from segnode.model.mask_rcnn import build_mask_rcnn
from segnode.model.nms import nms, nms_static
from segnode.model.roi_align import assign_levels, multilevel_roi_align
from segnode.model.rpn import Proposals, select_proposals
from segnode.preprocess import preprocess, resized_hw
from segnode.settings import InferenceSettings
from segnode.timing import StageClock

# Candidates of the static path: the NMS that follows is exact up to this many.
CANDIDATES = 1000


@dataclass(frozen=True, slots=True)
class Instances:
    """Instances of one image, highest score first, before their masks are pasted.

    Attributes:
        boxes: (D, 4) float32 xyxy, input pixels.
        scores: (D,) float32.
        class_ids: (D,) int64.
        probabilities: (D, M, M) float32.
        counts: what was detected and what was filtered before the mask head.
    """

    boxes: Tensor
    scores: Tensor
    class_ids: Tensor
    probabilities: Tensor
    counts: dict[str, int]


class NativeNetwork:
    """The modules of one checkpoint on one device."""

    def __init__(
        self,
        architecture: Architecture,
        state_dict: Mapping[str, Tensor],
        device: torch.device,
        *,
        static: bool = False,
    ) -> None:
        """Build the network.

        Args:
            architecture: what to build.
            state_dict: its weights, float32.
            device: where it runs.
            static: fixed shapes throughout, as a device without host stops needs them; otherwise
                the heads run on exactly what is there.
        """
        self.architecture = architecture
        self.device = device
        self.static = static
        self._model = build_mask_rcnn(architecture, state_dict).to(device)
        self._suppress = nms_static if static else nms
        self._anchors: dict[tuple[int, int], list[Tensor]] = {}

    def defaults(self) -> InferenceSettings:
        """Return the settings of the model's own config."""
        architecture = self.architecture
        return InferenceSettings(
            short_side=architecture.short_side,
            long_side=architecture.long_side,
            score_threshold=architecture.score_threshold,
            nms_threshold=architecture.nms_threshold,
            max_instances=architecture.max_instances,
            proposals=architecture.rpn_post_nms_topk,
        )

    def check(self, settings: InferenceSettings) -> None:
        """Every setting has a meaning for a native network."""

    def resized_hw(self, image_hw: tuple[int, int], settings: InferenceSettings) -> tuple[int, int]:
        """Return the network's input size for an image, before padding."""
        family = self.architecture.family
        return resized_hw(image_hw, settings.short_side, settings.long_side, family)

    @torch.inference_mode()
    def run(
        self, images: Sequence[Image], settings: InferenceSettings, clock: StageClock
    ) -> list[Instances]:
        """Find the instances of images of one size.

        Args:
            images: N images, all of one height and width.
            settings: taken once for the whole batch.
            clock: gets the stages upload, preprocess, backbone, rpn, box_head, filter, mask_head.
        """
        image_hw = (images[0].height, images[0].width)
        network_hw = self.resized_hw(image_hw, settings)
        with clock.stage('preprocess'):
            batch = [preprocess(image, network_hw, self.architecture) for image in images]
        with clock.stage('upload'):
            x = torch.stack(batch).to(self.device)
        with clock.stage('backbone'):
            features = self._model.backbone(x)
        with clock.stage('rpn'):
            proposals = self._propose(features, network_hw, settings)
        with clock.stage('box_head'):
            detections = self._detect(features, proposals, network_hw, settings)
        with clock.stage('filter'):
            filtered = filter_detections(
                detections.boxes,
                detections.valid,
                network_hw,
                image_hw,
                min_mask_area=settings.min_mask_area,
                cells=2 * self.architecture.mask_pooler_resolution,
                mask_threshold=settings.mask_threshold,
                paste=self.architecture.family,
            )
            image_index, slot = filtered.keep.nonzero(as_tuple=True)
        with clock.stage('mask_head'):
            probabilities = self._masks(features, detections, image_index, slot)
        return [
            Instances(
                boxes=filtered.boxes[n][keep].cpu(),
                scores=detections.scores[n][keep].cpu(),
                class_ids=detections.class_ids[n][keep].cpu(),
                probabilities=probabilities[image_index == n].cpu(),
                counts={
                    'detected': int(detections.valid[n].sum()),
                    'filtered_class': int(detections.filtered_class[n]),
                    'filtered_area': int(filtered.filtered_area[n]),
                    'candidate_overflow': int(detections.overflow[n]),
                },
            )
            for n, keep in enumerate(filtered.keep)
        ]

    def _propose(
        self, features: list[Tensor], network_hw: tuple[int, int], settings: InferenceSettings
    ) -> Proposals:
        logits, deltas = self._model.proposal_generator.rpn_head(features)
        padded_hw = (features[0].shape[-2], features[0].shape[-1])
        if padded_hw not in self._anchors:
            sizes = [(f.shape[-2], f.shape[-1]) for f in features]
            self._anchors = {padded_hw: make_anchors(self.architecture, sizes, self.device)}
        proposals = select_proposals(
            logits,
            deltas,
            self._anchors[padded_hw],
            network_hw,
            self.architecture,
            settings.proposals,
            self._suppress,
        )
        if self.static:
            return proposals
        most = int(proposals.valid.sum(1).max())
        return Proposals(
            proposals.boxes[:, :most], proposals.scores[:, :most], proposals.valid[:, :most]
        )

    def _detect(
        self,
        features: list[Tensor],
        proposals: Proposals,
        network_hw: tuple[int, int],
        settings: InferenceSettings,
    ) -> BoxDetections:
        architecture, heads = self.architecture, self._model.roi_heads
        n, p = proposals.valid.shape
        boxes = proposals.boxes.reshape(-1, 4)
        pooled = multilevel_roi_align(
            features,
            boxes,
            torch.arange(n, device=self.device).repeat_interleave(p),
            assign_levels(boxes, architecture.family),
            resolution=architecture.box_pooler_resolution,
            sampling_ratio=architecture.box_sampling_ratio,
            aligned=architecture.box_aligned,
        )
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        allowed = torch.zeros(architecture.num_classes, dtype=torch.bool)
        allowed[list(settings.classes)] = True
        return select_detections(
            logits.view(n, p, -1),
            deltas.view(n, p, -1),
            proposals,
            network_hw,
            architecture,
            score_threshold=settings.score_threshold,
            nms_threshold=settings.nms_threshold,
            allowed=allowed.to(self.device),
            max_instances=settings.max_instances,
            candidates=CANDIDATES if self.static else None,
            suppress=self._suppress,
        )

    def _masks(
        self, features: list[Tensor], detections: BoxDetections, image_index: Tensor, slot: Tensor
    ) -> Tensor:
        architecture, head = self.architecture, self._model.roi_heads.mask_head
        boxes = detections.boxes[image_index, slot]
        if len(boxes) == 0:
            cells = 2 * architecture.mask_pooler_resolution
            return boxes.new_zeros((0, cells, cells))
        pooled = multilevel_roi_align(
            features,
            boxes,
            image_index,
            assign_levels(boxes, architecture.family),
            resolution=architecture.mask_pooler_resolution,
            sampling_ratio=architecture.mask_sampling_ratio,
            aligned=architecture.mask_aligned,
        )
        return mask_probabilities(head(pooled), detections.class_ids[image_index, slot])
