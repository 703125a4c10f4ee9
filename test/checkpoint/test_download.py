# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The cache of weights: what is kept, when it is old, and that no start waits for a network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from narrow_checkpoint import CONFIG, random_state
from weights_server import CONTENT, WeightsServer, running_server

from segnode.checkpoint import download, load_model
from segnode.checkpoint.download import Checksum, cache_folder, cached_path, fetch
from segnode.config import Config
from segnode.errors import CheckpointError, ConfigError

RETRAINED = CONTENT[:-1] + b'\0'
# What hangs does so for longer than any start may take.
NEVER_DELAYED_S, HANGING_S = 2.0, 3.0
PAGE = b'\n<!DOCTYPE html><html><body>Please log in</body></html>'


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightsServer]:
    monkeypatch.setenv('SEGNODE_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(download, '_CHECK_TIMEOUT_S', 60.0, raising=False)
    with running_server(monkeypatch) as server:
        server.headers = {'ETag': '"1"', 'Last-Modified': 'Mon, 02 Nov 2026 10:00:00 GMT'}
        yield server


@pytest.fixture
def said() -> list[str]:
    return []


def files() -> list[str]:
    return sorted(path.name for path in cache_folder().rglob('*') if path.is_file())


def heard(said: list[str], words: str) -> bool:
    """Wait a moment for a line that may come from a thread."""
    end = time.monotonic() + 60.0
    while time.monotonic() < end and not any(words in line for line in said):
        time.sleep(0.01)
    assert all(line.isprintable() for line in said)
    return any(words in line for line in said)


def check_is_over() -> None:
    for thread in threading.enumerate():
        if thread.name == 'weights check':
            thread.join(60.0)


def retrain(server: WeightsServer) -> None:
    server.content = RETRAINED
    server.headers = {'ETag': '"2"', 'Last-Modified': 'Tue, 03 Nov 2026 10:00:00 GMT'}


class Trained:
    """A model whose weights are a URL, as a robot has it in its parameter file."""

    def __init__(self, folder: Path, server: WeightsServer) -> None:
        self._server, self._folder, self._seed = server, folder, 0
        (folder / 'config.yaml').write_text(CONFIG)
        self.settings = {
            'model': str(folder / 'config.yaml'),
            'weights': f'{server.url}/forklift.pth',
        }
        self.train()

    def train(self) -> str:
        """Put other weights on the server; return their digest."""
        self._seed += 1
        torch.save(random_state(seed=self._seed), self._folder / 'server.pth')
        self._server.content = (self._folder / 'server.pth').read_bytes()
        self._server.headers = {'ETag': f'"{self._seed}"'}
        return hashlib.sha256(self._server.content).hexdigest()


@pytest.fixture
def trained(tmp_path: Path, server: WeightsServer) -> Trained:
    return Trained(tmp_path, server)


def test_a_retrained_file_is_told_and_had_with_refresh(trained: Trained, said: list[str]) -> None:
    config = Config().replace(trained.settings)
    old = load_model(config, said.append).weights_sha256
    new = trained.train()
    assert old != new
    assert load_model(config, said.append).weights_sha256 == old
    url = trained.settings['weights']
    assert heard(said, f'{url} has changed since'), said
    assert heard(said, f'segnode fetch --refresh {url}')
    assert 'refresh' in Config().flat()
    fresh = config.replace({'refresh': True})
    assert load_model(fresh, said.append).weights_sha256 == new
    assert f'{url} has changed, the new file runs' in said
    said.clear()
    assert load_model(fresh, said.append).weights_sha256 == new
    assert 'has not changed, the cached file of' in said[0]


def unreachable(server: WeightsServer, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(download, '_CHECK_TIMEOUT_S', HANGING_S, raising=False)
    if how == 'hanging server':
        server.answering.clear()
    elif how == 'refused':

        def refuse(*_: Any, **__: Any) -> None:
            raise ConnectionRefusedError(111, 'Connection refused')

        monkeypatch.setattr(socket, 'create_connection', refuse)
    else:

        def resolve(*_: Any, **__: Any) -> None:
            if how == 'hanging name server':
                server.answering.wait(HANGING_S)
            raise socket.gaierror(-3, 'Temporary failure in name resolution')

        server.answering.clear()
        monkeypatch.setattr(socket, 'getaddrinfo', resolve)


NO_NETWORK = [
    ('hanging server', 'no answer in time'),
    ('refused', 'Connection refused'),
    ('no name server', 'Temporary failure'),
    ('hanging name server', 'Temporary failure'),
]


@pytest.mark.parametrize(('how', 'why'), NO_NETWORK)
def test_without_a_network_the_cached_file_runs_at_once_and_says_so(
    trained: Trained,
    server: WeightsServer,
    monkeypatch: pytest.MonkeyPatch,
    said: list[str],
    how: str,
    why: str,
) -> None:
    config = Config().replace(trained.settings)
    before = time.gmtime()
    sha256 = load_model(config, said.append).weights_sha256
    url = trained.settings['weights']
    unreachable(server, monkeypatch, how)
    started = time.perf_counter()
    path = fetch(url, None)
    assert time.perf_counter() - started < NEVER_DELAYED_S
    assert path == cached_path(url)
    model = load_model(config, said.append)
    assert model.weights_sha256 == sha256
    assert heard(said, f', could not ask {url} ({why}' if '[' in why else 'could not ask'), said
    (line,) = (line for line in said if 'could not ask' in line)
    assert why in line
    # A month may end meanwhile.
    months = [time.strftime('%Y-%m-', moment) for moment in (before, time.gmtime())]
    assert any(f'runs the cached file of {month}' in line for month in months)


@pytest.mark.parametrize('how', ['hanging server', 'refused', 'no name server'])
def test_refresh_without_a_network_runs_the_cached_file(
    server: WeightsServer, monkeypatch: pytest.MonkeyPatch, said: list[str], how: str
) -> None:
    monkeypatch.setattr(download, '_REFRESH_TIMEOUT_S', 0.3, raising=False)
    url = f'{server.url}/model.pkl'
    fetch(url, None)
    unreachable(server, monkeypatch, how)
    assert fetch(url, None, said.append, refresh=True).read_bytes() == CONTENT
    assert 'cannot be fetched again (' in said[-1]
    assert said[-1].endswith('stays and runs')


def test_the_end_of_a_process_is_not_delayed(server: WeightsServer) -> None:
    url = f'{server.url}/model.pkl'
    fetch(url, None)
    server.answering.clear()
    server.requests.clear()
    program = (
        'import sys, time\n'
        'from segnode.checkpoint import download\n'
        'download._CHECK_TIMEOUT_S = 50.0\n'
        'download.fetch(sys.argv[1], None)\n'
        'sys.stdin.readline()\n'
        'print(time.time(), flush=True)\n'
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, '-c', program, url], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        give_up_s = time.monotonic() + 60
        while not server.requests and time.monotonic() < give_up_s:
            time.sleep(0.01)
        out, err = process.communicate('asked\n', timeout=60)
    ended = time.time()
    assert (process.returncode, err) == (0, '')
    assert server.methods() == ['HEAD']
    # The interpreter takes torch apart meanwhile.
    assert ended - float(out) < 20.0


@pytest.mark.parametrize(
    'fails', [OSError('stderr is gone'), RuntimeError('no logger'), ValueError('closed')]
)
def test_a_report_that_fails_is_nobodys_trouble(
    server: WeightsServer, capfd: pytest.CaptureFixture[str], fails: Exception
) -> None:
    url = f'{server.url}/model.pkl'
    fetch(url, None)
    retrain(server)
    told = threading.Event()

    def report(_: str) -> None:
        told.set()
        raise fails

    assert fetch(url, None, report).is_file()
    assert told.wait(60.0)
    check_is_over()
    assert capfd.readouterr().err == ''


LFS = b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 177841981\n'
S3 = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>SECRET</Message></Error>'
WRONG = {
    'a page': (PAGE, 'text/html; charset=utf-8', 'a web page came'),
    'a page that says it is binary': (PAGE, 'application/octet-stream', 'a web page came'),
    'a page without a doctype': (b'<body>log in', 'text/html', 'a web page came'),
    'a compressed page': (b'\x1f\x8b\x08\0', 'text/html', 'a web page came'),
    'upper case': (b'\xef\xbb\xbf<HTML><HEAD>', '', 'a web page came'),
    'Git LFS': (LFS, 'text/plain', 'a Git LFS pointer came'),
    'a storage server': (S3, 'application/xml', 'an XML answer (AccessDenied) came'),
    'JSON': (b'{"error": "no such model"}', 'application/json', 'a JSON answer came'),
    'text': (b'quota exceeded, try later', 'text/plain', 'text came'),
    'nothing': (b'', 'application/octet-stream', 'an empty answer came'),
    'an archive': (b'\x1f\x8b\x08\0abc', 'application/gzip', 'begins with 1f 8b 08 00'),
}


@pytest.mark.parametrize(('content', 'kind', 'words'), WRONG.values(), ids=list(WRONG))
def test_what_is_no_weights_is_never_kept(
    server: WeightsServer, said: list[str], content: bytes, kind: str, words: str
) -> None:
    url = f'{server.url}/model.pkl'
    server.content, server.headers = content, {'Content-Type': kind}
    with pytest.raises(CheckpointError) as caught:
        fetch(url, None)
    message = str(caught.value)
    assert words in message
    assert 'SECRET' not in message
    assert message.startswith(url)
    assert f'save it as {cached_path(url)}' in message
    assert message.isprintable()
    assert files() == []
    # Nor does it take the place of a good file.
    server.content, server.headers = CONTENT, {'ETag': '"1"'}
    path = fetch(url, None)
    server.content, server.headers = content, {'Content-Type': kind}
    assert fetch(url, None, said.append, refresh=True).read_bytes() == CONTENT
    assert words in said[-1]
    assert files() == [path.name, f'{path.name}.json']


@pytest.mark.parametrize(
    ('asked', 'landed', 'words'),
    [
        (
            'https://github.com/o/r/blob/main/m.pth',
            '',
            'raw link, https://github.com/o/r/raw/main/m.pth',
        ),
        (
            'https://gitlab.example.com/o/r/-/blob/main/m.pth?ref=x',
            '',
            'raw link, https://gitlab.example.com/o/r/-/raw/main/m.pth',
        ),
        (
            'https://huggingface.co/o/r/blob/main/m.safetensors',
            '',
            'raw link, https://huggingface.co/o/r/resolve/main/m.safetensors',
        ),
        ('https://drive.google.com/uc?id=1', 'https://drive.usercontent.google.com/x', 'Drive'),
        ('https://www.dropbox.com/s/1/m.pth?dl=0', '', 'end the link with dl=1'),
        ('https://example.com/m.pth', 'https://login.example.org/a', 'page of login.example.org'),
    ],
)
def test_a_page_says_how_the_file_is_had(asked: str, landed: str, words: str) -> None:
    from segnode.checkpoint.web import Answer, what_came

    answer = Answer('', '', None, 'text/html')
    assert words in what_came(PAGE, answer, asked, landed or asked)


def test_a_page_in_an_older_cache_is_named_and_mended(
    server: WeightsServer, said: list[str]
) -> None:
    url = f'{server.url}/model.pkl'
    cached_path(url).parent.mkdir(parents=True)
    cached_path(url).write_bytes(PAGE)
    with pytest.raises(CheckpointError, match='a web page came') as caught:
        fetch(url, None)
    assert str(caught.value).startswith(str(cached_path(url)))
    assert 'remove the file' in str(caught.value)
    server.status = 500
    with pytest.raises(CheckpointError, match='HTTP 500 Internal Server Error'):
        fetch(url, None, said.append, refresh=True)
    server.status = 200
    assert fetch(url, None, said.append, refresh=True).read_bytes() == CONTENT


def test_refresh_asks_with_what_is_known_and_keeps_the_file(
    server: WeightsServer, said: list[str]
) -> None:
    url = f'{server.url}/model.pkl'
    path = fetch(url, None)
    before = path.stat()
    assert fetch(url, None, said.append, refresh=True) == path
    assert server.requests[-1][2]['If-None-Match'] == '"1"'
    assert server.requests[-1][2]['If-Modified-Since'] == 'Mon, 02 Nov 2026 10:00:00 GMT'
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    # A file put in its place by hand is not the one that the server calls unchanged.
    path.write_bytes(RETRAINED)
    assert fetch(url, None, said.append, refresh=True).read_bytes() == CONTENT
    assert server.requests[-1][2]['If-None-Match'] is None


def test_a_file_in_use_is_not_touched(server: WeightsServer, said: list[str]) -> None:
    url = f'{server.url}/model.pkl'
    path = fetch(url, None)
    retrain(server)
    with path.open('rb') as used:
        used.read(10)
        fetch(url, None, said.append, refresh=True)
        assert used.read() == CONTENT[10:]
    assert path.read_bytes() == RETRAINED
    record = json.loads(path.with_name('model.pkl.json').read_text())
    assert record | {'fetched_at': ''} == {
        'url': url,
        'etag': '"2"',
        'last_modified': 'Tue, 03 Nov 2026 10:00:00 GMT',
        'length': len(RETRAINED),
        'sha256': hashlib.sha256(RETRAINED).hexdigest(),
        'fetched_at': '',
    }
    assert record['fetched_at'].endswith('+00:00')


LATER = {'Last-Modified': formatdate(time.time() + 86400, usegmt=True)}
DATED = {'Last-Modified': 'Mon, 02 Nov 2026 10:00:00 GMT'}


@pytest.mark.parametrize(
    ('first', 'then', 'content', 'state'),
    [
        ({'ETag': '"1"'}, {'ETag': '"1"'}, CONTENT, 'same'),
        ({'ETag': '"1"'}, {'ETag': 'W/"1"'}, CONTENT, 'same'),
        ({'ETag': '"1"', **DATED}, {'ETag': '"1"', **LATER}, CONTENT, 'same'),
        ({'ETag': '"1"'}, {'ETag': '"2"'}, CONTENT, 'changed'),
        (DATED, DATED, CONTENT, 'same'),
        (DATED, LATER, CONTENT, 'changed'),
        (DATED, DATED, CONTENT + b'more', 'changed'),
        ({}, {}, CONTENT + b'more', 'changed'),
        ({}, {}, CONTENT, 'unknown'),
        ({'ETag': '"1"'}, {}, CONTENT, 'unknown'),
        # Without a record, as of an older cache.
        (None, DATED, CONTENT, 'same'),
        (None, LATER, CONTENT, 'changed'),
        (None, {'ETag': '"1"'}, CONTENT + b'more', 'changed'),
        (None, {'ETag': '"1"'}, CONTENT, 'unknown'),
        (None, {'Last-Modified': 'yesterday'}, CONTENT, 'unknown'),
    ],
)
@pytest.mark.parametrize(('head_status', 'with_range'), [(200, 0), (405, 0), (403, 1), (0, 0)])
def test_freshness(
    server: WeightsServer,
    first: dict[str, str] | None,
    then: dict[str, str],
    content: bytes,
    state: str,
    head_status: int,
    with_range: int,
) -> None:
    url = f'{server.url}/model.pkl'
    server.headers = first or {}
    path = fetch(url, None)
    if first is None:
        path.with_name('model.pkl.json').unlink()
    server.headers, server.content, server.head_status = then, content, head_status
    server.with_range = bool(with_range)
    found = download.freshness(url)
    assert found.state == state
    assert bool(found.text) == (state != 'same')
    assert server.methods()[1:] == (['HEAD'] if head_status == 200 else ['HEAD', 'GET'])
    assert path.read_bytes() == CONTENT


def test_a_check_fetches_no_file(server: WeightsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f'{server.url}/model.pkl'
    fetch(url, None)
    server.head_status, server.headers = 405, {'ETag': '"2"'}
    server.content, read = b'\x80' + bytes(1 << 28), []
    monkeypatch.setattr('http.client.HTTPResponse.read', lambda *_: read.append(1))
    started = time.perf_counter()
    assert download.freshness(url).state == 'changed'
    assert time.perf_counter() - started < NEVER_DELAYED_S
    assert read == []
    assert server.requests[-1][2]['Range'] == 'bytes=0-0'


@pytest.mark.parametrize(
    ('path', 'status', 'kind', 'words'),
    [
        ('missing', 200, '', 'HTTP 404 Not Found'),
        ('model.pkl', 503, '', 'HTTP 503 Service Unavailable'),
        ('model.pkl', 200, 'text/html', 'a web page answered'),
    ],
)
def test_a_server_that_cannot_be_asked(
    server: WeightsServer, path: str, status: int, kind: str, words: str
) -> None:
    url = f'{server.url}/{path}'
    cached_path(url).parent.mkdir(parents=True)
    cached_path(url).write_bytes(CONTENT)
    server.status, server.headers = status, {'Content-Type': kind} if kind else {}
    found = download.freshness(url)
    assert found.state == 'unasked'
    assert words in found.text


@pytest.mark.parametrize(
    'record',
    [
        '',
        '[]',
        '{"url": 1}',
        '[' * 100_000,
        json.dumps(dict.fromkeys(('url', 'etag', 'last_modified', 'sha256', 'fetched_at'), '')),
        json.dumps(
            dict.fromkeys(('url', 'last_modified', 'sha256', 'fetched_at'), '')
            | {'etag': 'a\r\nHost: b', 'length': len(CONTENT)}
        ),
        json.dumps(
            dict.fromkeys(('url', 'last_modified', 'sha256', 'fetched_at'), 7)
            | {'etag': '1', 'length': len(CONTENT)}
        ),
    ],
)
def test_a_damaged_record_is_none(server: WeightsServer, said: list[str], record: str) -> None:
    url = f'{server.url}/model.pkl'
    path = fetch(url, None)
    path.with_name('model.pkl.json').write_text(record)
    assert fetch(url, None, said.append) == path
    check_is_over()
    assert all('could not ask' not in line for line in said)
    assert fetch(url, None, said.append, refresh=True) == path
    assert server.requests[-1][2]['If-None-Match'] is None
    assert json.loads(path.with_name('model.pkl.json').read_text())['etag'] == '"1"'


def test_credentials_arrive_and_are_never_printed(
    server: WeightsServer, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    host = server.url.removeprefix('http://')
    url = f'http://robot:hunter%402@{host}/model.pkl?signature=hunter3'
    secrets = ('hunter', 'robot', 'signature', 'cm9ib3Q6')
    with pytest.raises(CheckpointError) as caught:
        fetch(url.replace('model', 'missing'), None)
    assert not any(secret in str(caught.value) for secret in secrets)
    assert 'HTTP 404 Not Found' in str(caught.value)
    path = fetch(url, None, said.append)
    assert server.requests[-1][1] == '/model.pkl?signature=hunter3'
    # RFC 7617 of robot:hunter@2.
    assert server.requests[-1][2]['Authorization'] == 'Basic cm9ib3Q6aHVudGVyQDI='
    retrain(server)
    fetch(url, None, said.append)
    assert heard(said, 'has changed')
    server.status = 500
    fetch(url, None, said.append, refresh=True)
    text = '\n'.join((*said, caplog.text, path.with_name('model.pkl.json').read_text(), str(path)))
    assert not any(secret in text for secret in secrets)
    # Another token is for the same file, and so is none.
    assert cached_path(url.replace('hunter%402', 'other')) == path
    assert cached_path(url.replace('robot:hunter%402@', '')) == path


@pytest.mark.parametrize(('other', 'sent'), [('localhost', False), ('127.0.0.1', True)])
def test_a_redirect_takes_credentials_to_no_other_host(
    server: WeightsServer, other: str, sent: bool
) -> None:
    port = server.server_address[1]
    server.location = f'http://{other}:{port}/good.pkl'
    for request in (fetch, lambda url, _: download.freshness(url)):
        assert request(f'http://robot:hunter2@127.0.0.1:{port}/moved.pkl', None)
        (_, first, headers), (method, path, after) = server.requests[-2:]
        assert (first, path) == ('/moved.pkl', '/good.pkl')
        assert headers['Authorization']
        assert bool(after['Authorization']) == sent
    assert method == 'HEAD'


@pytest.mark.parametrize('target', ['file:///etc/passwd', 'ftp://127.0.0.1/model.pkl'])
def test_a_redirect_leads_to_http_only(server: WeightsServer, target: str) -> None:
    server.location = target
    with pytest.raises(CheckpointError, match='cannot be fetched') as caught:
        fetch(f'{server.url}/moved.pkl', None)
    assert target not in str(caught.value)
    assert files() == []


@pytest.mark.parametrize(
    'url',
    [
        'http://',
        'http:///model.pth',
        'http://[::1/model.pth',
        'http://host:port/model.pth',
        'http://user:hunter2@host:99999/model.pth',
        'http://host/a\nb.pth',
        'http://host/\0.pth',
        'file:///etc/passwd',
        'ftp://user:hunter2@host/model.pth',
    ],
)
def test_wrong_urls_are_one_line(url: str, tmp_path: Path) -> None:
    (tmp_path / 'config.yaml').write_text(CONFIG)
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        load_model(Config(model=str(tmp_path / 'config.yaml'), weights=url))
    message = str(caught.value)
    assert 'expected' in message
    assert 'hunter2' not in message
    assert message.isprintable()


def test_odd_names(server: WeightsServer) -> None:
    for path in ('', 'a/..', '..', 'ü b.pkl', 'x' * 300 + '.pkl', 'ü' * 200):
        found = fetch(f'{server.url}/{path}', None)
        assert found.read_bytes() == CONTENT
        assert found.parent.parent == cache_folder()
    assert '/%C3%BC%20b.pkl' in {path for _, path, _ in server.requests}


@pytest.mark.parametrize('processes', [2, 5])
def test_fetching_at_once_does_no_harm(server: WeightsServer, processes: int) -> None:
    url = f'{server.url}/model.pkl'
    server.answering.clear()
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(url, None).read_bytes()))
        for _ in range(processes)
    ]
    for thread in threads:
        thread.start()
    while len(server.requests) < processes:
        time.sleep(0.01)
    server.answering.set()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * processes
    assert files() == ['model.pkl', 'model.pkl.json']


def test_parts_of_killed_processes_are_removed(server: WeightsServer) -> None:
    url = f'{server.url}/model.pkl'
    folder = cached_path(url).parent
    folder.mkdir(parents=True)
    for name in ('killed.part', 'running.part'):
        (folder / name).write_bytes(b'\x80')
    os.utime(folder / 'killed.part', (0, 0))
    fetch(url, None)
    assert files() == ['model.pkl', 'model.pkl.json', 'running.part']


def test_other_users_may_read_what_the_umask_lets_them(server: WeightsServer) -> None:
    before = os.umask(0o022)
    try:
        path = fetch(f'{server.url}/model.pkl', None)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize('kind', ['pth', 'safetensors'])
def test_an_end_that_comes_early_without_a_length(
    server: WeightsServer, tmp_path: Path, kind: str
) -> None:
    if kind == 'pth':
        torch.save(random_state(), tmp_path / 'model')
    else:
        safetensors.torch.save_file(random_state(), tmp_path / 'model')
    server.content = (tmp_path / 'model').read_bytes()
    server.with_length = False
    server.sent = len(server.content) // 2
    url = f'{server.url}/model.{kind}'
    with pytest.raises(CheckpointError, match=rf'ended early, after {server.sent} bytes'):
        fetch(url, None)
    assert files() == []
    server.sent = None
    assert fetch(url, None).read_bytes() == server.content


class _Disk:
    """A folder that cannot be written to, for one reason or another."""

    def no_room(self, monkeypatch: pytest.MonkeyPatch) -> str:
        usage = shutil.disk_usage('/')._replace(free=1000)
        monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage)
        return 'expected 1 MB of room for'

    def full(self, monkeypatch: pytest.MonkeyPatch) -> str:
        def fail(_: int) -> None:
            raise OSError(28, 'No space left on device')

        monkeypatch.setattr(os, 'fsync', fail)
        return 'No space left on device'

    def read_only(self, monkeypatch: pytest.MonkeyPatch) -> str:
        def fail(path: Path, *_: Any, **__: Any) -> None:
            raise OSError(30, 'Read-only file system', str(path))

        monkeypatch.setattr(Path, 'mkdir', fail)
        return 'Read-only file system'


