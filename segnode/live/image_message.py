# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The pixels of sensor_msgs/Image and sensor_msgs/CompressedImage, without importing ROS.

Sizes, steps and headers are checked before anything is allocated or given to OpenCV.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import numpy.typing as npt

from segnode.errors import ImageError
from segnode.image import Image, Lend, check_size
from segnode.live.grey_values import GreyValues

if TYPE_CHECKING:
    from array import array

    ImageData = bytes | bytearray | memoryview | array[int] | npt.NDArray[np.uint8]

# OpenCV names a Bayer mosaic by the second and third pixel of its second row, ROS by the first
# four pixels in reading order: RGGB is OpenCV's BG. cv_bridge has the same table.
_BAYER = {
    'bayer_rggb8': cv2.COLOR_BayerBG2BGR,
    'bayer_bggr8': cv2.COLOR_BayerRG2BGR,
    'bayer_gbrg8': cv2.COLOR_BayerGR2BGR,
    'bayer_grbg8': cv2.COLOR_BayerGB2BGR,
}

# Encoding: (bytes of a pixel in its row, OpenCV's conversion to BGR or None for none).
_ENCODINGS: dict[str, tuple[int, int | None]] = {
    'rgb8': (3, None),
    'bgr8': (3, None),
    'rgba8': (4, cv2.COLOR_RGBA2BGR),
    'bgra8': (4, cv2.COLOR_BGRA2BGR),
    'mono8': (1, cv2.COLOR_GRAY2BGR),
    'mono16': (2, cv2.COLOR_GRAY2BGR),
    '8UC1': (1, cv2.COLOR_GRAY2BGR),
    '8UC3': (3, None),
    'uyvy': (2, cv2.COLOR_YUV2BGR_UYVY),
    'yuyv': (2, cv2.COLOR_YUV2BGR_YUY2),
    'yuv422': (2, cv2.COLOR_YUV2BGR_UYVY),
    'yuv422_yuy2': (2, cv2.COLOR_YUV2BGR_YUY2),
    'nv12': (1, cv2.COLOR_YUV2BGR_NV12),
    'nv21': (1, cv2.COLOR_YUV2BGR_NV21),
    **{encoding: (1, code) for encoding, code in _BAYER.items()},
}

SUPPORTED_ENCODINGS: tuple[str, ...] = tuple(_ENCODINGS)
"""Values of sensor_msgs/Image.encoding that ``decode_image`` takes."""

_YUV_422 = ('uyvy', 'yuyv', 'yuv422', 'yuv422_yuy2')
_YUV_420 = ('nv12', 'nv21')

# Start of a JPEG segment: 0xff and a marker that has a length (not RSTn, SOI, EOI, TEM).
_JPEG_SEGMENT = re.compile(rb'\xff([\x02-\xcf\xda-\xfe])')
_JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN_MARKER = 0xDA
_JPEG_END = b'\xff\xd9'
_JPEG_START = b'\xff\xd8\xff'
_PNG_START = b'\x89PNG\r\n\x1a\n'

# REP 118: depth images are float metres, or by convention of the drivers 16-bit millimetres.
_DEPTH = re.compile(r'(16[US]|32[SF]|64F)C1?')


class UnsupportedEncodingError(ImageError):
    """The encoding is not one of ``SUPPORTED_ENCODINGS``; another decoder may know it."""


