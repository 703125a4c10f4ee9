# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""How far two implementations are apart, in figures, on the instances of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matching import Found

# What may lie between an instance and its partner; a box is then the nearest one of its class.
BOX_PX = 0.02
SCORE = 2e-4
MASK_IOU = 0.995
# A full mask is worth one half, the threshold, where a pixel's centre lies on an edge of its box:
# there a coordinate's last digit decides over a whole row or column, which is left out.
EDGE_PX = 1e-3


@dataclass(frozen=True, slots=True)
class Figures:
    """The largest differences of one or several images.

    Attributes:
        instances: that have a partner.
        box_px: largest difference of a coordinate.
        score: largest difference.
        mask_iou: lowest, of masks that differ in more than one pixel.
        mask_pixels: most pixels in which two masks differ.
        equal_masks: pairs whose masks are the same.
        lone: scores of instances without a partner, on either side.
    """

    instances: int
    box_px: float
    score: float
    mask_iou: float
    mask_pixels: int
    equal_masks: int
    lone: tuple[float, ...]

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            self.instances + other.instances,
            max(self.box_px, other.box_px),
            max(self.score, other.score),
            min(self.mask_iou, other.mask_iou),
            max(self.mask_pixels, other.mask_pixels),
            self.equal_masks + other.equal_masks,
            self.lone + other.lone,
        )


def compare(ours: Found, theirs: Found) -> Figures:
    """Pair the instances of one image, and measure.

    Each takes, in the order of their scores, the nearest free one of its class and of nearly its
    score; boxes far apart are no pair.
    """
    assert (ours.scores[:-1] >= ours.scores[1:]).all()
    distances = np.abs(ours.boxes[None] - theirs.boxes[:, None]).max(-1, initial=0)
    distances[ours.class_ids[None] != theirs.class_ids[:, None]] = np.inf
    distances[np.abs(ours.scores[None] - theirs.scores[:, None]) > 10 * SCORE] = np.inf
    free = np.ones(len(ours.scores), dtype=np.bool_)
    boxes, scores, ious, pixels, lone = [], [], [], [], []
    for k, score in enumerate(theirs.scores):
        distance = np.where(free, distances[k], np.inf)
        if not (distance < 1).any():
            lone.append(float(score))
            continue
        partner = int(distance.argmin())
        free[partner] = False
        boxes.append(float(distance[partner]))
        scores.append(abs(float(ours.scores[partner]) - float(score)))
        inside = ~_on_edges(theirs.boxes[k], theirs.masks[k].shape)
        a, b = ours.masks[partner] & inside, theirs.masks[k] & inside
        pixels.append(np.count_nonzero(a ^ b))
        if pixels[-1] > 1:
            ious.append(np.count_nonzero(a & b) / np.count_nonzero(a | b))
    return Figures(
        len(boxes),
        max(boxes, default=0.0),
        max(scores, default=0.0),
        min(ious, default=1.0),
        max(pixels, default=0),
        pixels.count(0),
        (*lone, *map(float, ours.scores[free])),
    )


def _on_edges(box: npt.NDArray[np.float32], image_hw: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return the pixels of (H, W) whose centre lies on a line through an edge of a box."""
    columns, rows = (
        (np.abs(np.arange(extent) + 0.5 - box[axis::2, None]) <= EDGE_PX).any(0)
        for axis, extent in ((0, image_hw[1]), (1, image_hw[0]))
    )
    found: npt.NDArray[np.bool_] = rows[:, None] | columns
    return found
