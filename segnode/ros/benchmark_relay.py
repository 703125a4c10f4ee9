# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The benchmark's floor: a bare rclpy node that publishes the bytes of every image unchanged."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import rclpy
from rclpy.qos import QoSProfile

from segnode.ros.benchmark_peer import IMAGE_QOS, image_topic, serve


class Relay:
    """Passes images on, from each base topic to its ``relayed``.

    Attributes:
        node: subscribes and publishes.
    """

    def __init__(self, topics: Sequence[str], transport: str) -> None:
        self.node = rclpy.create_node('relay')
        for topic in topics:
            kind, source = image_topic(topic, transport)
            _, target = image_topic(f'{topic}/relayed', transport)
            publisher = self.node.create_publisher(kind, target, IMAGE_QOS)
            # As the node subscribes: the newest image alone is kept.
            self.node.create_subscription(
                kind, source, publisher.publish, QoSProfile(depth=1), raw=True
            )

    def answer(self, command: Mapping[str, Any], ended: Callable[[], bool]) -> dict[str, Any]:
        """There is nothing to ask for."""
        return {}


def main() -> int:
    """Run the relay until stdin ends or a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('transport', choices=('raw', 'compressed'))
    parser.add_argument('topic', nargs='+', help='base topics')
    options = parser.parse_args()
    return serve(lambda: Relay(options.topic, options.transport))


if __name__ == '__main__':
    sys.exit(main())
