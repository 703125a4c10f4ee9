# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The frames of a run in their order, in at most so many bins: the lower axis of what changes.

Frames in order rather than time: stamps may stand still, step back or be years apart, and every
frame is to be seen. The times stand below the frames' numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from segnode.evaluation.frames import FrameRow
from segnode.evaluation.report.axes import Axis, round_step
from segnode.evaluation.report.markup import count, duration
from segnode.evaluation.report.run_files import Entry

MOST_BINS = 400


@dataclass(slots=True)
class Timeline:
    """Bins of about equally many frames.

    Attributes:
        frames: how many there are.
        first_ns: time of the first frame of every bin.
    """

    frames: int
    first_ns: list[int | None] = field(init=False)

    def __post_init__(self) -> None:
        self.first_ns = [None] * self.bins

    @property
    def bins(self) -> int:
        """How many bins there are, at least one."""
        return max(1, min(MOST_BINS, self.frames))

    def add(self, row: FrameRow, entries: Sequence[Entry]) -> None:
        """Note the time of a frame."""
        at = self.bin(row)
        if self.first_ns[at] is None:
            self.first_ns[at] = row.time_ns

    def bin(self, row: FrameRow) -> int:
        """Return the bin of a frame."""
        at = row.frame * self.bins // max(1, self.frames)
        return min(self.bins - 1, max(0, at))

    def axis(self) -> Axis:
        """Return the axis, to be called when all frames were added."""
        frames = max(1, self.frames)
        step = max(1, round(round_step(frames)))
        ticks = [(float(frame), self._tick(frame)) for frame in range(0, frames, step)]
        return Axis(0.0, float(frames), 'frame, and its time since the first', ticks)

    def _tick(self, frame: int) -> str:
        time_ns, start_ns = (
            self.first_ns[frame * self.bins // max(1, self.frames)],
            self.first_ns[0],
        )
        if time_ns is None or start_ns is None:
            return count(frame)
        return f'{count(frame)}\n{duration((time_ns - start_ns) / 1e9)}'
