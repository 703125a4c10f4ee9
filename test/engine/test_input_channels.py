# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A network's input has the channels with which a clock says that it is fastest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segnode.engine import input_channels, timing
from segnode.engine.input_channels import choose_input
from segnode.engine.timing import GAIN, LEAST_ROUNDS, MOST_MS, ROUNDS, fastest
from segnode.model.architecture import Architecture
from segnode.model.backbone_specs import ResNetSpec
from segnode.model.conv import Conv
from segnode.model.mask_rcnn import MaskRCNN

ARCHITECTURE = Architecture(
    backbone=ResNetSpec(width_per_group=4, stem_out_channels=8, res2_out_channels=16),
    fpn_channels=8,
    box_fc_dims=(8,),
    mask_conv_dims=(8, 8, 8, 8),
    num_classes=2,
)

GROUP_NORMS = replace(
    ARCHITECTURE,
    backbone=ResNetSpec(norm='GN', width_per_group=32, stem_out_channels=32, res2_out_channels=64),
)


class Clock:
    """Says what it is told to, by what is run, and remembers what was."""

    def __init__(self, **milliseconds: float | list[float] | Exception) -> None:
        self._milliseconds = milliseconds
        self.ran: list[str] = []

    def candidates(self) -> dict[str, Callable[[], object]]:
        return {name: lambda name=name: self._run(name) for name in self._milliseconds}

    def _run(self, name: str) -> None:
        self.ran.append(name)

    def __call__(self, run: Callable[[], object]) -> float:
        run()
        value = self._milliseconds[self.ran[-1]]
        if isinstance(value, Exception):
            raise value
        return value.pop(0) if isinstance(value, list) else value

    def fastest(self) -> tuple[str, dict[str, float]]:
        return fastest(self.candidates(), self)


