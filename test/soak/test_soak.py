# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The soak through the real node over DDS: one that is right, and one that is not."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from ros_harness import ROOT

from segnode.__main__ import main
from segnode.output_files import is_own_json
from segnode.ros.parameters import all_parameters
from segnode.soak import command
from segnode.soak.faults import invalid_change, read_only_change, valid_change
from segnode.soak.frames import pictures
from segnode.soak.shared_memory import mapped_segments, remove_orphans
from segnode.soak.stage import Stage

pytestmark = pytest.mark.ros

SMALL = ('--shape', '120x160', '--short-side', '96', '--device', 'cpu')

# Of every four images the node swallows one, and its labels are those of more instances.
WRONG_NODE = """
import inspect
import sys

if '--ros-args' in sys.orig_argv:
    from segnode.ros import image_input, messages

    inside, masks = image_input.ImageInput.__init__, messages.instance_mask_message

    def forgetful(self, *args, **more):
        given = inspect.signature(inside).bind(self, *args, **more)
        receive, seen = given.arguments['receive'], []

        def take(data):
            seen.append(0)
            if len(seen) % 4:
                receive(data)

        given.arguments['receive'] = take
        inside(*given.args, **given.kwargs)

    def bold(header, labels):
        labels = labels.copy()
        labels[0, 0] = 9999
        return masks(header, labels)

    image_input.ImageInput.__init__ = forgetful
    messages.instance_mask_message = bold
"""


