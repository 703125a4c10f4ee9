# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Processes and a peer for tests over real DDS: the node runs in a process of its own."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from segnode.demo.processes import free_domain_id
from segnode.ros.messages import to_nanoseconds

ROOT = Path(__file__).resolve().parents[1]
SEG_YAML = ROOT / 'config' / 'seg.yaml'

# Another run of the tests, or a node started by hand, would answer here as well.
DOMAIN_ID = free_domain_id()
TIMEOUT_S = 180.0
# After so long, publishers and subscriptions that see each other have matched.
MATCHING_S = 30.0
# Of 2001: later ones are of a clock that is not simulated.
SIMULATED_NS = 10**18

_FROM_SOURCED_ROS = ('AMENT_PREFIX_PATH', 'LD_LIBRARY_PATH', 'RMW_IMPLEMENTATION', 'ROS_DISTRO')


def ros_environment() -> dict[str, str]:
    """Return what a process of the tests needs of its environment, and no more."""
    environment = {
        'PATH': os.defpath,
        'ROS_DOMAIN_ID': str(DOMAIN_ID),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]),
        # Several nodes share the machine: threads that wait for each other only cost time.
        'OMP_NUM_THREADS': '1',
    }
    names = (*_FROM_SOURCED_ROS, 'ROS_LOG_DIR', 'HOME')
    return environment | {name: os.environ[name] for name in names if name in os.environ}


class Process:
    """A process with its output in a file; ended by force when the test forgets to."""

    def __init__(self, command: list[str], log: Path, **more_environment: str) -> None:
        self._log = log
        with log.open('wb') as output:
            self._process = subprocess.Popen(
                command,
                env=ros_environment() | more_environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def output(self) -> str:
        """Return what it has written so far."""
        return self._log.read_text(encoding='utf-8', errors='replace')

    def wait_for(self, text: str) -> None:
        """Wait until its output has some text."""
        wait_until(
            lambda: text in self.output() or self._process.poll() is not None,
            lambda: f'{text!r} in: {self.output()}',
        )
        assert text in self.output(), self.output()

    def wait_for_handlers(self) -> None:
        """Wait until it takes care of signals; of SIGTERM Python itself does not."""

        def caught() -> bool:
            status = Path(f'/proc/{self.pid}/status').read_text(encoding='ascii')
            mask = int(status.partition('SigCgt:')[2].split()[0], 16)
            return bool(mask >> (signal.SIGTERM - 1) & 1)

        wait_until(caught, 'handlers of signals')

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self._process.pid, number)

    def wait(self) -> int:
        """Wait for its end and return the exit code."""
        return self._process.wait(TIMEOUT_S)


def start_node(log: Path, ros_arguments: str = '', **more_environment: str) -> Process:
    """Start the node as a user does."""
    arguments = ['--ros-args', *shlex.split(ros_arguments)]
    command = [sys.executable, '-m', 'segnode', 'node', *arguments]
    return Process(command, log, **more_environment)


