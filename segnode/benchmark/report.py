# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A benchmark's results as text and as a picture.

Both are made from what the JSON file holds.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from segnode.cli import table
from segnode.errors import ConfigError
from segnode.output_files import MARK, write_whole
from segnode.written_pictures import is_own_picture

PLOT_SUFFIXES = ('.png', '.svg', '.pdf')
# How each format says who made it: what matplotlib is told, and what then stands in the file.
_MAKER = {'png': 'Software', 'svg': 'Creator', 'pdf': 'Creator'}
_MADE = {'.svg': f'<dc:title>{MARK}</dc:title>', '.pdf': f'/Creator ({MARK})'}

_COUNTS = {
    'operators': 'operators',
    'launches': 'launches',
    'graph_launches': 'graphs',
    'synchronisations': 'stops',
    'copies': 'copies',
}


def timing_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a line for every row and contender, with the ratio to segnode."""
    lines = []
    scored = any('mask_ap' in result for row in rows for _, result in _contenders(row))
    for row in rows:
        for name, result in _contenders(row):
            ratio = '1'
            if 'ratio_p50' in result:
                ratio = (
                    f'{result["ratio_p50"]:.2f} ({result["ratio_p5"]:.2f} - '
                    f'{result["ratio_p95"]:.2f})'
                )
            lines.append(
                (
                    *_setting(row),
                    name,
                    result['precision'],
                    *(f'{result[key]:.2f}' for key in ('ms_p50', 'ms_p5', 'ms_p95')),
                    ratio,
                    *([_accuracy(result)] if scored else []),
                )
            )
    header = ('shape', 'detections', 'batch', 'contender', 'format')
    times = ('p50 ms', 'p5', 'p95', 'times segnode (p5 - p95)')
    return table((*header, *times, *(['mask AP (native fp32)'] if scored else [])), lines)


def stage_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return segnode's milliseconds by stage, medians, a line for every row."""
    names = list(dict.fromkeys(name for row in rows for name in row['stages']))
    lines = [
        (*_setting(row), *(f'{row["stages"].get(name, 0):.2f}' for name in names)) for row in rows
    ]
    return table(('shape', 'detections', 'batch', *names), lines)


def call_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return what the host did in one call and the memory taken, by row and contender."""
    shown = [key for key in _COUNTS if any(key in row['calls'] for row in rows)]
    memory = any(row['memory_mb'] is not None for row in rows)
    lines = [
        (
            *_setting(row),
            name,
            *(str(result['calls'].get(key, '-')) for key in shown),
            *([f'{result["memory_mb"]:.0f}'] if memory else []),
        )
        for row in rows
        for name, result in _contenders(row)
    ]
    header = ('shape', 'detections', 'batch', 'contender', *(_COUNTS[key] for key in shown))
    return table((*header, *(['memory MB'] if memory else [])), lines)


def part_table(parts: Sequence[dict[str, Any]]) -> str:
    """Return a line for every part, with the ratio to Detectron2's own."""
    lines = []
    for part in parts:
        reference = part['against'].get('detectron2')
        compared = ('-', '-')
        if reference is not None:
            compared = (
                f'{reference["ms_p50"]:.2f}',
                f'{reference["ratio_p50"]:.2f} ({reference["ratio_p5"]:.2f} - '
                f'{reference["ratio_p95"]:.2f})',
            )
        what = f'to {part["network_input"]}' if 'network_input' in part else str(part['count'])
        lines.append((part['name'], part['shape'], what, f'{part["ms_p50"]:.2f}', *compared))
    header = ('part', 'shape', 'count', 'segnode ms', 'detectron2 ms')
    return table((*header, 'times segnode (p5 - p95)'), lines)


def node_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a line for every row of the whole node: its frames, its ages, and the relay's."""
    lines = [
        (
            *_images(row),
            *(str(row[key]) for key in ('sent', 'received', 'published', 'dropped')),
            f'{row["published_hz"]:.1f}',
            *(
                f'{row[key]:.1f}'
                for key in ('age_ms_p50', 'age_ms_p95', 'relay_ms_p50', 'overhead_ms_p50')
            ),
        )
        for row in rows
    ]
    header = ('shape', 'transport', 'cameras', 'sent', 'received', 'published', 'dropped', 'Hz')
    return table((*header, 'age p50 ms', 'p95', 'relay p50 ms', 'overhead p50 ms'), lines)


def node_stage_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the node's own milliseconds by stage, means, and its processor time a frame."""
    names = list(dict.fromkeys(name for row in rows for name in row['stage_ms']))
    lines = [
        (
            *_images(row),
            *(f'{row["stage_ms"].get(name, 0):.2f}' for name in names),
            *(
                '-' if row[key] is None else f'{row[key]:.1f}'
                for key in ('cpu_ms', 'relay_cpu_ms')
            ),
        )
        for row in rows
    ]
    header = ('shape', 'transport', 'cameras', *names, 'CPU', "relay's CPU")
    return table(header, lines)


