# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Checkpoints as people's trainers write them: objects beside the weights, wrappers, prefixes."""

from __future__ import annotations

import argparse
import collections
import datetime
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from narrow_checkpoint import CONFIG, random_state
from torch import Tensor, nn

from segnode.checkpoint import NativeModel, load_model
from segnode.checkpoint.weights_file import read_weights
from segnode.config import Config
from segnode.errors import SegnodeError

STATE = random_state()
ARRAYS = {name: tensor.numpy() for name, tensor in STATE.items()}
FIRST = 'backbone.bottom_up.stem.conv1.weight'


class Canary:
    """Building it, or anything with it, leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


class Tracked(dict):  # type: ignore[type-arg]
    """A foreign object to which pickle sets items."""


class Listed(list):  # type: ignore[type-arg]
    """A foreign object to which pickle appends."""


class Stateful:
    """A foreign object with a state of its own making."""

    def __getstate__(self) -> tuple[int, str]:
        return 1, 'state'

    def __setstate__(self, state: tuple[int, str]) -> None:
        raise AssertionError(state)


def load(folder: Path, weights: str = 'weights') -> tuple[NativeModel, list[str]]:
    """Return the model of a weights file, and what loading reported."""
    notes: list[str] = []
    (folder / 'config.yaml').write_text(CONFIG)
    config = Config(
        model=str(folder / 'config.yaml'),
        weights=str(folder / weights),
        class_names=('cone', 'ball', 'box'),
    )
    try:
        model = load_model(config, notes.append)
    except SegnodeError as error:
        pytest.fail(f'refused: {error}')
    assert isinstance(model, NativeModel)
    return model, notes


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(SegnodeError) as caught:
        call()
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600
    return message


def assert_equal_states(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def beside_the_weights(folder: Path) -> dict[str, Any]:
    """Return what trainers keep beside the weights, and worse."""
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    return {
        'optimizer': optimizer.state_dict(),
        'lr_scheduler': {'milestones': collections.Counter({16: 1}), 'last_epoch': 3},
        'args': argparse.Namespace(device='cuda', output_dir=Path('out'), lr=0.02),
        'epoch': np.int64(25),
        'best': np.float64(0.37),
        'when': datetime.datetime(2026, 1, 1),
        'rng': np.random.RandomState(0).get_state(),
        'names': np.array(['cone', 'ball'], dtype=object),
        'layer': layer,
        'dtype': torch.float32,
        'size': torch.Size((1, 2)),
        'sparse': torch.eye(3).to_sparse(),
        'classes': {'cone', 'ball'},
        'frozen': frozenset({1}),
        'slice': slice(1, 2),
        'complex': 1j,
        'tracked': Tracked(a=1),
        'listed': Listed([1, 2]),
        'stateful': Stateful(),
        'ordered': collections.defaultdict(list, {'a': [1]}),
        'canary': Canary(folder / 'canary'),
        (1, 2): 'a key that is no text',
    }


@pytest.mark.parametrize('kind', ['zip', 'legacy', 'pkl of protocol 2', 'pkl of protocol 5'])
def test_what_stands_beside_the_weights_is_skipped(tmp_path: Path, kind: str) -> None:
    beside = beside_the_weights(tmp_path)
    if kind.startswith('pkl'):
        for name in ('optimizer', 'layer', 'sparse'):  # tensors, whose pickles are torch.save's
            del beside[name]
        content = {**beside, 'model': ARRAYS}
        (tmp_path / 'weights').write_bytes(pickle.dumps(content, int(kind[-1])))
    else:
        content = {**beside, 'model': STATE}
        torch.save(content, tmp_path / 'weights', _use_new_zipfile_serialization=kind == 'zip')
    model, notes = load(tmp_path)
    assert_equal_states(model.state_dict, STATE)
    assert notes == []
    assert not (tmp_path / 'canary').exists()
    pickle.loads(pickle.dumps(beside['canary']))
    assert (tmp_path / 'canary').exists(), 'the canary itself works'


def test_torchvisions_own_training_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=4
    )
    checkpoint = {
        'model': theirs.state_dict(),
        'optimizer': torch.optim.SGD(theirs.parameters(), lr=0.02).state_dict(),
        'args': argparse.Namespace(dataset='coco', output_dir=Path()),
        'epoch': 25,
    }
    torch.save(checkpoint, tmp_path / 'model_25.pth')
    config = Config(model='maskrcnn_resnet50_fpn', weights=str(tmp_path / 'model_25.pth'))
    try:
        model = load_model(config)
    except SegnodeError as error:
        pytest.fail(f'refused: {error}')
    assert len(model.class_names) == 3


@pytest.mark.parametrize('legacy', [False, True])
def test_tensors_of_all_kinds_are_as_torch_reads_them(tmp_path: Path, legacy: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn((6, 8), generator=generator)
    tagged = nn.Parameter(torch.ones(2))
    tagged.tag = 'x'  # type: ignore[attr-defined]
    content = {
        'plain': torch.arange(5.0),
        'half': whole.half(),
        'bfloat16': whole.bfloat16(),
        'double': whole.double(),
        'counter': torch.tensor(7),
        'flags': whole > 0,
        'bytes': torch.arange(9, dtype=torch.uint8),
        'empty': torch.zeros((0, 4)),
        'a row': whole[2],
        'a column': whole[:, 3],
        'turned': whole.T,
        'overlapping': whole.flatten()[3:20],
        'channels last': torch.randn((2, 3, 4, 5)).to(memory_format=torch.channels_last),
        'parameter': nn.Parameter(whole[0]),
        'attributes': tagged,
    }
    path = tmp_path / 'weights'
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    found = read_weights(path).tensors
    expected = torch.load(path, weights_only=False)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor.detach()), name


def rewrite(path: Path, change: Callable[[str, bytes], bytes], compressed: str = '') -> None:
    """Write a zip archive anew, its records changed."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in records.items():
            deflated = compressed and name.endswith(compressed)
            kind = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
            archive.writestr(name, change(name, data), kind)


