# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The files of a run, read together and as streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segnode.errors import ConfigError
from segnode.evaluation.frames import FrameRow, read_frames
from segnode.evaluation.results_file import read_results

Entry = dict[str, Any]


def read_summary(folder: Path) -> dict[str, Any]:
    """Return a run's ``summary.json``.

    Raises:
        ConfigError: it is none.
    """
    path = folder / 'summary.json'
    try:
        summary = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f'{path}: cannot be read ({error.strerror})') from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f'{path}: expected the summary of a run, found no JSON ({error})'
        ) from None
    if not isinstance(summary, dict) or not isinstance(summary.get('frames'), int):
        raise ConfigError(f'{path}: expected the summary of a run, found one without frames')
    return summary


def read_answers(folder: Path) -> Iterator[tuple[FrameRow, list[Entry]]]:
    """Yield every frame of a run with its instances, highest score first; one frame in memory.

    Raises:
        ConfigError: ``frames.csv`` or ``results.json`` is none, or they are of different runs.
    """
    path = folder / 'results.json'
    results = read_results(path)
    waiting = next(results, None)
    for row in read_frames(folder / 'frames.csv'):
        entries = []
        while waiting is not None and waiting['image_id'] == row.frame:
            entries.append(waiting)
            waiting = next(results, None)
        yield row, entries
    if waiting is not None:
        raise ConfigError(
            f'{path}: expected results of the frames of frames.csv in their order, found one of '
            f'frame {waiting["image_id"]!r}; both must be of one run'
        )