@pytest.mark.parametrize('fault', [_Disk.no_room, _Disk.full, _Disk.read_only])
def test_a_cache_that_cannot_be_written_is_named(
    server: WeightsServer,
    monkeypatch: pytest.MonkeyPatch,
    said: list[str],
    fault: Callable[[_Disk, pytest.MonkeyPatch], str],
) -> None:
    url = f'{server.url}/model.pkl'
    with monkeypatch.context() as patch:
        words = fault(_Disk(), patch)
        with pytest.raises(CheckpointError) as caught:
            fetch(url, None)
    message = str(caught.value)
    assert message.startswith(f'{cached_path(url).parent}: expected')
    assert words in message
    assert 'set SEGNODE_CACHE' in message
    assert files() == []
    # What is cached already runs all the same.
    fetch(url, None)
    retrain(server)
    with monkeypatch.context() as patch:
        words = fault(_Disk(), patch)
        path = fetch(url, None, said.append, refresh=True)
    assert path.read_bytes() == CONTENT
    assert words in said[-1]
    assert said[-1].endswith('stays and runs')


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('SEGNODE_CACHE', 'XDG_CACHE_HOME'):
        monkeypatch.delenv(name, raising=False)

    def fail() -> Path:
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.setattr(Path, 'home', fail)
    with pytest.raises(CheckpointError, match='set SEGNODE_CACHE to a folder'):
        fetch('http://127.0.0.1:1/model.pkl', None)


def test_a_cache_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> bool:
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setenv('SEGNODE_CACHE', '/root/cache')
    monkeypatch.setattr(Path, 'is_file', fail)
    with pytest.raises(CheckpointError, match=r'^/root/cache/\w+/m\.pkl: cannot be read'):
        fetch('http://127.0.0.1:1/m.pkl', None)


def test_published_files_are_never_asked_for(server: WeightsServer, said: list[str]) -> None:
    url, checksum = f'{server.url}/model.pkl', Checksum('md5', hashlib.md5(CONTENT).hexdigest())
    path = fetch(url, checksum)
    retrain(server)
    for refresh in (False, True):
        assert fetch(url, checksum, said.append, refresh=refresh).read_bytes() == CONTENT
    check_is_over()
    assert len(server.requests) == 1
    assert said == []
    # A damaged one is fetched again when asked to, if the server still has the published one.
    path.write_bytes(RETRAINED)
    with pytest.raises(CheckpointError, match='expected md5'):
        fetch(url, checksum, said.append, refresh=True)
    server.content = CONTENT
    assert fetch(url, checksum, said.append, refresh=True).read_bytes() == CONTENT
