# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What MMDetection computes in its own way, against the formulas written out.

``test/oracles/test_semantics.py`` compares the same with MMDetection itself.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from seeds import fresh_seeds

from segnode.kernels.plain.nms import nms
from segnode.model.anchors import base_anchors
from segnode.model.architecture import DETECTRON2, MMDETECTION, Architecture, Pooler
from segnode.model.boxes import decode_boxes
from segnode.model.pooler import assign_levels
from segnode.model.rpn import select_proposals

POOLER = Pooler(resolution=7, levels='mmdetection')


def test_the_ratio_is_the_outer_loop_of_anchors() -> None:
    architecture = Architecture(
        semantics=MMDETECTION,
        anchor_sizes=((32.0, 48.0),) * 5,
        anchor_ratios=((0.5, 1.0, 2.0),) * 5,
    )
    expected = []
    for ratio in (0.5, 1.0, 2.0):
        for size in (32.0, 48.0):
            width, height = size / math.sqrt(ratio), size * math.sqrt(ratio)
            expected.append([-width / 2, -height / 2, width / 2, height / 2])
    torch.testing.assert_close(base_anchors(architecture, 0), torch.tensor(expected))
    other = dataclasses.replace(architecture, semantics=DETECTRON2)
    assert not torch.equal(base_anchors(architecture, 0), base_anchors(other, 0))


@pytest.mark.parametrize('seed', fresh_seeds(2))
def test_a_side_shrinks_no_more_than_it_grows(seed: int) -> None:
    random = np.random.default_rng(seed)
    corner, side = random.uniform(0, 300, (200, 2)), random.uniform(4, 200, (200, 2))
    deltas = random.normal(0, 8, (200, 4))
    weights = (10.0, 10.0, 5.0, 5.0)
    bound = math.log(1000 / 16)
    moved = deltas / weights
    center = moved[:, :2] * side + corner + side / 2
    sides = np.exp(moved[:, 2:].clip(-bound, bound)) * side
    expected = np.concatenate((center - sides / 2, center + sides / 2), 1)
    boxes = torch.from_numpy(np.concatenate((corner, corner + side), 1)).float()
    found = decode_boxes(
        torch.from_numpy(deltas * 20).float() / 20, boxes, weights, clamp_shrinking=True
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-3)
    shrunk = torch.tensor([[0.0, 0.0, -100.0, -100.0]])
    one = torch.tensor([[0.0, 0.0, 1000.0, 1000.0]])
    (held,) = decode_boxes(shrunk, one, (1.0,) * 4, clamp_shrinking=True)
    torch.testing.assert_close(held, torch.tensor([492.0, 492.0, 508.0, 508.0]))
    (free,) = decode_boxes(shrunk, one, (1.0,) * 4)
    torch.testing.assert_close(free, torch.full((4,), 500.0))


@pytest.mark.parametrize('seed', fresh_seeds(2))
def test_level_of_a_side(seed: int) -> None:
    random = np.random.default_rng(seed)
    sides = np.exp(random.uniform(0, math.log(2000), (500, 2)))
    # Where rounding would decide, which the next test has.
    exact = np.log2(np.sqrt(sides.prod(1)) / 56 + 1e-6)
    sides[abs(exact - exact.round()) < 1e-5] *= 1.001
    boxes = torch.from_numpy(np.concatenate((np.zeros_like(sides), sides), 1)).float()
    level = np.floor(np.log2(np.sqrt(sides.prod(1)) / 56 + 1e-6)).clip(0, 3)
    assert (assign_levels(boxes, POOLER).numpy() == level).all()


@pytest.mark.parametrize(
    ('side', 'level'), [(0, 0), (111.9, 0), (112, 1), (223.9, 1), (224, 2), (448, 3), (5000, 3)]
)
def test_levels_at_their_bounds(side: float, level: int) -> None:
    assert assign_levels(torch.tensor([0.0, 0.0, side, side]), POOLER) == level


def test_equal_probabilities_rank_by_place() -> None:
    """Logits that float32 probabilities no longer tell apart."""
    architecture = Architecture(
        semantics=MMDETECTION, rpn_pre_nms_topk=2, anchor_ratios=((1.0,),) * 5
    )
    logits = torch.tensor([[20.0, 30.0, 40.0, -1.0]])
    assert logits.sigmoid()[..., :3].unique().numel() == 1
    anchors = torch.tensor([[x, 0.0, x + 10, 10.0] for x in (0.0, 20.0, 40.0, 60.0)])
    deltas = torch.zeros((1, 4, 4))

    def kept(rule: Architecture) -> list[float]:
        found = select_proposals([logits], [deltas], anchors, (64, 100), rule, 2, nms)
        return found.boxes[0, found.valid[0], 0].tolist()

    assert kept(architecture) == [0.0, 20.0]
    assert kept(dataclasses.replace(architecture, semantics=DETECTRON2)) == [40.0, 20.0]
