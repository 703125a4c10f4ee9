# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Exported models: the description's every field, and programs that do not keep to it."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from segnode.checkpoint import TorchScriptModel, load_model
from segnode.checkpoint.coco_classes import COCO_CATEGORY_IDS, COCO_CLASS_NAMES
from segnode.checkpoint.torchscript import read_description
from segnode.config import Config
from segnode.engine.torchscript_program import load_torchscript
from segnode.errors import CheckpointError, SegnodeError

DESCRIPTION: dict[str, Any] = {
    'backend': 'torchscript',
    'weights': 'program.pt',
    'input': {
        'layout': 'list_of_chw',
        'color': 'rgb',
        'scale': 0.5,
        'mean': [1, 2, 3],
        'std': [0.1, 0.2, 0.3],
        'short_side': 320,
        'long_side': 640,
    },
    'output': {
        'select': [1, 0],
        'boxes': 'b',
        'scores': 's',
        'labels': 'l',
        'masks': 'm',
    },
    'labels': 'coco_category_id',
    'paste': 'detectron2',
}


class Program(torch.nn.Module):
    """Two instances whose sizes, labels and faults follow from the image's first pixels."""

    def forward(self, images: list[Tensor]) -> tuple[Tensor, list[dict[str, Tensor]]]:
        image = images[0]
        n = int(image[0, 0, 0])
        side = int(image[0, 0, 1])
        if n < 0:
            raise RuntimeError('a negative number')
        output = {
            'b': torch.tensor([1.0, 1.0, 5.0, 6.0]).expand(n, 4),
            's': torch.linspace(0.1, 0.9, n),
            'l': torch.full((n,), int(image[0, 0, 2])),
            'm': torch.ones(n, 1, side, side + int(image[0, 0, 3])),
        }
        return torch.zeros(1), [output]


@pytest.fixture(scope='module')
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('program') / 'program.pt'
    torch.jit.save(torch.jit.script(Program()), path)
    return path


def describe(folder: Path, **changes: Any) -> Path:
    """Write a description; ``a__b`` changes a field of a section, None removes it."""
    content = copy.deepcopy(DESCRIPTION)
    for key, value in changes.items():
        *sections, last = key.split('__')
        target = content[sections[0]] if sections else content
        if value is None:
            del target[last]
        else:
            target[last] = value
    path = folder / 'model.yaml'
    path.write_text(yaml.safe_dump(content))
    return path


def load(path: Path, **settings: Any) -> TorchScriptModel:
    model = load_model(Config(model=str(path), **settings))
    assert isinstance(model, TorchScriptModel)
    return model


def image(n: int, side: int = 28, label: int = 1, skew: int = 0) -> Tensor:
    pixels = torch.zeros(3, 8, 8)
    pixels[0, 0, :4] = torch.tensor([n, side, label, skew])
    return pixels


def test_description_is_read_whole(tmp_path: Path, program: Path) -> None:
    path = describe(tmp_path, weights=str(program), quantized_engine='qnnpack')
    model = load(path)
    given = model.description
    assert given.quantized_engine == 'qnnpack'
    assert (given.labels, given.paste) == ('coco_category_id', 'detectron2')
    assert (given.input.layout, given.input.color) == ('list_of_chw', 'rgb')
    assert (given.input.scale, given.input.mean) == (0.5, (1.0, 2.0, 3.0))
    assert given.input.std == (0.1, 0.2, 0.3)
    assert (given.input.short_side, given.input.long_side) == (320, 640)
    output = given.output
    assert (output.select, output.boxes, output.scores) == ((1, 0), 'b', 's')
    assert (output.labels, output.masks) == ('l', 'm')
    assert (model.class_names, model.category_ids) == (COCO_CLASS_NAMES, COCO_CATEGORY_IDS)
    assert model.weights_path == program
    assert len(model.weights_sha256) == 64


