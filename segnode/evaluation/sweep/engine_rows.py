# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The rows that one engine answers: their runs, latencies and scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segnode.checkpoint import load_model
from segnode.config import Config
from segnode.engine import Engine
from segnode.engine.device import select_device
from segnode.errors import OutputError
from segnode.evaluation.bag_truth import BagTruth
from segnode.evaluation.frames import read_frames
from segnode.evaluation.latencies import latencies_of
from segnode.evaluation.metrics import common_categories
from segnode.evaluation.replay import Request
from segnode.evaluation.results_file import ResultsWriter
from segnode.evaluation.run import FRAMES, RESULTS, evaluate
from segnode.evaluation.sweep import latency
from segnode.evaluation.sweep.book import digest, read_saved
from segnode.evaluation.sweep.derive import (
    Limits,
    answers_for_classes,
    derived_results,
    effective,
    plan_runs,
)
from segnode.evaluation.sweep.finished_run import FinishedRun, is_whole
from segnode.evaluation.sweep.grid import Row
from segnode.evaluation.sweep.origin import run_origin, truth_origin
from segnode.evaluation.truth import scored
from segnode.output_files import write_json

RUNS, TIMINGS, ROWS = 'runs', 'timings', 'rows'
SCORES = ('box_ap', 'mask_ap', 'streaming_box_ap', 'streaming_mask_ap')


def unscored(reason: str | None) -> dict[str, Any]:
    """Return the results of a row that has none, and why, None where they come yet."""
    return {
        **dict.fromkeys(SCORES),
        'latency_ms': None,
        'engine': None,
        'session': None,
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
        *,
        needs_runs: bool,
    ) -> None:
        """Load the model of rows whose settings can be changed at run time into one another.

        Args:
            rows: in the order of the table.
            selection: frames and ground truth.
            folder: of the sweep, with its folders made.
            report: is told in a line what is done and what is left out.
            truth: of all rows, None without.
            latency_frames: how many frames latency is measured on.
            needs_runs: whether finished rows need their runs, too, for their agreement.

        Raises:
            SegnodeError: the model cannot be loaded, or a setting does not fit it.
        """
        self._rows = rows
        self._selection = selection
        self._folder = folder
        self._report = report
        self._truth = truth
        self._latency_frames = latency_frames
        self._needs_runs = needs_runs
        self._said: set[str] = set()
        config = rows[0].config
        select_device(config.device)  # One that is not there is told of before a model is fetched.
        model = load_model(config, report)
        self._engine = engine = Engine(config, report=report, model=model)
        self._settings = []
        # A class that the model does not know is told of before hours of work.
        for row in rows:
            engine.configure(row.config)
            self._settings.append(engine.settings)
        self._origin = run_origin(engine, model, selection)
        truth_from = truth_origin(selection)
        self._names = [
            digest({**self._origin, 'config': row.config.flat(), 'truth': truth_from,
                    'settings': effective(settings, engine.class_names),
                    'latency_frames': latency_frames})
            for row, settings in zip(rows, self._settings, strict=True)
        ]  # fmt: skip
        self._timings = folder / TIMINGS / f'{digest({"rows": sorted(self._names)})}.json'

    def rows(self) -> list[dict[str, Any]]:
        """Return every row, done now where it was not before.

        Raises:
            SegnodeError: nothing could be done at all.
            KeyboardInterrupt: what is done stays.
        """
        timed = read_saved(self._timings) or {}
        rows = self._done(timed)
        runs = self._runs() if len(rows) < len(self._rows) else []
        if runs:
            timed = self._timed(timed, runs)
            # Those of another session are scored again: streaming AP hangs on the latency.
            rows = {k: row for k, row in rows.items() if row['session'] == timed['session']}
        if rows:
            self._report(f'{len(rows)} of {len(self._rows)} rows were done before')
        for k, name in enumerate(self._names):
            if k in rows:
                continue
            rows[k] = self._row(k, runs[k], timed)
            # What failed is tried again at the next start.
            if rows[k]['failed'] is None:
                write_json(self._folder / ROWS / f'{name}.json', rows[k])
        return [rows[k] for k in range(len(self._rows))]

    def _done(self, timed: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
        """Return the finished rows whose latencies are those of the table's session."""
        found = {}
        for k, name in enumerate(self._names):
            row = read_saved(self._folder / ROWS / f'{name}.json')
            if row is None or row.get('session') != timed.get('session'):
                continue
            if not self._needs_runs or is_whole(self._folder / RUNS / row['run']):
                found[k] = row
        return found

    def _runs(self) -> list[FinishedRun]:
        """Return the run that answers for each row."""
        configs = [row.config for row in self._rows]
        runs: dict[int, FinishedRun] = {}
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

    def _check_truth(self, run: FinishedRun) -> None:
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

    def _run(self, config: Config, what: str) -> FinishedRun:
        """Return the run with some settings, done now where it is not there yet."""
        engine = self._engine
        engine.configure(config)
        settings = effective(engine.settings, engine.class_names)
        parts = {**self._origin, 'config': config.flat(), 'settings': settings}
        folder = self._folder / RUNS / digest(parts)
        run = FinishedRun.read(folder, Limits.of(settings))
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

    def _timed(self, before: dict[str, Any], runs: Sequence[FinishedRun]) -> dict[str, Any]:
        """Return the latencies of the table's rows, all of one session in which they took turns.

        Args:
            before: an earlier session of this table, which stands if it lacks no row.
            runs: of each row.

        Returns:
            As `latency.session`.
        """
        usable = [k for k, run in enumerate(runs) if not run.failed]
        timed = {name for name, row in before.get('rows', {}).items() if row.get('turns_ms')}
        if before and timed >= {self._names[k] for k in usable}:
            return before
        if any((self._folder / ROWS / f'{name}.json').is_file() for name in self._names):
            self._report('all rows are timed anew, in turns, as some had no latency yet')
        # Of the first run, so that all rows have the same sample.
        frames = list(read_frames(runs[usable[0]].folder / FRAMES)) if usable else []
        chosen = latency.choose_sample(frames, self._latency_frames)
        sample = latency.decode_sample(self._selection, chosen)
        configs = {self._names[k]: self._rows[k].config for k in usable}
        timed_now = latency.session(self._engine, configs, sample)
        write_json(self._timings, timed_now)
        return timed_now

    def _row(self, k: int, run: FinishedRun, timed: Mapping[str, Any]) -> dict[str, Any]:
        """Score a row."""
        engine = self._engine
        told = effective(self._settings[k], engine.class_names)
        limits = Limits.of(told)
        times = timed['rows'].get(self._names[k], {})
        reason = run.failed or times.get('failed')
        if not reason and not times.get('turns_ms'):
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
        result['engine'] = f'{engine.model_name}, {engine.precision} on {engine.device}'
        result['session'] = timed['session']
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
