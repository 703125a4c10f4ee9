# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The masks of exact instances in the input image, one by one.

Shapes: D instances, H and W of the input image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segnode.engine.answers import Counts, Detections, Instances, Labelled, as_raw_masks
from segnode.engine.settings import InferenceSettings
from segnode.engine.timing import StageClock
from segnode.kernels.mask_crops import MaskCrop, crop_mask, label_image, paste_masks
from segnode.model.architecture import Paste


def paste_instances(
    found: Instances, image_hw: tuple[int, int], settings: InferenceSettings, paste: Paste
) -> tuple[Detections, list[MaskCrop], Counts, npt.NDArray[np.intp]]:
    """Paste the masks of one image and drop those that are too small or too large.

    Returns:
        The detections that stay, their masks, the counts with what did not, and which stay.
    """
    boxes, masks = found.boxes.numpy(), found.masks.numpy()
    crops = (
        [crop_mask(mask) for mask in masks]
        if masks.dtype == np.bool_
        else paste_masks(masks, boxes, image_hw, settings.mask_threshold, paste)
    )
    areas = np.array([crop.area for crop in crops], dtype=np.int64)
    stay = (areas >= settings.min_mask_area) & (areas <= settings.max_mask_area)
    detections = Detections(
        boxes[stay], found.scores.numpy()[stay], found.class_ids.numpy()[stay], areas[stay]
    )
    counts = dataclasses.replace(
        found.counts,
        kept=len(detections),
        filtered_area=found.counts.filtered_area + int((~stay).sum()),
    )
    stays = np.flatnonzero(stay)
    return detections, [crops[i] for i in stays], counts, stays


def label_images(
    found: Sequence[Instances],
    image_hw: tuple[int, int],
    settings: InferenceSettings,
    paste: Paste,
    clock: StageClock,
    *,
    raw_masks: bool,
) -> list[Labelled]:
    """Paint the masks of each image into its label image; the clock gets paste."""
    with clock.stage('paste'):
        return [
            _label_image(each, image_hw, settings, paste, raw_masks=raw_masks) for each in found
        ]


def _label_image(
    found: Instances,
    image_hw: tuple[int, int],
    settings: InferenceSettings,
    paste: Paste,
    *,
    raw_masks: bool,
) -> Labelled:
    detections, crops, counts, stays = paste_instances(found, image_hw, settings, paste)
    raw = raw_masks and found.masks.is_floating_point()
    return Labelled(
        detections.boxes_xyxy,
        detections.scores,
        detections.class_ids,
        detections.mask_areas,
        label_image(crops, image_hw),
        counts,
        as_raw_masks(found.masks[stays]).numpy() if raw else None,
        crops,
    )
