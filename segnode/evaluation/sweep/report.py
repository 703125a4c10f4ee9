# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A sweep's table, picture and recommended setting."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from segnode.cli import table
from segnode.evaluation.parameter_file import parameter_file
from segnode.evaluation.sweep.choice import choose, pareto_front
from segnode.evaluation.sweep.grid import Row, label, short_name, shown
from segnode.output_files import write_json, write_whole

CSV, JSON, PICTURE, PARAMETERS = 'sweep.csv', 'sweep.json', 'pareto.svg', 'params.yaml'
FILES = (CSV, JSON, PICTURE, PARAMETERS)
METRICS: Final = {
    'mask_ap': 'mask AP',
    'box_ap': 'box AP',
    'streaming_mask_ap': 'streaming mask AP',
    'agreement': 'agreement',
}
_LATENCIES = ('min', 'p50', 'p95')
_SCORES = ('box_ap', 'mask_ap', 'streaming_box_ap', 'streaming_mask_ap', 'agreement')
_COLUMNS = dict(zip(_SCORES, ('box AP', 'mask AP', 'str. box AP', 'str. mask AP', 'agreement'),
                    strict=True))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a sweep is asked.

    Attributes:
        metric: one of ``METRICS``.
        budget_ms: most that a row's p95 may be, None for any.
        command: that the user gave.
        bags: paths, for people.
        latency_frames: how many latency was measured on, at most.
        left_out: why combinations are no rows.
        node_parameters: of the node, by name, that all rows have.
    """

    metric: str
    budget_ms: float | None
    command: str
    bags: tuple[str, ...]
    latency_frames: int
    left_out: tuple[str, ...]
    node_parameters: Mapping[str, Any] = field(default_factory=dict)


def write_report(
    folder: Path,
    rows: Sequence[Row],
    results: Sequence[Mapping[str, Any]],
    compared: int | None,
    question: Question,
) -> dict[str, Any]:
    """Write ``sweep.csv``, ``sweep.json``, ``pareto.svg`` and, where a row fits, ``params.yaml``.

    Args:
        folder: of the sweep.
        rows: of the grid.
        results: of each row, from `sweep`.
        compared: position of the row that agreement is measured against.
        question: what was asked.

    Returns:
        What ``sweep.json`` holds.

    Raises:
        OutputError: a file cannot be written.
    """
    from segnode.evaluation.sweep.picture import pareto_svg

    metric, budget_ms = question.metric, question.budget_ms
    front = pareto_front(results, metric)
    best = choose(results, metric, budget_ms)
    marked = [{**result, 'pareto': k in front} for k, result in enumerate(results)]
    report: dict[str, Any] = {
        'rows': marked,
        'recommended': None if best is None else _recommended(results[best], metric, budget_ms),
        'metric': metric,
        'metric_is': explained(metric, results, compared),
        'reference': None if compared is None else results[compared]['settings'],
        'budget_ms': budget_ms,
        'latency_is': latency_explained(question.latency_frames, results),
        'left_out': list(question.left_out),
        'bags': list(question.bags),
        'command': question.command,
    }
    write_whole(folder / CSV, _csv(marked).encode())
    picture = pareto_svg(
        results,
        metric,
        name=METRICS[metric],
        front=front,
        recommended=best,
        budget_ms=budget_ms,
        title=f'{METRICS[metric]} against latency: {", ".join(map(_name, question.bags))}',
    )
    write_whole(folder / PICTURE, picture.encode())
    if best is None:
        (folder / PARAMETERS).unlink(missing_ok=True)
    else:
        came_from = _came_from(report, results[best], question)
        text = parameter_file(rows[best].config, came_from, question.node_parameters)
        write_whole(folder / PARAMETERS, text.encode())
    write_json(folder / JSON, report)
    return report


def sweep_table(report: Mapping[str, Any]) -> str:
    """Return the table for people: a line a row, a star where no other row beats it."""
    rows = report['rows']
    scores = [name for name in _SCORES if any(row[name] is not None for row in rows)]
    header = [short_name(name) for name in rows[0]['settings']]
    header += [*(_COLUMNS[name] for name in scores), 'min ms', 'p50 ms', 'p95 ms', 'front']
    sessions = _sessions(rows)
    if len(sessions) > 1:
        header.append('session')
    lines = []
    for row in rows:
        ms = row['latency_ms']
        times = [f'{ms[key]:.1f}' for key in _LATENCIES] if ms else ['-'] * len(_LATENCIES)
        mark = 'failed' if row['failed'] else '*' if row['pareto'] else ''
        lines.append(
            [
                *(shown(value) for value in row['settings'].values()),
                *(_figure(row[name]) for name in scores),
                *times,
                mark,
                *([str(sessions.get(row['session'], ('-',))[0])] if len(sessions) > 1 else []),
            ]
        )
    return table(header, lines)


def explained(metric: str, rows: Sequence[Mapping[str, Any]], compared: int | None) -> str:
    """Return in a sentence what the metric is."""
    if metric != 'agreement':
        return f'{METRICS[metric]} over all annotated classes and frames; more is better'
    against = 'nothing' if compared is None else label(rows[compared]['settings'])
    return (
        'agreement, not accuracy: F1 of instances at mask IoU 0.5 and equal class against the row '
        f'with {against}'
    )


def latency_explained(frames: int, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return in a sentence what the latencies are, and which rows took turns."""
    sessions = _sessions(rows)
    turns = 'the rows in turns'
    if len(sessions) > 1:
        turns = 'the rows of one engine in turns, but the engines one after the other'
    listed = '; '.join(f'{number}: {engine}, {at}' for at, (number, engine) in sessions.items())
    told = f' (session {listed})' if sessions else ''
    return (
        f'from the decoded image to the answer on the host, on at most {frames} frames, '
        f'{turns}{told}; decoding, transport and publishing are left out'
    )


