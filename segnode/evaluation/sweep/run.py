# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A sweep's work: runs that answer for many rows, latencies in turns, and the rows' scores.

The folder is its memory. What a file hangs on is in its name, so that the same command goes on
where it was stopped, other values take up what is there, and changed bags, models or versions
start anew:

    runs/<name>/          a run as `evaluate` writes it, without bag and page
    timings/<name>.json   a row's latencies, turn by turn
    rows/<name>.json      a finished row
    agreements/           of a row with the reference
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segnode import __version__
from segnode.config import Config, parameters
from segnode.engine import Engine
from segnode.errors import ConfigError, OutputError
from segnode.evaluation.bag_truth import BagTruth
from segnode.evaluation.frames import read_frames
from segnode.evaluation.latencies import latencies_of
from segnode.evaluation.replay import Request
from segnode.evaluation.results_file import ResultsWriter
from segnode.evaluation.run import FRAMES, RESULTS, SUMMARY, evaluate
from segnode.evaluation.sweep import latency
from segnode.evaluation.sweep.agreement import agreement
from segnode.evaluation.sweep.book import digest, identity, read_saved, saved
from segnode.evaluation.sweep.choice import reference
from segnode.evaluation.sweep.derive import (
    Limits,
    answers_for_classes,
    derived_results,
    effective,
    plan_runs,
)
from segnode.evaluation.sweep.grid import Row
from segnode.evaluation.truth import read_truth, scored
from segnode.hardware.machine import describe_machine
from segnode.output_files import make_folder, write_json

RUNS, TIMINGS, ROWS, AGREEMENTS = 'runs', 'timings', 'rows', 'agreements'
SCORES = ('box_ap', 'mask_ap', 'streaming_box_ap', 'streaming_mask_ap')

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Run:
    """A run that is done: its folder, its limits, and why it ended early, '' where it did not."""

    folder: Path
    limits: Limits
    stopped: str


