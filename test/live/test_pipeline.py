# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A frame's way from bytes to answer, with a decoder and a receiver of the test's own."""

from __future__ import annotations

import time

import numpy as np
import pytest

from segnode.config import Config
from segnode.engine import Engine, Segmentation
from segnode.engine.host_buffers import FrameMemory
from segnode.errors import ImageError
from segnode.image import Image
from segnode.live import pipeline
from segnode.live.pipeline import Frame, StaleFrame

pytestmark = pytest.mark.timed

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
    pixels = np.random.default_rng(0).integers(0, 256, (*HW, 3), dtype=np.uint8)
    frame = Frame(b'head' + pixels.tobytes(), time.monotonic() - 0.25)
    (answered,) = pipeline.segment([pipeline.decode(frame, decode)], engine)
    stage_ms = pipeline.deliver(answered, lambda *answer: delivered.append(answer))
    took_ms = (time.monotonic() - frame.received_s) * 1e3
    ((header, image, result),) = delivered
    assert answered.header == header == 'head'
    assert answered.result is result
    np.testing.assert_array_equal(image.pixels, pixels)
    assert result.label_image.shape == HW
    names = list(stage_ms)
    assert names[:3] == ['wait', 'decode', 'device_wait']
    assert names[-2:] == ['publish_wait', 'publish']
    assert names[3:-2] == list(result.stage_ms)
    assert 250 <= stage_ms['wait'] < 2000
    assert all(ms >= 0 for ms in stage_ms.values())
    # Every millisecond since it came stands somewhere.
    assert sum(stage_ms.values()) >= 0.9 * took_ms


def test_the_time_between_the_steps_is_told(engine: Engine) -> None:
    frame = Frame(b'head' + bytes(3 * HW[0] * HW[1]), time.monotonic())
    decoded = pipeline.decode(frame, decode)
    time.sleep(0.02)
    answers = pipeline.segment([decoded, decoded], engine, 0.5)
    time.sleep(0.03)
    for answered in answers:
        assert answered.result.network_hw == (32, 43)
        stage_ms = pipeline.deliver(answered, lambda *_: time.sleep(0.01))
        assert stage_ms['device_wait'] >= 20
        assert stage_ms['publish_wait'] >= 30
        assert stage_ms['publish'] >= 10


def test_what_cannot_be_decoded_is_told() -> None:
    with pytest.raises(ImageError, match='cut short'):
        pipeline.decode(Frame(b'head', time.monotonic()), decode)


def test_what_is_too_old_is_not_for_the_engine() -> None:
    def refuse(header: str) -> None:
        assert header == 'head'
        raise StaleFrame('old')

    with pytest.raises(StaleFrame):
        pipeline.decode(
            Frame(b'head' + bytes(3 * HW[0] * HW[1]), time.monotonic()), decode, refuse
        )


def test_a_frame_that_is_not_admitted_gives_its_memory_back() -> None:
    memory, addresses = FrameMemory(pinned=False), []

    def read(data: bytes) -> tuple[str, Image]:
        pixels = memory.lend(len(data)).reshape(*HW, 3)
        pixels[:] = np.frombuffer(data, np.uint8).reshape(*HW, 3)
        addresses.append(pixels.ctypes.data)
        return 'head', Image(pixels, 'bgr')

    def stale(header: str) -> None:
        raise StaleFrame

    frame = Frame(bytes(HW[0] * HW[1] * 3), time.monotonic())
    for _ in range(3):
        with pytest.raises(StaleFrame):
            pipeline.decode(frame, read, stale)
    admitted = pipeline.decode(frame, read)
    pipeline.decode(frame, read)
    assert addresses[:4] == [admitted.image.pixels.ctypes.data] * 4
    assert addresses[4] != addresses[3]