def _sessions(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
    """Return number and engine of every session in which rows were timed, by its time."""
    found = {row['session']: row['engine'] for row in rows if row['session'] is not None}
    return {at: (number, engine) for number, (at, engine) in enumerate(found.items(), start=1)}


def _recommended(row: Mapping[str, Any], metric: str, budget_ms: float | None) -> dict[str, Any]:
    reason = f'the best {METRICS[metric]}'
    if budget_ms is not None:
        reason += f' of the rows whose p95 latency is at most {budget_ms:g} ms'
    return {
        'settings': row['settings'],
        metric: row[metric],
        'latency_ms': row['latency_ms'],
        'reason': reason,
    }


def _came_from(report: Mapping[str, Any], row: Mapping[str, Any], question: Question) -> str:
    chosen, ms = report['recommended'], row['latency_ms']
    return '\n'.join(
        (
            f'From: {question.command}',
            f'{label(row["settings"])}: {chosen["reason"]}',
            f'{METRICS[question.metric]} {row[question.metric]:.3f}, latency p50 {ms["p50"]:.1f}, '
            f'p95 {ms["p95"]:.1f} ms on {row["effective"]["device"]}, '
            f'{row["effective"]["precision"]}',
            f'{report["metric_is"]}',
            f'Latency: {report["latency_is"]}',
            f'Model {row["model"]}, weights sha256 {row["weights_sha256"]}',
        )
    )


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    varied = list(rows[0]['settings'])
    times = [f'latency_ms_{key}' for key in _LATENCIES]
    last = ('engine', 'session', 'instances', 'derived', 'pareto', 'failed')
    writer.writerow([*varied, *_SCORES, *times, *last])
    for row in rows:
        ms = row['latency_ms'] or {}
        writer.writerow(
            [
                *(shown(value) for value in row['settings'].values()),
                *('' if row[name] is None else row[name] for name in _SCORES),
                *(f'{ms[key]:.3f}' if ms else '' for key in _LATENCIES),
                row['engine'] or '',
                row['session'] or '',
                row['instances'],
                shown(row['derived']),
                shown(row['pareto']),
                row['failed'] or '',
            ]
        )
    return text.getvalue()


def _figure(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'


def _name(path: str) -> str:
    return Path(path).name or path
