# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Effective settings: what the user set over what the model says."""

from __future__ import annotations

import math

import pytest

from segnode.config import Config
from segnode.engine.settings import InferenceSettings, resolve_settings
from segnode.errors import ConfigError

NAMES = ('cone', 'ball', 'box')
DEFAULTS = InferenceSettings(
    short_side=800,
    long_side=1333,
    score_threshold=0.05,
    nms_threshold=0.5,
    max_instances=100,
    proposals=1000,
)


def resolve(changes: dict[str, object]) -> InferenceSettings:
    return resolve_settings(Config().replace(changes), DEFAULTS, NAMES)


def test_what_is_not_set_is_the_models() -> None:
    settings = resolve({})
    assert settings == InferenceSettings(
        short_side=800,
        long_side=1333,
        score_threshold=0.05,
        nms_threshold=0.5,
        max_instances=100,
        proposals=1000,
        mask_threshold=0.5,
        min_mask_area=0,
        max_mask_area=math.inf,
        classes=frozenset({0, 1, 2}),
    )


@pytest.mark.parametrize(
    ('key', 'value', 'name'),
    [
        ('resolution.short_side', 320, 'short_side'),
        ('resolution.long_side', 640, 'long_side'),
        ('filter.score_threshold', 0.7, 'score_threshold'),
        ('filter.score_threshold', 0.0, 'score_threshold'),
        ('filter.nms_threshold', 0.3, 'nms_threshold'),
        ('filter.nms_threshold', 0, 'nms_threshold'),
        ('filter.max_instances', 7, 'max_instances'),
        ('filter.min_mask_area', 50, 'min_mask_area'),
        ('filter.max_mask_area', 5000, 'max_mask_area'),
        ('proposals', 300, 'proposals'),
        ('mask_threshold', 0.3, 'mask_threshold'),
    ],
)
def test_what_is_set_wins(key: str, value: float, name: str) -> None:
    changed = resolve({key: value})
    assert getattr(changed, name) == value
    unchanged = [field for field in InferenceSettings.__slots__ if field != name]
    before = resolve({})
    assert all(getattr(changed, field) == getattr(before, field) for field in unchanged)


def test_classes_are_found_by_name() -> None:
    assert resolve({'filter.classes': ['box', 'cone']}).classes == {0, 2}
    assert resolve({'filter.classes': []}).classes == {0, 1, 2}


def test_equal_names_are_all_kept() -> None:
    config = Config().replace({'filter.classes': ['car']})
    assert resolve_settings(config, DEFAULTS, ('car', 'dog', 'car')).classes == {0, 2}


def test_an_unknown_class_is_refused_by_name() -> None:
    with pytest.raises(
        ConfigError, match=r'filter\.classes: .*cone, ball, box.* found barrel, Box'
    ):
        resolve({'filter.classes': ['box', 'barrel', 'Box']})
    many = tuple(f'class_{index}' for index in range(500))
    with pytest.raises(ConfigError) as error:
        resolve_settings(Config().replace({'filter.classes': ['x']}), DEFAULTS, many)
    assert len(str(error.value)) < 400
