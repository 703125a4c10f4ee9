# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Label images that are begun before the packet is there: same answers, and only where it pays."""

from __future__ import annotations

import dataclasses
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import emulated_graphs
import numpy as np
import pytest
import torch
from emulated_graphs import EmulatedCuda

from segnode.checkpoint import NativeModel, load_model
from segnode.config import Config
from segnode.demo.scene import VALIDATION_SEEDS, Scene
from segnode.engine import Engine, Segmentation
from segnode.engine.speculation import STANDS, TIMED, Speculation
from segnode.engine.static import StaticBackend
from segnode.engine.timing import StageMarks
from segnode.image import Image

CONFIG = Config(device='cpu', precision='fp32').replace(
    {
        'resolution.short_side': 64,
        'proposals': 100,
        'filter.nms_threshold': 1.0,
        'filter.score_threshold': 0.0,
    }
)
CAPACITIES = (8, 16, 32, 100)
# Instances of frames one after the other, and what the frame before had is often of no use.
COUNTS = (9, 9, 0, 1, 17, 17, 8, 9, 16, 100, 1)
MASK_STAGES = {'mask_head', 'paste'}


# The policy alone, on what a camera might show and a device might take


class Device:
    """Times of frames: what a right guess saves, and what a wrong one costs."""

    def __init__(self, saved_ms: float, wasted_ms: float, frame_ms: float = 10.0) -> None:
        self.frame_ms, self.saved_ms, self.wasted_ms = frame_ms, saved_ms, wasted_ms
        self.speculation = Speculation()
        self._noise = random.Random(5)

    def run(self, capacities: Sequence[int]) -> list[bool]:
        """Run frames that need these; return for which of them a guess was launched."""
        return [self._frame(each) for each in capacities]

    def _frame(self, capacity: int) -> bool:
        guess = self.speculation.guess()
        took_ms = self.frame_ms + self._noise.gauss(0, 0.01)
        took_ms += 20 * (self._noise.random() < 0.05)  # Something else had the processor.
        if guess:
            took_ms += -self.saved_ms if guess == capacity else self.wasted_ms
        self.speculation.note(capacity, lambda: took_ms)
        return bool(guess)


def shown(right: float, frames: int) -> list[int]:
    """Capacities of frames, of which this part needs what the one before did."""
    rng = random.Random(3)
    found = [8]
    for _ in range(frames):
        same = rng.random() < right
        found.append(found[-1] if same else rng.choice([c for c in (8, 16, 32) if c != found[-1]]))
    return found


@pytest.mark.parametrize(
    ('right', 'saved_ms', 'wasted_ms', 'pays'),
    [
        (1.0, 0.1, 1.0, True),
        (1.0, -0.1, 1.0, False),
        (1.0, 0.01, 1.0, False),  # Not worth it.
        (0.0, 0.1, 1.0, False),
        # Most guesses are right, and a wrong one costs more than they save.
        (0.8, 0.1, 1.0, False),
        (0.8, 0.1, 0.1, True),
    ],
)
def test_the_faster_way_is_taken(
    right: float, saved_ms: float, wasted_ms: float, pays: bool
) -> None:
    device = Device(saved_ms, wasted_ms)
    timed = device.run(shown(right, TIMED))
    # The first has nothing to guess from; the others are with and without in turns.
    assert sum(timed) == TIMED / 2
    assert device.speculation.pays == pays
    assert set(device.run(shown(right, 100))) == {pays}
    assert device.speculation.describe().startswith('speculated' if pays else 'after the packet')


@pytest.mark.parametrize('cameras', [1, 2, 3, 4, 8])
def test_cameras_in_turn_are_each_timed_both_ways(cameras: int) -> None:
    frames = Device(0.0, 0.0).run([8] * (TIMED + 1))[1:]
    shares = [statistics.mean(frames[camera::cameras]) for camera in range(cameras)]
    assert all(0.4 < share < 0.6 for share in shares), shares


def test_no_guess_is_made_from_an_empty_frame() -> None:
    device = Device(1.0, 0.0)
    device.run([8] * (TIMED + 1))
    assert device.speculation.pays
    assert device.run([8, 0, 0, 16, 16]) == [True, True, False, False, True]


