# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The soak's course: rounds of images and faults, and between them what ends a stretch."""

from __future__ import annotations

import math
import random
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from segnode.soak.frames import Frame, Transport
from segnode.soak.operations import Operations
from segnode.soak.stage import START_TIMEOUT_S, SoakError, Stage
from segnode.soak.steps import (
    QUIET_S,
    REFUSED,
    Step,
    busy_steps,
    drawn,
    quiet_faults,
    quiet_steps,
)

ROUND_S = (1.0, 2.5)
"""Seconds of images in a round."""
FIRST_LIFE = 0.5
"""Share of the time that the node's first life gets, so that its memory tells something."""
CROWDED = 0.2
"""Share of the rounds where broken frames come among others, and may be superseded unseen."""
BURSTS = 0.5
"""Share of the rounds that have one."""
PROBE_S = 2.0
SETTLE_S = 60.0
STILL_S = 4.0
"""What is missing, and stays so for as long as this once more, is lost."""
REST_S = 0.3


class Soak:
    """Plays the course.

    Args:
        stage: the processes; none runs yet.
        operations: the faults that are no images.
        rng: draws everything.
        seconds: to go on for, from the moment at which the node is active.
        rate_hz: images a second of each camera.
        faults: inject faults; else images alone.
        weights: the node's weights, a link that may be removed; None for none.
        tell: called now and then with the seconds that have passed.
    """

    def __init__(
        self,
        stage: Stage,
        operations: Operations,
        rng: random.Random,
        *,
        seconds: float,
        rate_hz: float,
        faults: bool,
        weights: Path | None,
        tell: Callable[[float], None],
    ) -> None:
        self._stage = stage
        self._operations = operations
        self._rng = rng
        self._seconds = seconds
        self._gap_s = 1 / rate_hz
        self._faults = faults
        self._weights = weights
        self._tell = tell
        self._start_s = 0.0
        self._light: list[Callable[[], None]] = []
        self._heavy: list[Callable[[], None]] = []
        self._may_restart = False

    def run(self) -> None:
        """Play until the time is over, and end the node as Ctrl-C does.

        Raises:
            SoakError: the node does not come up or answers no image, or one of the soak's own
                processes fails.
        """
        stage = self._stage
        stage.start_watcher()
        for name in self._names:
            stage.start_camera(name)
        self._start_node('raw', replaces=False)
        self._start_s = stage.life.ready_s
        network_hw = stage.accounts[self._names[0]].network_hw
        self._operations.short_side = min(network_hw)
        if self._faults:
            stage.start_silent()
        while self._passed_s() < self._seconds:
            self._round()
            if self._faults and self._passed_s() < self._seconds:
                self._heavy_fault()
            if stage.has_crashed():
                self._restart_after_crash()
        self._operations.let_go()
        stage.end_node(signal.SIGINT)
        stage.wait(lambda: False, REST_S)

    @property
    def _names(self) -> list[str]:
        return list(self._stage.accounts)

    def _passed_s(self) -> float:
        passed_s = time.monotonic() - self._start_s
        self._tell(passed_s)
        return passed_s

    # Rounds

    def _round(self) -> None:
        """Let all cameras send for a while, with light faults beside them, then in quiet."""
        stage, names = self._stage, self._names
        seconds = self._rng.uniform(*ROUND_S)
        broken = {name: self._broken(name) for name in names}
        crowded = {name: self._rng.random() < CROWDED for name in names}
        stage.play(
            {
                name: self._busy_steps(seconds, broken[name] if crowded[name] else ())
                for name in names
            }
        )
        if self._faults:
            for _ in range(self._rng.randint(3, 5)):
                self._light = self._light or self._shuffled(self._operations.all())
                self._light.pop()()
        stage.wait_done(names)
        self._settle(names)
        if not stage.has_crashed():
            stage.play(
                {
                    name: self._quiet_steps(name, () if crowded[name] else broken[name])
                    for name in names
                }
            )
            stage.wait_done(names)
            self._settle(names, quiet=True)
        self._operations.end_round()

    def _broken(self, name: str) -> list[int]:
        if not self._faults:
            return []
        return drawn(self._rng, self._deck(name), REFUSED, refused=True)

    def _busy_steps(self, seconds: float, broken: Sequence[int]) -> list[Step]:
        burst = self._faults and self._rng.random() < BURSTS
        if burst:
            self._operations.count('burst')
        return busy_steps(self._rng, seconds, self._gap_s, burst=burst, refused=broken)

    def _quiet_steps(self, name: str, broken: Sequence[int]) -> list[Step]:
        frame_s = sum(account.frame_s for account in self._stage.accounts.values())
        busy_s = max(QUIET_S, 1.2 * frame_s)
        share = self._names.index(name) / len(self._names)
        steps = quiet_steps(self._rng, busy_s, share)
        if self._faults:
            steps += quiet_faults(self._rng, self._deck(name), busy_s, broken)
        return steps

    def _deck(self, name: str) -> Sequence[Frame]:
        return self._stage.decks[self._stage.life.transport][name]

    def _settle(self, names: Sequence[str], quiet: bool = False) -> None:
        """Wait until nothing is under way, and settle the stretches of cameras."""
        stage = self._stage
        accounts = [stage.accounts[name] for name in names]
        replaces = stage.life.replaces
        before: list[tuple[int, int, int]] = []
        end_s = time.monotonic() + SETTLE_S
        while not stage.wait_status(
            lambda: stage.has_crashed() or all(a.is_settled(replaces) for a in accounts), STILL_S
        ):
            balances = [account.balance() for account in accounts]
            still = balances == before and not any(in_flight for _, in_flight, _ in balances)
            if still or time.monotonic() > end_s:
                break
            before = balances
        if not stage.has_crashed():
            for account in accounts:
                account.settle(replaces, quiet)
            stage.sample()

    # Lives

    def _start_node(self, transport: Transport, replaces: bool) -> None:
        stage = self._stage
        stage.start_node(transport, replaces)
        for name in self._names:
            stage.load_camera(name)
        # A camera does not wait for the node.
        steps: list[Step] = [(0, 'now', self._gap_s)] * 3
        stage.play(dict.fromkeys(self._names, steps))
        stage.wait(lambda: stage.state == 'active' or stage.has_crashed(), START_TIMEOUT_S)
        if stage.state != 'active':
            raise SoakError(f'the node does not come up: {stage.node.last_words()}')
        stage.life.ready_s = time.monotonic()
        stage.wait_done(self._names)
        self._open(self._names)

    def _open(self, names: Sequence[str]) -> None:
        """Begin stretches, once an answer shows that camera, node and watcher have met."""
        stage = self._stage
        for name in names:
            stage.accounts[name].probe()
        end_s, patience_s, waiting = time.monotonic() + START_TIMEOUT_S, PROBE_S, list(names)
        while waiting and not stage.has_crashed():
            if time.monotonic() > end_s:
                raise SoakError(
                    f'the node does not answer {", ".join(waiting)}: {stage.node.last_words()}'
                )
            stage.play({name: [(0, 'now', 0.0)] for name in waiting})
            stage.wait_done(waiting)
            # Its last frame's: all that was sent before is decided then, too.
            stage.wait(partial(self._have_met, waiting), patience_s)
            patience_s *= 2
            waiting = [name for name in waiting if not self._have_met([name])]
        self._rest()
        for name in names:
            stage.accounts[name].open()

    def _have_met(self, names: Sequence[str]) -> bool:
        return all(self._stage.accounts[name].has_last_answer() for name in names)

    def _rest(self) -> None:
        """Wait until the node says that nothing is in flight."""
        accounts = self._stage.accounts.values()
        self._stage.wait_status(
            lambda: (
                self._stage.has_crashed()
                or all(account.counts.get('in_flight') == 0 for account in accounts)
            ),
            SETTLE_S,
        )

    def _midstream(self, act: Callable[[], object], cause: str, names: Sequence[str]) -> None:
        """Do what ends the stretches of some cameras, half of the times while images come.

        The others' go on, and are settled.
        """
        stage, rng = self._stage, self._rng
        if rng.random() < 0.5:
            steps: list[Step] = [(0, 'now', self._gap_s)] * math.ceil(1.5 / self._gap_s)
            stage.play(dict.fromkeys(self._names, steps))
            stage.wait(lambda: False, rng.uniform(0.3, 1.2))
        at_s = time.monotonic()
        act()
        others = [name for name in self._names if name not in names]
        # A camera that was killed will never say that it is done.
        stage.wait_done(others if cause == 'camera_killed' else self._names)
        if stage.has_crashed():
            stage.wait(lambda: False, REST_S)
        else:
            self._rest()
        for name in names:
            stage.accounts[name].cut(cause, at_s, stage.life.replaces)
        if others:
            self._settle(others)

    def _restart_after_crash(self) -> None:
        stage = self._stage
        stage.close_crashed()
        stage.wait_done(self._names)
        for account in stage.accounts.values():
            account.cut('crash', time.monotonic(), stage.life.replaces)
        self._start_node('raw', replaces=False)

    # Heavy faults

    def _heavy_fault(self) -> None:
        may_restart = len(self._stage.lives) > 1 or (self._passed_s() > FIRST_LIFE * self._seconds)
        if not self._heavy or may_restart != self._may_restart:
            self._may_restart = may_restart
            self._heavy = self._shuffled(self._all_heavy(may_restart))
        self._heavy.pop()()

    def _all_heavy(self, may_restart: bool) -> list[Callable[[], None]]:
        faults: list[Callable[[], None]] = [
            self._camera_killed,
            self._deactivate_activate,
            self._cleanup_configure,
        ]
        if self._weights is not None:
            faults.append(self._weights_removed)
        if may_restart:
            faults += [
                partial(self._restart, 'node_interrupted', signal.SIGINT),
                partial(self._restart, 'node_terminated', signal.SIGTERM),
                partial(self._restart, 'node_killed', signal.SIGKILL),
            ]
        return faults

    def _shuffled(self, faults: Sequence[Callable[[], None]]) -> list[Callable[[], None]]:
        return self._rng.sample(faults, len(faults))

    def _camera_killed(self) -> None:
        stage, name = self._stage, self._rng.choice(self._names)
        with self._operations.watch('camera_killed'):
            self._midstream(partial(stage.kill, name), 'camera_killed', [name])
            stage.start_camera(name)
            stage.load_camera(name)
            self._open([name])

    def _deactivate_activate(self) -> None:
        do = self._operations.transition
        with self._operations.watch('deactivate_activate'):
            self._midstream(partial(do, 'deactivate'), 'deactivated', self._names)
            do('activate')
            self._open(self._names)

    def _cleanup_configure(self) -> None:
        do = self._operations.transition
        with self._operations.watch('cleanup_configure'):
            self._midstream(partial(do, 'deactivate'), 'deactivated', self._names)
            for label in ('cleanup', 'configure', 'activate'):
                do(label)
            self._open(self._names)

    def _weights_removed(self) -> None:
        assert self._weights is not None
        do, target = self._operations.transition, self._weights.readlink()
        with self._operations.watch('weights_removed'):
            self._weights.unlink()
            try:
                self._stage.play({name: [(0, 'now', 0.0)] for name in self._names})
                self._stage.wait_done(self._names)
                self._settle(self._names)
                self._midstream(partial(do, 'deactivate'), 'deactivated', self._names)
                do('cleanup')
                self._stage.fault_until_s = math.inf
                do('configure', succeeds=False)
            finally:
                self._weights.symlink_to(target)
            do('configure')
            do('activate')
            self._stage.fault_until_s = time.monotonic()
            self._open(self._names)

    def _restart(self, kind: str, number: signal.Signals) -> None:
        with self._operations.watch(kind):
            self._midstream(partial(self._stage.end_node, number), kind, self._names)
            transport: Transport = self._rng.choice(('raw', 'raw', 'compressed'))
            self._start_node(transport, replaces=self._rng.random() < 0.3)
