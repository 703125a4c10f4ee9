# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The stop-free path: fixed shapes from the uint8 frame to the label image.

For one number of images, image size and set of capacities everything that a frame needs is built
once: buffers, anchors, coefficients. A frame then runs two sequences. ``detect`` goes from the
frames on the device to one small packet; the host reads the packet, which is its only stop, and
picks a capacity; ``label`` runs the mask head in that capacity and paints the label images. On a
GPU both are captured as CUDA graphs that share one memory pool.

Shapes: N images, D detections, K capacity of the mask head, M side of a mask, H and W of the
image.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segnode.graphs import CapturedSequence
from segnode.image import Image
from segnode.kernels.operators import Operators
from segnode.kernels.resampling import prepare_preprocess
from segnode.model.anchors import STRIDES, make_anchors
from segnode.model.box_head import select_detections
from segnode.model.nms import largest_float32
from segnode.network import Instances, NativeNetwork
from segnode.settings import InferenceSettings
from segnode.timing import StageClock, StageMarks, is_asynchronous

# Candidates that reach the box head's NMS: exact up to this many, and ``overflow`` says when not.
CANDIDATES = 1000
# Instances that a mask head is run for; padded to 100 it costs more than the backbone.
CAPACITIES = (8, 16, 32, 64, 100)
# Fields of the packet's header: kept, detected, filtered_class, filtered_area, overflow.
HEADER = 5
# Fields of a detection in the packet: box, score, class index.
FIELDS = 6


@dataclass(frozen=True, slots=True)
class PathKey:
    """What a path is built for; another value of any of it needs another path."""

    images: int
    image_hw: tuple[int, int]
    order: str
    network_hw: tuple[int, int]
    proposals: int
    capacity: int


class Limits:
    """The filter values as device scalars: another value needs no new capture."""

    def __init__(self, network: NativeNetwork) -> None:
        def scalar(dtype: torch.dtype) -> Tensor:
            return torch.zeros((), dtype=dtype, device=network.device)

        self._network = network
        self.score_threshold = scalar(torch.float32)
        self.nms_threshold = scalar(torch.float32)
        self.mask_threshold = scalar(torch.float32)
        self.max_instances = scalar(torch.int64)
        self.min_area = scalar(torch.int64)
        self.max_area = scalar(torch.int64)
        self.allowed = torch.ones(
            network.architecture.num_classes, dtype=torch.bool, device=network.device
        )

    def set(self, settings: InferenceSettings) -> None:
        """Take the values of ``settings``; effective for what is launched from here on."""
        self.score_threshold.fill_(settings.score_threshold)
        self.nms_threshold.fill_(largest_float32(settings.nms_threshold))
        self.mask_threshold.fill_(settings.mask_threshold)
        self.max_instances.fill_(settings.max_instances)
        self.min_area.fill_(settings.min_mask_area)
        self.max_area.fill_(int(min(settings.max_mask_area, 2**62)))
        self.allowed.copy_(self._network.allowed(settings))


@dataclass(frozen=True, slots=True)
class Found:
    """Detections that get a mask, moved to the front; all on the device.

    Attributes:
        features: p2 to p5.
        network_boxes: (N, D, 4) float32 xyxy, network pixels.
        boxes: (N, D, 4) float32 xyxy, input pixels.
        class_ids: (N, D) int64.
        keep: (N, D) bool.
    """

    features: list[Tensor]
    network_boxes: Tensor
    boxes: Tensor
    class_ids: Tensor
    keep: Tensor


