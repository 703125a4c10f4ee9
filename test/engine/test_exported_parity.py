# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Exports as people have them: the same answers as the model that they were made of.

Each is run through ``predict`` with the description that README has for it, and with the one that
``describe`` writes.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from matching import Found, assert_same_instances
from pictures import rendered
from pycocotools import mask as coco_mask

from segnode.__main__ import main
from segnode.checkpoint.planting import plant_weights
from segnode.checkpoint.torchvision import ARCHITECTURE as TORCHVISION_ARCHITECTURE
from segnode.checkpoint.torchvision import to_torchvision
from segnode.image import Image
from segnode.kernels.preprocess import preprocess, resized_hw
from segnode.model.architecture import Architecture
from segnode.model.backbone_specs import ResNetSpec

ROOT = Path(__file__).resolve().parents[2]
# Programs of full size spend most of their time on 1000 proposals.
CANDIDATES = PROPOSALS = 500
NARROW = Architecture(
    backbone=ResNetSpec(width_per_group=16, res2_out_channels=64),
    fpn_channels=64,
    box_fc_dims=(256, 256),
    mask_conv_dims=(64, 64, 64, 64),
    rpn_pre_nms_topk=CANDIDATES,
    rpn_post_nms_topk=PROPOSALS,
    num_classes=5,
    score_threshold=0.5,
    short_side=256,
    long_side=400,
)
# As it was written before masks had a field.
DESCRIPTION_OF_BEFORE = {
    'backend': 'torchscript',
    'input': {
        'layout': 'list_of_chw',
        'color': 'rgb',
        'scale': 1 / 255,
        'mean': [0, 0, 0],
        'std': [1, 1, 1],
        'short_side': 256,
        'long_side': 400,
    },
    'output': {
        'select': [1, 0],
        'boxes': 'boxes',
        'scores': 'scores',
        'labels': 'labels',
        'masks': 'masks',
    },
    'labels': 'index',
    'paste': 'torchvision',
}
# Square: only there can whole masks be taken for crops.
SIZES = {'square': (256, 256), 'shrunk': (300, 400)}


def described(number: int, weights: Path, **changes: Any) -> Path:
    """Write README's description of that number with the program's name, and return its path."""
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    blocks = re.findall(r'^```yaml\n(backend:.*?)^```$', text, re.MULTILINE | re.DOTALL)
    assert number < len(blocks), 'README has no such description'
    content = yaml.safe_load(blocks[number]) | {'weights': weights.name} | changes
    path = weights.with_name(f'{weights.stem}_{number}.yaml')
    path.write_text(yaml.safe_dump(content))
    return path


def write_picture(image: Image, path: Path) -> Path:
    cv2.imwrite(str(path), image.pixels if image.order == 'bgr' else image.pixels[..., ::-1])
    return path


