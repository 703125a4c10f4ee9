# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A run: bags replayed through an engine, scored, and written as a folder.

What is long goes to disk as it comes: frames, results and the output bag. What is kept in memory
of a frame is a few numbers.
"""

from __future__ import annotations

import array
import dataclasses
import hashlib
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

import yaml
from tqdm import tqdm

import segnode
from segnode import __version__
from segnode.bags.record import Header
from segnode.config import Config, parameters, user_path
from segnode.engine import Engine
from segnode.engine.answers import crop_rle
from segnode.errors import AnnotationError, OutputError
from segnode.evaluation.frames import FrameRow, FramesWriter
from segnode.evaluation.latencies import latencies_of
from segnode.evaluation.metrics import coco_results
from segnode.evaluation.output_bag import OutputBag
from segnode.evaluation.output_topics import prefixes
from segnode.evaluation.parameter_file import parameter_file
from segnode.evaluation.replay import Replay, Request
from segnode.evaluation.results_file import ResultsWriter
from segnode.evaluation.truth import read_truth, scored
from segnode.hardware.machine import describe_machine
from segnode.live.pipeline import Answered
from segnode.output_files import make_own_folder, write_json, write_whole
from segnode.percentiles import Percentiles

RESULTS = 'results.json'
FRAMES = 'frames.csv'
SUMMARY = 'summary.json'
CONFIG = 'config.yaml'
PARAMETERS = 'params.yaml'
BAG = 'bag'
REPORT = 'report.html'
_FILES = (RESULTS, FRAMES, SUMMARY, CONFIG, PARAMETERS, REPORT)
# Rows before the first answer wait for the names of the stages, so many of them.
_MOST_WAITING = 10_000
# So many reasons are told, the most frequent.
_REASONS = 50


def evaluate(
    engine: Engine,
    request: Request,
    folder: Path,
    report: Callable[[str], None],
    conclude: Callable[[Path], None] = lambda _: None,
) -> dict[str, Any]:
    """Replay bags, score the answers and write everything into a folder.

    After Ctrl-C, and where frames keep failing, what is done is scored and written all the same;
    the summary says so.

    Args:
        engine: with its settings.
        request: what is replayed.
        folder: new, empty, or an earlier one of a run, which is replaced.
        report: is told of what is left out or odd, in a line each.
        conclude: is given the folder when all but the report's page is written.

    Returns:
        What ``summary.json`` holds.

    Raises:
        BagError: a bag cannot be read.
        AnnotationError: the ground truth cannot be read; one that fits no frame is told in the
            summary's ``unscored``.
        ConfigError: the folder is not one that may be written, or the latencies are none.
        OutputError: a file cannot be written.
    """
    with Replay(request, report) as source:
        truth = read_truth(request, report)
        latencies = None if request.latencies is None else latencies_of(request.latencies)
        prepare_folder(folder)
        _write_config(engine, request, folder)
        counted = _Counts()
        ended = _replay(engine, source, request, folder, counted)
        summary = _summary(engine, request, source, counted, ended)
    paths = (folder / FRAMES, folder / RESULTS)
    unscored = ''
    try:
        scores = scored(truth, latencies, request, *paths, engine.class_names, report)
    except AnnotationError as error:
        # Of a long run everything else is worth keeping.
        unscored = str(error)
        report(f'not scored: {unscored}')
        scores = scored(None, latencies, request, *paths, engine.class_names, report)
    summary = {**scores, **summary, 'unscored': unscored}
    write_json(folder / SUMMARY, summary)
    conclude(folder)
    return summary


def prepare_folder(folder: Path) -> None:
    """Make a run's folder, or clear an earlier one's files.

    Raises:
        ConfigError: it holds files that are not segnode's, or cannot be made or written.
    """
    make_own_folder(folder)
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)


class _Counts:
    """What a run adds up over its frames."""

    def __init__(self) -> None:
        self.frames = 0
        self.skipped: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()
        self.counts = dict.fromkeys(('detected', 'kept', 'filtered_class', 'filtered_area'), 0)
        self.stages_ms: dict[str, array.array[float]] = defaultdict(lambda: array.array('d'))
        self.totals_ms = array.array('d')

    def add(self, row: FrameRow) -> None:
        self.frames += 1
        if not row.processed:
            self.skipped[row.status] += 1
            self.reasons[f'{row.status}: {row.reason}'] += 1
            return
        for name in self.counts:
            self.counts[name] += getattr(row, name)
        for stage, ms in row.stage_ms.items():
            self.stages_ms[stage].append(ms)
        self.totals_ms.append(row.total_ms)


def _replay(
    engine: Engine, source: Replay, request: Request, folder: Path, counted: _Counts
) -> str:
    """Write frames, results and the bag; return why it ended early, '' where it did not."""
    categories = engine.category_ids or range(len(engine.class_names))
    with ExitStack() as files:
        results = ResultsWriter(files.enter_context(_stream(folder / RESULTS)))
        frames = _Frames(files.enter_context(_stream(folder / FRAMES)))
        output = None
        if request.output_bag:
            output = files.enter_context(
                OutputBag(folder / BAG, source.topics, engine.class_names)
            )
        bar = files.enter_context(_Bar(source))
        try:
            for row, answered in source.run(engine):
                counted.add(row)
                if answered is not None:
                    counted.classes.update(_class_names(engine, answered))
                    results.write(_entries(engine, categories, row, answered))
                    if output is not None:
                        output.write(row, answered)
                frames.write(row)
                bar.update()
        except KeyboardInterrupt:
            source.stopped = source.stopped or f'interrupted after {counted.frames} frames'
        finally:
            frames.end()
            results.end()
    return source.stopped


class _Bar:
    """Shows progress with the time that is left: in frames, or in what was read of the bags."""

    def __init__(self, source: Replay) -> None:
        self._source = source
        self._known = source.frames_known
        self._bar = tqdm(
            total=100 if self._known is None else self._known,
            unit='%' if self._known is None else 'frame',
            desc='evaluate',
            disable=None,
            leave=False,
        )

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self) -> None:
        if self._known is None:
            self._bar.update(round(100 * self._source.progress()) - self._bar.n)
        else:
            self._bar.update()


class _Frames:
    """Writes ``frames.csv``, whose columns are known with the first answer."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._writer: FramesWriter | None = None
        self._waiting: list[FrameRow] = []

    def write(self, row: FrameRow) -> None:
        if self._writer is not None:
            self._writer.write(row)
            return
        self._waiting.append(row)
        if row.processed or len(self._waiting) > _MOST_WAITING:
            self._begin(row)

    def end(self) -> None:
        if self._writer is None:
            self._begin(None)

    def _begin(self, row: FrameRow | None) -> None:
        stages = row.stage_ms if row is not None else {}
        self._writer = FramesWriter(self._stream, list(stages))
        for waiting in self._waiting:
            self._writer.write(waiting)
        self._waiting.clear()


