# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The configuration: one declaration, validated where it is made."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from segnode.config import Config, Filter, Resolution, parameters
from segnode.errors import ConfigError


def test_flat_names_are_the_parameters_in_order() -> None:
    names = [parameter.name for parameter in parameters(Config)]
    assert list(Config().flat()) == names
    assert len(names) == len(set(names))
    assert 'filter.score_threshold' in names
    assert 'model' in names


def test_defaults_are_declared_once() -> None:
    for parameter in parameters(Config):
        assert Config().flat()[parameter.name] == parameter.default
        assert parameter.validate(parameter.default) == parameter.default
        assert parameter.description
        assert type(parameter.default) in (int, float, str, bool, tuple)
        if type(parameter.default) in (int, float):
            assert parameter.minimum <= parameter.default <= parameter.maximum


def test_what_a_running_engine_can_take() -> None:
    fixed = [parameter.name for parameter in parameters(Config) if not parameter.runtime]
    assert {'model', 'weights', 'backend', 'device', 'precision', 'class_names'} <= set(fixed)
    assert not any(name.startswith(('filter.', 'resolution.')) for name in fixed)


def test_replace_changes_a_copy() -> None:
    before = Config()
    after = before.replace(
        {'filter.score_threshold': 1, 'filter.classes': ['a', 'b'], 'model': 'm', 'proposals': 5}
    )
    assert before == Config()
    assert after.filter.score_threshold == 1.0
    assert type(after.filter.score_threshold) is float
    assert after.filter.classes == ('a', 'b')
    changed = {name for name, value in after.flat().items() if value != before.flat()[name]}
    assert changed == {'filter.score_threshold', 'filter.classes', 'model', 'proposals'}
    assert Config().replace(after.flat()) == after
    # An empty list comes out of YAML as None.
    assert after.replace({'filter.classes': None}).filter.classes == ()


def test_a_config_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().model = 'x'  # type: ignore[misc]


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('filter.score_threshold', 1.01, 'filter.score_threshold: expected -1 or more and 1'),
        ('filter.score_threshold', -0.5, 'filter.score_threshold: expected -1 or 0 to 1'),
        ('filter.score_threshold', math.nan, 'filter.score_threshold: '),
        ('filter.score_threshold', '0.5', "expected float, found '0.5'"),
        ('filter.score_threshold', True, 'expected float, found True'),
        ('filter.nms_threshold', math.inf, 'filter.nms_threshold: '),
        ('filter.max_instances', -1, 'filter.max_instances: '),
        ('filter.max_instances', 2.0, 'expected int, found 2.0'),
        ('filter.max_instances', True, 'expected int, found True'),
        ('filter.min_mask_area', -5, 'filter.min_mask_area: '),
        ('filter.classes', 'cone', "expected a list of strings, found 'cone'"),
        ('filter.classes', [1], 'expected a list of strings'),
        ('resolution.short_side', 10**6, 'resolution.short_side: '),
        ('resolution.long_side', None, 'resolution.long_side: '),
        ('mask_threshold', 0.0, 'mask_threshold: expected -1 or more than 0'),
        ('norm_eps', -0.5, 'norm_eps: expected -1 or 0 to 1, found -0.5'),
        ('precision', 'fp8', 'precision: expected one of auto, fp16, bf16, fp32'),
        ('backend', '', 'backend: expected one of'),
        ('model', 3, 'model: expected str, found 3'),
        ('device', None, 'device: expected str'),
        ('refresh', 'yes', "refresh: expected bool, found 'yes'"),
        ('refresh', 1, 'refresh: expected bool, found 1'),
        ('filter.scores', 0.5, 'unknown setting filter.scores; known are model, '),
        ('filter', None, 'unknown setting filter;'),
        ('', 1, 'unknown setting ;'),
    ],
)
def test_what_does_not_fit_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config().replace({name: value})
    assert message in str(error.value)
    assert '\n' not in str(error.value)


def test_values_are_checked_where_the_dataclass_is_made() -> None:
    with pytest.raises(ConfigError, match='max_mask_area'):
        Filter(min_mask_area=100, max_mask_area=50)
    with pytest.raises(ConfigError, match='short_side'):
        Resolution(short_side=-1)
    with pytest.raises(ConfigError, match='score_threshold'):
        Filter(score_threshold=2.0)
    with pytest.raises(ConfigError, match='precision'):
        Config(precision='half')
    with pytest.raises(TypeError):
        Config(unknown=1)  # type: ignore[call-arg]
    assert Filter(min_mask_area=100, max_mask_area=0).max_mask_area == 0
    assert Filter(score_threshold=1).score_threshold == 1.0


def test_areas_may_change_together_whatever_the_order() -> None:
    config = Config().replace({'filter.min_mask_area': 10, 'filter.max_mask_area': 20})
    moved = config.replace({'filter.min_mask_area': 30, 'filter.max_mask_area': 40})
    assert (moved.filter.min_mask_area, moved.filter.max_mask_area) == (30, 40)
    with pytest.raises(ConfigError):
        config.replace({'filter.min_mask_area': 30})
