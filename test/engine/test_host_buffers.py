# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What is copied between host and device a frame, and what becomes of the memory it arrives in."""

from __future__ import annotations

import dataclasses
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from emulated_graphs import EmulatedCuda
from fake_gpu import fakes_a_gpu
from fake_program import GPU, SETTINGS, fake_cudnn, fake_network
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from triton_launches import record_launches

from segnode.config import Config
from segnode.demo.scene import VALIDATION_SEEDS, Scene
from segnode.engine import Engine, host_buffers
from segnode.engine import path as path_module
from segnode.engine.host_buffers import MOST, FrameMemory, LabelBuffers
from segnode.engine.path import StaticPath
from segnode.engine.program import PathKey
from segnode.image import Image
from segnode.kernels.operators import triton_operators
from segnode.model.architecture import Architecture

IMAGE_HW = (720, 1280)
# Instances of the frame whose copies are counted, and the capacity that they take.
KEPT, CAPACITY = 20, 32


class Traffic(TorchDispatchMode):
    """Bytes of every operator that touches both the host and the device."""

    def __init__(self) -> None:
        super().__init__()
        self.up: list[int] = []
        self.down: list[int] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        if func._schema.name == 'aten::copy_':
            target, source = args[:2]
        else:
            target, source = out, args[0] if args else None
        if isinstance(source, Tensor) and isinstance(target, Tensor):
            self.count(source, target)
        return out

    def count(self, source: Tensor, target: Tensor) -> None:
        if source.device != target.device:
            found = self.up if target.device == GPU else self.down
            found.append(source.numel() * source.element_size())


class Unpinned:
    """PyTorch, but for memory that a driver would have to pin."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def zeros(self, shape: Any, dtype: torch.dtype, pin_memory: bool = False) -> Any:
        return torch.zeros(shape, dtype=dtype)

    empty = zeros


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The path of one image size on a fake device, which keeps ``KEPT`` instances."""
    if not fakes_a_gpu():
        pytest.skip(f'PyTorch {torch.__version__} cannot fake an absent GPU')
    pytest.importorskip('triton')
    record_launches(monkeypatch)
    fake_cudnn(monkeypatch)
    EmulatedCuda().install(monkeypatch)
    for module in (path_module, host_buffers):
        monkeypatch.setattr(module, 'torch', Unpinned())

    def numpy(fake: FakeTensor) -> Any:
        assert fake.device.type == 'cpu'
        # A view, as that of a tensor is one.
        return np.zeros(fake.shape, str(fake.dtype).removeprefix('torch.'))[:]

    monkeypatch.setattr(FakeTensor, 'numpy', numpy, raising=False)
    monkeypatch.setattr(FakeTensor, 'tolist', lambda fake: [KEPT] * fake.numel(), raising=False)
    mode = FakeTensorMode()
    network = fake_network(Architecture(), mode)
    with mode, torch.no_grad():
        key = PathKey(1, IMAGE_HW, 'bgr', network.resized_hw(IMAGE_HW, SETTINGS), 1000, 100)
        yield StaticPath(network, triton_operators(), key, SETTINGS, None)


def test_nothing_else_is_copied(path: StaticPath) -> None:
    """Up the frame; down the packet, the areas of a capacity and the label image."""
    images = [Image(np.zeros((*IMAGE_HW, 3), np.uint8), 'bgr')]
    packet, labels = 4 * (5 + 6 * 100), 2 * IMAGE_HW[0] * IMAGE_HW[1]
    with Traffic() as traffic:
        path.segment(images, SETTINGS, raw_masks=False)
    assert traffic.up == [3 * IMAGE_HW[0] * IMAGE_HW[1]]
    assert traffic.down == [packet, 8 * CAPACITY, labels]
    with Traffic() as traffic:
        path.segment(images, SETTINGS, raw_masks=True)
    assert traffic.down == [packet, 8 * CAPACITY, 28 * 28 * CAPACITY, labels]
    # Other settings go along once.
    settings = dataclasses.replace(SETTINGS, score_threshold=0.4)
    with Traffic() as traffic:
        path.segment(images, settings, raw_masks=False)
        path.segment(images, settings, raw_masks=False)
    assert traffic.up == [80] + [3 * IMAGE_HW[0] * IMAGE_HW[1]] * 2


