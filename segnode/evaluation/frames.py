# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What became of every frame of a run: a line each of ``frames.csv``.

A frame is an image message of the bag. Its number counts those of its topic from 0, whatever was
left out; `frame` counts those of all topics in the order in which they were replayed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from segnode.errors import ConfigError

PROCESSED = 'processed'
SKIP_REASONS = ('decode', 'error', 'every', 'range')
"""Why a frame was not processed: its message holds no usable image, the engine failed on it,
``--every`` or ``--start`` and ``--end`` left it out."""

_TEXTS = ('topic', 'clock', 'status', 'reason')
_NUMBERS = (
    'frame', 'bag', 'number', 'stamp_ns', 'log_ns', 'time_ns', 'height', 'width',
    'network_height', 'network_width', 'detected', 'kept', 'filtered_class', 'filtered_area',
)  # fmt: skip
COLUMNS = (
    'frame', 'bag', 'topic', 'number', 'stamp_ns', 'log_ns', 'time_ns', 'clock', 'status',
    'reason', 'height', 'width', 'network_height', 'network_width', 'detected', 'kept',
    'filtered_class', 'filtered_area',
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class FrameRow:
    """A line of ``frames.csv``.

    Attributes:
        frame: position among all frames of the run, from 0.
        bag: position of its bag among those given, from 0.
        topic: of its message.
        number: position among its topic's messages in the bag, from 0.
        stamp_ns: of its header; 0 where it has none or could not be read.
        log_ns: when it was recorded.
        time_ns: the time that counts, by the clock policy.
        clock: which that is, ``stamp`` or ``log``.
        status: ``processed`` or one of ``SKIP_REASONS``.
        reason: in words, empty where it was processed.
        height, width: of the image, 0 where it was not decoded.
        network_height, network_width: the network's input before padding, else 0.
        detected, kept, filtered_class, filtered_area: as in ``engine.Counts``, else 0.
        stage_ms: milliseconds by stage in their order, empty where it was not processed.
    """

    frame: int
    bag: int
    topic: str
    number: int
    stamp_ns: int
    log_ns: int
    time_ns: int
    clock: str = 'stamp'
    status: str = PROCESSED
    reason: str = ''
    height: int = 0
    width: int = 0
    network_height: int = 0
    network_width: int = 0
    detected: int = 0
    kept: int = 0
    filtered_class: int = 0
    filtered_area: int = 0
    stage_ms: dict[str, float] = field(default_factory=dict)

    @property
    def processed(self) -> bool:
        """Whether the engine answered it."""
        return self.status == PROCESSED

    @property
    def total_ms(self) -> float:
        """All stages together."""
        return sum(self.stage_ms.values())


class FramesWriter:
    """Writes ``frames.csv`` line by line; the columns of stages are those of the first row."""

    def __init__(self, stream: TextIO, stages: Sequence[str]) -> None:
        """Write the head.

        Args:
            stream: text, with newlines untranslated.
            stages: names in their order, each a column ``<stage>_ms``.
        """
        self._stages = tuple(stages)
        self._writer = csv.writer(stream, lineterminator='\n')
        self._writer.writerow([*COLUMNS, *(f'{s}_ms' for s in self._stages), 'total_ms'])

    def write(self, row: FrameRow) -> None:
        """Write a frame."""
        fields = [getattr(row, column) for column in COLUMNS]
        times = [row.stage_ms.get(stage) for stage in self._stages]
        total = row.total_ms if row.stage_ms else None
        self._writer.writerow(
            [*fields, *('' if ms is None else f'{ms:.3f}' for ms in (*times, total))]
        )


def read_frames(path: Path) -> Iterator[FrameRow]:
    """Yield the rows of a ``frames.csv``.

    Raises:
        ConfigError: it is none.
    """
    try:
        with path.open(newline='', encoding='utf-8') as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ConfigError(
                    f'{path}: expected a frames.csv of segnode, found one without the column '
                    f'{missing[0]}'
                )
            stages = [
                name
                for name in reader.fieldnames or ()
                if name.endswith('_ms') and name != 'total_ms'
            ]
            for line in reader:
                yield _row(line, stages)
    except (ValueError, TypeError, csv.Error) as error:
        raise ConfigError(
            f'{path}: expected a frames.csv of segnode, found another ({error})'
        ) from None
    except OSError as error:
        raise ConfigError(f'{path}: cannot be read ({error.strerror})') from None


def _row(line: Mapping[str, str], stages: Sequence[str]) -> FrameRow:
    values: dict[str, Any] = {name: line[name] for name in _TEXTS}
    values |= {name: int(line[name]) for name in _NUMBERS}
    stage_ms = {name.removesuffix('_ms'): float(line[name]) for name in stages if line[name]}
    return FrameRow(**values, stage_ms=stage_ms)
