# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""No network behind the engine: everything else of a frame's way, around fixed instances.

Frames are really preprocessed, and masks are really filtered and pasted. What stands between, the
network, is a wait. So whatever a frame costs with it is what the network does not.

Shapes: D instances, M side of a mask, H and W of the input image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segnode.checkpoint.model import NullModel
from segnode.engine.answers import Counts, Instances, Labelled
from segnode.engine.pasting import label_images
from segnode.engine.settings import InferenceSettings
from segnode.engine.timing import StageClock
from segnode.errors import ConfigError
from segnode.image import Image, Lend
from segnode.kernels.plain.nms import nms
from segnode.kernels.preprocess import preprocess, resized_hw
from segnode.model.architecture import Architecture
from segnode.model.box_head import BoxDetections
from segnode.model.mask_filter import filter_detections

INSTANCES: Final = 20
MASK_SIDE: Final = 28
SEED: Final = 0
# Sides of planted boxes in shares of the image's short side: small to large objects of COCO.
SMALLEST_SIDE, LARGEST_SIDE = 0.03, 0.6
HIGHEST_SCORE, LOWEST_SCORE = 0.99, 0.51


class NullBackend:
    """Preprocesses, waits, and answers the same instances for every frame.

    See ``segnode.engine.backend.Backend``. It preprocesses as for Detectron2's R50-FPN.
    """

    def __init__(self, model: NullModel) -> None:
        """Take a model, of which the wait and the number of classes count."""
        self._wait_s = model.wait_ms * 1e-3
        self._architecture = Architecture()
        self.device = torch.device('cpu')
        self.precision = 'none'
        self.paste = self._architecture.semantics.paste
        self.gives_raw_masks = True
        self.lend: Lend | None = None
        self._masks = torch.from_numpy(blob_masks(INSTANCES))
        self._scores = torch.from_numpy(planted_scores(INSTANCES))
        self._class_ids = torch.arange(INSTANCES) % len(model.class_names)

    def defaults(self) -> InferenceSettings:
        """Return the sizes of Detectron2's R50-FPN, and thresholds that keep every instance."""
        return InferenceSettings(
            short_side=self._architecture.short_side,
            long_side=self._architecture.long_side,
            score_threshold=0.0,
            nms_threshold=1.0,
            max_instances=self._architecture.max_instances,
            proposals=self._architecture.rpn_post_nms_topk,
        )

    def resized_hw(
        self, image_hw: tuple[int, int], settings: InferenceSettings
    ) -> tuple[int, int]:
        """Return the size that an image is preprocessed to, before padding."""
        return resized_hw(image_hw, settings.short_side, settings.long_side)

    def check(self, settings: InferenceSettings) -> None:
        """Every setting has its effect on the fixed instances."""

    def run(
        self, images: Sequence[Image], settings: InferenceSettings, clock: StageClock
    ) -> list[Instances]:
        """Return the fixed instances for each image, after preprocessing and waiting for it.

        The clock gets preprocess, network, filter.
        """
        image_hw = (images[0].height, images[0].width)
        network_hw = self.resized_hw(image_hw, settings)
        clock.begin()
        for image in images:
            preprocess(image, network_hw, self._architecture)
        clock.lap('preprocess')
        if self._wait_s:
            # Other threads run meanwhile, as they do while a GPU computes.
            time.sleep(self._wait_s * len(images))
        clock.lap('network')
        found = self._instances(image_hw, network_hw, settings)
        clock.lap('filter')
        return [found] * len(images)

    def label(
        self,
        images: Sequence[Image],
        settings: InferenceSettings,
        clock: StageClock,
        *,
        raw_masks: bool,
    ) -> list[Labelled]:
        """Return detections and label image of each image; the clock gets paste, too."""
        image_hw = (images[0].height, images[0].width)
        found = self.run(images, settings, clock)
        return label_images(found, image_hw, settings, self.paste, clock, raw_masks=raw_masks)

    def replace_detections(self, replace: Callable[[BoxDetections], BoxDetections] | None) -> None:
        """Refuse it.

        Raises:
            ConfigError: there is no box head to get at.
        """
        if replace is not None:
            raise ConfigError('replaced detections need a native model, found none at all')

    def prepare(self, settings: InferenceSettings) -> None:
        """Nothing is built for settings."""

    def reserve(self, paths: int) -> None:
        """Nothing is built for sizes."""

    def clear(self) -> None:
        """Nothing is held between frames."""

    def describe(self) -> dict[str, str]:
        """Say for people that no detection is one."""
        return {'network': 'none: every frame gets the same planted instances'}

    def _instances(
        self,
        image_hw: tuple[int, int],
        network_hw: tuple[int, int],
        settings: InferenceSettings,
    ) -> Instances:
        boxes = _boxes(network_hw)
        scored = self._scores > settings.score_threshold
        scored[settings.proposals :] = False
        detected = scored
        if settings.nms_threshold < 1:  # At 1, its default here, nothing is suppressed.
            detected = nms(boxes, scored, settings.nms_threshold, self._class_ids)
        allowed = torch.isin(self._class_ids, torch.tensor(sorted(settings.classes)))
        (chosen,) = (detected & allowed).nonzero(as_tuple=True)
        chosen = chosen[: settings.max_instances]
        filtered = filter_detections(
            boxes[chosen][None],
            torch.ones((1, len(chosen)), dtype=torch.bool),
            network_hw,
            image_hw,
            min_mask_area=settings.min_mask_area,
            cells=MASK_SIDE,
            mask_threshold=settings.mask_threshold,
            semantics=self._architecture.semantics,
        )
        keep = filtered.keep[0]
        kept = chosen[keep]
        return Instances(
            boxes=filtered.boxes[0, keep],
            scores=self._scores[kept],
            class_ids=self._class_ids[kept],
            masks=self._masks[kept],
            counts=Counts(
                detected=len(chosen),
                filtered_class=int((detected & ~allowed).sum()),
                filtered_area=int(filtered.filtered_area[0]),
            ),
        )


