# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""MMDetection's checkpoints as its runners write them, loaded without running any of it."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import os
import pickle
import random
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from narrow_checkpoint import CONFIG as DETECTRON2_CONFIG
from narrow_checkpoint import random_state
from narrow_mmdetection import ARCHITECTURE, CONFIG, CONFIG_2, MODEL
from torch import Tensor

from segnode.checkpoint import PRESETS, NativeModel, load_model
from segnode.checkpoint.coco_classes import COCO_CATEGORY_IDS, COCO_CLASS_NAMES
from segnode.checkpoint.download import Checksum
from segnode.checkpoint.load import file_architecture
from segnode.checkpoint.mmdetection import fit_weights, to_mmdetection
from segnode.config import Config
from segnode.errors import CheckpointError, ConfigError, SegnodeError
from segnode.model.architecture import MMDETECTION, Architecture, Pooler
from segnode.model.backbone_specs import (
    BackboneSpec,
    ConvNeXtSpec,
    ResNeStSpec,
    ResNetSpec,
    SwinSpec,
)
from segnode.model.mask_rcnn import expected_state_dict

STATE = random_state(ARCHITECTURE)
THEIRS = to_mmdetection(STATE, ARCHITECTURE)
META = {
    'cfg': CONFIG,
    'dataset_meta': {'classes': ('cone', 'ball', 'box'), 'palette': [(1, 2, 3)] * 3},
    'seed': 1,
    'epoch': 12,
    'mmengine_version': '0.10.7',
}
NAMES = ('cone', 'ball', 'box')
THIRD_NAMED = CONFIG.replace('{', '{{').replace('}', '}}').replace('test_mode=True', '{}')


def load(content: object, folder: Path, *, legacy: bool = False, **settings: Any) -> NativeModel:
    path = folder / 'epoch_12.pth'
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    model = load_model(Config(model=str(path), **settings), NOTES.append)
    assert isinstance(model, NativeModel)
    return model


NOTES: list[str] = []


def is_state(model: NativeModel, state: dict[str, Tensor] = STATE) -> bool:
    return model.state_dict.keys() == state.keys() and all(
        torch.equal(model.state_dict[name], tensor) for name, tensor in state.items()
    )


