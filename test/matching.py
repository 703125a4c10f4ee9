# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Whether two implementations found the same instances.

Two near equal scores may come in either order, so detections are compared as sets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segnode.engine import Prediction

BOX_PX = 1e-2
SCORE = 1e-4
MASK_IOU = 0.999


@dataclass(frozen=True, slots=True)
class Found:
    """The D instances of one image.

    Attributes:
        boxes: (D, 4) float32 xyxy, input pixels.
        scores: (D,) float32.
        class_ids: (D,) int64.
        masks: (D, H, W) bool.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int64]
    masks: npt.NDArray[np.bool_]

    @classmethod
    def of_prediction(cls, prediction: Prediction) -> Found:
        detections = prediction.detections
        masks = [prediction.mask(index) for index in range(len(detections))]
        return cls(
            detections.boxes_xyxy,
            detections.scores,
            detections.class_ids,
            np.stack(masks) if masks else np.zeros((0, *prediction.image_hw), dtype=np.bool_),
        )


def assert_same_instances(ours: Found, theirs: Found, score_threshold: float = 0.0) -> None:
    """Fail unless each instance has a partner of its class, box, score and mask.

    One whose score is within ``SCORE`` of the threshold may be missing on either side.
    """
    assert (ours.scores[:-1] >= ours.scores[1:]).all()
    boxes = np.abs(ours.boxes[None] - theirs.boxes[:, None]).max(-1)
    scores = np.abs(ours.scores[None] - theirs.scores[:, None])
    fits = (boxes <= BOX_PX) & (scores <= SCORE)
    fits &= ours.class_ids[None] == theirs.class_ids[:, None]
    free = np.ones(len(ours.scores), dtype=np.bool_)
    for k, score in enumerate(theirs.scores):
        distance = np.where(fits[k] & free, boxes[k], np.inf)
        if not np.isfinite(distance).any():
            assert score <= score_threshold + SCORE, (
                f'no partner for {theirs.boxes[k]}, class {theirs.class_ids[k]}, score {score}; '
                f'the nearest box is {boxes[k].min(initial=np.inf):g} px away'
            )
            continue
        partner = int(distance.argmin())
        free[partner] = False
        a, b = ours.masks[partner], theirs.masks[k]
        union = np.count_nonzero(a | b)
        iou = np.count_nonzero(a & b) / union if union else 1.0
        # A pixel whose probability is the threshold to the last digits, in masks of any size.
        one_pixel = np.count_nonzero(a ^ b) <= 1
        assert iou >= MASK_IOU or one_pixel, f'masks of {union} pixels differ: IoU {iou:.5f}'
    surplus = ours.scores[free]
    assert (surplus <= score_threshold + SCORE).all(), f'no partner for scores {surplus}'
