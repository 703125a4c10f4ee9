# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The JSON file: written anew, in whole or not at all, after every check."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from gpu_ladder.engines import __version__
from gpu_ladder.options import CHECKOUT, Options
from gpu_ladder.outcome import failed
from gpu_ladder.rungs import Rung
from segnode.cli import note, write_json


class Record:
    """What was found so far.

    Attributes:
        path: where it lies: the first name like the asked one that is free.
        data: what is in it.
    """

    def __init__(self, options: Options) -> None:
        """Write a first record."""
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
        """Replace the file."""
        write_whole(self.path, self.data)

    @contextmanager
    def error_kept(self) -> Iterator[None]:
        """Write down what is raised, and go on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - what it says is the finding
            self.data['error'] = failed(error)['error']
            self.write()

    @contextmanager
    def rung(self, rung: Rung, steps: int) -> Iterator[Entry]:
        """Yield a rung's part of the record."""
        data: dict[str, Any] = {
            'name': rung.name,
            'environment': rung.environment,
            'operators': None,
            'status': 'unfinished',
            'checks': [],
            'timings': [],
        }
        self.data['rungs'].append(data)
        start_s = time.monotonic()
        with tqdm(total=steps, desc=rung.name, unit='check', disable=None, leave=False) as bar:
            try:
                yield Entry(self, data, bar)
                data['status'] = rung_status(data)
            finally:
                data['seconds'] = time.monotonic() - start_s
                self.write()


@dataclass(frozen=True, slots=True)
class Entry:
    """A rung's part of the record, while it is climbed."""

    record: Record
    data: dict[str, Any]
    bar: tqdm[Any]

    def take(self, kind: str, value: Any) -> None:
        """Write down what a rung sends."""
        if kind == 'machine':
            self.record.data['machine'] = value
        elif kind == 'begin':
            self.bar.set_description(f'{self.data["name"]}: {value}')
        else:
            self.data['timings' if value['name'].startswith('time ') else 'checks'].append(value)
            if value['name'] == 'operators':
                self.data['operators'] = value.get('figures', {}).get('operators')
            if value['status'] == 'failed':
                error = value['error']
                note(f'{self.data["name"]}: {value["name"]}: {error["type"]}: {error["line"]}')
            self.bar.update()
        self.record.write()


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
    own = [result for result in found if result['name'] in ('operators', 'graphs')]
    return 'skipped' if any(result['status'] == 'skipped' for result in own) else 'passed'


def write_whole(path: Path, value: Any) -> None:
    """Write JSON so that whoever is interrupted leaves the old file or the new one."""
    part = path.with_name(path.name + '.part')
    write_json(part, plain(value))
    part.replace(path)


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: a number that is not finite becomes text."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _commit() -> str | None:
    command = ['git', '-C', str(CHECKOUT), 'rev-parse', 'HEAD']
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()
    return None
