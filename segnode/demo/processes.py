# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The demo's three processes, and what they tell while they run."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import queue
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from segnode.errors import SegnodeError
from segnode.ros_distribution import profile_variable, ros_distribution
from segnode.shipped import shipped_file

NODE_NAME = '/segnode'
TOPIC = '/camera/image'
START_TIMEOUT_S = 300.0
ANSWER_TIMEOUT_S = 30.0
SETTLE_TIMEOUT_S = 60.0
STALL_S = 60.0

# What a process needs to find a ROS that was sourced; empty where ROS lives in the interpreter.
_ROS_VARIABLES = (
    'AMENT_PREFIX_PATH',
    'LD_LIBRARY_PATH',
    'RMW_IMPLEMENTATION',
    'ROS_DISTRO',
    'ROS_VERSION',
    'ROS_PYTHON_VERSION',
)
_PR_SET_PDEATHSIG = 1
# Of the domains that are kept.
_marks = contextlib.ExitStack()


class DemoError(SegnodeError):
    """A process of the demo failed or fell silent."""


@dataclass(slots=True)
class Phase:
    """One part of the show.

    Attributes:
        name: steady or burst.
        sent: (image index, stamp in ns) of every frame played.
        received, published, dropped: the node's own counts of this part, drops by reason.
        answers: by stamp, the pair's age and the monotonic time when the planner had it, seconds.
        stages_ms: the node's stage times of every frame.
        diagnostics: the node's last status at the end.
    """

    name: str
    sent: list[tuple[int, int]] = field(default_factory=list)
    received: int = 0
    published: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    answers: dict[int, tuple[float, float]] = field(default_factory=dict)
    stages_ms: list[dict[str, float]] = field(default_factory=list)
    diagnostics: dict[str, str] = field(default_factory=dict)

    @property
    def dropped_total(self) -> int:
        """Frames that the node dropped, for whatever reason."""
        return sum(self.dropped.values())

    @property
    def lost(self) -> int:
        """Frames that never reached the node: a newer one was there before it looked."""
        return len(self.sent) - self.received

    @property
    def sent_hz(self) -> float:
        """Frames a second that the camera sent."""
        return _rate_hz([stamp_ns / 1e9 for _, stamp_ns in self.sent])

    @property
    def answered_hz(self) -> float:
        """Pairs a second that the planner got."""
        return _rate_hz([arrived_s for _, arrived_s in self.answers.values()])

    def problems(self) -> list[str]:
        """Return what does not add up, for people."""
        found = []
        answered = len(self.answers)
        if self.received != self.published + self.dropped_total:
            found.append(
                f'{self.name}: received {self.received}, but published {self.published} '
                f'and dropped {self.dropped_total}'
            )
        if answered != self.published:
            found.append(f'{self.name}: published {self.published}, the planner got {answered}')
        return found

    def summary(self) -> dict[str, Any]:
        """Return the counts for JSON."""
        return {
            'sent': len(self.sent),
            'sent_hz': self.sent_hz,
            'lost': self.lost,
            'received': self.received,
            'published': self.published,
            'dropped': self.dropped,
            'answered_hz': self.answered_hz,
        }


def _rate_hz(times_s: Sequence[float]) -> float:
    span_s = max(times_s, default=0.0) - min(times_s, default=0.0)
    return (len(times_s) - 1) / span_s if span_s > 0 else 0.0


def require_ros(what: str = 'the demo') -> None:
    """Raise DemoError where ROS cannot be imported, which ``what`` needs."""
    if importlib.util.find_spec('rclpy') is None:
        raise DemoError(
            f'{what} needs ROS 2, and rclpy cannot be imported here: source a ROS 2 '
            'installation first, or run `make setup` in the checkout and use .venv/bin/python'
        )


