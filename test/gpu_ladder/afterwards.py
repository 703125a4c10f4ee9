# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What comes after the ladder: the tests for a GPU and the benchmark, as far as there is time."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpu_ladder import limits, processes
from gpu_ladder.engines import IMPORT_DETECTRON2
from gpu_ladder.options import CHECKOUT, Options, shape_name
from gpu_ladder.outcome import no_time, skipped
from gpu_ladder.record import Record, step_problem, write_whole
from gpu_ladder.rungs import RUNGS, Rung
from segnode.cli import note


class Afterwards:
    """The rest of a run, until a monotonic time; nobody needs afterwards what lies in a folder."""

    def __init__(self, options: Options, record: Record, folder: Path, end_s: float) -> None:
        self._options, self._record = options, record
        self._folder, self._end_s = folder, end_s

    def test(self) -> None:
        """Run the tests for a GPU, where there is a pytest."""
        command = [sys.executable, '-m', 'pytest', '-m', 'gpu', '-q', *gpu_test_files()]
        if importlib.util.find_spec('pytest') is None:
            self._add('pytest', command, skipped('pytest is not installed'))
            return
        bounds_s = (limits.LEAST_TESTS_S, limits.TESTS_S)
        # That the time is over is a failure of the whole.
        self._run('pytest', command, bounds_s, RUNGS['triton-graphs'], late=True)

    def benchmark(self) -> None:
        """Run the benchmark case by case, and join what the cases leave."""
        missing, rung = self._missing_detectron2(), self._best()
        if missing:
            note(f'the benchmark runs against torchvision alone: {missing}')
        against = ['torchvision'] if missing else ['detectron2', 'torchvision']
        said: dict[str, Any] = {'json': None, 'against': against, 'environment': rung.environment}
        self._record.data['benchmark'] = said
        joined: dict[str, Any] = {}
        figures, bounds_s = (
            self._folder / 'case.json',
            (limits.LEAST_BENCHMARK_S, limits.BENCHMARK_S),
        )
        for name, arguments in benchmark_cases(self._options, against):
            command = [sys.executable, '-m', 'segnode', 'benchmark', *arguments]
            hidden = ('--json', str(figures))
            step = self._run(f'benchmark {name}', command, bounds_s, rung, hidden=hidden)
            if step['status'] == 'passed':
                case = json.loads(figures.read_text(encoding='utf-8'))
                joined = joined or {**case, 'rows': [], 'parts': []}
                for key in ('rows', 'parts'):
                    joined[key] += case[key]
                write_whole(self._record.benchmark_path, joined)
                said['json'] = self._record.benchmark_path.name
                self._record.write()

    def _best(self) -> Rung:
        """Return the highest rung that passed, else the lowest one."""
        rungs = self._record.data['rungs']
        passed = [entry['name'] for entry in rungs if entry['status'] == 'passed']
        # Where none was climbed, the engine as it comes.
        return RUNGS[['plain' if rungs else 'triton-graphs', *passed][-1]]

    def _missing_detectron2(self) -> str:
        """Return why Detectron2 cannot be imported, empty where it can."""
        command = [sys.executable, '-c', IMPORT_DETECTRON2]
        limit_s = min(90.0, max(self._end_s - time.monotonic(), 1.0))
        done = processes.run(command, limit_s, os.environ, self._folder / 'step.log')
        return '' if done['exit_code'] == 0 else ''.join(done['last_lines'][-1:]) or 'it hangs'

    def _run(
        self,
        name: str,
        command: list[str],
        bounds_s: tuple[float, float],
        rung: Rung,
        *,
        late: bool = False,
        hidden: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Run a command on a rung, and write it down without its ``hidden`` arguments.

        ``bounds_s`` are the seconds for which it is worth beginning, and after which it hangs.
        """
        left_s = self._end_s - time.monotonic()
        if left_s < bounds_s[0]:
            return self._add(name, command, skipped(no_time(left_s, bounds_s[0]), late=late))
        limit_s, log = min(bounds_s[1], left_s), self._folder / 'step.log'
        note(f'{name}, {limit_s:.0f} s at most')
        done = processes.run([*command, *hidden], limit_s, rung.whole_environment(), log)
        if done['exit_code'] is None and left_s < bounds_s[1]:
            reason = f'no time: not done in the last {left_s:.0f} s'
            return self._add(name, command, done | skipped(reason, late=late))
        status = 'passed' if done['exit_code'] == 0 else 'failed'
        if status == 'failed':
            note(f'{name}: {step_problem(done)}')
        return self._add(name, command, {'status': status, **done})

    def _add(self, name: str, command: Sequence[str], found: dict[str, Any]) -> dict[str, Any]:
        step = {'name': name, 'command': shlex.join(command), **found}
        self._record.data['steps'].append(step)
        self._record.write()
        return step


def gpu_test_files() -> list[str]:
    """Return the test files with tests for a GPU: others may import what is not there."""
    marked = re.compile(r'^(pytestmark = |@)pytest\.mark\.gpu\b', re.MULTILINE)
    files = sorted((CHECKOUT / 'test').rglob('test_*.py'))
    return [str(f.relative_to(CHECKOUT)) for f in files if marked.search(f.read_text('utf-8'))]


def benchmark_cases(options: Options, against: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield name and arguments of every case, the most telling first."""
    shared = ['--device', options.device, '--model', options.timed]
    for detections, batch in ((20, 1), (5, 1), (100, 1), (20, 4), (5, 4), (100, 4)):
        for shape in map(shape_name, options.shapes):
            sizes = ['--shapes', shape, '--detections', str(detections), '--batch', str(batch)]
            name = f'{shape}, {detections} detections, batch {batch}'
            yield name, [*shared, '--plant', *sizes, '--against', ','.join(against)]
        if (detections, batch) == (20, 1):
            only = ['--against', 'detectron2'] if 'detectron2' in against else []
            yield 'parts', [*shared, '--parts', *only]
