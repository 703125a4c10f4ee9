# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The engine: a model on a device, from images to masks.

It ties the stages together and knows no ROS: the node, ``predict`` and the tests call the same
methods. One thread at a time may run frames; ``configure`` may be called from another.

Shapes: D instances, H and W of the input image.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from segnode.checkpoint import NativeModel, TorchScriptModel, load_model
from segnode.checkpoint.torchscript import load_torchscript
from segnode.config import Config, parameters
from segnode.device import is_out_of_memory, limit_memory, select_device
from segnode.errors import ConfigError, OutOfMemoryError
from segnode.exported import ExportedNetwork
from segnode.image import Image
from segnode.kernels.cpu import load_cpu_kernels
from segnode.model.box_head import BoxDetections
from segnode.model.precision import choose_precision
from segnode.network import Instances, NativeNetwork
from segnode.paste import MaskCrop, Paste, label_image, paste_masks, whole_mask
from segnode.settings import InferenceSettings, resolve_settings
from segnode.timing import StageClock

if TYPE_CHECKING:
    from segnode.static_path import StaticPaths


class Network(Protocol):
    """What the engine needs of a network, native or exported."""

    def defaults(self) -> InferenceSettings:
        """Return the settings of the model's own config."""
        ...

    def check(self, settings: InferenceSettings) -> None:
        """Raise ConfigError where a setting has no meaning for this network."""
        ...

    def resized_hw(
        self, image_hw: tuple[int, int], settings: InferenceSettings
    ) -> tuple[int, int]:
        """Return the network's input size for an image, before padding."""
        ...

    def run(
        self, images: Sequence[Image], settings: InferenceSettings, clock: StageClock
    ) -> list[Instances]:
        """Find the instances of images of one size."""
        ...


@dataclass(frozen=True, slots=True)
class Detections:
    """Instances of one image, highest score first.

    Attributes:
        boxes_xyxy: (D, 4) float32, input pixels.
        scores: (D,) float32.
        class_ids: (D,) int64, indices into the engine's ``class_names``.
        mask_areas: (D,) int64, input pixels of the instance's own mask, before overlaps.
    """

    boxes_xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int64]
    mask_areas: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True)
class Segmentation:
    """One image's detections and their one label image.

    Attributes:
        detections: what was found and kept.
        label_image: (H, W) uint16; 0 is background, k is ``detections`` k - 1, and where
            instances overlap the higher score wins.
        stage_ms: milliseconds by stage, in the order of the stages; of the whole batch.
        network_hw: the network's input before padding.
        counts: ``detected``, ``kept`` and what each filter took out.
    """

    detections: Detections
    label_image: npt.NDArray[np.uint16]
    stage_ms: dict[str, float]
    network_hw: tuple[int, int]
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One image's detections and every instance's whole mask.

    Attributes:
        detections: what was found and kept.
        crops: D masks, each with where it lies.
        image_hw: H and W.
        stage_ms: milliseconds by stage, in the order of the stages; of the whole batch.
        network_hw: the network's input before padding.
        counts: ``detected``, ``kept`` and what each filter took out.
    """

    detections: Detections
    crops: list[MaskCrop]
    image_hw: tuple[int, int]
    stage_ms: dict[str, float]
    network_hw: tuple[int, int]
    counts: dict[str, int]

    def mask(self, index: int) -> npt.NDArray[np.bool_]:
        """Return the (H, W) bool mask of one instance."""
        return whole_mask(self.crops[index], self.image_hw)

    def rle(self, index: int) -> dict[str, Any]:
        """Return the mask of one instance as COCO's run lengths: ``size`` and ``counts``."""
        # Here, as frames need no pycocotools.
        from pycocotools import mask as coco_mask

        encoded = coco_mask.encode(np.asfortranarray(self.mask(index).view(np.uint8)))
        return {'size': encoded['size'], 'counts': encoded['counts'].decode('ascii')}

    def label_image(self) -> npt.NDArray[np.uint16]:
        """Return the masks as one (H, W) uint16 label image."""
        return label_image(self.crops, self.image_hw)


