# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A sweep's work: runs that answer for many rows, latencies in turns, and the rows' scores.

The folder is its memory. What a file hangs on is in its name, so that the same command goes on
where it was stopped, other values take up what is there, and changed bags, models or versions
start anew:

    runs/<name>/          a run as `evaluate` writes it, without bag and page
    timings/<name>.json   latencies of one engine's rows, all of the session they took turns in
    rows/<name>.json      a finished row
    agreements/           of a row with the reference
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segnode.config import Config, parameters
from segnode.errors import SegnodeError
from segnode.evaluation.replay import Replay, Request
from segnode.evaluation.run import RESULTS
from segnode.evaluation.sweep.agreement import agreement
from segnode.evaluation.sweep.book import digest, saved
from segnode.evaluation.sweep.choice import reference
from segnode.evaluation.sweep.derive import Limits, derived_results
from segnode.evaluation.sweep.engine_rows import ROWS, RUNS, TIMINGS, EngineRows, unscored
from segnode.evaluation.sweep.grid import Row
from segnode.evaluation.truth import read_truth
from segnode.output_files import make_folder, remove_parts

AGREEMENTS = 'agreements'


def sweep(
    rows: Sequence[Row],
    selection: Request,
    folder: Path,
    report: Callable[[str], None],
    *,
    latency_frames: int,
    agreements: bool,
) -> tuple[list[dict[str, Any]], int | None]:
    """Run, time and score every row that is not in the folder yet.

    Args:
        rows: of the grid.
        selection: frames and ground truth.
        folder: segnode's own, made already.
        report: is told in a line what is done and what is left out.
        latency_frames: how many frames latency is measured on.
        agreements: whether agreement with the reference is wanted.

    Returns:
        A row's results each, in the order of ``rows``, and the position of the row that
        agreement is measured against, None without.

    Raises:
        SegnodeError: nothing could be done at all.
        KeyboardInterrupt: what is done stays.
    """
    for name in (RUNS, TIMINGS, ROWS, AGREEMENTS):
        make_folder(folder / name)
        remove_parts(folder / name)
    truth = read_truth(selection, report)
    with Replay(selection, lambda _: None) as source:
        # By name, as a run that is not scored knows no label images to leave out.
        selection = replace(selection, topics=source.topics)
    # One engine at a time in memory.
    engines: dict[str, list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        flat = row.config.flat()
        fixed = {p.name: flat[p.name] for p in parameters(Config) if not p.runtime}
        engines[digest(fixed)].append(position)
    found: dict[int, dict[str, Any]] = {}
    for positions in engines.values():
        own = [rows[position] for position in positions]
        try:
            work = EngineRows(
                own, selection, folder, report, truth, latency_frames, needs_runs=agreements
            )
        except SegnodeError as error:
            # One of several, as a precision that this device lacks, must not stop the others.
            if len(engines) == 1:
                raise
            found |= dict.fromkeys(positions, unscored(str(error)))
            continue
        found |= zip(positions, work.rows(), strict=True)
        del work
        gc.collect()
    # A row may have been one of another grid before, which told it by other values.
    results = [{'settings': row.varied} | found[k] for k, row in enumerate(rows)]
    compared = reference(results) if agreements else None
    for result in results:
        result['agreement'] = None
        if compared is not None and result['failed'] is None:
            result['agreement'] = _agreement(result, results[compared], folder)
    return results, compared


def _agreement(row: dict[str, Any], compared: dict[str, Any], folder: Path) -> float | None:
    """Return the agreement of a row with another; saved, as it looks at every frame."""

    def compute() -> dict[str, Any]:
        ours, theirs = (
            derived_results(folder / RUNS / each['run'] / RESULTS, Limits.of(each['effective']))
            for each in (row, compared)
        )
        return {'agreement': agreement(ours, theirs)}

    path = folder / AGREEMENTS / f'{row["name"]}-{compared["name"]}.json'
    value: float | None = saved(path, compute)['agreement']
    return value
