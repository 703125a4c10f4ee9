# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What came out of a soak: the verdict, its figures for JSON, and tables for people."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from segnode.cli import say, table
from segnode.soak.accounts import LOST_MEANS, Account, Totals
from segnode.soak.checks import (
    FILES_ROOM,
    MEMORY_ROOM,
    MEMORY_ROOM_MIB,
    SLOPE_AFTER_S,
    SLOPE_LIMIT_MIB_PER_MIN,
    THREADS_ROOM,
    WARM_UP_S,
    growth,
    growth_left_out,
    growth_problems,
)
from segnode.soak.faults import FAULTS
from segnode.soak.life import QUEUE, Life
from segnode.soak.operations import Operations
from segnode.soak.stage import Stage

SHOWN_FINDINGS = 20
TELLING = 5
"""So many faults of a kind cannot all have been superseded before the node looked at them."""
NOT_INJECTED = (
    'memory that runs out, exceptions inside of a stage, full disks: never injected here, the '
    "project's tests have them"
)
MOST_SAMPLES = 400
MEMORY_MEANS = (
    'the resident memory of the node at rest, of its longest life, without the first '
    f'{WARM_UP_S:.0f} s: bounded where its maximum is within {MEMORY_ROOM:.0%} and at least '
    f'{MEMORY_ROOM_MIB:.0f} MiB of its median. Without the first third of the life, in which the '
    f'allocator settles, and where {SLOPE_AFTER_S / 60:.0f} minutes and more are left, its '
    f'Theil-Sen slope may be {SLOPE_LIMIT_MIB_PER_MIN:g} MiB a minute. '
    f'Between the first and the last third, file descriptors may grow by {FILES_ROOM} and '
    f'threads by {THREADS_ROOM}'
)


def result(
    stage: Stage,
    operations: Operations,
    *,
    interrupted: bool,
    seconds: float,
    seed: int,
    rate_hz: float,
    left_out: Sequence[str],
) -> dict[str, Any]:
    """Return everything that was found, for JSON; `ok` first, as the file is known by it."""
    accounts = list(stage.accounts.values())
    findings = stage.all_findings()
    for life in stage.lives:
        findings += [f'life {life.number}: {text}' for text in growth_problems(life.samples)]
    injected = sum((account.injected for account in accounts), operations.injected)
    confirmed = sum((account.confirmed for account in accounts), operations.confirmed)
    findings += run_problems([account.totals for account in accounts], injected, confirmed)
    longest = max(stage.lives, key=_length)
    return {
        'ok': not findings,
        'seconds': round(seconds, 1),
        'seed': seed,
        'lost': sum(account.totals.lost for account in accounts),
        'faults': sum(injected.values()),
        'confirmed': sum(confirmed.values()),
        'kinds': len(injected),
        'interrupted': interrupted,
        'findings': findings,
        'cameras': {account.name: _camera(account) for account in accounts},
        'rate_hz': rate_hz,
        'fault_kinds': _kinds(injected, confirmed),
        'left_out': [*left_out, *growth_left_out(longest.samples), NOT_INJECTED],
        'lives': [_life(life) for life in stage.lives],
        'process': _process(longest),
        'means': {'lost': ' '.join(LOST_MEANS.split()), 'memory': MEMORY_MEANS},
    }


def run_problems(
    totals: Sequence[Totals], injected: Counter[str], confirmed: Counter[str]
) -> list[str]:
    """Return what only the sums over a whole run tell.

    Args:
        totals: of each camera.
        injected: faults by kind.
        confirmed: those of them that were seen to come out right.
    """
    answers, detections, labels = (
        sum(getattr(one, key) for one in totals) for key in ('answers', 'detections', 'labels')
    )
    found = []
    if not answers:
        found.append('no image was answered')
    elif not detections:
        found.append(
            f'nothing was detected in {answers} answers, so masks were not checked: try a lower '
            'score_threshold, or weights that know the scene'
        )
    elif not labels:
        found.append(f'instance_mask has no label, with {detections} detections in all')
    for kind, count in injected.items():
        if count >= TELLING and not confirmed[kind]:
            found.append(f'{kind}: {count} were injected, none was seen to come out right')
    return found


def _camera(account: Account) -> dict[str, Any]:
    # `asdict` would count a Counter's pairs.
    figures = {field.name: getattr(account.totals, field.name) for field in fields(Totals)}
    return {key: dict(v) if isinstance(v, Counter) else v for key, v in figures.items()}


def _kinds(injected: Counter[str], confirmed: Counter[str]) -> dict[str, dict[str, Any]]:
    return {
        kind: {'expected': expected, 'injected': injected[kind], 'confirmed': confirmed[kind]}
        for kind, expected in FAULTS.items()
        if injected[kind]
    }


