# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""16-bit values of cameras that use fewer bits: scaled as told, and said where it does not fit."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from segnode.live.grey_values import GreyValues
from segnode.live.image_message import decode_compressed, decode_image

FRAMES = 30

Values = npt.NDArray[np.uint16]


def _of_bits(bits: int, height: int = 40, width: int = 30) -> Values:
    """All levels of so many bits, from black to white."""
    ramp = np.linspace(0, 2**bits - 1, height * width).astype(np.uint16)
    return ramp.reshape(height, width)


def _from_message(values: Values, grey: GreyValues, order: str = '<') -> npt.NDArray[np.uint8]:
    height, width = values.shape
    rows = np.full((height, width * 2 + 5), 0xFF, np.uint8)
    rows[:, : width * 2] = values.astype(f'{order}u2').view(np.uint8)
    image = decode_image(
        height=height,
        width=width,
        encoding='mono16',
        is_bigendian=order == '>',
        step=rows.shape[1],
        data=rows.tobytes(),
        grey=grey,
    )
    return image.pixels


def _from_png(values: Values, grey: GreyValues) -> npt.NDArray[np.uint8]:
    data = cv2.imencode('.png', values)[1].tobytes()
    return decode_compressed(format='mono16; png compressed ', data=data, grey=grey).pixels


@pytest.mark.parametrize('bits', range(8, 17))
def test_the_highest_bits_in_use_stay(bits: int) -> None:
    values = _of_bits(bits)
    expected = np.repeat((values >> (bits - 8)).astype(np.uint8)[..., None], 3, axis=2)
    assert expected.max() == 255
    for found in (
        _from_message(values, GreyValues(lambda: bits)),
        _from_message(values, GreyValues(lambda: bits), '>'),
        _from_png(values, GreyValues(lambda: bits)),
    ):
        np.testing.assert_array_equal(found, expected)


def test_colour_of_16_bits_in_a_png_is_scaled_as_well() -> None:
    values = np.stack([_of_bits(12), _of_bits(10), _of_bits(8)], axis=2)
    found = _from_png(values, GreyValues(lambda: 12))
    np.testing.assert_array_equal(found, (values >> 4).astype(np.uint8))


def test_what_lies_beyond_is_white_and_does_not_wrap_around() -> None:
    values = np.array([[4095, 4096, 4111, 65535]], np.uint16)
    found = _from_message(values, GreyValues(lambda: 12))
    assert found[0, :, 0].tolist() == [255, 255, 255, 255]


@pytest.mark.parametrize('decode', [_from_message, _from_png])
@pytest.mark.parametrize(('used', 'said'), [(14, 16), (12, 16), (10, 16), (8, 16), (10, 12)])
def test_fewer_bits_are_told_after_a_window(decode: object, used: int, said: int) -> None:
    grey = GreyValues(lambda: said)
    for _ in range(FRAMES - 1):
        decode(_of_bits(used), grey)
        assert grey.remark() == ''
    decode(_of_bits(used), grey)
    assert f'({used} bits)' in grey.remark()
    assert f'mono16_bits is {said}' in grey.remark()
    assert f'set mono16_bits to {used}' in grey.remark()


def test_the_remark_goes_once_the_bits_are_right() -> None:
    bits = 16
    grey = GreyValues(lambda: bits)
    for _ in range(FRAMES):
        grey.to_8_bits(_of_bits(12))
    assert 'set mono16_bits to 12' in grey.remark()
    bits = 12
    assert grey.remark() == ''


@pytest.mark.parametrize('bits', [8, 10, 12, 14, 16])
def test_right_bits_are_no_remark(bits: int) -> None:
    grey = GreyValues(lambda: bits)
    for _ in range(2 * FRAMES):
        grey.to_8_bits(_of_bits(bits))
        assert grey.remark() == ''


def test_a_dark_picture_among_others_is_no_remark() -> None:
    grey = GreyValues()
    for number in range(2 * FRAMES):
        grey.to_8_bits(_of_bits(16 if number % FRAMES == 0 else 9))
        assert grey.remark() == ''


def test_values_beyond_are_told_at_once() -> None:
    grey = GreyValues(lambda: 12)
    grey.to_8_bits(_of_bits(14))
    assert 'comes out white: set mono16_bits to 14' in grey.remark()


def test_a_hot_pixel_and_a_line_of_telemetry_do_not_count() -> None:
    values = _of_bits(12, 400, 300)
    values[0] = 65535
    values[200, 100] = 65535
    grey = GreyValues()
    for _ in range(FRAMES):
        grey.to_8_bits(values)
    assert 'set mono16_bits to 12' in grey.remark()
    right = GreyValues(lambda: 12)
    right.to_8_bits(values)
    assert right.remark() == ''


def test_a_camera_that_sends_something_else_is_no_remark() -> None:
    now_s = 1000.0
    grey = GreyValues(lambda: 12, lambda: now_s)
    grey.to_8_bits(_of_bits(14))
    assert grey.remark()
    now_s += 6
    assert grey.remark() == ''


def test_the_smallest_image() -> None:
    grey = GreyValues()
    assert grey.to_8_bits(np.array([[0xABCD]], np.uint16)).tolist() == [[0xAB]]
    assert grey.remark() == ''