@pytest.mark.parametrize(
    ('changes', 'part'),
    [
        ({'backend': 'onnx'}, "backend: expected torchscript, found 'onnx'"),
        ({'weights': None}, 'weights: expected a value, found none'),
        ({'weights': ''}, 'weights: expected a text'),
        ({'weights': 'none.pt'}, 'none.pt: expected a TorchScript program, found no such file'),
        ({'quantized_engine': 'magic'}, 'quantized_engine: expected fbgemm or x86 or qnnpack'),
        ({'input': None}, 'input: expected a value'),
        ({'input': 3}, 'input: expected fields under it, found 3'),
        ({'input__layout': 'nhwc'}, 'input.layout: expected list_of_chw or chw or nchw or list'),
        ({'input__color': 'gray'}, 'input.color: expected bgr or rgb'),
        ({'input__scale': 0}, 'input.scale: expected 1 positive number'),
        ({'input__scale': [1]}, 'input.scale: expected 1 positive number'),
        ({'input__mean': [0, 0]}, 'input.mean: expected 3 numbers'),
        ({'input__mean': 0.5}, 'input.mean: expected 3 numbers'),
        ({'input__mean': [0, 0, float('nan')]}, 'input.mean: expected 3 numbers'),
        ({'input__std': [1, 1, 0]}, 'input.std: expected 3 positive numbers'),
        ({'input__short_side': -1}, 'input.short_side: expected an integer from 0 to 65536'),
        ({'input__long_side': 640.5}, 'input.long_side: expected an integer from 1'),
        ({'input__long_side': None}, 'input.long_side: expected a value, found none'),
        ({'input__size': 1}, 'input.size: expected a field of a model description'),
        ({'output__select': 1}, 'output.select: expected a list of numbers and keys'),
        ({'output__select': [0.5]}, 'output.select: expected a list of numbers and keys'),
        ({'output__boxes': 1.5}, 'output.boxes: expected a key or a number'),
        ({'output__boxes': ''}, 'output.boxes: expected a key or a number'),
        ({'output__masks': None}, 'output.masks: expected a value'),
        ({'output__depth': 'd'}, 'output.depth: expected a field'),
        ({'labels': 'voc'}, 'labels: expected coco_category_id or index or index_from_1'),
        ({'labels': None}, 'labels: expected a value'),
        ({'masks': 'whole'}, 'masks: expected crops or pasted'),
        ({'labels': 'index'}, 'expected the names or the number of the classes'),
        ({'labels': 'index', 'classes': 0}, 'classes: expected an integer from 1 to 65535'),
        ({'labels': 'index', 'class_names': ['a', 'a']}, 'class_names: expected a list of differ'),
        ({'labels': 'index', 'class_names': []}, 'class_names: expected a list of different'),
        ({'class_names': ['a']}, 'class_names: expected none beside labels: coco_category_id'),
        (
            {'labels': 'index', 'class_names': ['a'], 'classes': 2},
            'classes: expected 1, the number of class_names, found 2',
        ),
        ({'paste': None}, 'paste: expected a value, found none'),
        ({'paste': 'mmdet'}, 'paste: expected detectron2 or torchvision'),
        ({'pasta': 'detectron2'}, 'pasta: expected a field of a model description'),
    ],
)
def test_bad_description_is_refused(
    tmp_path: Path, program: Path, changes: dict[str, Any], part: str
) -> None:
    path = describe(tmp_path, **{'weights': str(program), **changes})
    with pytest.raises(SegnodeError) as caught:
        load(path)
    assert part in str(caught.value)
    assert str(caught.value).isprintable()
    assert str(tmp_path) in str(caught.value)


def test_loading_the_description_runs_nothing(tmp_path: Path) -> None:
    canary = tmp_path / 'canary'

    class Command:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f'touch {canary}',)

    (tmp_path / 'program.pt').write_bytes(pickle.dumps(Command()))
    path = describe(tmp_path)
    with pytest.raises(CheckpointError, match='expected a TorchScript program, found another'):
        load(path)
    torch.save({'model': Command()}, tmp_path / 'program.pt')
    with pytest.raises(CheckpointError, match='expected a TorchScript program, found another'):
        load(path)
    assert not canary.exists()


def test_program_without_description_is_refused(program: Path) -> None:
    with pytest.raises(CheckpointError, match='expected a model description, found a TorchScript'):
        load_model(Config(model=str(program)))


def test_backend_must_fit(tmp_path: Path, program: Path) -> None:
    path = describe(tmp_path, weights=str(program))
    assert load(path, backend='torchscript').description.weights == str(program)
    with pytest.raises(SegnodeError, match='backend: expected auto or torchscript'):
        load(path, backend='native')


def test_weights_setting_beats_the_description(tmp_path: Path, program: Path) -> None:
    path = describe(tmp_path, weights='none.pt')
    assert load(path, weights=str(program)).weights_path == program