def test_traffic_is_found() -> None:
    """The check above can fail."""
    if not fakes_a_gpu():
        pytest.skip(f'PyTorch {torch.__version__} cannot fake an absent GPU')
    with FakeTensorMode(), Traffic() as traffic:
        there = torch.ones(5).to(GPU)
        there.cpu()
        torch.empty(5, dtype=torch.float64).copy_(there)
        there + 1
    assert (traffic.up, traffic.down) == ([20], [20, 20])


def test_a_buffer_is_used_again_when_nobody_looks_at_it() -> None:
    buffers = LabelBuffers((1, 4, 5), pinned=False)
    first = buffers.take()
    address, view = first.labels.ctypes.data, first.labels[0, 1:]
    assert first.target.data_ptr() == address
    del first
    second = buffers.take()
    assert second.labels.ctypes.data != address, 'a view of it is still held'
    del view
    assert buffers.take().labels.ctypes.data == address
    shared = torch.from_numpy(buffers.take().labels)
    assert buffers.take().labels.ctypes.data not in (address, second.labels.ctypes.data)
    del shared


def test_more_buffers_than_are_kept_are_had_for_once() -> None:
    buffers = LabelBuffers((1, 4, 5), pinned=False)
    held = [buffers.take().labels for _ in range(MOST + 2)]
    kept = {each.ctypes.data for each in held[:MOST]}
    assert len({each.ctypes.data for each in held}) == MOST + 2
    held.clear()
    assert {each.ctypes.data for each in [buffers.take().labels for _ in range(MOST)]} == kept


def test_ten_answers_stay_as_they_are(tmp_path: Path) -> None:
    config = Config(device='cpu', precision='fp32').replace({'resolution.short_side': 96})
    engine = Engine(config, static=True)
    scenes = [Scene(seed).frame(0).image[::4, ::4] for seed in VALIDATION_SEEDS[300:310]]
    images = [Image(np.ascontiguousarray(scene), 'bgr') for scene in scenes]
    answers = [engine.segment([image])[0] for image in images]
    copies = [answer.label_image.copy() for answer in answers]
    again = [engine.segment([image])[0].label_image.copy() for image in images]
    assert sum(copy.any() for copy in copies) > 5
    for answer, copy, second in zip(answers, copies, again, strict=True):
        assert np.array_equal(answer.label_image, copy)
        assert np.array_equal(copy, second)


def test_a_path_that_goes_keeps_no_buffer_for_an_answer() -> None:
    buffers = LabelBuffers((1, 4, 6), pinned=False)
    held = [buffers.take().labels for _ in range(3)]
    targets = [weakref.ref(each.base) for each in held[1:]]
    kept = held.pop(0)
    held.clear()
    free = [weakref.ref(each) for each in buffers._free]
    assert len(free) == 2
    assert not any(each() for each in targets)
    del buffers
    assert not any(each() for each in free)
    kept[:] = 7
    assert kept.sum() == 7 * 24


def test_what_cannot_be_pinned_is_plain_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Limited(Unpinned):
        """A system that pins one buffer."""

        pinned = 0

        def empty(self, shape: Any, dtype: torch.dtype, pin_memory: bool = False) -> Tensor:
            self.pinned += pin_memory
            if self.pinned > 1 and pin_memory:
                raise RuntimeError('CUDA error: OS call failed or operation not supported')
            return torch.empty(shape, dtype=dtype)

    monkeypatch.setattr(host_buffers, 'torch', Limited())
    buffers = LabelBuffers((1, 4, 6), pinned=True)
    # Where the path is made, and not in a frame.
    assert host_buffers.torch.pinned == 1
    held = [buffers.take() for _ in range(3)]
    assert len({each.target.data_ptr() for each in held}) == 3
    assert host_buffers.torch.pinned == 2


