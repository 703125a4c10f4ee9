# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Images and labels out of a bag's messages, against ROS's own serialisation and the node."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from made_bags import (
    COMPRESSED,
    IMAGE,
    ROS1,
    ROS2,
    TEXT,
    compressed_bytes,
    image_bytes,
    serialised,
    text_bytes,
)
from seeds import fresh_seeds

from segnode.bags.images import read_header, read_image, read_labels
from segnode.bags.record import Header, Record, Topic
from segnode.engine.host_buffers import FrameMemory
from segnode.errors import ImageError
from segnode.live.grey_values import GreyValues

SEED = fresh_seeds(1)[0]
STAMP_NS = 1_700_000_000_123_456_789

ENCODINGS = {
    'rgb8': (3, np.uint8),
    'bgr8': (3, np.uint8),
    'bgra8': (4, np.uint8),
    'mono8': (1, np.uint8),
    'mono16': (1, np.uint16),
    'yuv422': (2, np.uint8),
    'bayer_rggb8': (1, np.uint8),
}


def record(type_name: str, data: bytes, encoding: str = 'cdr') -> Record:
    return Record(Topic('/camera', type_name, encoding), 5, data)


def random_pixels(encoding: str, rng: np.random.Generator) -> npt.NDArray[np.generic]:
    channels, dtype = ENCODINGS[encoding]
    return rng.integers(0, np.iinfo(dtype).max, (6, 8, channels), dtype)


def big_endian(message: bytes) -> bytes:
    """The same message in the other order of bytes, by rosbags."""
    parsed = ROS2.deserialize_cdr(message, IMAGE)
    return bytes(ROS2.serialize_cdr(parsed, IMAGE, little_endian=False))


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_an_image_is_the_same_however_it_was_serialised(encoding: str) -> None:
    pixels = random_pixels(encoding, np.random.default_rng(SEED))
    cdr = image_bytes(ROS2, pixels, encoding, STAMP_NS)
    ros1 = image_bytes(ROS1, pixels, encoding, STAMP_NS)
    records = [
        record(IMAGE, cdr),
        record(IMAGE, big_endian(cdr)),
        record(IMAGE, ros1, 'ros1'),
    ]
    for each in records:
        header, image = read_image(each)
        assert header == read_header(each) == Header(STAMP_NS, 'camera')
        assert (image.height, image.width) == (6, 8)
        first = read_image(records[0])[1]
        assert image.order == first.order
        np.testing.assert_array_equal(image.pixels, first.pixels)
    if encoding in ('rgb8', 'bgr8'):
        np.testing.assert_array_equal(first.pixels, pixels)
        assert first.order == encoding[:3]


@pytest.mark.parametrize('store', [ROS1, ROS2], ids=['ros1', 'ros2'])
def test_a_compressed_image(store: object) -> None:
    pixels = np.random.default_rng(SEED).integers(0, 255, (6, 8, 3), np.uint8)
    encoding = 'ros1' if store is ROS1 else 'cdr'
    for image_format, suffix in (('bgr8; png compressed bgr8', '.png'), ('jpeg', '.jpg')):
        file = cv2.imencode(suffix, pixels)[1].tobytes()
        each = record(COMPRESSED, compressed_bytes(store, image_format, file, 7), encoding)
        header, image = read_image(each)
        assert header == read_header(each) == Header(7, 'camera')
        decoded = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(image.pixels, decoded)


@pytest.mark.ros
@pytest.mark.parametrize('encoding', [*ENCODINGS, 'png', 'jpeg'])
def test_the_node_has_the_same_image(encoding: str) -> None:
    pytest.importorskip('rclpy', reason='needs ROS 2')
    from segnode.ros.image_input import ImageInput

    class Node:
        """As much of a node as an input needs to decode."""

        _parameter_overrides: dict[str, object] = {}  # noqa: RUF012

        def resolve_topic_name(self, name: str) -> str:
            return name

    rng = np.random.default_rng(SEED)
    if encoding in ENCODINGS:
        data = image_bytes(ROS2, random_pixels(encoding, rng), encoding, STAMP_NS)
        transport, type_name = 'raw', IMAGE
    else:
        pixels = rng.integers(0, 255, (6, 8, 3), np.uint8)
        suffix = '.png' if encoding == 'png' else '.jpg'
        file = cv2.imencode(suffix, pixels)[1].tobytes()
        data = compressed_bytes(ROS2, f'rgb8; {encoding} compressed bgr8', file, STAMP_NS)
        transport, type_name = 'compressed', COMPRESSED
    node_input = ImageInput(Node(), None, 'camera', transport, 'reliable', lambda _: None)
    ros_header, of_node = node_input.decode(data)
    header, of_bag = read_image(record(type_name, data))
    stamp_ns = ros_header.stamp.sec * 10**9 + ros_header.stamp.nanosec
    assert header == Header(stamp_ns, ros_header.frame_id) == Header(STAMP_NS, 'camera')
    assert of_bag.order == of_node.order
    np.testing.assert_array_equal(of_bag.pixels, of_node.pixels)
    # Both decode into what an engine lends them.
    memory = FrameMemory(pinned=False)
    lending = (node_input._node, None, 'camera', transport, 'reliable', lambda _: None, None)
    lent = [ImageInput(*lending, memory.lend).decode(data)[1]]
    lent.append(read_image(record(type_name, data), lend=memory.lend)[1])
    for image in lent:
        assert memory.source(image.pixels) is not None
        np.testing.assert_array_equal(image.pixels, of_node.pixels)


