# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The captured path with CUDA graphs emulated on a CPU, against the dynamic path."""

from __future__ import annotations

import dataclasses
import gc
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_gpu_engine
import torch
from emulated_graphs import EmulatedCuda
from narrow_checkpoint import ARCHITECTURE
from torch.utils._python_dispatch import TorchDispatchMode

from segnode.checkpoint import NativeModel, load_model
from segnode.checkpoint.planting import plant_weights
from segnode.config import Config
from segnode.demo.scene import VALIDATION_SEEDS, Scene
from segnode.engine import Engine, Segmentation
from segnode.engine.input_channels import CHANNELS
from segnode.engine.path import CAPACITIES
from segnode.engine.static import StaticBackend
from segnode.errors import OutOfMemoryError
from segnode.image import Image
from segnode.kernels.preprocess import preprocess
from segnode.model.architecture import TORCHVISION, Pooler

CONFIG = Config(device='cpu', precision='fp32').replace(
    {'resolution.short_side': 128, 'proposals': 100}
)
# Candidates of a level for the RPN's NMS, which is an operator a box; the model's own are 500.
CANDIDATES = 100
# Enough for a frame to have a choice; each costs a capture.
FEW_CAPACITIES = (8, 100)
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
    # A quarter as large, as the plain operators paste into whole images.
    scenes = [Scene(seed).frame(0).image[::4, ::4] for seed in SEEDS]
    return [Image(np.ascontiguousarray(scene), 'bgr') for scene in scenes]


@pytest.fixture(scope='module')
def model() -> NativeModel:
    found = load_model(CONFIG, lambda _: None)
    assert isinstance(found, NativeModel)
    architecture = dataclasses.replace(found.architecture, rpn_pre_nms_topk=CANDIDATES)
    return dataclasses.replace(found, architecture=architecture)


@pytest.fixture(scope='module')
def dynamic(model: NativeModel) -> Engine:
    return Engine(CONFIG, model=model)


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> EmulatedCuda:
    """The device, for an engine that captures all that one on a GPU does."""
    emulated = EmulatedCuda()
    emulated.install(monkeypatch)
    return emulated


@pytest.fixture
def cuda(whole: EmulatedCuda, monkeypatch: pytest.MonkeyPatch) -> EmulatedCuda:
    """The device, for engines that are built sooner: few capacities, convolutions not fused."""
    for module in ('path', 'static'):
        monkeypatch.setattr(f'segnode.engine.{module}.CAPACITIES', FEW_CAPACITIES)
    # Each of them is tried out whenever an engine is built.
    monkeypatch.setattr('segnode.engine.network.fuse_convolutions', lambda model: 'none')
    return whole


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
    return '' if answer.counts == expected.counts else f'{answer.counts}, not {expected.counts}'


def configured(engines: tuple[Engine, ...], changes: dict[str, object]) -> None:
    for engine in engines:
        engine.configure(CONFIG.replace(changes))


def test_every_frame_is_answered(
    whole: EmulatedCuda, model: NativeModel, dynamic: Engine, images: list[Image]
) -> None:
    """Frames of few and of many instances, so that graphs of several capacities follow."""
    engine = Engine(CONFIG, static=True, model=model)
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
    assert whole.captures == 1 + len(CAPACITIES)
    assert whole.replays >= 2 * 20


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
    graphs: bool, request: pytest.FixtureRequest, images: list[Image], model: NativeModel
) -> None:
    if graphs:
        request.getfixturevalue('cuda')
    engine = Engine(CONFIG, static=True, model=model)
    stages = stages_of_an_empty_frame_after_a_full_one(engine, images[0])
    stale = {name: ms for name, ms in stages.items() if ms < 0 or name in MASK_STAGES}
    assert not stale, f'a frame without masks reports {stale} (ms)'


def test_stage_times_lie_within_the_frame(
    cuda: EmulatedCuda, images: list[Image], model: NativeModel
) -> None:
    engine = Engine(CONFIG, static=True, model=model)
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


