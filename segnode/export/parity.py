# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""How far an export's answers are from those of the native network in float32.

Shapes: D instances of one picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from segnode.engine import Engine, Prediction
from segnode.evaluation.annotations import Annotations
from segnode.evaluation.entries import Id
from segnode.evaluation.metrics import average_precision, coco_results
from segnode.image import Image

# What counts as an instance of float32 where its answers stand for the truth.
CONFIDENT: Final = 0.5
# An instance is found again where one of its class overlaps it so much.
LEAST_IOU: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """An export beside the native network in float32, over some pictures.

    Attributes:
        pictures: that were compared.
        instances_fp32: of the native network.
        instances: of the export.
        matched: of them that are instances of one class in one place.
        box_px: largest distance of a matched box's sides.
        box_px_p50: of each box's largest, the median.
        score: largest difference of a matched score.
        mask_iou: least IoU of matched masks.
        mask_iou_p50: median.
        mask_ap: of the export, its truth being the confident instances of float32, or what was
            annotated; None where there is none of either.
        mask_ap_fp32: of float32 against the same.
        annotated: whether the truth was annotated.
    """

    pictures: int
    instances_fp32: int
    instances: int
    matched: int
    box_px: float
    box_px_p50: float
    score: float
    mask_iou: float
    mask_iou_p50: float
    mask_ap: float | None
    mask_ap_fp32: float | None
    annotated: bool

    @property
    def lost(self) -> float:
        """Mask AP that the export loses; 0 where there is none."""
        if self.mask_ap is None or self.mask_ap_fp32 is None:
            return 0.0
        return self.mask_ap_fp32 - self.mask_ap

    def json(self) -> dict[str, Any]:
        """Return it flat."""
        return {name: getattr(self, name) for name in self.__slots__}


class Reference:
    """The native network's answers to some pictures, and what is true of them."""

    def __init__(
        self,
        engine: Engine,
        pictures: Sequence[Image],
        truth: Annotations | None,
        progress: Callable[[Iterable[Image]], Iterable[Image]],
    ) -> None:
        """Answer the pictures in float32.

        Args:
            engine: native, fp32.
            pictures: to compare on.
            truth: of them, image ids their positions; None takes the confident answers for it.
            progress: goes through pictures and shows it.
        """
        self._engine, self._pictures = engine, pictures
        self.answers = [engine.predict([picture])[0] for picture in progress(pictures)]
        self._annotated = truth is not None
        self._truth = truth or self._confident()

    def compare(
        self, engine: Engine, progress: Callable[[Iterable[Image]], Iterable[Image]]
    ) -> Agreement:
        """Answer the pictures with an export, and compare."""
        answers = [engine.predict([picture])[0] for picture in progress(self._pictures)]
        pairs = [
            pair for a, b in zip(self.answers, answers, strict=True) for pair in _matches(a, b)
        ]
        boxes = [pair.box_px for pair in pairs] or [0.0]
        masks = [pair.mask_iou for pair in pairs] or [1.0]
        return Agreement(
            pictures=len(self._pictures),
            instances_fp32=sum(len(a.detections) for a in self.answers),
            instances=sum(len(b.detections) for b in answers),
            matched=len(pairs),
            box_px=max(boxes),
            box_px_p50=float(np.median(boxes)),
            score=max((pair.score for pair in pairs), default=0.0),
            mask_iou=min(masks),
            mask_iou_p50=float(np.median(masks)),
            mask_ap=self._mask_ap(answers),
            mask_ap_fp32=self._mask_ap(self.answers),
            annotated=self._annotated,
        )

    def _confident(self) -> Annotations | None:
        results = [r for r in self._results(self.answers) if r['score'] >= CONFIDENT]
        if not results:
            return None
        dataset = {
            'images': [
                {'id': n, 'file_name': str(n), 'height': p.height, 'width': p.width}
                for n, p in enumerate(self._pictures)
            ],
            'annotations': [
                {**r, 'id': n, 'iscrowd': 0} for n, r in enumerate(results, start=1) if r['area']
            ],
            'categories': [
                {'id': n, 'name': name} for n, name in enumerate(self._engine.class_names)
            ],
        }
        return Annotations.from_coco(dataset)

    def _results(self, answers: Sequence[Prediction]) -> list[dict[str, Any]]:
        names = self._engine.class_names
        ids = (
            range(len(names))
            if not self._annotated or self._truth is None
            else [self._truth.categories.get(name) for name in names]
        )
        return [
            result
            for n, answer in enumerate(answers)
            for result in coco_results(
                answer.detections,
                (answer.rle(i) for i in range(len(answer.detections))),
                image={'image_id': n, 'file_name': str(n)},
                class_names=names,
                category_ids=ids,
            )
        ]

    def _mask_ap(self, answers: Sequence[Prediction]) -> float | None:
        if self._truth is None:
            return None
        images = range(len(self._pictures))
        return average_precision(self._truth, self._results(answers), 'segm', images).ap


def reindexed(truth: Annotations, ids: Sequence[Id]) -> Annotations:
    """Return the annotations of some images, the places of their ids in ``ids`` for ids."""
    places: dict[Id, int] = {image_id: n for n, image_id in enumerate(ids)}
    return Annotations(
        images={n: dataclasses.replace(truth.images[i], id=n) for i, n in places.items()},
        categories=truth.categories,
        instances=[
            {**each, 'image_id': places[each['image_id']]}
            for each in truth.instances
            if each['image_id'] in places
        ],
    )


@dataclass(frozen=True, slots=True)
class _Match:
    box_px: float
    score: float
    mask_iou: float


def _matches(ours: Prediction, theirs: Prediction) -> Iterator[_Match]:
    """Pair the instances of one picture, each with the nearest of its class that is free."""
    a, b = ours.detections, theirs.detections
    iou = _box_iou(a.boxes_xyxy, b.boxes_xyxy) * (a.class_ids[:, None] == b.class_ids)
    for i in range(len(a)):
        j = int(iou[i].argmax()) if len(b) else -1
        if j < 0 or iou[i, j] < LEAST_IOU:
            continue
        iou[:, j] = 0
        yield _Match(
            float(np.abs(a.boxes_xyxy[i] - b.boxes_xyxy[j]).max()),
            float(abs(a.scores[i] - b.scores[j])),
            _mask_iou(ours.mask(i), theirs.mask(j)),
        )


def _box_iou(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    low = np.maximum(a[:, None, :2], b[:, :2])
    high = np.minimum(a[:, None, 2:], b[:, 2:])
    shared = (high - low).clip(0).astype(np.float64).prod(-1)
    areas = [(x[:, 2:] - x[:, :2]).astype(np.float64).prod(-1) for x in (a, b)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1e-9))


def _mask_iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0
