# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the soak's cameras send in a round."""

from __future__ import annotations

import random
from collections import Counter

from segnode.soak.frames import Frame
from segnode.soak.steps import busy_steps, drawn, quiet_faults, quiet_steps

DECK = [
    *[Frame('frame', 'raw', b'', answer_hw=(4, 6))] * 4,
    Frame('wrong_step', 'raw', b''),
    Frame('wrong_step', 'raw', b''),
    Frame('zero_size', 'raw', b''),
    Frame('tiny_image', 'raw', b'', answer_hw=(1, 1)),
]


def test_the_second_picture_in_quiet_comes_twice() -> None:
    (one, *first), (other, *_), (again, *last) = quiet_steps(random.Random(0), 0.5, 0.25)
    assert one != other == again
    assert (first, last) == (['now', 0.625], ['now', 0.5])


def test_each_kind_has_its_turn() -> None:
    found = Counter(DECK[i].kind for i in drawn(random.Random(0), DECK, 6, refused=True))
    assert found == {'wrong_step': 3, 'zero_size': 3}
    found = Counter(DECK[i].kind for i in drawn(random.Random(0), DECK, 5, refused=True))
    assert sorted(found.values()) == [2, 3]
    assert drawn(random.Random(0), DECK, 1, refused=False) == [7]
    assert drawn(random.Random(0), [], 3, refused=True) == []


def test_faults_in_quiet_wait_for_what_came_before() -> None:
    steps = quiet_faults(random.Random(0), DECK, 0.5, [4, 6])
    assert steps[:3] == [(4, 'now', 0.5), (6, 'now', 0.15), (7, 'now', 0.5)]
    assert steps[3][1] in ('zero', 'repeated', 'back', 'ahead')


def test_what_is_refused_comes_among_the_others() -> None:
    steps = busy_steps(random.Random(0), 1.0, 0.25, burst=True, refused=[4, 6])
    assert sum(seconds == 0.25 for _, _, seconds in steps) == 4
    assert sorted(index for index, _, seconds in steps if seconds == 0.125) == [4, 6]
    assert 5 <= sum(seconds == 0 for _, _, seconds in steps) <= 20