@dataclass(frozen=True, slots=True)
class Labelled:
    """One image's answer on the host.

    Attributes:
        boxes: (D, 4) float32 xyxy, input pixels.
        scores: (D,) float32, highest first.
        class_ids: (D,) int64.
        areas: (D,) int64, input pixels of each own mask.
        labels: (H, W) uint16.
        counts: as in ``Instances``.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int64]
    areas: npt.NDArray[np.int64]
    labels: npt.NDArray[np.uint16]
    counts: dict[str, int]


class StaticPath:
    """Buffers and sequences for one key."""

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
        pool: Any,
    ) -> None:
        """Build the buffers, and capture both sequences where ``pool`` is one of graphs."""
        device, pinned = network.device, network.device.type == 'cuda'
        architecture = network.architecture
        self.key = key
        self._network = network
        self._operators = operators
        self._settings: InferenceSettings | None = None
        self._limits = Limits(network)
        self._set_limits(settings)
        n, (height, width) = key.images, key.image_hw
        self._host_frames = torch.zeros(
            (n, height, width, 3), dtype=torch.uint8, pin_memory=pinned
        )
        self._frames = self._host_frames.to(device)
        self._plan = prepare_preprocess(
            key.image_hw,
            key.network_hw,
            device,
            family=architecture.family,
            size_divisibility=architecture.size_divisibility,
        )
        self._mean = torch.tensor(architecture.pixel_mean, device=device)
        self._std = torch.tensor(architecture.pixel_std, device=device)
        self._swap = key.order.upper() != architecture.color
        padded_h, padded_w = self._plan.padded_hw
        # p6 is every second cell of p5, the first one included.
        maps = [(-(-padded_h // stride), -(-padded_w // stride)) for stride in STRIDES]
        self._anchors = make_anchors(architecture, maps, device)
        self._image_index = torch.arange(n, device=device)
        packet = (n, HEADER + key.capacity * FIELDS)
        self._packet = torch.zeros(packet, dtype=torch.float32, device=device)
        self._host_packet = torch.zeros(packet, dtype=torch.float32, pin_memory=pinned)
        self._host_labels = torch.zeros((n, height, width), dtype=torch.uint16, pin_memory=pinned)
        self._host_areas = torch.zeros((n, key.capacity), dtype=torch.int64, pin_memory=pinned)
        self.marks = StageMarks(device, self.STAGES)
        self._found: Found
        self._masks: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._detect = CapturedSequence(self._launch_detect, self.marks, device, pool)
        self._detect()
        self._label = {
            capacity: CapturedSequence(
                partial(self._launch_label, capacity), self.marks, device, pool
            )
            for capacity in self._capacities()
        }

    def segment(self, images: Sequence[Image], settings: InferenceSettings) -> list[Labelled]:
        """Run N images to their label images; two stops: the packet's and the answer's."""
        kept = self._run_detect(images, settings)
        capacity = self._run_label(kept)
        if capacity:
            _, labels, areas = self._masks[capacity]
            self._host_labels.copy_(labels, non_blocking=True)
            self._host_areas[:, :capacity].copy_(areas, non_blocking=True)
        self.marks.mark('download')
        self._synchronise()
        return [self._labelled(n, count) for n, count in enumerate(kept)]

    def run(self, images: Sequence[Image], settings: InferenceSettings) -> list[Instances]:
        """Run N images to their mask probabilities."""
        kept = self._run_detect(images, settings)
        capacity = self._run_label(kept)
        cells = self._network.cells
        probabilities = torch.zeros((len(images), 0, cells, cells))
        if capacity:
            probabilities = self._masks[capacity][0].cpu()
        self.marks.mark('download')
        self._synchronise()
        answers = []
        for n, count in enumerate(kept):
            boxes, scores, class_ids, counts = self._read_packet(n, count)
            answers.append(
                Instances(
                    torch.from_numpy(boxes),
                    torch.from_numpy(scores),
                    torch.from_numpy(class_ids),
                    probabilities[n, :count],
                    counts,
                )
            )
        return answers

    def _capacities(self) -> list[int]:
        return [c for c in CAPACITIES if c < self.key.capacity] + [self.key.capacity]

    def _set_limits(self, settings: InferenceSettings) -> None:
        if settings != self._settings:
            self._limits.set(settings)
            self._settings = settings

    def _synchronise(self) -> None:
        if self._frames.is_cuda:
            torch.cuda.current_stream(self._frames.device).synchronize()

    def _run_detect(self, images: Sequence[Image], settings: InferenceSettings) -> list[int]:
        """Launch ``detect``, wait for the packet and return how many masks each image needs."""
        self.marks.begin()
        self.marks.mark('start')
        self._set_limits(settings)
        frames = self._host_frames.numpy()
        for n, image in enumerate(images):
            same = image.order == self.key.order
            np.copyto(frames[n], image.pixels if same else image.pixels[..., ::-1])
        self._frames.copy_(self._host_frames, non_blocking=True)
        self._detect()
        self._host_packet.copy_(self._packet, non_blocking=True)
        self._synchronise()
        return [int(count) for count in self._host_packet[:, 0].tolist()]

    def _run_label(self, kept: list[int]) -> int:
        """Launch ``label`` in the smallest capacity that holds all; 0 where nothing was kept."""
        self.marks.mark('packet')
        if not any(kept):
            return 0
        capacity = next(c for c in self._capacities() if c >= max(kept))
        self._label[capacity]()
        return capacity

    def _launch_detect(self) -> None:
        network, key, limits = self._network, self.key, self._limits
        architecture, operators, mark = (
            network.architecture,
            self._operators,
            self.marks.mark,
        )
        mark('upload')
        x = operators.preprocess(
            self._frames, self._plan, self._mean, self._std, self._swap, network.dtype
        )
        mark('preprocess')
        features = network.model.backbone(x)
        mark('backbone')
        proposals = network.propose(
            features, self._anchors, key.network_hw, key.proposals, operators.nms
        )
        mark('rpn')
        pooled = operators.roi_align(
            features[:4],
            proposals.boxes.reshape(-1, 4),
            self._image_index.repeat_interleave(
                proposals.boxes.shape[1], output_size=proposals.valid.numel()
            ),
            resolution=architecture.box_pooler_resolution,
            sampling_ratio=architecture.box_sampling_ratio,
            aligned=architecture.box_aligned,
            family=architecture.family,
        )
        logits, deltas = network.predict_boxes(pooled, key.images)
        detections = select_detections(
            logits,
            deltas,
            proposals,
            key.network_hw,
            architecture,
            score_threshold=limits.score_threshold,
            nms_threshold=limits.nms_threshold,
            allowed=limits.allowed,
            capacity=key.capacity,
            max_instances=limits.max_instances,
            candidates=CANDIDATES,
            suppress=operators.nms,
        )
        detections = network.replaced(detections)
        mark('box_head')
        filtered = network.filter(
            detections,
            key.network_hw,
            key.image_hw,
            limits.min_area,
            limits.mask_threshold,
        )
        order = torch.sort(filtered.keep.to(torch.uint8), dim=1, descending=True, stable=True)[1]
        columns = order[..., None].expand(-1, -1, 4)
        self._found = Found(
            features[:4],
            detections.boxes.gather(1, columns),
            filtered.boxes.gather(1, columns),
            detections.class_ids.gather(1, order),
            filtered.keep.gather(1, order),
        )
        self._fill_packet(
            detections.scores.gather(1, order),
            (
                filtered.keep.sum(1),
                detections.valid.sum(1),
                detections.filtered_class,
                filtered.filtered_area,
                detections.overflow,
            ),
        )
        mark('filter')

    def _fill_packet(self, scores: Tensor, header: tuple[Tensor, ...]) -> None:
        found = self._found
        rows = torch.cat(
            (found.boxes, scores[..., None], found.class_ids[..., None].float()), dim=-1
        )
        self._packet[:, :HEADER] = torch.stack(header, dim=1)
        self._packet[:, HEADER : HEADER + rows.shape[1] * FIELDS] = rows.flatten(1)

    def _launch_label(self, capacity: int) -> None:
        network, limits, found = self._network, self._limits, self._found
        architecture, operators, n = (
            network.architecture,
            self._operators,
            self.key.images,
        )
        slots = min(capacity, found.keep.shape[1])
        pooled = operators.roi_align(
            found.features,
            found.network_boxes[:, :slots].reshape(-1, 4),
            self._image_index.repeat_interleave(slots, output_size=n * slots),
            resolution=architecture.mask_pooler_resolution,
            sampling_ratio=architecture.mask_sampling_ratio,
            aligned=architecture.mask_aligned,
            family=architecture.family,
        )
        probabilities = network.mask_probabilities(
            pooled, found.class_ids[:, :slots].reshape(-1)
        ).view(n, slots, network.cells, network.cells)
        self.marks.mark('mask_head')
        labels, areas, stay = operators.paste_labels(
            probabilities,
            found.boxes[:, :slots].contiguous(),
            found.keep[:, :slots].contiguous(),
            self.key.image_hw,
            threshold=limits.mask_threshold,
            min_area=limits.min_area,
            max_area=limits.max_area,
            paste=architecture.family,
        )
        self._masks[capacity] = (probabilities, labels, torch.where(stay, areas, -1))
        self.marks.mark('paste')

    def _read_packet(
        self, n: int, count: int
    ) -> tuple[
        npt.NDArray[np.float32],
        npt.NDArray[np.float32],
        npt.NDArray[np.int64],
        dict[str, int],
    ]:
        packet = self._host_packet[n].numpy()
        _, detected, filtered_class, filtered_area, overflow = packet[:HEADER].astype(int).tolist()
        rows = packet[HEADER : HEADER + count * FIELDS].reshape(count, FIELDS).copy()
        counts = {
            'detected': detected,
            'filtered_class': filtered_class,
            'filtered_area': filtered_area,
            'candidate_overflow': overflow,
        }
        return rows[:, :4], rows[:, 4].copy(), rows[:, 5].astype(np.int64), counts

    def _labelled(self, n: int, count: int) -> Labelled:
        boxes, scores, class_ids, counts = self._read_packet(n, count)
        if count == 0:
            labels = np.zeros(self.key.image_hw, dtype=np.uint16)
        else:
            labels = self._host_labels[n].numpy().copy()
        areas = self._host_areas[n, :count].numpy()
        stay = areas >= 0
        counts['filtered_area'] += int((~stay).sum())
        return Labelled(boxes[stay], scores[stay], class_ids[stay], areas[stay], labels, counts)


class StaticPaths:
    """A bounded cache of paths, and the stream that they run on."""

    # Image sizes and resolutions in use at a time; the one unused for longest goes first.
    LIMIT = 4

    def __init__(
        self,
        network: NativeNetwork,
        operators: Operators,
        report: Callable[[str], None],
    ) -> None:
        """Take a network; paths are built for the frames that come."""
        self._network = network
        self._operators = operators
        self._report = report
        self._paths: OrderedDict[PathKey, StaticPath] = OrderedDict()
        self._lock = Lock()
        cuda = is_asynchronous(network.device)
        self._stream = torch.cuda.Stream(network.device) if cuda else None
        graphs = cuda and os.environ.get('SEGNODE_GRAPHS') != '0'
        self._pool = torch.cuda.graph_pool_handle() if graphs else None

    def segment(
        self, images: Sequence[Image], settings: InferenceSettings
    ) -> tuple[list[Labelled], dict[str, float]]:
        """Return the answer of each image and the milliseconds by stage."""
        path = self._path(images, settings)
        with self._on_stream(), torch.inference_mode():
            answer = path.segment(images, settings)
            return answer, path.marks.milliseconds()

    def run(
        self, images: Sequence[Image], settings: InferenceSettings, clock: StageClock
    ) -> list[Instances]:
        """Return the instances of each image before paste; ``clock`` gets the stages."""
        path = self._path(images, settings)
        with self._on_stream(), torch.inference_mode():
            answer = path.run(images, settings)
            clock.add(path.marks.milliseconds())
            return answer

    def prepare(self, settings: InferenceSettings) -> None:
        """Build what the sizes in use need under other settings, beside the running paths."""
        with self._lock:
            sizes = {(key.images, key.image_hw, key.order) for key in self._paths}
        for images, image_hw, order in sizes:
            self._prepared(self._key(images, image_hw, order, settings), settings)

    def clear(self) -> None:
        """Drop all paths and their memory."""
        with self._lock:
            self._paths.clear()

    def _on_stream(self) -> Any:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _key(
        self,
        images: int,
        image_hw: tuple[int, int],
        order: str,
        settings: InferenceSettings,
    ) -> PathKey:
        return PathKey(
            images=images,
            image_hw=image_hw,
            order=order,
            network_hw=self._network.resized_hw(image_hw, settings),
            proposals=settings.proposals,
            capacity=max(settings.max_instances, CAPACITIES[-1]),
        )

    def _build(self, key: PathKey, settings: InferenceSettings) -> StaticPath:
        build = partial(StaticPath, self._network, self._operators, key, settings)
        if self._pool is not None:
            try:
                return build(self._pool)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                # Some builds for embedded boards and ROCm cannot capture; plain launches can.
                self._pool = None
                self._report(f'no CUDA graphs here, launching one by one: {first_line(error)}')
        return build(None)

    def _path(self, images: Sequence[Image], settings: InferenceSettings) -> StaticPath:
        first = images[0]
        size = (first.height, first.width)
        return self._prepared(self._key(len(images), size, first.order, settings), settings)

    def _prepared(self, key: PathKey, settings: InferenceSettings) -> StaticPath:
        with self._lock:
            path = self._paths.get(key)
            if path is not None:
                self._paths.move_to_end(key)
                return path
        height, width = key.network_hw
        self._report(
            f'preparing {key.images} x {key.image_hw[0]}x{key.image_hw[1]} '
            f'at network input {height}x{width}'
        )
        with self._on_stream(), torch.inference_mode():
            path = self._build(key, settings)
        with self._lock:
            self._paths[key] = path
            while len(self._paths) > self.LIMIT:
                self._paths.popitem(last=False)
        return path


def first_line(error: Exception) -> str:
    """Return the first line of an error's text."""
    return (str(error).splitlines() or [type(error).__name__])[0]
