# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A camera of the soak: a process that sends frames of a deck, whole and broken ones, as told.

It takes one JSON object a line on stdin, ``{"deck": FILE, "transport": ...}`` or ``{"steps":
[[frame, stamp, seconds], ...]}``, and answers on stdout with ``{"event": "sent" | "done", ...}``.
A frame is told before it is sent, so that none is uncounted where the process is killed. Its
number stands in ``frame_id``, by which its answer is known whatever its stamp is. It ends when
stdin does.
"""

from __future__ import annotations

import argparse
import array
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from segnode.ros.camera_info import camera_info_topic
from segnode.ros.demo_camera import report
from segnode.ros.messages import to_nanoseconds

STAMP_OFFSETS_S = {'now': 0, 'back': -3600, 'ahead': 3600}


class Camera:
    """Reliable publishers of frames and their CameraInfo; a frame waits until it was taken."""

    def __init__(self, name: str, topic: str, first: int, queue: int) -> None:
        self._name = name
        self._topic = topic
        self._number = first
        self._qos = QoSProfile(depth=queue, reliability=ReliabilityPolicy.RELIABLE)
        self._node = rclpy.create_node(f'soak_{name}')
        self._publisher: Publisher | None = None
        self._info = self._node.create_publisher(CameraInfo, camera_info_topic(topic), self._qos)
        self._messages: list[Any] = []
        self._stamp = Time()

    def load(self, deck: str, transport: str) -> None:
        """Take another deck, and offer its transport's topic in place of the other."""
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
        message_type = CompressedImage if transport == 'compressed' else Image
        topic = f'{self._topic}/compressed' if transport == 'compressed' else self._topic
        with np.load(Path(deck), allow_pickle=False) as arrays:
            described = json.loads(str(arrays['frames']))
            self._messages = [
                _message(frame, arrays[f'data_{i}'].tobytes()) for i, frame in enumerate(described)
            ]
        self._publisher = self._node.create_publisher(message_type, topic, self._qos)

    def play(self, steps: Sequence[tuple[int, str, float]]) -> None:
        """Send frames.

        Args:
            steps: index in the deck, which stamp, and seconds since the frame before; one that is
                late is sent at once.
        """
        assert self._publisher is not None
        due_s = time.monotonic()
        for index, stamp, seconds in steps:
            due_s += seconds
            time.sleep(max(0.0, due_s - time.monotonic()))
            message = self._messages[index]
            self._stamp = self._next_stamp(stamp)
            if not isinstance(message, bytes):
                message.header.stamp = self._stamp
                message.header.frame_id = f'{self._name}_{self._number}'
            report(
                'sent',
                number=self._number,
                frame=index,
                stamp=stamp,
                stamp_ns=to_nanoseconds(self._stamp),
                sent_s=time.monotonic(),
            )
            if not isinstance(message, bytes):
                self._info.publish(CameraInfo(header=message.header))
            self._publisher.publish(message)
            self._number += 1
        report('done')

    def _next_stamp(self, which: str) -> Time:
        if which == 'repeated':
            return self._stamp
        if which == 'zero':
            return Time()
        stamp = self._node.get_clock().now().to_msg()
        return Time(sec=stamp.sec + STAMP_OFFSETS_S[which], nanosec=stamp.nanosec)

    def close(self) -> None:
        """Say goodbye to the subscribers."""
        self._node.destroy_node()


def _message(frame: dict[str, Any], data: bytes) -> Any:
    if frame['type'] == 'serialized':
        return data
    message_type = CompressedImage if frame['type'] == 'compressed' else Image
    return message_type(**frame['fields'], data=array.array('B', data))


def main() -> int:
    """Run the camera until stdin ends or a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--name', required=True)
    parser.add_argument('--topic', required=True)
    parser.add_argument('--first', type=int, default=0, help='number of its first frame')
    parser.add_argument('--queue', type=int, default=100, help='frames that wait for the reader')
    options = parser.parse_args()
    # Its parent ends it by its stdin. What the middleware has half made, or is not asked to take
    # apart, stays in shared memory.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    camera = Camera(options.name, options.topic, options.first, options.queue)
    signal.signal(signal.SIGTERM, _leave)
    try:
        for line in sys.stdin:
            told = json.loads(line)
            if 'deck' in told:
                camera.load(told['deck'], told['transport'])
                report('loaded')
            else:
                camera.play(told['steps'])
    except BrokenPipeError:
        pass  # The parent was killed: nobody is left to report to.
    finally:
        camera.close()
        rclpy.try_shutdown()
    return 0


def _leave(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(0)


if __name__ == '__main__':
    sys.exit(main())