@contextmanager
def _stream(path: Path) -> Iterator[TextIO]:
    """Open a file that has its name once it is whole."""
    part = path.with_name(f'.{path.name}.part')
    try:
        with part.open('w', encoding='utf-8', newline='') as stream:
            yield stream
        part.replace(path)
    except OSError as error:
        raise OutputError(f'{path}: cannot be written ({error.strerror})') from None
    finally:
        part.unlink(missing_ok=True)


def _class_names(engine: Engine, answered: Answered[Header]) -> Iterator[str]:
    return (engine.class_names[i] for i in answered.result.detections.class_ids.tolist())


def _entries(
    engine: Engine, categories: Sequence[int], row: FrameRow, answered: Answered[Header]
) -> list[dict[str, Any]]:
    """Return a frame's answer as COCO results."""
    crops, image_hw = answered.result.crops, (row.height, row.width)
    assert crops is not None
    return coco_results(
        answered.result.detections,
        (crop_rle(crop, image_hw) for crop in crops),
        image={'image_id': row.frame, 'topic': row.topic, 'stamp_ns': row.stamp_ns},
        class_names=engine.class_names,
        category_ids=categories,
    )


def _summary(
    engine: Engine, request: Request, source: Replay, counted: _Counts, ended: str
) -> dict[str, Any]:
    """Return what a run was and came to, without scores."""
    return {
        'frames': counted.frames,
        'processed': counted.frames - counted.skipped.total(),
        'skipped': dict(counted.skipped),
        'reasons': dict(counted.reasons.most_common(_REASONS)),
        'stopped': ended,
        'bags': source.bags,
        'outputs': prefixes(source.topics) if request.output_bag else {},
        'health': {topic: health.summary() for topic, health in source.health.items()},
        'stage_ms': {name: _percentiles(ms) for name, ms in counted.stages_ms.items()},
        'total_ms': _percentiles(counted.totals_ms) if counted.totals_ms else None,
        'counts': counted.counts,
        'classes': dict(counted.classes.most_common()),
        **_identity(engine, request),
    }


