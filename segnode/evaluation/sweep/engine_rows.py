# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The rows that one engine answers: their runs, latencies and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segnode import __version__
from segnode.config import Config
from segnode.engine import Engine
from segnode.errors import ConfigError, OutputError
from segnode.evaluation.bag_truth import BagTruth
from segnode.evaluation.frames import read_frames
from segnode.evaluation.latencies import latencies_of
from segnode.evaluation.metrics import common_categories
from segnode.evaluation.replay import Request
from segnode.evaluation.results_file import ResultsWriter
from segnode.evaluation.run import FRAMES, RESULTS, SUMMARY, evaluate
from segnode.evaluation.sweep import latency
from segnode.evaluation.sweep.book import digest, identity, read_saved
from segnode.evaluation.sweep.derive import (
    Limits,
    answers_for_classes,
    derived_results,
    effective,
    plan_runs,
)
from segnode.evaluation.sweep.grid import Row
from segnode.evaluation.truth import scored
from segnode.hardware.machine import describe_machine
from segnode.output_files import write_json

RUNS, TIMINGS, ROWS = 'runs', 'timings', 'rows'
SCORES = ('box_ap', 'mask_ap', 'streaming_box_ap', 'streaming_mask_ap')
# What the summary of a run that never was would say.
_NEVER = {'stopped': 'not begun', 'processed': 0, 'reasons': {}}


@dataclass(frozen=True, slots=True)
class _Run:
    """A run that is over: its folder, its limits, and what its ``summary.json`` says."""

    folder: Path
    limits: Limits
    summary: dict[str, Any]

    @property
    def failed(self) -> str:
        """Why it answers for no row, '' where it does."""
        stopped = str(self.summary['stopped'])
        if stopped or self.summary['processed']:
            return stopped
        return next(iter(self.summary['reasons']), 'the bag has no frames')


def unscored(reason: str | None) -> dict[str, Any]:
    """Return the results of a row that has none, and why, None where they come yet."""
    return {
        **dict.fromkeys(SCORES),
        'latency_ms': None,
        'derived': False,
        'failed': reason,
        'instances': 0,
    }


class EngineRows:
    """The rows that one engine runs."""

    def __init__(
        self,
        rows: Sequence[Row],
        selection: Request,
        folder: Path,
        report: Callable[[str], None],
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
        failed: dict[int, dict[str, Any]] = {}
        missing = [k for k, path in enumerate(paths) if read_saved(path) is None]
        if len(missing) < len(paths):
            self._report(f'{len(paths) - len(missing)} of {len(paths)} rows were done before')
        if missing:
            runs = self._runs()
            times = self._times(missing, runs)
            for k in missing:
                row = self._row(k, runs[k], times[self._names[k]])
                # What failed is tried again at the next start.
                failed[k] = row
                if row['failed'] is None:
                    write_json(paths[k], row)
        return [read_saved(path) or failed[k] for k, path in enumerate(paths)]

    def _runs(self) -> list[_Run]:
        """Return the run that answers for each row."""
        configs = [row.config for row in self._rows]
        runs: dict[int, _Run] = {}
        planned = plan_runs(configs, self._settings)
        for number, loose in enumerate(planned, start=1):
            run = self._run(loose.config, f'run {number} of {len(planned)}')
            if len(loose.rows) > 1 and self._engine.device.type != 'cpu':
                self._say_once(
                    'rows that share a run may differ from runs of their own by single pixels at '
                    'the edges of masks, as a GPU may round otherwise for other numbers of masks'
                )
            if number == 1:
                self._check_truth(run)
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

    def _check_truth(self, run: _Run) -> None:
        """Refuse, before further runs, a ground truth of other frames or classes.

        Raises:
            AnnotationError: it is one.
        """
        if self._truth is not None:
            window_ns = round(self._selection.window_ms * 1e6)
            matching = self._truth.match(list(read_frames(run.folder / FRAMES)), window_ns)
            common_categories(
                self._engine.class_names,
                self._truth.annotations,
                matching.image_ids.values(),
                self._say_once,
            )

    def _run(self, config: Config, what: str) -> _Run:
        """Return the run with some settings, done now where it is not there yet."""
        engine = self._engine
        engine.configure(config)
        folder = self._folder / RUNS / digest({**self._frames, 'config': config.flat()})
        limits = Limits.of(effective(engine.settings, engine.class_names))
        run = _Run(folder, limits, read_saved(folder / SUMMARY) or _NEVER)
        if run.failed:
            self._report(f'{what}: short side {engine.settings.short_side}, {engine.precision}')
            only_frames = replace(
                self._selection, annotations=None, label_topic='', output_bag=False
            )
            run = replace(run, summary=evaluate(engine, only_frames, folder, self._report))
        if run.failed.startswith('interrupted'):
            raise KeyboardInterrupt
        for reason, count in run.summary['reasons'].items():
            self._say_once(f'left out {count} frames: {reason}')
        return run

    def _times(self, missing: Sequence[int], runs: Sequence[_Run]) -> dict[str, dict[str, Any]]:
        """Return the latencies of the rows that are missing, by name."""
        usable = [k for k, run in enumerate(runs) if not run.failed]
        # Of the first run, whatever is missing, so that all rows have the same sample.
        frames = list(read_frames(runs[usable[0]].folder / FRAMES)) if usable else []
        chosen = latency.choose_sample(frames, self._latency_frames)
        sample = latency.decode_sample(self._selection, chosen)
        times: dict[str, dict[str, Any]] = {self._names[k]: {'turns_ms': []} for k in missing}
        if sample:
            configs = {self._names[k]: self._rows[k].config for k in missing if k in usable}
            times |= latency.measure(self._engine, configs, sample, self._folder / TIMINGS)
        return times

    def _row(self, k: int, run: _Run, times: dict[str, Any]) -> dict[str, Any]:
        """Score a row."""
        engine = self._engine
        told = effective(self._settings[k], engine.class_names)
        limits = Limits.of(told)
        reason = run.failed or times.get('failed')
        if not reason and not times['turns_ms']:
            reason = 'no frame could be read again for its latency'
        result = unscored(reason or None) | {
            'derived': limits != run.limits,
            'effective': told | {'precision': engine.precision, 'device': str(engine.device)},
            'model': engine.model_name,
            'weights_sha256': engine.weights_sha256,
            'frames': run.summary['processed'],
            'skipped': run.summary['skipped'],
            'run': run.folder.name,
            'name': self._names[k],
        }
        if reason:
            return result
        result['latency_ms'] = latency.summary(times['turns_ms'])
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
        """Report what is odd about bag or ground truth once; it is so in every run and row."""
        if line not in self._said and not line.startswith('latencies: '):
            self._said.add(line)
            self._report(line)


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
