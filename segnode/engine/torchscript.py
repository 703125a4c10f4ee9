# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""An exported (TorchScript) Mask R-CNN behind the engine: a black box with one stage.

Shapes: D detections, M side of a mask, H and W of the resized image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segnode.checkpoint.model import ExportedInput, TorchScriptModel
from segnode.config import MOST_INSTANCES
from segnode.engine.answers import Counts, Instances, Labelled
from segnode.engine.pasting import label_images
from segnode.engine.settings import InferenceSettings
from segnode.engine.timing import StageClock
from segnode.engine.torchscript_program import TorchScriptRunner
from segnode.errors import ConfigError
from segnode.image import Image, Lend
from segnode.kernels.preprocess import resize_pixels, resized_hw
from segnode.model.architecture import SEMANTICS, Paste
from segnode.model.box_head import BoxDetections
from segnode.model.mask_filter import filter_detections


class TorchScriptBackend:
    """A TorchScript program with what its description says around it.

    See ``segnode.engine.backend.Backend``.
    """

    def __init__(
        self, model: TorchScriptModel, runner: TorchScriptRunner, device: torch.device
    ) -> None:
        """Take a loaded program.

        Args:
            model: where it came from.
            runner: the program.
            device: where it was loaded.
        """
        self._description = model.description
        self._pasted = model.description.masks == 'pasted'
        self._runner = runner
        self.device = device
        self.precision = 'exported'
        self.paste = model.description.paste
        self.gives_raw_masks = not self._pasted
        self.lend: Lend | None = None

    def defaults(self) -> InferenceSettings:
        """Return the settings of the description; the program has its own thresholds inside."""
        given = self._description.input
        return InferenceSettings(
            short_side=given.short_side,
            long_side=given.long_side,
            score_threshold=0.0,
            nms_threshold=1.0,
            max_instances=MOST_INSTANCES,
            proposals=1000,
        )

    def check(self, settings: InferenceSettings) -> None:
        """Refuse what only the program itself could do.

        Raises:
            ConfigError: an IoU threshold or a number of proposals was set.
        """
        defaults = self.defaults()
        for name, key in (
            ('nms_threshold', 'filter.nms_threshold'),
            ('proposals', 'proposals'),
        ):
            if getattr(settings, name) != getattr(defaults, name):
                raise ConfigError(
                    f'{key}: expected it unset, as an exported model has its own inside, '
                    f'found {getattr(settings, name)}'
                )

    def resized_hw(
        self, image_hw: tuple[int, int], settings: InferenceSettings
    ) -> tuple[int, int]:
        """Return the network's input size for an image."""
        return resized_hw(image_hw, settings.short_side, settings.long_side)

    def run(
        self, images: Sequence[Image], settings: InferenceSettings, clock: StageClock
    ) -> list[Instances]:
        """Find the instances of images of one size, one image at a time.

        Args:
            images: all of one height and width.
            settings: taken once for the whole batch.
            clock: gets the stages preprocess, upload, network, filter, download.

        Raises:
            CheckpointError: the program fails, or its output is not what the description says.
        """
        return [self._run_one(image, settings, clock) for image in images]

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
            ConfigError: an exported model has no box head to get at.
        """
        if replace is not None:
            raise ConfigError('replaced detections need a native model, found an exported one')

    def prepare(self, settings: InferenceSettings) -> None:
        """Nothing is built for settings."""

    def reserve(self, paths: int) -> None:
        """Nothing is built for sizes."""

    def clear(self) -> None:
        """Nothing is held between frames."""

    def describe(self) -> dict[str, str]:
        """Nothing about a GPU."""
        return {}

    @torch.inference_mode()
    def _run_one(self, image: Image, settings: InferenceSettings, clock: StageClock) -> Instances:
        image_hw = (image.height, image.width)
        network_hw = self.resized_hw(image_hw, settings)
        with clock.stage('preprocess'):
            x = exported_input(image, network_hw, self._description.input)
        with clock.stage('upload'):
            x = x.to(self.device)
        with clock.stage('network'):
            found = self._runner.forward(x, settings.score_threshold)
        with clock.stage('filter'):
            # Highest score first; the program's order decides among equal scores.
            order = torch.argsort(found.scores, descending=True, stable=True)
            classes = torch.tensor(sorted(settings.classes), device=order.device)
            allowed = torch.isin(found.class_ids[order], classes)
            chosen = order[allowed][: settings.max_instances]
            boxes = found.boxes[chosen]
            filtered = filter_detections(
                boxes[None],
                torch.ones_like(chosen, dtype=torch.bool)[None],
                network_hw,
                image_hw,
                # A mask that is there already is measured, whatever its box could hold.
                min_mask_area=0 if self._pasted else settings.min_mask_area,
                cells=found.masks.shape[-1],
                mask_threshold=settings.mask_threshold,
                semantics=SEMANTICS[self.paste],
            )
            keep = filtered.keep[0]
            chosen = chosen[keep]
            masks = found.masks[chosen].float()
            if self._pasted:
                masks = whole_masks(masks, image_hw, settings.mask_threshold, self.paste)
        with clock.stage('download'):
            return Instances(
                boxes=filtered.boxes[0, keep].cpu(),
                scores=found.scores[chosen].cpu(),
                class_ids=found.class_ids[chosen].cpu(),
                masks=masks.cpu(),
                counts=Counts(
                    detected=len(keep),
                    filtered_class=int((~allowed).sum()),
                    filtered_area=int(filtered.filtered_area[0]),
                ),
            )


def whole_masks(
    masks: Tensor, image_hw: tuple[int, int], threshold: float, paste: Paste
) -> Tensor:
    """Return masks that the program pasted into its input as (N, H, W) bool of the image.

    Args:
        masks: (N, H', W') float32.
        image_hw: H and W of the image; another size than the input's is interpolated.
        threshold: Detectron2 sets a pixel at this value, torchvision above it.
        paste: whose rule that is.
    """
    if tuple(masks.shape[1:]) != image_hw:
        masks = F.interpolate(masks[None], size=image_hw, mode='bilinear')[0]
    return masks >= threshold if paste == 'detectron2' else masks > threshold


def exported_input(image: Image, size_hw: tuple[int, int], given: ExportedInput) -> Tensor:
    """Return the (3, H, W) float32 input of an exported network for one image.

    Pixels are resized by Pillow, as Detectron2's exports expect, then scaled and normalised.
    """
    pixels = resize_pixels(image.pixels, size_hw)
    if image.order != given.color:
        pixels = pixels[..., ::-1]
    planar = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)
    mean = np.array(given.mean, dtype=np.float32).reshape(3, 1, 1)
    std = np.array(given.std, dtype=np.float32).reshape(3, 1, 1)
    return torch.from_numpy((planar * np.float32(given.scale) - mean) / std)
