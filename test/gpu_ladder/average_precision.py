# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""COCO's average precision without pycocotools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gpu_ladder.engines import CLASS_NAMES, SceneFrame
from segnode.engine import Segmentation


def average_precision(
    truth: Sequence[SceneFrame], answers: Sequence[Segmentation], kind: Literal['box', 'mask']
) -> float:
    """Return COCO's AP over IoU 0.50 to 0.95, masks as the label image has them.

    pycocotools' algorithm for at most 100 detections, without crowds and ranges of area.
    """
    thresholds = np.linspace(0.5, 0.95, 10)
    recalls = np.linspace(0, 1, 101)
    overlaps = mask_overlaps if kind == 'mask' else box_overlaps
    overlapping = [overlaps(*pair) for pair in zip(answers, truth, strict=True)]
    values = []
    for class_id in range(len(CLASS_NAMES)):
        scores, hits, annotated = [np.zeros(0)], [np.zeros((10, 0), np.bool_)], 0
        for frame, answer, iou in zip(truth, answers, overlapping, strict=True):
            found = answer.detections
            here, there = found.class_ids == class_id, frame.class_ids == class_id
            annotated += int(there.sum())
            scores.append(found.scores[here])
            of_class = iou[here][:, there]
            hits.append(np.stack([_hits(of_class, threshold) for threshold in thresholds]))
        if annotated == 0:
            continue
        order = np.argsort(-np.concatenate(scores), kind='stable')
        for true in np.concatenate(hits, 1)[:, order].cumsum(1):
            recall = true / annotated
            precision = true / (np.arange(len(true)) + 1)
            precision = np.maximum.accumulate(precision[::-1])[::-1]
            place = np.searchsorted(recall, recalls)
            values.append(np.append(precision, 0)[place].mean())
    return float(np.mean(values))


def _hits(iou: npt.NDArray[np.float64], threshold: float) -> npt.NDArray[np.bool_]:
    """Return which of D detections, highest score first, take one of G instances each."""
    hits = np.zeros(len(iou), dtype=np.bool_)
    free = np.ones(iou.shape[1], dtype=np.bool_)
    for index, row in enumerate(iou):
        row = np.where(free, row, -1)
        if row.max(initial=-1) >= min(threshold, 1 - 1e-10):
            # Among equals the last one, as there.
            free[len(row) - 1 - row[::-1].argmax()] = False
            hits[index] = True
    return hits


def mask_overlaps(answer: Segmentation, frame: SceneFrame) -> Any:
    """Return (D, G) float64 IoU of what two label images show."""
    a_count, b_count = len(answer.detections), len(frame.class_ids)
    pairs = answer.label_image.astype(np.int64) * (b_count + 1) + frame.instance_map
    joint = np.bincount(pairs.ravel(), minlength=(a_count + 1) * (b_count + 1))
    joint = joint.reshape(a_count + 1, b_count + 1)
    shared = joint[1:, 1:]
    union = joint.sum(1)[1:, None] + joint.sum(0)[None, 1:] - shared
    return shared / np.maximum(union, 1)


def box_overlaps(answer: Segmentation, frame: SceneFrame) -> Any:
    """Return (D, G) float64 IoU of boxes."""
    a, b = (x.boxes_xyxy.astype(np.float64) for x in (answer.detections, frame))
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(min=0).prod(-1)
    areas = [(x[:, 2:] - x[:, :2]).prod(-1) for x in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12)
