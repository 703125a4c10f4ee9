# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the soak's operator makes of a node's answers, which are played by hand here."""

from __future__ import annotations

import random
import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from segnode.soak.operations import Operations
from segnode.soak.stage import Stage


class Node:
    """Answers as a right node does, except for what a test makes wrong."""

    def __init__(self, **wrong: Any) -> None:
        self.wrong = wrong
        self.accounts = {'front': None}
        self.life = SimpleNamespace(number=2)
        self.findings: list[str] = []
        self.done: list[Any] = []
        self.state = 'active'
        self.values: dict[str, Any] = {}

    def wait_silent(self) -> None:
        self.done.append('met')

    def kill(self, name: str) -> None:
        self.done.append(f'kill {name}')

    def start_silent(self) -> None:
        self.done.append('start')

    @property
    def silent(self) -> Any:
        return SimpleNamespace(process=SimpleNamespace(send_signal=self.done.append))

    def finding_count(self) -> int:
        return len(self.findings)

    def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        answered = {'answered': True, 'ok': True, 'reason': '', 'value': None}
        answered['asked'] = self.wrong.get('asked', 1)
        if do == 'get':
            return {**answered, 'value': [self.values.get(arguments['names'][0])]}
        if do == 'state':
            return {**answered, 'value': self.state}
        if do == 'transition':
            self.state = self.wrong.get('state', self.state)
            return {**answered, 'ok': self.wrong.get('ok', False)}
        taken = self.wrong.get('takes', True)
        if taken:
            self.values.update(self.wrong.get('values', arguments['changes']))
        reason = self.wrong.get('reason', '' if taken else f'{arguments["changes"][0][0]}: no')
        return {**answered, 'ok': taken, 'reason': reason}


def operate(kind: str, own_model: bool = False, **wrong: Any) -> tuple[list[str], bool]:
    """Carry out one fault; return the findings, and whether it was confirmed."""
    node = Node(**wrong)
    operations = Operations(cast('Stage', node), random.Random(0), own_model)
    operations.short_side = 480
    getattr(operations, f'_{kind}')()
    assert operations.injected == {kind: 1}
    return node.findings, bool(operations.confirmed[kind])


REFUSED = ('parameter_invalid', 'parameter_read_only', 'parameters_half_wrong')


@pytest.mark.parametrize('kind', REFUSED)
def test_refusals(kind: str) -> None:
    assert operate(kind, takes=False) == ([], True)
    (taken, changed, *_), confirmed = operate(kind)
    assert 'expected to be refused, found them taken' in taken
    assert 'after a refused change' in changed
    assert not confirmed
    (silent,), confirmed = operate(kind, takes=False, reason='')
    assert silent.endswith('refused without a reason')
    assert not confirmed


def test_changes_that_are_right() -> None:
    assert operate('parameter_valid') == ([], True)
    (found,), confirmed = operate('parameter_valid', values={})
    assert 'was set to' in found
    assert not confirmed
    (found,), confirmed = operate('parameter_valid', takes=False)
    assert 'was refused' in found
    assert not confirmed
    # An exported model may lack what the parameter is for, and says so.
    assert operate('parameter_valid', own_model=True, takes=False) == ([], True)
    (found,), _ = operate('parameter_valid', own_model=True, takes=False, reason='no')
    assert 'was refused: no' in found


def test_transitions_that_are_not_valid() -> None:
    assert operate('transition_not_valid') == ([], True)
    (found,), confirmed = operate('transition_not_valid', ok=True)
    assert 'of a node that is active: expected active, found active (success: True)' in found
    assert not confirmed
    (found,), _ = operate('transition_not_valid', state='inactive')
    assert 'expected active, found inactive (success: False)' in found


def test_a_transition_that_has_to_succeed() -> None:
    node = Node(ok=True, state='inactive')
    operations = Operations(cast('Stage', node), random.Random(0), False)
    operations.transition('deactivate')
    assert node.findings == []
    operations.transition('activate')
    assert node.findings == [
        'life 2: activate of a node that is inactive: expected active, found inactive '
        '(success: True)'
    ]


def test_a_transition_that_was_asked_for_twice_is_judged_by_the_state() -> None:
    node = Node(ok=False, state='inactive', asked=2)
    operations = Operations(cast('Stage', node), random.Random(0), False)
    operations.transition('deactivate')
    assert node.findings == []
    operations.transition('activate')
    assert len(node.findings) == 1


def test_the_other_subscriber_is_stopped_and_killed_only_once_it_has_met_the_node() -> None:
    node = Node()
    operations = Operations(cast('Stage', node), random.Random(0), False)
    operations._subscriber_killed()
    assert node.done == ['met', 'kill silent', 'start']
    operations._subscriber_stopped()
    operations.let_go()
    assert node.done[3:] == ['met', signal.SIGSTOP, signal.SIGCONT]