def _identity(engine: Engine, request: Request) -> dict[str, Any]:
    """Return what gave the answers: model, settings, machine, versions."""
    settings = dataclasses.asdict(engine.settings)
    settings['classes'] = [engine.class_names[i] for i in sorted(engine.settings.classes)]
    settings['max_mask_area'] = engine.config.filter.max_mask_area
    names = [parameter.name for parameter in parameters(Config)]
    effective = {
        name: settings[last] for name in names if (last := name.rpartition('.')[2]) in settings
    }
    machine = describe_machine(engine.device, 'faster-coco-eval', 'mcap', 'rosbags')
    return {
        'model': engine.model_name,
        'model_sha256': _model_sha256(engine.config.model),
        'weights': str(engine.weights_path),
        'weights_sha256': engine.weights_sha256,
        'device': str(engine.device),
        'precision': engine.precision,
        'threads': machine['threads'],
        'settings': effective,
        'selection': {
            'bags': [str(path) for path in request.bags],
            'topics': list(request.topics),
            'start_s': request.start_s,
            'end_s': request.end_s,
            'every': request.every,
            'mono16_bits': request.mono16_bits,
        },
        # What a robot may do to keep up, and a replay must not.
        'left_off': {'latency_budget_ms': 0, 'max_age_ms': 0, 'overlap': False, 'max_batch': 1},
        'versions': {'segnode': __version__, 'revision': _revision(), **machine},
        'command': request.command,
    }


def _model_sha256(model: str) -> str | None:
    """Return the hash of the file that describes the model, None where it is shipped."""
    path = user_path(model)
    if not model or not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_config(engine: Engine, request: Request, folder: Path) -> None:
    """Write what was asked for and what came of it, and the same as the robot takes it."""
    told = {'asked_for': _plain(engine.config.flat()), **_identity(engine, request)}
    text = yaml.safe_dump(told, sort_keys=False, allow_unicode=True)
    write_whole(folder / CONFIG, text.encode())
    came_from = f'From: {request.command}' if request.command else 'From an evaluation'
    came_from += f'\nModel {engine.model_name}, weights sha256 {engine.weights_sha256}'
    write_whole(folder / PARAMETERS, parameter_file(engine.config, came_from).encode())


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _percentiles(values: array.array[float]) -> dict[str, float]:
    return dataclasses.asdict(Percentiles.interpolated(values.tolist()))


def _revision() -> str | None:
    """Return the commit of the checkout that runs, None where it is an installation."""
    root = Path(segnode.__file__).resolve().parents[1]
    git = shutil.which('git')
    if git is None or not (root / '.git').exists():
        return None
    try:
        answer = subprocess.run(
            [git, '-C', root, 'describe', '--always', '--dirty', '--abbrev=40'],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