def test_an_evicted_path_is_freed_without_the_collector(
    cuda: EmulatedCuda, model: NativeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StaticBackend, 'SIZES', 2)
    engine = Engine(CONFIG, static=True, model=model)
    assert isinstance(engine._backend, StaticBackend)
    first, *others = sizes(3)
    engine.segment([first])
    ((_, path),) = engine._backend._paths.items()
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


def test_the_collector_cannot_spoil_a_capture(
    cuda: EmulatedCuda, eager_collector: None, model: NativeModel
) -> None:
    lines: list[str] = []
    engine = Engine(CONFIG, lines.append, static=True, model=model)
    for image in sizes(3):
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
    model: NativeModel,
) -> None:
    """A test for GPUs does it, and its engine is shared with those behind it."""
    monkeypatch.setattr(torch.cuda, 'set_sync_debug_mode', lambda mode: None)
    engine = Engine(CONFIG, static=True, model=model)
    engine.segment(images[:1])
    test_gpu_engine.test_nothing_stops_the_host_before_the_packet(engine)
    # Few instances, so that the capacity that was launched is used.
    configured((engine, dynamic), {'filter.score_threshold': 0.5})
    for number, image in enumerate(images):
        wrong = difference(engine.segment([image])[0], dynamic.segment([image])[0])
        assert not wrong, f'frame {number} after a launch by hand: {wrong}'
    dynamic.configure(CONFIG)


@pytest.mark.parametrize(
    'changes',
    [
        {'filter.nms_threshold': 0.2},
        {'filter.classes': ['cone', 'ball']},
        {'filter.max_instances': 2},
        {'filter.max_instances': 130, 'filter.score_threshold': 0.0},
        {'filter.min_mask_area': 100},
        {'filter.max_mask_area': 100},
        {'mask_threshold': 0.3},
        {'resolution.short_side': 96},
        {'proposals': 30},
        {'proposals': 2, 'filter.score_threshold': 0.0},
        {'filter.score_threshold': 1.0},
    ],
    ids=str,
)
def test_settings_change_both_alike(
    cuda: EmulatedCuda,
    dynamic: Engine,
    images: list[Image],
    changes: dict[str, object],
    model: NativeModel,
) -> None:
    engine = Engine(CONFIG, static=True, model=model)
    before = engine.segment(images[:1])[0]
    try:
        configured((engine, dynamic), changes)
        for image in images[:2]:
            answers = attempt(engine, [image])
            assert not isinstance(answers, str), answers
            wrong = difference(answers[0], dynamic.segment([image])[0])
            assert not wrong, wrong
    finally:
        configured((engine, dynamic), {})
    assert not difference(engine.segment(images[:1])[0], before)


def test_whole_masks_are_the_same(
    cuda: EmulatedCuda, dynamic: Engine, images: list[Image], model: NativeModel
) -> None:
    engine = Engine(CONFIG, static=True, model=model)
    for image in (images[0], images[1], images[0]):
        (a,), (b,) = engine.predict([image]), dynamic.predict([image])
        assert len(a.crops) == len(b.crops) > 0
        assert (a.label_image() != b.label_image()).mean() < 1e-3


def test_a_batch_gives_what_its_images_give(
    cuda: EmulatedCuda, dynamic: Engine, images: list[Image], model: NativeModel
) -> None:
    engine = Engine(CONFIG, static=True, model=model)
    empty = Image(np.zeros_like(images[0].pixels), 'bgr')
    for batch in (images[:2], images[2:], [empty, images[0]], [empty, empty]):
        answers = engine.segment(batch)
        for image, answer in zip(batch, answers, strict=True):
            wrong = difference(answer, dynamic.segment([image])[0])
            assert not wrong, wrong


def test_torchvisions_family_is_captured_alike(cuda: EmulatedCuda, images: list[Image]) -> None:
    architecture = dataclasses.replace(
        ARCHITECTURE,
        semantics=TORCHVISION,
        box_pooler=Pooler(resolution=7, sampling_ratio=2, aligned=False, levels='torchvision'),
        mask_pooler=Pooler(resolution=14, sampling_ratio=2, aligned=False, levels='torchvision'),
    )
    inputs = torch.stack([preprocess(image, (128, 171), architecture) for image in images])
    model = NativeModel(
        architecture=architecture,
        state_dict=plant_weights(architecture, inputs, seed=3),
        class_names=('a', 'b', 'c'),
        category_ids=None,
        name='planted',
        weights_path=Path('planted'),
        weights_sha256='',
        licence='',
    )
    engine, plain = Engine(CONFIG, static=True, model=model), Engine(CONFIG, model=model)
    found = 0
    for image in images:
        (answer,), (expected,) = engine.segment([image]), plain.segment([image])
        found += len(expected.detections)
        assert not (wrong := difference(answer, expected)), wrong
    assert found > len(images)


