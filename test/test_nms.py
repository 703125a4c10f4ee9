# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Both forms of NMS against torchvision's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from random_boxes import clustered_boxes
from seeds import fresh_seeds
from torch import Tensor

from segnode.model.nms import nms, nms_static

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
