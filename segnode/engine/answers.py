# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the engine answers, and what its backends give it.

Shapes: D instances, M side of a mask, H and W of the input image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segnode.kernels.mask_crops import MaskCrop, label_image, whole_mask


def crop_rle(crop: MaskCrop, image_hw: tuple[int, int]) -> dict[str, Any]:
    """Return a mask as COCO's run lengths: ``size`` and ``counts``."""
    # Here, as frames need no pycocotools.
    from pycocotools import mask as coco_mask

    whole = whole_mask(crop, image_hw)
    encoded = coco_mask.encode(np.asfortranarray(whole.view(np.uint8)))
    return {'size': encoded['size'], 'counts': encoded['counts'].decode('ascii')}


def as_raw_masks(probabilities: Tensor) -> Tensor:
    """Return mask probabilities, 0 to 1, as uint8 of value x 255, on their device."""
    return (probabilities * 255).round().to(torch.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What became of one image's detections.

    Attributes:
        detected: after NMS.
        kept: in the answer.
        filtered_class: taken out by the allow-list.
        filtered_area: taken out by the size of their box or mask.
        candidate_overflow: 1 where more candidates than NMS takes could have given more.
    """

    detected: int
    kept: int = 0
    filtered_class: int
    filtered_area: int
    candidate_overflow: int = 0


@dataclass(frozen=True, slots=True)
class Instances:
    """Instances of one image, highest score first, before their masks are pasted.

    Attributes:
        boxes: (D, 4) float32 xyxy, input pixels.
        scores: (D,) float32.
        class_ids: (D,) int64.
        masks: (D, M, M) float32 probabilities in their boxes, or (D, H, W) bool in the image
            where an exported program has pasted them.
        counts: of the image, before masks are pasted.
    """

    boxes: Tensor
    scores: Tensor
    class_ids: Tensor
    masks: Tensor
    counts: Counts


@dataclass(frozen=True, slots=True)
class Labelled:
    """One image's answer on the host.

    Attributes:
        boxes: (D, 4) float32 xyxy, input pixels.
        scores: (D,) float32, highest first.
        class_ids: (D,) int64.
        areas: (D,) int64, input pixels of each own mask.
        labels: (H, W) uint16.
        counts: of the image.
        raw_masks: (D, M, M) uint8, probability x 255, where they were asked for.
        crops: D masks, each with where it lies; None where the device painted them.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int64]
    areas: npt.NDArray[np.int64]
    labels: npt.NDArray[np.uint16]
    counts: Counts
    raw_masks: npt.NDArray[np.uint8] | None = None
    crops: list[MaskCrop] | None = None


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
        counts: what was found, and what each filter took out.
        raw_masks: (D, M, M) uint8, the network's own masks as probability x 255, each to be
            pasted into its box; None where they were not asked for, or the model has none.
        crops: D masks, each with where it lies; may be None where they were not asked for.
    """

    detections: Detections
    label_image: npt.NDArray[np.uint16]
    stage_ms: dict[str, float]
    network_hw: tuple[int, int]
    counts: Counts
    raw_masks: npt.NDArray[np.uint8] | None = None
    crops: list[MaskCrop] | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """One image's detections and every instance's whole mask.

    Attributes:
        detections: what was found and kept.
        crops: D masks, each with where it lies.
        image_hw: H and W.
        stage_ms: milliseconds by stage, in the order of the stages; of the whole batch.
        network_hw: the network's input before padding.
        counts: what was found, and what each filter took out.
    """

    detections: Detections
    crops: list[MaskCrop]
    image_hw: tuple[int, int]
    stage_ms: dict[str, float]
    network_hw: tuple[int, int]
    counts: Counts

    def mask(self, index: int) -> npt.NDArray[np.bool_]:
        """Return the (H, W) bool mask of one instance."""
        return whole_mask(self.crops[index], self.image_hw)

    def rle(self, index: int) -> dict[str, Any]:
        """Return the mask of one instance as COCO's run lengths: ``size`` and ``counts``."""
        return crop_rle(self.crops[index], self.image_hw)

    def label_image(self) -> npt.NDArray[np.uint16]:
        """Return the masks as one (H, W) uint16 label image."""
        return label_image(self.crops, self.image_hw)
