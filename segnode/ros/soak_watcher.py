# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The soak's planner and operator: a process that tells what the node publishes and answers.

Of every message it tells its parent what the checks need, one JSON object a line on stdout,
``{"event": "detections" | "mask" | "times" | "status" | "missed" | "reply", ...}``. What the
operator is to do comes as a JSON object a line on stdin; ``soak_operator`` has that part. It ends
when stdin does. With ``--silent`` it only subscribes, as the subscriber that is stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import threading
from functools import partial
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from segnode.ros.demo_camera import report
from segnode.ros.demo_planner import label_image
from segnode.ros.messages import to_nanoseconds
from segnode.ros.soak_operator import Operator

# Room for all that comes while another process has the core.
QUEUE = QoSProfile(depth=200)
SILENT_QUEUE = QoSProfile(depth=5)
SPIN_S = 0.1
NOT_AWAITED = ('raw_masks', 'camera_info')
TAKEN: dict[str, type[Any]] = {
    'detections': Detection2DArray,
    'instance_mask': Image,
    'instance_mask/compressed': CompressedImage,
    'class_mask': Image,
    'confidence_mask': Image,
    'raw_masks': Image,
    'overlay/compressed': CompressedImage,
    'camera_info': CameraInfo,
}
"""What the silent subscriber takes."""


class Watcher(Node):
    """Subscribes to a segnode's outputs and tells what came."""

    def __init__(self, source: str, prefixes: dict[str, str]) -> None:
        """Subscribe to the outputs of a node's cameras: the prefix of each one's topics."""
        super().__init__('soak_watcher')
        for camera, prefix in prefixes.items():
            for part, message_type, tell in (
                ('detections', Detection2DArray, _tell_detections),
                ('instance_mask', Image, _tell_mask),
                ('stage_times', DiagnosticArray, _tell_times),
            ):
                # What the middleware loses between the node and here is not the node's.
                events = SubscriptionEventCallbacks(
                    use_default_callbacks=False, message_lost=partial(_tell_missed, camera, part)
                )
                self.create_subscription(
                    message_type,
                    f'{source}/{prefix}{part}',
                    partial(tell, camera),
                    QUEUE,
                    event_callbacks=events,
                )
        self._source = source.lstrip('/')
        self.create_subscription(DiagnosticArray, '/diagnostics', self._tell_status, QUEUE)

    def _tell_status(self, message: DiagnosticArray) -> None:
        statuses = [
            {
                'camera': status.name.partition(': ')[2],
                'level': int.from_bytes(status.level, 'little'),
                'message': status.message,
                'values': {item.key: item.value for item in status.values},
            }
            for status in message.status
            if status.name.startswith(f'{self._source}: ')
        ]
        if statuses:
            stamp_ns = to_nanoseconds(message.header.stamp)
            report('status', stamp_ns=stamp_ns, statuses=statuses)


class SilentSubscriber(Node):
    """Subscribes reliably to all that is only made for who wants it, and makes nothing of it.

    It reports ``subscribed`` once a publisher of every camera's every topic has met it. Not
    awaited are ``raw_masks``, which a model without masks of its own size has not, and
    ``camera_info``, which the node offers once it has seen the camera's.
    """

    def __init__(self, source: str, prefixes: dict[str, str]) -> None:
        """Subscribe to the outputs of a node's cameras."""
        super().__init__('soak_silent')
        self._awaited = {
            f'{prefix}{part}'
            for prefix in prefixes.values()
            for part in TAKEN
            if part not in NOT_AWAITED
        }
        for prefix in prefixes.values():
            for part, message_type in TAKEN.items():
                topic = f'{prefix}{part}'
                self.create_subscription(
                    message_type,
                    f'{source}/{topic}',
                    _ignore,
                    SILENT_QUEUE,
                    raw=True,
                    event_callbacks=SubscriptionEventCallbacks(
                        use_default_callbacks=False, matched=partial(self._meet, topic)
                    ),
                )

    def _meet(self, topic: str, event: Any) -> None:
        if event.current_count and topic in self._awaited:
            self._awaited.discard(topic)
            if not self._awaited:
                report('subscribed')


def _ignore(_message: bytes) -> None:
    pass


def _tell_detections(camera: str, message: Detection2DArray) -> None:
    right = all(
        detection.id == str(k) and detection.header == message.header
        for k, detection in enumerate(message.detections, start=1)
    )
    _tell(camera, 'detections', message, count=len(message.detections), ids_right=right)


def _tell_mask(camera: str, message: Image) -> None:
    try:
        labels = label_image(message)
    except ValueError as error:
        _tell(camera, 'mask', message, problem=str(error))
        return
    values = np.flatnonzero(np.bincount(labels.ravel())).tolist()
    _tell(camera, 'mask', message, size_hw=[message.height, message.width], labels=values)


def _tell_times(camera: str, message: DiagnosticArray) -> None:
    values = {item.key: item.value for status in message.status for item in status.values}
    network_hw = [int(values.get(f'network_{side}', 0)) for side in ('height', 'width')]
    total_ms = float(values.get('total_ms', 0.0))
    _tell(camera, 'times', message, network_hw=network_hw, total_ms=total_ms)


def _tell(camera: str, part: str, message: Any, **values: Any) -> None:
    header = message.header
    report(
        part,
        camera=camera,
        frame_id=header.frame_id,
        stamp_ns=to_nanoseconds(header.stamp),
        **values,
    )


def _tell_missed(camera: str, part: str, event: Any) -> None:
    report('missed', camera=camera, part=part, count=event.total_count_change)


def main() -> int:
    """Run the watcher until stdin ends or a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--node', default='/segnode', help="the node's full name")
    parser.add_argument('--silent', action='store_true', help='only subscribe')
    parser.add_argument('prefixes', type=json.loads, help='JSON: topic prefix of each camera')
    options = parser.parse_args()
    # Its parent ends it by its stdin; not an event, whose lock a second signal would wait for.
    ended: list[str] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: ended.append('signal'))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = (SilentSubscriber if options.silent else Watcher)(options.node, options.prefixes)
    operator = None if options.silent else Operator(node, options.node)
    threading.Thread(target=_obey, args=(operator, ended), daemon=True).start()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    # Nobody is left to report to where the parent was killed.
    with contextlib.suppress(BrokenPipeError):
        while not ended:
            executor.spin_once(timeout_sec=SPIN_S)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


def _obey(operator: Operator | None, ended: list[str]) -> None:
    """Do what stdin says, one thing after the other, until it ends."""
    for line in sys.stdin:
        if operator is not None:
            operator.do(json.loads(line))
    ended.append('stdin')


if __name__ == '__main__':
    sys.exit(main())
