# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Image messages against formulas written out here, and messages that make no sense."""

from __future__ import annotations

import array
import logging
import struct
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from segnode.engine.host_buffers import FrameMemory
from segnode.errors import ImageError
from segnode.image import Image
from segnode.live.image_message import (
    SUPPORTED_ENCODINGS,
    UnsupportedEncodingError,
    decode_compressed,
    decode_image,
)

Pixels = npt.NDArray[np.uint8]

# Position of the first red and the first blue pixel of a mosaic, (row, column).
BAYER = {
    'bayer_rggb8': ((0, 0), (1, 1)),
    'bayer_bggr8': ((1, 1), (0, 0)),
    'bayer_gbrg8': ((1, 0), (0, 1)),
    'bayer_grbg8': ((0, 1), (1, 0)),
}
BYTES = {'rgb8': 3, 'bgr8': 3, '8UC3': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1, '8UC1': 1} | {
    'mono16': 2,
    **dict.fromkeys(('uyvy', 'yuyv', 'yuv422', 'yuv422_yuy2'), 2),
    **dict.fromkeys(('nv12', 'nv21', *BAYER), 1),
}


@pytest.fixture
def rng() -> np.random.Generator:
    seed = np.random.SeedSequence().entropy
    logging.getLogger(__name__).warning('seed %s', seed)
    return np.random.default_rng(seed)


def yuv_to_rgb(y: Pixels, u: Pixels, v: Pixels) -> npt.NDArray[np.float64]:
    """ITU-R BT.601 in video range: luma 16 (and, in OpenCV, below) to 235, chroma 16 to 240."""
    luma, blue, red = np.maximum(y - 16.0, 0) / 219, (u - 128.0) / 224, (v - 128.0) / 224
    r = luma + 1.402 * red
    g = luma - 0.114 * 1.772 / 0.587 * blue - 0.299 * 1.402 / 0.587 * red
    b = luma + 1.772 * blue
    return np.clip(255 * np.stack([r, g, b], axis=2), 0, 255)


def mosaic_to_rgb(mosaic: Pixels, encoding: str) -> npt.NDArray[np.float64]:
    """Mean of the nearest samples of each colour: bilinear interpolation."""
    reds, blues = np.zeros_like(mosaic, bool), np.zeros_like(mosaic, bool)
    for mask, (row, column) in zip((reds, blues), BAYER[encoding], strict=True):
        mask[row::2, column::2] = True
    corner, side = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]), np.array([0, 1, 0])
    cross = np.add.outer(side, side) * np.array([[0, 1, 0], [1, 2, 1], [0, 1, 0]])

    def interpolate(mask: npt.NDArray[np.bool_], weights: npt.NDArray[np.int64]) -> Any:
        total, weight = np.zeros((2, *mosaic.shape))
        values, present = np.pad(mosaic * 1.0 * mask, 1), np.pad(mask * 1.0, 1)
        for (row, column), factor in np.ndenumerate(weights):
            window = np.s_[row : row + mosaic.shape[0], column : column + mosaic.shape[1]]
            total += factor * values[window]
            weight += factor * present[window]
        return total / weight

    return np.stack(
        [
            interpolate(reds, corner),
            interpolate(~(reds | blues), cross),
            interpolate(blues, corner),
        ],
        axis=2,
    )


