# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Annotations out of label images of a bag, which segnode itself wrote or somebody else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from test_convert import run

from segnode.bags.messages import image_message, instance_mask_message
from segnode.bags.record import IMAGE, Header
from segnode.bags.writer import BagWriter

TOPIC = '/camera/labels'


@pytest.fixture
def labels() -> list[Any]:
    """Return label images of 0 to 3 rectangles that do not touch."""
    images = []
    for count in range(4):
        image = np.zeros((60, 90), np.uint16)
        for k in range(count):
            image[10 : 20 + k, 10 + 25 * k : 25 + 25 * k] = k + 1
        images.append(image)
    return images


@pytest.fixture
def bag(tmp_path: Path, labels: list[Any]) -> Path:
    with BagWriter(tmp_path / 'bag') as writer:
        for k, image in enumerate(labels):
            message = instance_mask_message(Header(1000 + k, 'camera'), image)
            writer.write(TOPIC, IMAGE, message, 5000 + k)
    return tmp_path / 'bag'


def test_every_object_of_the_label_images(
    bag: Path, labels: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'instances.json'
    options = ['--labels', TOPIC, '--class', 'box', '--json', tmp_path / 's.json']
    for _ in range(2):  # An earlier result is replaced.
        assert run(bag, out, *options) == 0
    size = out.stat().st_size
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f'convert: frames=4 topics=1 bytes={size} left_out=0'
    coco = COCO(out)
    assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == ['box']
    images = sorted(coco.loadImgs(coco.getImgIds()), key=lambda item: item['stamp_ns'])
    assert [item['stamp_ns'] for item in images] == [1000, 1001, 1002, 1003]
    for item, expected in zip(images, labels, strict=True):
        masks = [coco.annToMask(found) for found in coco.loadAnns(coco.getAnnIds(item['id']))]
        assert len(masks) == expected.max()
        found = sum(masks, np.zeros_like(expected))
        np.testing.assert_array_equal(found, expected > 0)
    assert json.loads((tmp_path / 's.json').read_text())['annotations'] == 6


def test_what_is_no_label_image_is_counted(bag: Path, tmp_path: Path, labels: list[Any]) -> None:
    with BagWriter(bag) as writer:
        for k, encoding in enumerate(('16UC1', '32FC1')):
            message = image_message(Header(1000 + k, 'camera'), labels[k], encoding)
            writer.write(TOPIC, IMAGE, message, k)
    out = tmp_path / 'out.json'
    assert run(bag, out, '--labels', TOPIC, '--json', tmp_path / 's.json') == 1
    summary = json.loads((tmp_path / 's.json').read_text())
    assert summary['frames'] == sum(summary['left_out'].values()) == 1


@pytest.mark.parametrize(
    ('output', 'topic', 'code'),
    [('mine.txt', TOPIC, 2), ('bag/bag.mcap', TOPIC, 2), ('new.json', '/nowhere', 1)],
)
def test_what_cannot_be_done_is_one_line(
    output: str,
    topic: str,
    code: int,
    bag: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / 'mine.txt').write_text('mine')
    before = (bag / 'bag.mcap').read_bytes()
    assert run(bag, tmp_path / output, '--labels', topic) == code
    (line,) = [x for x in capsys.readouterr().err.splitlines() if 'error: ' in x]
    assert 'expected' in line
    assert (tmp_path / 'mine.txt').read_text() == 'mine'
    assert (bag / 'bag.mcap').read_bytes() == before
    assert not (tmp_path / 'new.json').exists()