def test_frames_are_lent_what_nobody_looks_at() -> None:
    memory = FrameMemory(pinned=False)
    held = [memory.lend(24).reshape(2, 4, 3) for _ in range(10)]
    for number, each in enumerate(held):
        each[:] = number
    assert len({each.ctypes.data for each in held}) == 10
    assert all((each == number).all() for number, each in enumerate(held))
    addresses = {each.ctypes.data for each in held}
    view = held.pop()[1:]
    held.clear()
    again = [memory.lend(24) for _ in range(9)]
    assert {each.ctypes.data for each in again} == addresses - {view.base.ctypes.data}
    assert memory.lend(24).ctypes.data not in addresses, 'a view of it is still held'
    assert (view == 9).all()


def test_memory_is_by_bytes_and_not_by_shape() -> None:
    memory = FrameMemory(pinned=False)
    address = memory.lend(640 * 480 * 3).ctypes.data
    assert memory.lend(480 * 640 * 3).ctypes.data == address
    # As many as the next power of two, and what is larger serves as well.
    assert memory.lend(2**20).ctypes.data == address
    small = memory.lend(100)
    assert small.ctypes.data == address
    assert small.shape == (100,)
    larger = memory.lend(2**20 + 1)
    del small, larger
    assert memory.lend(2**20).ctypes.data == address, 'the smallest that will do'
    assert memory.lend(2**20 + 1).shape == (2**20 + 1,), 'and no smaller'


def test_frames_that_no_memory_is_left_for_lie_in_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_buffers, 'MOST_FOR_FRAMES', 3 * 64)
    memory = FrameMemory(pinned=False)
    held = [memory.lend(60) for _ in range(5)]
    lent = [memory.source(each) is not None for each in held]
    assert lent == [True] * 3 + [False] * 2
    del held[0]
    again = memory.lend(60)
    assert memory.source(again) is not None


def test_frames_that_cannot_be_pinned_lie_in_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    class Limited(Unpinned):
        """A system that pins two stretches."""

        asked = 0

        def empty(self, shape: Any, dtype: torch.dtype, pin_memory: bool = False) -> Tensor:
            assert pin_memory
            self.asked += 1
            if self.asked > 2:
                raise RuntimeError('CUDA error: OS call failed or operation not supported')
            return torch.empty(shape, dtype=dtype)

    monkeypatch.setattr(host_buffers, 'torch', Limited())
    memory = FrameMemory(pinned=True)
    held = [memory.lend(60) for _ in range(4)]
    assert [memory.source(each) is not None for each in held] == [True, True, False, False]
    assert host_buffers.torch.asked == 3, 'it is not asked again and again'
    held.pop(0)
    assert memory.source(memory.lend(60)) is not None


def test_only_whole_lent_pixels_are_fetched_from_where_they_are() -> None:
    memory = FrameMemory(pinned=False)
    pixels = memory.lend(2 * 4 * 3).reshape(2, 4, 3)
    pixels[:] = np.arange(24).reshape(2, 4, 3)
    source = memory.source(pixels)
    assert source is not None
    assert source.data_ptr() == pixels.ctypes.data
    np.testing.assert_array_equal(source.numpy(), pixels)
    for other in (pixels[:, 1:], pixels[..., ::-1], pixels[:, :2], pixels[1:], pixels.copy()):
        assert memory.source(other) is None
    first = memory.source(pixels[:1])
    assert first is not None
    np.testing.assert_array_equal(first.numpy(), pixels[:1])


def test_memory_that_goes_leaves_a_frame_what_it_has() -> None:
    memory = FrameMemory(pinned=False)
    kept, other = memory.lend(24), memory.lend(24)
    gone = weakref.ref(other.base)
    stretches = [weakref.ref(each) for each in memory._by_address.values()]
    del other
    assert gone() is None
    del memory
    # A finaliser holds the one of ``kept``, whose memory it is.
    assert sum(each() is not None for each in stretches) == 1
    kept[:] = 7
    assert kept.sum() == 7 * 24


