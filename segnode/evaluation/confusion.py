# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Which annotated class was taken for which: counts of objects by their boxes.

By boxes, as every annotated object has one. In each image detections take annotated objects in
the order of their scores, whatever the class: each the free one that it overlaps most, at an IoU
of at least 0.5. A detection that finds none counts as `background`, unless it lies in a crowd of
its class; an object that none finds counts as `missed`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from segnode.evaluation.annotations import Annotations
from segnode.evaluation.entries import Id

IOU = 0.5
SCORE_THRESHOLD = 0.5
BACKGROUND, MISSED = 'background', 'missed'


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of objects and detections.

    Attributes:
        classes: names, those of the annotations in their order.
        counts: (C + 1, C + 1) int64; rows are annotated classes and last the background, columns
            are detected classes and last the missed.
        score_threshold: detections below it were left out.
    """

    classes: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    score_threshold: float

    def found(self, name: str) -> int:
        """Return how many objects of a class were found as such."""
        k = self.classes.index(name)
        return int(self.counts[k, k])

    def as_dict(self) -> dict[str, Any]:
        """Return it for a summary, without classes that are neither annotated nor detected."""
        used = (self.counts.sum(axis=0) + self.counts.sum(axis=1)) > 0
        used[-1] = True
        names = [name for name, is_used in zip(self.classes, used, strict=False) if is_used]
        return {
            'iou': IOU,
            'score_threshold': self.score_threshold,
            'rows': [*names, BACKGROUND],
            'columns': [*names, MISSED],
            'counts': self.counts[np.ix_(used, used)].tolist(),
        }


def confusion(
    annotations: Annotations,
    entries: Iterable[Mapping[str, Any]],
    image_ids: Iterable[Id],
    score_threshold: float = SCORE_THRESHOLD,
) -> Confusion:
    """Count which annotated class was detected as which.

    Args:
        annotations: ground truth.
        entries: COCO results with the ids of images and categories of the annotations.
        image_ids: the images that count.
        score_threshold: the least score of a detection that counts.
    """
    position = {i: k for k, i in enumerate(annotations.categories.values())}
    truths: dict[Id, list[Mapping[str, Any]]] = defaultdict(list)
    for item in annotations.instances:
        truths[item['image_id']].append(item)
    detections: dict[Id, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in entries:
        if entry['score'] >= score_threshold:
            detections[entry['image_id']].append(entry)
    counts = np.zeros((len(position) + 1, len(position) + 1), np.int64)
    for image_id in set(image_ids):
        objects = [item for item in truths[image_id] if not item['iscrowd']]
        crowds = [item for item in truths[image_id] if item['iscrowd']]
        ordered = sorted(detections[image_id], key=lambda entry: -entry['score'])
        free = set(range(len(objects)))
        overlaps, in_crowds = _ious(ordered, objects, 0), _ious(ordered, crowds, 1)
        for d, entry in enumerate(ordered):
            category = entry['category_id']
            near = [o for o in free if overlaps[d, o] >= IOU]
            if near:
                taken = max(
                    near,
                    key=lambda o: (overlaps[d, o], objects[o]['category_id'] == category, -o),
                )
                free.remove(taken)
                counts[position[objects[taken]['category_id']], position[category]] += 1
            elif not any(
                crowd['category_id'] == category and in_crowds[d, c] >= IOU
                for c, crowd in enumerate(crowds)
            ):
                counts[-1, position[category]] += 1
        for o in free:
            counts[position[objects[o]['category_id']], -1] += 1
    return Confusion(tuple(annotations.categories), counts, score_threshold)


def _ious(
    detections: Sequence[Mapping[str, Any]], objects: Sequence[Mapping[str, Any]], iscrowd: int
) -> npt.NDArray[np.float64]:
    """Return (D, O) overlaps of boxes; over the detection's own area for crowds, as COCO's."""
    if not detections or not objects:
        return np.zeros((len(detections), len(objects)))
    return np.asarray(
        coco_mask.iou(
            [[float(side) for side in item['bbox']] for item in detections],
            [[float(side) for side in item['bbox']] for item in objects],
            [iscrowd] * len(objects),
        )
    )
