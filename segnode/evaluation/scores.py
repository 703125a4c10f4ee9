# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""How good the results of a run are, where its frames are annotated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from segnode.evaluation.annotations import Annotations
from segnode.evaluation.coco_evaluation import AREAS, CocoEvaluation, evaluate_results
from segnode.evaluation.confusion import SCORE_THRESHOLD, Confusion, confusion
from segnode.evaluation.entries import Id
from segnode.evaluation.metrics import common_categories


def score(
    annotations: Annotations,
    results: Iterable[Mapping[str, Any]],
    image_ids: Mapping[int, Id],
    class_names: Sequence[str],
    *,
    score_threshold: float = SCORE_THRESHOLD,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Return box and mask AP, by class and by size, precision by recall, and the confusion.

    Args:
        annotations: ground truth.
        results: COCO entries whose ``image_id`` is the frame and whose class is their
            ``category_name``; read once, and those of frames without annotations passed over.
        image_ids: annotated image by frame; a frame without results counts as all missed.
        class_names: of the model, found among the annotated ones by name.
        score_threshold: of the confusion alone; AP has none.
        report: is told of classes that only one side has.

    Returns:
        JSON values. ``box`` and ``mask``: ``ap`` over IoU 0.50:0.95, ``ap50``, ``ap75``,
        ``ap_small``, ``ap_medium``, ``ap_large`` (COCO's sizes) and ``ar100``. ``by_class``: of
        each class that is annotated or detected its ``truth`` objects, those ``found`` and the
        ``detected`` at the confusion's rule, and its AP. ``by_size``, ``precision_recall``,
        ``confusion``, ``images``. What nothing is annotated for is None.

    Raises:
        AnnotationError: the annotations have none of the classes.
    """
    common_categories(class_names, annotations, image_ids.values(), report)
    entries = list(entries_on_images(annotations, results, image_ids))
    images = list(image_ids.values())
    box = evaluate_results(annotations, entries, 'bbox', images)
    mask = evaluate_results(annotations, entries, 'segm', images)
    confused = confusion(annotations, entries, images, score_threshold)
    return {
        'box': _summary(box),
        'mask': _summary(mask),
        'by_class': _by_class(annotations, entries, box, mask, confused, set(images)),
        'by_size': {
            area: {'box_ap': box.ap(area=area), 'mask_ap': mask.ap(area=area)}
            for area in AREAS[1:]
        },
        'confusion': confused.as_dict(),
        'precision_recall': {'box': _curves(box), 'mask': _curves(mask)},
        'images': len(images),
    }


def entries_on_images(
    annotations: Annotations,
    results: Iterable[Mapping[str, Any]],
    image_ids: Mapping[int, Id],
) -> Iterator[dict[str, Any]]:
    """Yield results with the ids that the annotations have for their image and category.

    Results on frames or of classes that are not annotated are passed over.

    Args:
        annotations: ground truth.
        results: as in `score`.
        image_ids: annotated image by frame.
    """
    for result in results:
        category_id = annotations.categories.get(result['category_name'])
        if category_id is not None and result['image_id'] in image_ids:
            image_id = image_ids[result['image_id']]
            yield {**result, 'image_id': image_id, 'category_id': category_id}


def _summary(evaluation: CocoEvaluation) -> dict[str, float | None]:
    by_size = {f'ap_{area}': evaluation.ap(area=area) for area in AREAS[1:]}
    return {
        'ap': evaluation.ap(),
        'ap50': evaluation.ap(iou=0.5),
        'ap75': evaluation.ap(iou=0.75),
        **by_size,
        'ar100': evaluation.ar(),
    }


def _by_class(
    annotations: Annotations,
    entries: Sequence[Mapping[str, Any]],
    box: CocoEvaluation,
    mask: CocoEvaluation,
    confused: Confusion,
    images: set[Id],
) -> list[dict[str, Any]]:
    truth = Counter(
        item['category_id']
        for item in annotations.instances
        if item['image_id'] in images and not item['iscrowd']
    )
    detected = Counter(
        entry['category_id'] for entry in entries if entry['score'] >= confused.score_threshold
    )
    seen = truth.keys() | {entry['category_id'] for entry in entries}
    return [
        {
            'name': name,
            'truth': truth[category],
            'found': confused.found(name),
            'detected': detected[category],
            'box_ap': box.ap(category=category),
            'box_ap50': box.ap(iou=0.5, category=category),
            'mask_ap': mask.ap(category=category),
            'mask_ap50': mask.ap(iou=0.5, category=category),
        }
        for name, category in annotations.categories.items()
        if category in seen
    ]


def _curves(evaluation: CocoEvaluation) -> dict[str, list[float] | None]:
    return {
        'recall': [k / 100 for k in range(101)],
        'iou50': evaluation.precision_at_recall(0.5),
        'iou75': evaluation.precision_at_recall(0.75),
    }
