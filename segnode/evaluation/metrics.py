# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""COCO results from predictions and from label images, and their average precision.

H, W image height and width; D detections.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from segnode.errors import AnnotationError
from segnode.evaluation.annotations import Annotations
from segnode.evaluation.coco_evaluation import IouType, evaluate_results
from segnode.evaluation.entries import Id, few
from segnode.evaluation.segmentation import Rle
from segnode.text_files import shown

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
    image: Mapping[str, Any],
    class_names: Sequence[str],
    category_ids: Sequence[Id | None],
) -> list[dict[str, Any]]:
    """Return one image's detections as entries of a COCO results list, in their order.

    Args:
        detections: of the image.
        rles: D run-length masks, as pycocotools makes them.
        image: which it is, ``image_id`` and more; goes into every entry.
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
                **image,
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
    found = instance_rles(label_image)
    empty = coco_mask.encode(np.zeros(label_image.shape, np.uint8, order='F'))
    return [found.get(k, empty) for k in range(1, count + 1)]


def instance_rles(label_image: npt.NDArray[np.uint16]) -> dict[int, Rle]:
    """Return the run-length masks of a (H, W) label image by value, 0 left out, in its order.

    The runs of all instances are found in one pass, so that many cost little more than few.
    """
    height, width = label_image.shape
    pixels = label_image.reshape(-1, order='F')
    starts = np.flatnonzero(np.diff(pixels, prepend=~pixels[:1]))
    ends = np.append(starts[1:], pixels.size)
    values = pixels[starts]
    order = np.argsort(values, kind='stable')
    found, firsts = np.unique(values[order], return_index=True)
    rles: dict[int, Rle] = {}
    for value, runs in zip(found.tolist(), np.split(order, firsts[1:]), strict=True):
        if value == 0:
            continue
        # Outside, inside, outside, ...: distances from edge to edge.
        edges = np.stack([starts[runs], ends[runs]], axis=1).reshape(-1)
        counts = np.diff(edges, prepend=0, append=pixels.size)
        counts = counts[:-1] if counts[-1] == 0 else counts
        rles[value] = coco_mask.frPyObjects(
            {'size': [height, width], 'counts': counts.tolist()}, height, width
        )
    return rles


def categories_by_name(class_names: Sequence[str], annotations: Annotations) -> list[Id | None]:
    """Return the annotations' category id of every class, None for a class they do not have."""
    return [annotations.categories.get(name) for name in class_names]


def common_categories(
    class_names: Sequence[str],
    annotations: Annotations,
    image_ids: Iterable[Id],
    report: Callable[[str], None],
) -> list[Id | None]:
    """Return the annotations' category id of every class of a model, as `categories_by_name`.

    Args:
        class_names: of the model.
        annotations: ground truth.
        image_ids: the images that count.
        report: is told of the classes that only one side has, and where nothing is annotated.

    Raises:
        AnnotationError: no class is common to both.
    """
    categories = categories_by_name(class_names, annotations)
    unknown = [name for name, i in zip(class_names, categories, strict=True) if i is None]
    alike = {_plain(name): name for name in annotations.categories}
    nearly = [
        f'the class {shown(name)} is not the annotated {shown(alike[_plain(name)])}; '
        'names have to be equal'
        for name in unknown
        if _plain(name) in alike
    ]
    if len(unknown) == len(class_names):
        raise AnnotationError(
            f'the annotations have none of the classes of the model ({few(unknown, 5)}); '
            f'they have {few(list(annotations.categories), 5)}'
            + ''.join(f'; {line}' for line in nearly[:1])
        )
    if unknown:
        report(f'left out, as the annotations do not have them: {", ".join(map(shown, unknown))}')
    wanted, names = set(image_ids), {i: name for name, i in annotations.categories.items()}
    counting = [
        item
        for item in annotations.instances
        if item['image_id'] in wanted and not item['iscrowd']
    ]
    objects = Counter(names[item['category_id']] for item in counting)
    missed = [
        f'{name} ({count} objects)'
        for name, count in objects.most_common()
        if name not in set(class_names)
    ]
    if missed:
        report(
            f'annotated, but no class of the model, so that all count as missed: {few(missed, 10)}'
        )
    for line in nearly:
        report(line)
    if not counting:
        report('nothing in these images is annotated that counts, so there is no AP')
    elif not any('segmentation' in item for item in counting):
        report('no object in these images has a usable mask, so there is no mask AP')
    return categories


def _plain(name: str) -> str:
    return unicodedata.normalize('NFKC', name).casefold().replace('_', ' ')


def average_precision(
    annotations: Annotations,
    results: Sequence[Mapping[str, Any]],
    iou_type: IouType,
    image_ids: Iterable[Id],
) -> AveragePrecision:
    """Score COCO results against annotations, as `coco_evaluation.evaluate_results`.

    Args:
        annotations: ground truth; crowds are ignored as COCO does.
        results: entries as `coco_results` makes them.
        iou_type: boxes or masks.
        image_ids: the images that count; one without results counts as all missed.
    """
    evaluation = evaluate_results(annotations, results, iou_type, image_ids)
    return AveragePrecision(evaluation.ap(), evaluation.ap(iou=0.5))
