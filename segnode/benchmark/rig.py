# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The node between a camera and a subscriber, and a bare relay beside it: a process each.

Whoever measures asks here for a series of frames, and gets what came of it.
"""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from segnode.demo.processes import NODE_NAME, Child, environments
from segnode.errors import MeasurementError

START_TIMEOUT_S = 300.0
ANSWER_TIMEOUT_S = 30.0
SETTLE_TIMEOUT_S = 60.0
POLL_S = 0.05
NODE_COMMAND = ('-m', 'segnode', 'node', '--ros-args')


@dataclass(frozen=True, slots=True)
class Series:
    """Frames that were played one after the other, and what came back of them.

    Attributes:
        sent: frames.
        ages_ms: of those that came back, from their stamp to the subscriber.
        instances: in each answer of the node.
        rate_hz: at which they came back, of all cameras together.
        stages_ms: the node's own times of each frame.
        image_bytes: of a message.
        cpu_ms: that the process took in all, of every core; None where the system does not tell.
    """

    sent: int
    ages_ms: list[float]
    instances: list[int]
    rate_hz: float
    stages_ms: list[dict[str, float]]
    image_bytes: int
    cpu_ms: float | None


@dataclass(slots=True)
class _Taken:
    """What the subscriber has told since a series began, by camera and stamp."""

    answers: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    relayed: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    stages: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)


class Rig:
    """Starts the processes for one transport, and ends them with the ``with`` block.

    Attributes:
        counts: the node's own, of all cameras, when it was last at rest.
        rmw: the middleware.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], transport: str, cameras: int
    ) -> None:
        """Take what is to be started.

        Args:
            folder: for logs and the node's parameters.
            settings: of the model, by their dotted names.
            transport: raw or compressed.
            cameras: of the node; the relay has as many.
        """
        names = [f'camera_{number}' for number in range(1, cameras + 1)]
        self._topics = {
            'node': [f'/{name}/image' for name in names],
            'relay': [f'/{name}/floor' for name in names],
        }
        outputs = [f'{NODE_NAME}/{name}' for name in names] if cameras > 1 else [NODE_NAME]
        self._folder = folder
        parameters = {
            **settings,
            'image_topics': self._topics['node'],
            'camera_names': names,
            'image_transport': transport,
        }
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in parameters.items()}
        relayed = [f'{topic}/relayed' for topic in self._topics['relay']]
        everything = [*self._topics['node'], *self._topics['relay']]
        parameter_file = folder / 'parameters.yaml'
        text = yaml.safe_dump({'/**': {'ros__parameters': values}})
        parameter_file.write_text(text, encoding='utf-8')
        self._commands = {
            'subscriber': _peer(
                'subscriber', transport, '--outputs', *outputs, '--relayed', *relayed
            ),
            'relay': _peer('relay', transport, *self._topics['relay']),
            'node': [*NODE_COMMAND, '--params-file', str(parameter_file)],
            'camera': _peer('camera', transport, *everything),
        }
        self._events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self._children: dict[str, Child] = {}
        self._old_handler: Any = None
        self._taken = _Taken()
        self._counted = 0
        self._complaint = ''
        self.counts: dict[str, int] = {}
        self.rmw = ''

    def __enter__(self) -> Rig:
        """Start all, and wait until they are connected.

        Raises:
            MeasurementError: one of them ended, or does not come up.
        """
        # SIGTERM ends the children in order, as Ctrl-C does.
        self._old_handler = signal.signal(signal.SIGTERM, _interrupt)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End all that still runs."""
        try:
            for child in reversed(list(self._children.values())):
                child.end(signal.SIGINT, 10.0)
        finally:
            signal.signal(signal.SIGTERM, self._old_handler)

    def warm_up(self, files: Sequence[Path], frames: int, rate_hz: float) -> None:
        """Play frames of a new size to both until they come back, and then some more.

        Raises:
            MeasurementError: nothing comes back.
        """
        for target in self._topics:
            # The first ones can be lost: to know of a topic is not yet to be connected.
            for _ in range(3):
                if self.play(target, files, 1, rate_hz).ages_ms:
                    break
            else:
                said = self._complaint or self._children['node'].last_words()
                raise MeasurementError(f'the {target} answers no image: {said}')
            self.play(target, files, frames, rate_hz)

    def play(self, target: str, files: Sequence[Path], frames: int, rate_hz: float) -> Series:
        """Play frames on each camera, and wait for the answer to the last ones.

        Args:
            target: ``node`` or ``relay``.
            files: pictures that take turns.
            frames: of each camera.
            rate_hz: of each camera.

        Raises:
            MeasurementError: a process ended or fell silent.
        """
        self._taken = _Taken()
        process = self._children[target].process.pid
        before_ms = cpu_ms(process)
        played = self._ask(
            'camera',
            frames / rate_hz + ANSWER_TIMEOUT_S,
            topics=self._topics[target],
            files=[str(path) for path in files],
            frames=frames,
            rate_hz=rate_hz,
        )
        sent = [
            (camera, stamp_ns)
            for camera, stamps_ns in enumerate(played['stamps_ns'])
            for stamp_ns in stamps_ns
        ]
        last = [(camera, stamps_ns[-1]) for camera, stamps_ns in enumerate(played['stamps_ns'])]
        back = self._taken.answers if target == 'node' else self._taken.relayed
        # The newest image always wins, so that the last one is answered whatever was dropped; its
        # stage times come behind.
        final = self._taken.stages if target == 'node' else back
        self._wait(lambda: all(key in back and key in final for key in last), ANSWER_TIMEOUT_S)
        after_ms = cpu_ms(process)
        answers = [back[key] for key in sent if key in back]
        arrived_s = [answer['stamp_ns'] / 1e9 + answer['age_ms'] / 1e3 for answer in answers]
        span_s = max(arrived_s, default=0.0) - min(arrived_s, default=0.0)
        return Series(
            len(sent),
            [answer['age_ms'] for answer in answers],
            [answer['instances'] for answer in answers if 'instances' in answer],
            (len(arrived_s) - 1) / span_s if span_s > 0 else 0.0,
            [self._taken.stages[key]['stages_ms'] for key in sent if key in self._taken.stages],
            played['image_bytes'],
            None if before_ms is None or after_ms is None else after_ms - before_ms,
        )

    def settle(self) -> dict[str, int]:
        """Return the node's counts once two in a row are equal, with nothing in flight.

        Raises:
            MeasurementError: it does not come to rest.
        """
        earlier: dict[str, int] = {}
        end = time.monotonic() + SETTLE_TIMEOUT_S
        while time.monotonic() < end:
            self._wait(partial(self._has_counted, self._counted + 1), SETTLE_TIMEOUT_S)
            if earlier and self.counts == earlier and not earlier['in_flight']:
                return dict(earlier)
            earlier = self.counts
        raise MeasurementError(f'the node does not come to rest: {self._complaint}')

    def _start(self) -> None:
        environment, _ = environments(self._folder / 'ros')
        for name, command in self._commands.items():
            log = self._folder / f'{name}.log'
            events = None if name == 'node' else self._events
            self._children[name] = Child(name, command, environment, log, events)
        for name in ('subscriber', 'camera'):
            if not self._wait(partial(self._is_ready, name), START_TIMEOUT_S):
                raise MeasurementError(
                    f'the node does not come up: {self._children["node"].last_words()}'
                )

    def _is_ready(self, name: str) -> bool:
        return bool(self._ask(name, START_TIMEOUT_S, ready=True)['ready'])

    def _has_counted(self, times: int) -> bool:
        return self._counted >= times

    def _take(self, timeout_s: float) -> None:
        told = self._ask('subscriber', timeout_s, take=True)
        for name in ('answers', 'relayed', 'stages'):
            found = getattr(self._taken, name)
            found.update({(each['camera'], each['stamp_ns']): each for each in told[name]})
        self.counts, self._counted = told['counts'], told['counted']
        self._complaint, self.rmw = told['complaint'], told['rmw']

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Ask the subscriber until a condition holds; return whether it does."""
        end = time.monotonic() + timeout_s
        while True:
            self._check_children()
            # At the start it may still be importing, for long on a small board.
            self._take(timeout_s)
            if condition():
                return True
            if time.monotonic() > end:
                return False
            time.sleep(POLL_S)

    def _ask(self, name: str, timeout_s: float, **command: Any) -> dict[str, Any]:
        """Tell a process what to do, and return its answer."""
        self._children[name].tell(command)
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            try:
                source, event = self._events.get(timeout=POLL_S)
            except queue.Empty:
                self._check_children()
                continue
            if event['event'] == 'error':
                raise MeasurementError(f'the {source}: {event["text"]}')
            return event
        raise MeasurementError(f'the {name} is silent: {self._children[name].last_words()}')

    def _check_children(self) -> None:
        for child in self._children.values():
            code = child.process.poll()
            if code is not None:
                raise MeasurementError(
                    f'the {child.name} ended with code {code}: {child.last_words()}'
                )


def cpu_ms(process: int) -> float | None:
    """Return the processor time that a process has taken so far; None where it is not told.

    Source: proc(5), ``/proc/PID/stat``, whose second field is a name in brackets.
    """
    try:
        fields = (
            Path(f'/proc/{process}/stat').read_text(encoding='ascii').rpartition(')')[2].split()
        )
    except OSError:
        return None
    user, system = (int(field) for field in fields[11:13])
    return (user + system) * 1e3 / os.sysconf('SC_CLK_TCK')


def _peer(name: str, *arguments: str) -> list[str]:
    return ['-m', f'segnode.ros.benchmark_{name}', *arguments]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
