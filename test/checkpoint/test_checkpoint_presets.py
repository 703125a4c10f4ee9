# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Fetching weights, from a server on this machine that behaves well or badly."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from narrow_checkpoint import ARCHITECTURE, CONFIG, random_state
from weights_server import CONTENT, WeightsServer, running_server

from segnode.checkpoint import PRESETS, NativeModel, load_model, preset_architecture
from segnode.checkpoint.download import Checksum, cache_folder, cached_path, fetch
from segnode.checkpoint.presets import published_checksum, published_url
from segnode.config import Config
from segnode.errors import CheckpointError, ConfigError
from segnode.model.backbone_specs import ResNetSpec

MD5 = Checksum('md5', hashlib.md5(CONTENT).hexdigest()[:6])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightsServer]:
    monkeypatch.setenv('SEGNODE_CACHE', str(tmp_path / 'cache'))
    with running_server(monkeypatch) as server:
        yield server


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob('*') if path.is_file())


@pytest.mark.parametrize('checksum', [None, MD5])
@pytest.mark.parametrize('path', ['good/model.pkl', 'moved/model.pkl'])
def test_fetched_once(server: WeightsServer, checksum: Checksum | None, path: str) -> None:
    url = f'{server.url}/{path}'
    first = fetch(url, checksum)
    assert first.read_bytes() == CONTENT
    assert first == cached_path(url)
    assert fetch(url, checksum) == first
    # Only the headers are asked for again, in a thread.
    assert set(server.methods()[1 + path.startswith('moved') :]) <= {'HEAD'}
    assert files(cache_folder()) == ['model.pkl', 'model.pkl.json']


@pytest.mark.parametrize(
    ('path', 'checksum', 'part'),
    [
        ('missing/model.pkl', MD5, 'Not Found'),
        ('truncated/model.pkl', None, '524289 of 1048578 bytes came'),
        ('truncated/model.pkl', MD5, '524289 of 1048578 bytes came'),
        ('good/model.pkl', Checksum('md5', 'abcdef'), 'expected md5 abcdef... as published'),
        ('good/model.pkl', Checksum('sha256', '12345678'), 'expected sha256 12345678...'),
    ],
)
def test_bad_answer_leaves_nothing(
    server: WeightsServer, path: str, checksum: Checksum | None, part: str
) -> None:
    url = f'{server.url}/{path}'
    server.sent = len(CONTENT) // 2 if 'truncated' in path else None
    with pytest.raises(CheckpointError) as caught:
        fetch(url, checksum)
    message = str(caught.value)
    assert part in message
    assert message.isprintable()
    assert message.startswith(url)
    assert f'save it as {cached_path(url)}' in message
    assert files(cache_folder()) == []


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('SEGNODE_CACHE', str(tmp_path))
    monkeypatch.setenv('no_proxy', '*')
    with WeightsServer() as closed:
        url = f'{closed.url}/model.pkl'
    with pytest.raises(CheckpointError, match='fetch it by hand and save it as') as caught:
        fetch(url, MD5)
    assert 'refused' in str(caught.value)
    # A file put there by hand is taken, and checked.
    cached_path(url).parent.mkdir(parents=True, exist_ok=True)
    cached_path(url).write_bytes(CONTENT)
    assert fetch(url, MD5).read_bytes() == CONTENT
    cached_path(url).write_bytes(CONTENT[:-1])
    with pytest.raises(CheckpointError, match='remove the file to have it fetched again'):
        fetch(url, MD5)