@pytest.mark.parametrize('n', [0, 1, 2])
@pytest.mark.parametrize('side', [14, 28])
def test_program_runs(tmp_path: Path, program: Path, n: int, side: int) -> None:
    runner = load_torchscript(load(describe(tmp_path, weights=str(program))))
    boxes, scores, class_ids, masks = runner.forward(image(n, side, label=90))
    assert boxes.shape == (n, 4)
    assert scores.shape == class_ids.shape == (n,)
    assert len(masks) == n
    assert masks.shape == (n, side, side) or not n
    assert {t.dtype for t in (boxes, scores, masks)} == {torch.float32}
    # COCO's category 90, the last one, is class 79.
    assert class_ids.tolist() == [79] * n


def test_labels_may_be_indices(tmp_path: Path, program: Path) -> None:
    path = describe(tmp_path, weights=str(program), labels='index')
    model = load(path, class_names=('cone', 'ball'))
    assert (model.class_names, model.category_ids) == (('cone', 'ball'), None)
    runner = load_torchscript(model)
    assert runner.forward(image(2, label=1))[2].tolist() == [1, 1]
    for label in (2, -1):
        with pytest.raises(CheckpointError, match='labels as index'):
            runner.forward(image(1, label=label))


@pytest.mark.parametrize(
    ('changes', 'pixels', 'part'),
    [
        ({}, image(-1), 'the program failed: builtins.RuntimeError: a negative number'),
        (
            {},
            image(1, label=12),
            'expects labels as coco_category_id (1 to 90), found [12] (int64)',
        ),
        (
            {},
            image(1, label=91),
            'expects labels as coco_category_id (1 to 90), found [91] (int64)',
        ),
        (
            {},
            image(1, skew=1),
            "expects square crops as 'm' (whole masks are `masks: pasted`), found a tensor of ",
        ),
        (
            {'output__select': [1, 1]},
            image(1),
            'expects an item 1 by select [1, 1], found a list of 1',
        ),
        ({'output__select': [0, 0]}, image(1), 'expects an item 0 by select'),
        ({'output__select': []}, image(1), "expects a dictionary with 's', found a tuple of 2"),
        ({'output__boxes': 'x'}, image(1), "expects a dictionary with 'x', found the keys b, s"),
        ({'output__boxes': 'm'}, image(1), "expects 'm' of shape (1, 4), found a tensor of shape"),
        ({'output__scores': 'b'}, image(1), "expects 'b' of shape (?), found a tensor of sh"),
        ({'output__masks': 's'}, image(1), "expects 's' of shape (1, 1, ?, ?) or (1, ?, ?)"),
    ],
)
def test_other_output_is_refused(
    tmp_path: Path, program: Path, changes: dict[str, Any], pixels: Tensor, part: str
) -> None:
    runner = load_torchscript(load(describe(tmp_path, weights=str(program), **changes)))
    with pytest.raises(CheckpointError) as caught:
        runner.forward(pixels)
    assert part in str(caught.value)
    assert str(caught.value).isprintable()


def test_damaged_program_is_refused(tmp_path: Path, program: Path) -> None:
    content = bytearray(program.read_bytes())
    (tmp_path / 'program.pt').write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match='expected a TorchScript program, found another'):
        load(describe(tmp_path))
    content[200:400] = bytes(200)
    (tmp_path / 'program.pt').write_bytes(content)
    model = load(describe(tmp_path))
    with pytest.raises(CheckpointError, match='expected a TorchScript program, found '):
        load_torchscript(model)


def test_missing_quantized_engine_is_refused(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(describe(tmp_path, weights=str(program), quantized_engine='qnnpack'))
    monkeypatch.setattr(type(torch.backends.quantized), 'supported_engines', ['fbgemm'])
    with pytest.raises(CheckpointError, match='expected the quantized engine qnnpack, found only'):
        load_torchscript(model)


def test_trained_model_finds_people(shared: Path) -> None:
    path = shared / 'data' / 'd2go_mask_rcnn' / 'model.yaml'
    description = read_description(path)
    assert (description.quantized_engine, description.paste) == ('qnnpack', 'torchvision')
    engine = torch.backends.quantized.engine
    try:
        runner = load_torchscript(load(path))
        assert torch.backends.quantized.engine == 'qnnpack'
        boxes, scores, class_ids, masks = runner.forward(torch.zeros(3, 320, 426))
    finally:
        torch.backends.quantized.engine = engine
    assert len(boxes) == len(scores) == len(class_ids)
    assert masks.shape[1:] == (28, 28)


def test_epsilon_of_an_exported_model_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(SegnodeError, match='norm_eps: expected it unset'):
        load_model(Config(model=str(describe(tmp_path)), norm_eps=0.0))