def test_frames_with_nothing_to_guess_decide_nothing() -> None:
    device = Device(1.0, 0.0)
    device.run([0] * 10 * TIMED)
    assert device.speculation.describe() == 'being measured'


def test_it_is_measured_again_and_changes_for_a_reason_alone() -> None:
    device = Device(0.1, 1.0)
    again = [8] * (STANDS + TIMED)
    device.run([8] * (TIMED + 1))
    assert device.speculation.pays
    # A little worse than not to: within what measurements differ by.
    device.saved_ms = -0.01
    device.run(again)
    assert device.speculation.pays
    device.saved_ms = -0.1
    device.run(again)
    assert not device.speculation.pays
    device.saved_ms = 0.01
    device.run(again)
    assert not device.speculation.pays
    device.saved_ms = 0.1
    device.run(again)
    assert device.speculation.pays


def test_frames_that_cannot_be_compared_decide_for_the_packet() -> None:
    """Where every guess is right and every other frame needs another capacity than before."""
    speculation, capacity = Speculation(), 8
    speculation.note(capacity, lambda: 1.0)
    for _ in range(TIMED):
        if not speculation.guess():
            capacity = 24 - capacity
        speculation.note(capacity, lambda: 1.0)
    assert not speculation.pays
    assert speculation.describe() == 'after the packet (no frames to compare)'


# The captured path


