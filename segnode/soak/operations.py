# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Faults that are no images: what an operator does, rightly or wrongly, and another subscriber."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from segnode.soak.faults import (
    TRANSITIONS,
    Change,
    invalid_change,
    read_only_change,
    valid_change,
)
from segnode.soak.stage import START_TIMEOUT_S, Stage

STATE_AFTER = {
    'configure': 'inactive',
    'cleanup': 'unconfigured',
    'activate': 'active',
    'deactivate': 'inactive',
}
STOPPED_ROUNDS = (1, 3)


class Operations:
    """Carries them out and takes down whether each came out as it has to.

    Args:
        stage: the processes.
        rng: draws the changes.
        own_model: the model is not the embedded one, and may refuse a parameter that it lacks.

    Attributes:
        short_side: of the network's input as the node was set up, pixels.
        injected: faults by kind.
        confirmed: those of them that came out as they have to.
    """

    def __init__(self, stage: Stage, rng: random.Random, own_model: bool) -> None:
        self._stage = stage
        self._rng = rng
        self._own_model = own_model
        self._stopped_rounds = 0
        self.short_side = 0
        self.injected: Counter[str] = Counter()
        self.confirmed: Counter[str] = Counter()

    def all(self) -> Sequence[Callable[[], None]]:
        """Return one of each kind that may happen while images come."""
        return (
            self._parameter_valid,
            self._parameter_valid,
            self._parameter_invalid,
            self._parameter_read_only,
            self._parameters_half_wrong,
            self._transition_not_valid,
            self._subscriber_stopped,
            self._subscriber_killed,
        )

    def count(self, kind: str) -> None:
        """Count a fault whose outcome the accounts tell."""
        self.injected[kind] += 1
        self.confirmed[kind] += 1

    @contextmanager
    def watch(self, kind: str) -> Iterator[None]:
        """Count a fault, and confirm it where nothing was found meanwhile."""
        before = self._stage.finding_count()
        self.injected[kind] += 1
        yield
        self.confirmed[kind] += self._stage.finding_count() == before

    # Transitions

    def transition(self, label: str, *, succeeds: bool = True) -> None:
        """Ask for a transition, and find fault where it does not go as it has to."""
        before = self._state()
        patience = {'patience_s': START_TIMEOUT_S} if label == 'configure' else {}
        reply = self._stage.call(
            'transition', label=label, transition_id=TRANSITIONS[label], **patience
        )
        after = self._state()
        expected = STATE_AFTER[label] if succeeds else before
        # Where a first reply was late, the second request found the transition done.
        judged = reply['answered'] and reply['asked'] == 1
        if after != expected or (judged and reply['ok'] != succeeds):
            self._find(
                f'{label} of a node that is {before}: expected {expected}, found {after} '
                f'(success: {reply["ok"]})'
            )

    def _transition_not_valid(self) -> None:
        with self.watch('transition_not_valid'):
            label = self._rng.choice(('configure', 'cleanup', 'activate'))
            self.transition(label, succeeds=False)

    def _state(self) -> Any:
        return self._stage.call('state')['value']

    # Parameters

    def _parameter_valid(self) -> None:
        name, value = valid_change(self._rng, self.short_side)
        with self.watch('parameter_valid'):
            reply = self._stage.call('set', changes=[(name, value)])
            if reply['ok']:
                found = self._value(name)
                if found != value:
                    self._find(f'{name} was set to {value!r} and is {found!r}')
            elif not (self._own_model and name in reply['reason']):
                self._find(f'{name} = {value!r} was refused: {reply["reason"]}')

    def _parameter_invalid(self) -> None:
        self._refused('parameter_invalid', [invalid_change(self._rng)])

    def _parameter_read_only(self) -> None:
        change = read_only_change(self._rng, list(self._stage.accounts))
        self._refused('parameter_read_only', [change])

    def _parameters_half_wrong(self) -> None:
        changes = [valid_change(self._rng, self.short_side), invalid_change(self._rng)]
        if changes[0][0] != changes[1][0]:
            self._rng.shuffle(changes)
            self._refused('parameters_half_wrong', changes)

    def _refused(self, kind: str, changes: Sequence[Change]) -> None:
        with self.watch(kind):
            before = {name: self._value(name) for name, _ in changes}
            reply = self._stage.call('set', changes=changes)
            if reply['ok']:
                self._find(f'{changes}: expected to be refused, found them taken')
            elif reply['answered'] and not reply['reason']:
                self._find(f'{changes}: refused without a reason')
            for name, value in before.items():
                found = self._value(name)
                if found != value:
                    self._find(f'{name} was {value!r}, and is {found!r} after a refused change')

    def _value(self, name: str) -> Any:
        reply = self._stage.call('get', names=[name])
        return reply['value'][0] if reply['value'] else None

    # The other subscriber

    def _subscriber_stopped(self) -> None:
        if not self._stopped_rounds:
            self._stopped_rounds = self._rng.randint(*STOPPED_ROUNDS)
            self.injected['subscriber_stopped'] += 1
            self._found_before = self._stage.finding_count()
            self._stage.wait_silent()
            self._stage.silent.process.send_signal(signal.SIGSTOP)

    def end_round(self) -> None:
        """Let a stopped subscriber go on, once it has been stopped for long enough."""
        if self._stopped_rounds:
            self._stopped_rounds -= 1
            if not self._stopped_rounds:
                self._stage.silent.process.send_signal(signal.SIGCONT)
                same = self._stage.finding_count() == self._found_before
                self.confirmed['subscriber_stopped'] += same

    def let_go(self) -> None:
        """Let a stopped subscriber go on, at the end."""
        self._stopped_rounds = min(self._stopped_rounds, 1)
        self.end_round()

    def _subscriber_killed(self) -> None:
        if not self._stopped_rounds:
            with self.watch('subscriber_killed'):
                self._stage.wait_silent()
                self._stage.kill('silent')
                self._stage.start_silent()

    def _find(self, text: str) -> None:
        self._stage.findings.append(f'life {self._stage.life.number}: {text}')
