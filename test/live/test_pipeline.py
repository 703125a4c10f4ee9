# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A frame's way from bytes to answer, with a decoder and a receiver of the test's own."""

from __future__ import annotations

import time

import numpy as np
import pytest

from segnode.config import Config
from segnode.engine import Engine, Segmentation
from segnode.errors import ImageError
from segnode.image import Image
from segnode.live.pipeline import Frame, Pipeline

HW = (48, 64)


@pytest.fixture(scope='module')
def engine() -> Engine:
    return Engine(Config(device='cpu', precision='fp32').replace({'resolution.short_side': 64}))


def decode(data: bytes) -> tuple[str, Image]:
    """Four bytes of header, then pixels."""
    header, pixels = data[:4].decode(), data[4:]
    if len(pixels) != HW[0] * HW[1] * 3:
        raise ImageError('cut short')
    return header, Image(np.frombuffer(pixels, np.uint8).reshape(*HW, 3), 'bgr')


def test_a_frame_is_decoded_segmented_and_delivered(engine: Engine) -> None:
    delivered: list[tuple[str, Image, Segmentation]] = []
    pipeline = Pipeline(engine, decode, lambda *answer: delivered.append(answer))
    pixels = np.random.default_rng(0).integers(0, 256, (*HW, 3), dtype=np.uint8)
    frame = Frame(b'head' + pixels.tobytes(), time.monotonic() - 0.25)
    done = pipeline.process(frame)
    ((header, image, result),) = delivered
    assert done.header == header == 'head'
    assert done.result is result
    np.testing.assert_array_equal(image.pixels, pixels)
    assert result.label_image.shape == HW
    names = list(done.stage_ms)
    assert names[:2] == ['wait', 'decode']
    assert names[-1] == 'publish'
    assert names[2:-1] == list(result.stage_ms)
    assert 250 <= done.stage_ms['wait'] < 2000
    assert all(ms >= 0 for ms in done.stage_ms.values())


def test_what_cannot_be_decoded_is_not_delivered(engine: Engine) -> None:
    delivered: list[object] = []
    pipeline = Pipeline(engine, decode, lambda *answer: delivered.append(answer))
    with pytest.raises(ImageError, match='cut short'):
        pipeline.process(Frame(b'head', time.monotonic()))
    assert not delivered
