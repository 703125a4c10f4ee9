# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Results as messages, after a trip over the wire format."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from ros_harness import label_image, values
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from segnode.engine import Detections
from segnode.ros import messages

pytestmark = [pytest.mark.ros, pytest.mark.smoke]

HEADER = Header(stamp=Time(sec=12, nanosec=345), frame_id='front/optical')
CLASS_NAMES = ('cone', 'ball', 'Kübel')


def _detections(count: int) -> Detections:
    random = np.random.default_rng(count)
    corners = np.sort(random.uniform(0, 500, (count, 2, 2)), axis=1)
    return Detections(
        boxes_xyxy=corners.reshape(count, 4).astype(np.float32),
        scores=np.sort(random.uniform(0, 1, count))[::-1].astype(np.float32),
        class_ids=random.integers(0, 3, count),
        mask_areas=random.integers(0, 1000, count),
    )


def _labels(height: int, width: int, highest: int) -> npt.NDArray[np.uint16]:
    return np.random.default_rng(height).integers(0, highest + 1, (height, width), np.uint16)


def _over_the_wire(message: Any) -> Any:
    """Return what a subscriber gets; whole images are serialised already."""
    if isinstance(message, bytes):
        return deserialize_message(message, Image)
    return deserialize_message(serialize_message(message), type(message))


@pytest.mark.parametrize('count', [0, 1, 100])
@pytest.mark.parametrize('class_id_format', ['name', 'index'])
def test_detections(count: int, class_id_format: Any) -> None:
    detections = _detections(count)
    message = _over_the_wire(
        messages.detections_message(HEADER, detections, CLASS_NAMES, class_id_format)
    )
    assert message.header == HEADER
    assert [d.id for d in message.detections] == [str(k) for k in range(1, count + 1)]
    for k, detection in enumerate(message.detections):
        assert detection.header == HEADER
        box, (result,) = detection.bbox, detection.results
        centre, size = box.center.position, np.array([box.size_x, box.size_y])
        assert box.center.theta == 0
        found = np.concatenate([[centre.x, centre.y] - size / 2, [centre.x, centre.y] + size / 2])
        np.testing.assert_allclose(found, detections.boxes_xyxy[k], atol=1e-4)
        assert result.hypothesis.score == pytest.approx(detections.scores[k])
        class_id = int(detections.class_ids[k])
        expected = CLASS_NAMES[class_id] if class_id_format == 'name' else str(class_id)
        assert result.hypothesis.class_id == expected


@pytest.mark.parametrize('shape', [(1, 1), (7, 13), (480, 640)])
def test_instance_mask(shape: tuple[int, int]) -> None:
    labels = _labels(*shape, 1000)
    message = _over_the_wire(messages.instance_mask_message(HEADER, labels))
    assert message.header == HEADER
    assert (message.height, message.width) == shape
    assert (message.encoding, message.step) == ('16UC1', shape[1] * 2)
    np.testing.assert_array_equal(label_image(message), labels)


def test_instance_mask_of_a_view_is_packed() -> None:
    labels = _labels(20, 30, 9)[::2, 3:17]
    message = _over_the_wire(messages.instance_mask_message(HEADER, labels))
    assert (message.height, message.width, len(message.data)) == (10, 14, 280)
    np.testing.assert_array_equal(label_image(message), labels)


def test_instance_mask_png_is_lossless_and_says_what_it_is() -> None:
    labels = _labels(48, 64, 65535)
    message = _over_the_wire(messages.instance_mask_png(HEADER, labels))
    assert message.header == HEADER
    assert message.format == '16UC1; png compressed '
    with PIL.Image.open(io.BytesIO(bytes(message.data))) as image:
        assert image.format == 'PNG'
        np.testing.assert_array_equal(np.asarray(image).astype(np.uint16), labels)


@pytest.mark.parametrize(
    ('classes', 'encoding', 'unlabeled'),
    [(1, 'mono8', 255), (254, 'mono8', 255), (255, '16UC1', 65535), (65535, '16UC1', 65535)],
)
def test_class_mask_holds_what_label_info_names(
    classes: int, encoding: str, unlabeled: int
) -> None:
    labels = _labels(48, 64, 3)
    class_ids = np.array([classes - 1, 0, classes // 2])
    message = _over_the_wire(messages.class_mask_message(HEADER, labels, class_ids, classes))
    assert message.encoding == encoding
    dtype = np.dtype('<u1' if encoding == 'mono8' else '<u2')
    assert message.step == 64 * dtype.itemsize
    pixels = np.frombuffer(bytes(message.data), dtype).reshape(48, 64)
    for k, value in enumerate((unlabeled, *class_ids)):
        assert (pixels[labels == k] == value).all()
    empty = _over_the_wire(messages.class_mask_message(HEADER, labels * 0, class_ids[:0], classes))
    assert set(np.frombuffer(bytes(empty.data), dtype)) == {unlabeled}


def test_confidence_mask() -> None:
    labels = _labels(48, 64, 3)
    scores = np.array([1.0, 0.5, 0.05], np.float32)
    message = _over_the_wire(messages.confidence_mask_message(HEADER, labels, scores))
    assert (message.encoding, message.step) == ('mono8', 64)
    pixels = np.frombuffer(bytes(message.data), np.uint8).reshape(48, 64)
    for k, value in enumerate((0, 255, 128, 13)):
        assert (pixels[labels == k] == value).all()
    empty = _over_the_wire(messages.confidence_mask_message(HEADER, labels * 0, scores[:0]))
    assert set(empty.data) == {0}


def test_overlay_as_image_and_jpeg() -> None:
    columns, rows = np.meshgrid(np.arange(64), np.arange(48))
    overlay = np.stack([columns * 3, rows * 4, columns + rows], axis=-1).astype(np.uint8)
    message = _over_the_wire(messages.overlay_message(HEADER, overlay))
    assert (message.encoding, message.step) == ('bgr8', 64 * 3)
    assert bytes(message.data) == overlay.tobytes()
    jpeg = _over_the_wire(messages.overlay_jpeg(HEADER, overlay))
    assert jpeg.header == HEADER
    assert jpeg.format == 'bgr8; jpeg compressed bgr8'
    with PIL.Image.open(io.BytesIO(bytes(jpeg.data))) as image:
        assert image.format == 'JPEG'
        difference = np.asarray(image).astype(int)[..., ::-1] - overlay
    assert np.abs(difference).mean() < 3


def test_label_info() -> None:
    message = _over_the_wire(messages.label_info_message(HEADER, CLASS_NAMES, 0.25))
    assert [(c.class_id, c.class_name) for c in message.class_map] == list(enumerate(CLASS_NAMES))
    assert message.threshold == 0.25


def test_stage_times() -> None:
    message = _over_the_wire(
        messages.stage_times_message(
            HEADER, 'segnode', {'decode': 1.5, 'paste': 2.25}, (480, 640), {'kept': 3}
        )
    )
    assert message.header == HEADER
    (status,) = message.status
    assert values(status) == {
        'decode_ms': '1.500',
        'paste_ms': '2.250',
        'total_ms': '3.750',
        'network_height': '480',
        'network_width': '640',
        'kept': '3',
    }
