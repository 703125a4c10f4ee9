# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The captured path with CUDA graphs emulated on a CPU, against the dynamic path."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import test_gpu_engine
import torch
from emulated_graphs import EmulatedCuda

from segnode.config import Config
from segnode.demo.scene import VALIDATION_SEEDS, Scene
from segnode.engine import Engine, Segmentation
from segnode.image import Image

CONFIG = Config(device='cpu', precision='fp32').replace(
    {'resolution.short_side': 128, 'proposals': 100}
)
SEEDS = VALIDATION_SEEDS[300:304]
MASK_STAGES = {'mask_head', 'paste'}


@pytest.fixture(scope='module', autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def images() -> list[Image]:
    # Half as large, as the plain operators paste into whole images.
    scenes = [Scene(seed).frame(0).image[::2, ::2] for seed in SEEDS]
    return [Image(np.ascontiguousarray(scene), 'bgr') for scene in scenes]


@pytest.fixture(scope='module')
def dynamic() -> Engine:
    return Engine(CONFIG)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> EmulatedCuda:
    emulated = EmulatedCuda()
    emulated.install(monkeypatch)
    return emulated


def attempt(engine: Engine, images: list[Image]) -> list[Segmentation] | str:
    """The answers, or the line that the frame failed with."""
    try:
        return engine.segment(images)
    except Exception as error:  # noqa: BLE001 - what it says is the finding
        return f'{type(error).__name__}: {error}'


def difference(answer: Segmentation, expected: Segmentation) -> str:
    """In what an answer differs from the dynamic path's, or an empty text."""
    a, b = answer.detections, expected.detections
    if len(a) != len(b):
        return f'{len(a)} instances in place of {len(b)}'
    if not np.array_equal(a.class_ids, b.class_ids):
        return 'other classes'
    if not np.allclose(a.boxes_xyxy, b.boxes_xyxy, atol=1e-2):
        return f'boxes {np.abs(a.boxes_xyxy - b.boxes_xyxy).max()} px apart'
    if not np.allclose(a.scores, b.scores, atol=1e-4):
        return 'other scores'
    if not np.allclose(a.mask_areas, b.mask_areas, atol=3):
        return 'other areas'
    wrong = float((answer.label_image != expected.label_image).mean())
    if wrong > 1e-3:
        return f'{wrong:.1%} of the labels differ'
    counts = {k: (answer.counts[k], expected.counts[k]) for k in expected.counts}
    return str({k: v for k, v in counts.items() if v[0] != v[1]} or '')


def configured(engines: tuple[Engine, ...], changes: dict[str, object]) -> None:
    for engine in engines:
        engine.configure(CONFIG.replace(changes))


def test_every_frame_is_answered(cuda: EmulatedCuda, dynamic: Engine, images: list[Image]) -> None:
    """Frames of few and of many instances, so that graphs of several capacities follow."""
    engine = Engine(CONFIG, static=True)
    wrong = []
    for threshold in (-1, 0.9, 0.01, 0.0, 0.6, 0.2):
        configured((engine, dynamic), {'filter.score_threshold': threshold})
        for number, image in enumerate(images):
            answers = attempt(engine, [image])
            if not isinstance(answers, str):
                answers = difference(answers[0], dynamic.segment([image])[0])
            if answers:
                wrong.append(f'threshold {threshold}, frame {number}: {answers}')
    dynamic.configure(CONFIG)
    assert not wrong, '\n'.join(wrong)
    assert cuda.captures > 0
    assert cuda.replays >= 2 * 20


def stages_of_an_empty_frame_after_a_full_one(engine: Engine, image: Image) -> dict[str, float]:
    full = attempt(engine, [image])
    assert not isinstance(full, str), full
    assert set(full[0].stage_ms) >= MASK_STAGES
    engine.configure(CONFIG.replace({'filter.score_threshold': 1.0}))
    empty = attempt(engine, [image])
    assert not isinstance(empty, str), empty
    assert len(empty[0].detections) == 0
    return empty[0].stage_ms


@pytest.mark.parametrize('graphs', [True, False], ids=['emulated', 'plain'])
def test_stage_times_are_never_an_earlier_frames(
    graphs: bool, request: pytest.FixtureRequest, images: list[Image]
) -> None:
    if graphs:
        request.getfixturevalue('cuda')
    engine = Engine(CONFIG, static=True)
    stages = stages_of_an_empty_frame_after_a_full_one(engine, images[0])
    stale = {name: ms for name, ms in stages.items() if ms < 0 or name in MASK_STAGES}
    assert not stale, f'a frame without masks reports {stale} (ms)'


def test_stage_times_lie_within_the_frame(cuda: EmulatedCuda, images: list[Image]) -> None:
    engine = Engine(CONFIG, static=True)
    for image in images:
        start = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        assert not isinstance(first := attempt(engine, [image]), str), first
        start.record()
        answers = attempt(engine, [image])
        end.record()
        assert not isinstance(answers, str), answers
        stages = answers[0].stage_ms
        assert all(ms >= 0 for ms in stages.values()), stages
        assert sum(stages.values()) <= start.elapsed_time(end)


def sizes(count: int) -> list[Image]:
    """Frames of different sizes, each of which needs a path of its own."""
    return [Image(np.zeros((64 + 8 * n, 96, 3), np.uint8), 'bgr') for n in range(count)]


@pytest.fixture
def eager_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(100, 1, 1)
    yield
    gc.set_threshold(*before)


def test_an_evicted_path_is_freed_without_the_collector(cuda: EmulatedCuda) -> None:
    from segnode.static_path import StaticPaths

    engine = Engine(CONFIG, static=True)
    assert engine._static is not None
    first, *others = sizes(StaticPaths.LIMIT + 1)
    engine.segment([first])
    ((_, path),) = engine._static._paths.items()
    evicted = weakref.ref(path)
    del path, _
    gc.collect()
    gc.disable()
    try:
        for image in others:
            engine.segment([image])
        assert evicted() is None, 'an evicted path and its graphs live on until a collection'
    finally:
        gc.enable()


def test_the_collector_cannot_spoil_a_capture(cuda: EmulatedCuda, eager_collector: None) -> None:
    lines: list[str] = []
    engine = Engine(CONFIG, lines.append, static=True)
    for image in sizes(6):
        garbage: list[object] = [torch.cuda.CUDAGraph()]
        garbage.append(garbage)
        del garbage
        engine.segment([image])
    given_up = [line for line in lines if 'no CUDA graphs' in line]
    assert not given_up, given_up


def test_a_launch_by_hand_spoils_no_graph(
    cuda: EmulatedCuda,
    dynamic: Engine,
    images: list[Image],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A test for GPUs does it, and its engine is shared with those behind it."""
    monkeypatch.setattr(torch.cuda, 'set_sync_debug_mode', lambda mode: None)
    engine = Engine(CONFIG, static=True)
    engine.segment(images[:1])
    test_gpu_engine.test_nothing_stops_the_host_before_the_packet(engine)
    # Few instances, so that the capacity that was launched is used.
    configured((engine, dynamic), {'filter.score_threshold': 0.5})
    for number, image in enumerate(images):
        wrong = difference(engine.segment([image])[0], dynamic.segment([image])[0])
        assert not wrong, f'frame {number} after a launch by hand: {wrong}'
    dynamic.configure(CONFIG)