def test_grey_values_are_scaled_as_the_camera_needs_it() -> None:
    pixels = np.full((4, 4, 1), 1023, np.uint16)
    each = record(IMAGE, image_bytes(ROS2, pixels, 'mono16'))
    assert read_image(each)[1].pixels.max() == 3
    assert read_image(each, GreyValues(lambda: 10))[1].pixels.min() == 255


@pytest.mark.parametrize('encoding', ['cdr', 'ros1'])
def test_a_message_that_is_cut_anywhere_is_an_image_error(encoding: str) -> None:
    store = ROS1 if encoding == 'ros1' else ROS2
    image = image_bytes(store, np.zeros((2, 3, 3), np.uint8))
    file = cv2.imencode('.png', np.zeros((2, 3, 3), np.uint8))[1].tobytes()
    compressed = compressed_bytes(store, 'png', file)
    # The last bytes of CDR may be padding.
    whole = compressed.index(file) + len(file)
    for type_name, data in ((IMAGE, image[:62]), (COMPRESSED, compressed[:whole])):
        for end in range(len(data)):
            with pytest.raises(ImageError):
                read_image(record(type_name, data[:end], encoding))
    with pytest.raises(ImageError, match='expected sensor_msgs/msg/Image'):
        read_header(record(IMAGE, image[:9], encoding))


def test_junk_is_an_image_error() -> None:
    rng = np.random.default_rng(SEED)
    for type_name in (IMAGE, COMPRESSED):
        for encoding in ('cdr', 'ros1'):
            for _ in range(100):
                data = b'\0\1\0\0' + rng.bytes(int(rng.integers(0, 200)))
                with pytest.raises(ImageError) as caught:
                    read_image(record(type_name, data, encoding))
                assert '\n' not in str(caught.value)
    for each in (record(TEXT, text_bytes(ROS2, 'a')), record(IMAGE, b'', 'protobuf')):
        for read in (read_header, read_image, read_labels):
            with pytest.raises(ImageError, match='expected an image message, found'):
                read(each)


LABELS = {'16UC1': np.uint16, 'mono16': np.uint16, '8UC1': np.uint8, 'mono8': np.uint8}


@pytest.mark.parametrize('encoding', LABELS)
@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize('is_bigendian', [False, True])
def test_labels_come_back_as_they_are(encoding: str, padding: int, is_bigendian: bool) -> None:
    rng = np.random.default_rng(SEED)
    dtype = np.dtype(LABELS[encoding])
    labels = rng.integers(0, np.iinfo(dtype).max, (5, 7), dtype, endpoint=True)
    rows = labels.astype(dtype.newbyteorder('>' if is_bigendian else '<')).view(np.uint8)
    rows = np.pad(rows.reshape(5, -1), ((0, 0), (0, padding)), constant_values=9)
    message = ROS2.deserialize_cdr(image_bytes(ROS2, rows, encoding, STAMP_NS), IMAGE)
    message.width = 7
    message.is_bigendian = int(is_bigendian)
    header, found = read_labels(record(IMAGE, serialised(ROS2, message, IMAGE)))
    assert header == Header(STAMP_NS, 'camera')
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, labels)
    message.height = 6
    with pytest.raises(ImageError, match='expected 6 rows of 7'):
        read_labels(record(IMAGE, serialised(ROS2, message, IMAGE)))


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_labels_as_png(dtype: type) -> None:
    rng = np.random.default_rng(SEED)
    labels = rng.integers(0, np.iinfo(dtype).max, (5, 7), dtype, endpoint=True)
    file = cv2.imencode('.png', labels)[1].tobytes()
    data = compressed_bytes(ROS2, '16UC1; png compressed ', file, 9)
    header, found = read_labels(record(COMPRESSED, data))
    assert header == Header(9, 'camera')
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize(
    ('file', 'says'),
    [
        (b'', 'begin with nothing'),
        (cv2.imencode('.jpg', np.zeros((4, 4), np.uint8))[1].tobytes(), 'JPEG changes values'),
        (cv2.imencode('.png', np.zeros((4, 4, 3), np.uint8))[1].tobytes(), 'of one channel'),
        (cv2.imencode('.png', np.zeros((4, 4), np.uint8))[1].tobytes()[:-12], 'whole PNG'),
        (b'\x89PNG' + bytes(100), 'expected'),
    ],
)
def test_what_holds_no_labels(file: bytes, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        read_labels(record(COMPRESSED, compressed_bytes(ROS2, 'png', file)))


def test_colours_and_huge_sizes_are_no_labels() -> None:
    colours = image_bytes(ROS2, np.zeros((4, 4, 3), np.uint8), 'rgb8')
    with pytest.raises(ImageError, match=r"labels of 16UC1, mono16, 8UC1, mono8, .* 'rgb8'"):
        read_labels(record(IMAGE, colours))
    message = ROS2.deserialize_cdr(colours, IMAGE)
    message.encoding, message.height, message.width = 'mono8', 2**32 - 1, 2**32 - 1
    with pytest.raises(ImageError, match='pixels'):
        read_labels(record(IMAGE, serialised(ROS2, message, IMAGE)))