@pytest.fixture(scope='module', autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def images() -> list[Image]:
    scenes = [Scene(seed).frame(0).image[::8, ::8] for seed in VALIDATION_SEEDS[300:304]]
    return [Image(np.ascontiguousarray(scene), 'bgr') for scene in scenes]


@pytest.fixture(scope='module')
def model() -> NativeModel:
    found = load_model(CONFIG, lambda _: None)
    assert isinstance(found, NativeModel)
    architecture = dataclasses.replace(found.architecture, rpn_pre_nms_topk=50)
    return dataclasses.replace(found, architecture=architecture)


@pytest.fixture(scope='module')
def device() -> Iterator[EmulatedCuda]:
    with pytest.MonkeyPatch.context() as patch:
        emulated = EmulatedCuda()
        emulated.install(patch)
        for module in ('path', 'static'):
            patch.setattr(f'segnode.engine.{module}.CAPACITIES', CAPACITIES)
        patch.setattr('segnode.engine.network.fuse_convolutions', lambda model: 'none')
        yield emulated


@pytest.fixture(scope='module')
def engine(device: EmulatedCuda, model: NativeModel) -> Engine:
    """Shared, as its captures take longest."""
    return Engine(CONFIG, static=True, model=model)


@pytest.fixture
def force(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    return lambda on: monkeypatch.setattr(Speculation, 'wanted', lambda speculation: on)


def keep(engine: Engine, count: int, **more: object) -> None:
    """Have frames keep that many instances; a count is a number on the device."""
    changes = {'filter.max_instances': count} if count else {'filter.score_threshold': 1.0}
    engine.configure(CONFIG.replace({**changes, **more}))


def capacity(count: int) -> int:
    return next((c for c in CAPACITIES if count and c >= count), 0)


def run(
    engine: Engine, images: Sequence[Image], counts: Sequence[int], **more: object
) -> list[Segmentation]:
    """Answer an image a count, in turn, with raw masks at every other one."""
    answers = []
    for number, count in enumerate(counts):
        keep(engine, count, **more)
        image = images[number % len(images)]
        answers += engine.segment([image], raw_masks=number % 2 == 0)
    return answers


def assert_equal(a: Segmentation, b: Segmentation) -> None:
    """To the bit."""
    for name in ('boxes_xyxy', 'scores', 'class_ids', 'mask_areas'):
        np.testing.assert_array_equal(getattr(a.detections, name), getattr(b.detections, name))
    np.testing.assert_array_equal(a.label_image, b.label_image)
    assert a.counts == b.counts
    assert (a.raw_masks is None) == (b.raw_masks is None)
    if a.raw_masks is not None and b.raw_masks is not None:
        np.testing.assert_array_equal(a.raw_masks, b.raw_masks)


def launches(device: EmulatedCuda, since: int) -> list[str]:
    """Graphs by their names, and where the host waited for the packet."""
    names = dict(enumerate(('detect', *map(str, CAPACITIES))))
    return [
        names[entry[1] % len(names)] if entry[0] == 'replay' else 'packet'
        for entry in device.log[since:]
        if entry[0] in ('replay', 'event')
    ]


def test_answers_are_the_same_to_the_bit(
    engine: Engine, images: list[Image], force: Callable[[bool], None]
) -> None:
    force(False)
    plain = run(engine, images, COUNTS)
    # Held while the others run, in buffers that must not be theirs.
    copies = [answer.label_image.copy() for answer in plain]
    force(True)
    ahead = run(engine, images, COUNTS)
    assert [len(answer.detections) for answer in ahead] == list(COUNTS)
    for a, b, copy, count in zip(plain, ahead, copies, COUNTS, strict=True):
        assert_equal(a, b)
        assert bool(b.label_image.any()) == bool(count)
        np.testing.assert_array_equal(a.label_image, copy)
        assert set(b.stage_ms) & MASK_STAGES == (MASK_STAGES if count else set())
        assert list(a.stage_ms) == list(b.stage_ms)
        assert min(b.stage_ms.values()) >= 0


def test_filters_of_masks_are_those_of_the_frame(
    engine: Engine,
    images: list[Image],
    force: Callable[[bool], None],
) -> None:
    """They change between frames, and the guess comes from a frame before."""
    counts = (20, 20, 9)
    more = {'filter.min_mask_area': 30, 'filter.max_mask_area': 200, 'mask_threshold': 0.3}
    force(False)
    plain = run(engine, images, counts, **more)
    force(True)
    run(engine, images, counts)
    ahead = run(engine, images, counts, **more)
    for a, b in zip(plain, ahead, strict=True):
        assert_equal(a, b)
    assert any(answer.counts.filtered_area for answer in ahead)


def test_only_the_right_capacity_is_taken(
    device: EmulatedCuda, engine: Engine, images: list[Image], force: Callable[[bool], None]
) -> None:
    force(True)
    run(engine, images, (0,))
    before = 0
    for count in COUNTS[:8]:
        since = len(device.log)
        run(engine, images, (count,))
        guessed, needed = [[str(c)] if c else [] for c in (before, capacity(count))]
        # A larger one, too, is none of this frame's.
        late = needed if guessed != needed else []
        assert launches(device, since) == ['detect', *guessed, 'packet', *late]
        before = capacity(count)


def test_without_it_nothing_is_launched_before_the_packet(
    device: EmulatedCuda, engine: Engine, images: list[Image], force: Callable[[bool], None]
) -> None:
    force(False)
    since = len(device.log)
    run(engine, images, (9, 9, 0))
    assert launches(device, since) == [*['detect', 'packet', '16'] * 2, 'detect', 'packet']


@pytest.fixture
def small(device: EmulatedCuda, model: NativeModel, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine that is built sooner, and whose frames may need more than its capacities hold."""
    for module in ('path', 'static'):
        monkeypatch.setattr(f'segnode.engine.{module}.CAPACITIES', (8, 16))
    return Engine(CONFIG.replace({'filter.max_instances': 20}), static=True, model=model)


def test_more_than_the_largest_capacity_is_never_guessed(
    small: Engine, images: list[Image], force: Callable[[bool], None]
) -> None:
    """Such frames run ``label_next``, in whose buffers nothing of a wrong guess may stay."""
    scores = small.segment(images[:1])[0].detections.scores
    assert len(scores) == 20
    answers = []
    for on in (False, True):
        force(on)
        for count in (9, 19, 19, 2, 19, 9, 9):
            threshold = {'filter.score_threshold': float(scores[count])}
            small.configure(small.config.replace(threshold))
            answers.append(small.segment(images[:1])[0])
    for a, b in zip(answers[:7], answers[7:], strict=True):
        assert_equal(a, b)
    assert [len(answer.detections) for answer in answers[7:]] == [9, 19, 19, 2, 19, 9, 9]


def test_a_batch_needs_what_its_fullest_image_does(
    small: Engine, images: list[Image], force: Callable[[bool], None]
) -> None:
    empty = Image(np.zeros_like(images[0].pixels), 'bgr')
    small.configure(small.config.replace({'filter.score_threshold': 0.5}))
    batches = ([images[0], empty], [empty, empty], images[:2], images[2:], [empty, images[1]])
    answers = []
    for on in (False, True):
        force(on)
        answers.append([answer for batch in batches for answer in small.segment(batch)])
    for a, b in zip(*answers, strict=True):
        assert_equal(a, b)
    assert any(len(answer.detections) for answer in answers[1])


@pytest.mark.parametrize(
    ('count', 'on', 'packet', 'whole'),
    [(1, True, 2, 4), (0, True, 2, 3), (100, True, 0, 3), (1, False, 1, 3)],
    ids=['wrong', 'wrong and empty', 'right', 'none'],
)
def test_what_a_wrong_guess_costs_counts_to_the_packet(
    engine: Engine,
    device: EmulatedCuda,
    images: list[Image],
    force: Callable[[bool], None],
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    on: bool,
    packet: int,
    whole: int,
) -> None:
    """Behind the copy of the packet it has the guess and the host's wait, or neither."""
    run(engine, images, (100,))
    force(on)
    # A clock that goes on by one with a replay, and with a wait.
    clock = SimpleNamespace(perf_counter=lambda: float(len(device.log)))
    monkeypatch.setattr(emulated_graphs, 'time', clock)
    (answer,) = run(engine, images, (count,))
    assert answer.stage_ms['packet'] == packet * 1e3
    assert sum(answer.stage_ms.values()) == whole * 1e3


@pytest.mark.parametrize('faster', [False, True])
def test_the_way_is_chosen_by_the_devices_times(
    model: NativeModel,
    device: EmulatedCuda,
    images: list[Image],
    monkeypatch: pytest.MonkeyPatch,
    faster: bool,
) -> None:
    monkeypatch.setattr('segnode.engine.path.CAPACITIES', (8,))
    monkeypatch.setattr('segnode.engine.speculation.TIMED', 4)
    engine = Engine(CONFIG.replace({'filter.max_instances': 3}), static=True, model=model)
    assert 'label_image' not in engine.execution()
    engine.segment(images[:1])
    assert engine.execution()['label_image'] == 'being measured'
    assert isinstance(engine._backend, StaticBackend)
    (path,) = engine._backend._paths.values()

    def milliseconds(marks: StageMarks) -> dict[str, float]:
        ahead = path.speculation is not None and path.speculation._guessed
        return {'packet': 9.0 if ahead == faster else 10.0}

    monkeypatch.setattr(StageMarks, 'milliseconds', milliseconds)
    for _ in range(4):
        engine.segment(images[:1])
    said = engine.execution()['label_image']
    assert said.startswith('speculated (9.00' if faster else 'after the packet (10.00'), said
    since = len(device.log)
    engine.segment(images[:1])
    order = [entry[0] for entry in device.log[since:] if entry[0] in ('replay', 'event')]
    assert order == (['replay'] * 2 + ['event'] if faster else ['replay', 'event', 'replay'])


def test_a_frame_that_fails_behind_a_guess_leaves_nothing(
    engine: Engine,
    images: list[Image],
    force: Callable[[bool], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    force(False)
    plain = run(engine, images, (9, 9, 17))
    force(True)
    run(engine, images, (17,))
    assert isinstance(engine._backend, StaticBackend)
    path = list(engine._backend._paths.values())[-1]
    free, made = len(path._labels._free), path._labels._made

    def fail() -> None:
        raise RuntimeError('an illegal memory access was encountered')

    with monkeypatch.context() as failing:
        failing.setattr(path._arrived, 'synchronize', fail)
        with pytest.raises(RuntimeError, match='illegal'):
            run(engine, images, (9,))
    assert (len(path._labels._free), path._labels._made) == (free, made)
    for a, b in zip(plain, run(engine, images, (9, 9, 17)), strict=True):
        assert_equal(a, b)


def test_a_cpu_never_guesses(model: NativeModel, images: list[Image]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for module in ('static', 'path', 'timing'):
            name = f'segnode.engine.{module}.is_asynchronous'
            patch.setattr(name, lambda device: device.type == 'cuda')
        engine = Engine(CONFIG.replace({'proposals': 5}), static=True, model=model)
        engine.segment(images[:1])
    assert isinstance(engine._backend, StaticBackend)
    (path,) = engine._backend._paths.values()
    assert path.speculation is None
    assert 'label_image' not in engine.execution()
    assert engine.lend is None
