# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What is said at the end: checks and milliseconds by rung, the rest, and what to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpu_ladder.limits import HALF
from gpu_ladder.record import results_of, step_problem
from gpu_ladder.rungs import RUNGS
from segnode.cli import say, table


def summarise(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return counts, the highest rung that passed, what to look at, and the exit code."""
    every = [result for entry in data['rungs'] for result in results_of(entry)] + data['steps']
    count = [each['status'] for each in every].count
    bad = count('failed') or not count('passed') or any(each.get('late') for each in every)
    passed = [entry['name'] for entry in data['rungs'] if entry['status'] == 'passed']
    return {
        **{status: count(status) for status in ('passed', 'failed', 'skipped')},
        'rungs': {entry['name']: entry['status'] for entry in data['rungs']},
        'highest_rung_passed': passed[-1] if passed else None,
        'look_at': list(look_at(data)),
        'exit_code': 130 if data.get('interrupted') else int('error' in data or bool(bad)),
    }


def print_report(data: Mapping[str, Any]) -> None:
    """Print what a record has for people."""
    entries, machine, look = data['rungs'], data['machine'], data['summary']['look_at']
    if machine:
        gpu = machine.get('gpu') or machine['processor']
        say(f'{machine["device"]} ({gpu}), torch {machine["torch"]}, triton {machine["triton"]}\n')
    if entries:
        names = dict.fromkeys(result['name'] for e in entries for result in results_of(e))
        rows = [(name, *(_cell(entry, name) for entry in entries)) for name in names]
        rows.append(('the rung', *(f'{e["status"]} {e["seconds"]:.0f} s' for e in entries)))
        say(table(('check', *(entry['name'] for entry in entries)), rows) + '\n')
    for shape in dict.fromkeys(figures['shape'] for e in entries for figures in _timings(e)):
        say(f'{shape}, ms p50 (p95):\n{_timing_table(entries, shape)}\n')
    for shape, rows in _ways(entries).items():
        header = ('step', 'way', *(entry['name'] for entry in entries))
        say(f'{shape}, ways to do a step, ms:\n{table(header, rows)}\n')
    if data['steps']:
        rows = [
            (step['name'], step['status'], step.get('reason') or f'{step["seconds"]:.0f} s')
            for step in data['steps']
        ]
        say(table(('after the ladder', '', ''), rows).replace('failed', 'FAILED') + '\n')
    say('\n  '.join(('what to look at:', *(look or ['nothing']))) + '\n')


def _timings(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the figures of a rung's timings that passed."""
    return [timing['figures'] for timing in entry['timings'] if timing['status'] == 'passed']


def _ways(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[str, ...]]]:
    """Return rows of a step, a way and its time on each rung, by shape."""
    found: dict[str, dict[tuple[str, str], dict[str, str]]] = {}
    for entry in entries:
        for figures in (result.get('figures', {}) for result in results_of(entry)):
            for step, ways in figures.get('ways_ms', {}).items():
                rows = found.setdefault(figures['shape'], {})
                for way, ms in ways.items():
                    rows.setdefault((step, way), {})[entry['name']] = f'{ms:.3f}'
    return {
        shape: [(*key, *(each.get(e['name'], '-') for e in entries)) for key, each in rows.items()]
        for shape, rows in found.items()
    }


def _cell(entry: Mapping[str, Any], name: str) -> str:
    for result in results_of(entry):
        if result['name'] == name:
            took = '' if result['status'] == 'skipped' else f' {result["seconds"]:.1f} s'
            return f'{result["status"]}{took}'.replace('failed', 'FAILED')
    return '-'


