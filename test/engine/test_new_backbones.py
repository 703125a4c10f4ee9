# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""ResNeSt, Swin and ConvNeXt through both paths, captured, in half precision, and on fake GPUs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from emulated_graphs import EmulatedCuda
from fake_gpu import needs_fake_gpu
from fake_program import GPU, SETTINGS, Watch, fake_cudnn, fake_network
from narrow_backbones import SPECS, narrow
from pictures import rendered
from test_emulated_graphs import FEW_CAPACITIES, difference
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from segnode.checkpoint import NativeModel
from segnode.checkpoint.planting import plant_weights
from segnode.config import Config
from segnode.engine import Engine
from segnode.engine.network import NativeNetwork
from segnode.engine.path import CAPACITIES
from segnode.engine.program import PathKey, Program
from segnode.kernels.operators import plain_operators
from segnode.kernels.preprocess import preprocess, resized_hw
from segnode.model.mask_rcnn import build_mask_rcnn

FAMILIES = tuple(SPECS)
CONFIG = Config(device='cpu', precision='fp32').replace(
    {'resolution.short_side': 128, 'proposals': 100, 'filter.score_threshold': 0.3}
)
# The networks' inputs, 128x171 and 199x128, are padded.
SIZES = ((150, 200), (140, 90))
CPU = torch.device('cpu')


