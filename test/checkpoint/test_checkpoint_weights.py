# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Weights files of every format: the good are read exactly, the bad refused in one line."""

from __future__ import annotations

import argparse
import os
import pickle
import random
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from narrow_checkpoint import ARCHITECTURE, CONFIG, random_state, write_checkpoint
from torch import Tensor

from segnode.checkpoint import NativeModel, load_model
from segnode.checkpoint.weights_file import read_weights
from segnode.config import Config
from segnode.errors import CheckpointError, SegnodeError

STATE = random_state()
ARRAYS = {name: tensor.numpy() for name, tensor in STATE.items()}
FIRST = 'backbone.bottom_up.stem.conv1.weight'


class Command:
    """Unpickling it would create a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f'touch {self.canary}',)


def load(folder: Path, weights: str) -> NativeModel:
    (folder / 'config.yaml').write_text(CONFIG)
    model = load_model(Config(model=str(folder / 'config.yaml'), weights=str(folder / weights)))
    assert isinstance(model, NativeModel)
    return model


def assert_equal_states(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_zoo_pickle(tmp_path: Path, protocol: int) -> None:
    content = {'model': ARRAYS, '__author__': 'Detectron2 Model Zoo'}
    (tmp_path / 'model.pkl').write_bytes(pickle.dumps(content, protocol))
    assert_equal_states(load(tmp_path, 'model.pkl').state_dict, STATE)


def test_pickle_keeps_shape_order_and_byte_order(tmp_path: Path) -> None:
    arrays = {
        'fortran': np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        'big_endian': np.arange(4, dtype='>f8'),
        'half': np.array([0.5, 2.0], dtype=np.float16),
        'scalar': np.array(3.0, dtype=np.float32),
        'empty': np.zeros((0, 4), dtype=np.float32),
        'counter': np.array([7]),
    }
    for protocol in (2, 4, 5):
        (tmp_path / 'a.pkl').write_bytes(pickle.dumps(OrderedDict(arrays), protocol))
        tensors = read_weights(tmp_path / 'a.pkl').tensors
        for name, array in arrays.items():
            assert tuple(tensors[name].shape) == array.shape
            np.testing.assert_array_equal(tensors[name].numpy(), array)


def test_pickle_of_python_2(tmp_path: Path) -> None:
    array = np.array([1.5, -2.0], dtype=np.float32)
    # Python 2 writes an array's bytes as a str (opcode U), which is read as Latin-1.
    data = array.tobytes()
    source = (
        b'\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b'
        b'\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff'
        b'\xffJ\xff\xff\xff\xffK\x00tb\x89U' + bytes([len(data)]) + data + b'tbs.'
    )
    (tmp_path / 'a.pkl').write_bytes(source)
    assert torch.equal(read_weights(tmp_path / 'a.pkl').tensors['a'], torch.from_numpy(array))


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('wrapped', [False, True])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_torch_file(tmp_path: Path, legacy: bool, wrapped: bool, prefix: str) -> None:
    state = OrderedDict((prefix + name, tensor) for name, tensor in STATE.items())
    content: object = {'model': state, 'optimizer': {'step': 3}, 'iteration': 9}
    torch.save(
        content if wrapped else state,
        tmp_path / 'model.pth',
        _use_new_zipfile_serialization=not legacy,
    )
    assert_equal_states(load(tmp_path, 'model.pth').state_dict, STATE)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_safetensors_of_other_precisions_become_float32(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    stored = {name: tensor.to(dtype) for name, tensor in STATE.items()}
    metadata = {'class_names': '["cone", "ball", "box"]', 'license': 'CC0'}
    safetensors.torch.save_file(stored, tmp_path / 'm.safetensors', metadata)
    model = load(tmp_path, 'm.safetensors')
    assert_equal_states(model.state_dict, {k: v.float() for k, v in stored.items()})
    assert model.class_names == ('cone', 'ball', 'box')
    assert model.licence == 'CC0'


def test_format_is_told_by_content_not_name(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / 'model.pkl')
    assert_equal_states(load(tmp_path, 'model.pkl').state_dict, STATE)


def test_surplus_tensors_are_accepted(tmp_path: Path) -> None:
    surplus = {
        'pixel_mean': torch.zeros(3, 1, 1),
        'pixel_std': torch.ones(3, 1, 1),
        'proposal_generator.anchor_generator.cell_anchors.0': torch.zeros(3, 4),
        'backbone.bottom_up.stem.conv1.norm.num_batches_tracked': torch.tensor(5),
    }
    torch.save({**STATE, **surplus}, tmp_path / 'model.pth')
    assert_equal_states(load(tmp_path, 'model.pth').state_dict, STATE)


def test_what_a_model_says_of_itself(tmp_path: Path) -> None:
    config = write_checkpoint(tmp_path)
    model = load_model(Config(model=str(config)))
    assert isinstance(model, NativeModel)
    assert model.architecture == ARCHITECTURE
    assert model.name == 'config'
    assert model.weights_path == tmp_path / 'model.pth'
    assert len(model.weights_sha256) == 64
    assert model.class_names == ('class_0', 'class_1', 'class_2')
    assert model.category_ids is None


def without(name: str) -> dict[str, Tensor]:
    return {k: v for k, v in STATE.items() if k != name}


def bad_states() -> dict[str, tuple[object, str]]:
    """Return what ``torch.save`` may have been given, and a part of the refusal."""
    nan = STATE[FIRST].clone()
    nan[0, 0, 0, 0] = torch.nan
    backbone = {
        k.removeprefix('backbone.bottom_up.'): v for k, v in STATE.items() if 'bottom_up' in k
    }
    no_mask = {k: v for k, v in STATE.items() if 'mask_head' not in k}
    one = torch.zeros(1)
    bbox = 'roi_heads.box_predictor.bbox_pred.weight'
    return {
        'missing': (without(FIRST), f'1 missing, such as {FIRST}'),
        'surplus': ({**STATE, 'roi_heads.extra.weight': one}, 'such as roi_heads.extra.weight'),
        'shape': ({**STATE, FIRST: STATE[FIRST][:, :2]}, 'shape (8, 3, 7, 7), found (8, 2, 7, 7)'),
        'classes': ({**STATE, bbox: torch.ones(20, 16)}, 'is the number of classes right?'),
        'huge': (
            {**STATE, FIRST: one.expand(1 << 40)},
            'shape (8, 3, 7, 7), found (1099511627776,)',
        ),
        'nan': ({**STATE, FIRST: nan}, 'found NaN or infinity'),
        'infinity': ({**STATE, FIRST: STATE[FIRST] / 0}, 'found NaN or infinity'),
        'overflow': ({**STATE, FIRST: STATE[FIRST].double() * 1e300}, 'found NaN or infinity'),
        'integers': ({**STATE, FIRST: STATE[FIRST].int()}, 'expected a dense float tensor'),
        'sparse': ({**STATE, FIRST: STATE[FIRST].to_sparse()}, 'expected dense tensors'),
        'variance': (
            {k: -v if k.endswith('running_var') else v for k, v in STATE.items()},
            'found a negative number',
        ),
        'backbone': (backbone, 'found a backbone alone'),
        'faster_rcnn': (no_mask, 'found a detector without masks'),
        'retinanet': (
            {'backbone.bottom_up.stem.conv1.weight': one, 'head.cls_score.weight': one},
            'found a RetinaNet',
        ),
        'cascade': ({**no_mask, 'roi_heads.box_head.0.fc1.weight': one}, 'found a Cascade'),
        'c4': ({**STATE, 'roi_heads.res5.0.conv1.weight': one}, 'found a C4 model'),
        'keypoints': ({**STATE, 'roi_heads.keypoint_head.conv_fcn1.weight': one}, 'a Keypoint'),
        'panoptic': ({**STATE, 'sem_seg_head.p2.0.weight': one}, 'found a panoptic'),
        'torchvision': (
            {'backbone.body.conv1.weight': one, 'roi_heads.mask_head.mask_fcn1.weight': one},
            'found a torchvision checkpoint',
        ),
        'empty': ({}, 'found none'),
        'list': ([STATE[FIRST]], 'expected tensors by name, found list'),
        'number': ({'epoch': 3}, "found int under 'epoch'"),
        'key': ({3: STATE[FIRST]}, 'expected tensors by name'),
        'object': ({'model': {**STATE, FIRST: Path()}}, 'found pathlib.'),
    }


def refused(call: Callable[[], object], part: str) -> None:
    """Assert that a call is refused in one line that holds ``part``."""
    with pytest.raises(SegnodeError) as caught:
        call()
    message = str(caught.value)
    assert '\n' not in message
    assert message.isprintable()
    assert len(message) < 500
    assert part in message


@pytest.mark.parametrize('case', bad_states())
def test_bad_state_is_refused(tmp_path: Path, case: str) -> None:
    state, part = bad_states()[case]
    torch.save(state, tmp_path / 'model.pth')
    refused(lambda: load(tmp_path, 'model.pth'), part)


@pytest.mark.parametrize(
    ('content', 'part'),
    [
        (b'', 'found an empty file'),
        (b'\x00' * 1000, 'found none of these formats'),
        (random.Random(0).randbytes(4096), 'found none of these formats'),
        (b'<!DOCTYPE html><html>', 'found none of these formats'),
        (b'PK\x03\x04' + random.Random(1).randbytes(4096), 'found a damaged one'),
        (b'\x80\x02' + random.Random(2).randbytes(4096), 'found a damaged one'),
        (b'\xff' * 8 + b'{"a": 1}', 'found none of these formats'),
        (b'\x08' + bytes(7) + b'{"a": 1}', 'found a damaged file'),
        (pickle.dumps({'blobs': {'conv1_w': 1}}), 'found a Detectron1 checkpoint'),
        (pickle.dumps({'model': {'a': np.array(['x'], dtype=object)}}), "found an array of 'O8'"),
        (pickle.dumps({'model': {'a': 1.5}}), "found float under 'a'"),
        (pickle.dumps(argparse.Namespace(model=1)), 'found argparse.Namespace'),
        (b'\x80\x04\x8c\x01x\x85.', 'found tuple'),
    ],
)
def test_bad_file_is_refused(tmp_path: Path, content: bytes, part: str) -> None:
    (tmp_path / 'weights').write_bytes(content)
    refused(lambda: load(tmp_path, 'weights'), part)


def test_missing_and_folder_are_refused(tmp_path: Path) -> None:
    refused(lambda: load(tmp_path, 'none.pth'), 'none.pth: expected weights, found no such file')
    refused(lambda: load(tmp_path, ''), 'expected weights, found a folder')


def test_torchscript_is_no_weights_file(tmp_path: Path) -> None:
    program = torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1))
    torch.jit.save(program, tmp_path / 'model.pth')
    refused(lambda: load(tmp_path, 'model.pth'), 'found a TorchScript program')


@pytest.mark.parametrize('kind', ['pkl', 'pkl of protocol 0', 'pth', 'legacy pth', 'nested'])
def test_code_is_never_run(tmp_path: Path, kind: str) -> None:
    command = Command(tmp_path / 'canary')
    content = {'model': {**ARRAYS, 'x.y': command}}
    path = tmp_path / 'weights'
    if kind == 'pkl':
        path.write_bytes(pickle.dumps(content))
    elif kind == 'pkl of protocol 0':
        path.write_bytes(b'\x80\x00' + pickle.dumps(content, 0))
    elif kind == 'nested':
        array = np.array([command], dtype=object)
        path.write_bytes(pickle.dumps({'model': {'a': array}}))
    else:
        torch.save({'model': command}, path, _use_new_zipfile_serialization=kind == 'pth')
    refused(lambda: load(tmp_path, 'weights'), '')
    assert not command.canary.exists()
    pickle.loads(pickle.dumps(command))
    assert command.canary.exists(), 'the canary itself works'


@pytest.mark.parametrize('written', ['model.pkl', 'model.pth', 'legacy.pth', 'm.safetensors'])
def test_damage_anywhere_is_one_line(tmp_path: Path, written: str) -> None:
    small = {'a': torch.arange(4.0), 'b': torch.ones(2, 2)}
    path = tmp_path / written
    if written == 'model.pkl':
        path.write_bytes(pickle.dumps({k: v.numpy() for k, v in small.items()}, 2))
    elif written == 'm.safetensors':
        safetensors.torch.save_file(small, path)
    else:
        torch.save(small, path, _use_new_zipfile_serialization=written == 'model.pth')
    intact = path.read_bytes()
    chance = random.Random(written)
    refusals = []
    for trial in range(200):
        damaged = bytearray(intact)
        if trial % 2:
            del damaged[chance.randrange(1, len(intact)) :]
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            read_weights(path)
        except CheckpointError as error:
            refusals.append(str(error))
    assert len(refusals) > 100
    assert all(text.isprintable() for text in refusals)
