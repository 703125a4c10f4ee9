# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The JSON file: written anew, in whole or not at all, after every check."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from gpu_ladder.engines import __version__
from gpu_ladder.options import CHECKOUT, Options
from gpu_ladder.rungs import Rung
from segnode.cli import note
from segnode.output_files import write_json


class Record:
    """What was found so far.

    Attributes:
        path: where it lies: the first name like the asked one that is free.
        data: what is in it.
    """

    def __init__(self, options: Options) -> None:
        self.path, number = options.json, 1
        while self.path.exists() or self.benchmark_path.exists():
            number += 1
            self.path = options.json.with_stem(f'{options.json.stem}-{number}')
        self.data: dict[str, Any] = {
            'started': datetime.now(timezone.utc).isoformat(timespec='seconds'),
            'complete': False,
            'options': asdict(options),
            'versions': {'segnode': __version__, 'torch': torch.__version__, 'commit': _commit()},
            'machine': {},
            'rungs': [],
            'steps': [],
            'summary': {},
        }
        self.write()

    @property
    def benchmark_path(self) -> Path:
        """Where the benchmark's own figures go."""
        return self.path.with_stem(f'{self.path.stem}_benchmark')

    def write(self) -> None:
        write_whole(self.path, self.data)

    @contextmanager
    def rung(self, rung: Rung) -> Iterator[None]:
        """Have what is taken belong to a rung."""
        start_s = time.monotonic()
        entry: dict[str, Any] = {'name': rung.name, 'environment': rung.environment}
        entry |= {'operators': None, 'status': 'unfinished', 'checks': [], 'timings': []}
        self.data['rungs'].append(entry)
        try:
            yield
            entry['status'] = rung_status(entry)
        finally:
            entry['seconds'] = time.monotonic() - start_s
            self.write()

    def take(self, kind: str, value: Any) -> None:
        """Write down what the last rung sends; see ``checks.climb``."""
        entry = self.data['rungs'][-1]
        if kind == 'machine':
            self.data['machine'] = value
        elif kind == 'begin':
            note(f'{entry["name"]}: {value}')
        else:
            name = value['name']
            entry['timings' if name.startswith('time ') else 'checks'].append(value)
            if name == 'operators':
                entry['operators'] = value.get('figures', {}).get('operators')
            if value['status'] == 'failed':
                note(
                    f'{entry["name"]}: {name}: {value["error"]["type"]}: {value["error"]["line"]}'
                )
        self.write()


def results_of(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return checks and timings of a rung."""
    return [*entry['checks'], *entry['timings']]


def rung_status(entry: Mapping[str, Any]) -> str:
    """Return what became of a rung; it is skipped where nothing of its own could be run."""
    found = results_of(entry)
    if any(result['status'] == 'failed' for result in found):
        return 'failed'
    if any(result.get('late') for result in found):
        return 'unfinished'
    own = [result['status'] for result in found if result['name'] in ('operators', 'graphs')]
    return 'skipped' if 'skipped' in own else 'passed'


def step_problem(step: Mapping[str, Any]) -> str:
    """Return in a line what became of a command that failed."""
    ended = f'exit code {step["exit_code"]}'
    if step['exit_code'] is None:
        ended = f'not done in {step["limit_s"]:.0f} s'
    return ': '.join((ended, *step['last_lines'][-1:]))


def write_whole(path: Path, value: Any) -> None:
    """Write JSON so that whoever is interrupted leaves the old file or the new one."""
    write_json(path, plain(value))


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: a number that is not finite becomes text."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    known = isinstance(value, bool | int | float | str | None)
    return (
        value
        if known and not (isinstance(value, float) and not math.isfinite(value))
        else str(value)
    )


def _commit() -> str | None:
    command = ['git', '-C', str(CHECKOUT), 'rev-parse', 'HEAD']
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()
    return None