@pytest.fixture(scope='module', autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module', params=FAMILIES)
def model(request: pytest.FixtureRequest) -> NativeModel:
    architecture = narrow(request.param)
    hw = resized_hw(SIZES[0], 128, 1333, 'mmdetection')
    pixels = torch.stack([preprocess(rendered(i, SIZES[0]), hw, architecture) for i in range(2)])
    return NativeModel(
        architecture=architecture,
        state_dict=plant_weights(architecture, pixels, seed=1),
        class_names=('a', 'b', 'c'),
        category_ids=None,
        name='planted',
        weights_path=Path('planted'),
        weights_sha256='',
        licence='',
    )


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> EmulatedCuda:
    """The device, for engines that are built sooner: few capacities, convolutions not fused."""
    emulated = EmulatedCuda()
    emulated.install(monkeypatch)
    for module in ('path', 'static'):
        monkeypatch.setattr(f'segnode.engine.{module}.CAPACITIES', FEW_CAPACITIES)
    monkeypatch.setattr('segnode.engine.network.fuse_convolutions', lambda model: 'none')
    return emulated


def test_captured_frames_are_the_dynamic_paths(model: NativeModel, cuda: EmulatedCuda) -> None:
    static, dynamic = Engine(CONFIG, static=True, model=model), Engine(CONFIG, model=model)
    found = 0
    # The graphs of one size are replayed before and after another size's.
    for hw, images in ((SIZES[0], (3, 4)), (SIZES[1], (5, 6)), (SIZES[0], (7, 8))):
        batch = [rendered(index, hw) for index in images]
        for image, answer in zip(batch, static.segment(batch), strict=True):
            (expected,) = dynamic.segment([image])
            found += len(expected.detections)
            assert not (wrong := difference(answer, expected)), wrong
    assert cuda.replays > 0
    assert found > 6


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_half_precision_agrees_stage_by_stage(model: NativeModel, precision: str) -> None:
    half = NativeNetwork(model.architecture, model.state_dict, CPU, precision)
    exact = build_mask_rcnn(model.architecture, model.state_dict)
    assert half.float32_layers == ()
    layers = [m for m in half.model.backbone.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert {layer.weight.dtype for layer in layers} == {half.dtype}
    # Rounding to 8 or 11 bits, times the depth through which it adds up.
    bound = 0.05 if precision == 'bf16' else 0.008

    def deviation(a: Tensor, b: Tensor) -> float:
        return float((a - b.float()).abs().mean() / a.std())

    image = rendered(8, (192, 256))
    x = preprocess(image, (192, 256), model.architecture)[None]
    with torch.inference_mode():
        maps = exact.backbone.bottom_up(x)
        for a, b in zip(maps, half.model.backbone.bottom_up(x.to(half.dtype)), strict=True):
            assert deviation(a, b) < bound
        for a, b in zip(exact.backbone(x), half.model.backbone(x), strict=True):
            assert deviation(a, b) < bound


@pytest.mark.parametrize('model', ['swin'], indirect=True)
def test_attention_whose_biases_overflow_is_float32(model: NativeModel) -> None:
    weights = dict(model.state_dict)
    attention = 'backbone.bottom_up.stages.1.blocks.0.attn.w_msa.'
    weights[f'{attention}relative_position_bias_table'] = (
        1e5 * (weights[f'{attention}relative_position_bias_table'])
    )
    half = NativeNetwork(model.architecture, weights, CPU, 'fp16')
    assert set(half.float32_layers) == {f'{attention}qkv', f'{attention}proj'}
    x = preprocess(rendered(8, (96, 128)), (96, 128), model.architecture)[None]
    with torch.inference_mode():
        exact = build_mask_rcnn(model.architecture, weights).backbone(x)
        for a, b in zip(exact, half.model.backbone(x.half()), strict=True):
            assert float((a - b.float()).abs().mean() / a.std()) < 0.008


def test_maps_of_two_formats_are_pooled_in_the_wider_one(model: NativeModel) -> None:
    """A level's layer whose numbers do not fit in half precision stays in float32."""
    network = NativeNetwork(model.architecture, model.state_dict, CPU)
    half = [torch.ones((1, 1, 2, 2), dtype=torch.float16)] * 5
    assert {x.dtype for x in network.pooled_maps(half)} == {torch.float16}
    large = [*half[:3], half[3].float() * 1e5, half[4]]
    pooled = network.pooled_maps(large)
    assert len(pooled) == 4
    assert {x.dtype for x in pooled} == {torch.float32}
    assert pooled[3].max() == 1e5


def in_half_precision(network: NativeNetwork, mode: FakeTensorMode) -> None:
    """Give fake layers half precision as ``convert_layers`` does, all else float32."""
    with mode:
        for module in network.model.modules():
            layer = isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
            for name, tensor in list(module._parameters.items()):
                if tensor is not None and not layer:
                    fake = torch.empty(tensor.shape, device=GPU)
                    module._parameters[name] = nn.Parameter(fake, requires_grad=False)
            for name, tensor in list(module._buffers.items()):
                if tensor is not None:
                    module._buffers[name] = torch.empty(tensor.shape, device=GPU)


@needs_fake_gpu
@pytest.mark.parametrize('family', FAMILIES)
def test_trunk_neither_stops_nor_leaves_its_gpu(
    monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    fake_cudnn(monkeypatch)
    mode = FakeTensorMode()
    network = fake_network(narrow(family), mode)
    in_half_precision(network, mode)
    # Not inference_mode: there, composite operators hide what they are made of.
    with mode, torch.no_grad():
        x = torch.empty((2, 3, 480, 864), dtype=torch.float16, device=GPU)
        x = x.contiguous(memory_format=torch.channels_last)
        with Watch() as watch:
            trunk = network.model.parts(lambda _: None).trunk(x)
    assert not watch.strayed
    for each in trunk.features:
        assert each.dtype == torch.float16
        assert each.is_contiguous(memory_format=torch.channels_last)


@needs_fake_gpu
def test_mmdetections_launches_neither_stop_nor_leave_their_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_cudnn(monkeypatch)
    EmulatedCuda().install(monkeypatch)  # For the events of its stages.
    # Each is an operator of the plain NMS.
    monkeypatch.setattr('segnode.engine.program.CANDIDATES', 100)
    mode = FakeTensorMode()
    network = fake_network(dataclasses.replace(narrow('convnext'), num_classes=80), mode)
    in_half_precision(network, mode)
    with mode, torch.no_grad():
        network_hw = network.resized_hw((720, 1280), SETTINGS)
        key = PathKey(1, (720, 1280), 'rgb', network_hw, 100, 10)
        program = Program(network, plain_operators('for a test'), key, SETTINGS)
        with Watch() as watch:
            chosen = program.detect()
            masks = program.label(CAPACITIES[0], chosen)
    assert not watch.strayed
    assert chosen.packet.shape == (1, 5 + 10 * 6)
    assert masks.labels.shape == (1, 720, 1280)
    assert {x.device for x in (chosen.packet, masks.labels)} == {GPU}
