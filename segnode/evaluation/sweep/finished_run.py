# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A run of a sweep that is over, and whether it answers for rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segnode.evaluation.run import FRAMES, RESULTS, SUMMARY
from segnode.evaluation.sweep.book import read_saved
from segnode.evaluation.sweep.derive import Limits

# What the summary of a run that never was would say.
_NEVER = {'stopped': 'not begun', 'processed': 0, 'reasons': {}}


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that is over.

    Attributes:
        folder: of the run.
        limits: that it kept to.
        summary: what its ``summary.json`` says.
    """

    folder: Path
    limits: Limits
    summary: dict[str, Any]

    @classmethod
    def read(cls, folder: Path, limits: Limits) -> FinishedRun:
        """Return the run in a folder; one that is missing or not whole has failed."""
        summary = read_saved(folder / SUMMARY) if is_whole(folder) else None
        return cls(folder, limits, summary or _NEVER)

    @property
    def failed(self) -> str:
        """Why it answers for no row, '' where it does."""
        stopped = str(self.summary['stopped'])
        if stopped or self.summary['processed']:
            return stopped
        return next(iter(self.summary['reasons']), 'the bag has no frames')


def is_whole(folder: Path) -> bool:
    """Return whether a run's folder has all that rows are made of."""
    return all((folder / name).is_file() for name in (SUMMARY, RESULTS, FRAMES))
