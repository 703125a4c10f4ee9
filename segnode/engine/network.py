# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The layers of one checkpoint on one device, in its number format, and their exact run.

Shapes: N images, R RoIs that get a mask, C classes, M side of a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from segnode.engine.settings import InferenceSettings, own_settings
from segnode.image import Image
from segnode.kernels.cpu import cpu_kernels
from segnode.kernels.operators import exact_operators
from segnode.kernels.preprocess import preprocess, resized_hw
from segnode.model.anchors import make_anchors
from segnode.model.architecture import Architecture
from segnode.model.box_head import BoxDetections, Limits
from segnode.model.fusion import fuse_convolutions
from segnode.model.mask_filter import FilteredDetections
from segnode.model.mask_rcnn import FrameSizes, MaskRCNN, build_mask_rcnn
from segnode.model.precision import DTYPES, convert_layers
from segnode.model.rpn import Proposals
from segnode.model.steps import Mark, Parts, Steps

# Input with which a layer's range is checked: pixels of every brightness and both extremes.
PROBE_HW = (128, 160)
# RoIs of a mask head at a time: one of 256 channels takes 2 MB for each.
MOST_ROIS = 400


class Exact(NamedTuple):
    """What was found in N images, on exactly what is there.

    Attributes:
        detections: in network pixels.
        filtered: the same in input pixels, and which of them get a mask.
        image_index: (R,) int64, the image of each that gets a mask.
        probabilities: (R, M, M) float32.
    """

    detections: BoxDetections
    filtered: FilteredDetections
    image_index: Tensor
    probabilities: Tensor


