# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The soak's images: every one decodes to its size, or is refused, as it says."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from segnode.errors import ImageError
from segnode.image import Image
from segnode.live.image_message import decode_compressed, decode_image
from segnode.soak.faults import ANSWERED, DROPPED, FAULTS
from segnode.soak.frames import ORDINARY, Frame, camera_pictures, deck, png_bomb, write_deck

RENDERED = [np.random.default_rng(0).integers(0, 256, (60, 84, 3), np.uint8)] * 2
FRAMES = [
    frame
    for transport in ('raw', 'compressed')
    for frame in deck(RENDERED, transport, faults=True)
    if frame.type != 'serialized'
]


def decode(frame: Frame) -> Image:
    if frame.type == 'compressed':
        return decode_compressed(data=frame.data, **frame.fields)
    fields = {**frame.fields, 'is_bigendian': bool(frame.fields['is_bigendian'])}
    return decode_image(data=frame.data, **fields)


@pytest.mark.parametrize('frame', FRAMES, ids=lambda frame: f'{frame.type}-{frame.kind}')
def test_every_frame_is_what_it_says(frame: Frame) -> None:
    if frame.answer_hw is None:
        with pytest.raises(ImageError):
            decode(frame)
    else:
        assert decode(frame).pixels.shape == (*frame.answer_hw, 3)


def test_every_kind_is_described() -> None:
    for transport in ('raw', 'compressed'):
        for frame in deck(RENDERED, transport, faults=True):
            if frame.kind != ORDINARY:
                expected = DROPPED if frame.answer_hw is None else ANSWERED
                assert FAULTS[frame.kind] == expected
    assert {frame.kind for frame in deck(RENDERED, 'raw', faults=False)} == {ORDINARY}


def test_a_bomb_is_small_and_whole() -> None:
    bomb = png_bomb(60_000)
    assert len(bomb) < 5000
    with pytest.raises(ImageError, match='60000 x 60000'):
        decode_compressed(format='png', data=bomb)
    # The same file of a size that holds is a picture.
    assert cv2.imdecode(np.frombuffer(png_bomb(100), np.uint8), cv2.IMREAD_COLOR) is not None


def test_cameras_have_sizes_of_their_own() -> None:
    sizes = [camera_pictures(RENDERED, camera)[0].shape for camera in range(4)]
    assert sizes == [(60, 84, 3), (44, 62, 3), (30, 42, 3), (60, 84, 3)]


def test_a_deck_comes_back_as_it_was_written(tmp_path: Path) -> None:
    frames = deck(RENDERED, 'raw', faults=True)
    write_deck(tmp_path / 'deck.npz', frames)
    with np.load(tmp_path / 'deck.npz', allow_pickle=False) as arrays:
        described = json.loads(str(arrays['frames']))
        data = [arrays[f'data_{i}'].tobytes() for i in range(len(frames))]
    assert [(f.type, f.fields) for f in frames] == [(d['type'], d['fields']) for d in described]
    assert [frame.data for frame in frames] == data
