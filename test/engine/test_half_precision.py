# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Half precision against float32: on the trained demo model, and layer group by layer group."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from segnode.checkpoint.planting import plant_weights
from segnode.config import Config
from segnode.demo.scene import VALIDATION_SEEDS, Scene, coco_annotations
from segnode.engine import Engine, Prediction
from segnode.engine.network import NativeNetwork
from segnode.evaluation.annotations import Annotations
from segnode.evaluation.metrics import average_precision, categories_by_name, coco_results
from segnode.image import Image
from segnode.model.architecture import Architecture
from segnode.model.backbone_specs import ResNetSpec
from segnode.model.precision import DTYPES, choose_precision, convert_layers

HALF = ('bf16', 'fp16')
SEEDS = VALIDATION_SEEDS[200:224]
# Of some 200 instances. Four sets of scenes gave 0.94 to 0.97 in bfloat16 and 0.98 to 1 in FP16
# with PyTorch 2.14, and 0.92 to 0.95 and 0.99 to 1 with 2.5, whose layers deviate by the same.
OLD_TORCH = not hasattr(torch.compiler, 'is_exporting')
LEAST_MATCHED = {'bf16': 0.9 if OLD_TORCH else 0.95, 'fp16': 0.96}
NARROW = Architecture(
    backbone=ResNetSpec(width_per_group=16, res2_out_channels=64),
    fpn_channels=64,
    box_fc_dims=(128,),
    mask_conv_dims=(64, 64, 64, 64),
    num_classes=5,
)


@pytest.fixture(scope='module')
def scenes() -> list[Any]:
    return [Scene(seed).frame(3) for seed in SEEDS]


def run(precision: str, scenes: list[Any]) -> tuple[Engine, list[Prediction]]:
    engine = Engine(Config(precision=precision).replace({'filter.score_threshold': 0.5}))
    return engine, [engine.predict([Image(scene.image, 'bgr')])[0] for scene in scenes]


@pytest.fixture(scope='module')
def reference(scenes: list[Any]) -> list[Prediction]:
    return run('fp32', scenes)[1]


def matched_share(reference: list[Prediction], answers: list[Prediction]) -> float:
    """Share of the reference's instances with a partner of 0.5 px, 0.01 and IoU 0.98."""
    matched = total = 0
    for a, b in zip(reference, answers, strict=True):
        total += len(a.detections)
        if not len(a.detections) or not len(b.detections):
            continue
        iou = coco_mask.iou(
            [a.rle(i) for i in range(len(a.crops))],
            [b.rle(i) for i in range(len(b.crops))],
            [0] * len(b.crops),
        )
        boxes = a.detections.boxes_xyxy[:, None] - b.detections.boxes_xyxy[None]
        scores = a.detections.scores[:, None] - b.detections.scores[None]
        same = a.detections.class_ids[:, None] == b.detections.class_ids[None]
        fits = same & (iou >= 0.98) & (np.abs(scores) <= 0.01)
        fits &= (np.abs(boxes) <= 0.5).all(-1)
        matched += int(fits.any(1).sum())
    assert total > len(reference)
    return matched / total


@pytest.mark.parametrize('precision', HALF)
def test_trained_model_answers_alike(
    precision: str, scenes: list[Any], reference: list[Prediction]
) -> None:
    engine, answers = run(precision, scenes)
    assert engine.precision == precision
    share = matched_share(reference, answers)
    assert share >= LEAST_MATCHED[precision], f'{share:.3f} of the instances matched'

    annotations = Annotations.from_coco(coco_annotations(scenes))

    def ap(predictions: list[Prediction], iou_type: Literal['bbox', 'segm']) -> float | None:
        results = [
            result
            for image_id, prediction in enumerate(predictions)
            for result in coco_results(
                prediction.detections,
                [prediction.rle(i) for i in range(len(prediction.crops))],
                image={'image_id': image_id, 'file_name': ''},
                class_names=engine.class_names,
                category_ids=categories_by_name(engine.class_names, annotations),
            )
        ]
        return average_precision(annotations, results, iou_type, range(len(scenes))).ap

    for iou_type in ('bbox', 'segm'):
        expected = ap(reference, iou_type)
        assert expected is not None
        assert ap(answers, iou_type) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize('precision', HALF)
