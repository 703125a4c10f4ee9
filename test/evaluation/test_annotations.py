# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Annotations as people's tools write them: what stays scores as pycocotools scores it."""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segnode.__main__ import main
from segnode.demo.scene import CLASS_NAMES, DEMO_SEEDS, Scene, coco_annotations
from segnode.errors import AnnotationError
from segnode.evaluation.annotations import Annotations
from segnode.evaluation.metrics import average_precision, common_categories

H, W = 60, 80
Coco = dict[str, Any]


def rle_of(x: int, y: int, w: int, h: int) -> dict[str, Any]:
    mask = np.zeros((H, W), np.uint8)
    mask[y : y + h, x : x + w] = 1
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {'size': encoded['size'], 'counts': encoded['counts'].decode()}


def polygon(x: float, y: float, w: float, h: float) -> list[float]:
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def entry(image_id: int, category_id: int, box: tuple[int, int, int, int]) -> dict[str, Any]:
    return {
        'id': 0,
        'image_id': image_id,
        'category_id': category_id,
        'bbox': list(box),
        'area': float(box[2] * box[3]),
        'iscrowd': 0,
        'segmentation': [polygon(*box)],
    }


BOXES = [(10, 10, 20, 10), (40, 5, 12, 30), (2, 40, 30, 15), (50, 30, 25, 25)]
LAST = (20, 25, 16, 14)