def free_domain_id() -> int:
    """Return a ROS domain that no process of this machine seems to use, and keep it for this one.

    The first participant of domain d takes UDP port 7410 + 250 d (DDSI-RTPS 9.6.1); domains above
    101 would reach into the ports that Linux hands out. Whoever asks before that participant is
    there gets another domain: a name in Linux's abstract namespace (unix(7)) marks this one until
    this process ends. Where all are taken, it is a random one of them.
    """
    candidates = random.SystemRandom().sample(range(10, 102), 92)
    for domain in candidates:
        with contextlib.ExitStack() as sockets, contextlib.suppress(OSError):
            if sys.platform == 'linux':
                mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                sockets.enter_context(mark).bind(f'\0segnode-ros-domain-{domain}')
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind(('', 7410 + 250 * domain))
            _marks.push(sockets.pop_all())
            return domain
    return candidates[0]


def environments(log_folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the user's environment and a bare one, both for a domain of the demo's own."""
    added = {
        'ROS_DOMAIN_ID': str(free_domain_id()),
        'ROS_LOG_DIR': str(log_folder),
        # The folder of this very package, wherever it runs from.
        'PYTHONPATH': os.pathsep.join(
            [str(Path(__file__).resolve().parents[2]), os.environ.get('PYTHONPATH', '')]
        ).rstrip(os.pathsep),
    }
    # A robot on the same network shall not see the demo. Older ROS has other names for things.
    if ros_distribution() == 'humble':
        added['ROS_LOCALHOST_ONLY'] = '1'
    else:
        added['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    profile = profile_variable()
    added[profile] = os.environ.get(profile) or str(shipped_file('config/fastdds.xml'))
    kept = {name: os.environ[name] for name in _ROS_VARIABLES if name in os.environ}
    return {**os.environ, **added}, {'PATH': os.defpath, **kept, **added}


class Child:
    """A process whose stdout lines are events and whose stderr is a log file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        events: queue.Queue[tuple[str, dict[str, Any]]] | None,
    ) -> None:
        self.name = name
        self.log = log
        with log.open('wb') as stderr:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=stderr if events is None else subprocess.PIPE,
                stderr=stderr,
                # Ctrl-C reaches only this process, which then ends its children in order.
                start_new_session=True,
                preexec_fn=_end_with_parent(),
            )
        if events is not None:
            threading.Thread(target=self._read, args=(events,), daemon=True).start()

    def _read(self, events: queue.Queue[tuple[str, dict[str, Any]]]) -> None:
        stdout = self.process.stdout
        if stdout is not None:
            for line in stdout:
                with contextlib.suppress(json.JSONDecodeError):
                    events.put((self.name, json.loads(line)))

    def tell(self, command: Mapping[str, Any]) -> None:
        """Write one JSON line to the process."""
        pipe: IO[bytes] | None = self.process.stdin
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.write(json.dumps(command).encode() + b'\n')
                pipe.flush()

    def last_words(self) -> str:
        """Return the last lines of the log as one, without level, time and name of the logger."""
        text = self.log.read_text(encoding='utf-8', errors='replace')
        text = re.sub(r'^\[[A-Z]+\] \[[\d.]+\] \[[^\]]*\]: ', '', text, flags=re.MULTILINE)
        return ' | '.join([line.strip() for line in text.splitlines() if line.strip()][-3:])[-500:]

    def end(self, first: signal.Signals | None, patience_s: float) -> int:
        """End the process, by force in the end, and return its exit code."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        for step in (first, signal.SIGTERM, signal.SIGKILL):
            if step is not None and self.process.poll() is None:
                self.process.send_signal(step)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience_s)
                break
        return self.process.wait()


def _end_with_parent() -> Callable[[], object] | None:
    """Return what makes the kernel end a child whose parent was killed, on Linux."""
    if sys.platform != 'linux':
        return None
    return partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, signal.SIGTERM)


class Show:
    """Starts the processes, tells the camera what to play, and gathers what is reported.

    Args:
        output: folder for logs and answers.
        images: what the camera can play.
        parameter_files: for the node, the later ones beat the earlier ones.

    Attributes:
        class_names: the node's, by class index, once it has started.
    """

    def __init__(
        self, output: Path, images: Sequence[Path], parameter_files: Sequence[Path]
    ) -> None:
        self._output = output
        self._images = images
        self._parameter_files = parameter_files
        self._events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self._children: list[Child] = []
        self._happened: set[str] = set()
        self._sent: list[tuple[int, int]] = []
        self._answers: dict[int, tuple[float, float]] = {}
        self._stages_ms: dict[int, dict[str, float]] = {}
        self.class_names: list[str] = []
        self._counts: dict[str, str] = {}
        self._counts_seen = 0
        self._complaint = ''
        self._old_handler: Any = None

    def __enter__(self) -> Show:
        """Let SIGTERM end the show as Ctrl-C does."""
        self._old_handler = signal.signal(signal.SIGTERM, _interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        """End all that still runs."""
        try:
            for child in reversed(self._children):
                if child.process.poll() is None:
                    child.end(signal.SIGTERM, 5.0)
        finally:
            signal.signal(signal.SIGTERM, self._old_handler)

    def start(self) -> None:
        """Start planner, node and camera, and wait until they are connected.

        Raises:
            DemoError: one of them ended, or does not come up.
        """
        answers = self._output / 'answers'
        answers.mkdir(exist_ok=True)
        # Named by their stamps, as nanoseconds since 1970.
        for old in answers.glob(f'{"[0-9]" * 19}.png'):
            old.unlink()
        image_list = self._output / 'camera.json'
        image_list.write_text(json.dumps([str(path) for path in self._images]), encoding='utf-8')
        full, bare = environments(self._output / 'ros')
        files = [part for path in self._parameter_files for part in ('--params-file', str(path))]
        node = ['-m', 'segnode', 'node', '--ros-args', *files, '-r', f'image:={TOPIC}']
        camera = ['-m', 'segnode.ros.demo_camera', '--topic', TOPIC, str(image_list)]
        planner = ['-m', 'segnode.ros.demo_planner', '--node', NODE_NAME, str(answers)]
        self._spawn('planner', planner, full, self._events)
        self._spawn('node', node, full, None)
        self._spawn('camera', camera, bare, self._events)
        if not self._wait(self._has_come_up, START_TIMEOUT_S):
            raise DemoError(f'the node does not come up: {self._node.last_words()}')

    def _spawn(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        events: queue.Queue[tuple[str, dict[str, Any]]] | None,
    ) -> None:
        log = self._output / f'{name}.log'
        self._children.append(Child(name, command, environment, log, events))

    def warm_up(self, indices: Iterable[int]) -> float:
        """Play images one by one, each when the last one has come back.

        Returns:
            Seconds that a frame takes, the median without the first two.

        Raises:
            DemoError: nothing comes back.
        """
        order = [int(index) for index in indices]
        seconds = []
        for index in progress(order[:1] * 2 + order, 'warm-up'):
            # The first frames can be lost: to know of a topic is not yet to be connected.
            for _ in range(3):
                self._play([index], 1.0, preload=False)
                stamp = self._sent[-1][1]
                if self._wait(partial(self._answers.__contains__, stamp), ANSWER_TIMEOUT_S):
                    seconds.append(self._answers[stamp][0])
                    break
            else:
                raise DemoError(
                    f'no answer to an image ({self._complaint or self._node.last_words()}); '
                    f'see {self._node.log}'
                )
        self._settle()
        return statistics.median(seconds[2:])

    def play(self, name: str, indices: Sequence[int], rate_hz: float, preload: bool) -> Phase:
        """Play images at a fixed rate, wait until the node has dealt with all, and count.

        Raises:
            DemoError: a process ended or fell silent.
        """
        before = self._numbers()
        first = len(self._sent)
        self._play(indices, rate_hz, preload, bar=name)
        after = self._settle()
        sent = self._sent[first:]
        phase = Phase(name, sent, diagnostics=dict(self._counts))
        phase.received = after['received'] - before['received']
        phase.published = after['published'] - before['published']
        phase.dropped = {
            key.removeprefix('dropped_'): count - before[key]
            for key, count in after.items()
            if key.startswith('dropped_')
        }
        stamps = [stamp for _, stamp in sent]
        self._wait(
            lambda: sum(stamp in self._answers for stamp in stamps) >= phase.published,
            SETTLE_TIMEOUT_S,
        )
        phase.answers = {s: self._answers[s] for s in stamps if s in self._answers}
        phase.stages_ms = [self._stages_ms[s] for s in stamps if s in self._stages_ms]
        return phase

    def _play(
        self, indices: Sequence[int], rate_hz: float, preload: bool, bar: str | None = None
    ) -> None:
        first, end = len(self._sent), len(self._sent) + len(indices)
        self._camera.tell({'indices': list(indices), 'rate_hz': rate_hz, 'preload': preload})
        with progress(range(first, end), bar) as steps:
            for step in steps:
                if not self._wait(partial(self._has_sent, step + 1), STALL_S + 2 / rate_hz):
                    raise DemoError(f'the camera fell silent; see {self._camera.log}')

    def stop(self) -> None:
        """End the node as Ctrl-C does, then the others.

        Raises:
            DemoError: the node did not end with code 0.
        """
        code = self._node.end(signal.SIGINT, 20.0)
        for child in self._children:
            if child is not self._node:
                child.end(None, 5.0)
        if code != 0:
            raise DemoError(
                f'the node ended with code {code} on Ctrl-C: {self._node.last_words()}'
            )

    @property
    def _node(self) -> Child:
        return self._child('node')

    @property
    def _camera(self) -> Child:
        return self._child('camera')

    def _child(self, name: str) -> Child:
        return next(child for child in self._children if child.name == name)

    def _numbers(self) -> dict[str, int]:
        keys = ('received', 'published', 'in_flight')
        return {
            key: int(value)
            for key, value in self._counts.items()
            if key in keys or key.startswith('dropped_')
        }

    def _settle(self) -> dict[str, int]:
        """Wait for two equal counts with nothing in flight, both younger than this call."""
        earlier: dict[str, int] = {}
        end = time.monotonic() + SETTLE_TIMEOUT_S
        while time.monotonic() < end:
            if not self._wait(partial(self._has_counts, self._counts_seen + 1), SETTLE_TIMEOUT_S):
                break
            numbers = self._numbers()
            if numbers == earlier and numbers['in_flight'] == 0:
                return numbers
            earlier = numbers
        raise DemoError(f'the node does not come to rest; see {self._node.log}')

    def _has_come_up(self) -> bool:
        return {'matched', 'ready'} <= self._happened and bool(self.class_names)

    def _has_sent(self, count: int) -> bool:
        return len(self._sent) >= count

    def _has_counts(self, count: int) -> bool:
        return self._counts_seen >= count

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Take in events until a condition holds; return whether it does."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                return False
            try:
                self._apply(*self._events.get(timeout=0.1))
            except queue.Empty:
                self._check_children()
        return True

    def _check_children(self) -> None:
        for child in self._children:
            code = child.process.poll()
            if code is not None:
                raise DemoError(
                    f'the {child.name} ended with code {code}: {child.last_words()} '
                    f'(see {child.log})'
                )

    def _apply(self, source: str, event: dict[str, Any]) -> None:
        kind = event['event']
        if kind == 'error':
            raise DemoError(f'{source}: {event["text"]}')
        if kind == 'published':
            self._sent.append((event['index'], event['stamp_ns']))
        elif kind == 'answer':
            self._answers[event['stamp_ns']] = (event['age_s'], event['arrived_s'])
        elif kind == 'stages':
            self._stages_ms[event['stamp_ns']] = event['stages_ms']
        elif kind == 'classes':
            self.class_names = event['names']
        elif kind == 'counts':
            self._counts = event['values']
            self._counts_seen += 1
            self._complaint = event['complaint']
        else:
            self._happened.add(kind)


def progress(items: Sequence[Any], name: str | None, unit: str = 'frame') -> Any:
    """Return a progress bar over items, silent without a name or a terminal."""
    from tqdm import tqdm

    hidden = True if name is None else None
    return tqdm(items, desc=name, unit=unit, disable=hidden, leave=False)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
