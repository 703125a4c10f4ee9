# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""One row a preset: what is published of it and what it costs, on paper."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from segnode.checkpoint.download import cached_path
from segnode.checkpoint.presets import PRESETS, Preset
from segnode.cli import table
from segnode.errors import ConfigError
from segnode.model.architecture import Architecture
from segnode.model.costs import Costs, count_costs

MIB: Final = 2**20
# Device memory of the laptop GPUs that robots carry.
SMALL_GPU_GB: Final = 6
# Where memory is counted, whatever sizes are asked for: the usual network input, padded.
MEMORY_HW: Final = (800, 1344)
_TRUNK: Final = 'backbone'

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """A preset with its costs.

    Attributes:
        name: of the preset.
        preset: what is published.
        costs: by the network's input, height and width.
    """

    name: str
    preset: Preset
    costs: dict[Size, Costs]

    @property
    def memory_bytes(self) -> int:
        """Weights and live activations in half precision at ``MEMORY_HW``."""
        costs = self.costs[MEMORY_HW]
        return costs.weight_bytes + costs.activation_bytes

    @property
    def fits_small_gpu(self) -> bool:
        """Whether that is below ``SMALL_GPU_GB``."""
        return self.memory_bytes < SMALL_GPU_GB * 1e9

    def json(self, sizes: Sequence[Size]) -> dict[str, Any]:
        """Return it as ``--json`` writes it; null where nothing is known."""
        preset, memory = self.preset, self.costs[MEMORY_HW]
        cached = cached_path(preset.url)
        return {
            'name': self.name,
            'family': preset.family,
            'library': preset.architecture.semantics.family,
            'box_ap': preset.box_ap,
            'mask_ap': preset.mask_ap,
            'parameters': memory.parameters,
            'gflop': {
                shown_size(size): {
                    'total': round(self.costs[size].gflop(), 2),
                    'backbone_and_neck': round(self.costs[size].gflop(_TRUNK), 2),
                }
                for size in sizes
            },
            'memory_fp16': {
                'size': shown_size(MEMORY_HW),
                'weights_mib': round(memory.weight_bytes / MIB, 1),
                'activations_mib': round(memory.activation_bytes / MIB, 1),
                'total_mib': round(self.memory_bytes / MIB, 1),
                'under_6_gb': self.fits_small_gpu,
            },
            'licence': preset.licence,
            'url': preset.url,
            'file_bytes': cached.stat().st_size if cached.is_file() else None,
        }


def chosen_presets(patterns: Sequence[str]) -> dict[str, Preset]:
    """Return the presets whose name or family a pattern fits, all without one, by family.

    A pattern is a glob, or a part; upper and lower case are one.

    Raises:
        ConfigError: a pattern is empty or fits none.
    """
    for pattern in patterns:
        if not pattern or not any(
            _fits(pattern, name, preset) for name, preset in PRESETS.items()
        ):
            raise ConfigError(
                f"expected a preset's name or family, a part of one or a glob, found "
                f'{pattern!r}; segnode models lists all'
            )
    found = {
        name: preset
        for name, preset in PRESETS.items()
        if not patterns or any(_fits(pattern, name, preset) for pattern in patterns)
    }
    return dict(sorted(found.items(), key=lambda item: _natural(item[1].family)))


def _natural(text: str) -> list[tuple[int, str]]:
    """Return what sorts ResNet-50 before ResNet-101."""
    return [
        (int(part), '') if part.isdigit() else (0, part.lower())
        for part in re.split(r'(\d+)', text)
    ]


def _fits(pattern: str, name: str, preset: Preset) -> bool:
    wanted = pattern.lower()
    return any(
        wanted in text or fnmatch.fnmatchcase(text, wanted)
        for text in (name.lower(), preset.family.lower())
    )


def make_rows(
    presets: dict[str, Preset],
    sizes: Iterable[Size],
    progress: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Count what presets cost; those of one architecture are counted once.

    Args:
        presets: by name.
        sizes: height and width of the network's input.
        progress: is called when an architecture has been counted.
    """
    wanted = list(dict.fromkeys((*sizes, MEMORY_HW)))
    counted: dict[Architecture, dict[Size, Costs]] = {}
    for preset in presets.values():
        architecture = preset.architecture
        if architecture not in counted:
            counted[architecture] = {size: count_costs(architecture, size) for size in wanted}
            progress()
    return [Row(name, preset, counted[preset.architecture]) for name, preset in presets.items()]


def shown_size(size: Size) -> str:
    """Return a size as it is typed: height x width."""
    return f'{size[0]}x{size[1]}'


def human_table(rows: Sequence[Row], sizes: Sequence[Size]) -> str:
    """Return the rows as text, a heading a family, and what the columns mean."""
    licences = list(dict.fromkeys(row.preset.licence for row in rows))
    letters = {licence: chr(ord('a') + index) for index, licence in enumerate(licences)}
    header = ('model', 'box', 'mask', 'M', *map(shown_size, sizes), 'MB', '')
    cells = [
        (
            row.name,
            _ap(row.preset.box_ap),
            _ap(row.preset.mask_ap),
            f'{row.costs[MEMORY_HW].parameters / 1e6:.1f}',
            *(
                f'{row.costs[size].gflop():.0f}({row.costs[size].gflop(_TRUNK):.0f})'
                for size in sizes
            ),
            f'{row.memory_bytes / 1e6:.0f}',
            letters[row.preset.licence],
        )
        for row in rows
    ]
    lines = table(header, cells).splitlines()
    shown = [lines[0]]
    family = ''
    for row, line in zip(rows, lines[1:], strict=True):
        if row.preset.family != family:
            family = row.preset.family
            shown.append(f'{family}:')
        shown.append(line)
    too_big = ', '.join(row.name for row in rows if not row.fits_small_gpu)
    limit = f'below {SMALL_GPU_GB} GB'
    verdict = f'not {limit}: {too_big}' if too_big else f'all {limit}'
    at = shown_size(MEMORY_HW)
    return '\n'.join(
        (
            *shown,
            '',
            'box, mask  AP on COCO val2017 as published, in percent',
            'M          parameters in millions',
            f'{"HxW":<11}GFLOP of a network input of this size, of which (backbone and FPN)',
            f'{"MB":<11}FP16 weights and activations at {at} on paper, {verdict}',
            'The last column is the licence of the weights:',
            *(f'  {letter}  {licence}' for licence, letter in letters.items()),
        )
    )


def _ap(value: float | None) -> str:
    return '' if value is None else f'{value:.1f}'