def expected_rgb(encoding: str, rows: Pixels, height: int, width: int) -> npt.NDArray[Any]:
    """Colours of unpadded rows of bytes."""
    if encoding in BAYER:
        return mosaic_to_rgb(rows, encoding)
    if encoding in ('nv12', 'nv21'):
        u, v = (rows[height:, i::2].repeat(2, 0).repeat(2, 1) for i in (0, 1))
        return yuv_to_rgb(rows[:height], *((u, v) if encoding == 'nv12' else (v, u)))
    if encoding in ('uyvy', 'yuv422'):
        return yuv_to_rgb(rows[:, 1::2], rows[:, ::4].repeat(2, 1), rows[:, 2::4].repeat(2, 1))
    if encoding in ('yuyv', 'yuv422_yuy2'):
        return yuv_to_rgb(rows[:, ::2], rows[:, 1::4].repeat(2, 1), rows[:, 3::4].repeat(2, 1))
    if encoding == 'mono16':
        return (rows.reshape(height, width, 2).view('<u2') // 256).repeat(3, 2)
    pixels = rows.reshape(height, width, -1)
    if encoding in ('bgr8', 'bgra8', '8UC3'):
        return pixels[..., 2::-1]
    return pixels[..., :3] if pixels.shape[2] > 1 else pixels.repeat(3, 2)


def rgb_of(image: Image) -> npt.NDArray[np.int64]:
    pixels = image.pixels.astype(np.int64)
    return pixels if image.order == 'rgb' else pixels[..., ::-1]


def message(
    rng: np.random.Generator, encoding: str, height: int, width: int, padding: int = 0
) -> dict[str, Any]:
    """Random fields of a sensor_msgs/Image; the padding is random as well."""
    rows = height * 3 // 2 if encoding.startswith('nv') else height
    step = width * BYTES[encoding] + padding
    return {
        'height': height,
        'width': width,
        'encoding': encoding,
        'is_bigendian': False,
        'step': step,
        'data': rng.bytes(rows * step),
    }


def rows_of(fields: dict[str, Any]) -> Pixels:
    rows = np.frombuffer(fields['data'], np.uint8).reshape(-1, fields['step'])
    return rows[:, : fields['width'] * BYTES[fields['encoding']]].copy()


def test_every_supported_encoding_is_tested() -> None:
    assert set(BYTES) == set(SUPPORTED_ENCODINGS)


@pytest.mark.parametrize('padding', [0, 1, 13])
@pytest.mark.parametrize('encoding', SUPPORTED_ENCODINGS)
def test_decoding(rng: np.random.Generator, encoding: str, padding: int) -> None:
    height, width = (2 * int(n) for n in rng.integers(2, 25, 2))
    fields = message(rng, encoding, height, width, padding)
    image = decode_image(**fields)
    assert (image.height, image.width) == (height, width)
    expected = expected_rgb(encoding, rows_of(fields), height, width)
    found = rgb_of(image)
    if encoding in BAYER:  # the outermost pixels have fewer neighbours, and OpenCV copies them
        expected, found = expected[1:-1, 1:-1], found[1:-1, 1:-1]
    exact = not encoding.startswith(('bayer', 'nv', 'uyvy', 'yuyv', 'yuv'))
    np.testing.assert_allclose(found, expected, rtol=0, atol=0 if exact else 1.5)


@pytest.mark.parametrize('encoding', SUPPORTED_ENCODINGS)
def test_smallest_image(rng: np.random.Generator, encoding: str) -> None:
    height, width = (3, 3) if encoding in BAYER else (1, 1)
    if not encoding.startswith(('bayer', 'mono', 'rgb', 'bgr', '8')):
        height, width = (2, 2) if encoding.startswith('nv') else (1, 2)
    image = decode_image(**message(rng, encoding, height, width))
    assert image.pixels.shape == (height, width, 3)


@pytest.mark.parametrize('encoding', ['mono8', 'mono16', 'rgb8', 'bgra8', *BAYER])
def test_odd_sizes(rng: np.random.Generator, encoding: str) -> None:
    fields = message(rng, encoding, 7, 5, padding=3)
    found, expected = rgb_of(decode_image(**fields)), expected_rgb(encoding, rows_of(fields), 7, 5)
    np.testing.assert_allclose(found[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1)


@pytest.mark.parametrize('encoding', BAYER)
def test_flat_colours_of_a_mosaic(rng: np.random.Generator, encoding: str) -> None:
    red, green, blue = rng.integers(0, 256, 3)
    (red_row, red_column), (blue_row, blue_column) = BAYER[encoding]
    mosaic = np.full((6, 9), green, np.uint8)
    mosaic[red_row::2, red_column::2] = red
    mosaic[blue_row::2, blue_column::2] = blue
    fields = message(rng, encoding, 6, 9) | {'data': mosaic}
    assert (rgb_of(decode_image(**fields)) == (red, green, blue)).all()


def test_mono16_honours_the_byte_order(rng: np.random.Generator) -> None:
    values = rng.integers(0, 65536, (9, 7)).astype(np.uint16)
    expected = (values // 256)[..., None].repeat(3, 2)
    for is_bigendian, dtype in ((False, '<u2'), (True, '>u2'), (0, '<u2'), (1, '>u2')):
        image = decode_image(
            height=9,
            width=7,
            encoding='mono16',
            is_bigendian=bool(is_bigendian),
            step=14,
            data=values.astype(dtype).tobytes(),
        )
        np.testing.assert_array_equal(image.pixels, expected)


@pytest.mark.parametrize('encoding', sorted(set(SUPPORTED_ENCODINGS) - {'mono16'}))
def test_byte_order_means_nothing_to_bytes(rng: np.random.Generator, encoding: str) -> None:
    fields = message(rng, encoding, 4, 4)
    swapped = decode_image(**fields | {'is_bigendian': True})
    np.testing.assert_array_equal(swapped.pixels, decode_image(**fields).pixels)


@pytest.mark.parametrize(
    ('encoding', 'order'), [('rgb8', 'rgb'), ('bgr8', 'bgr'), ('8UC3', 'bgr')]
)
def test_colour_bytes_are_not_copied(rng: np.random.Generator, encoding: str, order: str) -> None:
    fields = message(rng, encoding, 6, 8, padding=4)
    image = decode_image(**fields)
    assert image.order == order
    assert np.shares_memory(image.pixels, np.frombuffer(fields['data'], np.uint8))


@pytest.mark.parametrize('encoding', ['bgr8', 'mono16', 'yuyv', 'nv12'])
@pytest.mark.parametrize(
    'kind',
    [
        bytearray,
        memoryview,
        lambda data: array.array('B', data),
        lambda data: np.frombuffer(data, np.uint8),
        lambda data: np.frombuffer(data, np.uint8).reshape(4, -1),
        lambda data: data + b'more than needed',
    ],
)
def test_kinds_of_data(
    rng: np.random.Generator, encoding: str, kind: Callable[[bytes], Any]
) -> None:
    fields = message(rng, encoding, 8, 6)
    image = decode_image(**fields | {'data': kind(fields['data'])})
    np.testing.assert_array_equal(image.pixels, decode_image(**fields).pixels)


@pytest.mark.parametrize('data', [None, 'text', [1, 2, 3], 5, np.zeros((4, 36), np.uint8)[:, ::2]])
def test_data_that_is_no_bytes(data: Any) -> None:
    with pytest.raises(ImageError, match='expected image data as contiguous bytes'):
        decode_image(height=2, width=2, encoding='bgr8', is_bigendian=False, step=6, data=data)
    with pytest.raises(ImageError, match='expected image data as contiguous bytes'):
        decode_compressed(format='jpeg', data=data)


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({'height': 0}, 'expected an image of 1 to'),
        ({'width': 0}, 'expected an image of 1 to'),
        ({'height': 0, 'width': 0, 'step': 0, 'data': b''}, 'expected an image of 1 to'),
        ({'height': -4}, 'expected an image of 1 to'),
        ({'height': 2**31, 'width': 2**31, 'step': 2**32 - 1}, 'expected an image of 1 to'),
        ({'height': 2**32 - 1, 'width': 1, 'step': 3}, 'expected an image of 1 to'),
        ({'step': 0}, 'expected a step of at least 24 bytes for 8 pixels of bgr8, found 0'),
        ({'step': 23}, 'expected a step of at least 24 bytes for 8 pixels of bgr8, found 23'),
        ({'step': -24}, 'expected a step of at least 24'),
        ({'step': 2**32 - 1}, r'expected 25769803770 bytes .* found 144'),
        ({'height': 7}, r'expected 168 bytes of bgr8 data \(7 rows of 24\), found 144'),
        ({'step': 25}, r'expected 150 bytes of bgr8 data \(6 rows of 25\), found 144'),
        ({'data': b''}, 'found 0'),
        ({'encoding': 'nv12', 'step': 8, 'data': bytes(48)}, 'expected 72 bytes of nv12'),
    ],
)
def test_fields_that_contradict(
    rng: np.random.Generator, changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(ImageError, match=text):
        decode_image(**message(rng, 'bgr8', 6, 8) | changes)


@pytest.mark.parametrize(
    ('encoding', 'height', 'width', 'text'),
    [
        ('uyvy', 4, 5, 'an even width for uyvy, found 5 x 4'),
        ('yuv422_yuy2', 3, 3, 'an even width for yuv422_yuy2, found 3 x 3'),
        ('nv12', 4, 5, 'an even width and height for nv12, found 5 x 4'),
        ('nv21', 5, 4, 'an even width and height for nv21, found 4 x 5'),
        ('bayer_rggb8', 2, 8, 'at least 3 x 3 pixels for bayer_rggb8, found 8 x 2'),
        ('bayer_gbrg8', 8, 1, 'at least 3 x 3 pixels for bayer_gbrg8, found 1 x 8'),
    ],
)
def test_sizes_that_cannot_be_sampled(encoding: str, height: int, width: int, text: str) -> None:
    with pytest.raises(ImageError, match=text):
        decode_image(
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=False,
            step=2 * width,
            data=bytes(100),
        )


@pytest.mark.parametrize('encoding', ['', '16SC3', '32FC3', 'nv24', 'RGB8', 'x\n' * 1000])
def test_unsupported_encoding(encoding: str) -> None:
    with pytest.raises(UnsupportedEncodingError) as caught:
        decode_image(
            height=1, width=1, encoding=encoding, is_bigendian=False, step=4, data=bytes(4)
        )
    text = str(caught.value)
    assert repr(encoding[:40]) in text
    assert all(supported in text for supported in SUPPORTED_ENCODINGS)
    assert '\n' not in text
    assert len(text) < 400


@pytest.mark.parametrize('encoding', ['16UC1', '32FC1', '64FC1', '16SC1', '32SC1'])
def test_a_depth_image_is_called_one(encoding: str) -> None:
    with pytest.raises(ImageError, match='found a depth image') as caught:
        decode_image(
            height=1, width=1, encoding=encoding, is_bigendian=False, step=8, data=bytes(8)
        )
    # cv_bridge must not make colours of it.
    assert not isinstance(caught.value, UnsupportedEncodingError)


def test_random_fields_raise_image_errors_only(rng: np.random.Generator) -> None:
    sizes = [-1, 0, 1, 2, 3, 4, 5, 8, 64, 2**16, 2**31, 2**32 - 1]
    decoded, refused = 0, []
    for _ in range(3000):
        height, width, step = (sizes[i] for i in rng.integers(0, len(sizes), 3))
        encoding = SUPPORTED_ENCODINGS[rng.integers(len(SUPPORTED_ENCODINGS))]
        try:
            image = decode_image(
                height=height,
                width=width,
                encoding=encoding,
                is_bigendian=step % 2 == 0,
                step=step,
                data=rng.bytes(int(rng.integers(0, 600))),
            )
            assert image.pixels.shape == (height, width, 3)
            decoded += 1
        except ImageError as error:
            refused.append(str(error))
    assert decoded > 20
    assert refused
    assert '\n' not in ''.join(refused)


def encode(suffix: str, pixels: npt.NDArray[Any], *options: int) -> bytes:
    return cv2.imencode(suffix, pixels, options)[1].tobytes()


def photograph(rng: np.random.Generator, height: int = 48, width: int = 64) -> Pixels:
    """Smooth random colours, which JPEG keeps."""
    coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


@pytest.mark.parametrize('format_name', ['jpeg', 'jpg', 'png', '', 'rgb8; jpeg compressed bgr8'])
@pytest.mark.parametrize('options', [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)])
def test_jpeg(rng: np.random.Generator, format_name: str, options: tuple[int, ...]) -> None:
    pixels = photograph(rng)
    data = encode('.jpg', pixels, cv2.IMWRITE_JPEG_QUALITY, 100, *options)
    image = decode_compressed(format=format_name, data=data)
    assert image.order == 'bgr'
    assert np.abs(image.pixels.astype(int) - pixels).mean() < 3


@pytest.mark.parametrize('format_name', ['png', 'jpeg', 'bgr8; png compressed ', 'rgb8; png'])
@pytest.mark.parametrize('kind', [bytes, bytearray, lambda data: array.array('B', data)])
def test_png(rng: np.random.Generator, format_name: str, kind: Callable[[bytes], Any]) -> None:
    pixels = rng.integers(0, 256, (13, 9, 3), np.uint8)
    image = decode_compressed(format=format_name, data=kind(encode('.png', pixels)))
    assert image.order == 'bgr'
    np.testing.assert_array_equal(image.pixels, pixels)


@pytest.mark.parametrize(
    ('shape', 'dtype'),
    [((9, 7), 'u1'), ((9, 7), 'u2'), ((9, 7, 3), 'u2'), ((9, 7, 4), 'u1'), ((9, 7, 4), 'u2')],
)
def test_kinds_of_png(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> None:
    values = rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    image = decode_compressed(format='png', data=encode('.png', values))
    expected = (values // 256 if dtype == 'u2' else values).reshape(9, 7, -1)[..., :3]
    np.testing.assert_array_equal(image.pixels, np.broadcast_to(expected, (9, 7, 3)))


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', checksum)


def png(height: int, width: int, kind: int, *chunks: bytes) -> bytes:
    header = struct.pack('>IIBBBBB', width, height, 8, kind, 0, 0, 0)
    return b''.join([b'\x89PNG\r\n\x1a\n', chunk(b'IHDR', header), *chunks, chunk(b'IEND', b'')])


def test_palette_png(rng: np.random.Generator) -> None:
    palette = rng.integers(0, 256, (256, 3), np.uint8)
    index = rng.integers(0, 256, (8, 11), np.uint8)
    rows = np.pad(index, ((0, 0), (1, 0))).tobytes()  # each row begins with its filter, 0
    data = png(8, 11, 3, chunk(b'PLTE', palette.tobytes()), chunk(b'IDAT', zlib.compress(rows)))
    image = decode_compressed(format='png', data=data)
    np.testing.assert_array_equal(image.pixels[..., ::-1], palette[index])


def test_grey_jpeg(rng: np.random.Generator) -> None:
    grey = photograph(rng)[..., 0]
    pixels = decode_compressed(format='mono8; jpeg compressed mono8', data=encode('.jpg', grey))
    assert np.abs(pixels.pixels.astype(int) - grey[..., None]).mean() < 3


def test_exif_orientation_is_ignored(rng: np.random.Generator) -> None:
    pixels = photograph(rng)
    tiff = (
        b'MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00'
        + bytes(4)
    )
    jpeg, exif = encode('.jpg', pixels), b'Exif\x00\x00' + tiff
    turned = jpeg[:2] + b'\xff\xe1' + struct.pack('>H', 2 + len(exif)) + exif + jpeg[2:]
    upright = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)
    assert upright is not None
    assert upright.shape == (64, 48, 3)  # the orientation is there, and understood elsewhere
    assert decode_compressed(format='jpeg', data=turned).pixels.shape == (48, 64, 3)


@pytest.mark.parametrize('encoding', BAYER)
@pytest.mark.parametrize('form', ['{}; png compressed ', '{}; png compressed {}'])
def test_mosaic_in_a_png(rng: np.random.Generator, encoding: str, form: str) -> None:
    fields = message(rng, encoding, 10, 12)
    image = decode_compressed(
        format=form.format(encoding, encoding), data=encode('.png', rows_of(fields))
    )
    np.testing.assert_array_equal(image.pixels, decode_image(**fields).pixels)


def test_pictures_of_a_mosaic_stay_as_they_are(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (9, 7, 3), np.uint8)
    data = encode('.png', pixels)
    image = decode_compressed(format='bayer_rggb8; png compressed bgr8', data=data)
    np.testing.assert_array_equal(image.pixels, pixels)


def test_mosaics_that_cannot_be_decoded(rng: np.random.Generator) -> None:
    small = encode('.png', rng.integers(0, 256, (2, 2), np.uint8))
    with pytest.raises(UnsupportedEncodingError, match='bayer_rggb16'):
        decode_compressed(format='bayer_rggb16; png compressed ', data=small)
    with pytest.raises(ImageError, match='at least 3 x 3'):
        decode_compressed(format='bayer_rggb8; png compressed ', data=small)


@pytest.mark.parametrize(
    'format_name',
    ['16UC1; compressedDepth', '32FC1; compressedDepth rvl', '16UC1; png compressed ', '32FC1; x'],
)
def test_depth_is_refused(rng: np.random.Generator, format_name: str) -> None:
    data = encode('.png', rng.integers(0, 65536, (5, 5)).astype(np.uint16))
    with pytest.raises(ImageError, match='found a depth image') as caught:
        decode_compressed(format=format_name, data=data)
    assert not isinstance(caught.value, UnsupportedEncodingError)


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_truncation_is_found(rng: np.random.Generator, suffix: str) -> None:
    data = encode(suffix, photograph(rng))
    decode_compressed(format='', data=data + bytes(100))
    for length in {*rng.integers(0, len(data), 60).tolist(), len(data) - 1, 8, 3, 2, 1, 0}:
        with pytest.raises(ImageError, match=r'^expected (a whole )?(JPEG|PNG)'):
            decode_compressed(format='', data=data[:length])


def test_an_end_inside_a_thumbnail_is_not_the_end(rng: np.random.Generator) -> None:
    jpeg, thumbnail = encode('.jpg', photograph(rng)), encode('.jpg', photograph(rng, 8, 8))
    segment = b'\xff\xe1' + struct.pack('>H', 2 + len(thumbnail)) + thumbnail
    data = jpeg[:2] + segment + jpeg[2:]
    np.testing.assert_array_equal(
        decode_compressed(format='', data=data).pixels,
        decode_compressed(format='', data=jpeg).pixels,
    )
    with pytest.raises(ImageError, match='without its end'):
        decode_compressed(format='', data=data[:-2])


@pytest.mark.parametrize(
    'data',
    [
        png(2**31 - 1, 2**31 - 1, 2, chunk(b'IDAT', b'')),
        png(8193, 8192, 0, chunk(b'IDAT', zlib.compress(bytes(1000)))),
        png(0, 8, 0, chunk(b'IDAT', b'')),
        b'\xff\xd8\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00\xff\xda\x00\x02\xff\xd9',
    ],
)
def test_sizes_are_checked_before_decoding(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('was decoded'))
    with pytest.raises(ImageError, match='expected an image of 1 to'):
        decode_compressed(format='', data=data)


def test_a_chunk_longer_than_the_file_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = png(8, 8, 0, struct.pack('>I', 2**31 - 1) + b'IDAT')
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('was decoded'))
    with pytest.raises(ImageError, match='expected a whole PNG'):
        decode_compressed(format='', data=data)


@pytest.mark.parametrize('data', [b'', b'noise', b'GIF89a' + bytes(50), b'qoif' + bytes(50)])
def test_other_data_is_named(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"expected JPEG or PNG data, found format 'tiff' with"):
        decode_compressed(format='tiff', data=data)


def test_damaged_data_raises_image_errors_only(rng: np.random.Generator) -> None:
    picture = photograph(rng)
    decoded, refused = 0, []
    for suffix in ('.png', '.jpg'):
        whole = encode(suffix, picture)
        for _ in range(300):
            damaged = bytearray(whole)
            for position in rng.integers(0, min(len(whole), 400), rng.integers(1, 6)):
                damaged[position] = rng.integers(256)
            try:
                decode_compressed(format='', data=damaged)
                decoded += 1
            except ImageError as error:
                refused.append(str(error))
    assert decoded > 20
    assert len(refused) > 20
    assert '\n' not in ''.join(refused)


# What is decoded into memory that is lent


class Lender:
    """Lends memory of a device's kind, and keeps the addresses of what it lent."""

    def __init__(self) -> None:
        self.memory = FrameMemory(pinned=False)
        self.addresses: list[int] = []

    def __call__(self, size: int) -> Pixels:
        lent = self.memory.lend(size)
        lent[:] = 0xAA
        self.addresses.append(lent.ctypes.data)
        return lent

    def assert_lent(self, image: Image, expected: Image) -> None:
        """All of one picture lies in what was lent once, and a device can fetch it there."""
        assert image.order == expected.order
        np.testing.assert_array_equal(image.pixels, expected.pixels)
        assert self.addresses == [image.pixels.ctypes.data]
        assert self.memory.source(image.pixels) is not None


@pytest.mark.parametrize('padding', [0, 13])
@pytest.mark.parametrize('encoding', SUPPORTED_ENCODINGS)
def test_decoding_writes_into_lent_memory(
    rng: np.random.Generator, encoding: str, padding: int
) -> None:
    fields, lend = message(rng, encoding, 10, 12, padding), Lender()
    lend.assert_lent(decode_image(**fields, lend=lend), decode_image(**fields))


@pytest.mark.parametrize(
    ('suffix', 'dtype', 'format_name'),
    [
        ('.jpg', np.uint8, 'jpeg'),
        ('.png', np.uint8, 'png'),
        ('.png', np.uint16, 'png'),
        ('.png', None, 'bayer_rggb8; png compressed '),
    ],
)
def test_files_are_decoded_into_lent_memory(
    rng: np.random.Generator, suffix: str, dtype: Any, format_name: str
) -> None:
    shape = (10, 12) if dtype is None else (10, 12, 3)
    pixels = rng.integers(0, 256, shape).astype(dtype or np.uint8)
    data, lend = encode(suffix, pixels), Lender()
    expected = decode_compressed(format=format_name, data=data)
    lend.assert_lent(decode_compressed(format=format_name, data=data, lend=lend), expected)


def test_ten_pictures_that_are_held_stay_as_they_are(rng: np.random.Generator) -> None:
    lend, encodings = Lender(), ('bgr8', 'mono8', 'nv12', 'bayer_grbg8', 'yuyv')
    each = [message(rng, encoding, 10, 12) for encoding in encodings * 2]
    held = [decode_image(**fields, lend=lend) for fields in each]
    for image, fields in zip(held, each, strict=True):
        np.testing.assert_array_equal(image.pixels, decode_image(**fields).pixels)
    assert len(set(lend.addresses)) == 10
    del image
    held.clear()
    held += [decode_image(**fields, lend=lend) for fields in each]
    assert len(set(lend.addresses)) == 10, 'memory that was let go of is used again'


def test_memory_that_opencv_does_not_take_is_done_without(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields, lend = message(rng, 'nv12', 10, 12), Lender()
    expected, convert = decode_image(**fields), cv2.cvtColor
    monkeypatch.setattr(cv2, 'cvtColor', lambda pixels, code, dst: convert(pixels, code))
    image = decode_image(**fields, lend=lend)
    np.testing.assert_array_equal(image.pixels, expected.pixels)
    assert lend.memory.source(image.pixels) is None
    assert lend(10 * 12 * 3).ctypes.data == lend.addresses[0]


def test_what_cannot_be_decoded_keeps_no_memory(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    lend = Lender()
    fields = message(rng, 'bgr8', 10, 12)
    file = encode('.png', photograph(rng))
    damaged = file[:60] + bytes(40) + file[100:]
    for changes in ({'step': 5}, {'encoding': '16UC1'}, {'data': b''}, {'height': 0}):
        with pytest.raises(ImageError):
            decode_image(**fields | changes, lend=lend)
    for data in (b'noise', damaged):
        with pytest.raises(ImageError):
            decode_compressed(format='png', data=data, lend=lend)
    assert not lend.addresses

    def fail(*_: object, **__: object) -> None:
        raise cv2.error('no memory')

    with monkeypatch.context() as failing:
        failing.setattr(cv2, 'cvtColor', fail)
        with pytest.raises(cv2.error):
            decode_image(**message(rng, 'nv12', 10, 12), lend=lend)
    image = decode_image(**fields, lend=lend)
    assert [image.pixels.ctypes.data] * 2 == lend.addresses
