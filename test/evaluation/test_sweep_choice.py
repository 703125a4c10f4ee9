# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Which rows stand on the front, which is recommended, and which is the reference."""

from __future__ import annotations

import random
from typing import Any

import pytest
from seeds import fresh_seeds

from segnode.evaluation.sweep.choice import choose, pareto_front, reference


def row(p50: float | None, value: float | None, p95: float | None = None) -> dict[str, Any]:
    ms = None if p50 is None else {'min': p50, 'p50': p50, 'p95': p95 or p50}
    return {'latency_ms': ms, 'mask_ap': value, 'failed': None}


def beats(a: dict[str, Any], b: dict[str, Any]) -> bool:
    faster, slower = a['latency_ms']['p50'], b['latency_ms']['p50']
    return (
        faster <= slower
        and a['mask_ap'] >= b['mask_ap']
        and (faster, -a['mask_ap']) != (slower, -b['mask_ap'])
    )


@pytest.mark.parametrize('seed', fresh_seeds(20))
def test_the_front_is_what_nothing_beats(seed: int) -> None:
    rng = random.Random(seed)
    # Few values, so that many are equal.
    rows = [
        row(rng.choice([None, *range(5)]), rng.choice([None, *range(5)]))
        for _ in range(rng.randint(0, 25))
    ]
    known = {
        k for k, r in enumerate(rows) if r['latency_ms'] is not None and r['mask_ap'] is not None
    }
    expected = {k for k in known if not any(beats(rows[other], rows[k]) for other in known)}
    front = pareto_front(rows, 'mask_ap')
    assert set(front) == expected
    assert len(front) == len(expected)
    assert [rows[k]['latency_ms']['p50'] for k in front] == sorted(
        rows[k]['latency_ms']['p50'] for k in front
    )


def test_the_best_row_within_the_budget_is_chosen() -> None:
    rows = [row(10, 0.2, 12), row(20, 0.5, 31), row(25, 0.4, 29), row(26, 0.4, 28), row(9, None)]
    assert choose(rows, 'mask_ap', None) == 1
    assert choose(rows, 'mask_ap', 31) == 1
    # The tail counts, not the median; of equal ones the faster.
    assert choose(rows, 'mask_ap', 30) == 2
    assert choose(rows, 'mask_ap', 28) == 3
    assert choose(rows, 'mask_ap', 12) == 0
    assert choose(rows, 'mask_ap', 11.9) is None
    assert choose([], 'mask_ap', None) is None
    assert choose([row(None, 0.9)], 'mask_ap', None) is None


def settings(**changes: Any) -> dict[str, Any]:
    failed = changes.pop('failed', None)
    plain = {
        'precision': 'fp32', 'short_side': 480, 'long_side': 800, 'proposals': 1000,
        'score_threshold': 0.5, 'min_mask_area': 100, 'max_mask_area': 900, 'classes': ['a'],
        'max_instances': 100,
    }  # fmt: skip
    return {'effective': plain | changes, 'failed': failed}


@pytest.mark.parametrize(
    'better',
    [
        {'short_side': 640, 'score_threshold': 0.9},
        {'short_side': 0},
        {'long_side': 900},
        {'proposals': 2000},
        {'score_threshold': 0.1, 'min_mask_area': 500},
        {'min_mask_area': 0},
        {'max_mask_area': 0},
        {'classes': ['a', 'b']},
        {'max_instances': 200},
    ],
)
def test_the_reference_is_the_most_expensive_then_the_loosest(better: dict[str, Any]) -> None:
    assert reference([settings(), settings(**better), settings()]) == 1
    assert reference([settings(**better), settings()]) == 0
    assert reference([settings(precision='bf16', **better), settings()]) == 1
    assert reference([settings(**better, failed='no memory'), settings()]) == 1


def test_without_rows_there_is_no_reference() -> None:
    assert reference([]) is None
    assert reference([settings(failed='no memory')]) is None
    assert reference([settings(), settings()]) == 0