def decode_image(
    *,
    height: int,
    width: int,
    encoding: str,
    is_bigendian: bool,
    step: int,
    data: ImageData,
    grey: GreyValues | None = None,
    lend: Lend | None = None,
) -> Image:
    """Decode the fields of a sensor_msgs/Image.

    rgb8, bgr8 and 8UC3 (taken as BGR, OpenCV's order) are views of ``data``, or copied into what
    is lent; the others are converted to BGR. YUV is BT.601 in video range, Bayer is interpolated
    bilinearly, both by OpenCV as in cv_bridge. mono16 becomes its highest 8 bits, of as many as
    ``grey`` says.

    Args:
        height: rows of the image; nv12 and nv21 have height / 2 rows more in ``data``.
        width: columns of the image.
        encoding: as in sensor_msgs/image_encodings.hpp.
        is_bigendian: byte order of mono16.
        step: bytes from one row to the next, padding included.
        data: the rows; more than they need is passed over.
        grey: scales the values of mono16; None takes them for 16 bits.
        lend: lends the memory that the pixels are decoded into; None takes what comes.

    Raises:
        UnsupportedEncodingError: the encoding is not one of ``SUPPORTED_ENCODINGS``.
        ImageError: it is a depth image, the fields contradict each other, or the size is
            impossible.
    """
    if _DEPTH.fullmatch(encoding):
        raise ImageError(
            f'expected a colour image, found a depth image ({encoding}): subscribe to the '
            "camera's colour topic; grey values of 16 bits are published as mono16"
        )
    if encoding not in _ENCODINGS:
        raise UnsupportedEncodingError(
            f'image encoding {encoding[:40]!r} is not supported; '
            f'supported are {", ".join(SUPPORTED_ENCODINGS)}'
        )
    check_size(height, width)
    _check_sampling(encoding, height, width)
    pixel_bytes, code = _ENCODINGS[encoding]
    rows = height * 3 // 2 if encoding in _YUV_420 else height
    if step < width * pixel_bytes:
        raise ImageError(
            f'expected a step of at least {width * pixel_bytes} bytes for {width} pixels of '
            f'{encoding}, found {step}; correct the publisher of the image'
        )
    buffer = _as_bytes(data)
    if buffer.size < rows * step:
        raise ImageError(
            f'expected {rows * step} bytes of {encoding} data ({rows} rows of {step}), '
            f'found {buffer.size}; correct the publisher of the image'
        )
    pixels = buffer[: rows * step].reshape(rows, step)[:, : width * pixel_bytes]
    if pixel_bytes > 1:
        pixels = pixels.reshape(rows, width, pixel_bytes)
    if encoding == 'mono16':
        values = pixels.view('>u2' if is_bigendian else '<u2')[..., 0]
        pixels = (grey or GreyValues()).to_8_bits(values)
    if code is None:
        return Image(_moved(pixels, lend), 'rgb' if encoding == 'rgb8' else 'bgr')
    # Where OpenCV takes other memory nevertheless, that is what it returns.
    into = None if lend is None else _lent(lend, height, width)
    return Image(cast('npt.NDArray[np.uint8]', cv2.cvtColor(pixels, code, dst=into)), 'bgr')


