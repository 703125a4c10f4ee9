# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The launches between upload and packet on fake tensors of a GPU that is not the current one.

A fake tensor has a device, a shape and no numbers: what asks for a number raises, and every
operator shows which devices it touches. Triton kernels cannot run on them; their launches are
recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
import torch
from emulated_graphs import EmulatedCuda
from fake_gpu import fakes_a_gpu
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from triton_launches import Launch, record_launches, variant

from segnode.engine.network import NativeNetwork
from segnode.engine.path import CAPACITIES
from segnode.engine.program import Chosen, Masks, PathKey, Program
from segnode.engine.settings import InferenceSettings
from segnode.kernels.operators import Operators, plain_operators
from segnode.model.architecture import SEMANTICS, Architecture, Pooler, Rule
from segnode.model.conv import Conv
from segnode.model.fusion import cudnn_conv
from segnode.model.mask_rcnn import MaskRCNN

GPU = torch.device('cuda', 1)
FAMILIES: tuple[Literal['detectron2', 'torchvision'], ...] = ('detectron2', 'torchvision')
SETTINGS = InferenceSettings(
    short_side=480,
    long_side=640,
    score_threshold=0.05,
    nms_threshold=0.5,
    max_instances=100,
    proposals=1000,
    classes=frozenset(range(80)),
)


pytestmark = pytest.mark.skipif(
    not fakes_a_gpu(), reason=f'PyTorch {torch.__version__} cannot fake an absent GPU'
)


class Watch(TorchDispatchMode):
    """Which operators touch more than one device, or another than the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.strayed: list[str] = []
        # Without views, which launch nothing.
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        if func.namespace != 'prim' and not func.is_view:
            self.calls[func._schema.name] += 1
        devices = {
            str(leaf.device) for leaf in tree_iter((args, kwargs, out)) if isinstance(leaf, Tensor)
        }
        if devices - {str(GPU)}:
            self.strayed.append(f'{func} on {sorted(devices)}')
        return out


def fake_network(architecture: Architecture, mode: FakeTensorMode) -> NativeNetwork:
    """A network of which only shapes, formats and the device are there."""
    with torch.device('meta'):
        model = MaskRCNN(architecture)
    model.requires_grad_(requires_grad=False)
    model.fold_norms()
    model.eval()
    with mode:
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                fake = torch.empty(parameter.shape, dtype=torch.float16, device=GPU)
                if fake.dim() == 4:
                    fake = fake.contiguous(memory_format=torch.channels_last)
                module._parameters[name] = nn.Parameter(fake, requires_grad=False)
        model.roi_heads.box_head.expect_channels_last()
    for module in model.modules():
        if isinstance(module, Conv):
            module.fused = cudnn_conv
    network = NativeNetwork.__new__(NativeNetwork)
    network.architecture = architecture
    network.device = GPU
    network.precision, network.dtype = 'fp16', torch.float16
    network.replace = None
    network._anchors = {}
    network.model = model
    return network


def fake_cudnn(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Put shapes in place of cuDNN's fused convolutions, which ask for a driver; count them."""
    calls: Counter[str] = Counter()

    def relu(x: Tensor, w: Tensor, b: Tensor, strides: Any, pads: Any, *rest: Any) -> Tensor:
        calls['relu'] += 1
        assert x.dtype == w.dtype == b.dtype == torch.float16
        assert x.is_contiguous(memory_format=torch.channels_last)
        return torch.conv2d(x, w, b, strides, pads, *rest).relu()

    def add_relu(x: Tensor, w: Tensor, z: Tensor, alpha: float, *rest: Any) -> Tensor:
        calls['add_relu'] += 1
        calls['relu'] -= 1
        out = relu(x, w, *rest)
        assert z.shape == out.shape
        assert z.dtype == out.dtype
        return out

    monkeypatch.setattr(torch, 'cudnn_convolution_relu', relu)
    monkeypatch.setattr(torch, 'cudnn_convolution_add_relu', add_relu)
    return calls


@contextmanager
def fake_program(
    monkeypatch: pytest.MonkeyPatch,
    family: Rule,
    images: int,
    operators: Operators,
) -> Iterator[Program]:
    """A program, and the mode in which it may be launched."""
    EmulatedCuda().install(monkeypatch)  # For the events of its stages.
    mode = FakeTensorMode()
    architecture = Architecture(
        semantics=SEMANTICS[family],
        box_pooler=Pooler(resolution=7, levels=family),
        mask_pooler=Pooler(resolution=14, levels=family),
    )
    network = fake_network(architecture, mode)
    # Not inference_mode: there, composite operators hide what they are made of.
    with mode, torch.no_grad():
        network_hw = network.resized_hw((720, 1280), SETTINGS)
        key = PathKey(images, (720, 1280), 'rgb', network_hw, 1000, 100)
        yield Program(network, operators, key, SETTINGS)


def launch(program: Program) -> tuple[Chosen, list[Masks]]:
    chosen = program.detect()
    return chosen, [program.label(capacity, chosen) for capacity in CAPACITIES]