class Uploads(TorchDispatchMode):
    """From where frames are copied to the device, and bytes that the host copies before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.sources: list[int] = []
        self.staged: list[int] = []
        monkeypatch.setattr(path_module, 'np', self)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def copyto(self, target: Any, source: Any) -> None:
        self.staged.append(source.nbytes)
        np.copyto(target, source)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if func is torch.ops.aten.copy_.default and args[1].dtype == torch.uint8:
            self.sources.append(args[1].data_ptr())
        return func(*args, **(kwargs or {}))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine whose device is emulated, and that launches one by one."""
    EmulatedCuda().install(monkeypatch)
    monkeypatch.setenv('SEGNODE_GRAPHS', '0')
    monkeypatch.setattr(path_module, 'CAPACITIES', (8,))
    monkeypatch.setattr('segnode.engine.network.fuse_convolutions', lambda model: 'none')
    changes = {'resolution.short_side': 96, 'proposals': 20, 'filter.max_instances': 5}
    return Engine(Config(device='cpu', precision='fp32').replace(changes), static=True)


@pytest.fixture(scope='module')
def scenes() -> list[Any]:
    found = [Scene(seed).frame(0).image[::4, ::4] for seed in VALIDATION_SEEDS[300:303]]
    return [np.ascontiguousarray(each) for each in found]


def lent(engine: Engine, pixels: Any) -> Any:
    assert engine.lend is not None
    into = engine.lend(pixels.nbytes).reshape(pixels.shape)
    into[:] = pixels
    return into


@pytest.mark.parametrize('lend', [(True,), (False,), (True, False, True), (False, True, False)])
def test_lent_frames_go_up_from_where_they_are(
    engine: Engine, scenes: list[Any], monkeypatch: pytest.MonkeyPatch, lend: tuple[bool, ...]
) -> None:
    pixels = scenes[: len(lend)]
    expected = engine.segment([Image(each, 'bgr') for each in pixels])
    placed = [
        lent(engine, each) if wanted else each for each, wanted in zip(pixels, lend, strict=True)
    ]
    with Uploads(monkeypatch) as uploads:
        answers = engine.segment([Image(each, 'bgr') for each in placed])
    assert uploads.staged == [pixels[0].nbytes] * lend.count(False)
    sources = uploads.sources[: len(lend)]
    for each, source, wanted in zip(placed, sources, lend, strict=True):
        assert (source == each.ctypes.data) == wanted
    assert len(set(sources)) == len(lend), 'a copy under way would be overwritten'
    for answer, right in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(answer.label_image, right.label_image)
        np.testing.assert_array_equal(answer.detections.scores, right.detections.scores)


def test_lent_frames_of_another_order_are_staged(
    engine: Engine, scenes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch has one order, that of its first frame."""
    images = [Image(each, 'bgr') for each in scenes[:2]]
    expected = engine.segment(images)
    turned = Image(lent(engine, scenes[1][..., ::-1]), 'rgb')
    with Uploads(monkeypatch) as uploads:
        answers = engine.segment([Image(lent(engine, scenes[0]), 'bgr'), turned])
    assert uploads.staged == [scenes[1].nbytes]
    for answer, right in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(answer.label_image, right.label_image)


def test_a_frame_that_fails_gives_its_memory_back(
    engine: Engine, scenes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = engine.segment([Image(scenes[0], 'bgr')])[0]
    first = lent(engine, scenes[1])
    address = first.ctypes.data

    def fail(path: StaticPath, *_: object) -> None:
        raise RuntimeError('an illegal memory access was encountered')

    with monkeypatch.context() as failing:
        failing.setattr(StaticPath, '_mask', fail)
        with pytest.raises(RuntimeError, match='illegal'):
            engine.segment([Image(first, 'bgr')])
    del first
    again = lent(engine, scenes[0])
    assert again.ctypes.data == address
    (answer,) = engine.segment([Image(again, 'bgr')])
    np.testing.assert_array_equal(answer.label_image, expected.label_image)
