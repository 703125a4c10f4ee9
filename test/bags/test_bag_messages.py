# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Messages made without ROS: their types, and what Foxglove gets to draw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seeds import fresh_seeds

from segnode.bags import messages
from segnode.bags.message_types import DETECTIONS, IMAGE_ANNOTATIONS, LABEL_INFO, typestore
from segnode.bags.record import COMPRESSED_IMAGE, IMAGE, Header
from segnode.engine import Detections
from segnode.live.overlay import instance_colours

ROOT = Path(__file__).resolve().parents[2]
HEADER = Header(1_700_000_000_123_456_789, 'front/optical')
CLASS_NAMES = ('cone', 'ball', 'Kübel')


def random_detections(seed: int, count: int) -> Detections:
    random = np.random.default_rng(seed)
    corners = np.sort(random.uniform(0, 500, (count, 2, 2)), axis=1)
    corners[:, 1] += 1  # None is empty.
    return Detections(
        boxes_xyxy=corners.reshape(count, 4).astype(np.float32),
        scores=np.sort(random.uniform(0, 1, count))[::-1].astype(np.float32),
        class_ids=random.integers(0, 3, count),
        mask_areas=random.integers(0, 1000, count),
    )


def read(message: bytes, type_name: str) -> Any:
    return typestore().deserialize_cdr(message, type_name)


def test_types_of_vision_msgs_are_the_published_ones() -> None:
    path = ROOT / 'resource' / 'environment' / 'vision_msgs.json'
    published = json.loads(path.read_text())['messages']
    known = [name for name in typestore().types if name.startswith('vision_msgs/')]
    assert {DETECTIONS, LABEL_INFO} <= set(known)
    for name in known:
        expected = published[name.rpartition('/')[2]]['type_hash']
        assert typestore().hash_rihs01(name) == expected


@pytest.mark.parametrize('stamp_ns', [0, 1, -1, -(2**31) * 10**9, 2**31 * 10**9 + 5])
def test_any_stamp_that_a_header_can_hold_comes_back(stamp_ns: int) -> None:
    header = Header(stamp_ns, 'x')
    stamp = read(messages.compressed_message(header, 'jpeg', b''), COMPRESSED_IMAGE).header.stamp
    assert stamp.sec * 10**9 + stamp.nanosec == stamp_ns


@pytest.mark.parametrize(
    ('dtype', 'shape', 'encoding'),
    [
        (np.uint8, (3, 5), 'mono8'),
        (np.uint8, (7, 4, 3), 'bgr8'),
        (np.uint16, (2, 3), '16UC1'),
        (np.dtype('>u2'), (2, 3), '16UC1'),
    ],
)
def test_rows_of_an_image_are_packed_and_little_endian(
    dtype: Any, shape: tuple[int, ...], encoding: str
) -> None:
    whole = np.arange(4 * np.prod(shape)).reshape(shape[0] * 2, shape[1] * 2, *shape[2:])
    pixels = whole.astype(dtype)[::2, 1::2]
    found = read(messages.image_message(HEADER, pixels, encoding), IMAGE)
    assert (found.height, found.width, found.encoding) == (*shape[:2], encoding)
    assert not found.is_bigendian
    assert found.step * found.height == len(found.data)
    little = found.data.view('<u2' if encoding == '16UC1' else np.uint8)
    np.testing.assert_array_equal(little.reshape(shape), pixels)


@pytest.mark.parametrize('seed', fresh_seeds(3))
@pytest.mark.parametrize('count', [0, 1, 40])
def test_foxglove_gets_boxes_and_texts_in_the_colours_of_the_overlay(
    seed: int, count: int
) -> None:
    detections = random_detections(seed, count)
    found = read(
        messages.image_annotations_message(HEADER, detections, CLASS_NAMES), IMAGE_ANNOTATIONS
    )
    assert len(found.circles) == 0
    assert len(found.points) == len(found.texts) == count
    colours = instance_colours(detections.class_ids)[:, ::-1] / 255
    for k, (box, text) in enumerate(zip(found.points, found.texts, strict=True)):
        for stamp in (box.timestamp, text.timestamp):
            assert stamp.sec * 10**9 + stamp.nanosec == HEADER.stamp_ns
        assert box.type == box.LINE_LOOP
        corners = np.array([(point.x, point.y) for point in box.points])
        assert len(corners) == 4
        x0, y0, x1, y1 = detections.boxes_xyxy[k]
        assert {tuple(corner) for corner in corners} == {(x0, y0), (x1, y0), (x1, y1), (x0, y1)}
        # Along the outline one coordinate changes at a time.
        assert ((corners != np.roll(corners, 1, axis=0)).sum(axis=1) == 1).all()
        for colour in (box.outline_color, text.background_color):
            assert (colour.r, colour.g, colour.b, colour.a) == (*colours[k], 1)
        assert box.fill_color.a == 0
        name, _, score = text.text.rpartition(' ')
        assert name == CLASS_NAMES[detections.class_ids[k]]
        assert float(score) == pytest.approx(detections.scores[k], abs=0.0051)
        ink = (text.text_color.r, text.text_color.g, text.text_color.b)
        assert np.abs(np.array(ink) - colours[k]).max() > 0.4
        assert (text.position.x, text.position.y) == (x0, y0)