def test_sizes_are_evicted_and_built_again(
    cuda: EmulatedCuda,
    dynamic: Engine,
    images: list[Image],
    model: NativeModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(StaticBackend, 'SIZES', 2)
    engine = Engine(CONFIG, static=True, model=model)
    crops = [Image(np.ascontiguousarray(images[0].pixels[: 120 - 8 * n]), 'bgr') for n in range(3)]
    expected = [dynamic.segment([crop])[0] for crop in crops]
    for number in (0, 1, 2, 0, 2, 1):
        wrong = difference(engine.segment([crops[number]])[0], expected[number])
        assert not wrong, f'size {number}: {wrong}'


def test_streams_stay_the_same_and_every_path_has_its_pool(
    cuda: EmulatedCuda, model: NativeModel
) -> None:
    engine = Engine(CONFIG, static=True, model=model)
    made, paths = [], sizes(3)
    for image in paths:
        engine.segment([image])
        made.append(cuda.streams_made)
    assert made[-1] == made[0], f'{made} streams made, path by path'
    pools = len(set(cuda.pools))
    assert pools == len(paths), f'{pools} pools for {len(paths)} paths'
    of_a_path = cuda.captures // len(paths)
    assert set(Counter(cuda.pools).values()) == {of_a_path}


def test_two_threads_may_build_at_once(
    cuda: EmulatedCuda, dynamic: Engine, images: list[Image], model: NativeModel
) -> None:
    """The worker meets new image sizes while ``configure`` prepares other resolutions."""
    lines: list[str] = []
    engine = Engine(CONFIG, lines.append, static=True, model=model)
    engine.segment(images[:1])
    crops = [Image(np.ascontiguousarray(images[0].pixels[: 120 - 8 * n]), 'bgr') for n in range(3)]
    sides = (128, 96)
    expected = []
    for side in sides:
        dynamic.configure(CONFIG.replace({'resolution.short_side': side}))
        expected.append([dynamic.segment([crop])[0] for crop in crops])
    dynamic.configure(CONFIG)
    failed: list[str] = []
    ended = threading.Event()

    def change() -> None:
        try:
            for side in sides * 3:
                engine.configure(CONFIG.replace({'resolution.short_side': side}))
        except Exception as error:  # noqa: BLE001 - what it says is the finding
            failed.append(f'configure: {type(error).__name__}: {error}')
        finally:
            ended.set()

    thread = threading.Thread(target=change)
    thread.start()
    number = 0
    while not ended.is_set() or number < 2 * len(crops):
        crop = number % len(crops)
        answers = attempt(engine, [crops[crop]])
        if isinstance(answers, str):
            failed.append(f'a frame: {answers}')
        elif all(difference(answers[0], right[crop]) for right in expected):
            failed.append('a frame fits none of the resolutions')
        number += 1
    thread.join()
    assert not failed, failed
    assert not [line for line in lines if 'no CUDA graphs' in line], lines
    assert len(cuda.threads) == 1, f'captures in {cuda.threads}; cuDNN measures in each anew'


def gives_up_graphs(lines: list[str]) -> list[str]:
    return [line for line in lines if 'no CUDA graphs' in line]


# Operators of a capture of ``detect``, and more than one of ``label`` has.
FIRST, AMID = 0, 700


@pytest.mark.parametrize(
    'failure',
    [
        torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB'),
        RuntimeError('CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED'),
        RuntimeError('CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling cublasCreate'),
        RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED'),
    ],
    ids=lambda error: str(error)[:40],
)
def test_want_of_memory_in_a_capture_is_no_want_of_graphs(
    cuda: EmulatedCuda,
    dynamic: Engine,
    images: list[Image],
    failure: Exception,
    model: NativeModel,
) -> None:
    lines: list[str] = []
    engine = Engine(CONFIG, lines.append, static=True, model=model)
    cuda.failures = [(AMID, failure)]
    raised: Exception | None = None
    try:
        engine.segment(images[:1])
    except Exception as error:  # noqa: BLE001 - which one is the question
        raised = error
    assert not gives_up_graphs(lines), lines
    assert isinstance(raised, OutOfMemoryError), raised
    before = cuda.captures
    assert not difference(engine.segment(images[:1])[0], dynamic.segment(images[:1])[0])
    assert cuda.captures > before
    assert engine.execution()['graphs'] == 'captured'


def test_a_mistake_in_a_capture_is_raised(
    cuda: EmulatedCuda, images: list[Image], model: NativeModel
) -> None:
    lines: list[str] = []
    engine = Engine(CONFIG, lines.append, static=True, model=model)
    mistake = RuntimeError('The size of tensor a (3) must match the size of tensor b (4)')
    cuda.failures = [(AMID, mistake)]
    answers = attempt(engine, images[:1])
    assert not gives_up_graphs(lines), lines
    assert isinstance(answers, str)
    assert 'size of tensor a' in answers
    assert not isinstance(attempt(engine, images[:1]), str)
    assert engine.execution()['graphs'] == 'captured'


NOT_NOW = RuntimeError('CUDA error: operation not permitted when stream is capturing')


def test_a_capture_that_something_else_spoilt_is_made_again(
    cuda: EmulatedCuda, dynamic: Engine, images: list[Image], model: NativeModel
) -> None:
    """Another library of the process may wait for the whole device in the middle of it."""
    lines: list[str] = []
    engine = Engine(CONFIG, lines.append, static=True, model=model)
    cuda.failures = [(AMID, NOT_NOW)]
    for image in images[:2]:
        assert not difference(engine.segment([image])[0], dynamic.segment([image])[0])
    assert not gives_up_graphs(lines), lines
    assert engine.execution()['graphs'] == 'captured'
    assert cuda.replays > 0


@pytest.mark.parametrize(
    'failure',
    [None, NOT_NOW, RuntimeError('CUDA error: operation not supported')],
    ids=['no build for it', 'not permitted', 'not supported'],
)
def test_a_build_that_cannot_capture_launches_one_by_one(
    cuda: EmulatedCuda,
    dynamic: Engine,
    images: list[Image],
    failure: Exception | None,
    model: NativeModel,
) -> None:
    lines: list[str] = []
    engine = Engine(CONFIG, lines.append, static=True, model=model)
    cuda.supported = failure is not None
    cuda.failures = [(FIRST, failure)] * 2 if failure else []
    for image in images[:2]:
        assert not difference(engine.segment([image])[0], dynamic.segment([image])[0])
    assert len(gives_up_graphs(lines)) == 1
    assert cuda.replays == 0
    assert engine.execution()['graphs'].startswith('off (')
    engine.segment(sizes(1))
    assert cuda.captures == 0


def test_workspaces_of_cublas_belong_to_one_capture(
    cuda: EmulatedCuda, model: NativeModel
) -> None:
    """PyTorch keeps them by stream, and gives them back with the first graph that goes."""
    engine = Engine(CONFIG, static=True, model=model)
    engine.segment(sizes(1))
    order = [entry[0] for entry in cuda.log if entry[0] in ('clear', 'capture')]
    assert cuda.captures == 1 + len(FEW_CAPACITIES)
    assert order == ['clear', 'capture', 'clear'] * cuda.captures


def test_streams_wait_for_each_other(cuda: EmulatedCuda, model: NativeModel) -> None:
    """Weights are prepared on the default stream, paths built on one, frames run on another."""
    engine = Engine(CONFIG, static=True, model=model)
    default, frames, captures = -1, 0, 1
    assert ('wait', frames, default) in cuda.log
    assert ('wait', captures, default) in cuda.log
    engine.segment(sizes(1))
    assert {entry for entry in cuda.log if entry[0] == 'capture'} == {('capture', captures)}
    last = max(n for n, entry in enumerate(cuda.log) if entry[0] == 'capture')
    assert ('synchronise', captures) in cuda.log[last:], 'a frame may overtake its buffers'


def test_stages_without_events_in_graphs_count_to_the_next_mark(
    cuda: EmulatedCuda, dynamic: Engine, images: list[Image], model: NativeModel
) -> None:
    cuda.external_events = False
    engine = Engine(CONFIG, static=True, model=model)
    for image in images[:2]:
        answers = attempt(engine, [image])
        assert not isinstance(answers, str), answers
        assert not difference(answers[0], dynamic.segment([image])[0])
        assert list(answers[0].stage_ms) == ['packet', 'download']
        assert all(ms > 0 for ms in answers[0].stage_ms.values())


def test_the_capture_thread_ends_with_its_engine(cuda: EmulatedCuda, model: NativeModel) -> None:
    before = set(threading.enumerate())
    engine = Engine(CONFIG, static=True, model=model)
    engine.segment(sizes(1))
    (thread,) = set(threading.enumerate()) - before
    assert {thread.name} == cuda.threads
    del engine
    gc.collect()
    thread.join(timeout=10.0)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ('operator', 'graphs', 'typed'),
    [
        ('select_proposals', True, True),
        ('select_proposals', False, False),
        ('select_detections', True, False),
        ('select_detections', False, True),
        ('choose', True, True),
        ('choose', False, False),
        ('roi_align', True, False),
        ('roi_align', False, True),
        ('paste_labels', True, True),
        ('paste_labels', False, False),
        ('preprocess', True, False),
        ('max_pool', True, False),
    ],
)
def test_a_kernel_that_fails_gives_way_to_its_twin(
    cuda: EmulatedCuda,
    dynamic: Engine,
    images: list[Image],
    monkeypatch: pytest.MonkeyPatch,
    operator: str,
    graphs: bool,
    typed: bool,
    model: NativeModel,
) -> None:
    """Triton may compile one kernel and fail at another, or at another size of the same one."""
    errors = pytest.importorskip('triton.errors')
    text = 'out of resources: shared memory, required: 99999'
    failure = type('OutOfResources', (errors.TritonError,), {}) if typed else RuntimeError
    if not graphs:
        monkeypatch.setenv('SEGNODE_GRAPHS', '0')
    # Raised from within a module of Triton's.
    inside = {'__name__': 'triton.backends.nvidia.compiler', 'failure': failure, 'text': text}
    exec('def compile_kernel():\n    raise failure(text)', inside)

    def fail(*_: object, **__: object) -> None:
        inside['compile_kernel']()

    lines: list[str] = []
    engine = Engine(CONFIG, lines.append, static=True, model=model)
    static: Any = engine._backend
    twins = static._operators
    kernels = dataclasses.replace(
        twins, description='Triton', nms=lambda *args, **options: twins.nms(*args, **options)
    )
    static._operators = dataclasses.replace(kernels, **{operator: fail})
    answers = attempt(engine, images[:1])
    assert not isinstance(answers, str), answers
    assert not difference(answers[0], dynamic.segment(images[:1])[0])
    assert len([line for line in lines if 'Triton' in line]) == 1
    assert 'shared memory' in engine.execution()['operators']
    assert (engine.execution()['graphs'] == 'captured') == graphs


