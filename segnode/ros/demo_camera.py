# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The demo's camera: a process that plays image files as ``sensor_msgs/Image``.

It takes one JSON object a line on stdin, ``{"indices": [...], "rate_hz": R, "preload": bool}``,
and answers on stdout with ``{"event": "matched" | "published" | "error", ...}``. It ends
when stdin does.
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

import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from segnode.errors import ImageError
from segnode.picture_files import read_image
from segnode.ros.messages import to_nanoseconds

MATCH_TIMEOUT_S = 300.0
RELIABLE_GRACE_S = 5.0


def image_message(path: Path, frame_id: str) -> Image:
    """Return an image file as a message without a stamp.

    Raises:
        ImageError: the file cannot be read.
    """
    image = read_image(path)
    message = Image(
        height=image.height,
        width=image.width,
        encoding=f'{image.order}8',
        step=image.width * 3,
        data=array.array('B', image.pixels.tobytes()),
    )
    message.header.frame_id = frame_id
    return message


class Camera:
    """A reliable publisher of image files at a fixed rate."""

    def __init__(self, paths: Sequence[Path], topic: str, frame_id: str) -> None:
        self._paths = paths
        self._frame_id = frame_id
        self._node = rclpy.create_node('camera')
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._publisher = self._node.create_publisher(Image, topic, qos)

    def wait_for_subscriber(self) -> bool:
        """Wait until somebody subscribes, and a little longer for a reliable subscription.

        Returns:
            False when nobody did in time.
        """
        end = time.monotonic() + MATCH_TIMEOUT_S
        while self._publisher.get_subscription_count() == 0:
            if time.monotonic() > end or not rclpy.ok():
                return False
            time.sleep(0.05)
        end = time.monotonic() + RELIABLE_GRACE_S
        while time.monotonic() < end and not self._reliable():
            time.sleep(0.05)
        return True

    def _reliable(self) -> bool:
        subscriptions = self._node.get_subscriptions_info_by_topic(self._publisher.topic_name)
        return bool(subscriptions) and all(
            s.qos_profile.reliability == ReliabilityPolicy.RELIABLE for s in subscriptions
        )

    def play(self, indices: Sequence[int], rate_hz: float, preload: bool) -> None:
        """Publish images at a fixed rate and report each with its stamp.

        Args:
            indices: of the images, in order.
            rate_hz: a frame that is late is sent at once, the next ones keep to the schedule.
            preload: read all images first, for a rate that reading could not follow.

        Raises:
            ImageError: a file cannot be read.
        """
        messages = {i: self._message(i) for i in set(indices)} if preload else {}
        start = time.monotonic()
        for count, index in enumerate(indices):
            message = messages.get(index) or self._message(index)
            time.sleep(max(0.0, start + count / rate_hz - time.monotonic()))
            message.header.stamp = self._node.get_clock().now().to_msg()
            self._publisher.publish(message)
            stamp_ns = to_nanoseconds(message.header.stamp)
            report('published', index=index, stamp_ns=stamp_ns)

    def close(self) -> None:
        """Say goodbye to the subscribers."""
        self._node.destroy_node()

    def _message(self, index: int) -> Image:
        return image_message(self._paths[index], self._frame_id)


def report(event: str, **values: Any) -> None:
    """Tell the parent process what happened."""
    sys.stdout.write(json.dumps({'event': event, **values}) + '\n')
    sys.stdout.flush()


def main() -> int:
    """Run the camera until stdin ends or a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--topic', default='/camera/image')
    parser.add_argument('--frame-id', default='camera')
    parser.add_argument('list', type=Path, help='JSON list of image files')
    options = parser.parse_args()
    paths = [Path(item) for item in json.loads(options.list.read_text(encoding='utf-8'))]
    # What the middleware has half made, nobody takes apart: its shared memory would stay.
    early: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: early.append(number))
    camera = None
    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        camera = Camera(paths, options.topic, options.frame_id)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)
        if early:
            raise KeyboardInterrupt
        if not camera.wait_for_subscriber():
            report('error', text=f'nobody subscribed to {options.topic}')
            return 1
        report('matched')
        for line in sys.stdin:
            camera.play(**json.loads(line))
    except ImageError as error:
        report('error', text=str(error))
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        pass  # The second where the parent was killed: nobody is left to report to.
    finally:
        if camera is not None:
            camera.close()
        rclpy.try_shutdown()
    return 0


def _interrupt(*_: object) -> None:
    """End what the main thread does; a second signal must not end the ending."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == '__main__':
    sys.exit(main())
