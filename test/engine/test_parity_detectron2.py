# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The whole network against Detectron2's, on planted weights.

Every case plants weights on its own picture, so that 5 to 50 instances score above 0.5.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from matching import Found, assert_same_instances
from pictures import photograph, rendered
from torch import Tensor

from segnode.checkpoint.planting import plant_weights
from segnode.config import Config
from segnode.engine import Engine
from segnode.engine.answers import Instances
from segnode.engine.dynamic import DynamicBackend
from segnode.engine.network import NativeNetwork
from segnode.engine.timing import StageClock
from segnode.image import Image
from segnode.kernels.mask_crops import paste_mask, whole_mask
from segnode.kernels.preprocess import preprocess, resized_hw
from segnode.model.architecture import Architecture
from segnode.model.backbone_specs import ResNetSpec

NARROW = Architecture(
    backbone=ResNetSpec(width_per_group=16, res2_out_channels=64),
    fpn_channels=64,
    box_fc_dims=(256, 256),
    mask_conv_dims=(64, 64, 64, 64),
    num_classes=5,
    score_threshold=0.5,
    short_side=320,
    long_side=640,
)
R18 = Architecture(
    backbone=ResNetSpec(depth=18, res2_out_channels=64),
    score_threshold=0.5,
    short_side=256,
    long_side=640,
)
R50 = Architecture(score_threshold=0.5, short_side=256, long_side=640)
X101 = Architecture(
    backbone=ResNetSpec(depth=101, num_groups=32, width_per_group=8, stride_in_1x1=False),
    pixel_std=(57.375, 57.12, 58.395),
    score_threshold=0.5,
    short_side=160,
    long_side=320,
)
# A picture's size; narrow networks take any of them to a short side of 320 pixels.
SIZES = {
    'network size': (320, 448),
    'shrunk': (480, 640),
    'enlarged': (170, 230),
    'portrait': (600, 411),
    'odd sides': (333, 517),
    'long': (200, 600),
}


def plant(architecture: Architecture, images: list[Image]) -> dict[str, Tensor]:
    """Plant weights on images of one size."""
    image_hw = (images[0].height, images[0].width)
    network_hw = resized_hw(image_hw, architecture.short_side, architecture.long_side)
    batch = [preprocess(image, network_hw, architecture) for image in images]
    return plant_weights(architecture, torch.stack(batch), seed=0)


def found_by_detectron2(instances: Any) -> Found:
    count = len(instances)
    assert 5 <= count <= 50, f'planted for 5 to 50 instances, found {count}'
    return Found(
        instances.pred_boxes.tensor.numpy(),
        instances.scores.numpy(),
        instances.pred_classes.numpy(),
        instances.pred_masks.numpy(),
    )


def found_by_network(instances: Instances, image_hw: tuple[int, int]) -> Found:
    boxes = instances.boxes.numpy()
    crops = [
        paste_mask(mask, box, image_hw, 0.5, 'detectron2')
        for mask, box in zip(instances.masks.numpy(), boxes, strict=True)
    ]
    masks = np.stack([whole_mask(crop, image_hw) for crop in crops])
    return Found(boxes, instances.scores.numpy(), instances.class_ids.numpy(), masks)


def assert_parity(architecture: Architecture, image: Image) -> None:
    from detectron2_reference import predict

    state = plant(architecture, [image])
    network = NativeNetwork(architecture, state, torch.device('cpu'))
    everything = frozenset(range(architecture.num_classes))
    settings = dataclasses.replace(network.defaults(), classes=everything)
    (ours,) = DynamicBackend(network).run([image], settings, StageClock())
    (theirs,) = predict(architecture, state, [image])
    assert_same_instances(
        found_by_network(ours, (image.height, image.width)),
        found_by_detectron2(theirs),
        architecture.score_threshold,
    )


@pytest.mark.parametrize('size', SIZES)
def test_narrow_network_on_rendered_pictures(detectron2: ModuleType, size: str) -> None:
    assert_parity(NARROW, rendered(list(SIZES).index(size), SIZES[size]))


def test_input_that_is_no_multiple_of_32(detectron2: ModuleType) -> None:
    architecture = dataclasses.replace(NARROW, short_side=301, long_side=397)
    assert_parity(architecture, rendered(6, (480, 640)))


@pytest.mark.parametrize('index', [3, 7, 12])
def test_narrow_network_on_photographs(detectron2: ModuleType, shared: Path, index: int) -> None:
    assert_parity(NARROW, photograph(shared, index))


@pytest.mark.parametrize(
    ('architecture', 'image_hw'),
    [
        pytest.param(R18, (480, 640), id='R18 shrunk'),
        pytest.param(R18, (333, 250), id='R18 portrait'),
        pytest.param(R50, (427, 640), id='R50 shrunk'),
        pytest.param(R50, (200, 267), id='R50 enlarged'),
        pytest.param(X101, (240, 320), id='X101 shrunk'),
    ],
)
def test_full_networks_on_rendered_pictures(
    detectron2: ModuleType, architecture: Architecture, image_hw: tuple[int, int]
) -> None:
    assert_parity(architecture, rendered(7, image_hw))


def test_full_network_on_a_photograph(detectron2: ModuleType, shared: Path) -> None:
    assert_parity(R50, photograph(shared, 5))


@dataclasses.dataclass(frozen=True)
class Saved:
    """A config and weights on disk, and Detectron2's answers to four pictures."""

    config: Config
    images: list[Image]
    expected: list[Found]


@pytest.fixture(scope='module')
def saved(detectron2: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    from detectron2.engine import DefaultPredictor
    from detectron2_reference import bgr, config_of

    folder = tmp_path_factory.mktemp('narrow')
    # One scene's pictures are alike enough to plant for all of them.
    images = [rendered(8, (360, 500), frame) for frame in range(0, 12, 3)]
    state = plant(NARROW, images)
    torch.save({'model': state}, folder / 'weights.pth')
    cfg = config_of(NARROW)
    cfg.MODEL.WEIGHTS = str(folder / 'weights.pth')
    (folder / 'config.yaml').write_text(cfg.dump())
    predictor = DefaultPredictor(cfg)
    expected = [found_by_detectron2(predictor(bgr(image))['instances']) for image in images]
    config = Config(
        model=str(folder / 'config.yaml'),
        weights=str(folder / 'weights.pth'),
        device='cpu',
        precision='fp32',
    )
    return Saved(config, images, expected)


@pytest.mark.parametrize('static', [False, True], ids=['dynamic', 'static'])
@pytest.mark.parametrize('batch', [1, 2, 4])
def test_engine_answers_as_the_default_predictor(saved: Saved, static: bool, batch: int) -> None:
    """From a full dump of Detectron2's config and its checkpoint, one by one and in batches."""
    engine = Engine(saved.config, static=static)
    images, expected = saved.images[:batch], saved.expected
    for prediction, theirs in zip(engine.predict(images), expected, strict=False):
        assert_same_instances(Found.of_prediction(prediction), theirs, NARROW.score_threshold)
    for segmentation, theirs in zip(engine.segment(images), expected, strict=False):
        labels = np.zeros_like(segmentation.label_image)
        for k in range(len(theirs.scores) - 1, -1, -1):
            labels[theirs.masks[k]] = k + 1
        assert (segmentation.label_image != labels).mean() < 1e-4
        areas = theirs.masks.sum((1, 2))
        np.testing.assert_allclose(segmentation.detections.mask_areas, areas, rtol=1e-3, atol=1)
