# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What an older PyTorch does not have, hidden one by one: a line says so, and answers stay."""

from __future__ import annotations

import dataclasses
import platform
import runpy
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from emulated_graphs import EmulatedCuda
from small_exports import HW, made, request, small_model
from torch import Tensor

from segnode.benchmark.planted import render_frames
from segnode.checkpoint import NativeModel, load_model
from segnode.checkpoint.exported import Format
from segnode.config import Config
from segnode.demo.scene import VALIDATION_SEEDS, Scene
from segnode.doctor.command import old_torch
from segnode.engine import Engine
from segnode.engine.answers import Segmentation
from segnode.engine.device import gpu_uuid
from segnode.engine.dynamic import DynamicBackend
from segnode.errors import ConfigError, DeviceError
from segnode.export import whole as whole_network
from segnode.export.request import Calibration
from segnode.image import Image
from segnode.model import boxes, fusion, precision
from segnode.torch_features import FEATURES, OLDEST, missing_features

CONFIG = Config(device='cpu', precision='fp32').replace(
    {'resolution.short_side': 128, 'proposals': 100}
)
Hide = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope='module')
def image() -> Image:
    return Image(
        np.ascontiguousarray(Scene(VALIDATION_SEEDS[300]).frame(0).image[::4, ::4]), 'bgr'
    )


@pytest.fixture(scope='module')
def model() -> NativeModel:
    found = load_model(CONFIG, lambda _: None)
    assert isinstance(found, NativeModel)
    architecture = dataclasses.replace(found.architecture, rpn_pre_nms_topk=50)
    return dataclasses.replace(found, architecture=architecture)


@pytest.fixture(scope='module')
def expected(model: NativeModel, image: Image) -> Segmentation:
    return Engine(CONFIG, model=model).segment([image])[0]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> EmulatedCuda:
    emulated = EmulatedCuda()
    emulated.install(monkeypatch)
    for module in ('path', 'static'):
        monkeypatch.setattr(f'segnode.engine.{module}.CAPACITIES', (4, 100))
    return emulated


def same(answer: Segmentation, expected: Segmentation) -> bool:
    assert len(expected.detections) > 0
    a, b = answer.detections, expected.detections
    return (
        a.class_ids.tolist() == b.class_ids.tolist()
        and np.allclose(a.boxes_xyxy, b.boxes_xyxy, atol=1e-2)
        and bool((answer.label_image == expected.label_image).mean() > 0.999)
    )


def no_error_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``torch.cuda.graph`` was before."""
    newer = torch.cuda.graph

    def graph(
        cuda_graph: object, pool: object = None, stream: object = None
    ) -> AbstractContextManager[None]:
        return newer(cuda_graph, pool=pool, stream=stream)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.cuda, 'graph', graph)


def no_external_events(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = torch.cuda.Event

    class Event(newer):  # type: ignore[misc, valid-type]
        def __init__(self, enable_timing: bool = False) -> None:
            super().__init__(enable_timing)

    monkeypatch.setattr(torch.cuda, 'Event', Event)


def no_workspaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, '_cuda_clearCublasWorkspaces')


GRAPHS: dict[str, tuple[Hide, bool]] = {
    'torch.cuda.graph(capture_error_mode=)': (no_error_mode, False),
    'torch._C._cuda_clearCublasWorkspaces': (no_workspaces, False),
    'torch.cuda.Event(external=)': (no_external_events, True),
}


@pytest.mark.parametrize('name', GRAPHS)
def test_what_a_capture_needs(
    cuda: EmulatedCuda,
    model: NativeModel,
    image: Image,
    expected: Segmentation,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    hide, captured = GRAPHS[name]
    monkeypatch.setattr('segnode.engine.network.fuse_convolutions', lambda _: 'none')
    assert not missing_features('graphs')
    hide(monkeypatch)
    (feature,) = missing_features('graphs')
    assert feature.name == name
    lines: list[str] = []
    engine = Engine(CONFIG, lines.append, static=True, model=model)
    assert lines.count(feature.line()) == 1
    assert name in feature.line()
    assert feature.first in feature.line()
    for _ in range(2):
        assert same(engine.segment([image])[0], expected)
    assert (cuda.captures > 0) == captured
    assert (engine.execution()['graphs'] == 'captured') == captured
    if not captured:
        assert name in engine.execution()['graphs']
        assert cuda.replays == 0


def no_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    class Operators:
        """Of a build without the pointwise forms."""

    monkeypatch.setattr(torch.ops, 'mkldnn', Operators())
    monkeypatch.setattr(fusion, '_tried', {})


def no_word_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, 'machine', lambda: 'x86_64')
    monkeypatch.delattr(torch.cpu, '_is_avx512_bf16_supported', raising=False)


CPU: dict[str, Hide] = {
    'torch.ops.mkldnn._convolution_pointwise': no_onednn,
    'torch.cpu._is_avx512_bf16_supported': no_word_of_bfloat16,
}


@pytest.mark.parametrize('name', CPU)
def test_what_a_cpu_needs(
    model: NativeModel,
    image: Image,
    expected: Segmentation,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    before = {feature.name for feature in missing_features('cpu')}
    if name in before:
        pytest.skip(f'PyTorch {torch.__version__} does not have it')
    CPU[name](monkeypatch)
    (feature,) = (f for f in missing_features('cpu') if f.name not in before)
    assert feature.name == name
    lines: list[str] = []
    engine = Engine(CONFIG.replace({'precision': 'auto'}), lines.append, model=model)
    assert lines.count(feature.line()) == 1
    if CPU[name] is no_word_of_bfloat16:
        assert engine.precision == 'fp32'
    else:
        assert isinstance(engine._backend, DynamicBackend)
        assert engine._backend.network.fusion == 'none'
        engine = Engine(CONFIG, model=model)
    assert same(engine.segment([image])[0], expected)


def test_a_build_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    no_onednn(monkeypatch)
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: False)
    (finding,) = (each for each in old_torch(CONFIG) if 'oneDNN' in each.found)
    assert 'is built without oneDNN: ' in finding.found
    assert finding.remedy.startswith('a PyTorch built with oneDNN has it')
    assert '(of 2.0)' not in finding.line()


GPU = ('torch.cudnn_convolution_relu', 'the uuid of torch.cuda.get_device_properties')


def conv_relu(x: Tensor, weight: Tensor, bias: Tensor, *geometry: Any) -> Tensor:
    """As cuDNN's, on a CPU."""
    return torch.conv2d(x, weight, bias, *geometry).relu()