def _life(life: Life) -> dict[str, Any]:
    return {
        'transport': life.transport,
        'queue': 1 if life.replaces else QUEUE,
        'seconds': round(life.seconds, 1),
        'start_s': round(life.ready_s - life.started_s, 1),
        'ended_by': life.ended_by,
        'exit_code': life.exit_code,
        'ending_s': round(life.ending_s, 2),
    }


def _length(life: Life) -> float:
    return life.samples[-1].second if life.samples else 0.0


def _process(life: Life) -> dict[str, Any]:
    """Return what the node's process held in one life."""
    seconds = [sample.second for sample in life.samples]
    found: dict[str, Any] = {'life': life.number}
    for name, values in (
        ('memory_mib', [sample.memory_mib for sample in life.samples]),
        ('file_descriptors', [float(sample.files) for sample in life.samples]),
        ('threads', [float(sample.threads) for sample in life.samples]),
    ):
        grown = growth(seconds, values)
        found[name] = None if grown is None else asdict(grown)
        if values:
            found[f'{name}_at_first'] = values[0]
    found['samples'] = [
        [round(s.second, 1), round(s.memory_mib, 1), s.files, s.threads]
        for s in life.samples[:: 1 + len(life.samples) // MOST_SAMPLES]
    ]
    return found


def show(found: dict[str, Any], logs: Path) -> None:
    """Print the tables, the findings and the verdict."""
    if found['fault_kinds']:
        say(_faults(found['fault_kinds']))
        say()
    say(_frames(found['cameras']))
    say()
    say(_process_line(found['process']))
    endings = [life['ending_s'] for life in found['lives'] if life['ended_by'] != 'SIGKILL']
    starts = [life['start_s'] for life in found['lives']]
    say(
        f'node: {len(found["lives"])} lives, {statistics.median(starts):.1f} s to start (median), '
        f'at most {max(endings, default=0.0):.1f} s to end on a signal'
    )
    for text in found['left_out']:
        say(f'left out: {text}')
    findings = found['findings']
    for text in findings[:SHOWN_FINDINGS]:
        say(f'finding: {text}')
    if len(findings) > SHOWN_FINDINGS:
        say(f'and {len(findings) - SHOWN_FINDINGS} findings more, in --json')
    if logs.is_dir():
        say(f'logs of all processes are in {logs}')
    sent = sum(camera['sent'] for camera in found['cameras'].values())
    unknown = sum(sum(camera['unknown'].values()) for camera in found['cameras'].values())
    say(
        f'soak: ok: {str(found["ok"]).lower()}, lost: {found["lost"]}, '
        f'faults: {found["faults"]} of {found["kinds"]} kinds, confirmed: {found["confirmed"]}, '
        f'unknown: {unknown} of {sent} images, findings: {len(findings)}, seed: {found["seed"]}'
    )


def _faults(kinds: dict[str, dict[str, Any]]) -> str:
    rows = [(kind, str(row['injected']), str(row['confirmed'])) for kind, row in kinds.items()]
    lines = table(('fault', 'injected', 'confirmed'), rows).splitlines()
    expected = ['has to be', *(row['expected'] for row in kinds.values())]
    return '\n'.join(f'{line}  {text}' for line, text in zip(lines, expected, strict=True))


def _frames(cameras: dict[str, dict[str, Any]]) -> str:
    keys = ('sent', 'received', 'reported', 'lost', 'replaced', 'published', 'answers')
    reasons = list(
        dict.fromkeys(r for c in cameras.values() for r, n in c['dropped'].items() if n)
    )
    rows = [
        (
            name,
            *(str(camera[key]) for key in keys),
            *(str(camera['dropped'].get(reason, 0)) for reason in reasons),
            *(str(sum(camera['unknown'].values())),),
            *(str(camera[key]) for key in ('probes', 'unheard', 'detections')),
        )
        for name, camera in cameras.items()
    ]
    return table(('camera', *keys, *reasons, 'unknown', 'probes', 'unheard', 'detections'), rows)


def _process_line(process: dict[str, Any]) -> str:
    memory = process['memory_mib']
    if memory is None:
        return f'memory: no life was longer than {WARM_UP_S:.0f} s, so nothing is said of it'
    slope = memory['slope_per_min']
    trend = f'slope {slope:+.2f} MiB a minute' if slope is not None else 'too short for a slope'
    files, threads = process['file_descriptors'], process['threads']
    return (
        f'memory: {memory["p50"]:.0f} MiB (median), {memory["max"]:.0f} at most, over '
        f'{memory["minutes"]:.1f} minutes after the warm-up, {trend}; file descriptors '
        f'{files["p50"]:.0f} (at most {files["max"]:.0f}), threads {threads["p50"]:.0f} (at most '
        f'{threads["max"]:.0f})'
    )
