# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""COCO results from predictions and from label images, and their average precision.

H, W image height and width; D detections.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segnode.evaluation.annotations import Annotations, Rle

if TYPE_CHECKING:
    from segnode.engine import Detections


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """COCO's AP over IoU 0.50:0.95 and at 0.50; None where nothing is annotated."""

    ap: float | None
    ap50: float | None


def coco_results(
    detections: Detections,
    rles: Iterable[Rle],
    *,
    image_id: int,
    file_name: str,
    class_names: Sequence[str],
    category_ids: Sequence[int | None],
) -> list[dict[str, Any]]:
    """Return one image's detections as entries of a COCO results list, in their order.

    Args:
        detections: of the image.
        rles: D run-length masks, as pycocotools makes them.
        image_id: goes into every entry.
        file_name: goes into every entry.
        class_names: by class id.
        category_ids: by class id; detections of a class that has None are left out.
    """
    results = []
    for box, score, class_id, rle in zip(
        detections.boxes_xyxy.tolist(),
        detections.scores.tolist(),
        detections.class_ids.tolist(),
        rles,
        strict=True,
    ):
        if category_ids[class_id] is None:
            continue
        left, top, right, bottom = box
        counts = rle['counts']
        results.append(
            {
                'image_id': image_id,
                'file_name': file_name,
                'category_id': category_ids[class_id],
                'category_name': class_names[class_id],
                'bbox': [left, top, right - left, bottom - top],
                'score': score,
                'area': int(coco_mask.area(rle)),
                'segmentation': {
                    'size': [int(side) for side in rle['size']],
                    'counts': counts.decode('ascii') if isinstance(counts, bytes) else counts,
                },
            }
        )
    return results


def label_image_rles(label_image: npt.NDArray[np.uint16], count: int) -> list[Rle]:
    """Return the run-length masks of instances 1 to ``count`` of a (H, W) label image.

    An instance that others cover whole owns no pixel and has an empty mask.
    """
    return [
        coco_mask.encode(np.asfortranarray(label_image == k, np.uint8))
        for k in range(1, count + 1)
    ]


def categories_by_name(class_names: Sequence[str], annotations: Annotations) -> list[int | None]:
    """Return the annotations' category id of every class, None for a class they do not have."""
    return [annotations.categories.get(name) for name in class_names]


def average_precision(
    annotations: Annotations,
    results: Sequence[Mapping[str, Any]],
    iou_type: Literal['bbox', 'segm'],
    image_ids: Iterable[int],
) -> AveragePrecision:
    """Score COCO results against annotations with pycocotools.

    Args:
        annotations: ground truth; crowds are ignored as COCO does.
        results: entries as `coco_results` makes them.
        iou_type: boxes or masks.
        image_ids: the images that count; one without results counts as all missed.
    """
    images = sorted(set(image_ids))
    wanted = set(images)
    if iou_type == 'segm' and not annotations.has_masks:
        return AveragePrecision(None, None)
    key = 'bbox' if iou_type == 'bbox' else 'segmentation'
    entries = [
        {
            'id': number,
            'image_id': result['image_id'],
            'category_id': result['category_id'],
            'score': result['score'],
            'iscrowd': 0,
            'area': float(
                result['bbox'][2] * result['bbox'][3]
                if iou_type == 'bbox'
                else coco_mask.area(result['segmentation'])
            ),
            key: result[key],
        }
        for number, result in enumerate(results, start=1)
        if result['image_id'] in wanted
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _coco(annotations, [dict(item) for item in annotations.instances])
        evaluation = COCOeval(truth, _coco(annotations, entries), iou_type)
        evaluation.params.imgIds = images
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50 = (None if value < 0 else float(value) for value in evaluation.stats[:2])
    return AveragePrecision(ap, ap50)


def _coco(annotations: Annotations, instances: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        'images': [
            {'id': image.id, 'height': image.image_hw[0], 'width': image.image_hw[1]}
            for image in annotations.images.values()
        ],
        'categories': [{'id': i, 'name': name} for name, i in annotations.categories.items()],
        'annotations': instances,
    }
    coco.createIndex()
    return coco
