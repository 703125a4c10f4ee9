# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode fetch``: what it says and leaves in the cache, and a robot that lives on it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from narrow_checkpoint import ARCHITECTURE, CONFIG, random_state
from weights_server import CONTENT, WeightsServer, running_server

from segnode.__main__ import main
from segnode.checkpoint import PRESETS, load_model
from segnode.checkpoint.download import Checksum, cache_folder, cached_path, fetch
from segnode.config import Config
from segnode.doctor import command as doctor
from segnode.engine import Engine

NAME = 'mask_rcnn_R_50_FPN_3x'
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightsServer]:
    monkeypatch.setenv('SEGNODE_CACHE', str(tmp_path / 'laptop'))
    with running_server(monkeypatch) as server:
        server.headers = {'ETag': '"1"'}
        yield server


def publish(server: WeightsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server be the publisher of a preset."""
    preset = dataclasses.replace(
        PRESETS[NAME],
        architecture=ARCHITECTURE,
        url=f'{server.url}/model_final.pkl',
        checksum=Checksum('md5', hashlib.md5(server.content).hexdigest()[:6]),
    )
    monkeypatch.setitem(PRESETS, NAME, preset)


def run(*args: str, code: int, tmp_path: Path) -> list[dict[str, Any]]:
    target = tmp_path / 'fetch.json'
    assert main(['fetch', *args, '--json', str(target)]) == code
    rows = json.loads(target.read_text())
    assert isinstance(rows, list)
    return rows


def test_what_is_said_of_a_preset(
    server: WeightsServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(server, monkeypatch)
    path = cached_path(PRESETS[NAME].url)
    (row,) = run(NAME, code=0, tmp_path=tmp_path)
    assert row.pop('fetched_at').endswith('+00:00')
    assert row == {
        'name': NAME,
        'url': PRESETS[NAME].url,
        'path': str(path),
        'status': 'fetched',
        'size': len(CONTENT),
        'sha256': SHA256,
        'licence': 'CC BY-SA 3.0 (Detectron2 model zoo)',
        'note': '',
    }
    said = capsys.readouterr().out
    for words in (
        f'{NAME}: fetched\n',
        f'  path     {path}\n',
        f'  size     1.0 MB ({len(CONTENT)} bytes)\n',
        f'  sha256   {SHA256}\n',
        '  licence  CC BY-SA 3.0',
        'fetch: fetched=1\n',
    ):
        assert words in said
    asked = len(server.requests)
    (again,) = run(NAME, NAME, code=0, tmp_path=tmp_path)
    assert again['status'] == 'there'
    assert f'{NAME}: was there already\n' in capsys.readouterr().out
    assert len(server.requests) == asked


def test_a_url_that_changes(
    server: WeightsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f'{server.url}/forklift.pkl'
    steps = [((), 'fetched'), ((), 'there'), (('--refresh',), 'unchanged')]
    for options, status in steps:
        (row,) = run(url, *options, code=0, tmp_path=tmp_path)
        assert (row['status'], row['note'], row['licence']) == (status, '', '')
    server.content, server.headers = CONTENT + b'.', {'ETag': '"2"'}
    capsys.readouterr()
    (row,) = run(url, code=0, tmp_path=tmp_path)
    assert (row['status'], row['sha256']) == ('there', SHA256)
    assert f'segnode fetch --refresh {url}' in row['note']
    assert row['note'] in capsys.readouterr().err
    (row,) = run('--refresh', url, code=0, tmp_path=tmp_path)
    assert row['status'] == 'replaced'
    assert row['sha256'] == hashlib.sha256(CONTENT + b'.').hexdigest()
    server.status = 503
    (row,) = run('--refresh', url, code=1, tmp_path=tmp_path)
    assert row['status'] == 'failed'
    assert 'stays' in row['note']
    # Without --refresh it is all there, asked for or not.
    (row,) = run(url, code=0, tmp_path=tmp_path)
    assert (row['status'], 'HTTP 503' in row['note']) == ('there', True)


def test_some_fail_and_the_rest_is_fetched(
    server: WeightsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    urls = [f'{server.url}/{name}.pkl' for name in ('missing', 'good')]
    rows = run(*urls, code=1, tmp_path=tmp_path)
    assert [row['status'] for row in rows] == ['failed', 'fetched']
    captured = capsys.readouterr()
    assert captured.err == f'segnode: error: {rows[0]["note"]}\n'
    assert 'HTTP 404 Not Found' in captured.err
    assert 'fetch: failed=1 fetched=1\n' in captured.out
    assert cached_path(urls[1]).read_bytes() == CONTENT


def test_nothing_is_fetched_on_wrong_use(
    server: WeightsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / 'config.yaml'
    config.write_text(CONFIG)
    for name, words in (
        (str(config), 'expected a preset or a URL of weights, found a path'),
        ('mask_rcnn_R_50_FPN_3', f'did you mean {NAME}?'),
        ('file:///etc/passwd', 'expected http(s)://HOST/FILE'),
    ):
        assert main(['fetch', f'{server.url}/good.pkl', name]) == 2
        err = capsys.readouterr().err
        assert words in err
        assert err.count('\n') == 1
    assert server.requests == []


def test_secrets_are_neither_printed_nor_written(
    server: WeightsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = server.url.removeprefix('http://')
    urls = [
        f'http://robot:hunter2@{host}/{name}.pkl?signature=hunter3' for name in ('good', 'missing')
    ]
    rows = run(*urls, code=1, tmp_path=tmp_path)
    assert main(['fetch', '--list']) == 0
    captured = capsys.readouterr()
    written = [path.read_text() for path in cache_folder().rglob('*.json')]
    assert len(written) == 1
    text = '\n'.join((json.dumps(rows), captured.out, captured.err, *written))
    assert f'http://{host}/good.pkl?...' in text
    assert not any(secret in text for secret in ('hunter', 'robot:', 'signature'))


def test_list(
    server: WeightsServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(server, monkeypatch)
    assert run('--list', code=0, tmp_path=tmp_path) == []
    assert capsys.readouterr().out == f'{cache_folder()}: nothing has been fetched yet\n'
    run(NAME, f'{server.url}/own.pkl', f'{server.url}/older.pkl', code=0, tmp_path=tmp_path)
    older = cached_path(f'{server.url}/older.pkl')
    older.with_name('older.pkl.json').unlink()
    older.with_name('half.part').write_bytes(b'\x80')
    capsys.readouterr()
    rows = run('--list', code=0, tmp_path=tmp_path)
    assert {row['name']: row['url'] for row in rows} == {
        NAME: PRESETS[NAME].url,
        'own.pkl': f'{server.url}/own.pkl',
        'older.pkl': '',
    }
    assert {row['sha256'] for row in rows} == {SHA256}
    head, columns, *lines = capsys.readouterr().out.splitlines()
    assert head == f'{cache_folder()}:'
    assert columns.split() == ['file', 'MB', 'fetched', 'sha256', 'from']
    assert len(lines) == 3
    for line, row in zip(lines, rows, strict=True):
        assert str(Path(row['path']).relative_to(cache_folder())) in line
        assert SHA256[:12] in line
        assert (row['url'] or '(not recorded)') in line


def test_laptop_to_robot(
    server: WeightsServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(random_state(), tmp_path / 'model.pth')
    server.content = (tmp_path / 'model.pth').read_bytes()
    publish(server, monkeypatch)
    url = f'{server.url}/own.pth'
    assert main(['fetch', NAME, url]) == 0
    shutil.copytree(tmp_path / 'laptop', tmp_path / 'robot')
    monkeypatch.setenv('SEGNODE_CACHE', str(tmp_path / 'robot'))
    server.shutdown()
    server.server_close()
    said: list[str] = []
    config = tmp_path / 'config.yaml'
    config.write_text(CONFIG)
    sha256 = hashlib.sha256(server.content).hexdigest()
    for given in (Config(model=NAME), Config(model=str(config), weights=url)):
        model = load_model(given, said.append)
        assert model.weights_sha256 == sha256
        assert model.weights_path.is_relative_to(tmp_path / 'robot')
    engine = Engine(Config(model=str(config), weights=url, device='cpu'), said.append)
    assert f'model config, weights {engine.weights_path}, sha256 {sha256[:12]}...' in said
    capsys.readouterr()
    for rest in ('ros', 'transport', 'packages'):
        monkeypatch.setattr(doctor, rest, lambda **_: iter(()))
    options = ['--device', 'cpu', '--short-side', '64']
    assert main(['doctor', '--model', str(config), '--weights', url, *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    (model_line,) = [line for line in lines if line.startswith('ok    model')]
    assert sha256[:12] in model_line
    (weights_line,) = [line for line in lines if line.startswith('ok    weights')]
    assert f'could not ask {url}' in weights_line


def test_doctor_says_what_the_cached_file_is(
    server: WeightsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, monkeypatch)
    url = f'{server.url}/own.pkl'
    own = Config(model='config.yaml', weights=url)
    assert list(doctor.fetched_weights(Config())) == []
    assert list(doctor.fetched_weights(own)) == []
    fetch(url, None)
    fetch(PRESETS[NAME].url, PRESETS[NAME].checksum)
    (found,) = doctor.fetched_weights(Config(model=NAME))
    assert (found.level, found.found.endswith(' UTC, published')) == ('ok', True)
    (found,) = doctor.fetched_weights(own)
    assert (found.level, found.found.endswith('as on the server')) == ('ok', True)
    server.headers = {'ETag': '"2"'}
    (found,) = doctor.fetched_weights(own)
    assert found.level == 'warn'
    assert found.remedy == f'.venv/bin/python -m segnode fetch --refresh {url}'


def test_help_has_the_way_from_laptop_to_robot(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['fetch', '--help']) == 0
    text = capsys.readouterr().out
    for words in ('laptop$ SEGNODE_CACHE=', 'rsync -a', 'robot$  segnode doctor', '0 all files'):
        assert words in text
