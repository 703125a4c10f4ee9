# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Agreement of two runs, against masks that are compared pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco_mask
from seeds import fresh_seeds

from segnode.evaluation.sweep.agreement import agreement

Mask = npt.NDArray[np.uint8]


def entry(mask: Mask, name: str = 'cone') -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask))
    counts = rle['counts'].decode()
    return {'category_name': name, 'segmentation': {'size': rle['size'], 'counts': counts}}


def bar(first: int, last: int) -> Mask:
    mask = np.zeros((4, 40), np.uint8)
    mask[:, first:last] = 1
    return mask


def test_equal_runs_agree_and_different_ones_do_not() -> None:
    run = [(0, [entry(bar(0, 10)), entry(bar(12, 20))]), (3, [entry(bar(5, 9), 'ball')])]
    assert agreement(run, run) == 1.0
    assert agreement(run, []) == 0.0
    assert agreement([], run) == 0.0
    assert agreement([], []) is None


@pytest.mark.parametrize(
    ('last', 'name', 'expected'),
    [(10, 'cone', 1.0), (5, 'cone', 1.0), (4, 'cone', 0.0), (10, 'ball', 0.0)],
)
def test_half_of_a_mask_and_the_same_class_are_enough(
    last: int, name: str, expected: float
) -> None:
    assert agreement([(0, [entry(bar(0, last), name)])], [(0, [entry(bar(0, 10))])]) == expected


def test_frames_are_matched_by_their_number() -> None:
    ours = [(0, [entry(bar(0, 9))]), (2, [entry(bar(0, 9))])]
    theirs = [(1, [entry(bar(0, 9))]), (2, [entry(bar(0, 9))]), (5, [entry(bar(0, 9))])]
    assert agreement(ours, theirs) == pytest.approx(2 * 1 / 5)


def test_one_instance_is_the_same_as_one_other_only() -> None:
    assert agreement([(0, [entry(bar(0, 9))] * 2)], [(0, [entry(bar(0, 9))])]) == pytest.approx(
        2 / 3
    )


def counted(ours: list[tuple[Mask, str]], theirs: list[tuple[Mask, str]]) -> int:
    free, same = list(range(len(theirs))), 0
    for mask, name in ours:
        ious = [
            (mask & theirs[k][0]).sum() / max((mask | theirs[k][0]).sum(), 1)
            if theirs[k][1] == name
            else -1.0
            for k in free
        ]
        if ious and max(ious) >= 0.5:
            free.pop(int(np.argmax(ious)))
            same += 1
    return same


@pytest.mark.parametrize('seed', fresh_seeds(10))
def test_random_runs_agree_as_counted_by_hand(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def instances() -> list[tuple[Mask, str]]:
        ends = np.sort(rng.integers(0, 40, (rng.integers(0, 7), 2)), axis=1)
        return [(bar(first, last + 1), rng.choice(['cone', 'ball'])) for first, last in ends]

    frames = [(instances(), instances()) for _ in range(8)]
    ours, theirs = (
        [(k, [entry(*each) for each in pair[side]]) for k, pair in enumerate(frames) if pair[side]]
        for side in (0, 1)
    )
    total = sum(len(a) + len(b) for a, b in frames)
    expected = 2 * sum(counted(a, b) for a, b in frames) / total if total else None
    assert agreement(ours, theirs) == pytest.approx(expected)
