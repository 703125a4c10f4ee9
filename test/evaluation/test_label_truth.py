# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Label images in a bag as COCO annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from annotated_runs import H, W, entry, frame_row
from pycocotools import mask as coco_mask
from seeds import fresh_seeds

from segnode.bags.bag import open_bag
from segnode.bags.message_types import DETECTIONS
from segnode.bags.messages import compressed_message, detections_message, image_message
from segnode.bags.record import COMPRESSED_IMAGE, IMAGE, Header
from segnode.bags.writer import BagWriter
from segnode.engine import Detections
from segnode.errors import AnnotationError, BagError
from segnode.evaluation.annotations import Annotations
from segnode.evaluation.bag_truth import BagTruth
from segnode.evaluation.label_truth import annotations_of_labels
from segnode.evaluation.metrics import instance_rles
from segnode.evaluation.scores import score

TOPIC = '/segnode/instance_mask'
BESIDE = '/segnode/detections'
NAMES = ['cone', 'ball']


def random_labels(rng: np.random.Generator, count: int) -> npt.NDArray[np.uint16]:
    labels = np.zeros((H, W), np.uint16)
    for value in range(1, count + 1):
        x, y, w, h = (int(side) for side in rng.integers([0, 0, 1, 1], [W - 30, H - 20, 30, 20]))
        labels[y : y + h, x : x + w] = value
    return labels


def detections(class_ids: list[int]) -> Detections:
    count = len(class_ids)
    return Detections(
        boxes_xyxy=np.zeros((count, 4), np.float32),
        scores=np.full(count, 0.5, np.float32),
        class_ids=np.array(class_ids, np.int64),
        mask_areas=np.zeros(count, np.int64),
    )


def header(frame: int) -> Header:
    return Header(frame_row(frame).stamp_ns, 'camera')


def dataset_of(folder: Path, topic: str = TOPIC, **more: Any) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    with open_bag(folder, said.append) as bag:
        dataset = annotations_of_labels(bag, topic, said.append, **more)
    json.dumps(dataset, allow_nan=False)
    return dataset, said


@pytest.mark.parametrize('seed', fresh_seeds(3))
def test_labels_and_classes_come_back(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    labels = [random_labels(rng, int(rng.integers(0, 6))) for _ in range(4)]
    labels[0][:2, :3] = 1  # something is there
    classes = [rng.integers(0, 2, int(image.max())).tolist() for image in labels]
    with BagWriter(tmp_path / 'bag') as bag:
        for frame, (image, ids) in enumerate(zip(labels, classes, strict=True)):
            log_ns = frame_row(frame).log_ns
            message = detections_message(header(frame), detections(ids), NAMES)
            if frame % 2:  # whichever comes first
                bag.write(BESIDE, DETECTIONS, message, log_ns)
            bag.write(TOPIC, IMAGE, image_message(header(frame), image, '16UC1'), log_ns + 1)
            if not frame % 2:
                bag.write(BESIDE, DETECTIONS, message, log_ns + 2)
    dataset, said = dataset_of(tmp_path / 'bag')
    assert said == []
    assert [image['stamp_ns'] for image in dataset['images']] == [
        frame_row(frame).stamp_ns for frame in range(4)
    ]
    names = {category['id']: category['name'] for category in dataset['categories']}
    for frame, image in enumerate(labels):
        here = [
            item
            for item in dataset['annotations']
            if item['image_id'] == dataset['images'][frame]['id']
        ]
        values = [int(value) for value in np.unique(image) if value]
        assert len(here) == len(values)
        for item, value in zip(here, values, strict=True):
            mask = image == value
            assert np.array_equal(coco_mask.decode(item['segmentation']) > 0, mask)
            ys, xs = np.nonzero(mask)
            box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert (item['bbox'], item['area']) == (box, mask.sum())
            assert names[item['category_id']] == NAMES[classes[frame][value - 1]]
    # Nothing to remark, and each image finds its frame.
    truth = BagTruth.from_coco(dataset, 'labels', pytest.fail)
    matching = truth.match([frame_row(frame) for frame in range(4)], 1)
    assert matching.image_ids == {frame: frame + 1 for frame in range(4)}


def test_one_class_where_there_are_no_detections(tmp_path: Path) -> None:
    labels = np.zeros((H, W), np.uint8)
    labels[5:25, 10:40] = 200
    png = cv2.imencode('.png', labels)[1].tobytes()
    message = compressed_message(Header(0, ''), 'mono8; png compressed ', png)
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write('/labels/compressed', COMPRESSED_IMAGE, message, 17)
    dataset, said = dataset_of(tmp_path / 'bag', '/labels/compressed', class_name='thing')
    assert 'all are of one class' in said[0]
    assert [image['stamp_ns'] for image in dataset['images']] == [17]  # log time
    annotations = Annotations.from_coco(dataset, report=pytest.fail)
    scores = score(annotations, [entry(3, (10, 5, 30, 20), name='thing')], {3: 1}, ['thing'])
    assert scores['mask']['ap'] == pytest.approx(1.0)


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = random_labels(rng, 3)
    labels[:3, :3] = 3
    with BagWriter(tmp_path / 'bag') as bag:
        for frame in range(5):
            image = image_message(header(frame), labels, '16UC1')
            bag.write(TOPIC, IMAGE, image[:40] if frame == 4 else image, frame)
        for frame, ids in ((0, [0, 1, 0]), (1, [0, 1])):
            message = detections_message(header(frame), detections(ids), NAMES)
            bag.write(BESIDE, DETECTIONS, message, 10 + frame)
        bag.write(BESIDE, DETECTIONS, b'\x00\x01\x00\x00' + b'\xff' * 30, 20)
    dataset, said = dataset_of(tmp_path / 'bag')
    assert [image['stamp_ns'] for image in dataset['images']] == [header(0).stamp_ns]
    text = '\n'.join(said)
    assert 'left out 1 messages that cannot be read' in text
    assert 'left out 2 label images, as there are no detections of their stamp' in text
    assert 'left out 1 label images, as they have more instances' in text
    assert len(said) == 4


def test_nothing_to_take(tmp_path: Path) -> None:
    with BagWriter(tmp_path / 'bag') as bag:
        colours = image_message(header(0), np.zeros((H, W, 3), np.uint8), 'bgr8')
        bag.write('/camera/image', IMAGE, colours, 0)
    with pytest.raises(BagError, match=r'found the image topics /camera/image'):
        dataset_of(tmp_path / 'bag')
    with pytest.raises(AnnotationError, match='found none to use'):
        dataset_of(tmp_path / 'bag', '/camera/image')


def test_many_instances_are_as_quick_as_few() -> None:
    # One pass over the pixels: mask after mask, this image would take minutes.
    labels = np.arange(9000, dtype=np.uint16).reshape(90, 100).repeat(10, axis=0)
    rles = instance_rles(labels)
    assert len(rles) == 8999
    expected = [[row, 44] for row in range(10, 20)]
    assert np.argwhere(coco_mask.decode(rles[144])).tolist() == expected
