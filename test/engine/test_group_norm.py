# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Group norms, which nothing can fold away: against Detectron2, on both paths, in bfloat16.

The network is made from a Detectron2 config and has weights that are planted on the picture.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from matching import Found, assert_same_instances
from narrow_checkpoint import random_state
from pictures import rendered

from segnode.checkpoint.detectron2_config import read_config
from segnode.checkpoint.planting import plant_weights
from segnode.config import Config
from segnode.engine import Engine
from segnode.errors import SegnodeError
from segnode.kernels.preprocess import preprocess
from segnode.model.conv import Conv
from segnode.model.mask_rcnn import build_mask_rcnn

SIZE = (160, 224)
CONFIG = """
MODEL:
  MASK_ON: true
  BACKBONE: {NAME: build_resnet_fpn_backbone}
  RESNETS:
    OUT_FEATURES: [res2, res3, res4, res5]
    STRIDE_IN_1X1: false
    WIDTH_PER_GROUP: 32
    RES2_OUT_CHANNELS: 64
    NORM: BACKBONE_NORM
  FPN: {IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 64, NORM: GN}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]]}
  RPN: {IN_FEATURES: [p2, p3, p4, p5, p6], PRE_NMS_TOPK_TEST: 500, POST_NMS_TOPK_TEST: 300}
  ROI_HEADS:
    NAME: StandardROIHeads
    IN_FEATURES: [p2, p3, p4, p5]
    NUM_CLASSES: 5
    SCORE_THRESH_TEST: 0.5
  ROI_BOX_HEAD:
    NAME: FastRCNNConvFCHead
    POOLER_RESOLUTION: 7
    NUM_CONV: 2
    CONV_DIM: 64
    NUM_FC: 1
    FC_DIM: 256
    NORM: GN
  ROI_MASK_HEAD: {NUM_CONV: 2, CONV_DIM: 64, NORM: GN}
INPUT: {MIN_SIZE_TEST: 160, MAX_SIZE_TEST: 224}
VERSION: 2
"""


@dataclasses.dataclass(frozen=True)
class Planted:
    """A config and weights on disk, and what Detectron2 finds with them."""

    config: Path
    expected: Found

    def engine(self, *, static: bool, precision: str = 'fp32') -> Engine:
        weights = str(self.config.with_name('model.pth'))
        return Engine(
            Config(model=str(self.config), weights=weights, device='cpu', precision=precision),
            static=static,
        )


def plant(folder: Path, backbone_norm: str) -> Planted:
    from detectron2.config import get_cfg
    from detectron2.engine import DefaultPredictor
    from detectron2_reference import bgr

    path = folder / 'config.yaml'
    path.write_text(CONFIG.replace('BACKBONE_NORM', backbone_norm))
    try:
        architecture = read_config(path).architecture
    except SegnodeError as error:
        pytest.fail(f'a config that Detectron2 takes is refused: {error}')
    image = rendered(5, SIZE)
    state = plant_weights(architecture, preprocess(image, SIZE, architecture)[None], seed=0)
    torch.save({'model': state}, folder / 'model.pth')
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    cfg.MODEL.DEVICE = 'cpu'
    cfg.MODEL.WEIGHTS = str(folder / 'model.pth')
    found = DefaultPredictor(cfg)(bgr(image))['instances']
    assert 5 <= len(found) <= 50
    return Planted(
        path,
        Found(
            found.pred_boxes.tensor.numpy(),
            found.scores.numpy(),
            found.pred_classes.numpy(),
            found.pred_masks.numpy(),
        ),
    )


@pytest.fixture(scope='module')
def planted(detectron2: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return plant(tmp_path_factory.mktemp('gn'), 'GN')


@pytest.mark.parametrize('static', [False, True], ids=['dynamic', 'static'])
def test_as_detectron2(planted: Planted, static: bool) -> None:
    engine, image = planted.engine(static=static), rendered(5, SIZE)
    (prediction,) = engine.predict([image])
    assert_same_instances(Found.of_prediction(prediction), planted.expected, 0.5)
    (answer,) = engine.segment([image])
    assert (answer.label_image != prediction.label_image()).mean() < 1e-3


def test_in_the_heads_alone_as_detectron2(detectron2: ModuleType, tmp_path: Path) -> None:
    planted = plant(tmp_path, 'FrozenBN')
    (prediction,) = planted.engine(static=False).predict([rendered(5, SIZE)])
    assert_same_instances(Found.of_prediction(prediction), planted.expected, 0.5)


@pytest.mark.parametrize('static', [False, True], ids=['dynamic', 'static'])
def test_bfloat16_answers_much_alike(planted: Planted, static: bool) -> None:
    engine = planted.engine(static=static, precision='bf16')
    (answer,) = engine.segment([rendered(5, SIZE)])
    found, expected = answer.detections, planted.expected
    best = range(len(expected.scores) // 2)
    assert len(best) >= 3
    for k in best:
        near = np.abs(found.boxes_xyxy - expected.boxes[k]).max(1) < 4
        assert (near & (found.class_ids == expected.class_ids[k])).any()
    assert np.median(found.mask_areas) > 100


def test_epsilon_is_the_architectures(planted: Planted) -> None:
    architecture = dataclasses.replace(read_config(planted.config).architecture, norm_eps=0.5)
    network = build_mask_rcnn(architecture, random_state(architecture))
    norms = [m.norm for m in network.modules() if isinstance(m, Conv) and m.norm is not None]
    assert len(norms) == 52 + 8 + 2 + 2
    assert {norm.eps for norm in norms} == {0.5}
    assert all(isinstance(norm, torch.nn.GroupNorm) for norm in norms)
