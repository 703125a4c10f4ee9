# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A run's ground truth, and what its answers come to against it."""

from __future__ import annotations

import array
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from segnode.bags.bag import open_bag
from segnode.errors import AnnotationError
from segnode.evaluation.bag_truth import BagTruth, Matching
from segnode.evaluation.frames import FrameRow, read_frames
from segnode.evaluation.label_truth import annotations_of_labels
from segnode.evaluation.latencies import Latencies
from segnode.evaluation.replay import Request
from segnode.evaluation.results_file import read_results
from segnode.evaluation.scores import score
from segnode.evaluation.streaming import streaming_scores

_NO_TIMES: dict[str, float] = {}


def read_truth(request: Request, report: Callable[[str], None]) -> BagTruth | None:
    """Read the ground truth that is asked for, None where none is.

    Raises:
        AnnotationError: it cannot be used.
        BagError: a bag cannot be read, or lacks the topic.
    """
    if request.annotations is not None:
        return BagTruth.read(request.annotations, report)
    if not request.label_topic:
        return None
    if len(request.bags) != 1:
        raise AnnotationError(
            f'--label-topic: expected one bag, found {len(request.bags)}; evaluate them one by one'
        )
    with open_bag(request.bags[0], report) as bag:
        dataset = annotations_of_labels(bag, request.label_topic, report)
    return BagTruth.from_coco(dataset, request.label_topic, report)


def scored(
    truth: BagTruth | None,
    latencies: Latencies | None,
    request: Request,
    frames: Path,
    results: Path,
    class_names: Sequence[str],
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Return the scores of a run's files; what a ground truth is needed for is None without one.

    Args:
        truth: what was annotated.
        latencies: of another machine, None for those that were measured.
        request: of the run.
        frames: its ``frames.csv``.
        results: its ``results.json``.
        class_names: of the model.
        report: is told of what counts neither way.

    Raises:
        AnnotationError: no frame is annotated, or no class.
    """
    rows, measured_ms = _rows(frames)
    latency_ms = latencies.of(rows, report) if latencies else (lambda row: measured_ms[row.frame])
    found, matching = None, None
    if truth is not None:
        matching = truth.match(rows, round(request.window_ms * 1e6))
        found = score(
            truth.annotations,
            read_results(results),
            matching.image_ids,
            class_names,
            report=report,
        )
        for reason, count in matching.skipped.items():
            report(f'{count} annotated images count neither way: {reason}')
    streaming = streaming_scores(
        rows,
        latency_ms,
        truth.annotations if truth else None,
        read_results(results),
        matching.image_ids if matching else {},
    )
    ap = {
        f'{part}_{key}': found[part][key] if found else None
        for part in ('box', 'mask')
        for key in ('ap', 'ap50')
    }
    return {
        **ap,
        'streaming_box_ap': streaming['box_ap'],
        'streaming_mask_ap': streaming['mask_ap'],
        'scores': found,
        'truth': _told(truth, matching),
        'streaming': streaming | {'latencies': latencies.name if latencies else 'measured here'},
    }


def _told(truth: BagTruth | None, matching: Matching | None) -> dict[str, Any] | None:
    if truth is None or matching is None:
        return None
    return {
        'rule': matching.rule,
        'annotated': len(truth.annotations.images),
        'matched': len(matching.image_ids),
        'skipped': dict(matching.skipped),
    }


def _rows(frames: Path) -> tuple[list[FrameRow], array.array[float]]:
    """Return the rows of all frames without their times, and the sums of those."""
    rows, totals_ms = [], array.array('d')
    for row in read_frames(frames):
        totals_ms.append(row.total_ms)
        # Most texts are those of the row before: half the memory.
        for name in ('topic', 'clock', 'status', 'reason'):
            setattr(row, name, sys.intern(getattr(row, name)))
        row.stage_ms = _NO_TIMES
        rows.append(row)
    return rows, totals_ms
