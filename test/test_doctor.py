# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode doctor``: findings, remedies and exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from segnode.__main__ import main
from segnode.config import Config
from segnode.doctor import command as doctor
from segnode.hardware import monitor
from segnode.hardware.reading import Reading, Throttle
from segnode.ros_distribution import profile_variable, rclpy_version, ros_distribution
from segnode.shipped import shipped_file

ROOT = Path(__file__).resolve().parents[1]


def test_a_machine_that_is_slowed_down_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading({'temperature_cpu_c': 99.0}, (Throttle('thermal', 'too hot'),))
    monkeypatch.setattr(monitor, 'read_once', lambda _: reading)
    (finding,) = doctor.hardware(Config(device='cpu'))
    assert finding.level == 'warn'
    assert 'temperature_cpu_c 99.0' in finding.found
    assert 'cool it' in finding.remedy


def test_this_machine_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / 'doctor.json'
    code = main(['doctor', '--json', str(target)])
    lines = capsys.readouterr().out.splitlines()
    findings = json.loads(target.read_text())
    assert code == 0
    assert not [finding for finding in findings if finding['level'] == 'FAIL']
    assert len(lines) == len(findings) + 1
    for line, finding in zip(lines, findings, strict=False):
        assert line.startswith(f'{finding["level"]:<4}  {finding["name"]}')
        assert (finding['level'] == 'ok') == (not finding['remedy'])
        assert ' -> ' in line or finding['level'] == 'ok'
    by_name = {finding['name']: finding for finding in findings}
    assert 'mask_rcnn_demo' in by_name['model']['found']
    assert lines[-1].startswith('doctor: ok=')


@pytest.mark.ros
@pytest.mark.smoke
def test_ros_and_its_messages_are_found() -> None:
    findings = list(doctor.ros())
    assert {finding.level for finding in findings} == {'ok'}
    found = {finding.name: finding.found for finding in findings}
    assert found.keys() >= {'ROS', 'messages'}
    assert found['ROS'].startswith(f'{ros_distribution().capitalize()}, rclpy {rclpy_version()}, ')


def test_bad_weights_fail_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / 'w.safetensors'
    weights.write_bytes(b'')
    assert main(['doctor', '--weights', str(weights)]) == 1
    captured = capsys.readouterr()
    (line,) = [line for line in captured.out.splitlines() if line.startswith('FAIL')]
    assert line.startswith('FAIL  model')
    assert str(weights) in line
    assert 'Traceback' not in captured.out + captured.err


def test_a_device_that_is_not_there_fails() -> None:
    (finding,) = doctor.device(Config().replace({'device': 'cuda:63'}))
    assert finding.level == 'FAIL'
    assert 'cuda:63' in finding.found


