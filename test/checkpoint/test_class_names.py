# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Class names out of files of every form, and whose names they are where nobody gives any."""

from __future__ import annotations

import codecs
import dataclasses
import hashlib
import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from narrow_checkpoint import ARCHITECTURE, CONFIG, random_state

from segnode.checkpoint import PRESETS, NativeModel, load_model
from segnode.checkpoint import torchvision as checkpoint
from segnode.checkpoint.coco_classes import (
    COCO_CATEGORIES,
    COCO_CATEGORY_IDS,
    COCO_CLASS_NAMES,
)
from segnode.checkpoint.download import Checksum
from segnode.config import Config
from segnode.errors import SegnodeError

THREE = ('cone', 'ball', 'box')


@pytest.fixture(scope='module')
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Return configs of narrow models by their number of classes, weights beside them."""
    configs = {}
    for count in (1, 2, 3, 80):
        folder = tmp_path_factory.mktemp(f'classes_{count}')
        architecture = dataclasses.replace(ARCHITECTURE, num_classes=count)
        configs[count] = folder / 'config.yaml'
        configs[count].write_text(CONFIG.replace('NUM_CLASSES: 3', f'NUM_CLASSES: {count}'))
        torch.save({'model': random_state(architecture)}, folder / 'model.pth')
    return configs


def named(
    config: Path, *names: str | Path, notes: list[str] | None = None, weights: Path | None = None
) -> tuple[str, ...] | str:
    """Return the class names that a model gets, or the one line that refuses it."""
    setting = tuple(str(name) for name in names)
    try:
        return load_model(
            Config(model=str(config), class_names=setting, weights=str(weights or '')),
            (lambda _: None) if notes is None else notes.append,
        ).class_names
    except SegnodeError as error:
        refusal = str(error)
    assert refusal.isprintable()
    assert len(refusal) < 400
    return refusal


@pytest.mark.parametrize('name', ['nmaes.txt', 'lists/names', 'a\\names', 'coco.YAML', './cone'])
def test_a_path_must_exist(
    models: dict[int, Path], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = named(models[1], name)
    assert 'expected class names, found no such file' in found
    assert name.removeprefix('./') in found


def test_a_name_is_a_name(
    models: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('cones').mkdir()
    for name in (
        'cone',
        'traffic light',
        'v1.5',
        'café',
        '.hidden',
        '~nobody',
        'cones',
        'x' * 300,
    ):
        assert named(models[1], name) == (name,)
    Path('cone').write_text('ball\n')
    assert named(models[1], 'cone') == ('ball',)
    assert 'found a folder' in named(models[1], './')
    assert 'one file, found names.txt among names' in named(models[2], 'names.txt', 'more.txt')


COCO_FILE = {
    'images': [{'id': 1, 'file_name': 'a.png', 'height': 4, 'width': 4}],
    'categories': [
        {'id': 9, 'name': 'box', 'supercategory': 'thing'},
        {'id': 2, 'name': 'cone'},
        {'id': 5, 'name': 'ball'},
    ],
    'annotations': [],
}


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        pytest.param('n.txt', b'cone\nball\nbox\n', id='lines'),
        pytest.param('n.txt', codecs.BOM_UTF8 + b'cone\r\nball\r\nbox\r\n', id='bom and crlf'),
        pytest.param('n.txt', 'cone\nball\nbox'.encode('utf-16'), id='utf-16 with a mark'),
        pytest.param('n.txt', b'\xfe\xff' + 'cone\nball\nbox'.encode('utf-16-be'), id='be'),
        pytest.param('n.txt', b'\n\ncone\n \n  ball\t\n\nbox\n\n\n', id='blank lines'),
        pytest.param('n.txt', b'# made by hand\ncone\nball\n#\nbox\n', id='comments'),
        pytest.param('n.names', b'cone, ball,box\n', id='one line with commas'),
        pytest.param('n.csv', b'"cone","ball","box"\n', id='csv'),
        pytest.param('n.csv', b'0,cone\n1,ball\n2,box\n', id='csv with numbers'),
        pytest.param('n.txt', b'0: cone\n1: ball\n2: box\n', id='numbers from 0'),
        pytest.param('n.txt', b'0 cone\n1 ball\n2 box\n', id='numbers and spaces'),
        pytest.param('n.txt', b'3) box\n1) cone\n2) ball\n', id='numbers from 1, shuffled'),
        pytest.param('n.txt', b'1. cone\n2. ball\n3. box\n', id='numbers with dots'),
        pytest.param('n.txt', b'0=cone\n1=ball\n2=box\n', id='numbers and equals signs'),
        pytest.param('n.txt', b'cone: 0\nbox: 2\nball: 1\n', id='numbers behind'),
        pytest.param('n.txt', b'cone = 1\nball = 2\nbox = 3\n', id='numbers behind, from 1'),
        pytest.param('n.txt', b'cone,0\nball,1\nbox,2\n', id='numbers in a column behind'),
        pytest.param('n.txt', b'"cone"\n"ball"\n"box"\n', id='quotes'),
        pytest.param('n.txt', b"'cone'\n'ball'\n'box'\n", id='single quotes'),
        pytest.param('n.txt', b'cone,\nball,\nbox,\n', id='commas'),
        pytest.param('n.txt', b"'cone',\n'ball',\n'box'\n", id='quotes and commas between'),
        pytest.param('n.txt', b"0: 'cone',\n1: 'ball',\n2: 'box',\n", id='numbers and quotes'),
        pytest.param('n', b'["cone", "ball", "box"]', id='json without a suffix'),
        pytest.param('n.json', codecs.BOM_UTF8 + b'["cone", "ball", "box"]', id='json with bom'),
        pytest.param('n.json', b'{"0": "cone", "2": "box", "1": "ball"}', id='json by number'),
        pytest.param('n.json', b'{"cone": 0, "box": 2, "ball": 1}', id='json to number'),
        pytest.param('n.json', b'{"1": "cone", "2": "ball", "3": "box"}', id='json from 1'),
        pytest.param('n.json', json.dumps(COCO_FILE).encode(), id='coco'),
        pytest.param('n.json', json.dumps(COCO_FILE['categories']).encode(), id='categories'),
        pytest.param('n.py', b"['cone', 'ball', 'box']", id='python list'),
        pytest.param('n.txt', b"('cone',\n 'ball',\n 'box',\n)", id='python tuple'),
        pytest.param('n.txt', b"{0: 'cone', 1: 'ball', 2: 'box'}", id='python dict'),
        pytest.param('n.yaml', b'- cone\n- ball\n- box\n', id='yaml list'),
        pytest.param('n.txt', b'[cone, ball, box]', id='yaml flow'),
        pytest.param('n.yml', b'0: cone\n1: ball\n2: box\n', id='yaml mapping'),
        pytest.param('n.yaml', b'path: d\nnc: 3\nnames: [cone, ball, box]\n', id='ultralytics'),
        pytest.param(
            'n.yaml', b'# data\ntrain: a\nnames:\n  0: cone\n  1: ball\n  2: box\n', id='of today'
        ),
    ],
)
def test_files_are_read_as_meant(
    models: dict[int, Path], tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    assert named(models[3], tmp_path / name) == THREE


def test_names_stay_as_they_are_written(models: dict[int, Path], tmp_path: Path) -> None:
    path = tmp_path / 'names.yaml'
    path.write_text('[no, 1.0, ~]')
    assert named(models[3], path) == ('no', '1.0', '~')
    path = tmp_path / 'names.txt'
    path.write_text('tench, a fish\n7 segment display\nnaïve\n')
    assert named(models[3], path) == ('tench, a fish', '7 segment display', 'naïve')
    path.write_text('scale 1:10\nscale 1:100\nscale 1:3\n')
    assert named(models[3], path) == ('scale 1:10', 'scale 1:100', 'scale 1:3')
    path.write_text('class 0\nclass 1\n6"\n')
    assert named(models[3], path) == ('class 0', 'class 1', '6"')
    path.write_text('0.5 litre\n1.5 litre\n2:1 mix\n')
    assert named(models[3], path) == ('0.5 litre', '1.5 litre', '2:1 mix')


@pytest.mark.parametrize(
    'content', ['0: cone', '1. cone', '0=cone', '0,cone', 'cone: 0', '"cone",', 'cone,', 'cone']
)
def test_one_name_is_read_as_several_are(
    models: dict[int, Path], tmp_path: Path, content: str
) -> None:
    path = tmp_path / 'names.txt'
    path.write_text(content)
    assert named(models[1], path) == ('cone',)
    path.write_text('1 cone')
    assert "'1 cone', with a number that may be a part" in named(models[1], path)


@pytest.mark.parametrize(
    ('name', 'content', 'part'),
    [
        ('n.txt', b'', 'found an empty file'),
        ('n.txt', b'\n \n', 'found none'),
        ('n.txt', b'# cone\n# ball\n', 'found none'),
        ('n.txt', b'cone\nball\n', 'expected 3 names, one for each class, found 2'),
        ('n.txt', b'cone\nball\ncone\n', 'found cone 2 times'),
        ('n.txt', b'cone\nball\nbox # big\n', 'a comment needs a line of its own'),
        ('n.txt', b'1 euro\n2 euro\n3 euro\n', "'1 euro', with a number that may be a part"),
        ('n.txt', b'0: cone\n1: ball\nbox\n', "not before 'box'"),
        ('n.txt', b'cone: 0\nball: 1\nbox\n', "numbers after some names and not after 'box'"),
        ('n.txt', b'cone: 5\nball: 7\nbox: 9\n', 'the numbers 5, 7, 9 beside names'),
        ('n.txt', b"names = ['a','b','c']", 'which is no name but code'),
        ('n.txt', b"names=('a','b','c')", 'which is no name but code'),
        ('n.txt', b"names = 'a', 'b', 'c'", 'which is no name but code'),
        ('n.txt', b"names = [\n'cone',\n'ball']", 'which is no name but code'),
        ('n.txt', b'cone\n"ball"\nbox\n', 'quotes or a comma that not every name has'),
        ('n.txt', b'cone,\nball\nbox\n', 'quotes or a comma that not every name has'),
        ('n.txt', b'"tench, a fish, big"', 'quotes or a comma that not every name has'),
        ('n.txt', 'caf\u00e9\ncafe\u0301\nbox\n'.encode(), 'found café 2 times'),
        ('n.txt', b'0: cone\n1: ball\n3: box\n', 'the numbers 0, 1, 3 beside names'),
        ('n.txt', b'0: cone\n0: ball\n1: box\n', 'the numbers 0, 0, 1 beside names'),
        ('n.txt', b'__background__\ncone\nball\nbox\nbin\n', 'leave out the background'),
        ('n.txt', b'cone\nball\nb\x07ox\n', 'found'),
        ('n.txt', 'cone\nball\nbox'.encode('utf-16-le'), 'found'),
        ('n.txt', b'\xff\xfe\x00', 'as UTF-8 text, found other bytes'),
        ('n.txt', b'\x89PNG\r\n\x1a\n', 'as UTF-8 text, found other bytes'),
        ('n.txt', b'<annotation>\n<name>cone</name>\n</annotation>\n', 'found'),
        ('n.pbtxt', b'item {\n  id: 1\n}\n', "found 'item {'"),
        ('n.csv', b'id,name\n0,cone\n1,ball\n', 'found'),
        ('n.csv', b'name,colour\ncone,red\nball,blue\n', 'found a table'),
        ('n.json', b'["cone", "ball", 3]', 'a list with 3 in it'),
        ('n.json', b'["cone", "ball", ""]', 'found an empty one'),
        ('n.json', b'["cone", "ball", "\\ud800"]', "found '\\ud800'"),
        ('n.json', b'{"0": "cone", "1": "ball", "1": "box"}', "the key '1' twice"),
        ('n.json', b'{"0": "cone", "1": "ball", "5": "box"}', 'the numbers 0, 1, 5'),
        ('n.json', b'{"a": "cone", "b": "ball", "c": "box"}', "a mapping with 'a' in it"),
        ('n.json', b'{}', 'found none'),
        ('n.json', b'[]', 'found none'),
        ('n.json', b'["cone", "ball"', 'broken JSON or YAML'),
        ('n.json', b'[' * 100_000, 'nested too deeply'),
        ('n.json', b'[{"image_id": 1, "score": 0.5}]', 'a list with a dict in it'),
        ('n.json', b'[' + b'9' * 5000 + b']', 'found'),
        ('n.yaml', b'names: 3\n', "found '3' under 'names'"),
        ('n.yaml', b'names:\n  0: cone\n  0: ball\n  1: box\n', "the key '0' twice"),
        ('n.yaml', b'&a [*a, *a, *a]', 'broken JSON or YAML'),
        ('n.yaml', b'[!!python/object/apply:os.system [id]]', 'a list with a list in it'),
        ('n.py', b'__import__("os").system("touch canary")', 'found'),
        ('n.py', b"CLASSES = ['cone', 'ball', 'box']", 'found'),
        ('n.txt', b'a\n' * 200_000, 'a text of more than 256 KiB'),
    ],
)
def test_other_files_are_one_line(
    models: dict[int, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes,
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_bytes(content)
    found = named(models[3], path)
    assert isinstance(found, str)
    assert part in found
    assert str(path) in found
    assert list(tmp_path.iterdir()) == [path]


def test_anchors_do_not_multiply(models: dict[int, Path], tmp_path: Path) -> None:
    lines = ['- &a0 [x, x]', *(f'- &a{k} [{", ".join([f"*a{k - 1}"] * 9)}]' for k in range(1, 30))]
    (tmp_path / 'n.yaml').write_text('\n'.join(lines))
    assert 'a list with a list in it' in named(models[3], tmp_path / 'n.yaml')


def test_a_large_file_is_refused(models: dict[int, Path], tmp_path: Path) -> None:
    with (tmp_path / 'n.json').open('wb') as stream:
        stream.truncate(65 << 20)
    assert 'found a file of more than 64 MiB' in named(models[3], tmp_path / 'n.json')


def test_what_is_left_out_of_a_file_is_said(models: dict[int, Path], tmp_path: Path) -> None:
    path, notes = tmp_path / 'names.txt', []
    path.write_text('# mine\n__background__\ncone\nball\nbox\n')
    assert named(models[3], path, notes=notes) == THREE
    assert any('1 lines that begin with #' in note for note in notes)
    assert any('left out __background__' in note for note in notes)


@pytest.mark.parametrize('given', [('cone', 'ball', 'cone'), ('cone', 'cone', 'cone')])
def test_a_name_stands_once(models: dict[int, Path], given: tuple[str, ...]) -> None:
    assert 'class_names: expected a name of its own for each class, found cone ' in named(
        models[3], *given
    )  # fmt: skip


def test_names_in_the_weights(models: dict[int, Path], tmp_path: Path) -> None:
    def load(names: str) -> tuple[str, ...] | str:
        path = tmp_path / 'm.safetensors'
        safetensors.torch.save_file(random_state(), path, {'class_names': names})
        return named(models[3], weights=path)

    assert load(json.dumps(THREE)) == THREE
    for text in ('cone', '{"a": 1}', '["cone", 1, 2]', '[' * 10_000):
        assert 'class_names in the weights: expected a JSON list' in load(text)
    assert 'found cone 2 times' in load('["cone", "cone", "box"]')
    assert 'expected 3 names' in load('["cone"]')


def test_eighty_classes_are_not_coco(models: dict[int, Path]) -> None:
    notes: list[str] = []
    found = named(models[80], notes=notes)
    assert found == tuple(f'class_{index}' for index in range(80))
    assert [note for note in notes if 'class_0 to class_79' in note and 'file of them' in note]


def test_the_zoo_is_known_by_name_and_content(models: dict[int, Path], tmp_path: Path) -> None:
    state = torch.load(models[80].parent / 'model.pth')['model']
    content = pickle.dumps({'model': {name: tensor.numpy() for name, tensor in state.items()}})
    md5 = hashlib.md5(content).hexdigest()
    zoo = tmp_path / f'model_final_{md5[:6]}.pkl'
    zoo.write_bytes(content)
    notes: list[str] = []
    assert named(models[80], weights=zoo, notes=notes) == COCO_CLASS_NAMES
    assert notes == []
    for name in ('model_final_000000.pkl', 'model_final.pkl', f'my_{zoo.name}'):
        zoo = zoo.rename(tmp_path / name)
        assert named(models[80], weights=zoo) != COCO_CLASS_NAMES


@pytest.mark.parametrize('of', ['mask_rcnn_R_50_FPN_3x', 'maskrcnn_resnet50_fpn'])
def test_a_published_file_is_known_by_any_name(
    models: dict[int, Path], monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    weights = models[80].parent / 'model.pth'
    algorithm = PRESETS[of].checksum.algorithm
    digest = hashlib.new(algorithm, weights.read_bytes()).hexdigest()
    preset = dataclasses.replace(PRESETS[of], checksum=Checksum(algorithm, digest[:8]))
    assert named(models[80]) != COCO_CLASS_NAMES
    monkeypatch.setitem(PRESETS, of, preset)
    assert named(models[80]) == COCO_CLASS_NAMES
    model = load_model(Config(model=str(models[80])))
    assert model.category_ids == COCO_CATEGORY_IDS
    assert named(models[80], *(f'n{k}' for k in range(80)))[79] == 'n79'


def test_torchvisions_ninety_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset_name = 'maskrcnn_resnet50_fpn'
    narrow = {
        field.name: getattr(ARCHITECTURE, field.name)
        for field in dataclasses.fields(ARCHITECTURE)
        if field.name.endswith(('per_group', 'channels', 'fc_dims', 'conv_dims'))
    }
    architecture = dataclasses.replace(checkpoint.ARCHITECTURE, **narrow)
    preset = dataclasses.replace(PRESETS[preset_name], architecture=architecture)
    monkeypatch.setitem(PRESETS, preset_name, preset)
    weights = tmp_path / 'model.pth'
    torch.save(checkpoint.to_torchvision(random_state(architecture)), weights)
    notes: list[str] = []
    own = load_model(Config(model=preset_name, weights=str(weights)), notes.append)
    assert isinstance(own, NativeModel)
    assert own.class_names == tuple(f'class_{index}' for index in range(90))
    assert own.category_ids is None
    assert any('class_0 to class_89' in note for note in notes)
    # The list that torchvision has for them, with its background and placeholders.
    published = torchvision.models.detection.MaskRCNN_ResNet50_FPN_Weights.COCO_V1
    names = tmp_path / 'names.json'
    names.write_text(json.dumps(published.meta['categories']))
    listed = load_model(Config(model=preset_name, weights=str(weights), class_names=(str(names),)))
    assert listed.class_names == tuple(published.meta['categories'][1:])
    assert listed.category_ids == tuple(range(1, 91))
    preset = dataclasses.replace(
        PRESETS[preset_name], checksum=Checksum('sha256', own.weights_sha256[:8])
    )
    monkeypatch.setitem(PRESETS, preset_name, preset)
    coco = load_model(Config(model=preset_name, weights=str(weights)))
    assert {coco.class_names[i - 1] for i in COCO_CATEGORIES} == set(COCO_CLASS_NAMES)


def test_an_exported_model_without_names_asks_for_them(tmp_path: Path) -> None:
    from test_checkpoint_torchscript import Program, describe

    torch.jit.save(torch.jit.script(Program()), tmp_path / 'program.pt')
    assert 'expected the names or the number' in named(describe(tmp_path, labels='index'))
    assert named(describe(tmp_path, labels='index'), *THREE) == THREE
    assert named(describe(tmp_path)) == COCO_CLASS_NAMES