@pytest.mark.parametrize('name', ['a file', 'no permission'])
def test_cache_that_cannot_be_written(
    server: WeightsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / 'a file').write_text('')
    monkeypatch.setenv(
        'SEGNODE_CACHE', str(tmp_path / 'a file' if name == 'a file' else '/proc/segnode')
    )
    with pytest.raises(CheckpointError, match='expected a cache folder to write to') as caught:
        fetch(f'{server.url}/model.pkl', None)
    assert str(cache_folder()) in str(caught.value)


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', '/home/robot')
    monkeypatch.delenv('SEGNODE_CACHE', raising=False)
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    assert cache_folder() == Path('/home/robot/.cache/segnode')
    monkeypatch.setenv('XDG_CACHE_HOME', '/xdg')
    assert cache_folder() == Path('/xdg/segnode')
    monkeypatch.setenv('SEGNODE_CACHE', '~/mine')
    assert cache_folder() == Path('/home/robot/mine')
    assert cached_path('http://a/m.pth') != cached_path('http://b/m.pth')


def test_preset_is_fetched_and_loaded(
    server: WeightsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(random_state(), tmp_path / 'model.pth')
    server.content = (tmp_path / 'model.pth').read_bytes()
    name = 'mask_rcnn_R_50_FPN_3x'
    preset = dataclasses.replace(
        PRESETS[name],
        architecture=ARCHITECTURE,
        url=f'{server.url}/model_final.pkl',
        checksum=Checksum('md5', hashlib.md5(server.content).hexdigest()[:6]),
    )
    monkeypatch.setitem(PRESETS, name, preset)
    model = load_model(Config(model=name))
    assert isinstance(model, NativeModel)
    assert model.name == name
    assert model.licence == 'CC BY-SA 3.0 (Detectron2 model zoo)'
    assert model.weights_path == cached_path(preset.url)
    assert model.weights_sha256 == hashlib.sha256(server.content).hexdigest()
    # A copy by hand is the published file, too; other weights are not.
    copied = load_model(Config(model=name, weights=str(tmp_path / 'model.pth')))
    assert isinstance(copied, NativeModel)
    assert copied.licence == preset.licence


def test_weights_may_be_a_url(server: WeightsServer, tmp_path: Path) -> None:
    torch.save(random_state(), tmp_path / 'model.pth')
    server.content = (tmp_path / 'model.pth').read_bytes()
    (tmp_path / 'config.yaml').write_text(CONFIG)
    url = f'{server.url}/own.pth'
    model = load_model(Config(model=str(tmp_path / 'config.yaml'), weights=url))
    assert model.weights_path == cached_path(url)
    with pytest.raises(ConfigError, match='expected a file or an http'):
        load_model(Config(model=str(tmp_path / 'config.yaml'), weights='ftp://a/b.pth'))


@pytest.mark.parametrize('path', ['o/r/blob/main/own.pth', 'login/own.pth'])
def test_a_page_in_place_of_weights_is_not_kept(
    server: WeightsServer, tmp_path: Path, path: str
) -> None:
    (tmp_path / 'config.yaml').write_text(CONFIG)
    server.content = b'<!DOCTYPE html><html><body>Sign in</body></html>'
    server.headers = {'Content-Type': 'text/html'}
    url = f'{server.url}/{path}'
    with pytest.raises(CheckpointError) as caught:
        load_model(Config(model=str(tmp_path / 'config.yaml'), weights=url))
    assert 'a web page came' in str(caught.value)
    assert not cached_path(url).exists()


def test_published_names() -> None:
    zoo = 'https://dl.fbaipublicfiles.com/detectron2/COCO-InstanceSegmentation/'
    expected = {
        'mask_rcnn_R_50_FPN_3x': (50, 1, True, f'{zoo}mask_rcnn_R_50_FPN_3x/137849600/', 'f10217'),
        'mask_rcnn_R_101_FPN_3x': (
            101,
            1,
            True,
            f'{zoo}mask_rcnn_R_101_FPN_3x/138205316/',
            'a3ec72',
        ),
        'mask_rcnn_X_101_32x8d_FPN_3x': (
            101,
            32,
            False,
            f'{zoo}mask_rcnn_X_101_32x8d_FPN_3x/139653917/',
            '2d9806',
        ),
    }
    for name, (depth, groups, stride_in_1x1, folder, prefix) in expected.items():
        architecture, preset = preset_architecture(name), PRESETS[name]
        backbone = architecture.backbone
        assert isinstance(backbone, ResNetSpec)
        assert (backbone.depth, backbone.num_groups) == (depth, groups)
        assert backbone.stride_in_1x1 == stride_in_1x1
        assert preset.url == f'{folder}model_final_{prefix}.pkl'
        assert preset.checksum == Checksum('md5', prefix)
        alias = preset.url.replace('https://dl.fbaipublicfiles.com/detectron2/', 'detectron2://')
        assert published_url(alias) == preset.url
        assert published_checksum(preset.url) == preset.checksum
    zoo = 'https://download.openmmlab.com/mmdetection/v2.0/'
    for name, place, prefix, box_ap, mask_ap in (
        (
            'mask-rcnn_r50_fpn_1x_coco',
            'mask_rcnn/mask_rcnn_r50_fpn_1x_coco/mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6.pth',
            *('d4b0c5d6', 38.2, 34.7),
        ),
        (
            'mask-rcnn_s50_fpn_syncbn-backbone+head_ms-1x_coco',
            'resnest/mask_rcnn_s50_fpn_syncbn-backbone%2Bhead_mstrain_1x_coco/mask_rcnn_s50_fpn_'
            'syncbn-backbone%2Bhead_mstrain_1x_coco_20200926_125503-8a2c3d47.pth',
            *('8a2c3d47', 42.6, 38.1),
        ),
        (
            'mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco',
            'convnext/mask_rcnn_convnext-t_p4_w7_fpn_fp16_ms-crop_3x_coco/mask_rcnn_convnext-t_'
            'p4_w7_fpn_fp16_ms-crop_3x_coco_20220426_154953-050731f4.pth',
            *('050731f4', 46.2, 41.7),
        ),
    ):
        preset = PRESETS[name]
        assert preset.url == zoo + place
        assert preset.checksum == Checksum('sha256', prefix)
        assert (preset.box_ap, preset.mask_ap) == (box_ap, mask_ap)
    assert all(preset.family and preset.box_ap and preset.mask_ap for preset in PRESETS.values())
    torchvision = PRESETS['maskrcnn_resnet50_fpn']
    assert torchvision.url.endswith(f'-{torchvision.checksum.prefix}.pth')
    assert torchvision.checksum.algorithm == 'sha256'
    assert published_checksum('http://a/b') is None


@pytest.mark.parametrize(
    ('model', 'part'),
    [
        ('mask_rcnn_R50_FPN_3x', 'did you mean mask_rcnn_R_50_FPN_3x?'),
        ('mask-rcnn_swin-t-p4-w7_fpn_1x', 'did you mean mask-rcnn_swin-t-p4-w7_fpn_1x_coco?'),
        (
            'SWIN-T',
            'did you mean mask-rcnn_swin-t-p4-w7_fpn_1x_coco or mask-rcnn_swin-t-p4-w7_fpn',
        ),
        ('nothing like it', 'expected a file or a preset (`python -m segnode models` lists them)'),
    ],
)
def test_unknown_model(model: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_model(Config(model=model))
    assert part in str(caught.value)
    with pytest.raises(ConfigError):
        preset_architecture(model)


def test_model_must_be_a_config(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='expected a folder of `segnode export`, found no'):
        load_model(Config(model=str(tmp_path)))
    torch.save(random_state(), tmp_path / 'model.pth')
    with pytest.raises(CheckpointError, match='found weights; name their config as the model'):
        load_model(Config(model=str(tmp_path / 'model.pth')))
    with pytest.raises(ConfigError, match='backend: expected auto or native'):
        load_model(Config(model='mask_rcnn_R_50_FPN_3x', backend='torchscript'))


def test_a_missing_embedded_model_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr('segnode.checkpoint.load.DEMO_MODEL', tmp_path / 'gone.yaml')
    with pytest.raises(CheckpointError, match=r'gone\.yaml: expected a model config'):
        load_model(Config())
