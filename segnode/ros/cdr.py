# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Serialised images without copies: rclpy would copy the pixels twice on either way.

A serialised message is CDR, the encoding of every ROS middleware (OMG DDS-XTypes 1.3, 7.4.3, and
DDSI-RTPS 2.5, 10): four bytes that name the encoding, then the fields one after the other. A
number is aligned to its size, counted behind those four; a text has its length with the zero at
its end, an array its length, in front. What is not plain CDR is left to rclpy.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from std_msgs.msg import Header

# Plain CDR, by its first two bytes: how struct calls the order of the bytes.
_BYTE_ORDERS = {b'\0\0': '>', b'\0\1': '<'}
_START = 4
_OWN_ENCODING = b'\0\1\0\0' if sys.byteorder == 'little' else b'\0\0\0\0'


@dataclass(frozen=True, slots=True)
class ImageFields:
    """The fields of a sensor_msgs/Image; ``data`` is a view of the message's bytes."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: bool
    step: int
    data: memoryview


def is_plain(message: bytes) -> bool:
    """Return whether the functions here understand a serialised message's encoding."""
    return message[:2] in _BYTE_ORDERS


def read_stamp(message: bytes) -> tuple[int, int, str]:
    """Return of a message that begins with a header the stamp, and where the header ends.

    Returns:
        Nanoseconds; offset behind the header where a number of four bytes may stand; ``<`` or
        ``>``, the order of a number's bytes.

    Raises:
        ValueError: it is shorter than its header, or not plain CDR.
    """
    if not is_plain(message):
        raise ValueError(f'expected plain CDR, found encoding {message[:2].hex()}')
    order = _BYTE_ORDERS[message[:2]]
    try:
        seconds, nanoseconds, length = struct.unpack_from(f'{order}iII', message, _START)
    except struct.error as error:
        raise ValueError(str(error)) from None
    return seconds * 1_000_000_000 + nanoseconds, _aligned(_START + 12 + length), order


def read_image(message: bytes) -> ImageFields:
    """Return the fields of a serialised sensor_msgs/Image, its pixels where they are.

    Raises:
        ValueError: it is shorter than its fields say, or not plain CDR.
    """
    _, offset, order = read_stamp(message)
    try:
        # As they are: a stamp may have more than a second of nanoseconds.
        seconds, nanoseconds = struct.unpack_from(f'{order}iI', message, _START)
        frame_id, _ = _read_text(message, _START + 8, order)
        header = Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=frame_id)
        height, width = struct.unpack_from(f'{order}II', message, offset)
        encoding, offset = _read_text(message, offset + 8, order)
        # One byte, and then two numbers that are aligned.
        (is_bigendian,) = struct.unpack_from('B', message, offset)
        step, length = struct.unpack_from(f'{order}II', message, _aligned(offset + 1))
    except struct.error as error:
        raise ValueError(str(error)) from None
    start = _aligned(offset + 1) + 8
    data = memoryview(message)[start : start + length]
    if len(data) < length:
        raise ValueError(f'expected {length} bytes of pixels, found {len(data)}')
    return ImageFields(header, height, width, encoding, bool(is_bigendian), step, data)


def write_image(
    header: Header, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], encoding: str
) -> bytes:
    """Return an image, (H, W) or (H, W, C) in this machine's byte order, as a serialised message.

    Args:
        header: of the message.
        pixels: rows are written without padding.
        encoding: as in sensor_msgs/image_encodings.hpp.
    """
    height, width = pixels.shape[:2]
    step = width * pixels.itemsize * (pixels.shape[2] if pixels.ndim == 3 else 1)
    stamp = struct.pack('=iI', header.stamp.sec, header.stamp.nanosec)
    texts = _written_text(header.frame_id), _written_text(encoding)
    fields = b''.join((_padded(stamp + texts[0]), struct.pack('=II', height, width), texts[1]))
    fields = _padded(fields + bytes([sys.byteorder == 'big']))
    lengths = struct.pack('=II', step, height * step)
    data = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
    return b''.join((_OWN_ENCODING, fields, lengths, data.data))


def _aligned(offset: int) -> int:
    """Return the next offset where a number of four bytes may stand."""
    return (offset + 3) // 4 * 4


def _padded(fields: bytes) -> bytes:
    return fields.ljust(_aligned(len(fields)), b'\0')


def _read_text(message: bytes, offset: int, order: str) -> tuple[str, int]:
    """Return a text and the offset behind it."""
    (length,) = struct.unpack_from(f'{order}I', message, offset)
    end = offset + 4 + length
    if end > len(message):
        raise ValueError(f'expected a text of {length} bytes, found {len(message) - offset - 4}')
    # As in C, where the first zero ends it; what is no UTF-8 as rclpy shows it.
    return message[offset + 4 : end].partition(b'\0')[0].decode(errors='replace'), end


def _written_text(text: str) -> bytes:
    encoded = text.encode() + b'\0'
    return struct.pack('=I', len(encoded)) + encoded