def test_big_endian_file(tmp_path: Path) -> None:
    path = tmp_path / 'weights'
    tensors = {'a': torch.arange(6.0).view(2, 3), 'b': torch.arange(3.0, dtype=torch.float64)}
    torch.save(tensors, path)

    def swap(name: str, data: bytes) -> bytes:
        if name.endswith('byteorder'):
            return b'big'
        size = {'0': 4, '1': 8}.get(name.rpartition('/')[2], 1) if '/data/' in name else 1
        return (
            np.frombuffer(data, f'V{size}').tobytes()
            if size == 1
            else (np.frombuffer(data, f'u{size}').byteswap().tobytes())
        )

    rewrite(path, swap)
    found = read_weights(path).tensors
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_tensors_saved_on_a_gpu(tmp_path: Path) -> None:
    path = tmp_path / 'weights'
    torch.save({'a': torch.arange(3.0)}, path)
    rewrite(path, lambda _, data: data.replace(b'\x03\0\0\0cpu', b'\x06\0\0\0cuda:1'))
    assert b'cuda:1' in path.read_bytes()
    assert torch.equal(read_weights(path).tensors['a'], torch.arange(3.0))


def saved(path: Path) -> None:
    torch.save({'a': torch.arange(300.0)}, path)


def claim(old: bytes, new: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        saved(path)
        assert old in path.read_bytes()
        rewrite(path, lambda _, data: data.replace(old, new))

    return write


def spoil(path: Path) -> None:
    saved(path)
    with zipfile.ZipFile(path) as archive:
        begin = archive.read('weights/data/0')[:64]
    data = path.read_bytes()
    place = data.index(begin)
    path.write_bytes(data[:place] + b'\xff' + data[place + 1 :])


def bomb(path: Path) -> None:
    saved(path)
    rewrite(path, lambda n, data: bytes(1 << 23) if n.endswith('/0') else data, compressed='/0')


def nested(path: Path) -> None:
    """Tuples in each other, whose hash would overflow the stack."""
    path.write_bytes(b'\x80\x02}(U\x01a)' + b'\x85' * 100_000 + b'h\x00u.')


def nested_key(path: Path) -> None:
    path.write_bytes(b'\x80\x02})' + b'\x85' * 100_000 + b'K\x01s.')


def claimed_bytes(path: Path) -> None:
    """A bytearray of 64 GiB in a file of 20 bytes."""
    path.write_bytes(b'\x80\x05}X\x01\0\0\0a\x96' + struct.pack('<Q', 64 << 30) + b'xs.')


def endless_kind(path: Path) -> None:
    """An array whose type is lists of lists, ten in each, whose text would have 10^12 letters."""
    nested = b']q\x01'
    for level in range(1, 13):
        nested += b'](' + f'h{chr(level)}'.encode() * 10 + b'eq' + bytes([level + 1])
    array = b'cnumpy\ndtype\n(' + f'h{chr(13)}'.encode() + b'tR'
    build = b'cnumpy._core.numeric\n_frombuffer\n(U\x00' + array + b'K\x00U\x01CtR'
    path.write_bytes(b'\x80\x02' + nested + b'0' * 13 + b'}U\x01a' + build + b's.')


def many_dots(path: Path) -> None:
    torch.save({'a.' * 100_000 + 'w': torch.zeros(1)}, path)


def holds_itself(path: Path) -> None:
    """A dictionary of which every item is itself."""
    items = b''.join(b'U\x02' + f'{n:02d}'.encode() + b'h\x00' for n in range(90))
    path.write_bytes(b'\x80\x02}q\x00(' + items + b'u.')


def cycle(path: Path) -> None:
    path.write_bytes(b'\x80\x02}q\x00U\x05modelh\x00s.')


@pytest.mark.parametrize(
    ('write', 'part'),
    [
        (claim(b'M,\x01', b'M,\x02'), 'a tensor that reaches beyond its storage|more claimed'),
        (claim(b'M,\x01', b'J\xff\xff\xff\x7f'), 'more claimed than a storage has'),
        (claim(b'M,\x01', b'J\xff\xff\xff\xff'), 'a reference to no storage'),
        (claim(b'FloatStorage', b'UnholyStorage'), "found torch.UnholyStorage under 'a'"),
        (spoil, 'a wrong checksum'),
        (bomb, 'a compressed record'),
        (nested, 'damaged'),
        (nested_key, 'found none'),
        (claimed_bytes, 'pickle data was truncated|pickle exhausted|damaged'),
        (endless_kind, 'found an array of list'),
        (many_dots, 'missing'),
        (holds_itself, 'found dict under'),
        (cycle, "found dict under 'model'"),
    ],
    ids=lambda value: getattr(value, '__name__', '')[:12],
)
def test_hostile_file_is_refused_in_one_line(
    tmp_path: Path, write: Callable[[Path], None], part: str
) -> None:
    write(tmp_path / 'weights')
    (tmp_path / 'config.yaml').write_text(CONFIG)
    config = Config(model=str(tmp_path / 'config.yaml'), weights=str(tmp_path / 'weights'))
    message = refusal(lambda: load_model(config))
    assert any(each in message for each in part.split('|')), message


def test_checksums_that_were_not_computed(tmp_path: Path) -> None:
    path = tmp_path / 'weights'
    saved(path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        crc = zlib.crc32(archive.read('weights/data/0')).to_bytes(4, 'little')
    path.write_bytes(bytes(data).replace(crc, bytes(4)))
    assert torch.equal(read_weights(path).tensors['a'], torch.arange(300.0))


def prefixed(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {f'{prefix}{name}': value for name, value in state.items()}


OTHER = {name: tensor + 1 for name, tensor in STATE.items()}


@pytest.mark.parametrize(
    ('content', 'part'),
    [
        ({'state_dict': STATE, 'epoch': 3}, 'weights found under state_dict'),
        ({'model_state_dict': STATE, 'loss': 0.1}, 'under model_state_dict'),
        ({'params': {'lr': 0.1}, 'state_dict': STATE}, 'found under state_dict'),
        ({'ema': STATE}, 'under ema'),
        ({'ema': {'module': STATE, 'decay': 0.9}}, 'under ema.module'),
        ({'model_ema': {'state_dict': STATE}}, 'under model_ema.state_dict'),
        ({'ema_state_dict': STATE, 'ema_decay': 0.9}, 'under ema_state_dict'),
        ({'net': STATE}, 'under net'),
        ({'my_weights': STATE, 'epoch': 1}, 'under my_weights'),
        ({'model': STATE, 'ema': OTHER}, 'holds ema beside model, which was taken'),
        ({'ema': OTHER, 'model': STATE, 'ema_state': OTHER}, 'holds ema, ema_state beside model'),
        # Lightning
        (
            {'state_dict': prefixed('model.', STATE), 'hyper_parameters': {}, 'loops': {}},
            'under state_dict; their names without model.',
        ),
        (prefixed('model.', STATE), 'at the top; their names without model.'),
        (prefixed('module.', STATE), 'without module.'),
        (prefixed('module.model._orig_mod.', STATE), 'without _orig_mod. and module. and model.'),
        ({'model': prefixed('_orig_mod.', STATE)}, 'under model; their names without _orig_mod.'),
        (prefixed('detector.', STATE), 'without detector.'),
        (
            {name.replace('bottom_up.', 'bottom_up._orig_mod.'): v for name, v in STATE.items()},
            'without _orig_mod.',
        ),
        # AveragedModel
        (
            {'n_averaged': torch.tensor(3), **prefixed('module.', STATE)},
            'without module.',
        ),
    ],
)
@pytest.mark.parametrize('kind', ['torch', 'pickle'])
def test_wrapper_and_prefix_are_found_and_said(
    tmp_path: Path, content: dict[str, Any], part: str, kind: str
) -> None:
    if kind == 'torch':
        torch.save(content, tmp_path / 'weights')
    else:
        (tmp_path / 'weights').write_bytes(pickle.dumps(arrays_of(content)))
    model, notes = load(tmp_path)
    assert_equal_states(model.state_dict, STATE)
    assert len(notes) == 1
    assert part in notes[0]


def arrays_of(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: arrays_of(value) for name, value in content.items()}
    return content.numpy() if isinstance(content, Tensor) else content


@pytest.mark.parametrize('content', [STATE, {'model': STATE, 'iteration': 3}])
def test_usual_places_are_not_worth_a_word(tmp_path: Path, content: dict[str, Any]) -> None:
    torch.save(content, tmp_path / 'weights')
    model, notes = load(tmp_path)
    assert_equal_states(model.state_dict, STATE)
    assert notes == []


ONE = torch.zeros(1)
BACKBONE = {name: tensor for name, tensor in STATE.items() if name.startswith('backbone.')}
FASTER = {name: tensor for name, tensor in STATE.items() if 'mask_head' not in name}


@pytest.mark.parametrize(
    ('content', 'part'),
    [
        (BACKBONE, 'a backbone alone'),
        (prefixed('model.', BACKBONE), 'a backbone alone'),
        ({'model': BACKBONE}, 'a backbone alone'),
        ({**FASTER, 'roi_heads.mask_head.point_head.fc1.weight': ONE}, 'a PointRend model'),
        ({**FASTER, 'roi_heads.mask_head.coarse_head.fc1.weight': ONE}, 'a PointRend model'),
        ({'head.cls_score.weight': ONE, 'head.mask_pred_00.weight': ONE}, 'a TensorMask model'),
        (
            {'backbone.body.conv1.weight': ONE, 'roi_heads.keypoint_predictor.x.weight': ONE},
            'a Keypoint R-CNN',
        ),
        ({'transformer.encoder.layers.0.x': ONE, 'class_embed.weight': ONE}, 'a DETR'),
        (
            {'backbone.x': ONE, 'sem_seg_head.pixel_decoder.x': ONE},
            'a MaskFormer or Mask2Former',
        ),
        (prefixed('model.', {'0.conv.weight': ONE, '22.cv2.0.0.conv.weight': ONE}), 'a YOLO'),
        (
            {'backbone.features.0.weight': ONE, 'head.classification_head.module_list.0.x': ONE},
            "torchvision's SSD",
        ),
        (
            {
                'head.classification_head.conv.0.weight': ONE,
                'head.regression_head.bbox_ctrness.weight': ONE,
            },
            "torchvision's FCOS",
        ),
        (
            {'backbone.layer1.0.conv1.weight': ONE, 'neck.lateral_convs.0.conv.weight': ONE},
            'an MMDetection checkpoint',
        ),
        ({'bbox_head.cls_convs.0.conv.weight': ONE}, 'a one-stage detector of MMDetection'),
        ({**FASTER, 'proposal_generator.fcos_head.x': ONE}, 'an AdelaiDet model'),
        ({**FASTER, 'roi_heads.densepose_head.x': ONE}, 'a DensePose model'),
        ({**STATE, 'backbone.bottom_up.res3.0.conv2_offset.weight': ONE}, 'deformable'),
    ],
)
def test_other_model_is_named_with_what_to_do(
    tmp_path: Path, content: dict[str, Any], part: str
) -> None:
    torch.save(content, tmp_path / 'weights')
    (tmp_path / 'config.yaml').write_text(CONFIG)
    config = Config(model=str(tmp_path / 'config.yaml'), weights=str(tmp_path / 'weights'))
    message = refusal(lambda: load_model(config))
    assert f'found {part}' in message or part == 'deformable'
    assert part in message
    remedies = ('Own models', 'name those of the trained model', '--model takes it by itself')
    assert any(remedy in message for remedy in remedies)


class Foreign(nn.Module):
    """Stands for a model that was pickled whole."""


@pytest.mark.parametrize(
    ('module', 'part'),
    [
        ('ultralytics.nn.tasks', 'found a YOLO of Ultralytics'),
        ('models.yolo', 'found a YOLO of Ultralytics'),
        ('mycode.networks', 'found mycode.networks.Foreign'),
    ],
)
@pytest.mark.parametrize('wrapped', [False, True])
def test_pickled_model_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, part: str, wrapped: bool
) -> None:
    import sys
    import types

    for depth in range(module.count('.') + 1):
        name = module.rsplit('.', module.count('.') - depth)[0]
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules[module], 'Foreign', Foreign, raising=False)
    monkeypatch.setattr(Foreign, '__module__', module)
    content = {'epoch': 3, 'model': Foreign(), 'ema': None} if wrapped else Foreign()
    torch.save(content, tmp_path / 'weights')
    (tmp_path / 'config.yaml').write_text(CONFIG)
    config = Config(model=str(tmp_path / 'config.yaml'), weights=str(tmp_path / 'weights'))
    message = refusal(lambda: load_model(config))
    assert part in message
    assert ("under 'model'" in message) == wrapped
    assert 'segnode does not run' in message or 'model.state_dict()' in message


SMALL = {'name': 'r50', 'cfg': {'a': 1}}


@pytest.mark.parametrize(
    ('content', 'taken'),
    [
        ({'model': SMALL, 'state_dict': STATE}, STATE),
        ({'model': {'anchors': torch.zeros(3), 'n': 1}, 'state_dict': STATE}, STATE),
        ({**STATE, 'model': SMALL}, STATE),
        ({'my_weights': STATE, 'params': {'lr': 0.1}}, STATE),
        ({'ema': {'decay': torch.tensor(0.9), 'shadow': STATE}}, STATE),
        ({'my_weights': STATE, 'lr': torch.tensor(1.0)}, STATE),
        ({'my_weights': STATE, 'loss_hist': {'a': torch.zeros(1)}}, STATE),
        ({**STATE, 'ema': {'decay': 0.9, 'module': OTHER}}, STATE),
        ({'my_weights': STATE, 'optimizer': {'state': {0: {'exp_avg': OTHER}}}}, STATE),
        (prefixed('head.', STATE), STATE),
        (prefixed('fc.module.', STATE), STATE),
    ],
)
@pytest.mark.parametrize('legacy', [False, True])
def test_weights_are_where_most_of_a_network_is(
    tmp_path: Path, content: dict[str, Any], taken: dict[str, Tensor], legacy: bool
) -> None:
    torch.save(content, tmp_path / 'weights', _use_new_zipfile_serialization=not legacy)
    model, notes = load(tmp_path)
    name = 'roi_heads.box_predictor.cls_score.bias'
    assert torch.equal(model.state_dict[name], taken[name])
    # That a file holds others, too, is said.
    assert any('beside the weights at the top' in note for note in notes) == (
        'ema' in content and name in content
    )


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_older_files_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    beside = {
        'complex': torch.zeros(3, dtype=torch.complex64),
        'quantized': torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    }
    torch.save(
        {'model': STATE, **beside},
        tmp_path / 'weights',
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=False,
    )
    model, _ = load(tmp_path)
    name = 'roi_heads.box_predictor.cls_score.bias'
    assert torch.equal(model.state_dict[name], STATE[name])


def test_a_negated_view_is_no_plain_tensor(tmp_path: Path) -> None:
    name = 'roi_heads.box_predictor.cls_score.bias'
    torch.save(STATE | {name: torch._neg_view(STATE[name])}, tmp_path / 'weights')
    assert 'a negated or conjugated view' in refusal(lambda: read_weights(tmp_path / 'weights'))


def test_a_variance_of_0_cannot_divide(tmp_path: Path) -> None:
    name = 'backbone.bottom_up.res2.0.conv1.norm.running_var'
    state = STATE | {name: torch.zeros_like(STATE[name])}
    torch.save(state, tmp_path / 'weights')
    load(tmp_path)
    config = Config(
        model=str(tmp_path / 'config.yaml'), weights=str(tmp_path / 'weights'), norm_eps=0.0
    )
    message = refusal(lambda: load_model(config))
    assert f'{name}: expected variances above 0, as norm_eps is 0, found 0' in message


def test_norms_of_another_kind_are_named(tmp_path: Path) -> None:
    statistics = ('running_mean', 'running_var')
    group = {name: tensor for name, tensor in STATE.items() if not name.endswith(statistics)}
    torch.save(group, tmp_path / 'weights')
    (tmp_path / 'config.yaml').write_text(CONFIG)
    config = Config(model=str(tmp_path / 'config.yaml'), weights=str(tmp_path / 'weights'))
    assert 'is it NORM: GN?' in refusal(lambda: load_model(config))


def test_a_base_that_is_a_program_is_named(tmp_path: Path) -> None:
    (tmp_path / 'base.PY').write_text('from detectron2.config import LazyCall as L\n')
    (tmp_path / 'config.yaml').write_text('_BASE_: base.PY\n')
    config = Config(model=str(tmp_path / 'config.yaml'), weights=str(tmp_path / 'weights'))
    assert 'found a LazyConfig of Detectron2' in refusal(lambda: load_model(config))
