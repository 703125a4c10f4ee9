# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A native Mask R-CNN that runs its heads on exactly what is there: the path of a CPU.

Shapes: N images, D detections, M side of a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from segnode.engine.answers import Counts, Instances, Labelled
from segnode.engine.network import Exact, NativeNetwork
from segnode.engine.pasting import label_images
from segnode.engine.settings import InferenceSettings
from segnode.engine.timing import StageClock
from segnode.image import Image, Lend
from segnode.kernels.preprocess import preprocess
from segnode.model.box_head import BoxDetections
from segnode.model.mask_rcnn import FrameSizes


class DynamicBackend:
    """See ``segnode.engine.backend.Backend``."""

    def __init__(self, network: NativeNetwork) -> None:
        """Take a network."""
        self.network = network
        self.device = network.device
        self.precision = network.precision
        self.paste = network.architecture.semantics.paste
        self.gives_raw_masks = True
        self.lend: Lend | None = None

    def defaults(self) -> InferenceSettings:
        """Return the settings of the model's own config."""
        return self.network.defaults()

    def resized_hw(
        self, image_hw: tuple[int, int], settings: InferenceSettings
    ) -> tuple[int, int]:
        """Return the network's input size for an image, before padding."""
        return self.network.resized_hw(image_hw, settings)

    def check(self, settings: InferenceSettings) -> None:
        """Every setting has a meaning for a native network."""

    @torch.inference_mode()
    def run(
        self, images: Sequence[Image], settings: InferenceSettings, clock: StageClock
    ) -> list[Instances]:
        """Find the instances of images of one size; it synchronises with the host.

        The clock gets preprocess, upload, backbone, rpn, box_head, filter, mask_head, download.
        """
        network, image_hw = self.network, (images[0].height, images[0].width)
        sizes = FrameSizes(network.resized_hw(image_hw, settings), image_hw)
        clock.begin()
        batch = [preprocess(image, sizes.network_hw, network.architecture) for image in images]
        clock.lap('preprocess')
        x = torch.stack(batch).to(self.device)
        clock.lap('upload')
        exact = network.run_exactly(x, sizes, settings, clock.lap)
        answers = [_instances(exact, n) for n in range(len(images))]
        clock.lap('download')
        return answers

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
        """Have ``replace`` answer in place of the box head; None ends it."""
        self.network.replace = replace

    def prepare(self, settings: InferenceSettings) -> None:
        """Nothing is built for settings."""

    def reserve(self, paths: int) -> None:
        """Nothing is built for sizes."""

    def clear(self) -> None:
        """Nothing is held between frames."""

    def describe(self) -> dict[str, str]:
        """Nothing about a GPU."""
        return {}


def _instances(exact: Exact, n: int) -> Instances:
    """Return one image's instances on the host."""
    detections, filtered = exact.detections, exact.filtered
    keep = filtered.keep[n]
    return Instances(
        boxes=filtered.boxes[n][keep].cpu(),
        scores=detections.scores[n][keep].cpu(),
        class_ids=detections.class_ids[n][keep].cpu(),
        masks=exact.probabilities[exact.image_index == n].cpu(),
        counts=Counts(
            detected=int(detections.valid[n].sum()),
            filtered_class=int(detections.filtered_class[n]),
            filtered_area=int(filtered.filtered_area[n]),
            candidate_overflow=int(detections.overflow[n]),
        ),
    )
