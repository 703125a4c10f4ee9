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
from pathlib import Path

import numpy as np
import torch

from segnode.checkpoint import Model, NullModel, load_model
from segnode.config import Config, parameters
from segnode.engine.answers import Detections, Prediction, Segmentation
from segnode.engine.backend import open_backend
from segnode.engine.device import limit_memory, select_device
from segnode.engine.pasting import label_images, paste_instances
from segnode.engine.settings import InferenceSettings, resolve_settings
from segnode.engine.timing import StageClock
from segnode.errors import ConfigError, OutOfMemoryError, ProgramError, is_out_of_memory
from segnode.heap import Heap
from segnode.image import Image, Lend
from segnode.model.box_head import BoxDetections
from segnode.torch_features import check_torch


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
        model: Model | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """Load the model and move it to its device.

        Args:
            config: what to load and how to run it.
            report: is told in a line what is being done.
            static: run the fixed shapes of a stop-free device on any device.
            model: already loaded, in place of the one that ``config`` names.
            warn: is told in a line what makes the answers useless; None tells ``report``.

        Raises:
            CheckpointError: the model's files are not usable.
            ConfigError: a setting does not fit the model or the device.
            DeviceError: the device is not there, or this PyTorch is too old.
        """
        self._report = say = report or (lambda _: None)
        self._heap = Heap()
        check_torch()
        device = select_device(config.device)
        limit_memory(config.memory_limit_mb, device)
        model = load_model(config, say) if model is None else model
        say(
            f'model {model.name}, weights {model.weights_path}, '
            f'sha256 {model.weights_sha256[:12]}...'
        )
        if isinstance(model, NullModel):
            (warn or say)(
                f'model {model.name} has no network: nothing is detected, and every frame gets '
                'the same planted instances'
            )
        self._backend = open_backend(model, config, device, say, static=static)
        self.device = self._backend.device
        self.precision = self._backend.precision
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
        with self._freeing_memory():
            self._backend.prepare(settings)
        self.settings = settings
        self.config = config

    def replace_detections(self, replace: Callable[[BoxDetections], BoxDetections] | None) -> None:
        """Have ``replace`` answer in place of the box head, all of whose work is still done.

        Timings can only be compared on equal detections; None ends it. It must neither stop for
        the host nor change shapes between frames.

        Raises:
            ConfigError: an exported model has no box head to get at.
        """
        self._backend.replace_detections(replace)

    def _resolve(self, config: Config) -> InferenceSettings:
        settings = resolve_settings(config, self._backend.defaults(), self.class_names)
        self._backend.check(settings)
        return settings

    def warm_up(self, image_hw: tuple[int, int]) -> None:
        """Run two empty frames of a size, so that the first real one is not slow.

        An exported program may fail where it finds nothing, and still do on real frames.
        """
        blank = Image(np.zeros((*image_hw, 3), dtype=np.uint8), 'bgr')
        try:
            for _ in range(2):
                self.segment([blank])
        except ProgramError as error:
            self._report(f'going on, though on an empty picture {error}')

    def segment(
        self,
        images: Sequence[Image],
        *,
        scale: float = 1.0,
        raw_masks: bool = False,
        whole_masks: bool = False,
    ) -> list[Segmentation]:
        """Return detections and label image of each of several images of one size.

        Args:
            images: all of one height and width.
            scale: of the sides of the network's input, 1 for those of the settings.
            raw_masks: whether the network's own masks are wanted, too.
            whole_masks: whether every instance's mask is wanted, too, covered or not. A device
                that paints them at once runs a second time for it, which is not timed.

        Raises:
            OutOfMemoryError: what the frame held has been freed; another resolution may fit.
        """
        image_hw, clock = _common_size(images), StageClock()
        settings = self.settings.scaled(scale, image_hw)
        with self._freeing_memory():
            answers = self._backend.label(images, settings, clock, raw_masks=raw_masks)
            if whole_masks and any(found.crops is None for found in answers):
                untimed, rule = StageClock(), self._backend.paste
                again = self._backend.run(images, settings, untimed)
                answers = label_images(
                    again, image_hw, settings, rule, untimed, raw_masks=raw_masks
                )
        network_hw = self._backend.resized_hw(image_hw, settings)
        self._heap.after_frame(*image_hw, *network_hw)
        stage_ms = clock.milliseconds()
        return [
            Segmentation(
                Detections(found.boxes, found.scores, found.class_ids, found.areas),
                found.labels,
                stage_ms,
                network_hw,
                found.counts,
                found.raw_masks,
                found.crops,
            )
            for found in answers
        ]

    def predict(self, images: Sequence[Image]) -> list[Prediction]:
        """Return detections and whole masks of each of several images of one size.

        Raises:
            OutOfMemoryError: what the frame held has been freed; another resolution may fit.
        """
        settings, clock = self.settings, StageClock()
        image_hw = _common_size(images)
        with self._freeing_memory():
            found = self._backend.run(images, settings, clock)
            with clock.stage('paste'):
                pasted = [
                    paste_instances(each, image_hw, settings, self._backend.paste)
                    for each in found
                ]
        network_hw = self._backend.resized_hw(image_hw, settings)
        self._heap.after_frame(*image_hw, *network_hw)
        stage_ms = clock.milliseconds()
        return [
            Prediction(detections, crops, image_hw, stage_ms, network_hw, counts)
            for detections, crops, counts, _ in pasted
        ]

    def reserve(self, paths: int) -> None:
        """Keep what is built for so many image sizes, scales and numbers of frames."""
        self._backend.reserve(paths)

    @property
    def gives_raw_masks(self) -> bool:
        """Whether ``raw_masks`` can be had: an exported program may paste its masks itself."""
        return self._backend.gives_raw_masks

    @property
    def lend(self) -> Lend | None:
        """Lends one thread memory to decode frames into, from which a GPU fetches them uncopied.

        None on a CPU, and where a program takes its frames otherwise. Frames from elsewhere are
        copied into such memory when they are run.
        """
        return self._backend.lend

    def memory(self) -> dict[str, int]:
        """Return the device memory ``in_use`` and at its ``peak`` in bytes; 0 on a CPU."""
        if self.device.type != 'cuda':
            return {'in_use': 0, 'peak': 0}
        return {
            'in_use': torch.cuda.memory_allocated(self.device),
            'peak': torch.cuda.max_memory_allocated(self.device),
        }

    def execution(self) -> dict[str, str]:
        """Return how frames are run on a GPU, for people: ``operators``, ``graphs`` and more."""
        return self._backend.describe()

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
        self._backend.clear()
        gc.collect()
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()
        raise OutOfMemoryError(
            f'{self.device} ran out of memory at network input short side '
            f'{self.settings.short_side}; lower resolution.short_side or take a smaller model'
        )


def _common_size(images: Sequence[Image]) -> tuple[int, int]:
    sizes = {(image.height, image.width) for image in images}
    if len(sizes) != 1:
        raise ConfigError(f'a batch takes images of one size, found {sorted(sizes)}')
    return sizes.pop()
