# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The soak's processes: the node, its cameras, the watcher, and a subscriber that is stopped."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from segnode.demo.processes import Child, environments
from segnode.errors import SegnodeError
from segnode.output_files import write_whole
from segnode.soak.accounts import Account
from segnode.soak.checks import Sent, counts_of
from segnode.soak.frames import ORDINARY, Frame, Transport, deck, write_deck
from segnode.soak.life import QUEUE, Life
from segnode.soak.shared_memory import mapped_segments, remove_orphans
from segnode.soak.steps import Step

ERROR = 2
"""Level of diagnostic_msgs/DiagnosticStatus."""
START_TIMEOUT_S = 300.0
PATIENCE_S = 60.0
"""For what takes moments on an idle machine."""
CALL_PATIENCE_S = 20.0


class SoakError(SegnodeError):
    """The soak itself cannot go on."""


class Stage:
    """Starts the processes, and files what they tell in the cameras' accounts.

    Args:
        folder: for logs, decks and parameters.
        pictures: of each camera, by its name.
        faults: also make the broken frames.
        settings: of the node, by dotted name.

    Attributes:
        accounts: by camera.
        decks: the frames of each transport and camera, in the order in which steps number them.
        lives: of the node, the last one running.
        findings: broken promises of the node's process.
        state: of the node's last status.
        fault_until_s: monotonic time until which the diagnostics may have the level ERROR because
            a transition had to fail.
    """

    def __init__(
        self,
        folder: Path,
        pictures: Mapping[str, list[Any]],
        faults: bool,
        settings: Mapping[str, Any],
    ) -> None:
        self.folder = folder
        self.accounts = {name: Account(name) for name in pictures}
        self.lives: list[Life] = []
        self.findings: list[str] = []
        self.state = ''
        self.fault_until_s = -math.inf
        self._settings = dict(settings)
        self._events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self._children: dict[str, Child] = {}
        self._full, self._bare = environments(folder / 'ros')
        # Of its own, as another node may come to the same domain.
        self._namespace = f'/soak_{os.getpid()}'
        self._node_name = f'{self._namespace}/segnode'
        self._status_ns = 0
        self._done: dict[str, bool] = dict.fromkeys(pictures, True)
        self._due_s = 0.0
        self._replies: dict[int, dict[str, Any]] = {}
        self._asked = 0
        self._happened: set[tuple[str, str]] = set()
        self._loaded: dict[str, Transport] = {}
        self.decks: dict[Transport, dict[str, list[Frame]]] = {'raw': {}, 'compressed': {}}
        for transport, decks in self.decks.items():
            for name, shown in pictures.items():
                frames = deck(shown, transport, faults)
                write_deck(self._deck_file(name, transport), frames)
                # Only the cameras need the bytes, of hundreds of megabytes.
                decks[name] = [replace(frame, data=b'') for frame in frames]

    def __enter__(self) -> Stage:
        """Nothing runs yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all that still runs, in order, so that nothing of it stays in shared memory."""
        running = [c for c in self._children.values() if c.process.poll() is None]
        for child in running:
            # A stopped process would not even see its stdin's end.
            child.process.send_signal(signal.SIGCONT)
            if child.process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    child.process.stdin.close()
            if child is self._children.get('node'):
                child.process.send_signal(signal.SIGINT)
        for child in running:
            child.end(None, 5.0)
        for transport, decks in self.decks.items():
            for name in decks:
                self._deck_file(name, transport).unlink(missing_ok=True)

    # Processes

    @property
    def life(self) -> Life:
        """The node's present life."""
        return self.lives[-1]

    @property
    def node(self) -> Child:
        """The node's process."""
        return self._children['node']

    @property
    def prefixes(self) -> dict[str, str]:
        """Of the topics and statuses of each camera."""
        many = len(self.accounts) > 1
        return {name: f'{name}/' if many else '' for name in self.accounts}

    def start_watcher(self) -> None:
        """Start who tells what the node publishes."""
        command = ['-m', 'segnode.ros.soak_watcher', '--node', self._node_name]
        self._spawn('watcher', [*command, json.dumps(self.prefixes)], self._bare)

    def start_silent(self) -> None:
        """Start a subscriber that only takes; it is not awaited."""
        self._happened.discard(('silent', 'subscribed'))
        command = ['-m', 'segnode.ros.soak_watcher', '--silent', '--node', self._node_name]
        self._spawn('silent', [*command, json.dumps(self.prefixes)], self._bare)

    def wait_silent(self) -> None:
        """Wait until the subscriber that only takes has met the node.

        Raises:
            SoakError: it does not.
        """
        met = partial(self._happened.__contains__, ('silent', 'subscribed'))
        if not self.wait(lambda: met() or self.has_crashed(), PATIENCE_S):
            raise SoakError(f'a subscriber does not meet the node: {self.silent.last_words()}')

    @property
    def silent(self) -> Child:
        """The subscriber that only takes."""
        return self._children['silent']

    def finding_count(self) -> int:
        """Return how many broken promises were found so far, by whomever."""
        return len(self.all_findings())

    def all_findings(self) -> list[str]:
        """Return the broken promises, those of a camera with its name."""
        by_camera = [f'{a.name}: {text}' for a in self.accounts.values() for text in a.findings]
        return [*self.findings, *by_camera]

    def start_camera(self, name: str) -> None:
        """Start a camera's process, again where it has died."""
        account = self.accounts[name]
        command = ['-m', 'segnode.ros.soak_camera', '--name', name, '--topic', self._topic(name)]
        command += ['--first', str(account.next_number), '--queue', str(QUEUE)]
        self._spawn(name, command, self._bare)

    def load_camera(self, name: str) -> None:
        """Give a camera the deck of the node's transport."""
        transport = self.life.transport
        self._happened.discard((name, 'loaded'))
        deck_file = str(self._deck_file(name, transport))
        self._children[name].tell({'deck': deck_file, 'transport': transport})
        if not self.wait(lambda: (name, 'loaded') in self._happened, PATIENCE_S):
            raise SoakError(
                f'{name} does not load its images: {self._children[name].last_words()}'
            )
        self._loaded[name] = transport

    def start_node(self, transport: Transport, replaces: bool) -> None:
        """Start the node; it is not awaited."""
        life = Life(len(self.lives), transport, replaces, time.monotonic())
        self.state = ''
        for account in self.accounts.values():
            account.new_life()
        topics = {name: self._topic(name) for name in self.accounts}
        outputs = [f'{self._node_name}/{prefix}' for prefix in self.prefixes.values()]
        parameters = {**self._settings, **life.parameters(topics, outputs)}
        path = self.folder / f'node-{life.number}.yaml'
        text = yaml.safe_dump({'/**': {'ros__parameters': parameters}}, sort_keys=False)
        write_whole(path, text.encode())
        log = self.folder / f'node-{life.number}.log'
        command = ['-m', 'segnode', 'node', '--ros-args', '--params-file', str(path)]
        command += ['-r', f'__ns:={self._namespace}']
        self._children['node'] = Child('node', command, self._full, log, None)
        # Not before: an interruption would have the process of the life before judged anew.
        self.lives.append(life)

    def end_node(self, number: signal.Signals) -> None:
        """Send the node a signal, and look at how it ended."""
        self.findings += self.life.end(self.node, number)

    def finish(self) -> None:
        """End the node as Ctrl-C does, wherever it is, and look at how it ended."""
        if self.lives and self.life.exit_code is None:
            if self.has_crashed() or self.life.ended_by:
                self.findings += self.life.close(self.node)
            else:
                self.end_node(signal.SIGINT)

    def close_crashed(self) -> None:
        """Look at how the node's process ended by itself."""
        self.findings += self.life.close(self.node)

    def kill(self, name: str) -> None:
        """Kill another process than the node."""
        child = self._children.pop(name)
        segments = mapped_segments(child.process.pid)
        child.process.kill()
        child.process.wait()
        remove_orphans(segments)
        # What it told before stands in the pipe.
        self.wait(lambda: False, 0.3)

    def sample(self) -> None:
        """Take down what the node's process holds."""
        self.life.sample(self.node.process.pid)

    def _spawn(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        log = self.folder / f'{name}.log'
        self._children[name] = Child(name, command, environment, log, self._events)

    def _deck_file(self, name: str, transport: str) -> Path:
        return self.folder / f'{name}-{transport}.npz'

    # Orders

    def play(self, steps: Mapping[str, Sequence[Step]]) -> None:
        """Let cameras send frames; their accounts know of each before it goes out."""
        for name, played in steps.items():
            self._done[name] = False
            self._children[name].tell({'steps': list(played)})
        longest_s = max(sum(seconds for _, _, seconds in played) for played in steps.values())
        self._due_s = time.monotonic() + longest_s

    def wait_done(self, names: Sequence[str]) -> None:
        """Wait until cameras have sent all.

        Raises:
            SoakError: one of them does not come to an end.
        """
        patience_s = max(0.0, self._due_s - time.monotonic()) + PATIENCE_S
        if not self.wait(lambda: all(self._done[name] for name in names), patience_s):
            raise SoakError(f'a camera fell silent; see the logs in {self.folder}')

    def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Call a service of the node through the watcher, and return the reply.

        A request that was sent while the two were finding each other may be lost, so it is sent
        again: all requests are such that this changes nothing. `asked` tells how often it was.
        """
        for asked in (1, 2, 3):
            self._asked += 1
            number = self._asked
            request = {'id': number, 'do': do, 'patience_s': CALL_PATIENCE_S, **arguments}
            self._children['watcher'].tell(request)
            # It waits for the service, and then for the answer.
            patience_s = 2 * request['patience_s'] + CALL_PATIENCE_S
            self.wait(partial(self._replies.__contains__, number), patience_s)
            reply = self._replies.pop(number, None)
            if reply is not None and reply['answered']:
                return {**reply, 'asked': asked}
            if self.node.process.poll() is not None:
                break
        self.findings.append(f'life {self.life.number}: no answer to {do} {arguments}')
        return {'answered': False, 'ok': False, 'reason': '', 'value': None, 'asked': asked}

    # Events

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Take in events until a condition holds; return whether it does."""
        end = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._apply(*self._events.get_nowait())
            if condition():
                return True
            rest_s = end - time.monotonic()
            if rest_s <= 0:
                return False
            try:
                self._apply(*self._events.get(timeout=min(0.1, rest_s)))
            except queue.Empty:
                self._check_children()

    def wait_status(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for a condition on numbers that the node took down after this call."""
        since_ns = time.time_ns()
        return self.wait(lambda: self._status_ns > since_ns and condition(), timeout_s)

    def has_been_ready(self) -> bool:
        """Return whether the node was ever active."""
        return any(life.ready_s for life in self.lives)

    def has_crashed(self) -> bool:
        """Return whether the node's process has ended by itself."""
        return self.node.process.poll() is not None

    def _check_children(self) -> None:
        for name, child in self._children.items():
            if name != 'node' and child.process.poll() is not None:
                raise SoakError(
                    f'{name} ended with code {child.process.returncode}: {child.last_words()}'
                )

    def _apply(self, source: str, event: dict[str, Any]) -> None:
        kind = event['event']
        if kind == 'sent':
            frame = self.decks[self._loaded[source]][source][event['frame']]
            kind = frame.kind if event['stamp'] == 'now' else f'stamp_{event["stamp"]}'
            picture = event['frame'] if frame.kind == ORDINARY else -1
            sent = Sent(kind, frame.answer_hw, event['stamp_ns'], event['sent_s'], picture)
            self.accounts[source].send(event['number'], sent)
        elif kind == 'done':
            self._done[source] = True
        elif kind == 'status':
            self._apply_status(event)
        elif kind == 'reply':
            self._replies[event['id']] = event
        elif kind == 'missed':
            self.accounts[event['camera']].miss(event['part'], event['count'])
        elif kind in ('detections', 'mask', 'times'):
            self.accounts[event['camera']].answer(kind, event)
        else:
            self._happened.add((source, kind))

    def _apply_status(self, event: dict[str, Any]) -> None:
        # One of a life before may still come.
        at_s = time.monotonic() - (time.time_ns() - event['stamp_ns']) / 1e9
        if at_s < self.life.started_s:
            return
        for status in event['statuses']:
            name = status['camera'] if len(self.accounts) > 1 else next(iter(self.accounts))
            self.state = status['values'].get('state', '')
            failed = status['level'] >= ERROR and at_s > self.fault_until_s
            error = status['message'] if failed else ''
            self.accounts[name].status(counts_of(status['values']), at_s, error)
        self._status_ns = event['stamp_ns']

    def _topic(self, camera: str) -> str:
        return f'{self._namespace}/{camera}/image'
