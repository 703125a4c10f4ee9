# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode models``: its figures against published ones, and what it measures."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import re
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from narrow_checkpoint import ARCHITECTURE

from segnode.__main__ import main
from segnode.checkpoint.download import cached_path
from segnode.checkpoint.presets import PRESETS
from segnode.model.architecture import Architecture
from segnode.models.timing import Timing

README = (Path(__file__).resolve().parents[1] / 'README.md').read_text(encoding='utf-8')
# Counted by other programs for mmdet's, Detectron2's and torchvision's own modules: millions of
# parameters, then GFLOP at 800x1344 and 480x640 in all and, where known, of backbone and neck.
R50 = (44.4, 538, 250, 297, 85)
R101 = (63.4, 697, 295, 456, 130)
X101_32X4D = (63.0, 704, 297, 463, 132)
X101_64X4D = (102.3, 1025, 389, 784, 224)
SWIN_T = (47.8, 551, 256)
PUBLISHED = {
    'mask-rcnn_r50_fpn_1x_coco': (*R50, 38.2, 34.7),
    'mask-rcnn_r50_fpn_ms-poly-3x_coco': (*R50, 40.9, 37.1),
    'mask-rcnn_r101_fpn_1x_coco': (*R101, 40.0, 36.1),
    'mask-rcnn_r101_fpn_ms-poly-3x_coco': (*R101, 42.7, 38.5),
    'mask-rcnn_x101-32x4d_fpn_1x_coco': (*X101_32X4D, 41.9, 37.5),
    'mask-rcnn_x101-32x4d_fpn_ms-poly-3x_coco': (*X101_32X4D, 43.6, 39.0),
    'mask-rcnn_x101-64x4d_fpn_1x_coco': (*X101_64X4D, 42.8, 38.4),
    'mask-rcnn_x101-64x4d_fpn_ms-poly_3x_coco': (*X101_64X4D, 44.5, 39.7),
    'mask-rcnn_s50_fpn_syncbn-backbone+head_ms-1x_coco': (47.6, 822, 495, 42.6, 38.1),
    'mask-rcnn_s101_fpn_syncbn-backbone+head_ms-1x_coco': (68.4, 1029, 554, 45.2, 40.2),
    'mask-rcnn_swin-t-p4-w7_fpn_1x_coco': (*SWIN_T, 42.7, 39.3),
    'mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco': (*SWIN_T, 46.0, 41.6),
    'mask-rcnn_swin-s-p4-w7_fpn_amp-ms-crop-3x_coco': (69.1, 740, 312, 48.2, 43.2),
    'mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco': (48.1, 543, 251, 302, 86, 46.2, 41.7),
    'mask_rcnn_R_50_FPN_3x': (44.3, 528, 247, 41.0, 37.2),
    'mask_rcnn_X_101_32x8d_FPN_3x': (107.4, 1066, 401, 44.3, 39.5),
    'maskrcnn_resnet50_fpn': (44.4, 538, 250, 37.9, 34.6),
    'maskrcnn_resnet50_fpn_v2': (46.4, 873, 510, 47.4, 41.8),
}


def listed(tmp_path: Path, *args: str) -> list[dict[str, Any]]:
    target = tmp_path / 'models.json'
    assert main(['models', *args, '--json', str(target)]) == 0
    models: list[dict[str, Any]] = json.loads(target.read_text())['models']
    return models


