# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The soak's checks, each on records that break its promise, and on some that do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from segnode.soak.checks import (
    Sample,
    Sent,
    answer_problems,
    backward_problem,
    counts_of,
    growth,
    growth_left_out,
    growth_problems,
    identity_problem,
)

STATUS = {
    'state': 'active',
    'received': '12',
    'published': '5',
    'dropped_superseded': '3',
    'dropped_stale': '0',
    'dropped_decode': '2',
    'dropped_inactive': '1',
    'dropped_error': '0',
    'in_flight': '1',
    'message_lost': '4',
    'received_hz': '5.00',
}


def counts(**changed: int) -> dict[str, int]:
    return counts_of({**STATUS, **{key: str(value) for key, value in changed.items()}})


def test_the_identity_holds() -> None:
    assert identity_problem(counts()) == ''
    assert counts()['message_lost'] == 4
    assert counts_of({**STATUS, 'message_lost': 'unknown'})['message_lost'] == 0
    assert 'received_hz' not in counts()


@pytest.mark.parametrize(
    'key', ['received', 'published', 'in_flight', 'dropped_superseded', 'dropped_error']
)
def test_a_broken_identity_is_told(key: str) -> None:
    problem = identity_problem(counts(**{key: int(STATUS[key]) + 1}))
    assert problem.startswith('received ')
    assert 'is not published' in problem
    gone = counts()
    del gone[key]
    assert key in identity_problem(gone)


def test_a_negative_count_is_told() -> None:
    assert 'in_flight -1' in identity_problem(counts(in_flight=-1, published=7))


def test_a_count_that_goes_back_is_told() -> None:
    assert backward_problem({}, counts()) == ''
    assert backward_problem(counts(), counts(in_flight=0, message_lost=0)) == ''
    assert backward_problem(counts(), counts(published=4)) == 'published went back from 5 to 4'


SENT = Sent('frame', (4, 6), 77, 1.0)


def answer(**changed: Any) -> dict[str, dict[str, Any]]:
    """Return the whole answer to ``SENT``; a change is ``part__key=value``."""
    parts: dict[str, dict[str, Any]] = {
        'detections': {'stamp_ns': 77, 'count': 3, 'ids_right': True},
        # The second instance is wholly covered.
        'mask': {'stamp_ns': 77, 'size_hw': [4, 6], 'labels': [0, 1, 3]},
        'times': {'stamp_ns': 77},
    }
    for key, value in changed.items():
        part, _, name = key.partition('__')
        parts[part][name] = value
    return parts


def test_a_right_answer() -> None:
    assert answer_problems(9, SENT, answer()) == []
    assert answer_problems(9, SENT, answer(mask__labels=[0], detections__count=0)) == []
    # Its mask is below the threshold everywhere.
    assert answer_problems(9, SENT, answer(mask__labels=[0], detections__count=1)) == []


@pytest.mark.parametrize(
    ('changed', 'problem'),
    [
        ({'mask__labels': [0, 4]}, 'label 4 of 3 detections'),
        ({'detections__count': 0}, 'label 3 of 0 detections'),
        ({'mask__labels': [0], 'detections__count': 5}, 'no label of 5 detections'),
        ({'mask__size_hw': [4, 5]}, 'instance_mask is [4, 5], its image [4, 6]'),
        ({'mask__stamp_ns': 78}, 'mask has the stamp 78, its image 77'),
        ({'detections__stamp_ns': 0}, 'detections has the stamp 0'),
        ({'times__stamp_ns': 0}, 'times has the stamp 0'),
        ({'detections__ids_right': False}, 'detections[k-1] is not named k'),
        ({'mask__problem': 'instance_mask: expected encoding 16UC1'}, 'expected encoding 16UC1'),
    ],
)
def test_a_wrong_answer_is_told(changed: dict[str, Any], problem: str) -> None:
    (found,) = answer_problems(9, SENT, answer(**changed))
    assert found.startswith('frame 9 (frame): ')
    assert problem in found


@pytest.mark.parametrize('part', ['detections', 'mask', 'times'])
def test_a_part_that_never_came_is_told(part: str) -> None:
    parts = answer()
    del parts[part]
    (found,) = answer_problems(9, SENT, parts)
    assert f'{part} never came' in found


def test_an_answer_to_a_broken_image_is_told() -> None:
    broken = Sent('wrong_step', None, 77, 1.0)
    (found,) = answer_problems(9, broken, answer())
    assert found == 'frame 9 (wrong_step): expected to be dropped as decode, found an answer'


def samples(
    memory_mib: Callable[[float], float],
    files: Callable[[float], int] = lambda _: 30,
    threads: Callable[[float], int] = lambda _: 20,
    seconds: int = 600,
) -> list[Sample]:
    return [
        Sample(s, memory_mib(s), files(s), threads(s)) for s in map(float, range(0, seconds, 4))
    ]


def test_steady_memory() -> None:
    # It is loaded first, and now and then a frame is large.
    steady = samples(lambda s: 300.0 if s < 20 else 900.0 + 30 * (s % 40 == 0))
    assert growth_problems(steady) == []
    assert growth_problems(samples(lambda s: 900 + 0.9 * s / 60)) == []


def test_the_slope_is_of_most_samples() -> None:
    seconds = [float(s) for s in range(0, 600, 4)]
    found = growth(seconds, [900 + 3 * s / 60 - 200 * (s % 20 == 0) for s in seconds])
    assert found is not None
    assert found.slope_per_min == pytest.approx(3, abs=0.3)
    # Of a life that is shorter nothing is said but its bound.
    short = growth(seconds[:60], seconds[:60])
    assert short is not None
    assert short.slope_per_min is None
    assert growth([1.0, 2.0], [1.0, 2.0]) is None


def test_what_settles_in_the_first_third_is_no_slope() -> None:
    assert growth_problems(samples(lambda s: 1200 + min(s, 190.0))) == []
    (found,) = growth_problems(samples(lambda s: 1200 + min(s, 190.0) + max(0.0, s - 190) / 20))
    assert found == 'memory: grows by 3.00 MiB a minute'


def test_growing_memory_is_told() -> None:
    (found,) = growth_problems(samples(lambda s: 900 + 2 * s / 60))
    assert found == 'memory: grows by 2.00 MiB a minute'
    (found,) = growth_problems(samples(lambda s: 900 + 300 * (s > 80), seconds=100))
    assert 'at most 1200 MiB after the warm-up' in found


def test_growing_numbers_of_files_and_threads_are_told() -> None:
    (found,) = growth_problems(samples(lambda _: 900, files=lambda s: 30 + int(s / 20)))
    assert found.startswith('file descriptors: ')
    (found,) = growth_problems(samples(lambda _: 900, threads=lambda s: 20 + int(s / 40)))
    assert found.startswith('threads: ')


def test_what_cannot_be_told_of_growth_is_named() -> None:
    assert growth_left_out(samples(lambda _: 900)) == []
    (slope,) = growth_left_out(samples(lambda _: 900, seconds=120))
    assert slope.startswith('slope of memory: ')
    assert [text.partition(':')[0] for text in growth_left_out([])] == [
        'bound of memory',
        'slope of memory',
        'growth of file descriptors and threads',
    ]
