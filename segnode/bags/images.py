# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The header, the picture or the labels in a message of a bag."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from segnode.bags.record import COMPRESSED_IMAGE, Header, Record
from segnode.bags.topics import shown
from segnode.errors import ImageError
from segnode.image import Image, Lend, check_size
from segnode.live.cdr import (
    CompressedFields,
    ImageFields,
    MessageHeader,
    Serialisation,
    read_compressed,
)
from segnode.live.cdr import read_header as read_message_header
from segnode.live.cdr import read_image as read_message
from segnode.live.grey_values import GreyValues
from segnode.live.image_message import decode_compressed, decode_image, file_size_hw

_LABEL_TYPES = {'16UC1': np.uint16, 'mono16': np.uint16, '8UC1': np.uint8, 'mono8': np.uint8}


def read_header(record: Record) -> Header:
    """Return the header of an image message.

    Raises:
        ImageError: it is no image message, or not whole.
    """
    serialisation = _serialisation(record)
    try:
        return _header(read_message_header(record.data, serialisation))
    except ValueError as error:
        raise ImageError(f'expected {record.topic.type_name}: {error}') from None


def read_image(
    record: Record, grey: GreyValues | None = None, lend: Lend | None = None
) -> tuple[Header, Image]:
    """Return header and picture of a sensor_msgs/Image or CompressedImage.

    Args:
        record: of an image topic, in CDR or ROS 1's serialisation.
        grey: scales values of 16 bits; None takes them as they are.
        lend: lends the memory that the picture is decoded into; None takes what comes.

    Raises:
        ImageError: the message or the picture in it cannot be decoded.
    """
    message = _fields(record)
    if isinstance(message, CompressedFields):
        image = decode_compressed(format=message.format, data=message.data, grey=grey, lend=lend)
    else:
        image = decode_image(
            height=message.height,
            width=message.width,
            encoding=message.encoding,
            is_bigendian=message.is_bigendian,
            step=message.step,
            data=message.data,
            grey=grey,
            lend=lend,
        )
    return _header(message.header), image


def read_labels(record: Record) -> tuple[Header, npt.NDArray[np.uint16]]:
    """Return header and values of a label image.

    Args:
        record: a sensor_msgs/Image of 16UC1, mono16, 8UC1 or mono8, or a CompressedImage that
            holds a PNG of one channel.

    Returns:
        The header; (H, W) uint16, the values as they are.

    Raises:
        ImageError: it cannot be decoded, or has colours.
    """
    message = _fields(record)
    if isinstance(message, CompressedFields):
        return _header(message.header), _png_labels(bytes(message.data))
    height, width, step = message.height, message.width, message.step
    dtype = _LABEL_TYPES.get(message.encoding)
    if dtype is None:
        raise ImageError(
            f'expected labels of {", ".join(_LABEL_TYPES)}, found encoding '
            f'{shown(message.encoding)!r}'
        )
    check_size(height, width)
    values_dtype = np.dtype(dtype).newbyteorder('>' if message.is_bigendian else '<')
    if step < width * values_dtype.itemsize or len(message.data) < height * step:
        raise ImageError(
            f'expected {height} rows of {width} values of {message.encoding}, found '
            f'{len(message.data)} bytes in steps of {step}; correct the publisher of the labels'
        )
    rows = np.frombuffer(message.data, np.uint8, height * step).reshape(height, step)
    values = np.ascontiguousarray(rows[:, : width * values_dtype.itemsize]).view(values_dtype)
    return _header(message.header), values.astype(np.uint16)


def _png_labels(data: bytes) -> npt.NDArray[np.uint16]:
    if not data.startswith(b'\x89PNG'):
        raise ImageError(
            f'expected labels as PNG, found data that begin with {data[:8].hex() or "nothing"}: '
            'JPEG changes values'
        )
    size_hw = file_size_hw(data, 'png')
    check_size(*size_hw)
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        values = None
    if values is None or values.shape[:2] != size_hw:
        raise ImageError(f'expected a PNG of labels, found {len(data)} bytes of damaged data')
    if values.ndim != 2:
        raise ImageError(f'expected labels of one channel, found {values.shape[2]} channels')
    return values.astype(np.uint16)


def _header(header: MessageHeader) -> Header:
    return Header(header.stamp.sec * 1_000_000_000 + header.stamp.nanosec, header.frame_id)


def _fields(record: Record) -> ImageFields | CompressedFields:
    """Return the fields of an image message.

    Raises:
        ImageError: it is of another type, or not whole.
    """
    serialisation = _serialisation(record)
    read = read_compressed if record.topic.type_name == COMPRESSED_IMAGE else read_message
    try:
        return read(record.data, serialisation)
    except ValueError as error:
        raise ImageError(f'expected {record.topic.type_name}: {error}') from None


def _serialisation(record: Record) -> Serialisation:
    topic = record.topic
    if not topic.is_image:
        raise ImageError(
            f'expected an image message, found {shown(topic.type_name)} in {shown(topic.encoding)}'
        )
    return 'ros1' if topic.encoding == 'ros1' else 'cdr'