def test_every_preset_costs_what_is_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = {model['name']: model for model in listed(tmp_path)}
    assert set(models) == set(PRESETS)
    assert set(PUBLISHED) <= set(models)
    for name, (params, large, small, *rest) in PUBLISHED.items():
        model, *trunk = models[name], *rest[:-2]
        gflop = [model['gflop'][size] for size in ('800x1344', '480x640')]
        counted = [model['parameters'] / 1e6, *(each['total'] for each in gflop)]
        assert counted == pytest.approx([params, large, small], rel=0.02), name
        if trunk:
            found = [each['backbone_and_neck'] for each in gflop]
            assert found == pytest.approx(trunk, rel=0.02), name
        assert [model['box_ap'], model['mask_ap']] == rest[-2:], name
    for name, model in models.items():
        assert model['licence'] == PRESETS[name].licence
        assert model['family'] == PRESETS[name].family
        memory = model['memory_fp16']
        assert memory['size'] == '800x1344'
        assert memory['total_mib'] == pytest.approx(
            memory['weights_mib'] + memory['activations_mib'], abs=0.2
        )
        # Two bytes a parameter; a map of res2, and what it is made of, at least.
        assert memory['weights_mib'] == pytest.approx(2 * model['parameters'] / 2**20, rel=0.03)
        assert 2 * 256 * 200 * 336 / 2**20 < memory['activations_mib'] < 1000
        assert memory['under_6_gb'] is True
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.endswith('on paper, all below 6 GB') for line in lines)
    families = [line.rstrip(':') for line in lines if line.endswith(':') and ' ' not in line]
    assert families.index('ResNet-50') < families.index('ResNet-101')
    rows = [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in PRESETS]
    assert sorted(rows) == sorted(PRESETS)
    # Of the README's command, whose licences have the same letters.
    printed = {tuple(line.split()) for line in lines}
    (block,) = re.findall(r'^```text\n(model +box .*?)^```$', README, re.MULTILINE | re.DOTALL)
    assert [line for line in block.splitlines() if tuple(line.split()) not in printed] == []
    assert {licence for _, licence in (line.split(None, 1) for line in lines[-3:])} == {
        preset.licence for preset in PRESETS.values()
    }


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have three presets of two small networks in place of the published ones."""
    small = dataclasses.replace(ARCHITECTURE, rpn_pre_nms_topk=100, rpn_post_nms_topk=40)
    presets = {
        'zoo_1x': dataclasses.replace(
            PRESETS['mask_rcnn_R_50_FPN_3x'], architecture=small, family='ResNet-50'
        ),
        'zoo_3x': dataclasses.replace(
            PRESETS['mask_rcnn_R_50_FPN_3x'], architecture=small, box_ap=None, family='ResNet-50'
        ),
        'Other': dataclasses.replace(
            PRESETS['maskrcnn_resnet50_fpn'],
            architecture=dataclasses.replace(small, num_classes=7),
            family='Aaa-9',
        ),
    }
    monkeypatch.setattr('segnode.models.rows.PRESETS', presets)


@pytest.mark.usefixtures('narrow')
@pytest.mark.parametrize(
    ('patterns', 'names'),
    [
        ((), ['Other', 'zoo_1x', 'zoo_3x']),
        (('zoo',), ['zoo_1x', 'zoo_3x']),
        (('*_1X', 'other'), ['Other', 'zoo_1x']),
        (('resnet-5?',), ['zoo_1x', 'zoo_3x']),
        (('AAA',), ['Other']),
    ],
)
def test_names_choose(patterns: tuple[str, ...], names: list[str], tmp_path: Path) -> None:
    models = listed(tmp_path, *patterns, '--size', '64x96')
    assert [model['name'] for model in models] == names
    assert {tuple(model['gflop']) for model in models} == {('64x96',)}


@pytest.mark.usefixtures('narrow')
def test_what_is_not_known_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv('SEGNODE_CACHE', str(tmp_path / 'cache'))
    (model,) = listed(tmp_path, '3x')
    assert (model['box_ap'], model['file_bytes']) == (None, None)
    row = next(line for line in capsys.readouterr().out.splitlines() if 'zoo_3x' in line)
    assert len(row.split()) == 7, row
    file = cached_path(model['url'])
    file.parent.mkdir(parents=True)
    file.write_bytes(b'12345')
    assert listed(tmp_path, '3x')[0]['file_bytes'] == 5


@pytest.mark.parametrize(
    ('args', 'part'),
    [
        (['no-such-family'], "found 'no-such-family'"),
        ([''], "found ''"),
        (['--size', '480'], "found '480'"),
        (['--size', '480x16'], "found '480x16'"),
        (['--size', '64x64,64x64'], 'three different sizes'),
        (['--frames', '3'], '--frames: expected it with --time'),
        (['--precision', 'fp32'], '--precision: expected it with --time'),
        (['--time', '--frames', '0'], 'expected 1 to 10000, found 0'),
        (['--time', '--device', 'tpu', 'zoo_1x'], 'device: expected auto, cpu'),
        (['--time', '--size', '4128x4128'], '--size 4128x4128: resolution.short_side: expected'),
    ],
)
@pytest.mark.usefixtures('narrow')
def test_wrong_use_is_one_line(
    args: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['models', *args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line


@pytest.mark.usefixtures('narrow')
def test_time_measures_each_network_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = listed(
        tmp_path,
        *('zoo', '--time', '--size', '96x128', '--frames', '3'),
        *('--device', 'cpu', '--precision', 'fp32'),
    )
    first, second = (model['time'] for model in models)
    assert first == second
    assert first['error'] == ''
    assert 0 < first['ms_p50'] <= first['ms_p95']
    assert (first['frames'], first['device'], first['precision']) == (3, 'cpu', 'fp32')
    assert first['threads'] >= 1
    # Above the network's own numbers, and below what the process has for PyTorch alone.
    assert 0 < first['peak_mib'] < 1000
    target = json.loads((tmp_path / 'models.json').read_text())
    assert torch.__version__.startswith(target['machine']['torch'])
    out = capsys.readouterr().out
    assert 'Measured on cpu (' in out
    assert ', 96x128, 3 frames, planted weights:' in out


def die(*_: object) -> None:
    os._exit(9)


@pytest.mark.usefixtures('narrow')
def test_a_network_that_takes_its_process_down_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr('segnode.models.timing._measure', die)
    target = tmp_path / 'models.json'
    args = ['models', '1x', '--size', '64x64', '--time', '--device', 'cpu']
    assert main([*args, '--json', str(target)]) == 1
    captured = capsys.readouterr()
    assert 'error: zoo_1x: its process was killed' in captured.err
    assert 'Traceback' not in captured.err
    (model,) = json.loads(target.read_text())['models']
    assert model['time']['ms_p50'] is None
    assert 'killed' in model['time']['error']


def fail(*_: object) -> None:
    raise RuntimeError('no kernel image is available\nCompile with ...')


@pytest.mark.usefixtures('narrow')
@pytest.mark.parametrize(
    'place', ['segnode.benchmark.planted.plant_architecture', 'segnode.models.timing._measure']
)
def test_a_network_that_fails_does_not_stop_the_others(
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(place, fail)
    target = tmp_path / 'models.json'
    args = ['models', '--size', '64x64', '--time', '--device', 'cpu', '--json', str(target)]
    assert main(args) == 1
    said = capsys.readouterr().err
    for name in ('Other', 'zoo_1x'):
        assert f'error: {name}: RuntimeError: no kernel image is available\n' in said
    assert 'Traceback' not in said
    models = json.loads(target.read_text())['models']
    assert ['no kernel image' in model['time']['error'] for model in models] == [True] * 3


@pytest.mark.usefixtures('narrow')
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_what_is_timed_before_an_interrupt_is_kept(
    number: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    monkeypatch.setattr('segnode.benchmark.planted.plant_architecture', lambda _: {})
    monkeypatch.setattr('segnode.models.timing._measure', measure_or_hang)
    target = tmp_path / 'models.json'

    def interrupt() -> None:
        # The second network's process has written its weights' folder down.
        while not list(tmp_path.glob('segnode-models-*/hangs')):
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    args = ['models', '--size', '64x64', '--time', '--device', 'cpu', '--json', str(target)]
    assert main(args) == 130
    assert 'interrupted: 1 of 2 networks are timed' in capsys.readouterr().err
    other, *zoo = json.loads(target.read_text())['models']
    assert other['time']['ms_p50'] == 7.0
    assert [model['time'] for model in zoo] == [None, None]
    assert list(tmp_path.iterdir()) == [target]
    assert not multiprocessing.active_children()


def measure_or_hang(architecture: Architecture, weights: Path, *_: object) -> Timing:
    if architecture.num_classes == 7:
        return Timing(ms_p50=7.0)
    (weights.parent / 'hangs').touch()
    time.sleep(600)
    return Timing()


@pytest.mark.usefixtures('narrow')
def test_a_device_that_is_not_there_is_no_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['models', '--time', '--device', 'cuda:99']) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert 'device cuda:99: expected a GPU' in line
    assert main(['models', '--help']) == 0
    assert '--device is not there' in capsys.readouterr().out