def _timing_table(entries: Sequence[Mapping[str, Any]], shape: str) -> str:
    timed = {e['name']: f for e in entries for f in _timings(e) if f['shape'] == shape}
    stages = [{**f['stages_ms'], 'whole frame': f['frame_ms']} for f in timed.values()]
    rows = []
    for name in dict.fromkeys(name for each in stages for name in each):
        ms = [each.get(name) for each in stages]
        rows.append((name, *(f'{s["p50"]:.2f} ({s["p95"]:.2f})' if s else '-' for s in ms)))
    if any('input_channels' in f['execution'] for f in timed.values()):
        rows.append(
            ('input', *(f['execution'].get('input_channels', '-') for f in timed.values()))
        )
    rows.append(('peak MB', *(f'{f["memory"]["peak"] / 2**20:.0f}' for f in timed.values())))
    begun = [f['label_image'].partition(' (')[0] or '-' for f in timed.values()]
    rows.append(('label image begun', *begun))
    return table(('stage', *timed), rows)


def look_at(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each failure, those of one rung with one error in one, and the slowest."""
    if 'error' in data:
        yield f'{data["error"]["type"]}: {data["error"]["line"]}'
    if data.get('interrupted'):
        yield 'interrupted: here is what was done until then'
    for entry in data['rungs']:
        yield from _of_rung(entry, data['rungs'])
    for step in data['steps']:
        if step['status'] == 'failed' or step.get('late'):
            why = step.get('reason') or step_problem(step)
            yield f'{step["name"]}: {why} -> {step["command"]}'
    timed = [entry for entry in data['rungs'] if entry['status'] == 'passed' and _timings(entry)]
    for figures in _timings(timed[-1]) if timed else []:
        name, ms = max(figures['stages_ms'].items(), key=lambda item: item[1]['p50'])
        whole = f'{ms["p50"]:.2f} of {figures["frame_ms"]["p50"]:.2f} ms'
        yield f'slowest at {figures["shape"]} on {timed[-1]["name"]}: {name} with {whole}'


def _of_rung(entry: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    results, rung = results_of(entry), entry['name']
    by_error: dict[str, list[str]] = {}
    for result in results:
        if result['status'] == 'failed':
            line = f'{result["error"]["type"]}: {result["error"]["line"]}'
            by_error.setdefault(line, []).append(result['name'])
    for line, names in by_error.items():
        yield f'{rung}: {", ".join(names)}: {line} -> {"; ".join(_ways_on(entry, entries, names))}'
    late = [result for result in results if result.get('late')]
    if late:
        yield f'{rung}: {len(late)} not run from {late[0]["name"]} on: {late[0]["reason"]}'
    if entry['status'] == 'skipped':
        yield f'{rung}: left out: {next(r["reason"] for r in results if "reason" in r)}'


def _ways_on(
    entry: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> Iterator[str]:
    """Yield what to try after checks of a rung that failed with one error."""
    status = {result['name']: result['status'] for result in results_of(entry)}
    if switches := _way_down(entry, entries, names):
        yield f'{switches} works meanwhile'
    elif all(name.startswith(HALF) for name in names) and status.get('fp32 scenes') == 'passed':
        yield 'precision fp32 works meanwhile'
    elif any(name.startswith(('kernel', 'fp32', 'planted', *HALF)) for name in names):
        yield 'device cpu works meanwhile'
    kernels = [name for name in status if name.startswith('kernel') and status[name] == 'failed']
    if kernels and not names[0].startswith('kernel'):
        yield f'alone, too, fails: {", ".join(name.removeprefix("kernel ") for name in kernels)}'
    if names[0] == 'operators':
        yield 'python -m segnode doctor says what Triton lacks'
    if names[0].endswith('poison'):
        yield 'something is read before it is written'


def _way_down(
    entry: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> str:
    """Return the switches to the nearest rung on which all of that passed, if there is one."""
    rung, climbed = RUNGS[entry['name']], {each['name']: each for each in entries}
    # Graphs are given up before Triton.
    for other in (RUNGS['triton'], RUNGS['graphs'], RUNGS['plain']):
        below = other != rung and other.triton <= rung.triton and other.graphs <= rung.graphs
        if below and other.name in climbed:
            status = {r['name']: r['status'] for r in results_of(climbed[other.name])}
            if all(status.get(name) == 'passed' for name in names):
                lost = sorted({*other.environment} - {*rung.environment})
                return ' '.join(f'{name}=0' for name in lost)
    return ''