def test_the_fastest_is_taken() -> None:
    clock = Clock(three=0.1, four=0.08, eight=0.09)
    assert clock.fastest() == ('four', {'three': 0.1, 'four': 0.08, 'eight': 0.09})
    # In turns, so that a clock that rises or falls is the same for all.
    assert clock.ran == ['three', 'four', 'eight'] * (len(clock.ran) // 3)
    assert clock.ran.count('three') == 1 + ROUNDS


@pytest.mark.parametrize(
    ('others', 'taken'),
    [
        ({'four': 1.0, 'eight': 1.0}, 'three'),
        ({'four': 1.0 - GAIN / 2}, 'three'),
        ({'four': 1.0 - 2 * GAIN}, 'four'),
        ({'four': 0.5, 'eight': 0.5}, 'four'),
        ({}, 'three'),
    ],
)
def test_the_first_stays_unless_another_saves_something(
    others: dict[str, float], taken: str
) -> None:
    assert Clock(three=1.0, **others).fastest()[0] == taken


def test_one_slow_round_and_the_one_before_the_others_decide_nothing() -> None:
    first = [1.0] * ROUNDS
    first[2] = 99.0
    # A library searches for its kernels in the first run of all.
    clock = Clock(three=1.0, four=[500.0, *(0.9 * ms for ms in first)])
    assert clock.fastest() == ('four', {'three': 1.0, 'four': 0.9})


def test_one_that_fails_is_left_out() -> None:
    broken = RuntimeError('no kernel for it')
    assert Clock(three=1.0, four=broken, eight=0.9).fastest() == (
        'eight',
        {'three': 1.0, 'eight': 0.9},
    )
    assert Clock(three=broken, four=1.0, eight=0.9).fastest()[0] == 'eight'
    assert Clock(three=broken, four=OSError('no compiler')).fastest() == ('three', {})
    # In a later round.
    late = Clock(three=1.0, four=[0.1, 0.1])
    assert late.fastest() == ('three', {'three': 1.0})


def test_want_of_memory_is_raised() -> None:
    with pytest.raises(torch.cuda.OutOfMemoryError):
        Clock(three=1.0, four=torch.cuda.OutOfMemoryError('out of memory')).fastest()


def test_slow_ones_are_timed_less_often() -> None:
    clock = Clock(three=MOST_MS, four=MOST_MS / 2)
    assert clock.fastest()[0] == 'four'
    assert clock.ran.count('three') == 1 + LEAST_ROUNDS


class FakeGpu:
    """A CPU that is taken for a GPU, whose clock goes by the channels of the input.

    It stands for the network that is prepared, too.
    """

    def __init__(self, architecture: Architecture = ARCHITECTURE) -> None:
        dtype = torch.bfloat16
        self.milliseconds = {3: 1.0, 4: 0.9, 8: 0.7}
        self.written: list[int] = []
        self.model = MaskRCNN(architecture).requires_grad_(requires_grad=False)
        self.model.fold_norms()
        self.model.first_conv.to(dtype)
        if self.model.first_conv.norm is not None:
            self.model.first_conv.norm.float()  # As every group norm stays.
        self.device = torch.device('cpu')
        self.input_choice = ''

    @property
    def conv(self) -> Conv:
        return self.model.first_conv

    def preprocess(self, channels: int) -> Tensor:
        self.written.append(channels)
        x = torch.zeros((1, channels, 64, 64), dtype=self.conv.weight.dtype)
        x[:, :3] = 1.0
        return x.contiguous(memory_format=torch.channels_last)

    def clock(self, run: Callable[[], Any]) -> float:
        self.written.clear()
        out = run()
        assert out.shape == (1, self.conv.out_channels, 32, 32)
        assert out.dtype == self.conv.weight.dtype
        (channels,) = self.written  # What preprocessing writes is timed.
        return self.milliseconds[channels]

    def choose(self, *, captured: bool = True) -> None:
        network: Any = self
        choose_input(network, self.preprocess, captured=captured)


@pytest.fixture
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    gpu = FakeGpu(getattr(request, 'param', ARCHITECTURE))
    monkeypatch.setattr(input_channels, 'device_milliseconds', gpu.clock)
    monkeypatch.setattr(input_channels, 'is_asynchronous', lambda device: True)
    return gpu


@pytest.mark.parametrize('captured', [True, False])
def test_the_network_gets_the_fastest_input(gpu: FakeGpu, captured: bool) -> None:
    conv, weight = gpu.conv, gpu.conv.weight.clone()
    benchmark = torch.backends.cudnn.benchmark
    gpu.choose(captured=captured)
    assert gpu.input_choice == '8 channels (3: 1.000 ms, 4: 0.900 ms, 8: 0.700 ms)'
    assert gpu.conv is conv
    assert conv.in_channels == 8
    assert torch.equal(conv.weight[:, :3], weight)
    assert not conv.weight[:, 3:].any()
    assert torch.backends.cudnn.benchmark == benchmark
    # Once for all paths of a network, whatever another size would say.
    gpu.milliseconds[3] = 0.1
    gpu.choose(captured=captured)
    assert conv.in_channels == 8


@pytest.mark.parametrize('gpu', [ARCHITECTURE, GROUP_NORMS], indirect=True)
def test_the_first_layer_gives_what_it_gave(gpu: FakeGpu) -> None:
    for module in gpu.model.modules():
        if isinstance(module, nn.GroupNorm):
            module.weight.normal_()
    before = gpu.conv(gpu.preprocess(3))
    gpu.choose()
    assert gpu.conv.in_channels == 8
    torch.testing.assert_close(gpu.conv(gpu.preprocess(8)), before, rtol=2**-7, atol=1e-2)


def test_what_fails_as_it_is_leaves_it_open(gpu: FakeGpu) -> None:
    def fail(channels: int) -> Tensor:
        raise RuntimeError(f'no kernel for {channels}')

    network: Any = gpu
    with pytest.raises(RuntimeError, match='no kernel for 3'):
        choose_input(network, fail, captured=True)
    assert gpu.input_choice == ''
    gpu.choose()
    assert gpu.conv.in_channels == 8


def test_three_channels_stay_where_no_others_are_faster(gpu: FakeGpu) -> None:
    gpu.milliseconds |= {4: 1.0, 8: 1.1}
    before = gpu.conv.weight
    gpu.choose()
    assert gpu.input_choice.startswith('3 channels (3: 1.000 ms')
    assert gpu.conv.weight is before


def test_kernels_are_chosen_as_where_it_is_captured(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def clock(run: Callable[[], Any]) -> float:
        seen.append(torch.backends.cudnn.benchmark)
        return gpu.clock(run)

    monkeypatch.setattr(input_channels, 'device_milliseconds', clock)
    for captured in (True, False):
        gpu.input_choice = ''
        gpu.choose(captured=captured)
        assert set(seen) == {captured}
        seen.clear()


def test_three_channels_stay_where_nothing_can_be_timed(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no other try: a graph that was captured meanwhile reads the weights as they are."""
    weight = gpu.conv.weight
    with monkeypatch.context() as patch:
        patch.setattr(input_channels, 'device_milliseconds', lambda run: 1 / 0)
        gpu.choose()
    gpu.choose()
    assert gpu.input_choice == '3 channels (none could be timed)'
    assert gpu.conv.weight is weight


@pytest.mark.parametrize('where', ['on a CPU', 'in float32'])
def test_it_is_of_gpus_in_half_precision(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == 'on a CPU':
        monkeypatch.setattr(input_channels, 'is_asynchronous', timing.is_asynchronous)
    else:
        gpu.conv.float()
    gpu.choose(captured=False)
    assert gpu.input_choice == ''
    assert gpu.conv.in_channels == 3
