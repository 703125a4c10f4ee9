# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The Pareto picture: well-formed, every point in it, and nothing outside of it."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from typing import Any

import pytest
from seeds import fresh_seeds

from segnode.evaluation.sweep.choice import pareto_front
from segnode.evaluation.sweep.picture import HEIGHT, WIDTH, pareto_svg

SVG = '{http://www.w3.org/2000/svg}'


def rows_of(points: list[tuple[float, float]]) -> list[dict[str, Any]]:
    return [
        {
            'settings': {'filter.classes': ('<b>&"', 'x'), 'resolution.short_side': 100 + k},
            'latency_ms': {'min': x, 'p50': x, 'p95': x},
            'mask_ap': y,
        }
        for k, (x, y) in enumerate(points)
    ]


def draw(rows: list[dict[str, Any]], **more: Any) -> ElementTree.Element:
    front = pareto_front(rows, 'mask_ap')
    svg = pareto_svg(rows, 'mask_ap', name='mask AP', front=front, **more)
    return ElementTree.fromstring(svg)


@pytest.mark.parametrize('seed', fresh_seeds(5))
@pytest.mark.parametrize('scale', [1e-3, 1.0, 1e4])
def test_every_point_lies_in_the_picture_in_order(seed: int, scale: float) -> None:
    rng = random.Random(seed)
    points = [(rng.uniform(1, 50) * scale, rng.random()) for _ in range(rng.randint(1, 60))]
    svg = draw(
        rows_of(points),
        recommended=0,
        budget_ms=1.5 * max(x for x, _ in points),
        title='<a> & "b"',
    )
    circles = svg.findall(f'.//{SVG}circle')
    assert len(circles) == len(points)
    at = []
    for circle in circles:
        title = circle.findtext(f'{SVG}title')
        assert title is not None
        k = int(title.partition('short_side ')[2].partition(':')[0]) - 100
        x, y = float(circle.get('cx', '')), float(circle.get('cy', ''))
        assert 0 < x < WIDTH
        assert 0 < y < HEIGHT
        at.append((points[k], (x, y)))
    # Right is slower, up is better.
    for axis, sign in ((0, 1), (1, -1)):
        by_value = [sign * place[axis] for _, place in sorted(at, key=lambda each: each[0][axis])]
        assert all(b >= a - 0.11 for a, b in pairwise(by_value))
    for text in svg.findall(f'.//{SVG}text'):
        if text.get('y') is not None:
            assert 0 < float(text.get('y', '')) < HEIGHT
    (line,) = [each for each in svg.findall(f'.//{SVG}line') if each.get('class') == 'budget']
    assert 0 < float(line.get('x1', '')) < WIDTH


@pytest.mark.parametrize('points', [[], [(3.0, 0.5)], [(3.0, 0.0), (3.0, 0.0)]])
def test_few_points_draw(points: list[tuple[float, float]]) -> None:
    rows = rows_of(points) or [{'settings': {'a': 1}, 'latency_ms': None, 'mask_ap': None}]
    assert len(draw(rows).findall(f'.//{SVG}circle')) == len(points)


def test_a_budget_far_away_leaves_the_points_apart() -> None:
    svg = draw(rows_of([(30.0, 0.2), (40.0, 0.5)]), recommended=1, budget_ms=2000.0, title='')
    assert not [each for each in svg.findall(f'.//{SVG}line') if each.get('class') == 'budget']
    assert any('2000 ms lies far' in (each.text or '') for each in svg.iter(f'{SVG}text'))
    x = sorted(float(each.get('cx', 0)) for each in svg.findall(f'.//{SVG}circle'))
    assert x[1] - x[0] > WIDTH / 4
