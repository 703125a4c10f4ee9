# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The whole network against MMDetection's, on planted weights and photographs.

segnode gets a checkpoint with its config inside, as MMDetection writes and publishes it.
"""

from __future__ import annotations

import dataclasses
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from figures import BOX_PX, MASK_IOU, SCORE, Figures, compare
from matching import Found
from mmdetection_oracle import (
    build_model,
    checkpoint_of,
    find,
    network_input,
    prepare,
    read_config,
)
from pictures import photograph
from torch import Tensor, nn

from segnode.checkpoint import load_model
from segnode.checkpoint.mmdetection import to_mmdetection
from segnode.checkpoint.planting import plant_weights
from segnode.config import Config
from segnode.engine import Engine
from segnode.image import Image
from segnode.kernels.preprocess import preprocess, resized_hw
from segnode.model.architecture import Architecture

MODELS = (
    'mask-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco',
    'mask-rcnn_r50_fpn_1x_coco',
    'mask-rcnn_r50-caffe_fpn_1x_coco',
    'mask-rcnn_x101-32x4d_fpn_1x_coco',
    'mask-rcnn_s50_fpn_syncbn-backbone+head_ms-1x_coco',
    'mask-rcnn_swin-t-p4-w7_fpn_1x_coco',
    'mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco',
)


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A photograph, the size of the network's input, and the path that answers."""

    name: str
    index: int
    crop_hw: tuple[int, int] | None
    scale: tuple[int, int]
    static: bool

    def image(self, shared: Path) -> Image:
        image = photograph(shared, self.index)
        if self.crop_hw is None:
            return image
        height, width = self.crop_hw
        return Image(np.ascontiguousarray(image.pixels[:height, :width]), image.order)


# Weights are planted on no larger input, which costs as much as an answer.
PLANTING_SCALE = (501, 301)
# MMDetection's own size once; smaller ones elsewhere, which cost less and ask the same.
CASES = (
    Case('its own size', 0, None, (1333, 800), static=False),
    Case('shrunk', 1, None, (420, 256), static=False),
    Case('enlarged', 1, (149, 211), (499, 301), static=True),
    Case('portrait', 5, (333, 250), (501, 275), static=False),
    Case('bound by its long side', 6, (150, 421), (333, 270), static=True),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Theirs:
    """One of MMDetection's models, and the architecture that segnode reads in its checkpoint."""

    name: str
    config: Any
    model: nn.Module
    architecture: Architecture

    def plant(self, image: Image, scale: tuple[int, int]) -> None:
        """Give the model random weights that find something in a picture."""
        network_hw = network_size(image, scale)
        x = preprocess(image, network_hw, self.architecture)
        state = plant_weights(self.architecture, x[None], seed=zlib.crc32(self.name.encode()))
        expected = self.model.state_dict()
        state = behind_norms(to_mmdetection(state, self.architecture), expected, seed=1)
        # Counters, and the indices that a window gives.
        kept = {name: tensor for name, tensor in expected.items() if name not in state}
        beside = ('num_batches_tracked', 'relative_position_index')
        assert [name for name in kept if not name.endswith(beside)] == []
        self.model.load_state_dict({**state, **kept}, strict=True)


def network_size(image: Image, scale: tuple[int, int]) -> tuple[int, int]:
    return resized_hw((image.height, image.width), min(scale), max(scale), 'mmdetection')


def behind_norms(
    state: dict[str, Tensor], expected: dict[str, Tensor], seed: int
) -> dict[str, Tensor]:
    """Return a state with random batch norms wherever theirs has one and ours a bias.

    A convolution in front of one is rescaled, so that both together give what it alone gave.
    """
    generator = torch.Generator().manual_seed(seed)
    state = dict(state)
    for name in expected:
        if not name.endswith('.running_var') or name in state:
            continue
        norm = name.removesuffix('.running_var')
        conv = norm.replace('.bn', '.conv')
        bias = state.pop(f'{conv}.bias')
        gamma, variance = (torch.rand(len(bias), generator=generator) + 0.5 for _ in range(2))
        mean = torch.randn(len(bias), generator=generator)
        scale = gamma * torch.rsqrt(variance + 1e-5)
        state[f'{conv}.weight'] = state[f'{conv}.weight'] / scale[:, None, None, None]
        state[f'{norm}.weight'] = gamma
        state[f'{norm}.bias'] = bias + mean * scale
        state[f'{norm}.running_mean'] = mean
        state[f'{norm}.running_var'] = variance
    return state


@pytest.fixture(scope='module', params=MODELS)
def theirs(
    request: pytest.FixtureRequest,
    mmdetection: ModuleType,
    tmp_path_factory: pytest.TempPathFactory,
) -> Theirs:
    config = read_config(request.param)
    model = build_model(config)
    path = tmp_path_factory.mktemp('mmdetection') / 'untrained.pth'
    torch.save(checkpoint_of(config, model.state_dict()), path)
    architecture = load_model(Config(model=str(path))).architecture
    path.unlink()
    return Theirs(request.param, config, model, architecture)


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_the_same_answer(
    theirs: Theirs, case: Case, shared: Path, tmp_path: Path, table: dict[str, Figures]
) -> None:
    image = case.image(shared)
    theirs.plant(image, min(case.scale, PLANTING_SCALE))
    checkpoint = tmp_path / 'planted.pth'
    torch.save(checkpoint_of(theirs.config, theirs.model.state_dict()), checkpoint)
    config = theirs.config.copy()
    (resize,) = (
        step for step in config.test_dataloader.dataset.pipeline if step['type'] == 'Resize'
    )
    resize['scale'] = case.scale
    data = prepare(config, image)
    x = preprocess(image, network_size(image, case.scale), theirs.architecture)
    assert torch.equal(x, network_input(theirs.model, data))
    size = {'resolution.short_side': min(case.scale), 'resolution.long_side': max(case.scale)}
    ours = Config(model=str(checkpoint), device='cpu', precision='fp32').replace(size)
    engine = Engine(ours, static=case.static)
    checkpoint.unlink()
    (prediction,) = engine.predict([image])
    expected = find(theirs.model, data)
    figures = compare(Found.of_prediction(prediction), expected)
    sys.stdout.write(f'{theirs.name}, {case.name}: {figures}\n')
    assert figures.instances >= 20
    assert figures.box_px <= BOX_PX
    assert figures.score <= SCORE
    assert figures.mask_iou >= MASK_IOU
    # Two instances may swap at the end of a list that is full, and at the threshold.
    last = min(expected.scores)
    assert all(score <= last + SCORE for score in figures.lone)
    table[theirs.name] = table[theirs.name] + figures if theirs.name in table else figures
