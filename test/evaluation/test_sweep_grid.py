# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The rows of a sweep out of what the command line says."""

from __future__ import annotations

import pytest

from segnode.config import Config
from segnode.errors import ConfigError
from segnode.evaluation.sweep.grid import MOST_ROWS, label, make_rows, parse_variations


def test_every_combination_is_a_row_once() -> None:
    variations = parse_variations(
        ['resolution.short_side=240,320,240', 'min-mask-area=0,200', 'precision=fp32']
    )
    assert variations == {
        'resolution.short_side': (240, 320),
        'filter.min_mask_area': (0, 200),
        'precision': ('fp32',),
    }
    base = Config().replace({'device': 'cpu'})
    rows, left_out = make_rows(base, variations)
    assert left_out == []
    assert [row.varied['resolution.short_side'] for row in rows] == [240, 240, 320, 320]
    assert [row.varied['filter.min_mask_area'] for row in rows] == [0, 200, 0, 200]
    for row in rows:
        assert row.config == base.replace(row.varied)
    assert label(rows[1].varied) == 'short_side=240 min_mask_area=200 precision=fp32'


def test_values_have_the_types_of_their_settings() -> None:
    variations = parse_variations(
        ['score_threshold=-1,0.5,1', 'classes=,cone,cone + ball', '--max-instances=3']
    )
    assert variations['filter.score_threshold'] == (-1.0, 0.5, 1.0)
    assert all(type(value) is float for value in variations['filter.score_threshold'])
    assert variations['filter.classes'] == ((), ('cone',), ('cone', 'ball'))
    assert variations['filter.max_instances'] == (3,)
    rows, _ = make_rows(Config(), {'filter.classes': variations['filter.classes']})
    assert [label(row.varied) for row in rows] == [
        'classes=all', 'classes=cone', 'classes=cone+ball',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('short_side', 'NAME=VALUE,VALUE'),
        ('resolution.short_sid=1', 'did you mean resolution.short_side?'),
        ('scorethreshold=1', 'did you mean filter.score_threshold?'),
        ('quux=1', 'known are'),
        ('refresh=true', "expected the name of a setting, found 'refresh'"),
        ('short_side=', 'expected a whole number'),
        ('short_side=240.5', 'expected a whole number'),
        ('short_side=240,-1', '0 or more'),
        ('score_threshold=high', 'expected a number'),
        ('score_threshold=nan', 'expected -1 or more'),
        ('precision=fp8', 'expected one of auto, fp16, bf16, fp32'),
    ],
)
def test_what_does_not_fit_is_said(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_variations([text])
    assert expected in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_setting_is_varied_once() -> None:
    with pytest.raises(ConfigError, match=r'once, found resolution\.short_side again'):
        parse_variations(['short_side=1', 'resolution.short_side=2'])


def test_combinations_that_do_not_go_together_are_left_out_with_their_reason() -> None:
    variations = parse_variations(['min_mask_area=0,1000', 'max_mask_area=0,500'])
    rows, left_out = make_rows(Config(), variations)
    assert len(rows) == 3
    (line,) = left_out
    assert line.startswith('min_mask_area=1000 max_mask_area=500: ')
    with pytest.raises(ConfigError, match='go together'):
        make_rows(Config(), {'filter.min_mask_area': (9,), 'filter.max_mask_area': (5,)})


def test_a_grid_has_its_limit() -> None:
    values = tuple(range(1, MOST_ROWS + 1))
    rows, _ = make_rows(Config(), {'filter.max_instances': values})
    assert len(rows) == MOST_ROWS
    # Told before any is made.
    huge = {'filter.max_instances': range(10**9), 'filter.min_mask_area': range(10**9)}
    with pytest.raises(ConfigError, match='at most 1000 combinations, found 1000000000000000000'):
        make_rows(Config(), huge)
