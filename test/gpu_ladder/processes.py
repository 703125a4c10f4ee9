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
from gpu_ladder.record import Record
from gpu_ladder.rungs import RUNGS

PROGRAM = Path(__file__).parent
CHILD = '--child'


def climb_all(options: Options, record: Record, folder: Path, end_s: float) -> None:
    """Climb every rung, each as far as its time allows; ``end_s`` is monotonic, as all of them."""
    prepared, steps = reference.prepare(options), checks.steps_of(options)
    if not options.in_process:
        torch.save((options, prepared), folder / 'reference.pt')
    for rung in (RUNGS[name] for name in options.rungs):
        deadline_s = min(time.monotonic() + limits.RUNG_S, end_s)
        with record.rung(rung):
            if options.in_process:
                for message in checks.climb(rung, options, prepared, 0, deadline_s):
                    record.take(*message)
                continue
            first = 0
            while first < len(steps):
                left_s = deadline_s - time.monotonic()
                if left_s < 1:
                    late = skipped(no_time(left_s), late=True)
                    record.take('result', {'name': steps[first].name, **late})
                    first += 1
                else:
                    first = watch(rung.name, steps, first, record, folder, deadline_s)


def watch(
    rung: str,
    steps: list[checks.Step],
    first: int,
    record: Record,
    folder: Path,
    deadline_s: float,
) -> int:
    """Watch one process climb; return the index of the first step that is still to do."""
    at, limit_s, underway, hangs = first, limits.START_S, False, True
    log, since_s = folder / f'{rung}-{first}.log', time.monotonic()
    here, there = Pipe(duplex=False)
    pipe = there.fileno()
    command = [sys.executable, PROGRAM, CHILD, folder, rung, first, pipe, deadline_s]
    process = start(command, log, os.environ, pass_fds=(pipe,))
    there.close()
    try:
        while here.poll(max(min(limit_s, deadline_s - time.monotonic()), 0)):
            try:
                kind, value = here.recv()
            except (EOFError, OSError):
                hangs = False
                break
            record.take(kind, value)
            since_s, at, underway = time.monotonic(), at + (kind == 'result'), kind == 'begin'
            limit_s = steps[at].budget_s if underway else limits.START_S
        if hangs:
            # It tells where it is, in its log.
            process.send_signal(signal.SIGUSR1)
            time.sleep(0.5)
    finally:
        here.close()
        # One that has closed its end of the pipe is about to end by itself.
        ended = end(process, 0.0 if hangs else 10.0)
    if at == len(steps) or not (hangs or underway or at == first):
        return at
    seconds, tail = time.monotonic() - since_s, last_lines(log)
    if not hangs:
        found = failure('ProcessLost', ': '.join((f'it ended with {ended}', *tail[-1:])), tail)
    elif time.monotonic() < deadline_s:
        found = failure('Hanging', f'no answer in {limit_s:.0f} s', tail)
    else:
        found = skipped(f'no time: not done in the last {seconds:.0f} s', late=True)
    record.take('result', {'name': steps[at].name, **found, 'seconds': seconds})
    return at + 1


def child(folder: str, rung: str, first: str, pipe: str, deadline_s: str) -> int:
    """Climb one rung for the process that watches this one, and send what becomes of it."""
    # Whoever ends a check that hangs wants to know where.
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    options, prepared = torch.load(Path(folder) / 'reference.pt', weights_only=False)
    with Connection(int(pipe), readable=False) as out:
        given = (RUNGS[rung], options, prepared, int(first), float(deadline_s))
        for message in checks.climb(*given):
            out.send(message)
    return 0


def run(
    command: Sequence[str], limit_s: float, environment: Mapping[str, str], log: Path
) -> dict[str, Any]:
    """Run a command; ``exit_code`` is None where it took too long."""
    start_s = time.monotonic()
    process, code = start(command, log, environment, cwd=CHECKOUT), None
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(limit_s)
    finally:
        end(process)
    found = {'exit_code': code, 'limit_s': limit_s, 'seconds': time.monotonic() - start_s}
    return {**found, 'last_lines': last_lines(log)}


def start(
    command: Sequence[object], log: Path, environment: Mapping[str, str], **more: Any
) -> subprocess.Popen[bytes]:
    """Start a process, in a session of its own, that writes into a log."""
    words = [str(word) for word in command]
    with log.open('wb') as out:
        more |= {'stdin': subprocess.DEVNULL, 'stdout': out, 'stderr': subprocess.STDOUT}
        return subprocess.Popen(words, env=environment, start_new_session=True, **more)


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
