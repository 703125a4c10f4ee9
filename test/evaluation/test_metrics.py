# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Average precision by hand and against pycocotools fed from files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segnode.engine import Detections
from segnode.evaluation.annotations import Annotations
from segnode.evaluation.metrics import (
    average_precision,
    categories_by_name,
    coco_results,
    label_image_rles,
)
from segnode.evaluation.segmentation import run_lengths

H, W = 60, 80


def rectangle(x: int, y: int, w: int, h: int) -> np.ndarray:
    mask = np.zeros((H, W), np.uint8)
    mask[y : y + h, x : x + w] = 1
    return mask


def rle_of(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {'size': encoded['size'], 'counts': encoded['counts'].decode()}


def annotation(number: int, box: tuple[int, int, int, int], **changes: Any) -> dict[str, Any]:
    return {
        'id': number,
        'image_id': 7,
        'category_id': 3,
        'bbox': list(box),
        'area': box[2] * box[3],
        'iscrowd': 0,
        'segmentation': rle_of(rectangle(*box)),
    } | changes


def result(box: tuple[int, int, int, int], score: float, **changes: Any) -> dict[str, Any]:
    mask = rle_of(rectangle(*box))
    return {
        'image_id': 7,
        'category_id': 3,
        'bbox': list(box),
        'score': score,
        'segmentation': mask,
    } | changes


def dataset(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        'images': [
            {'id': 7, 'file_name': 'val/a.png', 'height': H, 'width': W},
            {'id': 8, 'file_name': 'val/b.png', 'height': H, 'width': W},
        ],
        'categories': [{'id': 3, 'name': 'cone'}, {'id': 5, 'name': 'ball'}],
        'annotations': list(annotations),
    }


BOX = (10, 10, 20, 10)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@pytest.mark.parametrize(
    ('results', 'ap', 'ap50'),
    [
        pytest.param([], 0.0, 0.0, id='empty'),
        pytest.param([result(BOX, 0.9)], 1.0, 1.0, id='exact'),
        # IoU 16/24: thresholds 0.50, 0.55, 0.60 and 0.65 of ten.
        pytest.param([result((14, 10, 20, 10), 0.9)], 0.4, 1.0, id='shifted'),
        # The false one scores higher: precision 1/2 at every recall.
        pytest.param([result((50, 40, 9, 9), 0.9), result(BOX, 0.8)], 0.5, 0.5, id='false-first'),
        pytest.param([result(BOX, 0.9), result((50, 40, 9, 9), 0.8)], 1.0, 1.0, id='false-last'),
        pytest.param([result(BOX, 0.9, category_id=5)], 0.0, 0.0, id='other-class'),
        pytest.param([result(BOX, 0.9, image_id=8)], 0.0, 0.0, id='other-image'),
    ],
)
def test_hand_made(iou_type: Any, results: list[dict[str, Any]], ap: float, ap50: float) -> None:
    # The annotation's id is 0, which pycocotools by itself takes for "unmatched".
    truth = Annotations.from_coco(dataset(annotation(0, BOX)))
    score = average_precision(truth, results, iou_type, [7, 8])
    assert score.ap == pytest.approx(ap, abs=1e-6)
    assert score.ap50 == pytest.approx(ap50, abs=1e-6)


def test_crowds_neither_count_nor_punish() -> None:
    truth = Annotations.from_coco(
        dataset(annotation(1, BOX), annotation(2, (40, 5, 35, 50), iscrowd=1))
    )
    results = [result((45, 10, 10, 10), 0.95), result(BOX, 0.9)]
    for iou_type in ('bbox', 'segm'):
        assert average_precision(truth, results, iou_type, [7]).ap == pytest.approx(1.0)


def test_only_the_given_images_count() -> None:
    truth = Annotations.from_coco(dataset(annotation(1, BOX), annotation(2, BOX, image_id=8)))
    assert average_precision(truth, [result(BOX, 0.9)], 'segm', [7]).ap == pytest.approx(1.0)
    half = average_precision(truth, [result(BOX, 0.9)], 'segm', [7, 8]).ap
    assert half == pytest.approx(51 / 101)  # recall reaches one half of 101 points


def test_nothing_annotated_has_no_score() -> None:
    truth = Annotations.from_coco(dataset())
    for results in ([], [result(BOX, 0.9)]):
        score = average_precision(truth, results, 'bbox', [7])
        assert score.ap is None
        assert score.ap50 is None


def test_boxes_without_masks() -> None:
    only_box = annotation(1, BOX)
    del only_box['segmentation']
    truth = Annotations.from_coco(dataset(only_box))
    assert average_precision(truth, [result(BOX, 0.9)], 'bbox', [7]).ap == pytest.approx(1.0)
    assert average_precision(truth, [result(BOX, 0.9)], 'segm', [7]).ap is None


def test_the_inputs_stay_as_they_are() -> None:
    truth = Annotations.from_coco(dataset(annotation(1, BOX)))
    results = [result(BOX, 0.9)]
    before = copy.deepcopy((truth.instances, results))
    average_precision(truth, results, 'segm', [7])
    assert (truth.instances, results) == before


def random_case(rng: np.random.Generator) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Random objects as polygons, plain and compressed run lengths, and shaken detections."""
    annotations, results = [], []
    for number in range(1, 40):
        x, y = int(rng.integers(0, W - 30)), int(rng.integers(0, H - 30))
        w, h = (int(side) for side in rng.integers(5, 30, 2))
        image_id, category_id = int(rng.integers(7, 9)), int(rng.choice([3, 5]))
        truth = annotation(number, (x, y, w, h), image_id=image_id, category_id=category_id)
        if number % 3 == 0:
            truth['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h + 0.5]]
        elif number % 3 == 1:
            counts = run_lengths(truth['segmentation']['counts'])
            truth['segmentation'] = {'size': [H, W], 'counts': counts}
        truth['iscrowd'] = int(number % 13 == 1)
        annotations.append(truth)
        for _ in range(int(rng.integers(0, 3))):
            dx, dy = (int(d) for d in rng.integers(-2, 3, 2))
            box = (max(x + dx, 0), max(y + dy, 0), w, h)
            results.append(
                result(box, float(rng.random()), image_id=image_id, category_id=category_id)
            )
    return dataset(*annotations), results


@pytest.mark.parametrize('seed', range(3))
def test_equals_pycocotools_fed_from_files(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco, results = random_case(np.random.default_rng(seed))
    truth_path, results_path = tmp_path / 'truth.json', tmp_path / 'results.json'
    truth_path.write_text(json.dumps(coco))
    results_path.write_text(json.dumps(results))
    ours = {}
    truth = Annotations.read(truth_path)
    for iou_type in ('bbox', 'segm'):
        ours[iou_type] = average_precision(truth, results, iou_type, [7, 8])
    assert capsys.readouterr().out == ''
    for iou_type, score in ours.items():
        reference = COCO(str(truth_path))
        evaluation = COCOeval(reference, reference.loadRes(str(results_path)), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert 0.1 < evaluation.stats[0] < 0.9
        assert score.ap == pytest.approx(evaluation.stats[0], abs=1e-9)
        assert score.ap50 == pytest.approx(evaluation.stats[1], abs=1e-9)


def test_run_lengths_are_those_that_pycocotools_packed() -> None:
    rng = np.random.default_rng(0)
    for density in (0.0, 0.01, 0.5, 1.0):
        mask = (rng.random((37, 53)) < density).astype(np.uint8)
        flat = mask.flatten(order='F')
        changes = np.flatnonzero(np.diff(flat)) + 1
        expected = np.diff([0, *changes, flat.size]).tolist()
        if flat[0]:
            expected.insert(0, 0)
        assert run_lengths(rle_of(mask)['counts']) == expected


def test_results_of_detections() -> None:
    detections = Detections(
        boxes_xyxy=np.array([[10, 10, 30, 20], [1, 2, 4, 8], [0, 0, 1, 1]], np.float32),
        scores=np.array([0.9, 0.5, 0.25], np.float32),
        class_ids=np.array([1, 0, 2]),
        mask_areas=np.array([200, 18, 1]),
    )
    masks = [rle_of(rectangle(*box)) for box in (BOX, (1, 2, 3, 6), (0, 0, 1, 1))]
    results = coco_results(
        detections,
        masks,
        image={'image_id': 7, 'file_name': 'a.png'},
        class_names=['ball', 'cone', 'box'],
        category_ids=[5, 3, None],
    )
    assert [r['category_name'] for r in results] == ['cone', 'ball']
    assert results[0] == {
        'image_id': 7,
        'file_name': 'a.png',
        'category_id': 3,
        'category_name': 'cone',
        'bbox': [10.0, 10.0, 20.0, 10.0],
        'score': pytest.approx(0.9),
        'area': 200,
        'segmentation': masks[0],
    }
    json.dumps(results, allow_nan=False)
    none = coco_results(
        Detections(
            *(
                array[:0]
                for array in (
                    detections.boxes_xyxy,
                    detections.scores,
                    detections.class_ids,
                    detections.mask_areas,
                )
            )
        ),
        [],
        image={'image_id': 7, 'file_name': 'a.png'},
        class_names=['ball'],
        category_ids=[5],
    )
    assert none == []


def test_label_image_to_masks() -> None:
    labels = np.zeros((H, W), np.uint16)
    labels[rectangle(*BOX) > 0] = 1
    labels[rectangle(20, 12, 30, 4) > 0] = 3  # the second one is covered whole
    masks = [coco_mask.decode(rle) for rle in label_image_rles(labels, 3)]
    assert [int(mask.sum()) for mask in masks] == [200 - 10 * 4, 0, 120]
    for number, mask in enumerate(masks, start=1):
        assert np.array_equal(mask > 0, labels == number)
    assert label_image_rles(labels, 0) == []


def test_categories_by_name() -> None:
    truth = Annotations.from_coco(dataset())
    assert categories_by_name(['ball', 'barrel', 'cone'], truth) == [5, None, 3]
