# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A run: bags replayed through an engine, scored, and written as a folder.

What is long goes to disk as it comes: frames, results and the output bag. What is kept in memory
of a frame is about half a kB: what the scores need.
"""

from __future__ import annotations

import array
import dataclasses
import hashlib
import pickle
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

import yaml
from tqdm import tqdm

import segnode
from segnode import __version__
from segnode.bags.record import Header
from segnode.bags.writer import remove_bag
from segnode.checkpoint.exported import MANIFEST
from segnode.config import Config, parameters, user_path
from segnode.engine import Engine
from segnode.engine.answers import crop_rle
from segnode.errors import AnnotationError, OutputError
from segnode.evaluation.bag_truth import BagTruth
from segnode.evaluation.frames import FrameRow, FramesWriter
from segnode.evaluation.latencies import Latencies, latencies_of
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
# Whose the folder is.
KIND = 'evaluate'
# Of rows that wait for the first answer so many bytes are held, and more lie on disk.
_HELD_BYTES = 1 << 20
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
    with Replay(request, report) as source, _Interrupts(report) as interrupts:
        truth = read_truth(request, report)
        latencies = None if request.latencies is None else latencies_of(request.latencies)
        prepare_folder(folder)
        _write_config(engine, request, folder)
        counted = _Counts()
        ended = _replay(engine, source, request, folder, counted, interrupts)
        summary = _summary(engine, request, source, counted, ended)
        scores, unscored = _scores(engine, request, folder, truth, latencies, report)
        summary = {**scores, **summary, 'unscored': unscored}
        write_json(folder / SUMMARY, summary)
        conclude(folder)
    return summary


def _scores(
    engine: Engine,
    request: Request,
    folder: Path,
    truth: BagTruth | None,
    latencies: Latencies | None,
    report: Callable[[str], None],
) -> tuple[dict[str, Any], str]:
    """Return the scores, and why there are none."""
    paths, names = (folder / FRAMES, folder / RESULTS), engine.class_names
    try:
        return scored(truth, latencies, request, *paths, names, report), ''
    except AnnotationError as error:
        # Of a long run everything else is worth keeping.
        report(f'not scored: {error}')
        return scored(None, latencies, request, *paths, names, report), str(error)


def prepare_folder(folder: Path) -> None:
    """Make a run's folder, or clear an earlier one's files.

    Raises:
        ConfigError: it holds files that are not segnode's, or cannot be made or written.
    """
    make_own_folder(folder, KIND)
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    remove_bag(folder / BAG)


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
    engine: Engine,
    source: Replay,
    request: Request,
    folder: Path,
    counted: _Counts,
    interrupts: _Interrupts,
) -> str:
    """Write frames, results and the bag; return why it ended early, '' where it did not."""
    categories = engine.category_ids or range(len(engine.class_names))
    with ExitStack() as files:
        results = ResultsWriter(files.enter_context(_stream(folder / RESULTS)))
        frames = _Frames(
            files.enter_context(_stream(folder / FRAMES)),
            files.enter_context(tempfile.SpooledTemporaryFile(_HELD_BYTES)),
        )
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
                if interrupts.asked:
                    source.stopped = f'interrupted after {counted.frames} frames'
                    break
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

    def __init__(self, stream: TextIO, waiting: IO[bytes]) -> None:
        self._stream = stream
        self._waiting = waiting
        self._writer: FramesWriter | None = None

    def write(self, row: FrameRow) -> None:
        if self._writer is None and row.processed:
            self._begin(list(row.stage_ms))
        if self._writer is None:
            pickle.dump(row, self._waiting)
        else:
            self._writer.write(row)

    def end(self) -> None:
        if self._writer is None:
            self._begin([])

    def _begin(self, stages: list[str]) -> None:
        self._writer = FramesWriter(self._stream, stages)
        end = self._waiting.tell()
        self._waiting.seek(0)
        while self._waiting.tell() < end:
            self._writer.write(pickle.load(self._waiting))


class _Interrupts:
    """Ctrl-C as a wish that is met between two frames; a second one ends everything at once.

    Outside of the main thread there is nothing to take over.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._is_main = threading.current_thread() is threading.main_thread()
        self._before: Any = None
        self.asked = False

    def __enter__(self) -> _Interrupts:
        if self._is_main:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_main:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._report('finishing with what is done; Ctrl-C again ends at once')


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
        'manifest_sha256': _manifest_sha256(engine.config.model),
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


def _manifest_sha256(model: str) -> str | None:
    """Return the hash of an exported folder's manifest, which has those of its programs.

    Of one weights file there are many exports. None where it is no folder.
    """
    path = user_path(model) / MANIFEST
    if not model or not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_config(engine: Engine, request: Request, folder: Path) -> None:
    """Write what was asked for and what came of it, and the same as the robot takes it."""
    told = {'asked_for': _plain(engine.config.flat()), **_identity(engine, request)}
    text = yaml.safe_dump(told, sort_keys=False, allow_unicode=True)
    write_whole(folder / CONFIG, text.encode())
    came_from = f'From: {request.command}' if request.command else 'From an evaluation'
    came_from += (
        f'\nModel {engine.model_name}, weights sha256 {engine.weights_sha256}'
        f'\nEvaluated on {engine.device} in {engine.precision}'
    )
    more = {'mono16_bits': request.mono16_bits}
    write_whole(folder / PARAMETERS, parameter_file(engine.config, came_from, more).encode())


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