@lru_cache(maxsize=8)
def _boxes(network_hw: tuple[int, int]) -> Tensor:
    rng = np.random.default_rng((SEED, INSTANCES))
    return torch.from_numpy(planted_boxes(rng, INSTANCES, network_hw))


def planted_boxes(
    rng: np.random.Generator, count: int, image_hw: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Return (D, 4) float32 xyxy boxes of many sizes that lie inside of an image."""
    side = np.exp(rng.uniform(np.log(SMALLEST_SIDE), np.log(LARGEST_SIDE), (count, 1)))
    aspect = np.exp(rng.uniform(-0.7, 0.7, (count, 1)))
    size = min(image_hw) * side * np.hstack((aspect**0.5, aspect**-0.5))
    image = np.array((image_hw[1], image_hw[0]))
    size = np.minimum(size, 0.9 * image)
    low = rng.uniform(0, 1, (count, 2)) * (image - size)
    return np.hstack((low, low + size)).astype(np.float32)


def planted_scores(count: int) -> npt.NDArray[np.float32]:
    """Return (D,) float32 scores that fall."""
    return np.linspace(HIGHEST_SCORE, LOWEST_SCORE, count, dtype=np.float32)


def blob_masks(count: int) -> npt.NDArray[np.float32]:
    """Return (D, M, M) float32 probabilities of wobbly ellipses that nearly fill their box."""
    rng = np.random.default_rng((SEED, count))
    axis = (np.arange(MASK_SIDE) + 0.5) / MASK_SIDE * 2 - 1
    angle, radius = np.arctan2(axis[:, None], axis), np.hypot(axis[:, None], axis)
    wave, phase = rng.integers(2, 6, (count, 1, 1)), rng.uniform(0, 6.28, (count, 1, 1))
    edge = 0.85 + 0.1 * np.sin(wave * angle + phase)
    logits = 12 * (edge - radius) + rng.normal(0, 0.2, (count, MASK_SIDE, MASK_SIDE))
    return (1 / (1 + np.exp(-logits))).astype(np.float32)
