# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What only the sums over a soak tell, on records by hand."""

from __future__ import annotations

from collections import Counter

from segnode.soak.accounts import Account, Totals
from segnode.soak.checks import Sent
from segnode.soak.report import run_problems

RIGHT = Totals(answers=9, detections=12, labels=11)


def test_a_right_run() -> None:
    assert run_problems([RIGHT, Totals()], Counter(burst=3), Counter()) == []


def test_nothing_answered_detected_or_labelled_is_told() -> None:
    (found,) = run_problems([Totals()], Counter(), Counter())
    assert found == 'no image was answered'
    (found,) = run_problems([Totals(answers=9)], Counter(), Counter())
    assert found.startswith('nothing was detected in 9 answers')
    (found,) = run_problems([Totals(answers=9, detections=9)], Counter(), Counter())
    assert found == 'instance_mask has no label, with 9 detections in all'


def test_a_kind_that_was_never_confirmed_is_told() -> None:
    (found,) = run_problems([RIGHT], Counter(png_bomb=5, burst=4), Counter())
    assert found == 'png_bomb: 5 were injected, none was seen to come out right'
    assert run_problems([RIGHT], Counter(png_bomb=5), Counter(png_bomb=1)) == []


def test_broken_frames_that_are_superseded_for_ever_are_told() -> None:
    """As from a node that never refuses anything and swallows it in place."""
    account = Account('front')
    counts = dict.fromkeys(
        ('dropped_superseded', 'dropped_stale', 'dropped_decode', 'dropped_inactive',
         'dropped_error', 'published', 'in_flight', 'message_lost', 'received'), 0
    )  # fmt: skip
    account.status(dict(counts))
    account.open()
    for number in range(5):
        account.send(number, Sent('wrong_step', None, number, 1.0))
    account.status({**counts, 'received': 5, 'dropped_superseded': 5})
    account.settle(replaces=False)
    assert account.findings == []
    (found,) = run_problems([RIGHT], account.injected, account.confirmed)
    assert found.startswith('wrong_step: 5 were injected')