def test_each_group_of_layers_from_identical_inputs(precision: str) -> None:
    generator = torch.Generator().manual_seed(7)
    images = torch.randn((1, 3, 96, 128), generator=generator) * 50
    state = plant_weights(NARROW, images, 3)
    exact = NativeNetwork(NARROW, state, torch.device('cpu'), 'fp32').model
    half = NativeNetwork(NARROW, state, torch.device('cpu'), precision).model
    # Rounding to 8 or 11 bits, times the depth through which it adds up.
    bound = 0.05 if precision == 'bf16' else 0.008

    def deviation(a: Tensor, b: Tensor) -> float:
        return float((a - b.float()).abs().mean() / a.std())

    with torch.inference_mode():
        features = exact.backbone(images)
        for a, b in zip(features, half.backbone(images), strict=True):
            assert deviation(a, b) < bound
        lists = exact.proposal_generator.rpn_head(features)
        half_lists = half.proposal_generator.rpn_head([f.to(DTYPES[precision]) for f in features])
        for maps, half_maps in zip(lists, half_lists, strict=True):
            for a, b in zip(maps, half_maps, strict=True):
                assert deviation(a, b) < bound
        pooled = torch.randn((32, 64, 7, 7), generator=generator)
        for a, b in zip(
            exact.roi_heads.box_predictor(exact.roi_heads.box_head(pooled)),
            half.roi_heads.box_predictor(half.roi_heads.box_head(pooled)),
            strict=True,
        ):
            assert deviation(a, b) < bound
        pooled = torch.randn((8, 64, 14, 14), generator=generator)
        assert deviation(exact.roi_heads.mask_head(pooled), half.roi_heads.mask_head(pooled)) < (
            bound
        )


class Stack(nn.Module):
    """Three layers whose second one gives numbers beyond half precision's 65504."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4, bias=False)
        self.third = nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.second, self.third):
            x = layer(x.to(layer.weight.dtype))
        return x


@pytest.mark.parametrize(
    ('scales', 'kept'),
    [
        ((1.0, 1.0, 1.0), ()),
        ((1.0, 1e5, 1e-5), ('second', 'third')),
        ((1e6, 1e-6, 1.0), ('first', 'second')),
    ],
)
def test_layers_that_overflow_stay_in_float32(
    scales: tuple[float, ...], kept: tuple[str, ...]
) -> None:
    stack = Stack()
    for layer, scale in zip((stack.first, stack.second, stack.third), scales, strict=True):
        layer.weight.data = torch.eye(4) * scale
    x = torch.full((1, 4), 2.0)
    found = convert_layers(stack, torch.float16, lambda: stack(x))
    assert set(found) == set(kept)
    assert torch.isfinite(stack(x)).all()


class Between(Stack):
    """The same with numbers beyond half precision between the second layer and the third."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x.to(self.first.weight.dtype)).to(self.second.weight.dtype))
        return self.third((x * 1e5).to(self.third.weight.dtype) * 1e-5)


def test_numbers_that_overflow_between_layers_are_float32() -> None:
    stack = Between()
    for layer in (stack.first, stack.second, stack.third):
        layer.weight.data = torch.eye(4)
    x = torch.full((1, 4), 2.0)
    assert set(convert_layers(stack, torch.float16, lambda: stack(x))) == {'second', 'third'}
    assert stack.first.weight.dtype == torch.float16
    torch.testing.assert_close(stack(x), x)


def test_what_is_infinite_in_float32_keeps_no_other_layer_there() -> None:
    stack = Stack()
    stack.third.bias = nn.Parameter(torch.tensor([0.0, -torch.inf, 0.0, 0.0]))
    x = torch.ones((1, 4))
    assert convert_layers(stack, torch.float16, lambda: stack(x)) == ('third',)
    assert stack.second.weight.dtype == torch.float16


def test_nothing_stays_in_bfloat16_and_float32() -> None:
    stack = Stack()
    stack.second.weight.data *= 1e20
    x = torch.ones((1, 4))
    assert convert_layers(stack, torch.bfloat16, lambda: stack(x)) == ()
    assert {p.dtype for p in stack.parameters()} == {torch.bfloat16}


def test_choice() -> None:
    cpu = torch.device('cpu')
    assert choose_precision('fp16', cpu) == 'fp16'
    assert choose_precision('auto', cpu) in ('bf16', 'fp32')
