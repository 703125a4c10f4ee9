# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What to look at: a line for each failure, what works meanwhile, and where the time goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpu_ladder.engines import SOURCES
from gpu_ladder.limits import HALF
from gpu_ladder.record import results_of
from gpu_ladder.rungs import RUNGS

# What to try next, by the beginning or the end of a check's name.
_NEXT = {
    'operators': 'python -m segnode doctor says what Triton lacks',
    'planted': 'compare with fp16 stages and the kernels',
    'time ': 'the checks before it say more',
    'poison': f'something is read before it is written; fused layers are in {SOURCES["fusion"]}',
    'stages': 'the first stage beyond its limit is where to look',
    'AP': 'compare with the stages of that precision',
    **{name: f'the code is in {path}' for name, path in SOURCES.items()},
}


def advice(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each failure, those of one rung with one error in one, and the slowest."""
    if 'error' in data:
        yield f'{data["error"]["type"]}: {data["error"]["line"]}'
    if data.get('interrupted'):
        yield 'interrupted: here is what was done until then'
    for entry in data['rungs']:
        yield from _of_rung(entry, data['rungs'])
    for step in data['steps']:
        if step['status'] == 'failed':
            yield f'{step["name"]}: {step_problem(step)} -> {step["command"]}'
        elif step.get('late'):
            yield f'{step["name"]}: {step["reason"]} -> {step["command"]}'
    timed = [e for e in data['rungs'] if e['status'] == 'passed' and e['timings']]
    for timing in timed[-1]['timings'] if timed else []:
        if timing['status'] == 'passed':
            figures = timing['figures']
            name, ms = max(figures['stages_ms'].items(), key=lambda item: item[1]['p50'])
            yield (
                f'slowest at {figures["shape"]} on {timed[-1]["name"]}: {name} with '
                f'{ms["p50"]:.2f} of {figures["frame_ms"]["p50"]:.2f} ms'
            )


def step_problem(step: Mapping[str, Any]) -> str:
    """Return in a line what became of a command that failed."""
    last = f': {step["last_lines"][-1]}' if step['last_lines'] else ''
    if step['exit_code'] is None:
        return f'not done in {step["limit_s"]:.0f} s{last}'
    return f'exit code {step["exit_code"]}{last}'


def _of_rung(entry: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    results, rung = results_of(entry), entry['name']
    grouped: dict[str, list[str]] = {}
    for result in results:
        if result['status'] == 'failed':
            line = f'{result["error"]["type"]}: {result["error"]["line"]}'
            grouped.setdefault(line, []).append(result['name'])
    for line, names in grouped.items():
        yield f'{rung}: {", ".join(names)}: {line} -> {"; ".join(_ways_on(entries, entry, names))}'
    late = [result for result in results if result.get('late')]
    if late:
        yield f'{rung}: {len(late)} not run from {late[0]["name"]} on: {late[0]["reason"]}'
    if entry['status'] == 'skipped':
        yield f'{rung}: left out: {next(r["reason"] for r in results if "reason" in r)}'


def _ways_on(
    entries: Sequence[Mapping[str, Any]], entry: Mapping[str, Any], names: Sequence[str]
) -> Iterator[str]:
    """Yield what to try after checks of a rung that failed with one error."""
    lower = _lower_rung(entries, entry, names)
    status = {result['name']: result['status'] for result in results_of(entry)}
    if lower:
        yield f'{" ".join(lower)} works meanwhile'
    elif all(name.startswith(HALF) for name in names) and status.get('fp32 scenes') == 'passed':
        yield 'precision fp32 works meanwhile'
    elif any(name.startswith(('kernel', 'fp32', 'planted', *HALF)) for name in names):
        yield 'device cpu works meanwhile'
    kernels = [
        n.removeprefix('kernel ')
        for n in status
        if n.startswith('kernel') and status[n] == 'failed'
    ]
    if kernels and not names[0].startswith('kernel'):
        yield f'alone, too, fails: {", ".join(kernels)}'
    for part, text in _NEXT.items():
        if names[0].startswith(part) or names[0].endswith(part):
            yield text
            return


def _lower_rung(
    entries: Sequence[Mapping[str, Any]], entry: Mapping[str, Any], names: Sequence[str]
) -> list[str]:
    """Return the switches to the nearest rung on which all of that passed, if there is one."""
    rung, climbed = RUNGS[entry['name']], {each['name']: each for each in entries}
    # Graphs are given up before Triton.
    for other in (RUNGS['triton'], RUNGS['graphs'], RUNGS['plain']):
        below = other != rung and other.triton <= rung.triton and other.graphs <= rung.graphs
        if below and other.name in climbed:
            # On a rung that needs neither, neither can fail.
            status = {'operators': 'passed', 'graphs': 'passed'}
            status |= {r['name']: r['status'] for r in results_of(climbed[other.name])}
            if all(status.get(name) == 'passed' for name in names):
                return [f'{n}=0' for n in sorted({*other.environment} - {*rung.environment})]
    return []