def soak(*options: str, **environment: str) -> subprocess.Popen[str]:
    line = [sys.executable, '-m', 'segnode', 'soak', *SMALL, *options]
    return subprocess.Popen(
        line,
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1', **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
    return found


@pytest.mark.timed
def test_faults_break_nothing(tmp_path: Path) -> None:
    temporary = tmp_path / 'temporary'
    temporary.mkdir()
    json_path = tmp_path / 's.json'
    options = ('--seconds', '8', '--cameras', '2', '--rate', '8', '--faults', '--seed', '5')
    process = soak(*options, '--json', str(json_path), TMPDIR=str(temporary))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    found = read(json_path)
    assert (found['ok'], found['lost'], found['findings']) == (True, 0, [])
    assert re.search(r'^soak: ok: true, lost: 0, faults: \d+ of \d+ kinds', out, re.MULTILINE)
    assert 'seed 5' in err
    for camera in found['cameras'].values():
        unknown = sum(camera['unknown'].values())
        accounted = camera['received'] + camera['reported'] + camera['replaced'] + unknown
        assert camera['sent'] == accounted > 0
        assert camera['answers'] > 0
        left = camera['received'] - camera['published'] - sum(camera['dropped'].values())
        # Where a life was ended, its last numbers are those of a moment before.
        assert left >= 0
        if len(found['lives']) == 1:
            assert (left, camera['answers']) == (0, camera['published'])
        assert camera['dropped']['decode'] > 0
    assert found['faults'] >= 15
    assert found['kinds'] >= 10
    assert is_own_json(command._OWN_JSON)(json_path)
    assert sum(camera['detections'] for camera in found['cameras'].values()) > 0
    assert all(life['exit_code'] in (0, -signal.SIGKILL) for life in found['lives'])
    assert list(temporary.glob('segnode-soak-*')) == []


def test_a_wrong_node_is_found_out_and_ctrl_c_tells_what_is_known(tmp_path: Path) -> None:
    (tmp_path / 'sitecustomize.py').write_text(WRONG_NODE)
    json_path, logs = tmp_path / 's.json', tmp_path / 'logs'
    path = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
    options = ('--seconds', '3600', '--cameras', '1', '--rate', '8', '--json', str(json_path))
    process = soak(*options, '--output', str(logs), PYTHONPATH=path)
    assert process.stderr is not None
    said = ''
    # Without a finding it would go on for an hour.
    impatience = threading.Timer(240, process.kill)
    impatience.start()
    try:
        for line in process.stderr:
            said += line
            if 'frames are lost' in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        impatience.cancel()
        process.kill()
    assert process.returncode == 130, said + out + err
    assert 'Traceback' not in said + err
    found = read(json_path)
    assert found['interrupted']
    (life,) = found['lives']
    assert (life['ended_by'], life['exit_code']) == ('SIGINT', 0)
    assert not found['ok']
    assert found['lost'] > 0
    assert f'lost: {found["lost"]},' in out
    assert any('label 9999 of' in text for text in found['findings'])
    assert (logs / 'node-0.log').is_file()
    # Nobody is left.
    assert not [p for p in Path('/proc').glob('[0-9]*/cmdline') if str(logs).encode() in _text(p)]


def test_exit_codes() -> None:
    code = command.exit_code
    assert code({'ok': True, 'interrupted': False}) == 0
    assert code({'ok': False, 'interrupted': False}) == 1
    assert code({'ok': True, 'interrupted': True}) == 130


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b''


@pytest.mark.parametrize(
    ('options', 'error'),
    [
        ('--seconds 1', '--seconds: expected 5 or more, found 1'),
        ('--seconds nan', '--seconds: expected 5 or more, found nan'),
        ('--seconds 9 --cameras 9', '--cameras: expected 1 to 8, found 9'),
        ('--seconds 9 --rate 0', '--rate: expected 0.1 to 200 Hz, found 0'),
        ('--seconds 9 --shape 9x9', 'argument --shape: expected HxW of 32 to 9999 pixels each'),
        ('--seconds 9 --shape 4097x4096', 'at most as many pixels as 4096x4096 has'),
        ('--seconds 9 --shape 480', "found '480'"),
        ('--seconds 9 --seed -1', '--seed: expected 0 or more, found -1'),
        ('', 'the following arguments are required: --seconds'),
    ],
)
def test_wrong_options(options: str, error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['soak', *options.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert error in line


def test_without_ros_it_says_who_needs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr('importlib.util.find_spec', lambda _name: None)
    assert main(['soak', '--seconds', '9']) == 1
    assert 'soak needs ROS 2' in capsys.readouterr().err


def test_the_bytes_of_the_decks_are_only_in_files_that_go(tmp_path: Path) -> None:
    with Stage(tmp_path, {'front': pictures(0, (32, 48))}, True, {}) as stage:
        assert not any(frame.data for decks in stage.decks.values() for frame in decks['front'])
        assert len(list(tmp_path.glob('*.npz'))) == 2
    assert list(tmp_path.glob('*.npz')) == []


def test_changes_are_of_parameters_that_there_are() -> None:
    known, rng = all_parameters(), random.Random(0)
    for _ in range(200):
        name, value = valid_change(rng, 480)
        assert known[name].runtime
        assert known[name].validate(value) == value
        name, _ = read_only_change(rng, ['a'])
        assert not known[name].runtime
        assert isinstance(invalid_change(rng)[0], str)


def test_weights_are_removed_by_a_link_of_its_own(tmp_path: Path) -> None:
    mine = tmp_path / 'mine.pth'
    mine.write_bytes(b'weights')
    settings: dict[str, Any] = {'model': 'config.yaml', 'weights': str(mine)}
    link, left_out = command._removable_weights(settings, tmp_path)
    assert link is not None
    assert left_out == []
    assert settings['weights'] == str(link)
    link.unlink()
    assert mine.read_bytes() == b'weights'
    for given in ({'model': 'mask_rcnn_R_50_FPN_3x'}, {'weights': 'https://example.com/w.pth'}):
        link, (reason,) = command._removable_weights(dict(given), tmp_path)
        assert link is None
        assert reason.startswith('weights_removed: ')


def test_only_orphaned_segments_are_removed(tmp_path: Path) -> None:
    owned, orphan, other = (tmp_path / f'fastdds_{digit * 16}' for digit in '012')
    for segment in (owned, orphan):
        segment.write_bytes(b'data')
        segment.with_name(f'{segment.name}_el').touch()
    with owned.with_name(f'{owned.name}_el').open('rb') as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert remove_orphans({owned, orphan, other}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [owned.name, f'{owned.name}_el']
    # Who has nothing to do with ROS has none mapped.
    with subprocess.Popen(['sleep', '60']) as stranger:
        assert mapped_segments(stranger.pid) == set()
        stranger.kill()
