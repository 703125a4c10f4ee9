# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Scores of a run against pycocotools, and the confusion against a count by hand."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from typing import Any

import numpy as np
import pytest
from annotated_runs import BOX, H, W, dataset, entry, rle_of
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from seeds import fresh_seeds

from segnode.errors import AnnotationError
from segnode.evaluation.annotations import Annotations
from segnode.evaluation.coco_evaluation import AREAS, IouType, evaluate_results
from segnode.evaluation.confusion import confusion
from segnode.evaluation.entries import Id
from segnode.evaluation.scores import entries_on_images, score

NAMES = ['cone', 'ball', 'box']
CATEGORIES = {'box': 9, 'cone': 4, 'ball': 0}
STATS = ['ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large']


def random_run(
    rng: np.random.Generator,
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[int, Id]]:
    """Objects of three classes and shaken detections of four, with ties and crowds.

    Image ids are texts and integers and begin at 0; frames are numbered otherwise.
    """
    images: list[Id] = [0, 'a', 7, 'b', 3, 5]
    frame_of = {image: frame for frame, image in enumerate(reversed(images), start=2)}
    annotations, results = [], []
    for image in images[1:]:  # the first is empty
        for _ in range(int(rng.integers(0, 7))):
            w, h = (int(side) for side in rng.integers(6, 45, 2))
            x, y = int(rng.integers(0, W - w)), int(rng.integers(0, H - h))
            name = str(rng.choice(NAMES))
            annotations.append(
                {
                    'id': len(annotations),
                    'image_id': image,
                    'category_id': CATEGORIES[name],
                    'bbox': [x, y, w, h],
                    # Not the true one, so that sizes of all three ranges occur.
                    'area': float(rng.choice([w * h, 5000, 20000])),
                    'iscrowd': int(rng.random() < 0.15),
                    'segmentation': rle_of((x, y, w, h)),
                }
            )
            for _ in range(int(rng.integers(0, 4))):
                dx, dy = (int(d) for d in rng.integers(-4, 5, 2))
                box = (min(max(x + dx, 0), W - w), min(max(y + dy, 0), H - h), w, h)
                seen = name if rng.random() < 0.7 else str(rng.choice([*NAMES, 'dog']))
                tied = float(rng.choice([0.3, 0.5, 0.9]))
                results.append(entry(frame_of[image], box, tied, seen))
    results.append(entry(99, BOX))  # of a frame that is not annotated
    order = rng.permutation(len(results))
    coco = {
        'images': [{'id': i, 'file_name': f'{i}.png', 'height': H, 'width': W} for i in images],
        'categories': [{'id': i, 'name': name} for name, i in CATEGORIES.items()],
        'annotations': annotations,
    }
    return coco, [results[k] for k in order], {frame: i for i, frame in frame_of.items()}


def pycocotools_stats(
    truth: Annotations, entries: list[dict[str, Any]], images: list[Id], iou_type: str
) -> tuple[list[float | None], COCOeval]:
    """Return its twelve stats; ids are numbered from 1, as it has its own view of 0 and texts."""
    numbers = {i: k for k, i in enumerate(sorted(images, key=str), start=1)}
    categories = {i: k for k, i in enumerate(truth.categories.values(), start=1)}

    def numbered(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                **item,
                'id': k,
                'image_id': numbers[item['image_id']],
                'category_id': categories[item['category_id']],
            }
            for k, item in enumerate(items, start=1)
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {
            'images': [{'id': k, 'height': H, 'width': W} for k in numbers.values()],
            'categories': [{'id': k} for k in categories.values()],
            'annotations': numbered(truth.instances),
        }
        reference.createIndex()
        found = numbered(
            [{k: v for k, v in item.items() if k != 'id' and k != 'area'} for item in entries]
        )
        if iou_type == 'segm':  # loadRes takes the area of boxes where there are any
            for item in found:
                del item['bbox']
        if found:
            detections = reference.loadRes(found)
        else:  # loadRes looks into the first one
            detections = COCO()
            detections.dataset = {**reference.dataset, 'annotations': []}
            detections.createIndex()
        evaluation = COCOeval(reference, detections, iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if value < 0 else float(value) for value in evaluation.stats], evaluation