def test_the_input_has_the_channels_that_are_fastest(
    cuda: EmulatedCuda, images: list[Image], monkeypatch: pytest.MonkeyPatch, model: NativeModel
) -> None:
    """Measured once, before anything is captured; all paths have the same weights."""
    taken: list[float] = []

    def clock(run: Any) -> float:
        assert run().dtype == torch.bfloat16
        assert cuda.captures == 0
        taken.append(1.0 - len(taken) % len(CHANNELS) * 0.1)
        return taken[-1]

    monkeypatch.setattr('segnode.engine.input_channels.device_milliseconds', clock)
    monkeypatch.setattr('segnode.engine.input_channels.is_asynchronous', lambda device: True)
    lines: list[str] = []
    config = dataclasses.replace(CONFIG, precision='bf16')
    engine = Engine(config, lines.append, static=True, model=model)
    backbone, seen = engine._backend.network.model.backbone, set()  # type: ignore[attr-defined]
    monkeypatch.setattr(
        backbone.bottom_up, 'forward', watched_shape(backbone.bottom_up.forward, seen)
    )
    answers = [engine.segment([image]) for image in (images[0], sizes(2)[1], images[0])]
    assert seen == {8}
    assert cuda.replays > 0
    assert all(len(answer.detections) for answer in (answers[0][0], answers[2][0]))
    assert not difference(answers[2][0], answers[0][0])
    choice = '8 channels (3: 1.000 ms, 4: 0.900 ms, 8: 0.800 ms)'
    assert engine.execution()['input_channels'] == choice
    assert lines.count(f'network input of {choice}') == 1


