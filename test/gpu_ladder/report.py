# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What is said at the end: checks and milliseconds by rung, the rest, and what to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_ladder.advice import advice
from gpu_ladder.record import results_of
from segnode.cli import say, table


def summarise(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return counts, the highest rung that passed, what to look at, and the exit code."""
    every = [result for entry in data['rungs'] for result in results_of(entry)] + data['steps']
    counts = {
        status: sum(each['status'] == status for each in every)
        for status in ('passed', 'failed', 'skipped')
    }
    bad = counts['failed'] or not counts['passed'] or any(each.get('late') for each in every)
    climbed = [entry['name'] for entry in data['rungs'] if entry['status'] == 'passed']
    return {
        **counts,
        'rungs': {entry['name']: entry['status'] for entry in data['rungs']},
        'highest_rung_passed': climbed[-1] if climbed else None,
        'look_at': list(advice(data)),
        'exit_code': 130 if data.get('interrupted') else int('error' in data or bool(bad)),
    }


def print_report(data: Mapping[str, Any], path: Path) -> None:
    """Print what a record has for people."""
    entries, machine, summary = data['rungs'], data['machine'], data['summary']
    if machine:
        gpu = machine.get('gpu') or machine['processor']
        say(f'{machine["device"]} ({gpu}), torch {machine["torch"]}, triton {machine["triton"]}\n')
    if entries:
        names = dict.fromkeys(result['name'] for e in entries for result in results_of(e))
        rows = [(name, *(_cell(entry, name) for entry in entries)) for name in names]
        rows.append(('the rung', *(f'{e["status"]} {e["seconds"]:.0f} s' for e in entries)))
        say(table(('check', *(entry['name'] for entry in entries)), rows) + '\n')
    for shape in dict.fromkeys(figures['shape'] for e in entries for figures in timings(e)):
        say(f'{shape}, ms p50 (p95):\n{_timing_table(entries, shape)}\n')
    if data['steps']:
        rows = [
            (step['name'], step['status'], step.get('reason') or f'{step["seconds"]:.0f} s')
            for step in data['steps']
        ]
        say(table(('after the ladder', '', ''), rows).replace('failed', 'FAILED') + '\n')
    say('\n  '.join(('what to look at:', *(summary['look_at'] or ['nothing']))) + '\n')
    counts = ' '.join(f'{name}={summary[name]}' for name in ('passed', 'failed', 'skipped'))
    say(f'gpu: {counts} rung={summary["highest_rung_passed"]} json={path}')


def timings(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the figures of a rung's timings that passed."""
    return [timing['figures'] for timing in entry['timings'] if timing['status'] == 'passed']


def _cell(entry: Mapping[str, Any], name: str) -> str:
    for result in results_of(entry):
        if result['name'] == name:
            took = '' if result['status'] == 'skipped' else f' {result["seconds"]:.1f} s'
            return f'{result["status"]}{took}'.replace('failed', 'FAILED')
    return '-'


def _timing_table(entries: Sequence[Mapping[str, Any]], shape: str) -> str:
    timed = {
        entry['name']: figures['stages_ms'] | {'whole frame': figures['frame_ms']}
        for entry in entries
        for figures in timings(entry)
        if figures['shape'] == shape
    }
    stages = dict.fromkeys(name for each in timed.values() for name in each)
    # In the order of all stages, the frame behind them.
    order = sorted(stages, key='whole frame'.__eq__)
    rows = [
        (stage, *(_milliseconds(each.get(stage)) for each in timed.values())) for stage in order
    ]
    return table(('stage', *timed), rows)


def _milliseconds(ms: Mapping[str, float] | None) -> str:
    return f'{ms["p50"]:.2f} ({ms["p95"]:.2f})' if ms else '-'
