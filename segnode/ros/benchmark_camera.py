# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The benchmark's cameras: a process that publishes image files on several topics.

Commands: ``{"ready": true}`` is answered by whether every topic has a subscriber; ``{"topics":
[...], "files": [...], "frames": N, "rate_hz": R}`` publishes N frames on each of some topics, and
is answered by their stamps, a list a topic.
"""

from __future__ import annotations

import argparse
import array
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage

from segnode.ros.benchmark_peer import IMAGE_QOS, image_topic, serve
from segnode.ros.demo_camera import image_message

FRAME_ID = 'camera'


def serialised_image(path: Path, transport: str) -> bytes:
    """Return an image file as the bytes of a message; ``compressed`` takes a JPEG as it is.

    Raises:
        ImageError: the file cannot be read.
    """
    if transport == 'raw':
        return bytes(serialize_message(image_message(path, FRAME_ID)))
    message = CompressedImage(format='bgr8; jpeg compressed bgr8')
    message.data = array.array('B', path.read_bytes())
    message.header.frame_id = FRAME_ID
    return bytes(serialize_message(message))


def stamped(message: bytes, stamp_ns: int) -> bytes:
    """Return a serialised message with another stamp, which stands behind its first four bytes."""
    order = '<' if message[1] & 1 else '>'
    stamp = struct.pack(f'{order}iI', *divmod(stamp_ns, 1_000_000_000))
    return b''.join((message[:4], stamp, memoryview(message)[12:]))


class Cameras:
    """Reliable publishers of images, several in one process.

    Attributes:
        node: publishes.
    """

    def __init__(self, topics: Sequence[str], transport: str) -> None:
        self.node = rclpy.create_node('cameras')
        self._transport = transport
        self._publishers = {
            topic: self.node.create_publisher(*image_topic(topic, transport), IMAGE_QOS)
            for topic in topics
        }
        self._files: list[str] = []
        self._messages: list[bytes] = []

    def answer(self, command: Mapping[str, Any], ended: Callable[[], bool]) -> dict[str, Any]:
        """See ``segnode.ros.benchmark_peer.Peer``."""
        if 'ready' in command:
            return {'ready': all(p.get_subscription_count() for p in self._publishers.values())}
        if command['files'] != self._files:
            self._files = command['files']
            self._messages = [serialised_image(Path(f), self._transport) for f in self._files]
        stamps_ns = self._play(command['topics'], command['frames'], command['rate_hz'], ended)
        return {'stamps_ns': stamps_ns, 'image_bytes': len(self._messages[0])}

    def _play(
        self, topics: Sequence[str], frames: int, rate_hz: float, ended: Callable[[], bool]
    ) -> list[list[int]]:
        """Publish frames at a fixed rate, the topics one after the other within a period."""
        publishers = [self._publishers[topic] for topic in topics]
        stamps_ns: list[list[int]] = [[] for _ in topics]
        start_s = time.monotonic()
        for count in range(frames * len(topics)):
            frame, camera = divmod(count, len(topics))
            due_s = start_s + count / (rate_hz * len(topics))
            time.sleep(max(0.0, due_s - time.monotonic()))
            if ended():
                break
            stamp_ns = time.time_ns()
            message = self._messages[frame % len(self._messages)]
            publishers[camera].publish(stamped(message, stamp_ns))
            stamps_ns[camera].append(stamp_ns)
        return stamps_ns


def main() -> int:
    """Run the cameras until stdin ends or a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('transport', choices=('raw', 'compressed'))
    parser.add_argument('topic', nargs='+', help='base topics')
    options = parser.parse_args()
    return serve(lambda: Cameras(options.topic, options.transport))


if __name__ == '__main__':
    sys.exit(main())
