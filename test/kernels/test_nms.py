# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Both forms of NMS against torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from fake_gpu import needs_fake_gpu
from random_boxes import clustered_boxes
from seeds import fresh_seeds
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from segnode.kernels.plain.nms import nms, nms_static

IMAGE_HW = (480, 640)
FORMS = pytest.mark.parametrize('suppress', [nms, nms_static])
Suppress = Callable[..., Tensor]


def expected_keep(boxes: Tensor, valid: Tensor, threshold: float, groups: Tensor) -> Tensor:
    """Run torchvision's NMS over each group of each set, in the order of the boxes."""
    keep = torch.zeros_like(valid)
    for row in range(len(boxes)):
        for group in groups[row].unique():
            index = (valid[row] & (groups[row] == group)).nonzero().squeeze(1)
            scores = torch.linspace(1, 0, len(index), dtype=torch.float64)
            kept = torchvision.ops.nms(boxes[row, index].double(), scores, threshold)
            keep[row, index[kept]] = True
    return keep


def close_calls(boxes: Tensor, threshold: float) -> bool:
    """Tell whether an overlap is so near to the threshold that rounding decides."""
    return any(
        bool(((torchvision.ops.box_iou(b, b) - threshold).abs() < 1e-6).any())
        for b in boxes.double()
    )


def test_overlaps_are_held_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.stack([clustered_boxes(generator, 300, IMAGE_HW) for _ in range(2)])
    valid = torch.rand((2, 300), generator=generator) > 0.1
    groups = torch.randint(3, (2, 300), generator=generator)
    expected = nms(boxes, valid, 0.5, groups)
    assert torch.equal(nms_static(boxes, valid, 0.5, groups), expected)
    for rows in (1, 64, 299):
        monkeypatch.setattr('segnode.kernels.plain.nms.ROWS', rows)
        assert torch.equal(nms_static(boxes, valid, 0.5, groups), expected)


@FORMS
@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.7])
@pytest.mark.parametrize('count', [1, 2, 64, 65, 300, 1000])
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_nms_keeps_what_torchvision_keeps(
    suppress: Suppress, seed: int, count: int, threshold: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.stack([clustered_boxes(generator, count, IMAGE_HW) for _ in range(2)])
    while close_calls(boxes, threshold):
        boxes = torch.stack([clustered_boxes(generator, count, IMAGE_HW) for _ in range(2)])
    valid = torch.ones((2, count), dtype=torch.bool)
    keep = suppress(boxes, valid, threshold)
    expected = expected_keep(boxes, valid, threshold, torch.zeros((2, count)))
    assert torch.equal(keep, expected)
    if count >= 300:
        assert 0 < keep.sum() < keep.numel()


@FORMS
@pytest.mark.parametrize('seed', fresh_seeds(2))
def test_groups_and_invalid_boxes_do_not_suppress(suppress: Suppress, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.stack([clustered_boxes(generator, 400, IMAGE_HW) for _ in range(6)])
    while close_calls(boxes, 0.5):
        boxes = torch.stack([clustered_boxes(generator, 400, IMAGE_HW) for _ in range(6)])
    valid = torch.rand((6, 400), generator=generator) < 0.7
    groups = torch.randint(5, (6, 400), generator=generator)
    expected = expected_keep(boxes, valid, 0.5, groups)
    assert torch.equal(suppress(boxes, valid, 0.5, groups), expected)
    # Leading dimensions are free: here two images of three levels.
    shaped = suppress(boxes.view(2, 3, 400, 4), valid.view(2, 3, 400), 0.5, groups.view(2, 3, 400))
    assert torch.equal(shaped.view(6, 400), expected)


@FORMS
def test_identical_boxes_leave_the_first(suppress: Suppress) -> None:
    boxes = torch.tensor([10.0, 20.0, 50.0, 70.0]).expand(1, 1000, 4)
    valid = torch.ones((1, 1000), dtype=torch.bool)
    assert suppress(boxes, valid, 0.5).nonzero().tolist() == [[0, 0]]
    valid[0, :130] = False
    assert suppress(boxes, valid, 0.5).nonzero().tolist() == [[0, 130]]
    assert suppress(boxes, valid, 1.0).sum() == 870


@FORMS
@pytest.mark.parametrize('count', [0, 70])
def test_none_valid_keeps_none(suppress: Suppress, count: int) -> None:
    keep = suppress(torch.rand((2, count, 4)), torch.zeros((2, count), dtype=torch.bool), 0.5)
    assert keep.shape == (2, count)
    assert not keep.any()


@FORMS
def test_empty_boxes_stay(suppress: Suppress) -> None:
    """The overlap of two boxes without area is no number, and exceeds nothing."""
    boxes = torch.tensor([[[5.0, 5.0, 5.0, 5.0]] * 3 + [[0.0, 0.0, 10.0, 10.0]]])
    assert suppress(boxes, torch.ones((1, 4), dtype=torch.bool), 0.5).all()


@FORMS
def test_an_overlap_equal_to_the_threshold_stays(suppress: Suppress) -> None:
    # The overlap is 3 / 10, which float32 rounds up and float64 down.
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 1.0], [0.0, 0.0, 3.0, 1.0]]])
    valid = torch.ones((1, 2), dtype=torch.bool)
    in_float64 = torchvision.ops.nms(boxes[0].double(), torch.tensor([1.0, 0.5]).double(), 0.5)
    assert suppress(boxes, valid, 0.5).sum() == len(in_float64) == 2
    in_float32 = torchvision.ops.nms(boxes[0], torch.tensor([1.0, 0.5]), 0.3)
    assert suppress(boxes, valid, 0.3).sum() == len(in_float32)


