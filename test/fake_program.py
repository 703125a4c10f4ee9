# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a frame launches on fake tensors of a GPU that is not the current one.

A fake tensor has a device, a shape and no numbers: what asks for a number raises, and every
operator shows which devices it touches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from emulated_graphs import EmulatedCuda
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from segnode.engine.network import NativeNetwork
from segnode.engine.program import PathKey, Program
from segnode.engine.settings import InferenceSettings
from segnode.kernels.operators import Operators
from segnode.model.architecture import SEMANTICS, Architecture, Pooler, Rule
from segnode.model.conv import Conv
from segnode.model.fusion import cudnn_conv
from segnode.model.mask_rcnn import MaskRCNN

GPU = torch.device('cuda', 1)
SETTINGS = InferenceSettings(
    short_side=480,
    long_side=640,
    score_threshold=0.05,
    nms_threshold=0.5,
    max_instances=100,
    proposals=1000,
    classes=frozenset(range(80)),
)
# Memory alone, or another look at some.
NOTHING_WRITTEN = frozenset(
    f'aten::{name}'
    for name in ('empty', 'empty_like', 'empty_strided', 'new_empty', 'detach', '_unsafe_view')
)


class Watch(TorchDispatchMode):
    """Which operators touch more than one device or another than the GPU, and which write.

    Attributes:
        strayed: the operators on other devices.
        calls: how often each that writes a tensor was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.strayed: list[str] = []
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name
        if func.namespace != 'prim' and not func.is_view and name not in NOTHING_WRITTEN:
            self.calls[name] += 1
            if name == 'aten::convolution' and args[2] is not None:
                # cuDNN's convolution has none: PyTorch adds it afterwards.
                self.calls['bias of a convolution'] += 1
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
    model.join_layers()
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
    network.input_choice = 'for a test'
    network._anchors = {}
    network.model = model
    return network


def fake_cudnn(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Put shapes in place of cuDNN's fused convolutions, which ask for a driver; count them."""
    calls: Counter[str] = Counter()

    def relu(
        x: Tensor, w: Tensor, b: Tensor, strides: Any, pads: Any, dilation: Any, groups: int
    ) -> Tensor:
        calls['relu'] += 1
        assert x.dtype == w.dtype == b.dtype == torch.float16
        assert x.is_contiguous(memory_format=torch.channels_last)
        geometry = zip(x.shape[2:], w.shape[2:], strides, pads, dilation, strict=True)
        hw = [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in geometry]
        shape, channels_last = (len(x), len(w), *hw), torch.channels_last
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=channels_last)

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
    image_hw: tuple[int, int] = (720, 1280),
    settings: InferenceSettings = SETTINGS,
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
        network_hw = network.resized_hw(image_hw, settings)
        key = PathKey(images, image_hw, 'rgb', network_hw, 1000, 100)
        yield Program(network, operators, key, settings)