def sweep(
    rows: Sequence[Row],
    selection: Request,
    folder: Path,
    report: Report,
    *,
    latency_frames: int,
    agreements: bool,
) -> tuple[list[dict[str, Any]], int | None]:
    """Run, time and score every row that is not in the folder yet.

    Args:
        rows: of the grid.
        selection: frames and ground truth.
        folder: segnode's own, made already.
        report: is told in a line what is done and what is left out.
        latency_frames: how many frames latency is measured on.
        agreements: whether agreement with the reference is wanted.

    Returns:
        A row's results each, in the order of ``rows``, and the position of the row that
        agreement is measured against, None without.

    Raises:
        SegnodeError: nothing could be done at all.
        KeyboardInterrupt: what is done stays.
    """
    for name in (RUNS, TIMINGS, ROWS, AGREEMENTS):
        make_folder(folder / name)
    truth = read_truth(selection, report)
    # One engine at a time in memory.
    engines: dict[str, list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        flat = row.config.flat()
        fixed = {p.name: flat[p.name] for p in parameters(Config) if not p.runtime}
        engines[digest(fixed)].append(position)
    found: dict[int, dict[str, Any]] = {}
    for positions in engines.values():
        own = [rows[position] for position in positions]
        work = _EngineWork(own, selection, folder, report, truth, latency_frames)
        found |= zip(positions, work.rows(), strict=True)
        del work
        gc.collect()
    # A row may have been one of another grid before, which told it by other values.
    results = [{'settings': row.varied} | found[k] for k, row in enumerate(rows)]
    compared = reference(results) if agreements else None
    for result in results:
        result['agreement'] = None
        if compared is not None and result['failed'] is None:
            result['agreement'] = _agreement(result, results[compared], folder)
    return results, compared


class _EngineWork:
    """The rows that one engine runs."""

    def __init__(
        self,
        rows: Sequence[Row],
        selection: Request,
        folder: Path,
        report: Report,
        truth: BagTruth | None,
        latency_frames: int,
    ) -> None:
        self._rows = rows
        self._selection = selection
        self._folder = folder
        self._report = report
        self._truth = truth
        self._latency_frames = latency_frames
        self._said: set[str] = set()
        self._engine = engine = Engine(rows[0].config, report=report)
        self._settings = []
        # A class that the model does not know is told of before hours of work.
        for row in rows:
            engine.configure(row.config)
            self._settings.append(engine.settings)
        self._frames = _identity(engine, selection)
        self._names = [
            digest({**self._frames, 'config': row.config.flat(), 'truth': _truth(selection),
                    'latency_frames': latency_frames})
            for row in rows
        ]  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        """Return every row, done now where it was not before."""
        paths = [self._folder / ROWS / f'{name}.json' for name in self._names]
        missing = [k for k, path in enumerate(paths) if read_saved(path) is None]
        if len(missing) < len(paths):
            self._report(f'{len(paths) - len(missing)} of {len(paths)} rows were done before')
        if missing:
            runs = self._runs()
            times = self._times(missing, runs)
            for k in missing:
                write_json(paths[k], self._row(k, runs[k], times[self._names[k]]))
        found = [read_saved(path) for path in paths]
        return [row for row in found if row is not None]

    def _runs(self) -> list[_Run]:
        """Return the run that answers for each row."""
        configs = [row.config for row in self._rows]
        runs: dict[int, _Run] = {}
        planned = plan_runs(configs, self._settings)
        for number, loose in enumerate(planned, start=1):
            run = self._run(loose.config, f'run {number} of {len(planned)}')
            if self._truth is not None and number == 1:
                # One that belongs to other frames is told of before further runs.
                frames = list(read_frames(run.folder / FRAMES))
                self._truth.match(frames, round(self._selection.window_ms * 1e6))
            choices = {configs[k].filter.classes for k in loose.rows}
            if len(choices) > 1 and not answers_for_classes(
                read_frames(run.folder / FRAMES), self._settings[loose.rows[0]].max_instances
            ):
                self._report(
                    'some frames reached max_instances, so that each choice of classes takes a '
                    'run of its own'
                )
                own = [configs[k] for k in loose.rows], [self._settings[k] for k in loose.rows]
                for each in plan_runs(*own, each_choice_of_classes=True):
                    run = self._run(each.config, 'run of a choice of classes')
                    runs |= {loose.rows[k]: run for k in each.rows}
            else:
                runs |= dict.fromkeys(loose.rows, run)
        return [runs[k] for k in range(len(configs))]

    def _run(self, config: Config, what: str) -> _Run:
        engine = self._engine
        engine.configure(config)
        folder = self._folder / RUNS / digest({**self._frames, 'config': config.flat()})
        summary = read_saved(folder / SUMMARY)
        if summary is None or _interrupted(summary):
            self._report(f'{what}: short side {engine.settings.short_side}, {engine.precision}')
            only_frames = replace(
                self._selection,
                annotations=None,
                label_topic='',
                output_bag=False,
            )
            summary = evaluate(engine, only_frames, folder, self._report)
        if _interrupted(summary):
            raise KeyboardInterrupt
        limits = Limits.of(effective(engine.settings, engine.class_names))
        return _Run(folder, limits, summary['stopped'])

    def _times(self, missing: Sequence[int], runs: Sequence[_Run]) -> dict[str, dict[str, Any]]:
        """Return the latencies of the rows that are missing, by name."""
        usable = [k for k in missing if not runs[k].stopped]
        frames = list(read_frames(runs[usable[0]].folder / FRAMES)) if usable else []
        chosen = latency.choose_sample(frames, self._latency_frames)
        sample = latency.decode_sample(self._selection, chosen)
        times: dict[str, dict[str, Any]] = {self._names[k]: {'turns_ms': []} for k in missing}
        if sample:
            configs = {self._names[k]: self._rows[k].config for k in usable}
            times |= latency.measure(self._engine, configs, sample, self._folder / TIMINGS)
        return times

    def _row(self, k: int, run: _Run, times: dict[str, Any]) -> dict[str, Any]:
        """Score a row."""
        engine = self._engine
        told = effective(self._settings[k], engine.class_names)
        limits = Limits.of(told)
        result: dict[str, Any] = {
            **dict.fromkeys(SCORES),
            'latency_ms': latency.summary(times['turns_ms']) if times.get('turns_ms') else None,
            'derived': limits != run.limits,
            'failed': run.stopped or times.get('failed'),
            'instances': 0,
            'effective': told | {'precision': engine.precision, 'device': str(engine.device)},
            'model': engine.model_name,
            'weights_sha256': engine.weights_sha256,
            'run': run.folder.name,
            'name': self._names[k],
        }
        if result['failed']:
            return result
        if result['latency_ms'] is None:
            return result | {'failed': 'no frame was answered'}
        results = self._folder / ROWS / f'.{self._names[k]}.part'
        try:
            with results.open('w', encoding='utf-8', newline='') as stream:
                writer = ResultsWriter(stream)
                for _, entries in derived_results(run.folder / RESULTS, limits):
                    writer.write(entries)
                writer.end()
            result['instances'] = writer.written
            if self._truth is not None:
                found = scored(
                    self._truth,
                    latencies_of(result['latency_ms']['p50']),
                    self._selection,
                    run.folder / FRAMES,
                    results,
                    engine.class_names,
                    self._say_once,
                )
                result |= {name: found[name] for name in SCORES}
        except OSError as error:
            raise OutputError(f'{results}: cannot be written ({error.strerror})') from None
        finally:
            results.unlink(missing_ok=True)
        return result

    def _say_once(self, line: str) -> None:
        """Report what is odd about the ground truth for the first row; it is so for all."""
        if line not in self._said and not line.startswith('latencies: '):
            self._said.add(line)
            self._report(line)


def _agreement(row: dict[str, Any], compared: dict[str, Any], folder: Path) -> float | None:
    """Return the agreement of a row with another; saved, as it looks at every frame."""

    def compute() -> dict[str, Any]:
        ours, theirs = (
            derived_results(folder / RUNS / each['run'] / RESULTS, Limits.of(each['effective']))
            for each in (row, compared)
        )
        return {'agreement': agreement(ours, theirs)}

    path = folder / AGREEMENTS / f'{row["name"]}-{compared["name"]}.json'
    value: float | None = saved(path, compute)['agreement']
    return value


def _interrupted(summary: dict[str, Any]) -> bool:
    return str(summary.get('stopped', '')).startswith('interrupted')


def _identity(engine: Engine, selection: Request) -> dict[str, Any]:
    """Return what a run hangs on beside its settings.

    Raises:
        ConfigError: a bag is not there any more.
    """
    machine = describe_machine(engine.device)
    names = ('python', 'torch', 'torchvision', 'numpy', 'device', 'processor', 'cpus', 'threads')
    try:
        bags = [identity(path) for path in selection.bags]
    except OSError as error:
        raise ConfigError(f'{error.filename}: cannot be read ({error.strerror})') from None
    return {
        'segnode': __version__,
        'machine': {name: machine.get(name) for name in (*names, 'gpu', 'cuda', 'cudnn')},
        'weights_sha256': engine.weights_sha256,
        'precision': engine.precision,
        'bags': bags,
        'topics': selection.topics,
        'range': (selection.start_s, selection.end_s, selection.every),
        'mono16_bits': selection.mono16_bits,
    }


def _truth(selection: Request) -> dict[str, Any]:
    """Return what scores hang on beside the results."""
    annotations = selection.annotations
    return {
        'annotations': None if annotations is None else identity(annotations),
        'label_topic': selection.label_topic,
        'window_ms': selection.window_ms,
    }