def clean() -> Coco:
    """Return a dataset that pycocotools reads as it is."""
    annotations = [entry(7 + k % 2, 3 + 2 * (k // 2), box) for k, box in enumerate(BOXES)]
    return {
        'images': [
            {'id': 7, 'file_name': 'val/a.png', 'height': H, 'width': W},
            {'id': 8, 'file_name': 'val/b.png', 'height': H, 'width': W},
        ],
        'categories': [{'id': 3, 'name': 'cone'}, {'id': 5, 'name': 'ball'}],
        'annotations': [item | {'id': number} for number, item in enumerate(annotations, start=1)],
    }


def detections() -> list[dict[str, Any]]:
    """Return answers that are right, shifted, wrong, and on what only some datasets have."""
    found = []
    for k, (x, y, w, h) in enumerate(BOXES):
        box = (x + k, max(y - k, 0), w, h)
        found.append((7 + k % 2, 3 + 2 * (k // 2), box, 0.9 - k / 10))
    found += [(7, 3, LAST, 0.95), (8, 3, (60, 2, 9, 9), 0.85), (8, 5, (4, 4, 30, 20), 0.3)]
    return [
        {
            'image_id': image_id,
            'category_id': category_id,
            'bbox': [float(side) for side in box],
            'score': score,
            'segmentation': rle_of(*box),
        }
        for image_id, category_id, box, score in found
    ]


def oracle(coco: Coco, results: list[dict[str, Any]], iou_type: str) -> tuple[float, float]:
    """Return AP and AP50 by pycocotools alone."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(coco)
        truth.createIndex()
        answers = [
            {k: v for k, v in item.items() if iou_type == 'segm' or k != 'segmentation'}
            for item in copy.deepcopy(results)
        ]
        evaluation = COCOeval(truth, truth.loadRes(answers), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return tuple(evaluation.stats[:2])


def read(coco: object, tmp_path: Path) -> Annotations | str:
    """Return the annotations of a file, or the line that refuses it."""
    path = tmp_path / 'truth.json'
    path.write_bytes(coco if isinstance(coco, bytes) else json.dumps(coco).encode())
    try:
        return Annotations.read(path)
    except AnnotationError as error:
        line = str(error)
    assert line.startswith(str(path))
    assert line.isprintable()
    assert len(line) < 500
    return line


def scores(coco: object, tmp_path: Path) -> dict[str, Any] | str:
    """Return box and mask AP and AP50 of ``detections()``, or the line that refuses them."""
    truth = read(coco, tmp_path)
    if isinstance(truth, str):
        return truth
    images, categories = {}, {}
    for number, name in ((7, 'a.png'), (8, 'b.png')):
        image = truth.find(Path('/data/val') / name)
        assert image is not None
        images[number] = image.id
    for number, name in ((3, 'cone'), (5, 'ball')):
        categories[number] = truth.categories[name]
    results = [
        item
        | {
            'image_id': images[item['image_id']],
            'category_id': categories[item['category_id']],
        }
        for item in detections()
    ]
    found = {
        kind: average_precision(truth, results, kind, images.values()) for kind in ('bbox', 'segm')
    }
    return {kind: (score.ap, score.ap50) for kind, score in found.items()}


def expected(coco: Coco) -> dict[str, Any]:
    return {
        kind: pytest.approx(oracle(coco, detections(), kind), abs=1e-9)
        for kind in ('bbox', 'segm')
    }


def each(key: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Coco], object]:
    """Return a change of every entry under a key."""
    return lambda coco: [change(item) for item in coco[key]]


def ids(make: Callable[[int], object]) -> Callable[[Coco], object]:
    """Return a change of all ids."""

    def change(coco: Coco) -> None:
        for item in coco['images'] + coco['categories']:
            item['id'] = make(item['id'])
        for item in coco['annotations']:
            item['image_id'] = make(item['image_id'])
            item['category_id'] = make(item['category_id'])

    return change


def roboflow(coco: Coco) -> None:
    coco['categories'].insert(0, {'id': 0, 'name': 'cone', 'supercategory': 'none'})


def shifted_categories(coco: Coco) -> None:
    for item in coco['categories']:
        item['id'] -= 3
    for item in coco['annotations']:
        item['category_id'] -= 3


def as_points(item: dict[str, Any]) -> None:
    ring = item['segmentation'][0]
    item['segmentation'] = [list(pair) for pair in zip(ring[0::2], ring[1::2], strict=True)]


def degenerate(item: dict[str, Any]) -> None:
    item['segmentation'] = [[5, 5], *item['segmentation'], [1, 1, 9, 9], []]


def fewer(item: dict[str, Any]) -> None:
    item.pop('area')
    item.pop('iscrowd')
    item.pop('bbox')


SLOPPY: dict[str, Callable[[Coco], object]] = {
    'ids are numbers as texts': ids(str),
    'ids are texts': ids(lambda number: f'id-{number}'),
    'ids are fractions': ids(float),
    'ids of two kinds': each('annotations', lambda i: i.update(image_id=str(i['image_id']))),
    'ids are texts of fractions': each('annotations', lambda i: i.update(
        image_id=f'{i["image_id"]}.0', category_id=f'00{i["category_id"]}')),
    'ids of images are texts of fractions': each('images', lambda i: i.update(
        id=f'{i["id"]}.0')),
    'boxes outside of their image': each('annotations', lambda i: i.update(bbox=[400, 300, 5, 5])),
    'relative boxes': each('annotations', lambda i: i.update(bbox=[0.5, 0.3, 0.2, 0.1])),
    'sizes are fractions': each('images', lambda i: i.update(height=60.0, width='80')),
    'no area': each('annotations', lambda i: i.update(area=None)),
    'a negative area': each('annotations', lambda i: i.update(area=-1.0)),
    'an endless area': each('annotations', lambda i: i.update(area=1e300)),
    'polygons alone': each('annotations', fewer),
    'boxes without sides': each('annotations', lambda i: i.update(bbox=[9, 9, 0, -5])),
    'boxes of null': each('annotations', lambda i: i.update(bbox=[None] * 4)),
    'closed polygons': each('annotations', lambda i: i['segmentation'][0].extend(
        i['segmentation'][0][:2])),
    'polygons of one and two points beside': each('annotations', degenerate),
    'a flat polygon': each('annotations', lambda i: i.update(segmentation=i['segmentation'][0])),
    'polygons of points': each('annotations', as_points),
    'runs as a text': each('annotations', lambda i: i.update(segmentation=rle_of(*i['bbox']))),
    'runs as the text of bytes': each('annotations', lambda i: i.update(
        segmentation={'size': [60.0, 80.0],
                      'counts': str(rle_of(*i['bbox'])['counts'].encode())})),
    'categories from 0': shifted_categories,
    'a group of the name of a class': roboflow,
    'iscrowd as a text': each('annotations', lambda i: i.update(iscrowd='0')),
    'iscrowd as a word': each('annotations', lambda i: i.update(iscrowd=False)),
    'what other tools add': each('annotations', lambda i: i.update(
        keypoints=[1, 2, 2], num_keypoints=1, attributes={'occluded': False}, score=None)),
    'backslashes': each('images', lambda i: i.update(file_name='.\\' + i['file_name'].replace(
        '/', '\\'))),
    'names with spaces around': each('categories', lambda i: i.update(name=f' {i["name"]} ')),
    'an image twice': lambda coco: coco['images'].append(dict(coco['images'][0])),
}  # fmt: skip


@pytest.mark.parametrize('change', SLOPPY.values(), ids=SLOPPY.keys())
def test_sloppy_files_score_as_meant(change: Callable[[Coco], object], tmp_path: Path) -> None:
    coco = clean()
    change(coco)
    assert scores(coco, tmp_path) == expected(clean())


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_byte_order_marks(encoding: str, tmp_path: Path) -> None:
    assert scores(json.dumps(clean()).encode(encoding), tmp_path) == expected(clean())


def test_an_id_stays_itself_where_it_matches(tmp_path: Path) -> None:
    coco = clean()
    coco['images'][1]['id'] = '07'
    for item in coco['annotations']:
        item['image_id'] = {7: 7, 8: '07'}[item['image_id']]
    truth = read(coco, tmp_path)
    assert not isinstance(truth, str)
    assert [item['image_id'] for item in truth.instances] == [7, '07', 7, '07']
    # A third way to write the number is the number, where that can be used.
    coco['annotations'][0]['image_id'] = '7.0'
    truth = read(coco, tmp_path)
    assert not isinstance(truth, str)
    assert [item['image_id'] for item in truth.instances] == [7, '07', 7, '07']
    coco['images'][0]['file_name'] = ''
    truth = read(coco, tmp_path)
    assert not isinstance(truth, str)
    assert [item['image_id'] for item in truth.instances] == ['07', '07']


def said_of(**changes: Any) -> list[str]:
    """Return what is said of a dataset with one more object, without the head of the lines."""
    coco, said = clean(), []
    coco['annotations'].append(entry(7, 3, LAST) | changes)
    Annotations.from_coco(coco, 'truth', said.append)
    return [line.removeprefix('truth: ') for line in said]


def test_a_place_that_cannot_be_found_is_left_out_with_its_reason() -> None:
    (line,) = said_of(bbox=[400, 300, 50, 50], segmentation=[polygon(400, 300, 50, 50)])
    assert line.startswith('left out 1 annotations')
    assert 'the box lies outside of its image' in line
    (line,) = said_of(bbox=[400, 300, 50, 50])
    assert line.startswith('took the box of 1 annotations from their masks')
    small = [0.25, 0.4, 0.2, 0.25]
    (line,) = said_of(bbox=small, segmentation=[polygon(*small)])
    assert line.startswith('left out 1 annotations')
    assert 'relative to the image? expected pixels' in line
    (line,) = said_of(segmentation=[polygon(*small)])
    assert line.startswith('kept only the box of 1 annotations')
    assert 'relative to the image? expected pixels' in line


def test_a_box_over_the_edge_lies_around_its_mask() -> None:
    place = (70, 50, 90, 100)
    assert said_of(bbox=list(place), segmentation=[polygon(*place)], area=9000) == []
    (line,) = said_of(bbox=[5, 5, 20, 20], segmentation=[polygon(*place)], area=9000)
    assert 'do not lie around their masks' in line


def test_many_folders_with_one_name_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from segnode.evaluation import annotations, entries

    calls = 0

    def counted(name: str) -> tuple[str, ...]:
        nonlocal calls
        calls += 1
        return parts_of(name)

    parts_of = entries.name_parts
    monkeypatch.setattr(entries, 'name_parts', counted)
    monkeypatch.setattr(annotations, 'name_parts', counted)
    count = 200
    paths = [Path(f'/data/{k}/frame.png') for k in range(count)]
    images = [{'id': k, 'file_name': f'{k}/frame.png'} for k in range(count)]
    with pytest.raises(AnnotationError, match='none of the 200 images'):
        Annotations.from_coco(clean() | {'images': images, 'annotations': []}, pictures=paths)
    assert calls < 10 * count
    images = [image | {'height': 4, 'width': 4} for image in images]
    truth = Annotations.from_coco(clean() | {'images': images, 'annotations': []})
    found = truth.match(paths, lambda _: None)
    assert [found[path].id for path in paths] == list(range(count))
    assert calls < 20 * count


def test_classes_that_differ_in_how_they_are_written_are_said() -> None:
    categories = [{'id': 3, 'name': 'Cone'}, {'id': 5, 'name': 'Ball'}]
    truth = Annotations.from_coco(clean() | {'categories': categories})
    with pytest.raises(AnnotationError, match=r'none of the .*Cone; names have to be equal'):
        common_categories(['cone', 'ball'], truth, [7, 8], lambda _: None)


@pytest.mark.parametrize('ids', [[7, 8], [7]])
def test_nothing_annotated_is_said(ids: list[int]) -> None:
    coco, said = clean(), []
    common_categories(['cone', 'ball'], Annotations.from_coco(coco), ids, said.append)
    assert said == []
    coco['annotations'] = [item for item in coco['annotations'] if item['image_id'] not in ids]
    common_categories(['cone', 'ball'], Annotations.from_coco(coco), ids, said.append)
    assert len(said) == 1
    assert 'there is no AP' in said[0]


def test_boxes_alone_have_no_mask_ap_and_that_is_said() -> None:
    coco, said = clean(), []
    each('annotations', lambda i: i.update(segmentation=[]))(coco)
    common_categories(['cone', 'ball'], Annotations.from_coco(coco), [7, 8], said.append)
    assert said == ['no object in these images has a usable mask, so there is no mask AP']


def test_merged_names_score_together(tmp_path: Path) -> None:
    coco = clean()
    coco['categories'].append({'id': 9, 'name': 'cone', 'supercategory': 'other'})
    coco['annotations'][0]['category_id'] = 9
    assert scores(coco, tmp_path) == expected(clean())


# What a bad entry leaves: nothing, or its box.
GONE: dict[str, dict[str, Any]] = {
    'an unknown image': {'image_id': 99},
    'no image': {'image_id': None},
    'an image id of lists': {'image_id': [[7]]},
    'an unknown category': {'category_id': 99},
    'a category of truth': {'category_id': True},
    'a strange iscrowd': {'iscrowd': 'maybe'},
    'no place at all': {'bbox': [], 'segmentation': []},
    'a box of NaN': {'bbox': [1, 2, 3, math.nan], 'segmentation': []},
    'an endless box': {'bbox': [0, 0, 1e308, 1e308], 'segmentation': None},
    'a huge integer': {'bbox': [0, 0, 10**400, 9], 'segmentation': None},
    'a box of texts': {'bbox': ['a', 'b', 'c', 'd'], 'segmentation': []},
    'a box and a polygon outside': {'bbox': [90, 10, 5, 5],
                                    'segmentation': [polygon(90, 10, 5, 5)]},
    'a box above': {'bbox': [10, -20, 5, 20], 'segmentation': None},
    'a relative box': {'bbox': [0.25, 0.4, 0.2, 0.25], 'segmentation': None},
    'a relative box and polygon': {'bbox': [0.25, 0.4, 0.2, 0.25],
                                   'segmentation': [polygon(0.25, 0.4, 0.2, 0.25)]},
    'a relative polygon of a pixel': {'bbox': None, 'segmentation': [polygon(0, 0, 1, 1)]},
    'a point': {'bbox': [4, 4, 0, 0], 'segmentation': [[4, 4]]},
}  # fmt: skip
BOX_STAYS: dict[str, Any] = {
    'an empty list': [],
    'an empty polygon': [[]],
    'nothing': None,
    'a text': 'abc',
    'a NaN': [[20, 25, 36, 25, math.nan, 39]],
    'an Infinity': [[20, 25, 36, 25, math.inf, 39]],
    'a text in a polygon': [[20, 25, 36, 25, 'x', 39]],
    'far outside': [[20, 25, 36, 25, 1e30, 39]],
    'a huge integer': [[20, 25, 36, 25, 10**400, 39]],
    'two points': [[20, 25, 36, 39]],
    'an odd number': [[20, 25, 36, 25, 36, 39, 20]],
    'a line': [[20, 25, 36, 25, 20, 25]],
    'outside its image': [[200, 200, 300, 200, 300, 300]],
    'an endless outline': [[-700, -700, 700, 700] * 2000],
    'a deep list': [[[[[20, 25]]]]],
    'a mixed list': [[20, 25, 36, 25, 36, 39], 5],
    'runs of another size': {'size': [W, H], 'counts': [H * W]},
    'runs without a size': {'counts': [H * W]},
    'too few runs': {'size': [H, W], 'counts': [5]},
    'negative runs': {'size': [H, W], 'counts': [H * W + 5, -5]},
    'fractions': {'size': [H, W], 'counts': [0.5, H * W - 0.5]},
    'no runs': {'size': [H, W], 'counts': None},
    'an empty mask': {'size': [H, W], 'counts': [H * W]},
    'too many digits': {'size': [H, W], 'counts': 'o' * 20_000},
    'odd characters': {'size': [H, W], 'counts': 'Ä'},
    'quoted nonsense': {'size': [H, W], 'counts': "b'\\xff"},
}


@pytest.mark.parametrize('place', [0, 2, 4])
@pytest.mark.parametrize('changes', GONE.values(), ids=GONE.keys())
def test_a_bad_entry_is_skipped(changes: dict[str, Any], place: int, tmp_path: Path) -> None:
    coco = clean()
    coco['annotations'].insert(place, entry(7, 3, LAST) | changes)
    assert scores(coco, tmp_path) == expected(clean())


@pytest.mark.parametrize('segmentation', BOX_STAYS.values(), ids=BOX_STAYS.keys())
def test_a_bad_mask_leaves_the_box(segmentation: Any, tmp_path: Path) -> None:
    coco, kept = clean(), clean()
    item = entry(7, 3, LAST) | {'id': 5}
    coco['annotations'].append(item | {'segmentation': segmentation})
    # For masks the object is a region in which nothing counts, as crowds are.
    kept['annotations'].append(item)
    boxes = oracle(kept, detections(), 'bbox')
    kept['annotations'][-1] = item | {'iscrowd': 1, 'segmentation': rle_of(*LAST)}
    masks = oracle(kept, detections(), 'segm')
    found = scores(coco, tmp_path)
    assert found == {'bbox': pytest.approx(boxes), 'segm': pytest.approx(masks)}
    assert boxes != oracle(clean(), detections(), 'bbox')
    assert masks != oracle(clean(), detections(), 'segm')


@pytest.mark.parametrize(
    'item',
    [None, 5, {}, {'id': 9}, {'id': 9, 'file_name': ''}, {'file_name': 'c.png', 'height': 4},
     {'id': 9, 'file_name': 'c.png', 'height': None, 'width': None},
     {'id': 9, 'file_name': 'c.png', 'height': 0, 'width': 4},
     {'id': 9, 'file_name': 'c.png', 'height': 1e12, 'width': 4},
     {'id': [9], 'file_name': 'c.png', 'height': 4, 'width': 4}],
)  # fmt: skip
def test_a_bad_image_is_skipped(item: Any, tmp_path: Path) -> None:
    coco = clean()
    coco['images'].insert(0, item)
    coco['annotations'].insert(0, entry(9, 3, LAST))
    assert scores(coco, tmp_path) == expected(clean())


@pytest.mark.parametrize(
    'item', [None, 'cone', {}, {'id': 4}, {'name': 'box'}, {'id': None, 'name': 'box'},
             {'id': 4, 'name': ' '}]
)  # fmt: skip
def test_a_bad_category_is_skipped(item: Any, tmp_path: Path) -> None:
    coco = clean()
    coco['categories'].insert(0, item)
    assert scores(coco, tmp_path) == expected(clean())


def test_an_id_of_two_images_is_of_none(tmp_path: Path) -> None:
    coco = clean()
    coco['images'].append({'id': 9, 'file_name': 'val/c.png', 'height': H, 'width': W})
    coco['images'].append({'id': 9, 'file_name': 'val/d.png', 'height': H, 'width': W})
    coco['annotations'].append(entry(9, 3, LAST))
    assert scores(coco, tmp_path) == expected(clean())
    truth = read(coco, tmp_path)
    assert not isinstance(truth, str)
    assert truth.find(Path('/val/c.png')) is truth.find(Path('/val/d.png')) is None


def test_a_category_id_of_two_names_is_of_none(tmp_path: Path) -> None:
    coco = clean()
    coco['categories'] += [{'id': 9, 'name': 'box'}, {'id': 9, 'name': 'bin'}]
    coco['annotations'].append(entry(7, 9, LAST))
    assert scores(coco, tmp_path) == expected(clean())


def test_many_polygons_are_one_mask(tmp_path: Path) -> None:
    coco, plain = clean(), clean()
    strips = [polygon(20 + k / 100, 25, 0.5, 14) for k in range(1600)]
    coco['annotations'].append(entry(7, 3, LAST) | {'id': 5, 'segmentation': strips})
    plain['annotations'].append(coco['annotations'][-1])
    assert scores(coco, tmp_path) == expected(plain)


@pytest.mark.parametrize('shift', [-3.5, 0.25, 400.0])
def test_polygons_over_the_edge_are_pycocotools(shift: float, tmp_path: Path) -> None:
    coco = clean()
    for item in coco['annotations']:
        item['segmentation'][0] = [value + shift for value in polygon(*item['bbox'])]
        item['segmentation'].append(polygon(*LAST))
    assert scores(coco, tmp_path) == expected(coco)


# Reads files in a process that may neither take 2 GiB nor 10 s, and ends it where it does.
READER = """
import resource, sys
from pathlib import Path
from segnode.errors import AnnotationError
from segnode.evaluation.annotations import Annotations
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
for path in sys.argv[1:]:
    try:
        print(len(Annotations.read(Path(path)).instances))
    except AnnotationError as error:
        print('one line' if str(error).isprintable() else error)
"""


def test_hostile_files_take_neither_time_nor_memory(tmp_path: Path) -> None:
    outline, runs = clean(), clean()
    shape: Any = [[-799, -799, 799, 799] * 50_000]
    outline['annotations'].append(entry(7, 3, LAST) | {'segmentation': shape})
    shape = {'size': [H, W], 'counts': 'o' * 1_000_000}
    runs['annotations'].append(entry(7, 3, LAST) | {'segmentation': shape})
    files = {
        'runs': json.dumps(runs).encode(),
        'nested': b'[' * 1_000_000,
        'digits': b'[' + b'9' * 1_000_000 + b']',
        'outline': json.dumps(outline).encode(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in files]
    ended = subprocess.run([sys.executable, '-c', READER, *paths], capture_output=True, text=True)
    assert ended.stderr == ''
    assert (ended.returncode, ended.stdout.split('\n')) == (0, ['5', *['one line'] * 2, '5', ''])


STRANGE: tuple[Any, ...] = (
    None, True, 0, -1, 7.0, '7', '', 'x', '\ud800', '..', [], [[]], {}, math.nan, -math.inf, 1e308,
    10**400, 2**63, [1, 2, 3, 4], [[0, 0], [9, 9], [0, 9]], [[799.9] * 6], b'counts',
    {'size': [H, W], 'counts': 'abc'}, {'size': [H, W], 'counts': [100, 200, 4500]},
)  # fmt: skip


def damage(node: Any, chance: random.Random) -> None:
    """Change, double or remove something somewhere in parsed JSON."""
    place = chance.choice(list(node) if isinstance(node, dict) else range(len(node)))
    if isinstance(node[place], dict | list) and node[place] and chance.random() < 0.8:
        damage(node[place], chance)
    elif chance.random() < 0.2:
        del node[place]
    elif chance.random() < 0.1 and isinstance(node, list):
        node.insert(place, node[place])
    else:
        node[place] = copy.deepcopy(chance.choice(STRANGE))


def test_damage_anywhere_scores_or_is_one_line() -> None:
    refused = scored = 0
    for seed in range(150):
        chance = random.Random(seed)
        coco = clean()
        for _ in range(chance.randrange(1, 6)):
            damage(coco[chance.choice(['images', 'categories', 'annotations'])] or [0], chance)
        said: list[str] = []
        try:
            truth = Annotations.from_coco(coco, 'truth', said.append)
        except AnnotationError as error:
            said.append(str(error))
            refused += 1
        else:
            results = [
                item | {'image_id': image_id, 'category_id': next(iter(truth.categories.values()))}
                for item, image_id in zip(detections(), truth.images, strict=False)
                if truth.images[image_id].image_hw == (H, W)
            ]
            for kind in ('bbox', 'segm'):
                ap = average_precision(truth, results, kind, truth.images).ap
                assert ap is None or 0 <= ap <= 1
            scored += 1
        assert all(line.isprintable() and len(line) < 600 for line in said)
    assert refused > 10
    assert scored > 50


OTHERS: dict[str, tuple[object, str]] = {
    'nothing': (b'', 'found an empty file'),
    'half a file': (b'{"images": [', 'found something else (Expecting value'),
    'noise': (bytes(range(256)), 'found something else'),
    'half utf-16': (b'\xff\xfe\x00', 'found something else'),
    'no end': (b'[' * 100_000, 'without end'),
    'many digits': (b'[' + b'9' * 5000 + b']', 'found'),
    'gzip': (gzip.compress(b'{}'), 'found a gzip archive; unpack it'),
    'voc': (b'<annotation>\n</annotation>', 'found XML, as Pascal VOC'),
    'yolo': (b'0 0.5 0.5 0.1 0.2\n1 0.1 0.1 0.1 0.1\n', "YOLO's labels of one image; export"),
    'lines': (b'{"a": 1}\n{"b": 2}\n', 'an object on each line'),
    'a picture': (b'\x89PNG\r\n\x1a\n', 'a picture; name the annotations'),
    'a list': ([], 'found an empty list'),
    'numbers': ([1, 2], 'found a list; export them as COCO'),
    'a text': ('annotations', 'found a str'),
    'null': (None, 'found nothing'),
    'results': (detections(), 'a list of COCO results, which are detections'),
    'entries': ([entry(7, 3, LAST)], 'a list of annotations alone'),
    'label studio': ([{'id': 1, 'data': {}, 'annotations': []}], "Label Studio's own tasks"),
    'labelme': ({'shapes': [], 'imagePath': 'a.png', 'imageData': ''}, "labelme's own"),
    'via': ({'a.png123': {'filename': 'a.png', 'regions': []}}, "VIA's own annotations"),
    'datumaro': ({'info': {}, 'categories': {}, 'items': []}, "Datumaro's own"),
    'supervisely': ({'size': {}, 'objects': [], 'tags': []}, "Supervisely's own"),
    'no annotations': ({'images': [], 'categories': []}, "no 'annotations' in it"),
    'another kind': (clean() | {'images': {}}, "a dict, not a list, under 'images'"),
    'bad images': (clean() | {'images': [{}, 5]}, 'none of the 2 images can be used'),
    'bad categories': (clean() | {'categories': ['a']}, 'none of the 1 categories can be used'),
    'bad entries': (clean() | {'annotations': [{}]}, 'none of the 1 annotations can be used'),
}


@pytest.mark.parametrize(('content', 'part'), OTHERS.values(), ids=OTHERS.keys())
def test_other_files_are_one_line(content: object, part: str, tmp_path: Path) -> None:
    found = read(content, tmp_path)
    assert isinstance(found, str)
    assert part in found


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / 'none.json'):
        with pytest.raises(AnnotationError, match='cannot be read'):
            Annotations.read(path)
    with pytest.raises(AnnotationError, match='found a device'):
        Annotations.read(Path('/dev/null'))


def found_in(path: str, *file_names: str) -> object:
    """Return which of some annotated file names a picture is, or the line that refuses it."""
    images = [
        {'id': k, 'file_name': name, 'height': 4, 'width': 4} for k, name in enumerate(file_names)
    ]
    truth = Annotations.from_coco(clean() | {'images': images, 'annotations': []})
    try:
        image = truth.find(Path(path))
    except AnnotationError as error:
        return str(error)
    return None if image is None else image.file_name


@pytest.mark.parametrize(
    ('path', 'file_names', 'index'),
    [
        ('/data/b/1.png', ['a/1.png'], None),
        ('/data/a/1.png', ['a/1.png'], 0),
        ('/data/a/1.png', ['b/1.png', 'a/1.png'], 1),
        ('/data/b/1.png', ['x/b/1.png', 'a/b/1.png'], None),
        ('/data/x/b/1.png', ['x/b/1.png', 'a/b/1.png'], 0),
        ('/data/b/1.png', ['1.png'], 0),
        ('/data/b/1.png', ['.\\b\\1.png'], 0),
        ('/data/b/1.png', ['./b//1.png'], 0),
        ('/data/b/1.png', ['../../b/1.png'], 0),
        ('/data/b/1.png', ['C:\\Users\\b\\1.png'], None),
        ('/data/b/1.png', ['/data/b/1.png'], 0),
        ('/data/b/1.png', ['/data/a/1.png'], None),
        ('/data/b/../a/1.png', ['a/1.png'], 0),
        ('/data/b\\1.png', ['b/1.png'], 0),
        ('/data/b/1.PNG', ['1.png'], None),
        ('/data/b/e\u0301.png', ['b/\u00e9.png'], 0),
    ],
)
def test_folders_have_to_agree(path: str, file_names: list[str], index: int | None) -> None:
    assert found_in(path, *file_names) == (None if index is None else file_names[index])


@pytest.mark.parametrize('names', [('a/1.png', '1.png'), ('1.png', '1.png'), ('b/1.png',) * 2])
def test_two_annotated_images_of_one_picture(names: tuple[str, str]) -> None:
    found = found_in('/data/a/1.png' if 'a/1.png' in names else '/data/b/1.png', *names)
    assert f'{names[0]} (id 0) and {names[1]} (id 1)' in str(found)


def test_links_are_found_by_both_names(tmp_path: Path) -> None:
    (tmp_path / 'store').mkdir()
    (tmp_path / 'store' / 'x17').touch()
    (tmp_path / 'val').mkdir()
    (tmp_path / 'val' / '1.png').symlink_to(tmp_path / 'store' / 'x17')
    for name in ('val/1.png', 'store/x17', '1.png'):
        assert found_in(str(tmp_path / 'val' / '1.png'), name) == name


@pytest.fixture(scope='module')
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``a/1.png``, ``b/1.png`` and annotations of the first."""
    folder = tmp_path_factory.mktemp('scene')
    frames = list(Scene(DEMO_SEEDS[5], (120, 160)).frames(2))
    for name, frame in zip('ab', frames, strict=True):
        (folder / name).mkdir()
        cv2.imwrite(str(folder / name / '1.png'), frame.image)
    dataset = coco_annotations(frames[:1])
    dataset['images'][0]['file_name'] = 'a/1.png'
    (folder / 'truth.json').write_text(json.dumps(dataset))
    return folder


def predict(
    scene: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *pictures: str,
    change: Callable[[Coco], object] = lambda coco: None,
) -> tuple[Any, str]:
    """Run the command on changed annotations; return what it wrote and what it said."""
    coco = json.loads((scene / 'truth.json').read_text())
    change(coco)
    truth, target = tmp_path / 'truth.json', tmp_path / 'out.json'
    truth.write_text(json.dumps(coco))
    target.unlink(missing_ok=True)
    paths = [str(scene / picture) for picture in pictures]
    settings = ['--device', 'cpu', '--short-side', '120', '--score-threshold', '0.3']
    code = main(['predict', *paths, '--annotations', str(truth), '--json', str(target), *settings])
    err = capsys.readouterr().err
    assert 'Traceback' not in err
    assert code in (0, 1)
    return json.loads(target.read_text()) if target.exists() else None, err


def test_a_picture_of_another_folder_is_left_out(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, err = predict(scene, tmp_path, capsys, 'b/1.png')
    assert report is None
    assert 'none of the images is annotated' in err
    report, err = predict(scene, tmp_path, capsys, 'a/1.png', 'b/1.png')
    assert report['images'] == 1
    assert 'left out 1 images whose name is annotated, but in another folder' in err
    assert f'{scene / "b/1.png"} is not a/1.png' in err
    assert 'by their name alone' not in err


def test_a_match_by_name_alone_is_said(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = each('images', lambda i: i.update(file_name='1.png', id='first'))

    def change(coco: Coco) -> None:
        bare(coco)
        each('annotations', lambda i: i.update(image_id='first'))(coco)

    report, err = predict(scene, tmp_path, capsys, 'a/1.png', change=change)
    assert '1 images were found in the annotations by their name alone' in err
    assert {item['image_id'] for item in report['results']} == {'first'}
    assert report['mask_ap'] > 0.1
    report, err = predict(scene, tmp_path, capsys, 'a/1.png', 'b/1.png', change=change)
    assert report is None
    assert f'{scene / "a/1.png"} and {scene / "b/1.png"}: both may be' in err


def test_what_is_left_out_is_counted_and_named(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(coco: Coco) -> None:
        coco['annotations'][0]['segmentation'] = []
        coco['annotations'] += [{'image_id': 55}] * 4

    report, err = predict(scene, tmp_path, capsys, 'a/1.png', change=change)
    assert report is not None
    assert report['mask_ap'] is not None
    assert 'kept only the box of 1 annotations, as the mask is empty (annotations[0])' in err
    lines = [line for line in err.splitlines() if 'left out 4 annotations on images that' in line]
    assert len(lines) == 1
    assert lines[0].count('annotations[') == 3
    assert lines[0].endswith(', ...)')


def test_classes_of_one_side_alone_are_said(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco = json.loads((scene / 'truth.json').read_text())
    used = [item['category_id'] for item in coco['annotations']]
    renamed = max(set(used), key=used.count)

    def change(coco: Coco) -> None:
        coco['categories'][renamed]['name'] = CLASS_NAMES[renamed].upper()

    _, err = predict(scene, tmp_path, capsys, 'a/1.png', change=change)
    missed = f'{CLASS_NAMES[renamed].upper()} ({used.count(renamed)} objects)'
    assert f'no class of the model, so that all count as missed: {missed}' in err
    assert f'as the annotations do not have them: {CLASS_NAMES[renamed]}' in err


def test_what_is_said_is_a_line_a_kind() -> None:
    coco, said = clean(), []
    coco['images'].append({'id': 9, 'file_name': 'val/\x1b[31m\nred\ud800.png', 'height': 0})
    coco['annotations'] += [entry(9, 3, LAST)] * 5
    for item in coco['annotations'][:2]:
        left, top, width, height = item['bbox']
        item['bbox'] = [left, top, left + width, top + height]
    Annotations.from_coco(coco, 'truth', said.append)
    assert len(said) == 3
    assert all(line.isprintable() and line.startswith('truth: ') for line in said)
    assert any('left out 5 annotations on images that are not there' in line for line in said)
    assert any('the boxes of 2 annotations do not lie around their masks' in line for line in said)
    said.clear()
    Annotations.from_coco(clean(), 'truth', said.append)
    assert said == []
    coco = clean()
    each('annotations', lambda i: i.update(iscrowd=1))(coco)
    Annotations.from_coco(coco, 'truth', said.append)
    assert said == ['truth: all 4 annotations are crowds (iscrowd), so none counts']


def test_sizes_come_from_the_pictures_where_nobody_wrote_them(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = each('images', lambda i: i.update(height=None, width=0))
    report, err = predict(scene, tmp_path, capsys, 'a/1.png', change=change)
    assert report is not None
    assert 'took the size of 1 images from their pictures' in err
    assert report['mask_ap'] > 0.1