def watched_shape(forward: Any, seen: set[int]) -> Any:
    def watch(x: torch.Tensor, *steps: Any) -> Any:
        seen.add(x.shape[1])
        return forward(x, *steps)

    return watch


@pytest.mark.parametrize('allowed', [False, True])
def test_tf32_stays_as_the_caller_has_it(
    cuda: EmulatedCuda, allowed: bool, monkeypatch: pytest.MonkeyPatch, model: NativeModel
) -> None:
    engine = Engine(CONFIG, static=True, model=model)
    cudnn, seen, measured = torch.backends.cudnn, set(), set()
    backbone = engine._backend.network.model.backbone  # type: ignore[attr-defined]
    forward = backbone.forward

    def watch(x: torch.Tensor, *steps: Any) -> list[torch.Tensor]:
        seen.add(cudnn.allow_tf32)
        measured.add(cudnn.benchmark)
        maps: list[torch.Tensor] = forward(x, *steps)
        return maps

    monkeypatch.setattr(backbone, 'forward', watch)
    before = cudnn.allow_tf32
    cudnn.allow_tf32 = allowed
    try:
        engine.segment(sizes(1))
        assert seen == {allowed}, f'TF32 allowed: {allowed}; inside of the capture: {seen}'
        assert measured == {True}
        assert not cudnn.benchmark
    finally:
        cudnn.allow_tf32 = before


