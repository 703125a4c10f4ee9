# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""How long frames take on another machine: one number, or what was measured there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segnode.errors import ConfigError
from segnode.evaluation.frames import FrameRow, read_frames


@dataclass(frozen=True, slots=True)
class Latencies:
    """Milliseconds a frame.

    Attributes:
        name: where they come from, for messages.
        in_order_ms: of the processed frames, in their order; one for all is a constant.
        by_frame_ms: by bag, topic, number and time of recording.
    """

    name: str
    in_order_ms: tuple[float, ...]
    by_frame_ms: dict[tuple[int, str, int, int], float]

    def of(
        self, frames: Sequence[FrameRow], report: Callable[[str], None]
    ) -> Callable[[FrameRow], float]:
        """Return the milliseconds by processed frame of a run.

        Where they were measured on the same frames, each has its own; else they are drawn in
        the order in which they were measured, from the start again where they run out.

        Args:
            frames: of the run.
            report: is told which of it is done.
        """
        processed = [row for row in frames if row.processed]
        if len(self.in_order_ms) == 1:
            report(f'latencies: {self.in_order_ms[0]:g} ms for every frame')
            return lambda _: self.in_order_ms[0]
        if all(_key(row) in self.by_frame_ms for row in processed):
            report(f'latencies: of the same frames in {self.name}')
            return lambda row: self.by_frame_ms[_key(row)]
        report(
            f'latencies: the {len(self.in_order_ms)} of {self.name} in their order over '
            f'{len(processed)} frames, as those are others'
        )
        drawn = {
            row.frame: self.in_order_ms[k % len(self.in_order_ms)]
            for k, row in enumerate(processed)
        }
        return lambda row: drawn[row.frame]


def latencies_of(source: Path | float) -> Latencies:
    """Read latencies.

    Args:
        source: milliseconds for every frame, or a ``frames.csv``.

    Raises:
        ConfigError: it is neither, or one that is not above 0.
    """
    if not isinstance(source, Path):
        if not (math.isfinite(source) and source > 0):
            raise ConfigError(
                f'latencies: expected milliseconds above 0 or a frames.csv, found {source:g}'
            )
        return Latencies(f'{source:g} ms', (float(source),), {})
    rows = [row for row in read_frames(source) if row.processed]
    for row in rows:
        if not (math.isfinite(row.total_ms) and row.total_ms > 0):
            raise ConfigError(
                f'{source}: expected stage times above 0 ms, found {row.total_ms:g} ms for frame '
                f'{row.frame}'
            )
    if not rows:
        raise ConfigError(f'{source}: expected times of processed frames, found none')
    return Latencies(
        str(source),
        tuple(row.total_ms for row in rows),
        {_key(row): row.total_ms for row in rows},
    )


def _key(row: FrameRow) -> tuple[int, str, int, int]:
    # The time tells another bag with the same topic.
    return row.bag, row.topic, row.number, row.log_ns
