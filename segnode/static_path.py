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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segnode.device import is_out_of_memory
from segnode.graphs import Capture, CapturedSequence, CaptureThread, CaptureUnsupportedError
from segnode.image import Image
from segnode.kernels.operators import Operators, is_kernel_failure, plain_operators
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
        packet: (N, HEADER + D * FIELDS) float32, what the host is told.
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
        device = network.device
        architecture = network.architecture
        self.key = key
        self._network = network
        self._operators = operators
        self._settings: InferenceSettings | None = None
        self._limits = Limits(network)
        self.set_limits(settings)
        self.frames = torch.zeros((key.images, *key.image_hw, 3), dtype=torch.uint8, device=device)
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
        self._image_index = torch.arange(key.images, device=device)
        self.marks = StageMarks(device, self.STAGES)

    def set_limits(self, settings: InferenceSettings) -> None:
        """Take the filter values of ``settings`` for what is launched from here on."""
        if settings != self._settings:
            self._limits.set(settings)
            self._settings = settings

    def detect(self) -> Found:
        """Launch everything from ``frames`` to the packet."""
        network, key, limits = self._network, self.key, self._limits
        architecture, operators, mark = network.architecture, self._operators, self.marks.mark
        mark('upload')
        x = operators.preprocess(
            self.frames, self._plan, self._mean, self._std, self._swap, network.dtype
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
        boxes, class_ids = filtered.boxes.gather(1, columns), detections.class_ids.gather(1, order)
        found = Found(
            features[:4],
            detections.boxes.gather(1, columns),
            boxes,
            class_ids,
            filtered.keep.gather(1, order),
            make_packet(
                (
                    filtered.keep.sum(1),
                    detections.valid.sum(1),
                    detections.filtered_class,
                    filtered.filtered_area,
                    detections.overflow,
                ),
                boxes,
                detections.scores.gather(1, order),
                class_ids,
            ),
        )
        mark('filter')
        return found

    def label(self, capacity: int, found: Found) -> Masks:
        """Launch everything from the first ``capacity`` detections to the label images."""
        network, limits = self._network, self._limits
        architecture, operators, n = network.architecture, self._operators, self.key.images
        pooled = operators.roi_align(
            found.features,
            found.network_boxes[:, :capacity].reshape(-1, 4),
            self._image_index.repeat_interleave(capacity, output_size=n * capacity),
            resolution=architecture.mask_pooler_resolution,
            sampling_ratio=architecture.mask_sampling_ratio,
            aligned=architecture.mask_aligned,
            family=architecture.family,
        )
        probabilities = network.mask_probabilities(
            pooled, found.class_ids[:, :capacity].reshape(-1)
        ).view(n, capacity, network.cells, network.cells)
        self.marks.mark('mask_head')
        labels, areas, stay = operators.paste_labels(
            probabilities,
            found.boxes[:, :capacity].contiguous(),
            found.keep[:, :capacity].contiguous(),
            self.key.image_hw,
            threshold=limits.mask_threshold,
            min_area=limits.min_area,
            max_area=limits.max_area,
            paste=architecture.family,
        )
        masks = Masks(probabilities, labels, torch.where(stay, areas, -1))
        self.marks.mark('paste')
        return masks


def make_packet(
    header: tuple[Tensor, ...], boxes: Tensor, scores: Tensor, class_ids: Tensor
) -> Tensor:
    """Lay the counts, each (N,), and D detections out as (N, HEADER + D * FIELDS) float32."""
    rows = torch.cat((boxes, scores[..., None], class_ids[..., None].float()), dim=-1)
    return torch.cat((torch.stack(header, dim=1).float(), rows.flatten(1)), dim=1)


class StaticPath:
    """The sequences of one key, captured where graphs are, and its buffers on the host."""

    def __init__(
        self,
        network: NativeNetwork,
        operators: Operators,
        key: PathKey,
        settings: InferenceSettings,
        capture: Capture | None,
    ) -> None:
        """Make the buffers, and capture both sequences unless ``capture`` is None.

        Raises:
            CaptureUnsupportedError: they run, and cannot be captured here.
        """
        self.key = key
        self._cells = network.cells
        self._program = program = Program(network, operators, key, settings)
        self.marks = program.marks
        self._detect = CapturedSequence(program.detect, (), program.marks, capture)
        found = self._detect()
        # Fewer than asked for where there are fewer candidates.
        slots = found.keep.shape[1]
        self._label = {
            capacity: CapturedSequence(
                partial(program.label, capacity), (found,), program.marks, capture
            )
            for capacity in [c for c in CAPACITIES if c < slots] + [slots]
        }

        if capture is None and is_asynchronous(network.device):
            # What cannot run here must show now, as in a capture's warm-up.
            for sequence in self._label.values():
                sequence(found)

        def on_host(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, pin_memory=program.frames.is_cuda)

        self._host_frames = on_host(tuple(program.frames.shape), torch.uint8)
        self._host_packet = on_host(tuple(found.packet.shape), torch.float32)
        self._host_labels = on_host((key.images, *key.image_hw), torch.uint16)
        self._host_areas = on_host((key.images * slots,), torch.int64)

    def segment(self, images: Sequence[Image], settings: InferenceSettings) -> list[Labelled]:
        """Run N images to their label images; two stops: the packet's and the answer's."""
        found, kept = self._find(images, settings)
        masks = self._mask(found, kept)
        areas = self._host_areas
        if masks is not None:
            self._host_labels.copy_(masks.labels, non_blocking=True)
            # As one stretch: a copy between other layouts blocks.
            areas = areas[: masks.areas.numel()].view_as(masks.areas)
            areas.copy_(masks.areas, non_blocking=True)
        self.marks.mark('download')
        self._synchronise()
        areas = areas.view(len(images), -1)
        return [self._labelled(n, count, areas[n]) for n, count in enumerate(kept)]

    def run(self, images: Sequence[Image], settings: InferenceSettings) -> list[Instances]:
        """Run N images to their mask probabilities."""
        found, kept = self._find(images, settings)
        masks = self._mask(found, kept)
        probabilities = torch.zeros((len(images), 0, self._cells, self._cells))
        if masks is not None:
            probabilities = masks.probabilities.cpu()
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

    def _find(
        self, images: Sequence[Image], settings: InferenceSettings
    ) -> tuple[Found, list[int]]:
        """Launch ``detect``, wait for the packet; return how many masks each image needs, too."""
        self.marks.begin()
        self.marks.mark('start')
        self._program.set_limits(settings)
        frames = self._host_frames.numpy()
        for n, image in enumerate(images):
            same = image.order == self.key.order
            np.copyto(frames[n], image.pixels if same else image.pixels[..., ::-1])
        self._program.frames.copy_(self._host_frames, non_blocking=True)
        found = self._detect()
        self._host_packet.copy_(found.packet, non_blocking=True)
        self._synchronise()
        self.marks.mark('packet')
        return found, [int(count) for count in self._host_packet[:, 0].tolist()]

    def _mask(self, found: Found, kept: list[int]) -> Masks | None:
        """Launch ``label`` in the smallest capacity that holds all; None where none was kept."""
        if not any(kept):
            return None
        return self._label[next(c for c in self._label if c >= max(kept))](found)

    def _synchronise(self) -> None:
        device = self._program.frames.device
        if device.type == 'cuda':
            torch.cuda.current_stream(device).synchronize()

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

    def _labelled(self, n: int, count: int, slots: Tensor) -> Labelled:
        boxes, scores, class_ids, counts = self._read_packet(n, count)
        if count == 0:
            labels = np.zeros(self.key.image_hw, dtype=np.uint16)
        else:
            labels = self._host_labels[n].numpy().copy()
        areas = slots[:count].numpy()
        stay = areas >= 0
        counts['filtered_area'] += int((~stay).sum())
        return Labelled(boxes[stay], scores[stay], class_ids[stay], areas[stay], labels, counts)


class Streams:
    """The streams of an engine on a GPU: frames run on one, captures on the other.

    On a CPU there are none.
    """

    def __init__(self, device: torch.device) -> None:
        """Make both; PyTorch hands them out from a ring, so that more would meet again."""
        self.frames: torch.cuda.Stream | None = None
        self.captures: torch.cuda.Stream | None = None
        if is_asynchronous(device):
            self.frames, self.captures = torch.cuda.Stream(device), torch.cuda.Stream(device)
            # Neither waits for the default stream by itself, on which the weights were prepared.
            for stream in (self.frames, self.captures):
                stream.wait_stream(torch.cuda.current_stream(device))


@contextmanager
def inference_on(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Launch on a stream, in inference mode."""
    with nullcontext() if stream is None else torch.cuda.stream(stream), torch.inference_mode():
        yield


class StaticPaths:
    """A bounded cache of paths, and where they are built and run.

    Frames run in one thread at a time; others may build meanwhile. All building is done one after
    the other, on a GPU in a thread of its own.
    """

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
        self._building = Lock()
        self._streams = Streams(network.device)
        self._thread = None if self._streams.captures is None else CaptureThread()
        self._no_graphs = ''
        if self._streams.captures is None:
            self._no_graphs = f'none on a {network.device.type.upper()}'
        elif os.environ.get('SEGNODE_GRAPHS') == '0':
            self._no_graphs = 'SEGNODE_GRAPHS is 0'

    def describe(self) -> dict[str, str]:
        """Return what runs: ``operators``, and whether there are ``graphs`` or why not."""
        graphs = f'off ({self._no_graphs})' if self._no_graphs else 'captured'
        return {'operators': self._operators.description, 'graphs': graphs}

    def segment(
        self, images: Sequence[Image], settings: InferenceSettings
    ) -> tuple[list[Labelled], dict[str, float]]:
        """Return the answer of each image and the milliseconds by stage."""
        path = self._path(images, settings)
        with inference_on(self._streams.frames):
            answer = path.segment(images, settings)
            return answer, path.marks.milliseconds()

    def run(
        self, images: Sequence[Image], settings: InferenceSettings, clock: StageClock
    ) -> list[Instances]:
        """Return the instances of each image before paste; ``clock`` gets the stages."""
        path = self._path(images, settings)
        with inference_on(self._streams.frames):
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
        """Drop all paths and their memory, and what is being built as soon as it is."""
        if self._thread is None:
            self._drop_all()
        else:
            # In line with the building, so that no path of before comes afterwards.
            self._thread.run(self._drop_all)

    def _drop_all(self) -> None:
        if self._streams.frames is not None:
            self._streams.frames.synchronize()  # A frame that failed may still be running.
        with self._building, self._lock:
            self._paths.clear()

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

    def _path(self, images: Sequence[Image], settings: InferenceSettings) -> StaticPath:
        first = images[0]
        size = (first.height, first.width)
        return self._prepared(self._key(len(images), size, first.order, settings), settings)

    def _prepared(self, key: PathKey, settings: InferenceSettings) -> StaticPath:
        path = self._built(key)
        if path is None:
            build = partial(self._build_unless_built, key, settings)
            path = build() if self._thread is None else self._thread.run(build)
        return path

    def _built(self, key: PathKey) -> StaticPath | None:
        with self._lock:
            path = self._paths.get(key)
            if path is not None:
                self._paths.move_to_end(key)
            return path

    def _build_unless_built(self, key: PathKey, settings: InferenceSettings) -> StaticPath:
        with self._building:
            path = self._built(key)
            if path is not None:
                return path
            height, width = key.network_hw
            self._report(
                f'preparing {key.images} x {key.image_hw[0]}x{key.image_hw[1]} '
                f'at network input {height}x{width}'
            )
            path = self._build(key, settings)
            with self._lock:
                self._paths[key] = path
                while len(self._paths) > self.LIMIT:
                    self._paths.popitem(last=False)
            return path

    def _build(self, key: PathKey, settings: InferenceSettings) -> StaticPath:
        """Build with what runs here: first without what turns out not to.

        Some builds for embedded boards and ROCm cannot capture, and Triton may fail at a kernel;
        plain launches and plain operators can. Memory that ran out and mistakes are raised.
        """
        again = True
        while True:
            try:
                return self._build_once(key, settings)
            except CaptureUnsupportedError as error:
                if again:
                    # Something else in the process may have spoilt it, by waiting for the device.
                    again = False
                    continue
                self._no_graphs = first_line(error)
                self._report(f'no CUDA graphs here, launching one by one: {self._no_graphs}')
            except Exception as error:
                if is_out_of_memory(error) or not is_kernel_failure(self._operators, error):
                    raise
                self._operators = plain_operators(f'a Triton kernel failed: {first_line(error)}')
                self._report(f'running without Triton kernels: {first_line(error)}')

    def _build_once(self, key: PathKey, settings: InferenceSettings) -> StaticPath:
        stream, capture = self._streams.captures, None
        if stream is not None and not self._no_graphs:
            capture = Capture(stream, torch.cuda.graph_pool_handle())
        else:
            # Blocks are kept by stream: these serve the frames afterwards.
            stream = self._streams.frames
        with inference_on(stream):
            path = StaticPath(self._network, self._operators, key, settings, capture)
        if stream is not None:
            stream.synchronize()
        return path


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
