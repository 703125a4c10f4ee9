# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The choice of detections against Detectron2's and torchvision's."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any

import pytest
import torch
from random_boxes import clustered_boxes
from seeds import fresh_seeds
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads

from segnode.kernels.plain.nms import nms, nms_static
from segnode.model.architecture import TORCHVISION, Architecture
from segnode.model.box_head import (
    BoxDetections,
    BoxHead,
    BoxPredictor,
    Limits,
    select_detections,
)
from segnode.model.boxes import decode_boxes
from segnode.model.rpn import Proposals

IMAGE_HW = (240, 320)
CLASSES = 7
ARCHITECTURE = Architecture(num_classes=CLASSES)


def random_input(
    seed: int, images: int = 2, count: int = 150, agnostic: bool = False
) -> tuple[Tensor, Tensor, Proposals]:
    """Return logits (N, P, C + 1), deltas and proposals of which the last tenth is not valid."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.stack([clustered_boxes(generator, count, IMAGE_HW) for _ in range(images)])
    logits = torch.randn((images, count, CLASSES + 1), generator=generator) * 2.5
    columns = 4 if agnostic else 4 * CLASSES
    deltas = torch.randn((images, count, columns), generator=generator)
    valid = torch.arange(count).expand(images, -1) < count * 0.9
    return logits, deltas, Proposals(boxes, torch.zeros(images, count), valid)


def select(
    logits: Tensor,
    deltas: Tensor,
    proposals: Proposals,
    *,
    architecture: Architecture = ARCHITECTURE,
    suppress: Any = nms,
    **changes: Any,
) -> BoxDetections:
    options: dict[str, Any] = {
        'proposals': proposals.valid.shape[1],
        'score_threshold': 0.3,
        'nms_threshold': 0.5,
        'allowed': torch.ones(CLASSES, dtype=torch.bool),
        'capacity': 60,
        'max_instances': 60,
        'candidates': None,
    }
    limits = Limits(**{**options, **changes})
    return select_detections(
        logits, deltas, proposals, IMAGE_HW, architecture, limits=limits, nms=suppress
    )


def rows(boxes: Tensor, scores: Tensor, class_ids: Tensor) -> Tensor:
    """Return (D, 6): box, score and class."""
    return torch.cat((boxes, scores[:, None], class_ids[:, None].float()), dim=1)


def assert_same(found: BoxDetections, index: int, expected: Tensor) -> None:
    """Compare one image's detections.

    Both references shift the boxes of each class far apart and run one NMS, which rounds; so a
    close call may go the other way, and let another box pass.
    """
    valid = found.valid[index]
    count = int(valid.sum())
    assert valid[:count].all()
    assert (found.scores[index, count:] == 0).all()
    ours = rows(found.boxes[index], found.scores[index], found.class_ids[index])[:count]
    assert (ours[:-1, 4] >= ours[1:, 4]).all()
    distance = (ours[:, None] - expected[None]).abs().amax(-1)
    assert (distance.amin(1) > 1e-3).sum() <= 2
    assert (distance.amin(0) > 1e-3).sum() <= 2


@pytest.mark.parametrize('suppress', [nms, nms_static])
@pytest.mark.parametrize('candidates', [None, 1000])
@pytest.mark.parametrize('agnostic', [False, True])
@pytest.mark.parametrize('seed', fresh_seeds(2))
def test_detections_are_detectron2s(
    detectron2: ModuleType,
    seed: int,
    agnostic: bool,
    candidates: int | None,
    suppress: object,
) -> None:
    from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference

    logits, deltas, proposals = random_input(seed, agnostic=agnostic)
    found = select(logits, deltas, proposals, candidates=candidates, suppress=suppress)
    boxes, scores = [], []
    for n in range(2):
        kept = proposals.valid[n]
        decoded = decode_boxes(
            deltas[n].unflatten(1, (-1, 4)),
            proposals.boxes[n, :, None],
            ARCHITECTURE.box_bbox_weights,
        )
        boxes.append(decoded.flatten(1)[kept])
        scores.append(logits[n].softmax(-1)[kept])
    expected, _ = fast_rcnn_inference(boxes, scores, [IMAGE_HW] * 2, 0.3, 0.5, 60)
    for n, theirs in enumerate(expected):
        assert len(theirs) > 20
        assert_same(found, n, rows(theirs.pred_boxes.tensor, theirs.scores, theirs.pred_classes))
    assert not found.overflow.any()


@pytest.mark.parametrize('seed', fresh_seeds(2))
def test_detections_are_torchvisions(seed: int) -> None:
    logits, deltas, proposals = random_input(seed, images=1)
    proposals = dataclasses.replace(proposals, valid=torch.ones_like(proposals.valid))
    architecture = dataclasses.replace(ARCHITECTURE, semantics=TORCHVISION)
    # Some boxes come out empty, which torchvision drops before its NMS.
    deltas[0, ::9, 2::4] = -60.0
    found = select(logits, deltas, proposals, architecture=architecture)
    heads = RoIHeads(None, None, None, 0.5, 0.5, 512, 0.25, (10, 10, 5, 5), 0.3, 0.5, 60)
    background_first = logits[0].roll(1, dims=1)
    with_background = torch.cat((torch.zeros((150, 4)), deltas[0]), dim=1)
    boxes, scores, labels = heads.postprocess_detections(
        background_first, with_background, [proposals.boxes[0]], [IMAGE_HW]
    )
    assert len(scores[0]) > 20
    assert_same(found, 0, rows(boxes[0], scores[0], labels[0] - 1))


def test_class_allow_list_and_limit() -> None:
    logits, deltas, proposals = random_input(3)
    everything = select(logits, deltas, proposals, capacity=500, max_instances=500)
    allowed = torch.zeros(CLASSES, dtype=torch.bool)
    allowed[[1, 4]] = True
    some = select(logits, deltas, proposals, capacity=500, max_instances=9, allowed=allowed)
    for n in range(2):
        wanted = everything.valid[n] & allowed[everything.class_ids[n]]
        assert some.valid[n].sum() == 9
        assert torch.equal(some.boxes[n, :9], everything.boxes[n][wanted][:9])
        assert some.filtered_class[n] == (everything.valid[n] & ~wanted).sum() > 0
    assert everything.filtered_class.tolist() == [0, 0]


def test_overflow_is_told_where_more_candidates_could_change_the_answer() -> None:
    logits, deltas, proposals = random_input(4)
    full = select(logits, deltas, proposals, capacity=500, max_instances=500)
    capped = select(logits, deltas, proposals, capacity=500, max_instances=500, candidates=40)
    assert capped.overflow.all()
    for n in range(2):
        # What is found with a cap is a prefix of the whole answer.
        count = int(capped.valid[n].sum())
        assert 0 < count < full.valid[n].sum()
        assert torch.equal(capped.boxes[n, :count], full.boxes[n, :count])
    few = select(logits, deltas, proposals, capacity=500, max_instances=5, candidates=40)
    assert few.valid.sum(1).tolist() == [5, 5]
    assert not few.overflow.any()


@pytest.mark.parametrize('candidates', [None, 1000])
def test_nothing_above_the_threshold(candidates: int | None) -> None:
    logits, deltas, proposals = random_input(5)
    found = select(logits, deltas, proposals, score_threshold=1.0, candidates=candidates)
    assert not found.valid.any()
    assert not found.overflow.any()
    none = dataclasses.replace(proposals, valid=torch.zeros_like(proposals.valid))
    assert not select(logits, deltas, none, candidates=candidates).valid.any()
    no_proposals = dataclasses.replace(
        proposals,
        boxes=proposals.boxes[:, :0],
        scores=proposals.scores[:, :0],
        valid=proposals.valid[:, :0],
    )
    found = select(logits[:, :0], deltas[:, :0], no_proposals, candidates=candidates)
    assert not found.valid.any()


def test_a_score_must_exceed_the_threshold() -> None:
    logits, deltas, proposals = random_input(6, images=1)
    scores = select(logits, deltas, proposals).scores[0]
    threshold = float(scores[10])
    found = select(logits, deltas, proposals, score_threshold=threshold)
    assert found.valid.sum() == 10
    assert torch.equal(found.scores[0, :10], scores[:10])


def test_numbers_that_are_not_finite_make_no_detection() -> None:
    logits, deltas, proposals = random_input(7, images=1)
    logits[0, :50] = torch.nan
    deltas[0, 50:90] = torch.inf
    found = select(logits, deltas, proposals)
    assert torch.isfinite(found.boxes).all()
    assert torch.isfinite(found.scores).all()
    assert found.valid.sum() > 0


@pytest.mark.parametrize(('convs', 'fcs'), [((), (32, 32)), ((24, 24), (40,))])
def test_layers_are_detectron2s(
    detectron2: ModuleType, convs: tuple[int, ...], fcs: tuple[int, ...]
) -> None:
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.roi_heads import FastRCNNConvFCHead

    architecture = dataclasses.replace(
        ARCHITECTURE, fpn_channels=16, box_conv_dims=convs, box_fc_dims=fcs
    )
    head = BoxHead(architecture)
    theirs = FastRCNNConvFCHead(
        ShapeSpec(channels=16, height=7, width=7), conv_dims=list(convs), fc_dims=list(fcs)
    )
    theirs.load_state_dict(head.state_dict())
    x = torch.randn((5, 16, 7, 7))
    hidden = head(x)
    torch.testing.assert_close(hidden, theirs(x), rtol=1e-5, atol=1e-6)
    logits, deltas = BoxPredictor(architecture, head.out_features)(hidden)
    assert logits.shape == (5, CLASSES + 1)
    assert deltas.shape == (5, 4 * CLASSES)


@pytest.mark.parametrize('exact', ['fc1', 'cls_score', 'bbox_pred'])
def test_each_layer_has_the_format_that_its_numbers_fit_in(exact: str) -> None:
    head = BoxHead(ARCHITECTURE)
    predictor = BoxPredictor(ARCHITECTURE, head.out_features)
    expected = nn.Sequential(head, predictor)(x := torch.randn(2, 256, 7, 7))
    for module in (head, predictor):
        for name, layer in module.named_children():
            layer.to(torch.float32 if name == exact else torch.bfloat16)
    logits, deltas = predictor(head(x))
    assert (logits.dtype == torch.float32) == (exact == 'cls_score')
    assert (deltas.dtype == torch.float32) == (exact == 'bbox_pred')
    for ours, exactly in zip((logits, deltas), expected, strict=True):
        torch.testing.assert_close(ours.float(), exactly, rtol=0.05, atol=0.02)