class NativeNetwork:
    """The modules of one checkpoint on one device.

    Attributes:
        architecture: what was built.
        device: where it runs.
        precision: fp32, fp16 or bf16; int8 too of another engine's programs.
        float32_layers: names of the layers whose numbers do not fit in ``precision``.
        fusion: which library fuses the convolutions, or ``none``.
        input_choice: how many channels the input has and why, for people; '' before it is chosen,
            see ``segnode.engine.input_channels``.
        replace: answers in place of the box head, all of whose work is still done; None answers
            what was found. It must neither stop for the host nor change shapes between frames.
    """

    def __init__(
        self,
        architecture: Architecture,
        state_dict: Mapping[str, Tensor],
        device: torch.device,
        precision: str = 'fp32',
        *,
        programs: Callable[[Mark], Parts] | None = None,
    ) -> None:
        """Build the network.

        Args:
            architecture: what to build.
            state_dict: its weights, float32.
            device: where it runs.
            precision: fp32, fp16 or bf16.
            programs: dense parts of another engine, in place of modules with weights; they take
                and give float32, whatever their precision.
        """
        self.architecture = architecture
        self.device = device
        self.precision = precision
        self.input_choice = ''
        self.dtype = DTYPES['fp32' if programs else precision]
        self.replace: Callable[[BoxDetections], BoxDetections] | None = None
        self._anchors: dict[tuple[int, int], Tensor] = {}
        self._exact = exact_operators(device)
        if programs is not None:
            with torch.device('meta'):
                self.model = MaskRCNN(architecture)
            self._parts, self.fusion = programs, 'none'
            self.float32_layers: tuple[str, ...] = ()
            return
        self.model = build_mask_rcnn(architecture, state_dict).to(device)
        self._parts = self.model.parts
        self.model.roi_heads.box_head.expect_channels_last()
        self.float32_layers = convert_layers(self.model, self.dtype, self._probe)
        self.model.join_layers()
        self.model.to(memory_format=torch.channels_last)
        self.fusion = fuse_convolutions(self.model)

    def defaults(self) -> InferenceSettings:
        """Return the settings of the model's own config."""
        return own_settings(self.architecture)

    def resized_hw(
        self, image_hw: tuple[int, int], settings: InferenceSettings
    ) -> tuple[int, int]:
        """Return the network's input size for an image, before padding."""
        resize = self.architecture.semantics.resize
        return resized_hw(image_hw, settings.short_side, settings.long_side, resize)

    def anchors(self, padded_hw: tuple[int, int]) -> Tensor:
        """Return the anchors of all levels for an input; those of the last size are kept."""
        if padded_hw not in self._anchors:
            feature_hw = self.architecture.feature_hw(padded_hw)
            anchors = make_anchors(self.architecture, feature_hw, self.device)
            self._anchors = {padded_hw: anchors}
        return self._anchors[padded_hw]

    def replaced(self, detections: BoxDetections) -> BoxDetections:
        """Return the detections that are to be taken for those of the box head."""
        return detections if self.replace is None else self.replace(detections)

    def allowed(self, settings: InferenceSettings) -> Tensor:
        """Return the class allow-list: (C,) bool, on the CPU."""
        allowed = torch.zeros(self.architecture.num_classes, dtype=torch.bool)
        allowed[list(settings.classes)] = True
        return allowed

    @torch.inference_mode()
    def run_exactly(
        self, x: Tensor, sizes: FrameSizes, settings: InferenceSettings, mark: Mark
    ) -> Exact:
        """Run the heads on exactly what is there, which suits a CPU; it stops for the host.

        Args:
            x: (N, 3, H, W) float32, preprocessed.
            sizes: of the frames.
            settings: taken once for the whole batch.
            mark: records the stages.
        """
        steps = Steps(
            parts=self._parts(mark),
            select_proposals=self._exact.select_proposals,
            select_detections=self._exact.select_detections,
            roi_align=self._exact.roi_align,
            mark=mark,
            poolable=self._poolable,
            narrow=_without_padding,
            replace=self.replaced,
        )
        limits = Limits(
            proposals=settings.proposals,
            capacity=settings.max_instances,
            candidates=None,
            score_threshold=settings.score_threshold,
            nms_threshold=settings.nms_threshold,
            allowed=self.allowed(settings).to(self.device),
            max_instances=settings.max_instances,
            min_mask_area=settings.min_mask_area,
            mask_threshold=settings.mask_threshold,
        )
        anchors = self.anchors((x.shape[-2], x.shape[-1]))
        x = x.to(self.dtype, memory_format=torch.channels_last)
        features, detections = self.model.detect(x, anchors, sizes, limits, steps)
        filtered = self.model.filter(detections, sizes, limits)
        mark('filter')
        image_index, slot = filtered.keep.nonzero(as_tuple=True)
        boxes, class_ids = (
            values[image_index, slot] for values in (detections.boxes, detections.class_ids)
        )
        rois = zip(*(x.split(MOST_ROIS) for x in (boxes, image_index, class_ids)), strict=True)
        probabilities = [
            self.model.masks(features, some, images, classes, steps)
            for some, images, classes in rois
        ]
        return Exact(detections, filtered, image_index, torch.cat(probabilities))

    def pooled_maps(self, features: list[Tensor]) -> list[Tensor]:
        """Return the maps that are pooled, all in one format.

        RoIAlign reads no other, and a level's layer may have had to stay in float32.
        """
        features = features[: len(self.architecture.pooled_strides)]
        same = len({f.dtype for f in features}) == 1
        return features if same else [f.float() for f in features]

    def _poolable(self, features: list[Tensor]) -> list[Tensor]:
        """Return the pooled maps as RoIAlign takes them, converted once for both heads."""
        features = self.pooled_maps(features)
        on_cpu = self.device.type == 'cpu'
        compiled = on_cpu and cpu_kernels() is not None
        # The compiled kernel reads bfloat16 besides float32, PyTorch's on a CPU float32 alone.
        if on_cpu and not (compiled and features[0].dtype == torch.bfloat16):
            features = [f.float() for f in features]
        if compiled:
            return features  # It reads channels_last.
        return [f.contiguous(memory_format=torch.contiguous_format) for f in features]

    def _probe(self) -> None:
        """Run every layer once on noise, a ramp and both extremes."""
        height, width = PROBE_HW
        generator = torch.Generator().manual_seed(0)
        noise = torch.randint(0, 256, (height, width, 3), generator=generator)
        ramp = torch.linspace(0, 255, width).expand(height, width)[..., None].expand(-1, -1, 3)
        checks = (torch.arange(height)[:, None] // 16 + torch.arange(width) // 16) % 2 * 255
        frames = (noise, ramp, checks[..., None].expand(-1, -1, 3))
        images = [Image(frame.to(torch.uint8).contiguous().numpy(), 'bgr') for frame in frames]
        x = torch.stack([preprocess(image, PROBE_HW, self.architecture) for image in images])
        settings = self._probe_settings()
        self.run_exactly(
            x.to(self.device), FrameSizes(PROBE_HW, PROBE_HW), settings, lambda _: None
        )

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


def _without_padding(proposals: Proposals) -> Proposals:
    """Drop the slots that are valid in no image; it stops for the host."""
    most = int(proposals.valid.sum(1).max())
    return Proposals(*(x[:, :most] for x in (proposals.boxes, proposals.scores, proposals.valid)))