def wait_until(
    condition: Callable[[], bool], what: Callable[[], str] | str, timeout_s: float = TIMEOUT_S
) -> None:
    """Poll a condition; fail with ``what`` was waited for."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f'not within {timeout_s} s: {what() if callable(what) else what}')
        time.sleep(0.01)


class Peer:
    """A ROS node in the test's process: camera, planner and operator in one."""

    def __init__(self, name: str = 'peer') -> None:
        self._context = Context()
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
        rclpy.init(context=self._context, domain_id=DOMAIN_ID)
        self.node = rclpy.create_node(name, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        # Of an hour ago: a stamp of another clock would be told.
        self._stamp_s = int(time.time()) - 3600
        self.received: dict[str, list[Any]] = {}
        self._heard: set[str] = set()
        self._clients: dict[str, Client] = {}
        self.subscribe(DiagnosticArray, '/diagnostics')

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.try_shutdown()
        self._thread.join()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def camera(
        self, message_type: type = ImageMessage, topic: str = '/image', *, reliable: bool = True
    ) -> Publisher:
        """Advertise a camera and wait until the node subscribes to it."""
        publisher = self.advertise(message_type, topic, reliable=reliable)
        wait_until(lambda: publisher.get_subscription_count() > 0, f'subscriber of {topic}')
        return publisher

    def advertise(
        self, message_type: type, topic: str, *, reliable: bool = True, depth: int = 100
    ) -> Publisher:
        """Advertise a topic."""
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        return self.node.create_publisher(
            message_type, topic, QoSProfile(depth=depth, reliability=reliability)
        )

    def subscribe(self, message_type: type, topic: str, *, latched: bool = False) -> Any:
        """Record a topic in ``received``."""
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        messages = self.received.setdefault(topic, [])
        return self.node.create_subscription(
            message_type, topic, messages.append, QoSProfile(depth=100, durability=durability)
        )

    def watch(self, node: str, **more: type) -> None:
        """Subscribe to the standing outputs of a node, and to others by topic.

        Of a node that was watched before, it waits for the publishers, which may be new.
        """
        self._heard.discard(node)
        topics = {
            'detections': Detection2DArray,
            'instance_mask': ImageMessage,
            'stage_times': DiagnosticArray,
            **more,
        }
        for topic, message_type in topics.items():
            if f'{node}/{topic}' not in self.received:
                self.subscribe(message_type, f'{node}/{topic}')
            wait_until(
                lambda name=f'{node}/{topic}': self.node.count_publishers(name) > 0,
                f'publisher of {node}/{topic}',
            )

    def header(self, frame_id: str = 'camera') -> Header:
        """Return a header with a stamp of its own."""
        self._stamp_s += 1
        return Header(stamp=Time(sec=self._stamp_s, nanosec=123456789), frame_id=frame_id)

    def find(self, topic: str, header: Header) -> Any:
        """Return the message of that stamp on a topic, None where it has not come."""
        messages = self.received[topic]
        return next((m for m in list(messages) if m.header.stamp == header.stamp), None)

    def exchange(
        self, camera: Publisher, message: Any, node: str = '/segnode', *topics: str
    ) -> dict[str, Any]:
        """Publish an image and return what the node publishes for it, by topic.

        The first image for a node is published once more where not all answers came: whether
        the node's publishers know of these subscriptions yet is nothing that DDS tells here.
        """
        wanted = ('detections', 'instance_mask', 'stage_times', *topics)

        def answers() -> dict[str, Any]:
            found = {topic: self.find(f'{node}/{topic}', message.header) for topic in wanted}
            return {topic: answer for topic, answer in found.items() if answer is not None}

        camera.publish(message)
        if node not in self._heard:
            with contextlib.suppress(AssertionError):
                wait_until(lambda: len(answers()) == len(wanted), '', MATCHING_S)
            if len(answers()) < len(wanted):
                camera.publish(message)
            self._heard.add(node)
        wait_until(
            lambda: len(answers()) == len(wanted),
            lambda: f'answers of {node} to {message.header}: {sorted(answers())}',
        )
        return answers()

    def status(self, node: str = 'segnode') -> DiagnosticStatus:
        """Return a status of the node, or of one of its cameras, composed after this call.

        Args:
            node: its name, or all of the status's: ``segnode: rear``.
        """
        diagnostics = self.received['/diagnostics']
        seen, called_ns = len(diagnostics), time.time_ns()

        def latest() -> DiagnosticStatus | None:
            found = []
            for message in diagnostics[seen:]:
                own = [s for s in message.status if f'{s.name}:'.startswith(f'{node}:')]
                if own:
                    found.append((to_nanoseconds(message.header.stamp), own[-1]))
            # The first may have been on its way; stamps of simulated time do not tell.
            later = [
                status
                for k, (stamp_ns, status) in enumerate(found)
                if stamp_ns >= called_ns or (k and stamp_ns < SIMULATED_NS)
            ]
            return later[-1] if later else None

        wait_until(lambda: latest() is not None, f'diagnostics of {node}')
        return latest()

    def counts(self, node: str = 'segnode') -> dict[str, int]:
        """Return the node's accounting once nothing is in flight."""
        found: dict[str, str] = {}

        def settled() -> bool:
            found.update(values(self.status(node)))
            return found['in_flight'] == '0'

        wait_until(settled, 'nothing in flight')
        return {
            key: int(value)
            for key, value in found.items()
            if key in ('received', 'published') or key.startswith('dropped_')
        }

    def status_once(
        self,
        told: Callable[[DiagnosticStatus], bool],
        send: Callable[[], object] = lambda: None,
        node: str = 'segnode',
    ) -> DiagnosticStatus:
        """Return a status of the node that tells something; images are sent until it does.

        What one image tells is told for five seconds alone, which a busy machine may let pass.
        """
        status = None

        def said() -> bool:
            nonlocal status
            send()
            status = self.status(node)
            return told(status)

        wait_until(said, lambda: f'what is told of {node}: {status}')
        return status

    def recover(
        self, camera: Publisher, pixels: npt.NDArray[np.uint8], node: str = 'segnode'
    ) -> None:
        """Wait until the node's status is OK, while images go on coming.

        Without them it may never be: a failure is told for five seconds, and after as many
        without an image that is told.
        """
        self.status_once(
            lambda status: status.level == DiagnosticStatus.OK,
            lambda: camera.publish(bgr_message(self.header(), pixels)),
            node,
        )

    def call(self, service_type: type, service: str, request: Any) -> Any:
        """Call a service and return its response."""
        # A new client for each call would have to be found by the server each time.
        if service not in self._clients:
            self._clients[service] = self.node.create_client(service_type, service)
        client = self._clients[service]
        assert client.wait_for_service(TIMEOUT_S), service
        future = client.call_async(request)
        wait_until(future.done, f'response of {service}')
        return future.result()

    def set(self, changes: Mapping[str, Any], node: str = '/segnode') -> SetParametersResult:
        """Set parameters of a node, all at once."""
        messages = [Parameter(name, value=v).to_parameter_msg() for name, v in changes.items()]
        request = SetParametersAtomically.Request(parameters=messages)
        return self.call(
            SetParametersAtomically, f'{node}/set_parameters_atomically', request
        ).result

    def get(self, name: str, node: str = '/segnode') -> Any:
        """Return a parameter's value."""
        request = GetParameters.Request(names=[name])
        (value,) = self.call(GetParameters, f'{node}/get_parameters', request).values
        return rclpy.parameter.parameter_value_to_python(value)

    def change_state(self, transition: int, node: str = '/segnode') -> bool:
        """Ask for a lifecycle transition; return whether it succeeded."""
        request = ChangeState.Request()
        request.transition.id = transition
        return self.call(ChangeState, f'{node}/change_state', request).success

    def state(self, node: str = '/segnode') -> str:
        """Return the lifecycle state."""
        return self.call(GetState, f'{node}/get_state', GetState.Request()).current_state.label


def values(status: DiagnosticStatus) -> dict[str, str]:
    """Return a status's values as a mapping."""
    return {item.key: item.value for item in status.values}


def bgr_message(header: Header, pixels: npt.NDArray[np.uint8]) -> ImageMessage:
    """Return an (H, W, 3) array as a bgr8 image."""
    height, width = pixels.shape[:2]
    return ImageMessage(
        header=header,
        height=height,
        width=width,
        encoding='bgr8',
        step=width * 3,
        data=pixels.tobytes(),
    )


def label_image(message: ImageMessage) -> npt.NDArray[np.uint16]:
    """Return the pixels of a 16UC1 message, (H, W)."""
    assert message.encoding == '16UC1'
    order = '>' if message.is_bigendian else '<'
    pixels = np.frombuffer(bytes(message.data), np.dtype(np.uint16).newbyteorder(order))
    return pixels.reshape(message.height, message.step // 2)[:, : message.width].astype(np.uint16)
