# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Serialised images, read and written without rclpy, against rclpy."""

from __future__ import annotations

import array

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from segnode.live.cdr import (
    MessageHeader,
    is_plain,
    read_compressed,
    read_header,
    read_image,
    read_stamp,
    write_image,
)

pytestmark = pytest.mark.ros

# Of every length that pads differently.
TEXTS = ('', 'a', 'ab', 'abc', 'abcd', 'front/optisch_\xfc')


def ros_header(header: MessageHeader) -> Header:
    stamp = Time(sec=header.stamp.sec, nanosec=header.stamp.nanosec)
    return Header(stamp=stamp, frame_id=header.frame_id)


def image(frame_id: str, encoding: str, size: int = 24) -> Image:
    message = Image(
        header=Header(stamp=Time(sec=-3, nanosec=999_999_999), frame_id=frame_id),
        height=2,
        width=3,
        encoding=encoding,
        is_bigendian=1,
        step=size // 2,
    )
    message.data = array.array('B', range(size))
    return message


@pytest.mark.parametrize('frame_id', TEXTS)
@pytest.mark.parametrize('encoding', ['', 'mono8', 'rgb8', '16UC1', 'bayer_rggb8'])
def test_fields_are_those_that_rclpy_reads(frame_id: str, encoding: str) -> None:
    message = image(frame_id, encoding)
    data = bytes(serialize_message(message))
    found = read_image(data)
    assert ros_header(found.header) == message.header
    for name in ('height', 'width', 'encoding', 'step'):
        assert getattr(found, name) == getattr(message, name)
    assert found.is_bigendian is True
    assert bytes(found.data) == bytes(message.data)
    # A view, not a copy.
    assert found.data.obj is data


@pytest.mark.parametrize('frame_id', TEXTS)
@pytest.mark.parametrize('image_format', ['', 'jpeg', 'rgb8; jpeg compressed bgr8'])
def test_fields_of_a_compressed_image(frame_id: str, image_format: str) -> None:
    header = Header(stamp=Time(sec=3, nanosec=7), frame_id=frame_id)
    message = CompressedImage(header=header, format=image_format)
    message.data = array.array('B', range(11))
    data = bytes(serialize_message(message))
    found = read_compressed(data)
    assert ros_header(found.header) == ros_header(read_header(data)) == header
    assert found.format == image_format
    assert bytes(found.data) == bytes(range(11))
    # rclpy pads the end.
    whole = len(data) - len(data.rpartition(bytes(range(11)))[2])
    for end in range(whole):
        with pytest.raises(ValueError, match=r'expected|requires'):
            read_compressed(data[:end])


def test_the_other_byte_order() -> None:
    little = bytes(serialize_message(image('ab', 'rgb8')))
    assert little[:2] == b'\0\1'
    # Of every number of four bytes; texts and pixels stay. Offsets as they lie for these texts.
    big = bytearray(b'\0\0' + little[2:])
    for offset in (4, 8, 12, 20, 24, 28, 40, 44):
        big[offset : offset + 4] = big[offset : offset + 4][::-1]
    assert read_image(bytes(big)) == read_image(little)
    stamp_ns, offset, order = read_stamp(bytes(big))
    assert (stamp_ns, offset, order) == (-2_000_000_001, 20, '>')


def test_odd_headers_stay_as_they_are() -> None:
    message = image('a', 'rgb8')
    message.header.stamp = Time(sec=5, nanosec=4_000_000_000)
    data = bytes(serialize_message(message))
    assert ros_header(read_image(data).header) == message.header
    # A zero in the middle ends a text, as it does for rclpy.
    data = bytes(serialize_message(image('abcd', 'rgb8'))).replace(b'abcd', b'ab\0d')
    assert ros_header(read_image(data).header) == deserialize_message(data, Image).header
    not_unicode = data.replace(b'ab\0d', b'ab\xffd')
    found = read_image(not_unicode).header
    assert ros_header(found) == deserialize_message(not_unicode, Image).header


@pytest.mark.parametrize('kind', [Image, CompressedImage, Detection2DArray])
@pytest.mark.parametrize('frame_id', TEXTS)
def test_stamp_of_any_message_with_a_header(kind: type, frame_id: str) -> None:
    message = kind(header=Header(stamp=Time(sec=7, nanosec=5), frame_id=frame_id))
    stamp_ns, _, _ = read_stamp(bytes(serialize_message(message)))
    assert stamp_ns == 7_000_000_005


def test_what_is_not_whole_is_refused_wherever_it_ends() -> None:
    data = bytes(serialize_message(image('camera', 'rgb8')))
    for end in range(len(data)):
        with pytest.raises(ValueError, match=r'expected|requires'):
            read_image(data[:end])
    assert read_image(data + b'more').height == 2
    endless = bytearray(data)
    endless[12:16] = b'\xff\xff\xff\xff'
    with pytest.raises(ValueError, match='expected a text of 4294967295 bytes'):
        read_image(bytes(endless))


def test_other_encodings_are_left_to_rclpy() -> None:
    data = bytes(serialize_message(image('camera', 'rgb8')))
    assert is_plain(data)
    for encoding in (b'\0\2', b'\0\3', b'\0\7', b'\xff\xff', b''):
        other = encoding + data[2:]
        assert not is_plain(encoding)
        with pytest.raises(ValueError, match='expected plain CDR'):
            read_image(other if encoding else b'')


@pytest.mark.parametrize('frame_id', TEXTS)
@pytest.mark.parametrize(
    ('shape', 'dtype', 'encoding'),
    [
        ((2, 3), np.uint8, 'mono8'),
        ((4, 5), np.uint16, '16UC1'),
        ((3, 2, 3), np.uint8, 'bgr8'),
        ((1, 1), np.uint16, '16UC1'),
        ((0, 7), np.uint8, 'mono8'),
    ],
)
def test_rclpy_reads_what_is_written(
    frame_id: str, shape: tuple[int, ...], dtype: type, encoding: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    header = Header(stamp=Time(sec=-5, nanosec=17), frame_id=frame_id)
    data = write_image(header, pixels, encoding)
    message = deserialize_message(data, Image)
    assert message.header == header
    assert (message.height, message.width) == shape[:2]
    assert (message.encoding, message.is_bigendian) == (encoding, 0)
    assert message.step == pixels[:1].nbytes if len(pixels) else message.step > 0
    assert bytes(message.data) == pixels.tobytes()
    # Laid out as rclpy does it, which leaves the bytes between the fields to chance.
    assert len(data) == len(serialize_message(message))


def test_views_are_written_row_by_row() -> None:
    whole = np.arange(200, dtype=np.uint16).reshape(10, 20)
    view = whole[::2, 3:9]
    message = deserialize_message(write_image(Header(), view, '16UC1'), Image)
    assert bytes(message.data) == np.ascontiguousarray(view).tobytes()
