# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the benchmark's processes around the node have in common.

Each takes one JSON object a line on stdin and answers each with one on stdout. It ends when stdin
does. Messages stay serialised in all of them, so that they take little from what is measured.
"""

from __future__ import annotations

import collections
import contextlib
import json
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image

from segnode.errors import ImageError
from segnode.ros.demo_camera import report

SPIN_S = 0.02
IMAGE_QOS = QoSProfile(depth=10)


class Peer(Protocol):
    """One of the processes, as its loop needs it."""

    node: Node

    def answer(self, command: Mapping[str, Any], ended: Callable[[], bool]) -> dict[str, Any]:
        """Do what the parent asks for, and return what it is to know; stop early once ended."""
        ...


def image_topic(topic: str, transport: str) -> tuple[type[Any], str]:
    """Return type and full name of a base topic's images, as image_transport has them."""
    return (Image, topic) if transport == 'raw' else (CompressedImage, f'{topic}/compressed')


def serve(make: Callable[[], Peer]) -> int:
    """Run a peer until stdin ends or a signal comes; return the exit code."""
    # Not an event, whose lock a second signal in the handler would wait for forever.
    ended: list[str] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: ended.append('signal'))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    peer = make()
    commands: collections.deque[Mapping[str, Any]] = collections.deque()
    threading.Thread(target=_read, args=(commands, ended), daemon=True).start()
    executor = SingleThreadedExecutor()
    executor.add_node(peer.node)
    code = 0
    # Nobody is left to report to where the parent was killed.
    with contextlib.suppress(BrokenPipeError):
        while not ended:
            executor.spin_once(timeout_sec=SPIN_S)
            if commands:
                try:
                    report('done', **peer.answer(commands.popleft(), lambda: bool(ended)))
                except ImageError as error:
                    report('error', text=str(error))
                    code = 1
                    break
    peer.node.destroy_node()
    rclpy.shutdown()
    return code


def _read(commands: collections.deque[Mapping[str, Any]], ended: list[str]) -> None:
    for line in sys.stdin:
        commands.append(json.loads(line))
    ended.append('stdin')
