# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a benchmark is run on: frames, and where asked for weights and detections that are planted.

Everything here is made from fixed seeds. Planted weights say how fast a network is and nothing
about what it finds; the planted boxes take the place of what its box head found, after all the
work up to there is done, so that every implementation has the same number of masks to make.

Shapes: N images, D detections, H and W of a frame.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segnode.checkpoint import NativeModel
from segnode.checkpoint.load import DEMO_MODEL, file_architecture, named_model
from segnode.checkpoint.planting import plant_weights
from segnode.checkpoint.presets import Preset
from segnode.config import Config
from segnode.engine.null import SEED, planted_boxes, planted_scores
from segnode.errors import ConfigError
from segnode.image import Image
from segnode.kernels.preprocess import preprocess
from segnode.model.architecture import Architecture
from segnode.model.box_head import BoxDetections

if TYPE_CHECKING:
    from segnode.demo.scene import SceneFrame
    from segnode.evaluation.annotations import Annotations

# Frames that take turns, so that no implementation sees one twice in a row.
FRAMES = 4
# The weights are calibrated on a frame of this size, whatever is timed.
CALIBRATION_HW = (480, 640)


def render_frames(image_hw: tuple[int, int], count: int = FRAMES) -> list[Image]:
    """Return BGR frames of a rendered scene, stretched to a size."""
    return [Image(frame.image, 'bgr') for frame in _scene_frames(image_hw, count)]


def rendered_truth(image_hw: tuple[int, int], count: int = FRAMES) -> Annotations:
    """Return what is to be seen in `render_frames`, their places for image ids."""
    from segnode.demo.scene import coco_annotations
    from segnode.evaluation.annotations import Annotations

    return Annotations.from_coco(coco_annotations(_scene_frames(image_hw, count)))


def _scene_frames(image_hw: tuple[int, int], count: int) -> Iterator[SceneFrame]:
    import cv2

    from segnode.demo.scene import DEMO_SEEDS, Scene, mask_boxes

    scene, size = Scene(DEMO_SEEDS[SEED]), image_hw[::-1]
    for index in range(count):
        frame = scene.frame(7 * index)
        seen = cv2.resize(frame.instance_map, size, interpolation=cv2.INTER_NEAREST)
        yield dataclasses.replace(
            frame,
            image=cv2.resize(frame.image, size).astype(np.uint8),
            instance_map=seen.astype(np.uint8),
            boxes_xyxy=mask_boxes(seen, range(1, len(frame.class_ids) + 1)),
        )


class PlantedDetections:
    """The same D detections for every frame, highest score first.

    Attributes:
        boxes: (D, 4) float32 xyxy, network pixels.
        scores: (D,) float32.
        class_ids: (D,) int64.
    """

    def __init__(self, count: int, image_hw: tuple[int, int], classes: int) -> None:
        """Draw boxes that lie inside of the frame; the scores fall from 0.99 to 0.51."""
        rng = np.random.default_rng((SEED, count, *image_hw))
        self.boxes = planted_boxes(rng, count, image_hw)
        self.scores = planted_scores(count)
        self.class_ids = rng.integers(0, classes, count)
        self._placed: dict[tuple[int, int, torch.device], tuple[Tensor, ...]] = {}

    def __len__(self) -> int:
        return len(self.scores)

    def replace(self, found: BoxDetections) -> BoxDetections:
        """Return these in the place of what was found, in its fixed shape where they fit in it."""
        images, capacity = found.valid.shape
        key = (images, max(capacity, len(self)), found.valid.device)
        if key not in self._placed:
            # Once a shape: a captured sequence must neither upload nor find other memory.
            self._placed[key] = self._place(*key)
        boxes, scores, class_ids, valid = self._placed[key]
        return BoxDetections(boxes, scores, class_ids, valid, found.filtered_class, found.overflow)

    def _place(self, images: int, capacity: int, device: torch.device) -> tuple[Tensor, ...]:
        def place(values: npt.NDArray[np.generic]) -> Tensor:
            padded = np.zeros((capacity, *values.shape[1:]), values.dtype)
            padded[: len(self)] = values
            return torch.from_numpy(padded).repeat(images, *[1] * values.ndim).to(device)

        valid = place(np.ones(len(self), dtype=np.bool_))
        return place(self.boxes), place(self.scores), place(self.class_ids), valid


def named_architecture(config: Config) -> Architecture:
    """Return the network of a preset or of a config, without its weights.

    Raises:
        CheckpointError: the config is not usable.
        ConfigError: neither a preset nor a config.
    """
    named = named_model(config.model)
    return named.architecture if isinstance(named, Preset) else file_architecture(named)


def plant_model(config: Config) -> NativeModel:
    """Return the model that ``config`` names, with planted weights; nothing is fetched.

    Raises:
        CheckpointError: the config is not usable.
        ConfigError: neither a preset nor a config, or weights are named as well.
    """
    if config.weights:
        raise ConfigError('--weights: expected none beside --plant, which makes its own')
    architecture = named_architecture(config)
    name = Path(config.model).stem if config.model else DEMO_MODEL.stem
    return as_model(architecture, plant_architecture(architecture), name)


def plant_architecture(architecture: Architecture) -> dict[str, Tensor]:
    """Return planted weights of a network, calibrated on a rendered frame."""
    (frame,) = render_frames(CALIBRATION_HW, 1)
    calibration = preprocess(frame, CALIBRATION_HW, architecture)[None]
    return plant_weights(architecture, calibration, SEED)


def as_model(architecture: Architecture, state_dict: dict[str, Tensor], name: str) -> NativeModel:
    """Return planted weights as a model whose classes have no names."""
    return NativeModel(
        architecture=architecture,
        state_dict=state_dict,
        class_names=tuple(f'class_{index}' for index in range(architecture.num_classes)),
        category_ids=None,
        name=name,
        weights_path=Path('(planted)'),
        weights_sha256='',
        licence='',
    )