def remarks(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield what the tables leave open: floors, notes, contenders that failed."""
    for row in rows:
        label = f'{row["shape"]}, {row["detections"]} detections, batch {row["batch"]}'
        if row['floor_ms'] is not None:
            yield (
                f'{label}: floor {row["floor_ms"]:.3f} ms ({row["gflop"]:.0f} GFLOP), segnode '
                f'takes {row["times_floor"]:.1f} times that'
            )
        if row['overflow']:
            yield f'{label}: more candidates than NMS takes; an answer could be incomplete'
        of = {each['annotated'] for _, each in _contenders(row) if 'annotated' in each}
        for annotated in of:
            truth = "the scene's truth" if annotated else "native fp32's own confident instances"
            yield f'{label}: mask AP is of {truth}, on the few frames that are timed'
        for name, reason in row['failed'].items():
            yield f'{label}: {name} failed: {reason}'
    noted = {
        f'{name}: {note}'
        for row in rows
        for name, each in _contenders(row)
        for note in each['notes']
    }
    yield from sorted(noted)


def plot(path: Path, rows: Sequence[dict[str, Any]], parts: Sequence[dict[str, Any]]) -> None:
    """Draw segnode's stages, and the ratios with their tails.

    Args:
        path: ends in one of ``PLOT_SUFFIXES``.
        rows: of the JSON file.
        parts: of the JSON file.

    Raises:
        ConfigError: no matplotlib.
        OutputError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(f'--plot needs matplotlib ({error}); install it') from None
    entries = [
        (f'{row["shape"]}\n{row["detections"]} det.\nbatch {row["batch"]}', row) for row in rows
    ] + [
        (f'{part["name"]}\n{part["shape"]}\n{part.get("network_input", part["count"])}', part)
        for part in parts
    ]
    figure = Figure(figsize=(3 + 1.3 * len(entries), 9), layout='constrained')
    above, below = figure.subplots(2, 1)
    labels, positions = [label for label, _ in entries], range(len(entries))
    bottom = [0.0] * len(entries)
    for name in dict.fromkeys(name for row in rows for name in row['stages']):
        heights = [entry.get('stages', {}).get(name, 0.0) for _, entry in entries]
        above.bar(positions, heights, bottom=bottom, label=name)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    above.plot(positions, [entry['ms_p50'] for _, entry in entries], 'k_', ms=24, label='whole')
    above.set_ylabel('segnode, ms (p50)')
    above.legend(fontsize='small', loc='upper left', bbox_to_anchor=(1, 1))
    names = list(dict.fromkeys(name for _, entry in entries for name in entry['against']))
    width = 0.8 / max(len(names), 1)
    for offset, name in enumerate(names):
        drawn = [
            (position + (offset - (len(names) - 1) / 2) * width, entry['against'][name])
            for position, (_, entry) in enumerate(entries)
            if name in entry['against']
        ]
        ratios = [result['ratio_p50'] for _, result in drawn]
        tails = [
            [result['ratio_p50'] - result['ratio_p5'] for _, result in drawn],
            [result['ratio_p95'] - result['ratio_p50'] for _, result in drawn],
        ]
        below.bar([x for x, _ in drawn], ratios, width, yerr=tails, capsize=3, label=name)
    below.axhline(1, color='k', linewidth=0.8)
    below.set_ylabel('times segnode (p50; p5 to p95)')
    if names:
        below.legend(fontsize='small', loc='upper left', bbox_to_anchor=(1, 1))
    for axes in (above, below):
        axes.set_xticks(list(positions), labels, fontsize='small')
    kind, picture = path.suffix[1:], io.BytesIO()
    figure.savefig(picture, format=kind, metadata={_MAKER[kind]: MARK})
    write_whole(path, picture.getvalue())


def is_own_plot(path: Path) -> bool:
    """Return whether a file is a picture that `plot` wrote."""
    if path.suffix not in _MADE:
        return is_own_picture(path)
    return _MADE[path.suffix].encode() in path.read_bytes()


def _accuracy(result: dict[str, Any]) -> str:
    if 'mask_ap' not in result:
        return '-'
    return f'{result["mask_ap"]:.3f} ({result["mask_ap_fp32"]:.3f})'


def _setting(row: dict[str, Any]) -> tuple[str, str, str]:
    return row['shape'], f'{row["detections"]:g}', str(row['batch'])


def _images(row: dict[str, Any]) -> tuple[str, str, str]:
    return row['shape'], row['transport'], str(row['cameras'])


def _contenders(row: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield 'segnode', row
    yield from row['against'].items()
