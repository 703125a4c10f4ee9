# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A native Mask R-CNN from images to mask probabilities, one stage after the other.

Shapes: N images, P proposals, D detections, R RoIs, C classes, M side of a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segnode.image import Image
from segnode.kernels.cpu import cpu_kernels
from segnode.mask_filter import FilteredDetections, filter_detections
from segnode.model.anchors import STRIDES, make_anchors
from segnode.model.architecture import Architecture
from segnode.model.box_head import BoxDetections, select_detections
from segnode.model.fusion import fuse_convolutions
from segnode.model.mask_head import mask_probabilities
from segnode.model.mask_rcnn import build_mask_rcnn
from segnode.model.nms import nms
from segnode.model.precision import DTYPES, convert_layers
from segnode.model.roi_align import LEVELS, assign_levels, multilevel_roi_align
from segnode.model.rpn import Proposals, select_proposals
from segnode.preprocess import preprocess, resized_hw
from segnode.settings import InferenceSettings
from segnode.timing import StageClock

# Input with which a layer's range is checked: pixels of every brightness and both extremes.
PROBE_HW = (128, 160)


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
    """The modules of one checkpoint on one device, and the dynamic path through them.

    The dynamic path runs the heads on exactly what is there, which suits a CPU.

    Attributes:
        architecture: what was built.
        device: where it runs.
        precision: fp32, fp16 or bf16.
        float32_layers: names of the layers whose numbers do not fit in ``precision``.
        fusion: which library fuses the convolutions, or ``none``.
        replace: answers in place of the box head, all of whose work is still done; None answers
            what was found. It must neither stop for the host nor change shapes between frames.
    """

    def __init__(
        self,
        architecture: Architecture,
        state_dict: Mapping[str, Tensor],
        device: torch.device,
        precision: str = 'fp32',
    ) -> None:
        """Build the network.

        Args:
            architecture: what to build.
            state_dict: its weights, float32.
            device: where it runs.
            precision: fp32, fp16 or bf16.
        """
        self.architecture = architecture
        self.device = device
        self.precision = precision
        self.dtype = DTYPES[precision]
        self.cells = 2 * architecture.mask_pooler_resolution
        self.replace: Callable[[BoxDetections], BoxDetections] | None = None
        self._anchors: dict[tuple[int, int], list[Tensor]] = {}
        self.model = build_mask_rcnn(architecture, state_dict).to(device)
        self._kernels = cpu_kernels() if device.type == 'cpu' else None
        self.model.roi_heads.box_head.expect_channels_last()
        self.float32_layers = convert_layers(self.model, self.dtype, self._probe)
        self.model.to(memory_format=torch.channels_last)
        self.fusion = fuse_convolutions(self.model)

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

    def resized_hw(
        self, image_hw: tuple[int, int], settings: InferenceSettings
    ) -> tuple[int, int]:
        """Return the network's input size for an image, before padding."""
        family = self.architecture.family
        return resized_hw(image_hw, settings.short_side, settings.long_side, family)

    @torch.inference_mode()
    def run(
        self, images: Sequence[Image], settings: InferenceSettings, clock: StageClock
    ) -> list[Instances]:
        """Find the instances of images of one size; it synchronises with the host.

        Args:
            images: N images, all of one height and width.
            settings: taken once for the whole batch.
            clock: gets the stages preprocess, upload, backbone, rpn, box_head, filter, mask_head
                and download.
        """
        image_hw = (images[0].height, images[0].width)
        network_hw = self.resized_hw(image_hw, settings)
        with clock.stage('preprocess'):
            batch = [preprocess(image, network_hw, self.architecture) for image in images]
        with clock.stage('upload'):
            x = torch.stack(batch).to(self.device)
        with clock.stage('backbone'):
            features = self.model.backbone(self.as_input(x))
        with clock.stage('rpn'):
            proposals = self.propose(
                features,
                self._anchors_of(features),
                network_hw,
                settings.proposals,
                nms,
            )
            most = int(proposals.valid.sum(1).max())
            proposals = Proposals(
                proposals.boxes[:, :most],
                proposals.scores[:, :most],
                proposals.valid[:, :most],
            )
        pooled_from = self._poolable(features)
        with clock.stage('box_head'):
            detections = self._detect(pooled_from, proposals, network_hw, settings)
        with clock.stage('filter'):
            filtered = self.filter(
                detections,
                network_hw,
                image_hw,
                settings.min_mask_area,
                settings.mask_threshold,
            )
            image_index, slot = filtered.keep.nonzero(as_tuple=True)
        with clock.stage('mask_head'):
            boxes = detections.boxes[image_index, slot]
            pooled = self._pool_masks(pooled_from, boxes, image_index)
            class_ids = detections.class_ids[image_index, slot]
            probabilities = self.mask_probabilities(pooled, class_ids)
        with clock.stage('download'):
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

    def as_input(self, x: Tensor) -> Tensor:
        """Return a preprocessed batch in the format and memory order of the first layer."""
        return x.to(self.dtype, memory_format=torch.channels_last)

    def propose(
        self,
        features: list[Tensor],
        anchors: list[Tensor],
        network_hw: tuple[int, int],
        proposals: int,
        suppress: Callable[..., Tensor],
    ) -> Proposals:
        """Run the RPN: P = ``proposals`` boxes an image."""
        logits, deltas = self.model.proposal_generator.rpn_head(features)
        return select_proposals(
            logits,
            deltas,
            anchors,
            network_hw,
            self.architecture,
            proposals,
            suppress,
        )

    def predict_boxes(self, pooled: Tensor, images: int) -> tuple[Tensor, Tensor]:
        """Map pooled RoIs (N * P, ...) to logits (N, P, C + 1) and deltas (N, P, 4 or 4 C)."""
        heads = self.model.roi_heads
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        return (
            logits.view(images, -1, logits.shape[-1]),
            deltas.view(images, -1, deltas.shape[-1]),
        )

    def mask_probabilities(self, pooled: Tensor, class_ids: Tensor) -> Tensor:
        """Map pooled RoIs (R, ...) to (R, M, M) float32 probabilities of their classes."""
        if len(pooled) == 0:
            return torch.zeros((0, self.cells, self.cells), device=self.device)
        return mask_probabilities(self.model.roi_heads.mask_head(pooled), class_ids)

    def replaced(self, detections: BoxDetections) -> BoxDetections:
        """Return the detections that are to be taken for those of the box head."""
        return detections if self.replace is None else self.replace(detections)

    def filter(
        self,
        detections: BoxDetections,
        network_hw: tuple[int, int],
        image_hw: tuple[int, int],
        min_mask_area: int | Tensor,
        mask_threshold: float | Tensor,
    ) -> FilteredDetections:
        """Scale the boxes to the input image and pick those that get a mask."""
        return filter_detections(
            detections.boxes,
            detections.valid,
            network_hw,
            image_hw,
            min_mask_area=min_mask_area,
            cells=self.cells,
            mask_threshold=mask_threshold,
            paste=self.architecture.family,
        )

    def allowed(self, settings: InferenceSettings) -> Tensor:
        """Return the class allow-list: (C,) bool, on the CPU."""
        allowed = torch.zeros(self.architecture.num_classes, dtype=torch.bool)
        allowed[list(settings.classes)] = True
        return allowed

    def _anchors_of(self, features: list[Tensor]) -> list[Tensor]:
        """Return the anchors for maps of these sizes; those of the last size are kept."""
        padded_hw = (features[0].shape[-2], features[0].shape[-1])
        if padded_hw not in self._anchors:
            sizes = [(f.shape[-2], f.shape[-1]) for f in features]
            self._anchors = {padded_hw: make_anchors(self.architecture, sizes, self.device)}
        return self._anchors[padded_hw]

    def _detect(
        self,
        pooled_from: list[Tensor],
        proposals: Proposals,
        network_hw: tuple[int, int],
        settings: InferenceSettings,
    ) -> BoxDetections:
        n, p = proposals.valid.shape
        pooled = self._pool_boxes(
            pooled_from,
            proposals.boxes.reshape(-1, 4),
            torch.arange(n, device=self.device).repeat_interleave(p),
        )
        logits, deltas = self.predict_boxes(pooled, n)
        detections = select_detections(
            logits,
            deltas,
            proposals,
            network_hw,
            self.architecture,
            score_threshold=settings.score_threshold,
            nms_threshold=settings.nms_threshold,
            allowed=self.allowed(settings).to(self.device),
            capacity=settings.max_instances,
            max_instances=settings.max_instances,
            candidates=None,
            suppress=nms,
        )
        return self.replaced(detections)

    def _poolable(self, features: list[Tensor]) -> list[Tensor]:
        """Return p2 to p5 as RoIAlign takes them, converted once for both heads."""
        features = features[:LEVELS]
        if self._kernels is not None:
            # The compiled kernel reads channels_last, all in bfloat16 or all in float32; a layer
            # whose numbers do not fit may have stayed in float32.
            same = all(f.dtype == torch.bfloat16 for f in features)
            return features if same else [f.float() for f in features]
        half_on_cpu = self.device.type == 'cpu' and self.dtype != torch.float32
        return [
            (f.float() if half_on_cpu else f).contiguous(memory_format=torch.contiguous_format)
            for f in features
        ]

    def _pool_boxes(self, features: list[Tensor], boxes: Tensor, image_index: Tensor) -> Tensor:
        a = self.architecture
        return self._pool(
            features,
            boxes,
            image_index,
            resolution=a.box_pooler_resolution,
            sampling_ratio=a.box_sampling_ratio,
            aligned=a.box_aligned,
        )

    def _pool_masks(self, features: list[Tensor], boxes: Tensor, image_index: Tensor) -> Tensor:
        a = self.architecture
        return self._pool(
            features,
            boxes,
            image_index,
            resolution=a.mask_pooler_resolution,
            sampling_ratio=a.mask_sampling_ratio,
            aligned=a.mask_aligned,
        )

    def _pool(
        self,
        features: list[Tensor],
        boxes: Tensor,
        image_index: Tensor,
        *,
        resolution: int,
        sampling_ratio: int,
        aligned: bool,
    ) -> Tensor:
        """Pool (R, 4) boxes to (R, C, S, S), channels_last."""
        levels = assign_levels(boxes, self.architecture.family)
        if self._kernels is not None:
            return self._kernels.roi_align(
                features,
                [1.0 / stride for stride in STRIDES[:LEVELS]],
                boxes,
                image_index,
                levels,
                resolution=resolution,
                sampling_ratio=sampling_ratio,
                aligned=aligned,
            )
        pooled = multilevel_roi_align(
            features,
            boxes,
            image_index,
            levels,
            resolution=resolution,
            sampling_ratio=sampling_ratio,
            aligned=aligned,
        )
        return pooled.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def _probe(self) -> None:
        """Run every layer once on noise, a ramp and both extremes."""
        height, width = PROBE_HW
        generator = torch.Generator().manual_seed(0)
        noise = torch.randint(0, 256, (height, width, 3), generator=generator)
        ramp = torch.linspace(0, 255, width).expand(height, width)[..., None].expand(-1, -1, 3)
        checks = (torch.arange(height)[:, None] // 16 + torch.arange(width) // 16) % 2 * 255
        frames = (noise, ramp, checks[..., None].expand(-1, -1, 3))
        images = [Image(frame.to(torch.uint8).contiguous().numpy(), 'bgr') for frame in frames]
        self.run(images, self._probe_settings(), StageClock())

    def _probe_settings(self) -> InferenceSettings:
        return InferenceSettings(
            short_side=0,
            long_side=0,
            score_threshold=-1.0,
            nms_threshold=1.0,
            max_instances=8,
            proposals=64,
            classes=frozenset(range(self.architecture.num_classes)),
        )