class KernelCount(TorchDispatchMode):
    """Counts the operators that a device would run; a view is none."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        aliases = [returned.alias_info for returned in func._schema.returns]
        self.kernels += not any(alias and not alias.is_write for alias in aliases)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('sets', [1, 5])
def test_a_box_takes_one_kernel(sets: int) -> None:
    count = 1000
    generator = torch.Generator().manual_seed(0)
    boxes = torch.stack([clustered_boxes(generator, count, IMAGE_HW) for _ in range(sets)])
    groups = torch.randint(3, (sets, count), generator=generator)
    valid = torch.ones((sets, count), dtype=torch.bool)
    with KernelCount() as counted:
        nms_static(boxes, valid, 0.5, groups)
    assert count // 2 < counted.kernels <= count + 40, (
        f'NMS of {sets} x {count} boxes launches {counted.kernels} kernels'
    )


@pytest.mark.parametrize('mode', [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_what_is_given_stays_as_it_is(mode: Callable[[], Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = clustered_boxes(generator, 70, IMAGE_HW)
    valid = torch.rand(70, generator=generator) < 0.8
    threshold = torch.tensor(0.5)
    groups = torch.randint(3, (70,), generator=generator)
    inputs = (boxes, valid, threshold, groups)
    before = [x.clone() for x in inputs]
    with mode():
        keep = nms_static(*inputs)
        # One by one, as several sets, and as rows of something larger.
        wide = torch.stack((valid, ~valid), dim=1)[:, 0]
        assert torch.equal(nms_static(boxes, wide, threshold, groups), keep)
        assert torch.equal(nms_static(*(x[None] for x in inputs))[0], keep)
    assert torch.equal(keep, nms(*inputs))
    for given, copy in zip(inputs, before, strict=True):
        assert torch.equal(given, copy)


def test_only_the_first_of_a_chain_of_overlaps_drops_its_neighbour() -> None:
    """Each box overlaps the next alone: every second one stays, however long the chain."""
    left = torch.arange(1000.0)
    zero = torch.zeros(1000)
    chain = torch.stack((left, zero, left + 1.9, zero + 1), dim=1)
    keep = nms_static(chain, torch.ones(1000, dtype=torch.bool), 0.3)
    assert torch.equal(keep, torch.arange(1000) % 2 == 0)


@needs_fake_gpu
def test_it_neither_stops_for_the_host_nor_leaves_its_device() -> None:
    """Fake tensors of a device that need not be there refuse to be read, and to be mixed."""
    with FakeTensorMode():
        boxes = torch.empty((2, 5, 100, 4), device='cuda:1')
        valid = torch.empty((2, 5, 100), dtype=torch.bool, device='cuda:1')
        groups = torch.empty((2, 5, 100), dtype=torch.int64, device='cuda:1')
        threshold = torch.empty((), device='cuda:1')
        for limit in (0.5, threshold):
            keep = nms_static(boxes, valid, limit, groups)
            assert keep.shape == valid.shape
            assert keep.device == valid.device