def check_answer(chosen: Chosen, masks: list[Masks], images: int) -> None:
    assert chosen.packet.shape == (images, 5 + 100 * 6)
    assert chosen.packet.dtype == torch.float32
    assert all(x.dtype == torch.float16 for x in chosen.features)
    assert {x.device for x in (chosen.packet, *chosen.features)} == {GPU}
    for capacity, each in zip(CAPACITIES, masks, strict=True):
        assert each.probabilities.shape == (images, capacity, 28, 28)
        assert each.labels.shape == (images, 720, 1280)
        assert each.labels.dtype == torch.uint16
        assert each.areas.shape == (images, capacity)
        assert {x.device for x in (each.probabilities, each.labels, each.areas)} == {GPU}


@pytest.mark.parametrize('images', [1, 2])
@pytest.mark.parametrize('family', FAMILIES)
def test_plain_operators_neither_stop_nor_leave_their_gpu(
    monkeypatch: pytest.MonkeyPatch, family: Literal['detectron2', 'torchvision'], images: int
) -> None:
    operators = plain_operators('for a test')
    fused = fake_cudnn(monkeypatch)
    with fake_program(monkeypatch, family, images, operators) as program:
        with Watch() as watch:
            chosen, masks = launch(program)
        check_answer(chosen, masks, images)
        with Watch() as further:
            program.restart()
            masks[-1] = program.label_next(CAPACITIES[-1], chosen)
        check_answer(chosen, masks, images)
    assert not watch.strayed + further.strayed
    # A ResNet-50 adds 16 residuals; the other ReLUs are of its layers, the RPN's and the masks'.
    assert fused == {'add_relu': 16, 'relu': 33 + 5 + 4 * (len(CAPACITIES) + 1)}
    # NMS is a kernel a box, twice.
    assert watch.calls['aten::addcdiv_'] == 2 * 1000
    assert sum(watch.calls.values()) < 7_000, watch.calls.most_common(8)


@pytest.mark.parametrize('images', [1, 2])
@pytest.mark.parametrize('family', SEMANTICS)
def test_triton_launches_neither_stop_nor_leave_their_gpu(
    monkeypatch: pytest.MonkeyPatch, family: Rule, images: int
) -> None:
    pytest.importorskip('triton')
    from segnode.kernels.triton.nms import nms
    from segnode.kernels.triton.paste import paste_labels
    from segnode.kernels.triton.preprocess import preprocess
    from segnode.kernels.triton.roi_align import roi_align

    launches = record_launches(monkeypatch)
    fake_cudnn(monkeypatch)
    operators = Operators('Triton', nms, roi_align, paste_labels, preprocess)
    with fake_program(monkeypatch, family, images, operators) as program:
        with Watch() as watch:
            chosen, masks = launch(program)
        check_answer(chosen, masks, images)
    assert not watch.strayed, watch.strayed
    assert list(strayed_pointers(launches)) == []
    names = Counter(each.kernel.__name__ for each in launches)
    expected = {
        '_mask_kernel': 2,
        '_scan_kernel': 2,
        '_roi_align_kernel': 1 + len(CAPACITIES),
        '_area_kernel': len(CAPACITIES),
        '_paint_kernel': len(CAPACITIES),
    }
    if family == 'detectron2':  # torchvision resizes floats, for which PyTorch has a kernel.
        expected |= {'_pass_kernel': 1, '_last_pass_kernel': 1}
    if family == 'mmdetection':
        expected |= {'_blend_kernel': 1}
    assert names == expected


def strayed_pointers(launches: list[Launch]) -> Iterator[str]:
    """Pointers to another device, or so aligned that a capture would compile a kernel anew.

    A launch goes to the current device, whatever its pointers are.
    """
    for each in launches:
        if each.device != GPU:
            yield f'{each.kernel.__name__} launched on {each.device}'
        aligned = variant(each).aligned
        for name, value in each.arguments.items():
            if isinstance(value, Tensor) and (value.device != GPU or name not in aligned):
                yield f'{name} of {each.kernel.__name__} on {value.device}'


def test_launches_that_stray_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('triton')
    from segnode.kernels.triton.nms import nms

    launches = record_launches(monkeypatch)
    with FakeTensorMode():
        boxes = torch.empty((70, 4), device=GPU)
        nms(boxes, torch.empty(70, dtype=torch.bool, device=GPU), 0.5)
        assert list(strayed_pointers(launches)) == []
        nms(boxes.cpu(), torch.empty(70, dtype=torch.bool), 0.5)
        odd = torch.empty(71, dtype=torch.bool, device=GPU)[1:]
        nms(boxes, odd, 0.5)
    strayed = list(strayed_pointers(launches))
    assert any('launched on cpu' in line for line in strayed)
    assert 'valid of _scan_kernel on cuda:1' in strayed


def test_what_strays_or_stops_is_found() -> None:
    """The checks above can fail."""
    with FakeTensorMode(), torch.no_grad():
        on_gpu = torch.ones(3, device=GPU)
        with Watch() as watch:
            torch.ones(3).to(GPU)
        assert watch.strayed
        with Watch() as watch:
            on_gpu + torch.ones((), device='cpu')
        assert watch.strayed
        with Watch() as watch:
            on_gpu + 1
        assert not watch.strayed
        with pytest.raises(DataDependentOutputException):
            on_gpu[0].item()
        with pytest.raises(DataDependentOutputException):
            bool((on_gpu > 0).all())
        with pytest.raises(DynamicOutputShapeException):
            on_gpu.nonzero()
        with pytest.raises(DynamicOutputShapeException):
            on_gpu[on_gpu > 0]
