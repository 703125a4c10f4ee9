# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Image files against pixels that are known, and files that are none."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from segnode.errors import ImageError
from segnode.image import MAX_PIXELS, Image, check_size
from segnode.picture_files import Remarks, find_images, read_image

ORIENTATION = 0x0112


@pytest.fixture
def rng() -> np.random.Generator:
    seed = np.random.SeedSequence().entropy
    logging.getLogger(__name__).warning('seed %s', seed)
    return np.random.default_rng(seed)


def random_pixels(rng: np.random.Generator, channels: int = 3) -> npt.NDArray[np.uint8]:
    height, width = rng.integers(2, 40, 2)
    return rng.integers(0, 256, (height, width, channels), np.uint8)


def saved(path: Path, image: PIL.Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_image_keeps_what_it_is_given(rng: np.random.Generator) -> None:
    padded = rng.integers(0, 256, (4, 9, 3), np.uint8)
    image = Image(padded[:, :7], 'rgb')
    assert (image.height, image.width, image.order) == (4, 7, 'rgb')
    assert np.shares_memory(image.pixels, padded)


@pytest.mark.parametrize(
    ('pixels', 'order'),
    [
        ([[[0, 0, 0]]], 'bgr'),
        (np.zeros((2, 2, 3), np.float32), 'bgr'),
        (np.zeros((2, 2, 3), np.int8), 'bgr'),
        (np.zeros((2, 2), np.uint8), 'bgr'),
        (np.zeros((2, 2, 4), np.uint8), 'bgr'),
        (np.zeros((3, 2, 2), np.uint8), 'bgr'),
        (np.zeros((1, 2, 2, 3), np.uint8), 'bgr'),
        (np.zeros((0, 2, 3), np.uint8), 'bgr'),
        (np.zeros((2, 0, 3), np.uint8), 'bgr'),
        (np.zeros((2, 2, 3), np.uint8), 'gbr'),
        (np.zeros((2, 2, 3), np.uint8), ''),
    ],
)
def test_image_refuses(pixels: object, order: str) -> None:
    with pytest.raises(ImageError, match=r'^expected .* found .*$'):
        Image(pixels, order)  # type: ignore[arg-type]


@pytest.mark.parametrize('size', [(0, 1), (1, 0), (-1, -1), (2**31, 2**31), (1, MAX_PIXELS + 1)])
def test_check_size_refuses(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match='expected an image of 1 to'):
        check_size(*size)


@pytest.mark.parametrize('size', [(1, 1), (1, MAX_PIXELS), (8192, 8192)])
def test_check_size_accepts(size: tuple[int, int]) -> None:
    check_size(*size)


@pytest.mark.parametrize('suffix', ['.png', '.bmp', '.tiff', '.ppm'])
def test_rgb_is_read_exactly(tmp_path: Path, rng: np.random.Generator, suffix: str) -> None:
    pixels = random_pixels(rng)
    image = read_image(saved(tmp_path / f'image{suffix}', PIL.Image.fromarray(pixels)))
    assert image.order == 'rgb'
    np.testing.assert_array_equal(image.pixels, pixels)


@pytest.mark.parametrize('suffix', ['.jpg', '.webp'])
def test_lossy_formats(tmp_path: Path, suffix: str) -> None:
    pixels = np.full((16, 24, 3), (200, 30, 90), np.uint8)
    image = read_image(saved(tmp_path / f'image{suffix}', PIL.Image.fromarray(pixels)))
    np.testing.assert_allclose(image.pixels.astype(int), pixels, atol=6)


def test_grey_and_alpha(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = random_pixels(rng, channels=4)
    grey = np.repeat(pixels[..., :1], 3, axis=2)
    expected = {
        'RGBA': pixels[..., :3],
        'L': grey,
        'LA': grey,
        '1': np.where(grey > 127, 255, 0),
    }
    images = {
        'RGBA': PIL.Image.fromarray(pixels),
        'L': PIL.Image.fromarray(pixels[..., 0]),
        'LA': PIL.Image.merge(
            'LA', [PIL.Image.fromarray(pixels[..., 0]), PIL.Image.fromarray(pixels[..., 3])]
        ),
        '1': PIL.Image.fromarray(pixels[..., 0] > 127),
    }
    for mode, image in images.items():
        assert image.mode == mode
        found = read_image(saved(tmp_path / f'{mode}.png', image)).pixels
        np.testing.assert_array_equal(found, expected[mode], err_msg=mode)


@pytest.mark.parametrize('transparency', [None, 3, bytes(range(16))])
def test_palette(tmp_path: Path, rng: np.random.Generator, transparency: object) -> None:
    colours = rng.integers(0, 256, (16, 3), np.uint8)
    index = rng.integers(0, 16, (12, 17), np.uint8)
    image = PIL.Image.fromarray(index)
    image.putpalette(colours.tobytes())
    options = {} if transparency is None else {'transparency': transparency}
    found = read_image(saved(tmp_path / 'palette.png', image, **options)).pixels
    np.testing.assert_array_equal(found, colours[index])


def test_cmyk(tmp_path: Path, rng: np.random.Generator) -> None:
    cmyk = rng.integers(0, 256, (9, 14, 4), np.uint8)
    path = saved(tmp_path / 'cmyk.tiff', PIL.Image.fromarray(cmyk, mode='CMYK'))
    expected = (255.0 - cmyk[..., :3]) * (255.0 - cmyk[..., 3:]) / 255
    np.testing.assert_allclose(read_image(path).pixels, expected, atol=2)


@pytest.mark.parametrize('name', ['grey.png', 'grey.tiff'])
def test_16_bit_grey_is_the_high_byte(tmp_path: Path, rng: np.random.Generator, name: str) -> None:
    values = rng.integers(0, 65536, (11, 13)).astype(np.uint16)
    found = read_image(saved(tmp_path / name, PIL.Image.fromarray(values))).pixels
    np.testing.assert_array_equal(found, np.repeat((values // 256)[..., None], 3, axis=2))


def test_32_bit_grey_beyond_16_bits_is_refused(tmp_path: Path) -> None:
    values = np.array([[0, 65536]], np.int32)
    path = saved(tmp_path / 'grey.tiff', PIL.Image.fromarray(values))
    with pytest.raises(ImageError, match='16 bits'):
        read_image(path)


def test_fractions_are_read_as_detectron2_reads_them(
    tmp_path: Path, rng: np.random.Generator, detectron2: ModuleType
) -> None:
    from detectron2.data.detection_utils import read_image as reference

    values = (rng.random((11, 13)) * 255).astype(np.float32)
    path = saved(tmp_path / 'grey.tiff', PIL.Image.fromarray(values))
    np.testing.assert_array_equal(read_image(path).pixels, reference(str(path), 'RGB'))


@pytest.mark.parametrize(('low', 'high'), [(0, 1), (-1, 200), (0, 1000), (5, np.nan), (0, np.inf)])
def test_fractions_of_no_meaning_are_refused(tmp_path: Path, low: float, high: float) -> None:
    values = np.array([[low, high]], np.float32)
    path = saved(tmp_path / 'grey.tiff', PIL.Image.fromarray(values))
    with pytest.raises(ImageError, match='expected fractional values of 0 to 255'):
        read_image(path)


def test_every_suffix_of_the_formats_is_an_image(tmp_path: Path) -> None:
    PIL.Image.init()
    formats = ('BMP', 'GIF', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')
    known = {s for s, name in PIL.Image.registered_extensions().items() if name in formats}
    for suffix in known:
        (tmp_path / f'picture{suffix}').touch()
    assert {path.suffix for path in find_images([tmp_path])} == known


def remarks_on(path: Path) -> list[str]:
    lines: list[str] = []
    remarks = Remarks(lines.append)
    read_image(path, remarks)
    remarks.close()
    return [line.removeprefix(f'{path}: ') for line in lines]


def test_a_single_bright_pixel_hides_no_dark_picture(tmp_path: Path) -> None:
    values = np.full((20, 20), 300, np.uint16)
    values[3, 3] = 65535
    (line,) = remarks_on(saved(tmp_path / 'grey.png', PIL.Image.fromarray(values)))
    assert line == (
        '16-bit grey, values 300 to 65535 of 65535, 99% of them below 512: '
        'nearly black after // 256'
    )


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'CMYK'])
def test_usual_pictures_are_not_remarked_on(tmp_path: Path, mode: str) -> None:
    picture = PIL.Image.new('RGB', (20, 20), (90, 20, 160)).convert(mode)
    assert remarks_on(saved(tmp_path / 'a.tiff', picture)) == []


@pytest.mark.parametrize(
    ('orientation', 'turn'),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).swapaxes(0, 1)),
        (8, np.rot90),
    ],
)
@pytest.mark.parametrize('channels', [1, 3])
def test_exif_orientation_is_applied(
    tmp_path: Path, rng: np.random.Generator, orientation: int, turn: object, channels: int
) -> None:
    pixels = random_pixels(rng, channels)
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    picture = PIL.Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    path = saved(tmp_path / 'turned.png', picture, exif=exif)
    expected = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    np.testing.assert_array_equal(read_image(path).pixels, turn(expected))  # type: ignore[operator]


def test_broken_exif_is_passed_over(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = random_pixels(rng)
    exif = b'Exif\x00\x00MM\x00*\xff\xff\xff\xff'
    path = saved(tmp_path / 'broken.png', PIL.Image.fromarray(pixels), exif=exif)
    np.testing.assert_array_equal(read_image(path).pixels, pixels)


def png_announcing(width: int, height: int) -> bytes:
    header = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return (
        b'\x89PNG\r\n\x1a\n'
        + struct.pack('>I', 13)
        + header
        + struct.pack('>I', zlib.crc32(header))
    )


def test_unusable_files_are_refused_with_one_line(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    memory = io.BytesIO()
    PIL.Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(memory, 'PNG')
    files = {
        'empty.png': b'',
        'noise.jpg': rng.bytes(5000),
        'text.png': b'no image\n' * 20,
        'truncated.png': memory.getvalue()[:-40],
        'header.png': memory.getvalue()[:20],
        'bomb.png': png_announcing(9000, 9000),
        'bigger_bomb.png': png_announcing(60000, 60000),
        'program.eps': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n',
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / 'folder.png').mkdir()
    for name in [*files, 'folder.png', 'missing.png', 'missing/image.png', 'x' * 300]:
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name)
        text = str(caught.value)
        assert text.startswith(f'{tmp_path / name}: expected an image')
        assert '\n' not in text
        assert caught.value.__cause__ is None


def test_damaged_files_raise_image_errors_only(tmp_path: Path, rng: np.random.Generator) -> None:
    picture = PIL.Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8))
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = 6
    decoded, refused = 0, []
    for name in ('a.png', 'a.jpg', 'a.tiff', 'a.gif', 'a.webp', 'a.bmp'):
        path = saved(tmp_path / name, picture, exif=exif)
        whole = path.read_bytes()
        for _ in range(60):
            length = len(whole) if rng.random() < 0.8 else int(rng.integers(len(whole)))
            damaged = bytearray(whole[:length])
            for position in rng.integers(0, length, rng.integers(1, 6)) if length else ():
                damaged[position] = rng.integers(256)
            path.write_bytes(damaged)
            try:
                read_image(path)
                decoded += 1
            except ImageError as error:
                refused.append(str(error))
    assert decoded > 5
    assert len(refused) > 20
    assert '\n' not in ''.join(refused)


def test_deep_colours_of_a_ppm_are_said(tmp_path: Path) -> None:
    path = tmp_path / 'deep.ppm'
    values = np.full((8, 8, 3), 900, '>u2')
    path.write_bytes(b'P6 8 8 65535\n' + values.tobytes())
    said: list[str] = []
    read_image(path, Remarks(said.append))
    (line,) = said
    assert '16-bit colour' in line
    assert 'black' in line


def test_a_path_that_cannot_be_examined_stops_no_other(tmp_path: Path) -> None:
    good = tmp_path / 'good.png'
    PIL.Image.new('RGB', (8, 8)).save(good)
    long = tmp_path / ('a' * 300 + '.png')
    assert find_images([long, good]) == [long, good]
    with pytest.raises(ImageError) as caught:
        read_image(long)
    assert 'File name too long' in str(caught.value)
