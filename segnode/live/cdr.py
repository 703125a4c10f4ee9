# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Serialised images without copies and without ROS: rclpy would copy the pixels on either way.

A serialised message is CDR, the encoding of every ROS middleware (OMG DDS-XTypes 1.3, 7.4.3, and
DDSI-RTPS 2.5, 10): four bytes that name the encoding, then the fields one after the other. A
number is aligned to its size, counted behind those four; a text has its length with the zero at
its end, an array its length, in front. What is not plain CDR is left to rclpy.

ROS 1 (wiki.ros.org/roscpp/Overview/MessagesSerializationAndAdaptingTypes) has the fields alone,
with the lowest byte first, not aligned, texts without the zero, and a number in front of a header.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

# Plain CDR, by its first two bytes: how struct calls the order of the bytes.
_BYTE_ORDERS = {b'\0\0': '>', b'\0\1': '<'}
_START = 4
_OWN_ENCODING = b'\0\1\0\0' if sys.byteorder == 'little' else b'\0\0\0\0'

Serialisation = Literal['cdr', 'ros1']


class Stamp(NamedTuple):
    """A builtin_interfaces/Time, as it is: it may have more than a second of nanoseconds."""

    sec: int
    nanosec: int


class MessageHeader(NamedTuple):
    """A std_msgs/Header, with the names that ROS's own has."""

    stamp: Stamp
    frame_id: str


@dataclass(frozen=True, slots=True)
class ImageFields:
    """The fields of a sensor_msgs/Image; ``data`` is a view of the message's bytes."""

    header: MessageHeader
    height: int
    width: int
    encoding: str
    is_bigendian: bool
    step: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class CompressedFields:
    """The fields of a sensor_msgs/CompressedImage; ``data`` is a view of the message's bytes."""

    header: MessageHeader
    format: str
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
    fields = _Fields(message, 'cdr')
    seconds, nanoseconds, length = fields.numbers('iII')
    offset = _aligned(_START + 12 + length)
    return seconds * 1_000_000_000 + nanoseconds, offset, fields.order


def read_header(message: bytes, serialisation: Serialisation = 'cdr') -> MessageHeader:
    """Return the header that a serialised message begins with.

    Raises:
        ValueError: it is shorter than its header, or not plain CDR.
    """
    return _Fields(message, serialisation).header()


def read_image(message: bytes, serialisation: Serialisation = 'cdr') -> ImageFields:
    """Return the fields of a serialised sensor_msgs/Image, its pixels where they are.

    Raises:
        ValueError: it is shorter than its fields say, or not plain CDR.
    """
    fields = _Fields(message, serialisation)
    header = fields.header()
    height, width = fields.numbers('II')
    encoding = fields.text()
    is_bigendian = fields.byte()
    (step,) = fields.numbers('I')
    return ImageFields(
        header, height, width, encoding, bool(is_bigendian), step, fields.data('pixels')
    )


def read_compressed(message: bytes, serialisation: Serialisation = 'cdr') -> CompressedFields:
    """Return the fields of a serialised sensor_msgs/CompressedImage, its file where it is.

    Raises:
        ValueError: it is shorter than its fields say, or not plain CDR.
    """
    fields = _Fields(message, serialisation)
    return CompressedFields(fields.header(), fields.text(), fields.data('an image file'))


def write_image(
    header: MessageHeader, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], encoding: str
) -> bytes:
    """Return an image, (H, W) or (H, W, C) in this machine's byte order, as a serialised message.

    Args:
        header: of the message; ROS's own has the same fields.
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


class _Fields:
    """Reads the fields of a message one after the other; a ValueError says what is missing."""

    def __init__(self, message: bytes, serialisation: Serialisation) -> None:
        self._message = message
        self._is_cdr = serialisation == 'cdr'
        if self._is_cdr and not is_plain(message):
            raise ValueError(f'expected plain CDR, found encoding {message[:2].hex()}')
        self.order = _BYTE_ORDERS[message[:2]] if self._is_cdr else '<'
        self._offset = _START if self._is_cdr else 0

    def numbers(self, types: str) -> tuple[int, ...]:
        """Return numbers of four bytes each."""
        offset = _aligned(self._offset) if self._is_cdr else self._offset
        try:
            found = struct.unpack_from(self.order + types, self._message, offset)
        except struct.error as error:
            raise ValueError(str(error)) from None
        self._offset = offset + 4 * len(types)
        return found

    def byte(self) -> int:
        """Return a number of one byte."""
        if self._offset >= len(self._message):
            raise ValueError(f'expected a byte behind {len(self._message)} bytes, found the end')
        self._offset += 1
        return self._message[self._offset - 1]

    def text(self) -> str:
        """Return a text."""
        (length,) = self.numbers('I')
        start = self._offset
        self._offset = end = start + length
        if end > len(self._message):
            left = len(self._message) - start
            raise ValueError(f'expected a text of {length} bytes, found {left}')
        # As in C, where the first zero ends it; what is no UTF-8 as rclpy shows it.
        return self._message[start:end].partition(b'\0')[0].decode(errors='replace')

    def header(self) -> MessageHeader:
        """Return a header."""
        if not self._is_cdr:
            self.numbers('I')
        sec, nanosec = self.numbers('iI' if self._is_cdr else 'II')
        return MessageHeader(Stamp(sec, nanosec), self.text())

    def data(self, what: str) -> memoryview:
        """Return an array of bytes."""
        (length,) = self.numbers('I')
        data = memoryview(self._message)[self._offset : self._offset + length]
        if len(data) < length:
            raise ValueError(f'expected {length} bytes of {what}, found {len(data)}')
        self._offset += length
        return data


def _aligned(offset: int) -> int:
    """Return the next offset where a number of four bytes may stand."""
    return (offset + 3) // 4 * 4


def _padded(fields: bytes) -> bytes:
    return fields.ljust(_aligned(len(fields)), b'\0')


def _written_text(text: str) -> bytes:
    encoded = text.encode() + b'\0'
    return struct.pack('=I', len(encoded)) + encoded