@pytest.fixture
def runner_file(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what a runner of 3.x leaves in a file, with a stand-in for MMEngine's class."""

    class HistoryBuffer:
        def __init__(self) -> None:
            self._log_history = np.array([1.0, 2.0])
            self._statistics_methods = {'mean': max}

    module = types.ModuleType('mmengine.logging.history_buffer')
    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, 'HistoryBuffer'
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    for name in ('mmengine', 'mmengine.logging', module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    return {
        'meta': META | {'time': '20261130', 'iter': np.int64(5), 'hook_msgs': {}},
        'state_dict': THEIRS,
        'message_hub': {
            'log_scalars': {'train/loss': HistoryBuffer()},
            'runtime_info': {'lr': np.float32(0.1), 'best': np.array(['a'])},
            'resumed_keys': {'lr': True},
        },
        'optimizer': {'state': {0: {'momentum_buffer': torch.zeros(3)}}},
        'param_schedulers': [{'last_lr': [np.float64(0.1)]}],
        'random_states': {
            'python': random.getstate(),
            'numpy': np.random.get_state(),
            'torch': torch.get_rng_state(),
        },
    }


@pytest.mark.parametrize('legacy', [False, True])
def test_a_runners_file_loads_by_itself(
    runner_file: dict[str, Any], tmp_path: Path, legacy: bool
) -> None:
    NOTES.clear()
    model = load(runner_file, tmp_path, legacy=legacy)
    assert model.architecture == ARCHITECTURE
    assert is_state(model)
    assert model.class_names == NAMES
    assert model.name == 'epoch_12'
    assert model.licence == ''
    assert not NOTES
    assert file_architecture(tmp_path / 'epoch_12.pth') == ARCHITECTURE


@pytest.mark.parametrize('legacy', [False, True])
def test_a_published_file_of_2_loads_by_itself(tmp_path: Path, legacy: bool) -> None:
    meta = {'mmdet_version': '2.25.0', 'config': f'/a/b.py\n{CONFIG_2}', 'CLASSES': list(NAMES)}
    averages = {f'ema_{name.replace(".", "_")}': each + 1 for name, each in THEIRS.items()}
    content = {'meta': meta, 'state_dict': THEIRS | averages}
    model = load(content, tmp_path, legacy=legacy)
    assert model.architecture == ARCHITECTURE
    assert is_state(model)
    assert model.class_names == NAMES


def test_averages_beside_the_weights_are_left_out(tmp_path: Path) -> None:
    NOTES.clear()
    averages = {f'module.{name}': tensor + 1 for name, tensor in THEIRS.items()}
    content = {'meta': META, 'ema_state_dict': averages, 'state_dict': THEIRS}
    assert is_state(load(content, tmp_path))
    assert any('holds ema_state_dict beside state_dict, which was taken' in n for n in NOTES)


@pytest.mark.parametrize('name', ['config.py', 'dump.py'])
def test_a_config_with_weights(tmp_path: Path, name: str) -> None:
    text = CONFIG
    if name == 'config.py':
        (tmp_path / 'base.py').write_text(CONFIG)
        text = "_base_ = 'base.py'\nmodel = dict(test_cfg=dict(rcnn=dict(score_thr=0.5)))\n"
    (tmp_path / name).write_text(text)
    torch.save({'meta': {}, 'state_dict': THEIRS}, tmp_path / 'weights.pth')
    config = Config(
        model=str(tmp_path / name), weights=str(tmp_path / 'weights.pth'), class_names=NAMES
    )
    model = load_model(config)
    assert isinstance(model, NativeModel)
    assert model.architecture.score_threshold == (0.5 if name == 'config.py' else 0.05)
    assert is_state(model)
    assert model.name == name.removesuffix('.py')
    assert file_architecture(tmp_path / name) == model.architecture
    with pytest.raises(CheckpointError, match='name the checkpoint with --weights'):
        load_model(dataclasses.replace(config, weights=''))


@pytest.mark.parametrize(
    'text',
    [
        f'\ufeff{MODEL.lstrip()}',
        f'# Ported from a LazyConfig, LazyCall(\n{CONFIG}',
        f'"""Once a LazyConfig of Detectron2."""\n{CONFIG}',
        MODEL.replace('model = dict', 'model: dict[str, object] = dict'),
    ],
)
def test_a_config_is_known_as_one(tmp_path: Path, text: str) -> None:
    text = text if 'test_dataloader' in text else text + CONFIG.partition(MODEL)[2]
    (tmp_path / 'config.py').write_text(text, encoding='utf-8')
    assert file_architecture(tmp_path / 'config.py') == ARCHITECTURE


@pytest.mark.parametrize(
    'text',
    [
        'from detectron2.config import LazyCall as L\nmodel = L(x)()\n',
        'import detectron2\nmodel = 1\n',
        'from .own import LazyConfig\nmodel = 1\n',
        'model = LazyCall(x)(y)\n',
        'cfg = LazyConfig.load("x")\nmodel = cfg.model\n',
    ],
)
def test_a_lazy_config_is_known_as_one(tmp_path: Path, text: str) -> None:
    (tmp_path / 'config.py').write_text(text)
    with pytest.raises(CheckpointError, match='found a LazyConfig of Detectron2'):
        load_model(Config(model=str(tmp_path / 'config.py')))


def one_class(config: str) -> tuple[str, dict[str, Tensor]]:
    text = config.replace('num_classes=3', 'num_classes=1')
    architecture = dataclasses.replace(ARCHITECTURE, num_classes=1)
    return text, to_mmdetection(random_state(architecture), architecture)


@pytest.mark.parametrize(
    'meta',
    [
        {'dataset_meta': {'classes': 'cone'}},
        {'dataset_meta': {'CLASSES': ('cone',)}},
        {'CLASSES': 'cone'},
        {'CLASSES': ['cone']},
    ],
)
def test_names_of_one_class(tmp_path: Path, meta: dict[str, Any]) -> None:
    text, state = one_class(CONFIG)
    model = load({'meta': meta | {'cfg': text}, 'state_dict': state}, tmp_path)
    assert model.class_names == ('cone',)


def test_names_are_the_users_the_files_or_none(tmp_path: Path) -> None:
    content: dict[str, Any] = {'meta': META, 'state_dict': THEIRS}
    assert load(content, tmp_path, class_names=('a', 'b', 'c')).class_names == ('a', 'b', 'c')
    for names in (None, 5, [1, 2, 3], (), {'a': 1}, [['a']]):
        content['meta'] = META | {'dataset_meta': {'classes': names}}
        assert load(content, tmp_path).class_names == ('class_0', 'class_1', 'class_2')
    content['meta'] = META | {'dataset_meta': {'classes': ('a', 'b')}}
    with pytest.raises(ConfigError, match='expected 3 names, one for each class, found 2'):
        load(content, tmp_path)


@pytest.mark.parametrize(
    ('config', 'names'),
    [
        (THIRD_NAMED.format('metainfo=dict(classes=("a", "b", "c"))'), ('a', 'b', 'c')),
        (THIRD_NAMED.format('metainfo=dict(CLASSES=["a", "b", "c"])'), ('a', 'b', 'c')),
        (THIRD_NAMED.format('metainfo=dict(classes=("a", "b"))'), None),
        (THIRD_NAMED.format('metainfo=dict(classes=f(5))'), None),
        (THIRD_NAMED.format('metainfo=5'), None),
        (
            CONFIG_2.replace('pipeline=test_', "classes=['a', 'b', 'c'], pipeline=test_"),
            ('a', 'b', 'c'),
        ),
    ],
)
def test_names_of_the_configs_data(
    tmp_path: Path, config: str, names: tuple[str, ...] | None
) -> None:
    unnamed = names or ('class_0', 'class_1', 'class_2')
    content: dict[str, Any] = {'meta': {'cfg': config}, 'state_dict': THEIRS}
    assert load(content, tmp_path).class_names == unnamed
    content['meta']['CLASSES'] = NAMES
    assert load(content, tmp_path).class_names == NAMES


@pytest.mark.parametrize('space', [' ', '_'])
def test_cocos_names_are_known_as_such(tmp_path: Path, space: str) -> None:
    text = CONFIG.replace('num_classes=3', 'num_classes=80')
    architecture = dataclasses.replace(ARCHITECTURE, num_classes=80)
    state = to_mmdetection(random_state(architecture), architecture)
    names = tuple(name.replace(' ', space) for name in COCO_CLASS_NAMES)
    meta = {'cfg': text, 'CLASSES': names}
    model = load({'meta': meta, 'state_dict': state}, tmp_path)
    assert (model.class_names, model.category_ids) == (COCO_CLASS_NAMES, COCO_CATEGORY_IDS)


class Runs:
    """Leaves a mark where it is built."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._reduced = function, arguments

    def __reduce__(self) -> Any:
        return self._reduced


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('place', ['meta', 'cfg', 'classes', 'beside', 'top'])
def test_a_hostile_object_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool, place: str
) -> None:
    canary = tmp_path / 'canary'
    command = f'touch {canary}'
    hostile: list[Any] = [
        Runs(os.system, command),
        Runs(list, Runs(map, Runs(getattr, Runs(__import__, 'os'), 'system'), [command])),
        Runs(eval, f'open({str(canary)!r}, "w")'),
    ]
    content: dict[str, Any] = {'meta': dict(META), 'state_dict': THEIRS}
    if place == 'meta':
        content['meta'] = hostile
    elif place == 'cfg':
        content['meta'] |= {'cfg': hostile[0], 'config': hostile[1]}
    elif place == 'classes':
        content['meta'] |= {'dataset_meta': {'classes': (hostile[0], 'a', hostile[2])}}
    elif place == 'beside':
        content['meta']['more'] = hostile
        content['message_hub'] = hostile
    else:
        content['state_dict'] = hostile[0]
    if place in ('classes', 'beside'):
        assert is_state(load(content, tmp_path, legacy=legacy))
    else:
        with pytest.raises(SegnodeError) as caught:
            load(content, tmp_path, legacy=legacy)
        assert len(str(caught.value).splitlines()) == 1
    assert not canary.exists()
    torch.load(tmp_path / 'epoch_12.pth', weights_only=False)
    assert canary.exists()  # What was written does run where it is allowed to.


def test_nesting_and_recursion_are_harmless(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    circle: dict[str, Any] = {'cfg': CONFIG}
    circle['dataset_meta'] = circle
    circle['classes'] = [circle]
    circle['more'] = deep
    model = load({'meta': circle, 'state_dict': THEIRS}, tmp_path)
    assert is_state(model)
    assert model.class_names == ('class_0', 'class_1', 'class_2')
    path = tmp_path / 'deep.pth'
    # Deeper than Python itself would write or read it.
    pickled = pickle.PROTO + b'\x02' + pickle.EMPTY_LIST * 100_000 + b'a' * 99_999 + b'.'
    path.write_bytes(pickled)
    with pytest.raises(CheckpointError) as caught:
        load_model(Config(model=str(path)))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ('meta', 'part'),
    [
        ({}, 'found weights; name their config as the model'),
        ({'cfg': ''}, 'found weights; name their config as the model'),
        ({'cfg': 'model = dict('}, "meta['cfg']: expected a Python config, found none"),
        ({'cfg': "_base_ = 'a.py'\n"}, 'expected a whole config, found one with _base_ files'),
        ({'cfg': 'x = 1'}, 'model: expected the model of a config of MMDetection, found none'),
        (
            {'config': CONFIG.replace("'MaskRCNN'", "'CascadeRCNN'")},
            "model.type: expected 'MaskRCNN', found 'CascadeRCNN'",
        ),
    ],
)
def test_a_file_without_a_usable_config(tmp_path: Path, meta: dict[str, Any], part: str) -> None:
    with pytest.raises(SegnodeError, match=re.escape(part)) as caught:
        load({'meta': meta, 'state_dict': THEIRS}, tmp_path)
    assert str(tmp_path / 'epoch_12.pth') in str(caught.value)


def test_weights_beside_a_file_that_has_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'weights: expected none beside .*epoch_12'):
        load({'meta': META, 'state_dict': THEIRS}, tmp_path, weights='other.pth')


def background_first(version: str = '2.0.0') -> dict[str, Any]:
    theirs = dict(THEIRS)
    for name, rows in (('bbox_head.fc_reg', 4), ('mask_head.conv_logits', 1)):
        for kind in ('weight', 'bias'):
            tensor = theirs[f'roi_head.{name}.{kind}']
            theirs[f'roi_head.{name}.{kind}'] = torch.cat((tensor[:rows], tensor))
    return {'meta': META | {'mmdet_version': version}, 'state_dict': theirs}


@pytest.mark.parametrize(
    'content',
    [
        background_first(),
        {'meta': META | {'mmdet_version': '1.2.0+abc'}, 'state_dict': THEIRS},
    ],
)
def test_the_background_first_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r'upgrade_model_version\.py'):
        load(content, tmp_path)


@pytest.mark.parametrize('classes', [1, 2, 4, 80])
def test_another_number_of_classes_is_called_that(tmp_path: Path, classes: int) -> None:
    text = CONFIG.replace('num_classes=3', f'num_classes={classes}')
    with pytest.raises(CheckpointError, match=rf'expected {classes} classes and the background'):
        load({'meta': META | {'cfg': text}, 'state_dict': THEIRS}, tmp_path)


def test_what_the_named_config_changes_is_told(tmp_path: Path) -> None:
    (tmp_path / 'own.py').write_text(CONFIG)
    (tmp_path / 'bgr.py').write_text(
        CONFIG.replace('bgr_to_rgb=True', 'bgr_to_rgb=False').replace('0.05', '0.5')
    )
    torch.save({'meta': META, 'state_dict': THEIRS}, tmp_path / 'x.pth')
    told = {}
    for name in ('own', 'bgr'):
        notes: list[str] = []
        config = Config(model=str(tmp_path / f'{name}.py'), weights=str(tmp_path / 'x.pth'))
        load_model(config, notes.append)
        told[name] = notes
    assert told['own'] == []
    assert len(told['bgr']) == 1
    assert 'its own config has another score_threshold, color' in told['bgr'][0]


@pytest.mark.parametrize('version', ['2.0.0', '2.4.0', '2.28.2', '3.3.0', None, 5])
def test_other_versions_are_taken(tmp_path: Path, version: object) -> None:
    content = {'meta': META | {'mmdet_version': version}, 'state_dict': THEIRS}
    assert is_state(load(content, tmp_path))


def test_each_librarys_weights_with_the_others_config(tmp_path: Path) -> None:
    (tmp_path / 'd2.yaml').write_text(DETECTRON2_CONFIG)
    (tmp_path / 'mm.py').write_text(CONFIG)
    torch.save({'model': random_state()}, tmp_path / 'd2.pth')
    torch.save({'meta': META, 'state_dict': THEIRS}, tmp_path / 'mm.pth')
    with pytest.raises(CheckpointError, match=r'found an MMDetection checkpoint \(--model takes'):
        load_model(Config(model=str(tmp_path / 'd2.yaml'), weights=str(tmp_path / 'mm.pth')))
    with pytest.raises(CheckpointError, match=r'found a Detectron2 checkpoint \(--model takes'):
        load_model(Config(model=str(tmp_path / 'mm.py'), weights=str(tmp_path / 'd2.pth')))
    old = {name.removeprefix('roi_head.'): tensor for name, tensor in THEIRS.items()}
    torch.save({'state_dict': old}, tmp_path / 'old.pth')
    with pytest.raises(CheckpointError, match=r'found a checkpoint of MMDetection 1\.x'):
        load_model(Config(model=str(tmp_path / 'mm.py'), weights=str(tmp_path / 'old.pth')))


@pytest.mark.parametrize('damage', ['missing', 'surplus', 'classes', 'nan'])
def test_damaged_weights_are_named_as_in_the_file(tmp_path: Path, damage: str) -> None:
    theirs = copy.copy(THEIRS)
    name = 'roi_head.mask_head.convs.1.conv.weight'
    if damage == 'missing':
        del theirs[name]
    elif damage == 'surplus':
        theirs['backbone.layer1.9.conv1.weight'] = torch.zeros(1)
        name = 'backbone.layer1.9.conv1.weight'
    elif damage == 'classes':
        name = 'roi_head.bbox_head.fc_cls.weight'
        theirs[name] = torch.zeros(8, 24)
    else:
        theirs[name] = theirs[name] * torch.nan
    with pytest.raises(CheckpointError, match=re.escape(name)) as caught:
        load({'meta': META, 'state_dict': theirs}, tmp_path)
    assert ('is the number of classes right' in str(caught.value)) == (damage == 'classes')


def test_a_preset_with_ones_own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = 'mask-rcnn_r50_fpn_1x_coco'
    preset = dataclasses.replace(PRESETS[name], architecture=ARCHITECTURE)
    monkeypatch.setitem(PRESETS, name, preset)
    path = tmp_path / 'weights.pth'
    config = Config(model=name, weights=str(path))
    torch.save({'meta': META, 'state_dict': THEIRS}, path)
    model = load_model(config)
    assert isinstance(model, NativeModel)
    assert is_state(model)
    assert (model.class_names, model.licence) == (NAMES, '')
    other = META | {'cfg': CONFIG.replace('score_thr=0.05', 'score_thr=0.3')}
    torch.save({'meta': other, 'state_dict': THEIRS}, path)
    with pytest.raises(CheckpointError, match='a config in it of another score_threshold; name'):
        load_model(config)
    # What is known to be the publisher's is taken as that.
    published = Checksum('sha256', model_digest(path))
    monkeypatch.setitem(PRESETS, name, dataclasses.replace(preset, checksum=published))
    model = load_model(config)
    assert model.licence.startswith('not stated by the publisher')


def model_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


FAMILIES: dict[str, BackboneSpec] = {
    'resnet': ResNetSpec(depth=50, width_per_group=8, stem_out_channels=8, res2_out_channels=32),
    'basic': ResNetSpec(depth=34, stem_out_channels=8, res2_out_channels=8),
    'gn': ResNetSpec(
        depth=18, stem_out_channels=32, res2_out_channels=32, width_per_group=32, norm='GN'
    ),
    'resnext': ResNetSpec(
        depth=50,
        num_groups=4,
        width_per_group=2,
        stem_out_channels=8,
        res2_out_channels=32,
        stride_in_1x1=False,
    ),
    'resnest': ResNeStSpec(stem_channels=4, width=8),
    'swin': SwinSpec(channels=12, heads=(1, 2, 3, 4)),
    'convnext': ConvNeXtSpec(depths=(1, 2, 1, 1), channels=(8, 16, 24, 32)),
}


@pytest.mark.parametrize('family', FAMILIES)
def test_names_there_and_back(family: str) -> None:
    architecture = dataclasses.replace(
        ARCHITECTURE,
        backbone=FAMILIES[family],
        rpn_conv_dims=(-1, 8) if family == 'basic' else (-1,),
        box_conv_dims=(32, 32),
        **dict.fromkeys(('fpn_norm', 'box_norm'), 'GN' if family == 'gn' else ''),
        fpn_channels=32,
    )
    state = random_state(architecture, seed=3)
    theirs = to_mmdetection(state, architecture)
    assert len(theirs) == len(state)
    surplus = {
        'backbone.stages.0.blocks.0.attn.w_msa.relative_position_index': torch.zeros(2, 2),
        'backbone.bn1.num_batches_tracked': torch.tensor(5),
        'data_preprocessor.mean': torch.zeros(3),
    }
    found = fit_weights(theirs | surplus, architecture, Path('x'))
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize('part', ['neck', 'rpn', 'box', 'mask'])
def test_batch_norms_of_heads_are_folded(part: str) -> None:
    architecture = Architecture(
        semantics=MMDETECTION,
        backbone=FAMILIES['basic'],
        fpn_channels=8,
        box_pooler=Pooler(resolution=7, levels='mmdetection'),
        mask_pooler=Pooler(resolution=14, levels='mmdetection'),
        rpn_conv_dims=(-1, -1),
        box_conv_dims=(8,),
        box_fc_dims=(8,),
        mask_conv_dims=(8,),
        num_classes=1,
    )
    state = random_state(architecture, seed=4)
    theirs = to_mmdetection(state, architecture)
    layer, ours = {
        'neck': ('neck.fpn_convs.2', 'backbone.fpn_output4'),
        'rpn': ('rpn_head.rpn_conv.1', 'proposal_generator.rpn_head.conv.conv1'),
        'box': ('roi_head.bbox_head.shared_convs.0', 'roi_heads.box_head.conv1'),
        'mask': ('roi_head.mask_head.convs.0', 'roi_heads.mask_head.mask_fcn1'),
    }[part]
    del theirs[f'{layer}.conv.bias']
    norm = torch.nn.BatchNorm2d(8)
    generator = torch.Generator().manual_seed(5)
    for name, tensor in norm.state_dict().items():
        if name != 'num_batches_tracked':
            tensor.copy_(torch.rand(8, generator=generator) + 0.2)
        theirs[f'{layer}.bn.{name}'] = tensor
    found = fit_weights(theirs, architecture, Path('x'))
    weight = theirs[f'{layer}.conv.weight']
    # In float64, as processors round the sums of float32 differently; folding rounds to float32.
    x = torch.rand(1, weight.shape[1], 5, 5, generator=generator, dtype=torch.float64)
    expected = norm.double().eval()(torch.nn.functional.conv2d(x, weight.double()))
    weight, bias = found[f'{ours}.weight'].double(), found[f'{ours}.bias'].double()
    folded = torch.nn.functional.conv2d(x, weight, bias)
    torch.testing.assert_close(folded, expected, atol=1e-5, rtol=1.3e-6)
    untouched = [name for name in state if not name.startswith(f'{ours}.')]
    assert all(torch.equal(found[name], state[name]) for name in untouched)


@pytest.mark.parametrize(
    ('file', 'backbone'),
    [
        ('mm2_mask_rcnn_r50_fpn_1x_coco', ResNetSpec()),
        (
            'mm3_mask-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco',
            ResNetSpec(depth=18, res2_out_channels=64),
        ),
        ('mm3_mask-rcnn_r50-caffe_fpn_1x_coco', ResNetSpec()),
        (
            'mm3_mask-rcnn_x101-32x4d_fpn_1x_coco',
            ResNetSpec(depth=101, num_groups=32, width_per_group=4),
        ),
        ('mm3_mask-rcnn_s50_fpn_syncbn-backbone+head_ms-1x_coco', ResNeStSpec()),
        ('mm3_mask-rcnn_swin-t-p4-w7_fpn_1x_coco', SwinSpec()),
        ('mm3_mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco', ConvNeXtSpec()),
    ],
)
def test_names_and_shapes_of_mmdetections_own_models(
    shared: Path, file: str, backbone: BackboneSpec
) -> None:
    architecture = Architecture(semantics=MMDETECTION, backbone=backbone)
    if isinstance(backbone, ResNeStSpec):
        architecture = dataclasses.replace(
            architecture, box_conv_dims=(256,) * 4, box_fc_dims=(1024,)
        )
    lines = (shared / f'data/state_dict_names/{file}.txt').read_text().splitlines()
    theirs = dict(line.split('\t') for line in lines)
    empty = {
        name: torch.empty(shape, device='meta')
        for name, shape in expected_state_dict(architecture).items()
    }
    ours = {
        name: 'x'.join(map(str, tensor.shape))
        for name, tensor in to_mmdetection(empty, architecture).items()
    }
    beside = ('num_batches_tracked', 'relative_position_index')
    norms = re.compile(r'roi_head\..*\.(bn\.|conv\.bias)')  # which loading folds
    assert {name: shape for name, shape in ours.items() if not norms.match(name)} == {
        name: shape
        for name, shape in theirs.items()
        if not name.endswith(beside) and not norms.match(name)
    }