def same(ours: float | None, theirs: float | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return abs(ours - theirs) <= 1e-12


@pytest.mark.parametrize('seed', fresh_seeds(6))
def test_equals_pycocotools(
    seed: int, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(seed)
    coco, results, image_ids = random_run(rng)
    coco['annotations'] = coco['annotations'] or dataset(1)['annotations']
    truth = Annotations.from_coco(coco)
    with caplog.at_level(0):
        scores = score(truth, iter(results), image_ids, [*NAMES, 'dog'])
    assert capfd.readouterr() == ('', '')
    assert [record for record in caplog.records if record.levelname != 'DEBUG'] == []
    json.dumps(scores, allow_nan=False)
    entries = list(entries_on_images(truth, results, image_ids))
    iou_types: dict[str, IouType] = {'box': 'bbox', 'mask': 'segm'}
    for kind, iou_type in iou_types.items():
        stats, reference = pycocotools_stats(truth, entries, list(image_ids.values()), iou_type)
        evaluation = evaluate_results(truth, entries, iou_type, image_ids.values())
        twelve = [
            *(evaluation.ap(iou) for iou in (None, 0.5, 0.75)),
            *(evaluation.ap(area=area) for area in AREAS[1:]),
            *(evaluation.ar(most=most) for most in (1, 10, 100)),
            *(evaluation.ar(area) for area in AREAS[1:]),
        ]
        assert all(map(same, twelve, stats)), (twelve, stats)
        for name, theirs in zip(STATS, stats[:6], strict=True):
            assert same(scores[kind][name], theirs), (kind, name)
        assert same(scores[kind]['ar100'], stats[8])
        for area, theirs in zip(('small', 'medium', 'large'), stats[3:6], strict=True):
            assert same(scores['by_size'][area][f'{kind}_ap'], theirs)
        precision = reference.eval['precision'][..., 0, 2]  # (T, R, K)
        for row in scores['by_class']:
            k = list(truth.categories).index(row['name'])
            for key, theirs in (('ap', precision[:, :, k]), ('ap50', precision[0, :, k])):
                known = theirs[theirs > -1]
                expected = float(known.mean()) if known.size else None
                assert same(row[f'{kind}_{key}'], expected)
        curves = scores['precision_recall'][kind]
        for name, t in (('iou50', 0), ('iou75', 5)):
            known = [precision[t, :, k] for k in range(3) if precision[t, 0, k] > -1]
            if not known:
                assert curves[name] is None
            else:
                assert np.allclose(curves[name], np.mean(known, axis=0), rtol=0, atol=1e-12)
            assert len(curves['recall']) == 101


def brute_confusion(
    truth: Annotations, entries: list[dict[str, Any]], threshold: float
) -> dict[tuple[str, str], int]:
    """Count by walking over pixels of boxes, a detection at a time."""
    names = {i: name for name, i in truth.categories.items()}
    counts: dict[tuple[str, str], int] = {}

    def inside(item: dict[str, Any]) -> np.ndarray:
        x, y, w, h = (int(side) for side in item['bbox'])
        area = np.zeros((H, W), bool)
        area[y : y + h, x : x + w] = True
        return area

    def count(row: str, column: str) -> None:
        counts[row, column] = counts.get((row, column), 0) + 1

    for image in truth.images:
        objects = [item for item in truth.instances if item['image_id'] == image]
        taken: set[int] = set()
        here = [e for e in entries if e['image_id'] == image and e['score'] >= threshold]
        for _, found in sorted(enumerate(here), key=lambda p: (-p[1]['score'], p[0])):
            best, best_key = None, (0.0, False)
            for item in objects:
                if item['id'] in taken or item['iscrowd']:
                    continue
                both = (inside(item) & inside(found)).sum()
                iou = both / (inside(item) | inside(found)).sum()
                key = (iou, item['category_id'] == found['category_id'])
                if iou >= 0.5 and key > best_key:
                    best, best_key = item, key
            if best is not None:
                taken.add(best['id'])
                count(names[best['category_id']], names[found['category_id']])
            elif not any(
                item['iscrowd']
                and item['category_id'] == found['category_id']
                and (inside(item) & inside(found)).sum() / inside(found).sum() >= 0.5
                for item in objects
            ):
                count('background', names[found['category_id']])
        for item in objects:
            if not item['iscrowd'] and item['id'] not in taken:
                count(names[item['category_id']], 'missed')
    return counts


@pytest.mark.parametrize('seed', fresh_seeds(4))
def test_confusion_equals_a_count_by_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    coco, results, image_ids = random_run(rng)
    truth = Annotations.from_coco(coco)
    entries = list(entries_on_images(truth, results, image_ids))
    for threshold in (0.0, 0.5, 0.95):
        table = confusion(truth, entries, image_ids.values(), threshold).as_dict()
        found = {
            (row, column): table['counts'][r][c]
            for (r, row), (c, column) in itertools.product(
                enumerate(table['rows']), enumerate(table['columns'])
            )
            if table['counts'][r][c]
        }
        assert found == brute_confusion(truth, entries, threshold)


def test_confusion_by_hand() -> None:
    truth = Annotations.from_coco(dataset(3, boxes=[BOX, (40, 5, 20, 20), (60, 30, 20, 20)]))
    results = [
        entry(0, BOX, 0.9, 'ball'),  # the cone is taken for a ball,
        entry(0, BOX, 0.8, 'cone'),  # so that this one finds nothing
        entry(1, (40, 5, 20, 20), 0.5, 'cone'),  # at the threshold
        entry(2, (60, 30, 20, 20), 0.49, 'cone'),
        entry(2, (0, 0, 5, 5), 0.7, 'dog'),  # of no annotated class
    ]
    scores = score(truth, results, {0: 0, 1: 1, 2: 2}, ['cone', 'ball', 'dog'])
    assert scores['confusion'] == {
        'iou': 0.5,
        'score_threshold': 0.5,
        'rows': ['cone', 'ball', 'background'],
        'columns': ['cone', 'ball', 'missed'],
        'counts': [[1, 1, 1], [0, 0, 0], [1, 0, 0]],
    }
    cone, ball = scores['by_class']
    assert (cone['truth'], cone['found'], cone['detected']) == (3, 1, 2)
    assert (ball['truth'], ball['found'], ball['detected'], ball['box_ap']) == (0, 0, 1, None)


def test_frames_without_results_are_missed_and_those_without_annotations_passed_over() -> None:
    truth = Annotations.from_coco(dataset(2))
    results = [entry(5, BOX), entry(8, BOX, 0.95)]
    scores = score(truth, results, {5: 0, 6: 1}, ['cone'])
    assert scores['images'] == 2
    assert scores['box']['ap'] == pytest.approx(51 / 101)
    assert score(truth, results, {5: 0}, ['cone'])['mask']['ap'] == pytest.approx(1.0)


def test_nothing_annotated() -> None:
    coco = dataset(1)
    coco['annotations'] = []
    scores = score(Annotations.from_coco(coco), [entry(0, BOX)], {0: 0}, ['cone'])
    assert set(scores['box'].values()) == {None}
    assert scores['precision_recall']['mask']['iou50'] is None
    assert scores['confusion']['counts'] == [[0, 0], [1, 0]]


def test_boxes_alone() -> None:
    coco = dataset(1)
    del coco['annotations'][0]['segmentation']
    scores = score(Annotations.from_coco(coco), [entry(0, BOX)], {0: 0}, ['cone'])
    assert scores['box']['ap'] == pytest.approx(1.0)
    assert scores['mask']['ap'] is None
    assert scores['by_class'][0]['found'] == 1


def test_no_common_class() -> None:
    said: list[str] = []
    truth = Annotations.from_coco(dataset(1))
    with pytest.raises(AnnotationError, match='none of the classes'):
        score(truth, [], {0: 0}, ['dog'])
    score(truth, [], {0: 0}, ['cone', 'dog'], report=said.append)
    assert any('dog' in line for line in said)


def test_inputs_stay_as_they_are() -> None:
    truth = Annotations.from_coco(dataset(1))
    results = [entry(0, BOX)]
    before = json.dumps(results), repr(truth.instances)
    score(truth, results, {0: 0}, ['cone'])
    assert (json.dumps(results), repr(truth.instances)) == before
    assert coco_mask.area(truth.instances[0]['segmentation']) == BOX[2] * BOX[3]