def conv_add_relu(
    x: Tensor, weight: Tensor, summand: Tensor, factor: float, bias: Tensor, *geometry: Any
) -> Tensor:
    return (torch.conv2d(x, weight, bias, *geometry) + factor * summand).relu()


def test_what_a_gpu_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its fused form a convolution does not agree, and stays plain."""
    monkeypatch.setattr(torch.version, 'hip', None)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 0)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda _: object())
    monkeypatch.setattr(torch, 'cudnn_convolution_relu', conv_relu, raising=False)
    monkeypatch.setattr(torch, 'cudnn_convolution_add_relu', conv_add_relu, raising=False)
    conv = fusion.Conv(3, 4, 3, relu=True).eval()
    assert fusion._agrees(conv, fusion.cudnn_conv)
    monkeypatch.delattr(torch, 'cudnn_convolution_add_relu')
    assert not fusion._agrees(conv, fusion.cudnn_conv)
    assert tuple(feature.name for feature in missing_features('cuda')) == GPU
    assert gpu_uuid(torch.device('cuda')) == ''


EXPORT = {'torch.compiler.is_exporting': torch.compiler, 'torch.library.custom_op': torch.library}


@pytest.mark.parametrize('name', EXPORT)
def test_what_the_export_of_a_whole_network_needs(
    model: NativeModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    pytest.importorskip('onnx')
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    monkeypatch.delattr(EXPORT[name], name.rpartition('.')[2], raising=False)
    assert name in {feature.name for feature in missing_features('export')}
    whole = runpy.run_path(whole_network.__file__)
    with pytest.raises(ConfigError, match=r'--whole: PyTorch .*; install PyTorch 2\.\d or newer'):
        whole['export_whole'](CONFIG, model, (96, 128), tmp_path / 'whole', [], lambda _: None)
    top_k = runpy.run_path(boxes.__file__)['top_k']
    assert top_k(torch.tensor([1.0, 3.0, 3.0]), 2)[1].tolist() == [1, 2]


@pytest.mark.parametrize(
    ('form', 'precision', 'shapes', 'problem'),
    [
        ('openvino', 'fp32', (), r'--shapes: expected .*: PyTorch \S+ lacks .*; give them, '),
        ('openvino', 'int8', (HW,), r'--precision int8: PyTorch \S+ lacks .*; '),
        ('onnx', 'int8', (HW,), r'--precision int8: PyTorch \S+ lacks .*; '),
    ],
)
def test_what_other_exports_need(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    form: Format,
    precision: str,
    shapes: tuple[tuple[int, int], ...],
    problem: str,
) -> None:
    # Before it is hidden: a newer PyTorch's own seed asks for it.
    small = small_model()
    monkeypatch.delattr(torch.compiler, 'is_exporting', raising=False)
    calibration = None
    if precision == 'int8':
        calibration = Calibration(pictures=render_frames(HW, 1), sha256='0' * 64)
    wanted = request(
        form, tmp_path / 'e', precision=precision, shapes=shapes, calibration=calibration
    )
    remedy = r'install PyTorch 2\.7 or newer, or export on a machine that has it'
    with pytest.raises(ConfigError, match=f'^{problem}{remedy}'):
        made(small, wanted)
    assert not (tmp_path / 'e').exists()


def test_every_feature_is_hidden_above() -> None:
    assert {feature.name for feature in FEATURES} == {*GRAPHS, *CPU, *GPU, *EXPORT}


def test_a_release_that_is_too_old_is_refused(
    model: NativeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch, 'uint16')
    with pytest.raises(DeviceError, match=f'expected {OLDEST} or newer'):
        Engine(CONFIG, model=model)


@pytest.mark.parametrize(
    ('word', 'onednn', 'wanted'),
    [
        (1 << 14, True, 'bf16'),
        (1 << 14, False, 'fp32'),
        (0, True, 'fp32'),
        (1 << 13, True, 'fp32'),
    ],
)
def test_precision_on_an_arm_is_what_the_processor_says(
    monkeypatch: pytest.MonkeyPatch, word: int, onednn: bool, wanted: str
) -> None:
    monkeypatch.setattr(platform, 'machine', lambda: 'aarch64')
    monkeypatch.setattr(precision, '_capabilities', lambda: word)
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: onednn)
    assert precision.choose_precision('auto', torch.device('cpu')) == wanted
