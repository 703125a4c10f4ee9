# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""COCO's evaluation of results against annotations, by faster-coco-eval.

T IoU thresholds 0.50, 0.55 to 0.95; R recalls 0, 0.01 to 1; K categories; A ranges of area (all,
small, medium, large); M detections an image and category at most (1, 10, 100). H, W image height
and width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from segnode.evaluation.annotations import Annotations
from segnode.evaluation.entries import AnnotatedImage, Id
from segnode.evaluation.segmentation import Rle

IouType = Literal['bbox', 'segm']
AREAS = ('all', 'small', 'medium', 'large')
"""COCO's ranges of annotated area: below 32 x 32 pixels, below 96 x 96, and above."""

_IOU_50, _IOU_75 = 0, 5
_ALL_IOUS = slice(None)
_MOST = -1


@dataclass(frozen=True, slots=True)
class CocoEvaluation:
    """What COCOeval accumulates; -1 where nothing is annotated.

    Attributes:
        precision: (T, R, K, A, M) float64, the highest precision at a recall or above it.
        recall: (T, K, A, M) float64, the highest one.
        categories: position in K by category id of the annotations; those without an object in
            the images have no score and may be missing.
    """

    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    categories: dict[Id, int]

    def ap(
        self, iou: float | None = None, area: str = 'all', category: Id | None = None
    ) -> float | None:
        """Return average precision, None where nothing is annotated.

        Args:
            iou: 0.5 or 0.75; None is the mean over all T.
            area: one of `AREAS`.
            category: of the annotations; None is the mean over all K.
        """
        found = self.precision[self._ious(iou), :, :, AREAS.index(area), _MOST]
        if category is not None:
            position = self.categories.get(category)
            if position is None:
                return None
            found = found[:, :, position]
        return _mean(found)

    def ar(self, area: str = 'all', most: int = 100) -> float | None:
        """Return average recall over all T and K, None where nothing is annotated.

        Args:
            area: one of `AREAS`.
            most: detections an image and category: 1, 10 or 100.
        """
        return _mean(self.recall[:, :, AREAS.index(area), (1, 10, 100).index(most)])

    def precision_at_recall(self, iou: float) -> list[float] | None:
        """Return R precisions, each a mean over the annotated categories; None without such.

        Args:
            iou: 0.5 or 0.75.
        """
        curves = self.precision[self._ious(iou), :, :, 0, _MOST][0]
        annotated = curves[:, (curves > -1).all(axis=0)]
        return annotated.mean(axis=1).tolist() if annotated.shape[1] else None

    @staticmethod
    def _ious(iou: float | None) -> slice:
        if iou is None:
            return _ALL_IOUS
        first = {0.5: _IOU_50, 0.75: _IOU_75}[iou]
        return slice(first, first + 1)


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    annotated = values[values > -1]
    return float(annotated.mean()) if annotated.size else None


def evaluate_results(
    annotations: Annotations,
    results: Iterable[Mapping[str, Any]],
    iou_type: IouType,
    image_ids: Iterable[Id],
) -> CocoEvaluation:
    """Score COCO results against annotations, equal to pycocotools.

    An annotated object without a mask stands in mask AP as its box, as a crowd does: it is
    neither found nor missed, and detections of its class inside the box are neither right nor
    wrong.

    Args:
        annotations: ground truth; crowds are ignored as COCO does.
        results: COCO entries; those on other images are left out.
        iou_type: boxes or masks.
        image_ids: the images that count; one without results counts as all missed.
    """
    # A tenth of a second, which commands without a score need not wait.
    from faster_coco_eval import COCOeval_faster

    # COCO's evaluation sorts ids; numbers in their order replace texts.
    images = {i: number for number, i in enumerate(sorted(set(image_ids), key=_order), start=1)}
    objects = [item for item in annotations.instances if item['image_id'] in images]
    # The work grows with images times categories, and most of COCO's 80 are in no image.
    seen = {item['category_id'] for item in objects}
    known = [i for i in annotations.categories.values() if i in seen]
    categories = {i: n for n, i in enumerate(known or annotations.categories.values(), start=1)}

    def numbered(item: Mapping[str, Any], number: int, **more: Any) -> dict[str, Any]:
        return {
            'id': number,
            'image_id': images[item['image_id']],
            'category_id': categories[item['category_id']],
            **more,
        }

    key = 'bbox' if iou_type == 'bbox' else 'segmentation'
    truth: list[dict[str, Any]] = []
    for item in objects:
        shape, iscrowd = item.get(key), item['iscrowd']
        if shape is None:
            shape, iscrowd = _box_mask(item['bbox'], annotations.images[item['image_id']]), 1
        # From 1 on: an id of 0 would stand for "unmatched".
        truth.append(
            numbered(item, len(truth) + 1, area=item['area'], iscrowd=iscrowd, **{key: shape})
        )
    entries: list[dict[str, Any]] = []
    for result in results:
        if result['image_id'] not in images or result['category_id'] not in categories:
            continue
        area = (
            result['bbox'][2] * result['bbox'][3]
            if iou_type == 'bbox'
            else coco_mask.area(result['segmentation'])
        )
        entries.append(
            numbered(
                result,
                len(entries) + 1,
                score=result['score'],
                iscrowd=0,
                area=float(area),
                **{key: result[key]},
            )
        )
    sizes = {number: annotations.images[i].image_hw for i, number in images.items()}
    evaluation = COCOeval_faster(
        *(_coco(sizes, categories.values(), items) for items in (truth, entries)),
        iou_type,
        print_function=_silent,
    )
    evaluation.evaluate()
    evaluation.accumulate()
    return CocoEvaluation(
        np.asarray(evaluation.eval['precision'], np.float64),
        np.asarray(evaluation.eval['recall'], np.float64),
        {i: number - 1 for i, number in categories.items()},
    )


def _silent(*_: object) -> None:
    pass


def _order(image_id: Id) -> tuple[bool, Id]:
    return isinstance(image_id, str), image_id


def _box_mask(box: Sequence[float], image: AnnotatedImage) -> Rle:
    """Return the part of a box that lies in its image as run lengths."""
    left, top, width, height = box
    corners = [left, top, left + width, top, left + width, top + height, left, top + height]
    rle: Rle = coco_mask.merge(coco_mask.frPyObjects([corners], *image.image_hw))
    return rle


def _coco(
    sizes: Mapping[int, tuple[int, int]],
    categories: Iterable[int],
    instances: list[dict[str, Any]],
) -> Any:
    from faster_coco_eval import COCO

    coco = COCO(print_function=_silent)
    coco.dataset = {
        'images': [{'id': i, 'height': hw[0], 'width': hw[1]} for i, hw in sizes.items()],
        'categories': [{'id': number} for number in categories],
        'annotations': instances,
    }
    coco.createIndex()
    return coco
