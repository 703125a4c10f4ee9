# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The launches between upload and packet on fake tensors of a GPU that is not the current one.

Triton kernels cannot run on them; their launches are recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal

import pytest
import torch
from fake_gpu import needs_fake_gpu
from fake_program import GPU, Watch, fake_cudnn, fake_program
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from triton_launches import Launch, record_launches, variant

from segnode.engine.path import CAPACITIES
from segnode.engine.program import Chosen, Masks, Program
from segnode.kernels.operators import plain_operators, triton_operators
from segnode.model.architecture import SEMANTICS, Rule

FAMILIES: tuple[Literal['detectron2', 'torchvision'], ...] = ('detectron2', 'torchvision')
pytestmark = needs_fake_gpu


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
    assert fused == {'add_relu': 16, 'relu': 33 + 5 + 5 * (len(CAPACITIES) + 1)}
    # NMS is a kernel a box, twice.
    assert watch.calls['aten::addcdiv_'] == 2 * 1000
    assert sum(watch.calls.values()) < 7_000, watch.calls.most_common(8)


@pytest.mark.parametrize('images', [1, 2])
@pytest.mark.parametrize('family', SEMANTICS)
def test_triton_launches_neither_stop_nor_leave_their_gpu(
    monkeypatch: pytest.MonkeyPatch, family: Rule, images: int
) -> None:
    pytest.importorskip('triton')
    launches = record_launches(monkeypatch)
    fake_cudnn(monkeypatch)
    with fake_program(monkeypatch, family, images, triton_operators()) as program:
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
        '_choose_kernel': 1,
        '_level_keys_kernel': 1,
        # Keys of 16 bits, or of 32 where probabilities are ranked; and those of detections.
        '_count_kernel': (3 if family == 'mmdetection' else 1) + 3,
        '_gather_kernel': 2,
        '_candidates_kernel': 1,
        '_merge_kernel': 1,
        '_probability_keys_kernel': 1,
        '_pairs_kernel': 1,
        '_detections_kernel': 1,
        '_area_kernel': len(CAPACITIES),
        # The stem's and the pyramid's last level; the pyramid's way down.
        '_max_pool_kernel': 2,
        '_add_enlarged_kernel': 3,
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
            if not isinstance(value, Tensor):
                continue
            # Where one layer gives logits and deltas, logits always lie 8 bytes into a row.
            if value.device != GPU or (name not in aligned and not name.startswith('scores_')):
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
