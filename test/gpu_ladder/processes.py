# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Processes and their budgets: one for every rung, begun anew behind what it does not survive.

One kernel that reads beyond its memory makes the device unusable for all that its process does
afterwards.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from gpu_ladder import checks, limits, reference
from gpu_ladder.options import CHECKOUT, Options
from gpu_ladder.outcome import TAIL, failure, no_time, skipped
from gpu_ladder.record import Entry, Record
from gpu_ladder.rungs import RUNGS, Rung

PROGRAM = Path(__file__).parent
CHILD = '--child'


class Ladder:
    """All rungs, one after the other."""

    def __init__(self, options: Options, record: Record, folder: Path, end_s: float) -> None:
        """Prepare; what lies in ``folder`` nobody needs afterwards, ``end_s`` is monotonic."""
        self._options = options
        self._record = record
        self._folder = folder
        self._end_s = end_s
        self._steps = checks.steps_of(options)

    def climb(self) -> None:
        """Climb every rung, each as far as its time allows."""
        prepared = reference.prepare(self._options)
        if not self._options.in_process:
            torch.save((self._options, prepared), self._folder / 'reference.pt')
        for name in self._options.rungs:
            rung, start_s = RUNGS[name], time.monotonic()
            deadline_s = min(start_s + limits.RUNG_S, self._end_s)
            with self._record.rung(rung, len(self._steps)) as entry:
                if self._options.in_process:
                    for message in checks.climb(rung, self._options, prepared, 0, deadline_s):
                        entry.take(*message)
                    continue
                first = 0
                while first < len(self._steps):
                    first = self._watch(rung, entry, first, deadline_s)

    def _watch(self, rung: Rung, entry: Entry, first: int, deadline_s: float) -> int:
        """Watch one process; return the index of the first step that is still to do."""
        left_s = deadline_s - time.monotonic()
        if left_s < 1:
            return self._lose(entry, first, skipped(no_time(left_s), late=True))
        log = self._folder / f'{rung.name}-{first}.log'
        here, there = Pipe(duplex=False)
        own = (self._folder, rung.name, first, there.fileno(), deadline_s)
        command = [sys.executable, PROGRAM, CHILD, *own]
        process = start(command, log, os.environ, pass_fds=(there.fileno(),))
        there.close()
        at, limit_s, since_s, underway, hangs = (
            first,
            limits.START_S,
            time.monotonic(),
            False,
            True,
        )
        try:
            while here.poll(max(min(limit_s, deadline_s - time.monotonic()), 0)):
                kind, value = here.recv()
                entry.take(kind, value)
                since_s, at = time.monotonic(), at + (kind == 'result')
                underway = kind == 'begin'
                limit_s = self._steps[at].budget_s if underway else limits.START_S
            # It tells where it is, in its log.
            process.send_signal(signal.SIGUSR1)
            time.sleep(0.5)
        except (EOFError, OSError):
            hangs = False
        finally:
            here.close()
            # One that has closed its end of the pipe is about to end by itself.
            ended = end(process, 0.0 if hangs else 10.0)
        if at == len(self._steps) or not (hangs or underway or at == first):
            return at
        seconds, tail = time.monotonic() - since_s, last_lines(log)
        if not hangs:
            line = ': '.join((f'the process ended with {ended}', *tail[-1:]))
            found = failure('ProcessLost', line, tail)
        elif time.monotonic() < deadline_s:
            found = failure('Hanging', f'no answer in {limit_s:.0f} s', tail)
        else:
            found = skipped(f'no time: not done in the last {seconds:.0f} s', late=True)
        return self._lose(entry, at, {**found, 'seconds': seconds})

    def _lose(self, entry: Entry, at: int, found: dict[str, Any]) -> int:
        entry.take('result', {'name': self._steps[at].name, **found})
        return at + 1


def child(folder: str, rung: str, first: str, pipe: str, deadline_s: str) -> int:
    """Climb one rung for the process that watches this one, and send what becomes of it."""
    # Whoever ends a check that hangs wants to know where.
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    options, prepared = torch.load(Path(folder) / 'reference.pt', weights_only=False)
    with Connection(int(pipe), readable=False) as out:
        climb = checks.climb(RUNGS[rung], options, prepared, int(first), float(deadline_s))
        for message in climb:
            out.send(message)
    return 0


def run(
    command: Sequence[str], limit_s: float, environment: Mapping[str, str], log: Path
) -> dict[str, Any]:
    """Run a command; ``exit_code`` is None where it took too long."""
    start_s = time.monotonic()
    process, code = start(command, log, environment), None
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(limit_s)
    finally:
        end(process)
    seconds = time.monotonic() - start_s
    return {
        'exit_code': code,
        'limit_s': limit_s,
        'seconds': seconds,
        'last_lines': last_lines(log),
    }


def start(
    command: Sequence[object], log: Path, environment: Mapping[str, str], **more: Any
) -> subprocess.Popen[bytes]:
    """Start a process in the checkout, in a session of its own, that writes into a log."""
    with log.open('wb') as output:
        return subprocess.Popen(
            [str(word) for word in command],
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **more,
        )


def end(process: subprocess.Popen[bytes], patience_s: float = 0.0) -> str:
    """End a process with all that it started; return how it ended."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    return f'signal {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'


def last_lines(log: Path) -> list[str]:
    """Return the end of a log without empty lines and the steps of progress bars."""
    text = log.read_bytes().decode('utf-8', errors='replace')
    lines = (line.rstrip().rpartition('\r')[2] for line in text.split('\n'))
    return [line[:400] for line in lines if line][-TAIL:]
