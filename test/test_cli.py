# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Commands, options, exit codes and error lines."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest

from segnode import __version__
from segnode.__main__ import COMMANDS, main
from segnode.cli import Parser, add_config_options, config_from, option_name, stage_summary, table
from segnode.config import Config, parameters
from segnode.errors import CheckpointError, ConfigError, ImageError

ROOT = Path(__file__).resolve().parents[1]


def run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', 'segnode', *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def config_of(*args: str) -> Config:
    parser = Parser('test', '', '')
    add_config_options(parser)
    return config_from(parser.parse_args(args))


def one_line(text: str) -> str:
    assert text.startswith('segnode: error: ')
    assert text.count('\n') == 1
    assert 'Traceback' not in text
    return text


def test_help_lists_every_command() -> None:
    answer = run('--help')
    assert answer.returncode == 0
    assert answer.stderr == ''
    for name, command in COMMANDS.items():
        assert f'  {name}' in answer.stdout
        assert command.summary in answer.stdout


@pytest.mark.parametrize('command', COMMANDS)
def test_help_of_a_command_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, '--help']) == 0
    text = capsys.readouterr().out
    assert f'usage: segnode {command}' in text
    assert 'examples:' in text
    assert f'\n  segnode {command}' in text


@pytest.mark.parametrize('command', ['predict', 'demo', 'doctor'])
def test_every_setting_has_a_described_option(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main([command, '--help'])
    text = ' '.join(capsys.readouterr().out.split())
    for parameter in parameters(Config):
        assert option_name(parameter) + ' ' in text
        assert ' '.join(parameter.description.split()) in text.replace('- ', '-')
    assert '--json FILE' in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['--version']) == 0
    assert capsys.readouterr().out == f'segnode {__version__}\n'


@pytest.mark.parametrize(
    'args',
    [
        [],
        ['--nonsense'],
        ['predickt'],
        ['predict'],
        ['predict', 'a.jpg', '--nonsense'],
        ['predict', 'a.jpg', '--device'],
        ['predict', 'a.jpg', '--precision', 'fp8'],
        ['predict', 'a.jpg', '--short-side', 'wide'],
        ['predict', 'a.jpg', '--short-side', '-5'],
        ['predict', 'a.jpg', '--score', '0.5'],
        ['predict', 'a.jpg', '--score-threshold', '1.5'],
        ['predict', 'a.jpg', '--score-threshold', 'nan'],
        ['predict', 'a.jpg', '--score-threshold', '-0.5'],
        ['predict', 'a.jpg', '--max-mask-area', '5', '--min-mask-area', '6'],
        ['predict', 'a.jpg', '--json', '/nowhere/at/all.json'],
        ['predict', 'a.jpg', '--json', '/'],
        ['doctor', 'surplus'],
        ['doctor', '--refresh', 'surplus'],
        ['doctor', '--refresh=yes'],
        ['fetch'],
        ['fetch', ''],
        ['fetch', 'config.yaml'],
        ['fetch', '/nowhere/model.pth'],
        ['fetch', 'mask_rcnn_R50_FPN_3x'],
        ['fetch', 'ftp://host/model.pth'],
        ['fetch', 'http://user:token@/model.pth'],
        ['fetch', '--list', 'mask_rcnn_R_50_FPN_3x'],
        ['fetch', '--list', '--json', '/nowhere/at/all.json'],
        ['demo', '--frames', '0'],
        ['demo', '--rate', '0'],
        ['demo', '--rate', 'nan'],
        ['demo', '--seed', '1000'],
        ['demo', '--annotations', 'a.json'],
    ],
)
def test_wrong_use_is_one_line_and_code_2(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    one_line(captured.err)


def test_wrong_use_from_a_shell() -> None:
    answer = run('predict', 'a.jpg', '--max-instances', '65536')
    assert answer.returncode == 2
    assert 'filter.max_instances' in one_line(answer.stderr)
    assert '65536' in answer.stderr


@pytest.mark.parametrize(
    ('error', 'code'),
    [
        (ConfigError('bad\n  setting'), 2),
        (CheckpointError('bad file'), 1),
        (ImageError('bad image'), 1),
        (FileNotFoundError(2, 'No such file', 'x'), 1),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 1),
        (SystemExit(3), 3),
    ],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(_: list[str]) -> int:
        raise error

    module = types.ModuleType('segnode.predict')
    module.main = fail
    monkeypatch.setitem(sys.modules, 'segnode.predict', module)
    assert main(['predict']) == code
    err = capfd.readouterr().err
    if code in (130, 3) or isinstance(error, BrokenPipeError):
        assert err == ''
    else:
        one_line(err)


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = [sys.executable, '-m', 'segnode', '--help']
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, '')


