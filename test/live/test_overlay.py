# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What is drawn over an image."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from segnode.engine import Detections
from segnode.image import Image
from segnode.live.overlay import draw_overlay, instance_colours

CLASS_NAMES = ('cone', 'ball', 'Kübel', '桶')


def _detections(boxes: list[list[float]], class_ids: list[int]) -> Detections:
    return Detections(
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.5, len(boxes), dtype=np.float32),
        class_ids=np.array(class_ids, np.int64),
        mask_areas=np.zeros(len(boxes), np.int64),
    )


def _noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


@pytest.mark.parametrize('order', ['bgr', 'rgb'])
def test_without_detections_it_is_the_image_in_bgr(order: str) -> None:
    pixels = _noise(40, 60)
    overlay = draw_overlay(
        Image(pixels, order), _detections([], []), np.zeros((40, 60), np.uint16), CLASS_NAMES
    )
    np.testing.assert_array_equal(overlay, pixels if order == 'bgr' else pixels[..., ::-1])


def test_masks_are_tinted_and_the_image_is_left_alone() -> None:
    pixels = np.full((200, 300, 3), 100, np.uint8)
    pixels.setflags(write=False)
    labels = np.zeros((200, 300), np.uint16)
    labels[60:120, 50:150] = 1
    labels[60:120, 150:250] = 2
    detections = _detections([[50, 60, 150, 120], [150, 60, 250, 120]], [1, 1])
    overlay = draw_overlay(Image(pixels, 'bgr'), detections, labels, CLASS_NAMES)
    colours = instance_colours(detections.class_ids).astype(int)
    np.testing.assert_array_equal(overlay[90, 100], 50 + colours[0] // 2)
    np.testing.assert_array_equal(overlay[90, 200], 50 + colours[1] // 2)
    np.testing.assert_array_equal(overlay[119, 100], colours[0])
    np.testing.assert_array_equal(overlay[190, 290], [100, 100, 100])
    assert (colours[0] != colours[1]).any()


def test_odd_boxes_and_names_are_drawn() -> None:
    """Boxes at the edges, of no size, at fractions, and names beyond ASCII."""
    height, width = 48, 64
    boxes = [[0, 0, 64, 48], [63.2, 47.9, 64, 48], [10.5, 10.5, 10.5, 10.5], [-3, -3, 5, 5]]
    labels = np.full((height, width), 1, np.uint16)
    overlay = draw_overlay(
        Image(_noise(height, width), 'rgb'), _detections(boxes, [0, 1, 2, 3]), labels, CLASS_NAMES
    )
    assert overlay.shape == (height, width, 3)
    assert overlay.dtype == np.uint8


def test_smallest_image() -> None:
    image = Image(np.zeros((1, 1, 3), np.uint8), 'bgr')
    labels = np.ones((1, 1), np.uint16)
    overlay = draw_overlay(image, _detections([[0, 0, 1, 1]], [0]), labels, CLASS_NAMES)
    assert overlay.shape == (1, 1, 3)


def label_of(name: str) -> npt.NDArray[np.uint8]:
    """Return the picture of one box with a name that is class 1."""
    image = Image(np.full((200, 300, 3), 100, np.uint8), 'bgr')
    labels = np.zeros((200, 300), np.uint16)
    return draw_overlay(image, _detections([[10, 60, 200, 120]], [1]), labels, ('cone', name))


@pytest.mark.parametrize(
    ('name', 'other'),
    [('конус', 'палка'), ('κώνος', 'μπάλα'), ('Kübel', 'Köbel'), ('كرة', 'علب'), ('😀', '😁')],
)
def test_letters_of_other_scripts_are_drawn(name: str, other: str) -> None:
    fonts = list(Path('/usr/share/fonts').rglob('DejaVuSans.ttf'))
    if not fonts:
        pytest.skip('needs the font DejaVu Sans, which has these letters')
    assert (label_of(name) != label_of(other)).any()
    # Neither boxes for missing letters nor the number of the class.
    assert (label_of(name) != label_of('\U00011380' * len(name))).any()


def test_a_name_without_a_font_is_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a script that no machine's font is likely to have.
    np.testing.assert_array_equal(label_of('\U00011380'), label_of('class 1'))


def test_fonts_are_found_with_and_without_fontconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    from segnode.live import labels

    found = []
    for program in (labels.shutil.which, lambda _: None):
        monkeypatch.setattr(labels.shutil, 'which', program)
        labels.class_labels.cache_clear()
        found.append(labels.class_labels(('конус', 'cone', '\U00011380')))
    assert found[0] == found[1]
    assert [label.text for label in found[0]][1:] == ['cone', 'class 2']
    assert found[0][1].font_file == ''


def test_frames_do_not_look_for_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    from segnode.live import labels

    label_of('конус')

    def search(*_: object) -> None:
        raise AssertionError('a frame searched')

    monkeypatch.setattr(labels, 'FontSearch', search)
    monkeypatch.setattr(labels, '_covers', search)
    label_of('конус')


def test_a_search_for_fonts_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many names there are, and however slow fontconfig is."""
    from segnode.live import labels

    program = tmp_path / 'fc-list'
    program.write_text('#!/bin/sh\nexec sleep 60\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    monkeypatch.setattr(labels, '_SEARCH_S', 0.5, raising=False)
    monkeypatch.setattr(labels, '_SEARCH_TIMEOUT_S', 0.5, raising=False)
    labels.class_labels.cache_clear()
    started_s = time.monotonic()
    found = labels.class_labels(tuple(chr(0x4E00 + n) for n in range(40)))
    assert time.monotonic() - started_s < 15
    assert len(found) == 40
    labels.class_labels.cache_clear()
