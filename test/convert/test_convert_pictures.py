# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""In the messages of a bag the node sees what ``predict`` sees in the files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from seeds import fresh_seeds

from segnode.convert.frames import Frame
from segnode.convert.pictures import picture_frames
from segnode.live.image_message import decode_compressed
from segnode.picture_files import read_image


def picture(seed: int = 0) -> PIL.Image.Image:
    """Return a smooth picture that no turn leaves as it is, which JPEG keeps well."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 6, 3), np.uint8)
    return PIL.Image.fromarray(coarse).resize((120, 80), PIL.Image.Resampling.BICUBIC)


def frame_of(path: Path, *, raw: bool = False) -> Frame:
    said: list[str] = []
    left_out: Counter[str] = Counter()
    (frame,) = picture_frames([path], said.append, left_out, raw=raw)
    assert not left_out
    return frame


def difference(frame: Frame, path: Path) -> float:
    """Return the largest difference of what the node and ``predict`` see."""
    seen = decode_compressed(format=frame.format, data=frame.encoded)
    expected = read_image(path)
    assert frame.image_hw == (expected.height, expected.width)
    assert seen.pixels.shape == expected.pixels.shape
    return float(np.abs(seen.pixels[..., ::-1].astype(int) - expected.pixels).max())


@pytest.mark.parametrize('seed', fresh_seeds(2))
@pytest.mark.parametrize('mode', ['RGB', 'L'])
@pytest.mark.parametrize('progressive', [False, True])
def test_jpeg_passes_unchanged(seed: int, mode: str, progressive: bool, tmp_path: Path) -> None:
    path = tmp_path / 'x.jpg'
    picture(seed).convert(mode).save(path, progressive=progressive)
    frame = frame_of(path)
    assert (frame.encoded, frame.format) == (path.read_bytes(), 'jpeg')
    assert difference(frame, path) <= 8


@pytest.mark.parametrize('mode', ['RGB', 'L', 'P', '1', 'RGBA', 'LA'])
def test_png_of_8_bits_passes_unchanged(mode: str, tmp_path: Path) -> None:
    path = tmp_path / 'x.png'
    image = picture()
    if mode in ('RGBA', 'LA'):
        image.putalpha(PIL.Image.linear_gradient('L').resize(image.size))
    image.convert(mode).save(path)
    frame = frame_of(path)
    assert (frame.encoded, frame.format) == (path.read_bytes(), 'png')
    assert difference(frame, path) == 0


@pytest.mark.parametrize('suffix', ['jpg', 'png'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_what_exif_turns_is_written_upright(suffix: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / f'x.{suffix}'
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    picture().save(path, exif=exif)
    frame = frame_of(path)
    if orientation == 1:
        assert frame.encoded == path.read_bytes()
        return
    assert frame.format == 'png'
    assert frame.encoded != path.read_bytes()
    assert difference(frame, path) == 0


def test_the_first_that_is_written_anew_is_named_and_the_others_are_counted(
    tmp_path: Path,
) -> None:
    paths = [tmp_path / f'{k}.bmp' for k in range(3)]
    for path in paths:
        picture().save(path)
    said: list[str] = []
    list(picture_frames(paths, said.append, Counter(), raw=False))
    assert [str(paths[0]) in line for line in said] == [True, False]
    assert said[1].endswith('3 pictures in all')


@pytest.mark.parametrize(
    ('name', 'mode'),
    [
        ('x.bmp', 'RGB'), ('x.gif', 'P'), ('x.webp', 'RGB'), ('x.tif', 'RGB'), ('x.ppm', 'RGB'),
        ('x.jpg', 'CMYK'), ('x.png', 'I;16'),
    ],
)  # fmt: skip
def test_what_the_node_would_see_otherwise_is_a_png_of_what_predict_sees(
    name: str, mode: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if mode == 'I;16':
        PIL.Image.fromarray(np.arange(0, 65536, 13, np.uint16)[:5000].reshape(50, 100)).save(path)
    else:
        picture().convert(mode).save(path)
    frame = frame_of(path)
    assert frame.format == 'png'
    assert difference(frame, path) == 0


@pytest.mark.parametrize('name', ['x.jpg', 'x.png', 'x.bmp'])
def test_raw_is_what_predict_sees(name: str, tmp_path: Path) -> None:
    picture().save(tmp_path / name)
    frame = frame_of(tmp_path / name, raw=True)
    assert frame.pixels_bgr is not None
    expected = read_image(tmp_path / name).pixels
    np.testing.assert_array_equal(frame.pixels_bgr[..., ::-1], expected)
