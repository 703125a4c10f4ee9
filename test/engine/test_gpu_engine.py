# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The captured engine on a GPU: no stops, one launch a sequence, right frames, flat memory.

These tests import neither ROS nor Detectron2, so that they run wherever there is a GPU.
"""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
import torch

from segnode.config import Config
from segnode.demo.scene import VALIDATION_SEEDS, Scene
from segnode.engine import Engine, Segmentation
from segnode.engine.static import StaticBackend
from segnode.image import Image

pytestmark = pytest.mark.gpu

CONFIG = Config(device='cuda', precision='fp32').replace({'filter.score_threshold': 0.5})
SYNCHRONISING = ('Synchronize', 'cudaMemcpy', 'cudaMalloc', 'cudaFree')


def frames(count: int) -> list[Image]:
    return [
        Image(Scene(seed).frame(5).image, 'bgr') for seed in VALIDATION_SEEDS[400 : 400 + count]
    ]


@pytest.fixture(scope='module')
def engine() -> Engine:
    engine = Engine(CONFIG)
    engine.warm_up((480, 640))
    return engine


@pytest.fixture(scope='module')
def on_cpu() -> Engine:
    return Engine(Config(device='cpu', precision='fp32').replace({'filter.score_threshold': 0.5}))


def matched_share(a: Segmentation, b: Segmentation, pixels: float, score: float) -> float:
    if not len(a.detections):
        return float(not len(b.detections))
    boxes = np.abs(a.detections.boxes_xyxy[:, None] - b.detections.boxes_xyxy[None]).max(-1)
    scores = np.abs(a.detections.scores[:, None] - b.detections.scores[None])
    same = a.detections.class_ids[:, None] == b.detections.class_ids[None]
    return float(((boxes <= pixels) & (scores <= score) & same).any(1).mean())


def runtime_calls(engine: Engine, images: list[Image], count: int) -> Counter[str]:
    """Names of the CUDA runtime calls of ``count`` frames."""
    engine.segment(images)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(count):
            engine.segment(images)
        torch.cuda.synchronize()
    return Counter(event.name for event in profile.events() if event.name.startswith('cuda'))


def test_float32_agrees_with_the_cpu(engine: Engine, on_cpu: Engine) -> None:
    allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        exact = Engine(CONFIG)
        for image in frames(4):
            (a,), (b,) = on_cpu.segment([image]), exact.segment([image])
            assert matched_share(a, b, 0.05, 1e-3) == 1.0
            assert (a.label_image != b.label_image).mean() < 1e-3
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed


@pytest.mark.parametrize('precision', ['fp16', 'bf16'])
def test_half_precision_agrees_with_float32(on_cpu: Engine, precision: str) -> None:
    half = Engine(CONFIG.replace({'precision': precision}))
    shares, pixels = [], []
    for image in frames(12):
        (a,), (b,) = on_cpu.segment([image]), half.segment([image])
        shares.append(matched_share(a, b, 0.5, 0.01))
        pixels.append(((a.label_image > 0) == (b.label_image > 0)).mean())
    assert np.mean(shares) >= 0.95
    assert np.mean(pixels) >= 0.995


def test_nothing_stops_the_host_before_the_packet(engine: Engine) -> None:
    """The stop-free span, run as plain launches, raises on any synchronisation."""
    assert isinstance(engine._backend, StaticBackend)
    (path,) = list(engine._backend._paths.values())[-1:]
    program = path._program
    with torch.inference_mode():
        program.label(8, program.detect())
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode('error')
        try:
            program.label(8, program.detect())
        finally:
            torch.cuda.set_sync_debug_mode('default')
        torch.cuda.synchronize()


def test_one_launch_a_sequence_and_two_stops_a_frame(engine: Engine) -> None:
    count = 5
    calls = runtime_calls(engine, frames(1), count)
    assert calls['cudaGraphLaunch'] == 2 * count
    stops = sum(n for name, n in calls.items() if 'Synchronize' in name)
    # The packet's and the answer's; one more ends the measurement.
    assert stops <= 2 * count + 2
    kernels = sum(n for name, n in calls.items() if 'LaunchKernel' in name)
    assert kernels <= 2 * count


def test_settings_change_between_frames_without_a_wrong_frame(engine: Engine) -> None:
    """Another thread changes filters and resolution while frames run."""
    (image,) = frames(1)
    options = [
        CONFIG,
        CONFIG.replace({'filter.score_threshold': 0.9}),
        CONFIG.replace({'resolution.short_side': 320}),
        CONFIG.replace({'resolution.short_side': 320, 'filter.max_instances': 2}),
    ]
    expected = []
    for option in options:
        engine.configure(option)
        expected.append(engine.segment([image])[0])
    stop = threading.Event()

    def change() -> None:
        index = 0
        while not stop.is_set():
            engine.configure(options[index % len(options)])
            index += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            (answer,) = engine.segment([image])
            assert any(
                len(answer.detections) == len(right.detections)
                and np.array_equal(answer.label_image, right.label_image)
                for right in expected
            )
    finally:
        stop.set()
        thread.join()
        engine.configure(CONFIG)


def test_frames_are_right_while_paths_are_built_and_evicted(engine: Engine) -> None:
    """A warm-up, a capture and the end of a graph beside running frames touch none of theirs."""
    (image,) = frames(1)
    sides = (480, 256, 288, 320, 352, 384)  # more than paths are kept
    options = [CONFIG.replace({'resolution.short_side': side}) for side in sides]
    expected = []
    for option in options:
        engine.configure(option)
        expected.append(engine.segment([image])[0])
    stop, failed = threading.Event(), []

    def change() -> None:
        try:
            for option in options * 2:
                engine.configure(option)
        except Exception as error:  # noqa: BLE001 - shown below
            failed.append(error)
        finally:
            stop.set()

    thread = threading.Thread(target=change)
    thread.start()
    wrong = 0
    while not stop.is_set():
        (answer,) = engine.segment([image])
        fits = [right for right in expected if right.network_hw == answer.network_hw]
        wrong += not any(
            len(answer.detections) == len(right.detections)
            and (answer.label_image != right.label_image).mean() < 1e-3
            for right in fits
        )
    thread.join()
    engine.configure(CONFIG)
    assert not failed, failed
    assert wrong == 0


def test_batch_gives_the_same_as_one_by_one(engine: Engine) -> None:
    images = frames(4)
    for image, answer in zip(images, engine.segment(images), strict=True):
        (alone,) = engine.segment([image])
        assert matched_share(alone, answer, 0.1, 1e-2) == 1.0
        assert (alone.label_image != answer.label_image).mean() < 2e-3


def test_every_capacity_is_right(engine: Engine, on_cpu: Engine) -> None:
    (image,) = frames(1)
    try:
        for threshold in (0.9, 0.3, 0.05, 0.01, 0.0):
            for each in (engine, on_cpu):
                each.configure(each.config.replace({'filter.score_threshold': threshold}))
            (a,), (b,) = on_cpu.segment([image]), engine.segment([image])
            assert matched_share(a, b, 0.5, 1e-2) >= 0.95
    finally:
        for each in (engine, on_cpu):
            each.configure(each.config.replace({'filter.score_threshold': 0.5}))


def test_memory_stays_flat(engine: Engine) -> None:
    images = frames(8)
    for image in images:
        engine.segment([image])
    torch.cuda.synchronize()
    before, reserved = engine.memory()['in_use'], torch.cuda.memory_reserved()
    for index in range(10_000):
        engine.segment([images[index % len(images)]])
    assert engine.memory()['in_use'] == before
    assert torch.cuda.memory_reserved() == reserved


def test_out_of_memory_is_one_typed_error_and_the_next_frame_runs() -> None:
    from segnode.errors import OutOfMemoryError

    engine = Engine(CONFIG)
    (image,) = frames(1)
    (right,) = engine.segment([image])
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        huge = CONFIG.replace({'resolution.short_side': 4096, 'resolution.long_side': 8192})
        with pytest.raises(OutOfMemoryError):
            engine.configure(huge)
        assert engine.config == CONFIG
        (answer,) = engine.segment([image])
        assert matched_share(right, answer, 0.1, 1e-2) == 1.0
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