@pytest.mark.parametrize('graphs', ['1', '0'])
def test_half_precision_products_are_summed_whole(
    cuda: EmulatedCuda, graphs: str, monkeypatch: pytest.MonkeyPatch, model: NativeModel
) -> None:
    """In captures and one by one; the caller's choice stays."""
    monkeypatch.setenv('SEGNODE_GRAPHS', graphs)
    engine = Engine(CONFIG, static=True, model=model)
    cublas, seen = torch.backends.cuda.matmul, set()
    network = engine._backend.network.model  # type: ignore[attr-defined]
    for part in (network.backbone, network.roi_heads.mask_head):
        forward = part.forward

        def watch(x: torch.Tensor, *steps: Any, forward: Any = forward) -> Any:
            seen.add(cublas.allow_fp16_reduced_precision_reduction)
            seen.add(cublas.allow_bf16_reduced_precision_reduction)
            return forward(x, *steps)

        monkeypatch.setattr(part, 'forward', watch)
    before = cublas.allow_fp16_reduced_precision_reduction
    engine.segment(sizes(1))
    assert seen == {False}
    assert cublas.allow_fp16_reduced_precision_reduction == before is True


class Copies(TorchDispatchMode):
    """Copies that are meant not to block, between layouts or formats that make them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocking: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if func is torch.ops.aten.copy_.default:
            target, source = args[:2]
            wanted = (*args[2:], (kwargs or {}).get('non_blocking', False))[0]
            alike = target.dtype == source.dtype and target.stride() == source.stride()
            if wanted and not (alike and target.is_contiguous()):
                self.blocking.append(f'{tuple(target.shape)} with strides {target.stride()}')
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('batch', [1, 2])
def test_downloads_and_uploads_are_one_stretch_of_memory(
    images: list[Image], batch: int, model: NativeModel
) -> None:
    engine = Engine(CONFIG, static=True, model=model)
    engine.segment(images[:batch])
    with Copies() as copies:
        engine.segment(images[:batch])
    assert not copies.blocking, f'these copies block on a GPU: {copies.blocking}'