def _lent(lend: Lend, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return (H, W, 3) uint8 of lent memory."""
    return lend(height * width * 3).reshape(height, width, 3)


def _moved(pixels: npt.NDArray[np.uint8], lend: Lend | None) -> npt.NDArray[np.uint8]:
    """Return (H, W, 3) pixels in lent memory, or as they are where none is.

    A device would have to copy them, too, before it can fetch them; here another frame runs
    meanwhile.
    """
    if lend is None:
        return pixels
    into = _lent(lend, *pixels.shape[:2])
    np.copyto(into, pixels)
    return into


def decode_compressed(
    *,
    format: str,  # noqa: A002
    data: ImageData,
    grey: GreyValues | None = None,
    lend: Lend | None = None,
) -> Image:
    """Decode the fields of a sensor_msgs/CompressedImage that holds a JPEG or a PNG.

    The first bytes of the data tell which, and the colours are those of the file. The format
    counts only where it says that the values are no colours: depth is refused as in
    ``decode_image``, and a Bayer mosaic stored as it is gets interpolated. 16-bit PNG becomes
    its highest 8 bits, as mono16 does; alpha is dropped. EXIF orientation is ignored, as
    image_transport does it, because the pixels have to stay where camera_info has them.

    Args:
        format: as image_transport writes it, for example ``rgb8; jpeg compressed bgr8`` or
            ``bayer_rggb8; png compressed `` (no encoding at the end: stored as it is); others
            write ``jpeg`` or nothing.
        data: the file.
        grey: scales the values of a 16-bit PNG; None takes them for 16 bits.
        lend: lends the memory that the pixels are moved to, as OpenCV decodes a file into its
            own; None leaves them there.

    Raises:
        UnsupportedEncodingError: it is a Bayer mosaic that is not supported.
        ImageError: the data is not JPEG or PNG, incomplete, damaged or too large, or is depth.
    """
    encoding, _, compression = (part.strip() for part in format.partition(';'))
    if compression.startswith('compressedDepth') or _DEPTH.fullmatch(encoding):
        raise ImageError(
            f'expected a colour image, found a depth image (format {format[:40]!r}); '
            'subscribe to the colour topic of the camera'
        )
    buffer = _as_bytes(data)
    height, width = file_size_hw(buffer.tobytes(), format)
    check_size(height, width)
    stored_as = compression.rpartition('compressed')[2].strip()
    is_mosaic = encoding.startswith('bayer_') and stored_as in ('', encoding)
    flag = cv2.IMREAD_GRAYSCALE if is_mosaic else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    try:
        decoded = cv2.imdecode(buffer, flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        decoded = None
    if decoded is None or decoded.shape[:2] != (height, width):
        raise ImageError(
            f'expected a JPEG or PNG image, found {buffer.size} bytes of damaged data'
        )
    if decoded.dtype == np.uint16:
        decoded = (grey or GreyValues()).to_8_bits(cast('npt.NDArray[np.uint16]', decoded))
    pixels = cast('npt.NDArray[np.uint8]', decoded)
    if not is_mosaic:
        return Image(_moved(pixels, lend), 'bgr')
    return decode_image(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=False,
        step=width,
        data=pixels,
        lend=lend,
    )


def _as_bytes(data: ImageData) -> npt.NDArray[np.uint8]:
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError, BufferError):
        raise ImageError(
            f'expected image data as contiguous bytes, found {type(data).__name__}'
        ) from None


def _check_sampling(encoding: str, height: int, width: int) -> None:
    odd_width = width % 2 == 1 and encoding in _YUV_422 + _YUV_420
    odd_height = height % 2 == 1 and encoding in _YUV_420
    if odd_width or odd_height:
        expected = 'an even width and height' if encoding in _YUV_420 else 'an even width'
        raise ImageError(f'expected {expected} for {encoding}, found {width} x {height}')
    # OpenCV interpolates from neighbours on both sides and leaves anything smaller black.
    if encoding in _BAYER and min(height, width) < 3:
        raise ImageError(
            f'expected at least 3 x 3 pixels for {encoding}, found {width} x {height}'
        )


def file_size_hw(file: bytes, format_name: str) -> tuple[int, int]:
    """Return height and width of a JPEG or PNG that is whole, from its header."""
    if file.startswith(_PNG_START):
        return _png_size(file)
    if file.startswith(_JPEG_START):
        return _jpeg_size(file)
    raise ImageError(
        f'expected JPEG or PNG data, found format {format_name[:40]!r} '
        f'with {len(file)} bytes that begin with {file[:8].hex() or "nothing"}'
    )


def _jpeg_size(file: bytes) -> tuple[int, int]:
    """Return height and width of a JPEG (ITU-T T.81, annex B) that has its end marker.

    Decoders differ in what they make of a JPEG without its end: some fill up with grey.
    """
    size_hw = (0, 0)
    offset = 2
    while segment := _JPEG_SEGMENT.search(file, offset):
        marker, body = segment[1][0], segment.end()
        if marker == _JPEG_SCAN_MARKER:
            # Inside a scan 0xff is followed by 0x00 or a restart marker, never by the end's byte.
            if file.rfind(_JPEG_END, body) < 0:
                break
            return size_hw
        if marker in _JPEG_FRAME_MARKERS:
            size_hw = _integer(file, body + 3, 2), _integer(file, body + 5, 2)
        offset = body + max(2, _integer(file, body, 2))
    raise ImageError(f'expected a whole JPEG image, found {len(file)} bytes without its end')


def _png_size(file: bytes) -> tuple[int, int]:
    """Return height and width of a PNG whose chunks are whole up to the last, IEND.

    OpenCV 5 allocates what a chunk announces, up to 4 GB, before it looks for the data.
    """
    offset, chunk = len(_PNG_START), b''
    while chunk != b'IEND':
        chunk = file[offset + 4 : offset + 8]
        offset += 12 + _integer(file, offset, 4)
        if offset > len(file):
            raise ImageError(
                f'expected a whole PNG image, found {len(file)} bytes without its end'
            )
    if file[12:16] != b'IHDR':
        raise ImageError('expected a PNG image that begins with its size, found damaged data')
    return _integer(file, 20, 4), _integer(file, 16, 4)


def _integer(file: bytes, offset: int, size: int) -> int:
    return int.from_bytes(file[offset : offset + size], 'big')