def predicted(description: Path, picture: Path, *options: str) -> Found:
    """Return what ``predict`` finds in a picture."""
    target = description.with_suffix('.json')
    target.unlink(missing_ok=True)
    assert main(['predict', str(picture), '--model', str(description), '--json', str(target),
                 '--device', 'cpu', *options]) == 0  # fmt: skip
    results = json.loads(target.read_text())
    boxes = np.array([r['bbox'] for r in results], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Found(
        boxes,
        np.array([r['score'] for r in results], np.float32),
        np.array([int(r['category_name'].removeprefix('class_')) for r in results], np.int64),
        np.array([coco_mask.decode(r['segmentation']).astype(bool) for r in results]),
    )


def describe(program: Path, *options: str) -> Path:
    """Return the description that ``describe`` writes."""
    path = program.with_name(f'{program.stem}_described.yaml')
    path.unlink(missing_ok=True)
    assert main(['describe', str(program), '--output', str(path), *options]) == 0
    return path


@pytest.fixture(scope='module', params=list(SIZES))
def detectron2_model(
    request: pytest.FixtureRequest, detectron2: ModuleType
) -> tuple[Any, Image, Found]:
    from detectron2.modeling import build_model
    from detectron2_reference import config_of, predict

    image = rendered(1, SIZES[request.param])
    network_hw = resized_hw((image.height, image.width), NARROW.short_side, NARROW.long_side)
    state = plant_weights(NARROW, preprocess(image, network_hw, NARROW)[None], seed=0)
    (instances,) = predict(NARROW, state, [image])
    assert 5 <= len(instances) <= 50
    expected = Found(
        instances.pred_boxes.tensor.numpy(),
        instances.scores.numpy(),
        instances.pred_classes.numpy(),
        instances.pred_masks.numpy(),
    )
    model = build_model(config_of(NARROW)).eval()
    model.load_state_dict(state)
    return model, image, expected


@pytest.mark.parametrize(('number', 'method'), [(0, 'trace_detectron2'), (1, 'script_detectron2')])
def test_detectron2s_exports(
    detectron2_model: tuple[Any, Image, Found], number: int, method: str, tmp_path: Path
) -> None:
    import exported_models

    model, image, expected = detectron2_model
    export: Callable[[Any, Path], Path] = getattr(exported_models, method)
    program = export(model, tmp_path / 'model.ts')
    picture = write_picture(image, tmp_path / 'picture.png')
    sides = ('--short-side', '256', '--long-side', '400')
    by_hand = predicted(described(number, program, classes=5), picture, *sides)
    assert_same_instances(by_hand, expected, NARROW.score_threshold)
    path = describe(program)
    written = yaml.safe_load(path.read_text())
    assert written == yaml.safe_load(described(number, program, classes=5).read_text())
    assert_same_instances(predicted(path, picture, *sides), expected, NARROW.score_threshold)


@pytest.fixture(scope='module', params=list(SIZES))
def torchvision_program(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Found]:
    """The scripted model, its picture, and what the model itself finds in it."""
    from exported_models import script
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    architecture = dataclasses.replace(TORCHVISION_ARCHITECTURE, num_classes=4, norm_eps=1e-5)
    image = rendered(2, SIZES[request.param])
    network_hw = resized_hw((image.height, image.width), 224, 400, 'torchvision')
    state = plant_weights(architecture, preprocess(image, network_hw, architecture)[None], seed=0)
    model = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=5, min_size=224, max_size=400,
        box_score_thresh=0.5, rpn_pre_nms_top_n_test=CANDIDATES,
        rpn_post_nms_top_n_test=PROPOSALS,
    ).eval()  # fmt: skip
    model.load_state_dict(to_torchvision(state), strict=False)
    rgb = image.pixels if image.order == 'rgb' else image.pixels[..., ::-1]
    with torch.inference_mode():
        (answer,) = model([torch.from_numpy(rgb.transpose(2, 0, 1).copy()).float() / 255])
    assert 5 <= len(answer['scores']) <= 50
    expected = Found(
        answer['boxes'].numpy(),
        answer['scores'].numpy(),
        answer['labels'].numpy() - 1,
        (answer['masks'][:, 0] > 0.5).numpy(),
    )
    folder = tmp_path_factory.mktemp('torchvision')
    program = script(model, folder / 'model.pt')
    return program, write_picture(image, folder / 'picture.png'), expected


@pytest.mark.parametrize('writer', ['README', 'describe'])
def test_torchvisions_scripted_model(
    torchvision_program: tuple[Path, Path, Found], writer: str
) -> None:
    program, picture, expected = torchvision_program
    path = described(2, program, classes=4) if writer == 'README' else describe(program)
    assert_same_instances(predicted(path, picture), expected, 0.5)


def test_whole_masks_are_no_crops(
    torchvision_program: tuple[Path, Path, Found], capsys: pytest.CaptureFixture[str]
) -> None:
    """Masks of a square picture passed for crops, and had nothing to do with the objects."""
    program, picture, _ = torchvision_program
    path = program.with_name('crops.yaml')
    path.write_text(yaml.safe_dump(DESCRIPTION_OF_BEFORE | {'weights': program.name}))
    words = ['predict', str(picture), '--model', str(path), '--class-names', 'a,b,c,d,e']
    assert main(words) == 1
    assert 'whole masks are `masks: pasted`' in capsys.readouterr().err
