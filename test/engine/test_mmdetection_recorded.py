# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Each of MMDetection's families, narrow, against what MMDetection 3.3 itself answered.

``test/oracles`` compares whole networks with MMDetection where that is installed, and made these.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from figures import Figures, compare
from matching import Found
from recorded_mmdetection import FOLDER, Recorded, checksum, read_recorded

from segnode.checkpoint import load_model
from segnode.config import Config
from segnode.engine import Engine
from segnode.kernels.preprocess import preprocess, resized_hw

NAMES = sorted(path.stem for path in FOLDER.glob('*.npz'))
# Those whose layers cannot be narrowed take seconds to be prepared.
SLOW = ('s50', 'x101')
BOX_PX = 2e-3
SCORE = 2e-4
# Of a mask of a few hundred pixels, two.
MASK_PIXELS = 2


def test_every_family_is_recorded() -> None:
    assert set(NAMES) == {'convnext', 'r18', 'r50', 'r50-caffe', 's50', 'swin', 'x101'}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 200_000


@pytest.fixture(scope='module', params=NAMES)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recorded, Path]:
    """A case, and the checkpoint that MMDetection would have published of it."""
    recorded = read_recorded(request.param)
    classes = tuple(f'class {index}' for index in range(6))
    meta = {'cfg': recorded.config_text, 'dataset_meta': {'classes': classes}}
    path = tmp_path_factory.mktemp('recorded') / f'{request.param}.pth'
    torch.save({'meta': meta, 'state_dict': recorded.state_dict()}, path)
    return recorded, path


def answer(case: tuple[Recorded, Path], *, static: bool) -> Figures:
    recorded, path = case
    engine = Engine(Config(model=str(path), device='cpu', precision='fp32'), static=static)
    assert engine.class_names[-1] == 'class 5'
    (prediction,) = engine.predict([recorded.image])
    return compare(Found.of_prediction(prediction), recorded.answer)


@pytest.mark.usefixtures('steps')
def test_network_input(case: tuple[Recorded, Path]) -> None:
    recorded, path = case
    architecture = load_model(Config(model=str(path))).architecture
    image_hw = (recorded.image.height, recorded.image.width)
    network_hw = resized_hw(
        image_hw, architecture.short_side, architecture.long_side, 'mmdetection'
    )
    x = preprocess(recorded.image, network_hw, architecture)
    assert checksum(x) == recorded.network_input


def test_recorded_answer(case: tuple[Recorded, Path], steps: str) -> None:
    if steps == 'plain' and case[1].stem in SLOW:
        pytest.skip('its layers are compared once; the steps are those of the other cases')
    figures = answer(case, static=False)
    assert figures.lone == ()
    assert figures.instances >= 20
    assert figures.box_px <= BOX_PX
    assert figures.score <= SCORE
    assert figures.mask_pixels <= MASK_PIXELS


def test_static_path(case: tuple[Recorded, Path]) -> None:
    if case[1].stem in SLOW:
        pytest.skip('its layers are compared once; the steps are those of the other cases')
    figures = answer(case, static=True)
    assert figures.lone == ()
    assert figures.box_px <= BOX_PX
    assert figures.score <= SCORE
