# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A rendered frame and its ground truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segnode.demo.scene.arrays import FloatArray, Image


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneFrame:
    """One rendered frame and its ground truth.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        instance_map: (H, W) uint8, 0 = background, k = the k-th instance of the arrays below.
        instance_ids: (N,) int64, the same number for the same object in every frame of a scene.
        class_ids: (N,) int64, index into `CLASS_NAMES`.
        boxes_xyxy: (N, 4) float32, of the visible pixels, right and bottom edges exclusive.
        occlusion: (N,) float32, share of the object's pixels in the image that others cover.
        stamp_ns: nanoseconds since the start of the scene.
    """

    image: Image
    instance_map: Image
    instance_ids: NDArray[np.int64]
    class_ids: NDArray[np.int64]
    boxes_xyxy: FloatArray
    occlusion: FloatArray
    stamp_ns: int

    @property
    def masks(self) -> NDArray[np.bool_]:
        """(N, H, W) bool: the visible pixels of each instance."""
        numbers = np.arange(1, len(self.class_ids) + 1, dtype=np.uint8)
        return np.equal(self.instance_map[None], numbers[:, None, None])


def mask_boxes(instance_map: Image, numbers: Iterable[int]) -> FloatArray:
    """(N, 4) float32 xyxy boxes of the pixels of each number, right and bottom exclusive."""
    boxes = []
    for number in numbers:
        left, top, width, height = cv2.boundingRect((instance_map == number).astype(np.uint8))
        boxes.append((left, top, left + width, top + height))
    return np.array(boxes, np.float32).reshape(-1, 4)
