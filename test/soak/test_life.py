# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""How a process of the node ends, with small processes in its place."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from segnode.demo.processes import Child
from segnode.soak.life import Life

RIGHT = 'signal.signal(signal.SIGINT, lambda *_: sys.exit(0))'


def start(folder: Path, program: str) -> tuple[Life, Child]:
    """Start a program in place of the node, and wait until it runs."""
    log = folder / 'node.log'
    text = f'import signal, sys, time; {program}; print("up", flush=True); time.sleep(60)'
    child = Child('node', ['-c', text], os.environ, log, None)
    end_s = time.monotonic() + 60
    while 'up' not in log.read_text() and child.process.poll() is None:
        assert time.monotonic() < end_s
        time.sleep(0.01)
    return Life(3, 'raw', False, time.monotonic(), ready_s=time.monotonic()), child


def test_a_right_end(tmp_path: Path) -> None:
    life, child = start(tmp_path, RIGHT)
    life.sample(child.process.pid)
    assert life.end(child, signal.SIGINT) == []
    assert (life.exit_code, life.ended_by) == (0, 'SIGINT')
    assert life.ending_s < 10
    (sample,) = life.samples
    assert sample.memory_mib > 1
    assert sample.files >= 3
    assert sample.threads == 1


def test_a_kill_is_no_crash(tmp_path: Path) -> None:
    life, child = start(tmp_path, RIGHT)
    assert life.end(child, signal.SIGKILL) == []
    assert life.exit_code == -signal.SIGKILL


def test_a_traceback_and_a_code_are_told(tmp_path: Path) -> None:
    life, child = start(tmp_path, 'pass')
    code, traceback = life.end(child, signal.SIGINT)
    assert code.startswith('life 3: ended by SIGINT with code ')
    assert 'KeyboardInterrupt' in code
    assert traceback == f'life 3: a traceback in {child.log}'


@pytest.mark.parametrize(
    ('program', 'finding'),
    [
        ('sys.exit("no more memory")', 'ended by itself with code 1: no more memory'),
        ('sys.exit(0)', 'ended by itself'),
    ],
)
def test_a_crash_is_told(program: str, finding: str, tmp_path: Path) -> None:
    life, child = start(tmp_path, program)
    assert life.close(child) == [f'life 3: {finding}']


def test_a_process_that_does_not_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('segnode.soak.life.PATIENCE_S', 0.2)
    monkeypatch.setattr('segnode.soak.life.ENDING_LIMIT_S', 0.1)
    life, child = start(tmp_path, 'signal.signal(signal.SIGINT, signal.SIG_IGN)')
    code, late = life.end(child, signal.SIGINT)
    assert code.startswith('life 3: ended by SIGINT with code -')
    assert late.startswith('life 3: took ')


def test_a_process_that_has_ended_and_was_not_waited_for_has_no_sample(tmp_path: Path) -> None:
    life, child = start(tmp_path, RIGHT)
    child.process.kill()
    os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)
    life.sample(child.process.pid)
    assert life.samples == []
    child.process.wait()
