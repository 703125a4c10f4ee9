# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""How steady the masks of a topic are from one processed frame to the next.

No ground truth is needed, so it also counts what really appears, leaves or moves: a figure to
compare settings on the same frames by, and no accuracy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pycocotools import mask as coco_mask

from segnode.evaluation.frames import FrameRow

SAME_MASK_IOU = 0.5
LONGEST_GAP_S = 1.0


@dataclass(slots=True)
class Stability:
    """Sums over a topic's pairs of consecutive frames.

    Attributes:
        pairs: consecutive processed frames less than ``LONGEST_GAP_S`` apart.
        instances: of the earlier frames of the pairs.
        persisted: those of them that have a match in the later frame: equal class and a mask IoU
            of ``SAME_MASK_IOU`` or more, the highest IoU first, each at most once.
        iou_sum: of the matches.
        score_change_sum: absolute change of score, of the matches.
        inner: instances of frames that have a pair on both sides.
        flickers: those of them without a match on either side.
    """

    pairs: int = 0
    instances: int = 0
    persisted: int = 0
    iou_sum: float = 0.0
    score_change_sum: float = 0.0
    inner: int = 0
    flickers: int = 0

    @property
    def persistence(self) -> float | None:
        """Share of instances that persist; None without instances."""
        return self.persisted / self.instances if self.instances else None

    @property
    def mean_iou(self) -> float | None:
        """Mean mask IoU of an instance with itself in the next frame; None without a match."""
        return self.iou_sum / self.persisted if self.persisted else None

    @property
    def score_jitter(self) -> float | None:
        """Mean absolute change of score from frame to frame; None without a match."""
        return self.score_change_sum / self.persisted if self.persisted else None

    @property
    def flicker(self) -> float | None:
        """Share of instances that live one frame only; None where that cannot be told."""
        return self.flickers / self.inner if self.inner else None


@dataclass(slots=True)
class _Last:
    """The last processed frame of a topic.

    Attributes:
        row: of ``frames.csv``.
        entries: its instances.
        matched: which of them had a match in the frame before, None where there was no pair.
    """

    row: FrameRow
    entries: Sequence[Mapping[str, Any]]
    matched: list[bool] | None


class StabilityMeter:
    """Takes the frames of a run in order and keeps one frame a topic."""

    def __init__(self) -> None:
        self.by_topic: dict[str, Stability] = defaultdict(Stability)
        self._last: dict[str, _Last] = {}

    def add(self, row: FrameRow, entries: Sequence[Mapping[str, Any]]) -> None:
        """Take a frame; one that was not processed changes nothing.

        Args:
            row: of ``frames.csv``.
            entries: its instances, COCO results with ``category_id``, ``score`` and
                ``segmentation``.
        """
        if not row.processed:
            return
        sums, last = self.by_topic[row.topic], self._last.get(row.topic)
        matched: list[bool] | None = None
        if last is not None and _consecutive(last.row, row):
            matched = [False] * len(entries)
            persisted = [False] * len(last.entries)
            for iou, before, now in matches(last.entries, entries):
                persisted[before] = matched[now] = True
                sums.iou_sum += iou
                sums.score_change_sum += abs(entries[now]['score'] - last.entries[before]['score'])
            sums.pairs += 1
            sums.instances += len(persisted)
            sums.persisted += sum(persisted)
            if last.matched is not None:
                sums.inner += len(persisted)
                sums.flickers += sum(
                    not (before or after)
                    for before, after in zip(last.matched, persisted, strict=True)
                )
        self._last[row.topic] = _Last(row, entries, matched)


def _consecutive(before: FrameRow, now: FrameRow) -> bool:
    """Whether two frames are neighbours in time: duplicates and steps backward are none."""
    gap_s = (now.time_ns - before.time_ns) / 1e9
    return before.bag == now.bag and before.clock == now.clock and 0 < gap_s < LONGEST_GAP_S


def matches(
    before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
) -> list[tuple[float, int, int]]:
    """Return what is the same in two frames: IoU and the positions in both, highest IoU first."""
    found = []
    positions_now = _by_class(now)
    for category, rows in _by_class(before).items():
        columns = positions_now.get(category, [])
        if not columns:
            continue
        # Masks of different sizes have an IoU of -1 here.
        ious = coco_mask.iou(
            [now[column]['segmentation'] for column in columns],
            [before[row]['segmentation'] for row in rows],
            [0] * len(rows),
        )
        found += [
            (float(iou), row, column)
            for line, column in zip(ious, columns, strict=True)
            for iou, row in zip(line, rows, strict=True)
            if iou >= SAME_MASK_IOU
        ]
    kept, rows_taken, columns_taken = [], set(), set()
    for iou, row, column in sorted(found, key=lambda match: (-match[0], match[1], match[2])):
        if row not in rows_taken and column not in columns_taken:
            rows_taken.add(row)
            columns_taken.add(column)
            kept.append((iou, row, column))
    return kept


def _by_class(entries: Sequence[Mapping[str, Any]]) -> dict[Any, list[int]]:
    positions: dict[Any, list[int]] = defaultdict(list)
    for position, entry in enumerate(entries):
        positions[entry['category_id']].append(position)
    return positions
