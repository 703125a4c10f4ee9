# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The model without a network: real work around planted instances, and an honest wait."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from segnode.__main__ import main
from segnode.checkpoint import load_model
from segnode.config import Config
from segnode.doctor.command import run_model
from segnode.engine import Engine, Segmentation
from segnode.engine.null import INSTANCES
from segnode.errors import ConfigError
from segnode.image import Image

HW = (96, 160)


def image(hw: tuple[int, int] = HW) -> Image:
    return Image(np.random.default_rng(0).integers(0, 256, (*hw, 3), dtype=np.uint8), 'bgr')


def segment(hw: tuple[int, int] = HW, **changes: Any) -> Segmentation:
    settings = {name.replace('__', '.'): value for name, value in changes.items()}
    (result,) = Engine(Config(model='null').replace(settings)).segment([image(hw)])
    return result


@pytest.mark.parametrize('hw', [(480, 640), (1080, 1920), (64, 48), (1, 1)])
def test_every_frame_gets_the_same_instances(hw: tuple[int, int]) -> None:
    result, again = segment(hw), segment(hw)
    np.testing.assert_array_equal(result.label_image, again.label_image)
    assert result.label_image.shape == hw
    boxes = result.detections.boxes_xyxy
    assert ((boxes >= 0) & (boxes <= np.array((hw[1], hw[0]) * 2))).all()
    assert (np.diff(result.detections.scores) < 0).all()
    assert result.counts.detected == INSTANCES
    if min(hw) < 480:
        return
    assert len(result.detections) == INSTANCES
    owned = np.unique(result.label_image)
    assert len(owned) > INSTANCES / 2
    # From small to large objects, none of which is the whole image.
    areas = result.detections.mask_areas
    assert areas.min() > 20
    assert 0.02 < areas.max() / (hw[0] * hw[1]) < 0.5


def test_frames_are_really_preprocessed() -> None:
    assert segment().network_hw == (800, 1333)
    small = segment(resolution__short_side=64)
    assert small.network_hw == (64, 107)
    assert list(small.stage_ms) == ['preprocess', 'network', 'filter', 'paste']
    assert small.stage_ms['preprocess'] > 0
    assert small.stage_ms['paste'] > 0


def test_every_filter_has_its_effect() -> None:
    whole = segment().detections
    middle = float(np.sort(whole.scores)[10])
    assert (segment(filter__score_threshold=middle).detections.scores > middle).all()
    assert len(segment(filter__max_instances=7).detections) == 7
    assert len(segment(proposals=5).detections) == 5
    one = segment(filter__classes=('class_3',))
    assert one.detections.class_ids.tolist() == [3]
    assert one.counts.filtered_class == INSTANCES - 1
    area = int(np.median(whole.mask_areas))
    assert (segment(filter__min_mask_area=area).detections.mask_areas >= area).all()
    assert (segment(filter__max_mask_area=area).detections.mask_areas <= area).all()
    higher = segment(mask_threshold=0.9).detections
    assert higher.mask_areas.sum() < whole.mask_areas.sum()
    # Boxes of one class only suppress each other.
    names = {'class_names': ('thing', 'stuff')}
    assert len(segment(**names).detections) == INSTANCES
    assert len(segment(**names, filter__nms_threshold=0.01).detections) < INSTANCES


def test_it_waits_as_for_a_gpu() -> None:
    engine = Engine(Config(model='null:80'))
    turns, ended = 0, threading.Event()

    def turn() -> None:
        nonlocal turns
        while not ended.is_set():
            turns += 1
            time.sleep(0.001)

    other = threading.Thread(target=turn)
    other.start()
    before, (result,) = turns, engine.segment([image()])
    meanwhile = turns - before
    ended.set()
    other.join()
    assert engine.model_name == 'null:80'
    assert result.stage_ms['network'] >= 80
    # With the interpreter's lock held there would be none.
    assert meanwhile >= 5


def test_what_it_is_is_said() -> None:
    said: list[str] = []
    warned: list[str] = []
    engine = Engine(Config(model='null'), report=said.append, warn=warned.append)
    assert (engine.model_name, engine.weights_sha256, str(engine.device)) == (
        'null',
        '(none)',
        'cpu',
    )
    assert engine.precision == 'none'
    (line,) = warned
    assert 'nothing is detected' in line
    assert 'none' in engine.execution()['network']
    Engine(Config(model='null'), report=said.append)
    assert line in said
    finding, _ = run_model(Config(model='null:5'))
    assert (finding.level, 'nothing is detected' in finding.found) == ('warn', True)


@pytest.mark.parametrize(
    ('changes', 'problem'),
    [
        (
            {'model': 'null:abc'},
            'milliseconds to wait in place of a network, as in null:30, found',
        ),
        ({'model': 'null:'}, "found 'null:'"),
        ({'model': 'null:-1'}, "found 'null:-1'"),
        ({'model': 'null:1e3'}, "found 'null:1e3'"),
        ({'model': 'null:60001'}, '0 to 60000'),
        ({'model': 'null:nan'}, "found 'null:nan'"),
        ({'weights': 'model.pth'}, "weights: expected it unset with model 'null'"),
        ({'precision': 'fp16'}, 'precision: expected it unset'),
        ({'norm_eps': 0.0}, 'norm_eps: expected it unset'),
        ({'backend': 'native'}, 'backend: expected it unset'),
        ({'device': 'cuda'}, 'device: expected auto or cpu'),
        ({'filter.classes': ('cone',)}, 'filter.classes: expected names of the model'),
    ],
)
def test_wrong_use(changes: dict[str, Any], problem: str) -> None:
    config = Config(model='null').replace(changes)
    with pytest.raises(ConfigError) as caught:
        Engine(config, model=load_model(config))
    assert problem in str(caught.value)


def test_a_mistyped_wait_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (['benchmark'], ['benchmark', '--plant'], ['predict', __file__]):
        assert main([*command, '--model', 'null:abc']) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith('segnode: error: ')
        assert 'null:abc' in line