class Engine:
    """A model on a device.

    Attributes:
        config: what was asked for.
        settings: the effective numbers.
        class_names: one a class, by class index.
        category_ids: COCO's category ids, one a class, or None where the classes are others.
        model_name: preset or file name.
        weights_path: file of the weights.
        weights_sha256: hexadecimal.
        device: where it runs.
        precision: number format of the network.
    """

    def __init__(
        self,
        config: Config,
        report: Callable[[str], None] | None = None,
        *,
        static: bool = False,
        model: NativeModel | TorchScriptModel | None = None,
    ) -> None:
        """Load the model and move it to its device.

        Args:
            config: what to load and how to run it.
            report: is told in a line what is being done.
            static: run the fixed shapes of a stop-free device on any device.
            model: already loaded, in place of the one that ``config`` names.

        Raises:
            CheckpointError: the model's files are not usable.
            ConfigError: a setting does not fit the model or the device.
            DeviceError: the device is not there.
        """
        say = report or (lambda _: None)
        self.device = select_device(config.device)
        limit_memory(config.memory_limit_mb, self.device)
        model = load_model(config) if model is None else model
        say(f'model {model.name}, weights {model.weights_path}')
        self._network: Network
        self._static: StaticPaths | None = None
        self._paste: Paste
        if isinstance(model, NativeModel):
            precision = choose_precision(config.precision, self.device)
            network = NativeNetwork(model.architecture, model.state_dict, self.device, precision)
            if network.float32_layers:
                say(
                    f'{len(network.float32_layers)} layers stay in fp32, as their numbers do not '
                    f'fit in {precision}: {", ".join(network.float32_layers)}'
                )
            self._network = network
            self._paste = model.architecture.family
            if self.device.type == 'cpu' and isinstance(reason := load_cpu_kernels(), str):
                say(f'no compiled CPU kernels ({reason}): resize, RoIAlign and paste are slow')
            self.precision = precision
            if static or self.device.type == 'cuda':
                # Here, as a CPU that runs the dynamic path needs neither.
                from segnode.kernels.operators import select_operators
                from segnode.static_path import StaticPaths

                self._static = StaticPaths(network, select_operators(self.device), say)
        else:
            if config.device == 'auto' and model.description.quantized_engine:
                self.device = torch.device('cpu')  # PyTorch's quantized kernels are CPU only
            self._network = ExportedNetwork(
                model, load_torchscript(model, self.device), self.device
            )
            self._paste = model.description.paste
            self.precision = 'exported'
            if config.precision != 'auto':
                raise ConfigError(
                    'precision: expected auto, as an exported model has its own number format '
                    f'inside, found {config.precision}'
                )
        self.class_names: tuple[str, ...] = model.class_names
        self.category_ids: tuple[int, ...] | None = model.category_ids
        self.model_name: str = model.name
        self.weights_path: Path = model.weights_path
        self.weights_sha256: str = model.weights_sha256
        self.config = config
        self.settings = self._resolve(config)

    def configure(self, config: Config) -> None:
        """Take other settings from the next frame on, all or none.

        Raises:
            ConfigError: a class is unknown, or a setting that needs a restart differs.
            OutOfMemoryError: the device cannot hold it; the settings stay as they were.
        """
        current, wanted = self.config.flat(), config.flat()
        fixed = [p.name for p in parameters(Config) if not p.runtime]
        changed = [name for name in fixed if current[name] != wanted[name]]
        if changed:
            raise ConfigError(f'{", ".join(changed)}: a change needs a restart')
        settings = self._resolve(config)
        if self._static is not None:
            with self._freeing_memory():
                self._static.prepare(settings)
        self.settings = settings
        self.config = config

    def replace_detections(self, replace: Callable[[BoxDetections], BoxDetections] | None) -> None:
        """Have ``replace`` answer in place of the box head, all of whose work is still done.

        Timings can only be compared on equal detections; None ends it. It must neither stop for
        the host nor change shapes between frames.

        Raises:
            ConfigError: an exported model has no box head to get at.
        """
        if isinstance(self._network, NativeNetwork):
            self._network.replace = replace
        elif replace is not None:
            raise ConfigError('replaced detections need a native model, found an exported one')
        if self._static is not None:
            self._static.clear()

    def _resolve(self, config: Config) -> InferenceSettings:
        settings = resolve_settings(config, self._network.defaults(), self.class_names)
        self._network.check(settings)
        return settings

    def warm_up(self, image_hw: tuple[int, int]) -> None:
        """Run two empty frames of a size, so that the first real one is not slow."""
        blank = Image(np.zeros((*image_hw, 3), dtype=np.uint8), 'bgr')
        for _ in range(2):
            self.segment([blank])

    def segment(self, images: Sequence[Image]) -> list[Segmentation]:
        """Return detections and label image of each of several images of one size.

        Raises:
            OutOfMemoryError: what the frame held has been freed; another resolution may fit.
        """
        settings, clock = self.settings, StageClock()
        image_hw = _common_size(images)
        with self._freeing_memory():
            if self._static is not None:
                return self._segment_static(self._static, images, settings)
            found = self._run(images, settings, clock)
            with clock.stage('paste'):
                labels = [label_image(crops, image_hw) for _, crops, _ in found]
        network_hw = self._network.resized_hw(image_hw, settings)
        stage_ms = clock.milliseconds()
        return [
            Segmentation(detections, label, stage_ms, network_hw, counts)
            for (detections, _, counts), label in zip(found, labels, strict=True)
        ]

    def predict(self, images: Sequence[Image]) -> list[Prediction]:
        """Return detections and whole masks of each of several images of one size.

        Raises:
            OutOfMemoryError: what the frame held has been freed; another resolution may fit.
        """
        settings, clock = self.settings, StageClock()
        image_hw = _common_size(images)
        with self._freeing_memory():
            found = self._run(images, settings, clock)
        network_hw = self._network.resized_hw(image_hw, settings)
        stage_ms = clock.milliseconds()
        return [
            Prediction(detections, crops, image_hw, stage_ms, network_hw, counts)
            for detections, crops, counts in found
        ]

    def memory(self) -> dict[str, int]:
        """Return the device memory ``in_use`` and at its ``peak`` in bytes; 0 on a CPU."""
        if self.device.type != 'cuda':
            return {'in_use': 0, 'peak': 0}
        return {
            'in_use': torch.cuda.memory_allocated(self.device),
            'peak': torch.cuda.max_memory_allocated(self.device),
        }

    def execution(self) -> dict[str, str]:
        """Return how frames are run on a GPU, for people: ``operators`` and ``graphs``."""
        return {} if self._static is None else self._static.describe()

    @contextmanager
    def _freeing_memory(self) -> Iterator[None]:
        """Turn what PyTorch raises without memory into one typed error, after freeing."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return
        # Outside of the handler, as the exception's frames hold the tensors.
        if self._static is not None:
            self._static.clear()
        gc.collect()
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()
        raise OutOfMemoryError(
            f'{self.device} ran out of memory at network input short side '
            f'{self.settings.short_side}; lower resolution.short_side or take a smaller model'
        )

    def _segment_static(
        self, static: StaticPaths, images: Sequence[Image], settings: InferenceSettings
    ) -> list[Segmentation]:
        answers, stage_ms = static.segment(images, settings)
        network_hw = self._network.resized_hw((images[0].height, images[0].width), settings)
        return [
            Segmentation(
                Detections(found.boxes, found.scores, found.class_ids, found.areas),
                found.labels,
                stage_ms,
                network_hw,
                {**found.counts, 'kept': len(found.scores)},
            )
            for found in answers
        ]

    def _run(
        self, images: Sequence[Image], settings: InferenceSettings, clock: StageClock
    ) -> list[tuple[Detections, list[MaskCrop], dict[str, int]]]:
        instances = (self._static or self._network).run(images, settings, clock)
        image_hw = (images[0].height, images[0].width)
        with clock.stage('paste'):
            return [self._paste_instances(each, image_hw, settings) for each in instances]

    def _paste_instances(
        self, found: Instances, image_hw: tuple[int, int], settings: InferenceSettings
    ) -> tuple[Detections, list[MaskCrop], dict[str, int]]:
        boxes = found.boxes.numpy()
        crops = paste_masks(
            found.probabilities.numpy(), boxes, image_hw, settings.mask_threshold, self._paste
        )
        areas = np.array([crop.area for crop in crops], dtype=np.int64)
        stay = (areas >= settings.min_mask_area) & (areas <= settings.max_mask_area)
        detections = Detections(
            boxes[stay],
            found.scores.numpy()[stay],
            found.class_ids.numpy()[stay],
            areas[stay],
        )
        counts = dict(found.counts)
        counts['filtered_area'] += int((~stay).sum())
        counts['kept'] = len(detections)
        return detections, [crops[i] for i in np.flatnonzero(stay)], counts


def _common_size(images: Sequence[Image]) -> tuple[int, int]:
    sizes = {(image.height, image.width) for image in images}
    if len(sizes) != 1:
        raise ConfigError(f'a batch takes images of one size, found {sorted(sizes)}')
    return sizes.pop()