def test_a_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, 'numpy', None)
    monkeypatch.delitem(sys.modules, 'segnode.predict', raising=False)
    assert main(['predict', 'a.jpg']) == 1
    assert 'numpy' in one_line(capsys.readouterr().err)


def test_node_without_ros_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, 'rclpy', None)
    monkeypatch.setattr('signal.signal', lambda *_: None)
    assert main(['node', '--ros-args', '-p', 'device:=cpu']) == 2
    assert 'source a ROS 2' in one_line(capsys.readouterr().err)


def test_options_become_the_configuration() -> None:
    assert config_of() == Config()
    config = config_of(
        '--model', 'm.yaml', '--weights', 'w.pth', '--device', 'cpu', '--precision', 'fp32',
        '--class-names', 'traffic light, cone,box', '--short-side', '480', '--long-side', '640',
        '--score-threshold', '0.25', '--min-mask-area', '12', '--max-instances', '7',
        '--classes', 'cone', '--mask-threshold', '1', '--proposals', '300', '--refresh',
    )  # fmt: skip
    assert config.flat() == Config().flat() | {
        'model': 'm.yaml',
        'weights': 'w.pth',
        'device': 'cpu',
        'precision': 'fp32',
        'class_names': ('traffic light', 'cone', 'box'),
        'resolution.short_side': 480,
        'resolution.long_side': 640,
        'filter.score_threshold': 0.25,
        'filter.min_mask_area': 12,
        'filter.max_instances': 7,
        'filter.classes': ('cone',),
        'mask_threshold': 1.0,
        'proposals': 300,
        'refresh': True,
    }
    assert config_of('--refresh', '--no-refresh') == Config()


def test_minus_one_leaves_the_choice_to_the_model() -> None:
    assert config_of('--score-threshold', '-1', '--mask-threshold', '-1') == Config()


def test_option_names_are_unique() -> None:
    names = [option_name(parameter) for parameter in parameters(Config)]
    assert len(set(names)) == len(names)


def test_table_columns_line_up() -> None:
    text = table(('stage', 'ms'), [('backbone', '1.0'), ('rpn', '10.0')])
    assert text == 'stage       ms\nbackbone   1.0\nrpn       10.0'
    assert table(('stage', 'ms'), []) == 'stage  ms'


def test_stage_summary_over_frames() -> None:
    summary = stage_summary([{'a': 1.0, 'b': 5.0}, {'a': 3.0}, {'a': 2.0}])
    assert list(summary) == ['a', 'b']
    assert summary['a'] == {'p50': 2.0, 'p95': pytest.approx(2.9), 'max': 3.0}
    assert summary['b'] == {'p50': 5.0, 'p95': 5.0, 'max': 5.0}
    assert stage_summary([]) == {}


@pytest.mark.parametrize('option', ['--model', '--weights', '--class-names'])
def test_a_home_that_nobody_has(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / 'photo.png'
    cv2.imwrite(str(photo), np.zeros((8, 8, 3), np.uint8))
    assert main(['predict', str(photo), option, '~nobody-here/a.txt']) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('segnode: error: ')
    assert '~nobody-here/a.txt' in line


def test_what_the_terminal_cannot_show(tmp_path: Path) -> None:
    words = [sys.executable, '-m', 'segnode', 'predict', str(tmp_path / 'Straße.png')]
    environment = os.environ | {'PYTHONIOENCODING': 'ascii'}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert 'Stra\\xdfe.png' in done.stderr


def test_a_result_to_a_redirected_terminal_keeps_what_was_said(tmp_path: Path) -> None:
    said = tmp_path / 'said'
    command = [sys.executable, '-m', 'segnode', 'fetch', '--list', '--json', '/dev/stdout']
    environment = os.environ | {'SEGNODE_CACHE': str(tmp_path / 'cache')}
    with said.open('w') as stream:
        assert subprocess.run(command, stdout=stream, env=environment, check=False).returncode == 0
    assert '[]' in said.read_text()
    assert len(said.read_text().splitlines()) > 1
