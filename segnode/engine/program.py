# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a stop-free frame launches: fixed shapes from the uint8 frames to the label images.

A frame runs two sequences. ``detect`` goes from the frames on the device to one small packet;
``label`` runs the mask head for as many detections as the packet asks for and paints the label
images. Where they are more than a mask head is run for at once, ``label_next`` takes ``label``'s
place, again and again.

Shapes: N images, D detections, K capacity of the mask head, M side of a mask, H and W of the
image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from segnode.engine.network import NativeNetwork
from segnode.engine.settings import InferenceSettings
from segnode.engine.timing import StageMarks
from segnode.kernels.operators import Operators
from segnode.kernels.plain.nms import largest_float32
from segnode.kernels.resampling import prepare_preprocess
from segnode.model.anchors import make_anchors
from segnode.model.box_head import Limits
from segnode.model.maps import MapSteps
from segnode.model.mask_rcnn import FrameSizes
from segnode.model.steps import Steps

# Candidates that reach the box head's NMS: ten for each detection that may be kept, not fewer than
# these nor more than NMS can hold at once. Exact up to so many, and ``overflow`` says when not.
CANDIDATES = 1000
CANDIDATES_EACH = 10
MOST_CANDIDATES = 2**14


@dataclass(frozen=True, slots=True)
class PathKey:
    """What a path is built for; another value of any of it needs another path."""

    images: int
    image_hw: tuple[int, int]
    order: str
    network_hw: tuple[int, int]
    proposals: int
    capacity: int


class DeviceLimits:
    """The filter values as scalars on the device: another value needs no new capture.

    Attributes:
        limits: of the boxes.
        max_area: () int64, largest area of a mask to stay, input pixels.
    """

    def __init__(self, network: NativeNetwork, key: PathKey) -> None:
        def scalar(dtype: torch.dtype) -> Tensor:
            return torch.zeros((), dtype=dtype, device=network.device)

        self._network = network
        classes = network.architecture.num_classes
        self.limits = Limits(
            proposals=key.proposals,
            capacity=key.capacity,
            candidates=min(max(CANDIDATES, CANDIDATES_EACH * key.capacity), MOST_CANDIDATES),
            score_threshold=scalar(torch.float32),
            nms_threshold=scalar(torch.float32),
            allowed=torch.ones(classes, dtype=torch.bool, device=network.device),
            max_instances=scalar(torch.int64),
            min_mask_area=scalar(torch.int64),
            mask_threshold=scalar(torch.float32),
        )
        self.max_area = scalar(torch.int64)
        self._settings: InferenceSettings | None = None

    def set(self, settings: InferenceSettings) -> None:
        """Take the values of ``settings``; effective for what is launched from here on."""
        if settings == self._settings:
            return
        self._settings = settings
        for scalar, value in (
            (self.limits.score_threshold, settings.score_threshold),
            (self.limits.nms_threshold, largest_float32(settings.nms_threshold)),
            (self.limits.mask_threshold, settings.mask_threshold),
            (self.limits.max_instances, settings.max_instances),
            (self.limits.min_mask_area, settings.min_mask_area),
            (self.max_area, int(min(settings.max_mask_area, 2**62))),
        ):
            assert isinstance(scalar, Tensor)
            scalar.fill_(value)
        self.limits.allowed.copy_(self._network.allowed(settings))


@dataclass(frozen=True, slots=True)
class Chosen:
    """Detections that get a mask, moved to the front; all on the device.

    Attributes:
        features: the maps that masks are pooled from.
        network_boxes: (N, D, 4) float32 xyxy, network pixels.
        boxes: (N, D, 4) float32 xyxy, input pixels.
        class_ids: (N, D) int64.
        keep: (N, D) bool.
        packet: what the host is told, see ``Choice``.
    """

    features: list[Tensor]
    network_boxes: Tensor
    boxes: Tensor
    class_ids: Tensor
    keep: Tensor
    packet: Tensor


@dataclass(frozen=True, slots=True)
class Masks:
    """The masks of K detections an image; all on the device.

    Attributes:
        probabilities: (N, K, M, M) float32.
        labels: (N, H, W) uint16.
        areas: (N, K) int64, input pixels of each own mask, -1 where it does not stay.
    """

    probabilities: Tensor
    labels: Tensor
    areas: Tensor


