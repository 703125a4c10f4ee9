# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The choice of proposals against Detectron2's and torchvision's."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any

import pytest
import torch
from seeds import fresh_seeds
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork

from segnode.kernels.plain.nms import nms, nms_static
from segnode.model.anchors import make_anchors
from segnode.model.architecture import TORCHVISION, Architecture
from segnode.model.boxes import decode_boxes
from segnode.model.rpn import Proposals, RPNHead, anchor_rows, select_proposals

IMAGE_HW = (179, 250)  # before padding to 192 x 256
SIZES = [(48, 64), (24, 32), (12, 16), (6, 8), (3, 4)]
ARCHITECTURE = Architecture(rpn_pre_nms_topk=300, rpn_post_nms_topk=200)


def random_outputs(seed: int, images: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return logits (N, 3, h, w) and deltas (N, 12, h, w) of the five levels."""
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn((images, 3, *size), generator=generator) * 3 for size in SIZES]
    deltas = [torch.randn((images, 12, *size), generator=generator) * 0.6 for size in SIZES]
    return logits, deltas


def select(
    architecture: Architecture,
    logits: list[Tensor],
    deltas: list[Tensor],
    count: int,
    suppress: Any = nms,
) -> Proposals:
    anchors = make_anchors(architecture, SIZES, torch.device('cpu'))
    rows = anchor_rows(logits, deltas)
    return select_proposals(*rows, anchors, IMAGE_HW, architecture, count, suppress)


def assert_same(proposals: Proposals, index: int, boxes: Tensor, scores: Tensor) -> None:
    """Compare one image's proposals; all but a close call of the NMS must agree.

    Both references shift the boxes of each level far apart and run one NMS, which rounds.
    """
    valid = proposals.valid[index]
    assert valid[: valid.sum()].all()
    ours = torch.cat((proposals.boxes[index], proposals.scores[index, :, None]), dim=1)[valid]
    theirs = torch.cat((boxes, scores[:, None]), dim=1)
    assert abs(len(ours) - len(theirs)) <= 2
    distance = (ours[:, None] - theirs[None]).abs().amax(-1)
    assert (distance.amin(1) > 1e-3).sum() <= 2
    assert (distance.amin(0) > 1e-3).sum() <= 2


@pytest.mark.parametrize('suppress', [nms, nms_static])
@pytest.mark.parametrize('minimum', [0.0, 9.0])
@pytest.mark.parametrize('seed', fresh_seeds(2))
def test_proposals_are_detectron2s(
    detectron2: ModuleType, seed: int, minimum: float, suppress: object
) -> None:
    from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals

    architecture = dataclasses.replace(ARCHITECTURE, rpn_min_size=minimum)
    logits, deltas = random_outputs(seed, 2)
    proposals = select(architecture, logits, deltas, 200, suppress=suppress)
    anchors = make_anchors(architecture, SIZES, torch.device('cpu'))
    flat_logits, flat_deltas = anchor_rows(logits, deltas)
    boxes = [
        decode_boxes(d, a, architecture.rpn_bbox_weights)
        for d, a in zip(flat_deltas, anchors.split([x.shape[1] for x in flat_logits]), strict=True)
    ]
    expected = find_top_rpn_proposals(
        boxes, flat_logits, [IMAGE_HW] * 2, 0.7, 300, 200, minimum, training=False
    )
    assert proposals.boxes.shape == (2, 200, 4)
    for index, found in enumerate(expected):
        assert len(found) > 100
        assert_same(proposals, index, found.proposal_boxes.tensor, found.objectness_logits)


@pytest.mark.parametrize('seed', fresh_seeds(2))
def test_proposals_are_torchvisions(seed: int) -> None:
    architecture = dataclasses.replace(ARCHITECTURE, semantics=TORCHVISION, rpn_min_size=1e-3)
    logits, deltas = random_outputs(seed, 2)
    proposals = select(architecture, logits, deltas, 200)
    counts = {'training': 2000, 'testing': 300}
    rpn = RegionProposalNetwork(
        AnchorGenerator(architecture.anchor_sizes, architecture.anchor_ratios),
        torch.nn.Identity(),
        *(0.7, 0.3, 256, 0.5),
        counts,
        {'training': 2000, 'testing': 200},
        0.7,
    ).eval()
    anchors = make_anchors(architecture, SIZES, torch.device('cpu'))
    flat_logits, flat_deltas = anchor_rows(logits, deltas)
    boxes = decode_boxes(torch.cat(flat_deltas, 1), anchors, architecture.rpn_bbox_weights)
    found, scores = rpn.filter_proposals(
        boxes, torch.cat(flat_logits, 1), [IMAGE_HW] * 2, [x.shape[1] for x in flat_logits]
    )
    assert rpn.min_size == architecture.rpn_min_size
    proposals = dataclasses.replace(proposals, scores=proposals.scores.sigmoid())
    for index in range(2):
        assert_same(proposals, index, found[index], scores[index])


def test_numbers_that_are_not_finite_make_no_proposal() -> None:
    logits, deltas = random_outputs(0, 1)
    logits[0][0, 0] = torch.nan
    logits[1][:] = torch.inf
    deltas[2][:] = torch.nan
    deltas[3][0, 2::4] = torch.inf
    proposals = select(ARCHITECTURE, logits, deltas, 1000)
    assert torch.isfinite(proposals.boxes).all()
    # Infinite logits must not become the most trusted ones.
    assert (proposals.scores[proposals.valid].abs() < 50).all()
    assert 100 < proposals.valid.sum() < 400
    nothing = select(ARCHITECTURE, [x * torch.nan for x in logits], deltas, 200)
    assert not nothing.valid.any()


def test_fewer_candidates_than_proposals() -> None:
    logits, deltas = random_outputs(1, 1)
    architecture = dataclasses.replace(ARCHITECTURE, rpn_pre_nms_topk=30)
    proposals = select(architecture, logits, deltas, 1000)
    assert proposals.boxes.shape == (1, 150, 4)
    scores = proposals.scores[0]
    assert (scores[:-1] >= scores[1:]).all()


@pytest.mark.parametrize('dims', [(-1,), (32, -1)])
def test_head_is_detectron2s(detectron2: ModuleType, dims: tuple[int, ...]) -> None:
    from detectron2.modeling.proposal_generator.rpn import StandardRPNHead

    head = RPNHead(dataclasses.replace(ARCHITECTURE, fpn_channels=16, rpn_conv_dims=dims))
    theirs = StandardRPNHead(in_channels=16, num_anchors=3, box_dim=4, conv_dims=dims)
    theirs.load_state_dict(head.state_dict())
    features = [torch.randn((2, 16, *size)) for size in SIZES]
    for ours, expected in zip(head.maps(features), theirs(features), strict=True):
        for x, y in zip(ours, expected, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
@pytest.mark.parametrize('ratios', [(1.0,), (0.5, 1.0, 2.0)])
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_one_layer_predicts_what_two_do(
    seed: int, ratios: tuple[float, ...], dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(seed)
    architecture = dataclasses.replace(
        ARCHITECTURE, fpn_channels=16, anchor_ratios=(ratios,) * len(SIZES)
    )
    head = RPNHead(architecture).to(dtype)
    for parameter in head.parameters():
        # Maps of about one: of large ones that cancel, rounding leaves more than the tolerance.
        torch.nn.init.normal_(parameter, std=0.1)
    features = [torch.randn((2, 16, *size), dtype=dtype) for size in SIZES]
    expected = anchor_rows(*head.maps(features))
    for found, apart in zip(head(features), expected, strict=True):
        assert all(map(torch.equal, found, apart))
    head.join_predictors()
    assert not {'objectness_logits', 'anchor_deltas'} & dict(head.named_children()).keys()
    for found, apart in zip(head(features), expected, strict=True):
        for x, y in zip(found, apart, strict=True):
            assert x.shape == y.shape
            torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def test_predictors_of_two_formats_stay_two() -> None:
    head = RPNHead(dataclasses.replace(ARCHITECTURE, fpn_channels=16))
    head.anchor_deltas.half()
    head.join_predictors()
    assert head.joined is None
    assert head.anchor_deltas.weight.dtype == torch.float16