def test_without_ros_it_warns_and_passes() -> None:
    # An interpreter that ignores its site packages has no rclpy, whatever is installed.
    code = (
        'from segnode.doctor import command as doctor\n'
        'print(*[finding.line() for finding in doctor.ros()], sep="\\n")'
    )
    site = next(path for path in sys.path if (Path(path) / 'numpy').is_dir())
    isolated = subprocess.run(
        [sys.executable, '-S', '-c', _with_packages(site, code)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert isolated.stderr == ''
    assert isolated.stdout.startswith('warn  ROS')
    assert 'source a ROS 2' in isolated.stdout


def _with_packages(site: str, code: str) -> str:
    """Return code that can import what the core needs and the standard library, no more."""
    finder = (
        'import importlib.machinery, sys\n'
        f'sys.path.insert(0, {str(ROOT)!r})\n'
        'class Finder:\n'
        '    def find_spec(name, path=None, target=None):\n'
        "        if name.split('.')[0] in ('numpy', 'tqdm', 'typing_extensions'):\n"
        f'            return importlib.machinery.PathFinder.find_spec(name, path or [{site!r}])\n'
        'sys.meta_path.append(Finder)\n'
    )
    return finder + code


def fake_probe(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any] | None) -> None:
    """Let ROS answer as told; None lets its process fail."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if answer is None:
            raise subprocess.CalledProcessError(1, command, '', 'first\nImportError: librcl.so')
        return subprocess.CompletedProcess(command, 0, json.dumps(answer) + '\n', '')

    monkeypatch.setattr('importlib.util.find_spec', lambda _: object())
    monkeypatch.setattr(doctor.subprocess, 'run', run)


GOOD: dict[str, Any] = {
    'distro': 'kilted',
    'rclpy': '9.1.2',
    'rmw': 'rmw_fastrtps_cpp',
    'errors': {},
    'type_hashes': {'vision_msgs/Detection2DArray': doctor.DETECTIONS_HASH},
}


@pytest.mark.parametrize(
    ('answer', 'level', 'expected'),
    [
        (GOOD, 'ok', 'cv_bridge'),
        (GOOD, 'ok', 'Kilted, rclpy 9.1.2, rmw_fastrtps_cpp'),
        (GOOD | {'distro': ''}, 'ok', 'a distribution that is not known here, rclpy 9.1.2'),
        (GOOD | {'type_hashes': {}}, 'ok', 'rmw_fastrtps_cpp'),
        (
            GOOD | {'errors': {'vision_msgs': 'No module named vision_msgs'}},
            'FAIL',
            'sudo apt install ros-kilted-vision-msgs',
        ),
        (
            GOOD | {'type_hashes': {'vision_msgs/Detection2DArray': 'RIHS01_0'}},
            'FAIL',
            'other machines do not understand',
        ),
        (GOOD | {'rmw': 'rmw_cyclonedds_cpp'}, 'warn', 'shipped profile'),
        (None, 'FAIL', 'librcl.so'),
    ],
)
def test_what_ros_answers(
    answer: dict[str, Any] | None,
    level: str,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_probe(monkeypatch, answer)
    findings = list(doctor.ros())
    worst = [finding for finding in findings if finding.level == level]
    assert any(expected in finding.line() for finding in worst)
    assert level == 'ok' or any(finding.remedy for finding in worst)
    assert level != 'ok' or {finding.level for finding in findings} == {'ok'}


def transport() -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor.transport()}


def test_transport_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profile = profile_variable()
    (other,) = {'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'} - {profile}
    for name in (profile, 'FASTDDS_BUILTIN_TRANSPORTS'):
        monkeypatch.delenv(name, raising=False)
    # The other Fast DDS reads that one.
    monkeypatch.setenv(other, str(tmp_path))
    unset = transport()['DDS profile']
    assert unset.level == 'warn'
    assert f'export {profile}={shipped_file("config/fastdds.xml")}' in unset.remedy
    monkeypatch.setenv(profile, str(tmp_path / 'missing.xml'))
    assert transport()['DDS profile'].level == 'FAIL'
    monkeypatch.setenv(profile, str(shipped_file('config/fastdds.xml')))
    assert transport()['DDS profile'].level == 'ok'
    assert 'DDS transports' not in transport()
    monkeypatch.setenv('FASTDDS_BUILTIN_TRANSPORTS', 'LARGE_DATA')
    assert transport()['DDS transports'].level == 'warn'


@pytest.mark.parametrize(('free', 'level'), [(64 * 2**20, 'warn'), (2**30, 'ok')])
def test_shared_memory(free: int, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage('/')._replace(free=free)
    monkeypatch.setattr(doctor.shutil, 'disk_usage', lambda _: usage)
    assert transport()['shared memory'].level == level


def test_a_device_is_chosen_without_the_rest_of_the_engine() -> None:
    """Else ``doctor`` would blame the device for any package that is broken."""
    code = (
        'import sys; sys.modules["safetensors"] = sys.modules["yaml"] = None; '
        'from segnode.engine.device import select_device; print(select_device("cpu"))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stdout.strip() == 'cpu', done.stderr


@pytest.mark.ros
@pytest.mark.parametrize(
    ('variables', 'text'),
    [
        ({'ENABLE': 'yes'}, 'ROS_SECURITY_ENABLE: expected true or false'),
        (
            {'ENABLE': 'true', 'STRATEGY': 'Enforce', 'KEYSTORE': '/no/keys'},
            'ROS_SECURITY_KEYSTORE: expected one with the enclave of this node',
        ),
    ],
)
def test_what_is_wrong_with_security_is_not_blamed_on_ros(
    variables: dict[str, str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f'ROS_SECURITY_{name}', value)
    (finding,) = doctor.ros()
    assert finding.level == 'FAIL'
    assert text in finding.found