class Program:
    """The launches of one key, over buffers that are made once.

    It changes nothing but its buffers: what a launch finds is returned. It knows nothing of the
    graphs that record it, so that a path is freed as soon as it is dropped.
    """

    STAGES = (
        'start',
        'upload',
        'preprocess',
        'backbone',
        'rpn',
        'box_head',
        'filter',
        'packet',
        'mask_head',
        'paste',
        'download',
    )

    def __init__(
        self,
        network: NativeNetwork,
        operators: Operators,
        key: PathKey,
        settings: InferenceSettings,
    ) -> None:
        """Make the buffers on the network's device."""
        device, architecture = network.device, network.architecture
        self.key = key
        self._network = network
        self._operators = operators
        self.marks = StageMarks(device, self.STAGES)
        self.limits = DeviceLimits(network, key)
        self.limits.set(settings)
        self.frames = torch.zeros((key.images, *key.image_hw, 3), dtype=torch.uint8, device=device)
        self._plan = prepare_preprocess(
            key.image_hw,
            key.network_hw,
            device,
            resize=architecture.semantics.resize,
            size_divisibility=architecture.size_divisibility,
        )
        self._mean = torch.tensor(architecture.pixel_mean, device=device)
        self._std = torch.tensor(architecture.pixel_std, device=device)
        self._swap = key.order.upper() != architecture.color
        feature_hw = architecture.feature_hw(self._plan.padded_hw)
        self._anchors = make_anchors(architecture, feature_hw, device)
        # How far label_next has come: the next detection, those that stay, and what is painted.
        self._next = torch.zeros((), dtype=torch.int64, device=device)
        self._taken = torch.zeros((key.images, 1, 1), dtype=torch.int32, device=device)
        self._painted: Tensor | None = None
        self._steps = Steps(
            parts=network.model.parts(
                self.marks.mark, MapSteps(operators.max_pool, operators.add_enlarged)
            ),
            select_proposals=operators.select_proposals,
            select_detections=operators.select_detections,
            roi_align=operators.roi_align,
            mark=self.marks.mark,
            poolable=network.pooled_maps,
            replace=network.replaced,
        )

    def preprocess(self, channels: int) -> Tensor:
        """Launch what makes of ``frames`` the network's input, of so many channels."""
        given = (self.frames, self._plan, self._mean, self._std, self._swap, self._network.dtype)
        return self._operators.preprocess(*given, channels)

    def detect(self) -> Chosen:
        """Launch everything from ``frames`` to the packet."""
        network, key = self._network, self.key
        self.marks.mark('upload')
        x = self.preprocess(network.model.first_conv.in_channels)
        self.marks.mark('preprocess')
        sizes, limits = FrameSizes(key.network_hw, key.image_hw), self.limits.limits
        features, detections = network.model.detect(x, self._anchors, sizes, limits, self._steps)
        assert isinstance(limits.min_mask_area, Tensor)
        assert isinstance(limits.mask_threshold, Tensor)
        choice = self._operators.choose(
            detections,
            *sizes,
            min_mask_area=limits.min_mask_area,
            cells=network.architecture.mask_side,
            mask_threshold=limits.mask_threshold,
            semantics=network.architecture.semantics,
        )
        self.marks.mark('filter')
        return Chosen(features, *choice)

    def label(self, capacity: int, chosen: Chosen) -> Masks:
        """Launch everything from the first ``capacity`` detections to the label images."""
        masks = self._masks(
            Chosen(
                chosen.features,
                chosen.network_boxes[:, :capacity],
                chosen.boxes[:, :capacity].contiguous(),
                chosen.class_ids[:, :capacity],
                chosen.keep[:, :capacity].contiguous(),
                chosen.packet,
            ),
            self._steps,
        )
        self.marks.mark('paste')
        return masks

    def restart(self) -> None:
        """Have ``label_next`` begin with the first detection and empty label images.

        The first call makes their buffer.
        """
        if self._painted is None:
            shape = (self.key.images, *self.key.image_hw)
            self._painted = torch.zeros(shape, dtype=torch.int32, device=self.frames.device)
        self._next.zero_()
        self._taken.zero_()
        self._painted.zero_()

    def label_next(self, capacity: int, chosen: Chosen) -> Masks:
        """Launch everything from the next ``capacity`` detections to the label images so far.

        It marks no stage: mask head and paste take turns. ``restart`` comes before the first.
        """
        assert self._painted is not None
        slots = chosen.keep.shape[1]
        slot = self._next + torch.arange(capacity, device=self.frames.device)
        index = slot.clamp(max=slots - 1)
        masks = self._masks(
            Chosen(
                chosen.features,
                chosen.network_boxes.index_select(1, index),
                chosen.boxes.index_select(1, index),
                chosen.class_ids.index_select(1, index),
                chosen.keep.index_select(1, index) & (slot < slots),
                chosen.packet,
            ),
            replace(self._steps, mark=lambda _: None),
        )
        # PyTorch can store uint16 but hardly compute with it.
        labels = masks.labels.view(torch.int16).int()
        labels = torch.where(labels > 0, labels + self._taken, 0)
        torch.where(self._painted > 0, self._painted, labels, out=self._painted)
        self._taken += (masks.areas >= 0).sum(1)[:, None, None]
        self._next += capacity
        labels = self._painted.to(torch.int16).view(torch.uint16)
        return Masks(masks.probabilities, labels, masks.areas)

    def _masks(self, chosen: Chosen, steps: Steps) -> Masks:
        """Run the mask head for all that is chosen, and paint it."""
        n, count = chosen.keep.shape
        limits = self.limits.limits
        probabilities = self._network.model.masks(
            chosen.features,
            chosen.network_boxes.reshape(-1, 4),
            None,
            chosen.class_ids.reshape(-1),
            steps,
        ).unflatten(0, (n, count))
        assert isinstance(limits.mask_threshold, Tensor)
        assert isinstance(limits.min_mask_area, Tensor)
        labels, areas = self._operators.paste_labels(
            probabilities,
            chosen.boxes,
            chosen.keep,
            self.key.image_hw,
            threshold=limits.mask_threshold,
            min_area=limits.min_mask_area,
            max_area=self.limits.max_area,
            paste=self._network.architecture.semantics.paste,
        )
        return Masks(probabilities, labels, areas)
