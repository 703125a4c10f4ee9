# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""More instances than a mask head is run for at once, up to all that there are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from matching import Found, assert_same_instances
from pictures import rendered
from torch import Tensor

from segnode.checkpoint.detectron2_config import config_keys
from segnode.checkpoint.planting import plant_weights
from segnode.config import Config
from segnode.engine import Engine
from segnode.errors import SegnodeError
from segnode.image import Image
from segnode.kernels.preprocess import preprocess
from segnode.model.architecture import Architecture, Pooler
from segnode.model.backbone_specs import ResNetSpec

SIZE = (96, 128)
NARROW = Architecture(
    backbone=ResNetSpec(width_per_group=16, res2_out_channels=64),
    fpn_channels=32,
    box_fc_dims=(64,),
    mask_pooler=Pooler(resolution=7),
    mask_conv_dims=(16,),
    num_classes=5,
    rpn_post_nms_topk=400,
    score_threshold=0.03,
    nms_threshold=0.95,
    short_side=96,
    long_side=128,
)


@dataclasses.dataclass(frozen=True)
class Planted:
    """A network on disk, a picture, and all that Detectron2 finds in it."""

    folder: Path
    image: Image
    everything: Found


@pytest.fixture(scope='module')
def planted(detectron2: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder, image = tmp_path_factory.mktemp('many'), rendered(4, SIZE)
    state = plant_weights(NARROW, preprocess(image, SIZE, NARROW)[None], seed=0)
    # Hardly any class is ruled out, so that each proposal gives some detections.
    for kind in ('weight', 'bias'):
        state[f'roi_heads.box_predictor.cls_score.{kind}'] *= 0.2
    torch.save({'model': state}, folder / 'model.pth')
    return Planted(folder, image, found_by_detectron2(state, image, -1))


def found_by_detectron2(state: dict[str, Tensor], image: Image, most: int) -> Found:
    from detectron2.modeling import build_model
    from detectron2_reference import bgr, config_of

    cfg = config_of(NARROW)
    cfg.TEST.DETECTIONS_PER_IMAGE = most
    model = build_model(cfg).eval()
    model.load_state_dict(state)
    pixels = torch.as_tensor(bgr(image).astype('float32').transpose(2, 0, 1))
    with torch.inference_mode():
        request = {'image': pixels, 'height': image.height, 'width': image.width}
        found = model([request])[0]['instances']
    return Found(
        found.pred_boxes.tensor.numpy(),
        found.scores.numpy(),
        found.pred_classes.numpy(),
        found.pred_masks.numpy(),
    )


def engine_of(planted: Planted, most: int, static: bool) -> Engine:
    """Return an engine for a config that keeps ``most`` detections."""
    content: dict[str, Any] = {}
    for key, value in (config_keys(NARROW) | {'TEST.DETECTIONS_PER_IMAGE': most}).items():
        *sections, name = key.split('.')
        section = content
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    config = planted.folder / f'keeps{most}.yaml'
    config.write_text(yaml.safe_dump(content))
    weights = str(planted.folder / 'model.pth')
    try:
        return Engine(
            Config(model=str(config), weights=weights, device='cpu', precision='fp32'),
            static=static,
        )
    except SegnodeError as error:
        pytest.fail(f'a config that Detectron2 takes is refused: {error}')


def without_masks(found: Found) -> Found:
    return dataclasses.replace(found, masks=np.ones((len(found.scores), 1, 1), dtype=np.bool_))


@pytest.mark.parametrize('static', [False, True], ids=['dynamic', 'static'])
@pytest.mark.parametrize('most', [1500, -1])
def test_as_many_as_detectron2(planted: Planted, static: bool, most: int) -> None:
    everything = planted.everything
    assert 1600 < len(everything.scores) < NARROW.num_classes * NARROW.rpn_post_nms_topk
    threshold = NARROW.score_threshold if most < 0 else float(everything.scores[most - 1])
    kept = slice(None if most < 0 else most)
    expected = Found(
        everything.boxes[kept],
        everything.scores[kept],
        everything.class_ids[kept],
        everything.masks[kept],
    )
    engine = engine_of(planted, most, static)
    (prediction,) = engine.predict([planted.image])
    assert prediction.counts.candidate_overflow == 0
    assert abs(len(prediction.detections) - len(expected.scores)) <= 2
    found = Found.of_prediction(prediction)
    assert_same_instances(without_masks(found), without_masks(expected), threshold)
    # In so small a picture one pixel is a large part of a mask: all are compared together.
    each = min(len(found.scores), len(expected.scores))
    same = np.abs(found.boxes[:each] - expected.boxes[:each]).max(1) < 1e-2
    same &= found.class_ids[:each] == expected.class_ids[:each]
    assert same.mean() > 0.95, 'in the same order, but for equal scores'
    assert (found.masks[:each][same] != expected.masks[:each][same]).mean() < 1e-4

    (answer,) = engine.segment([planted.image])
    labels = np.zeros(SIZE, dtype=np.uint16)
    for k in range(len(prediction.detections) - 1, -1, -1):
        labels[prediction.mask(k)] = k + 1
    assert len(answer.detections) == len(prediction.detections)
    assert (answer.label_image != labels).mean() < 1e-3
    areas = [prediction.mask(k).sum() for k in range(len(prediction.detections))]
    np.testing.assert_allclose(answer.detections.mask_areas, areas, atol=2)
