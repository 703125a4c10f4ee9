# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""How much two runs over the same frames find the same: agreement, which is not accuracy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

SAME_IOU = 0.5

Entry = dict[str, Any]
Frames = Iterable[tuple[int, list[Entry]]]


def agreement(results: Frames, reference: Frames) -> float | None:
    """Return the F1 score of a run's instances against those of another.

    Instances of one class in one frame are the same from a mask IoU of ``SAME_IOU`` on. The one
    with the highest score chooses first, the mask that it overlaps most, and each is the same as
    one other at most.

    Args:
        results: a frame's number and its entries, highest score first, frames in ascending order.
        reference: the same of the other run.

    Returns:
        2 * same / (all of both), None where neither found anything.
    """
    same = total = 0
    for found, expected in _together(results, reference):
        total += len(found) + len(expected)
        by_class: dict[str, tuple[list[Entry], list[Entry]]] = defaultdict(lambda: ([], []))
        for side, entries in enumerate((found, expected)):
            for entry in entries:
                by_class[entry['category_name']][side].append(entry['segmentation'])
        same += sum(_matches(ours, theirs) for ours, theirs in by_class.values())
    return 2 * same / total if total else None


def _together(results: Frames, reference: Frames) -> Iterator[tuple[list[Entry], list[Entry]]]:
    """Yield the entries of both for every frame that either has."""
    ours, theirs = iter(results), iter(reference)
    our, their = next(ours, None), next(theirs, None)
    while our is not None or their is not None:
        frame = min(each[0] for each in (our, their) if each is not None)
        found: list[Entry] = []
        expected: list[Entry] = []
        if our is not None and our[0] == frame:
            found, our = our[1], next(ours, None)
        if their is not None and their[0] == frame:
            expected, their = their[1], next(theirs, None)
        yield found, expected


def _matches(found: list[Entry], expected: list[Entry]) -> int:
    """Return how many of two lists of run-length masks are the same."""
    if not found or not expected:
        return 0
    overlaps = np.asarray(coco_mask.iou(found, expected, [0] * len(expected)))
    count = 0
    for row in overlaps:
        best = int(row.argmax())
        if row[best] >= SAME_IOU:
            overlaps[:, best] = -1
            count += 1
    return count
