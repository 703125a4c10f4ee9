# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The demo's planner: a process that uses the node's topics as a robot's planner would.

It joins ``detections`` and ``instance_mask`` by their exact stamp, keeps every pair in a folder
(``answers.jsonl`` and a 16-bit PNG a frame), and tells its parent on stdout, one JSON object a
line, ``{"event": "ready" | "classes" | "answer" | "stages" | "counts" | "error", ...}``. It ends
when stdin does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
import numpy.typing as npt
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray, LabelInfo

from segnode.ros.demo_camera import report
from segnode.ros.messages import to_nanoseconds

QUEUE = QoSProfile(depth=50)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
UNPAIRED_LIMIT = 50
SPIN_S = 0.1


def label_image(message: Image) -> npt.NDArray[np.uint16]:
    """Return a 16UC1 image as (H, W) uint16.

    Raises:
        ValueError: the message is no 16UC1 image.
    """
    if message.encoding != '16UC1':
        raise ValueError(f'instance_mask: expected encoding 16UC1, found {message.encoding}')
    dtype = np.dtype(np.uint16).newbyteorder('>' if message.is_bigendian else '<')
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    return rows[:, : message.width * 2].copy().view(dtype).astype(np.uint16)


class Planner(Node):
    """Subscribes to a segnode's outputs and writes down what came."""

    def __init__(self, source: str, folder: Path, answers: TextIO) -> None:
        super().__init__('planner')
        self._folder = folder
        self._answers = answers
        self._unpaired: dict[int, dict[str, Any]] = {}
        self._inputs = [
            self.create_subscription(
                Detection2DArray, f'{source}/detections', self._on_detections, QUEUE
            ),
            self.create_subscription(Image, f'{source}/instance_mask', self._on_mask, QUEUE),
            self.create_subscription(
                DiagnosticArray, f'{source}/stage_times', self._on_stage_times, QUEUE
            ),
            self.create_subscription(
                LabelInfo, f'{source}/label_info', self._on_label_info, LATCHED
            ),
            self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, QUEUE),
        ]
        self._ready_timer = self.create_timer(0.1, self._report_ready)

    def _report_ready(self) -> None:
        if all(self.count_publishers(item.topic_name) for item in self._inputs):
            self._ready_timer.cancel()
            report('ready')

    def _on_detections(self, message: Detection2DArray) -> None:
        self._join('detections', message)

    def _on_mask(self, message: Image) -> None:
        self._join('mask', message)

    def _join(self, part: str, message: Any) -> None:
        stamp = to_nanoseconds(message.header.stamp)
        parts = self._unpaired.setdefault(stamp, {})
        parts[part] = message
        if len(parts) == 2:
            age_s = (self.get_clock().now().nanoseconds - stamp) / 1e9
            del self._unpaired[stamp]
            try:
                self._keep(stamp, age_s, parts['detections'], parts['mask'])
            except ValueError as error:
                report('error', text=str(error))
        elif len(self._unpaired) > UNPAIRED_LIMIT:
            del self._unpaired[min(self._unpaired)]

    def _keep(self, stamp: int, age_s: float, message: Detection2DArray, mask: Image) -> None:
        if message.header != mask.header:
            raise ValueError('detections and instance_mask of one stamp have different headers')
        labels = label_image(mask)
        if labels.max(initial=0) > len(message.detections):
            raise ValueError(f'instance_mask has a value above {len(message.detections)}')
        cv2.imwrite(str(self._folder / f'{stamp}.png'), labels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        detections = []
        for k, detection in enumerate(message.detections, start=1):
            if detection.id != str(k):
                raise ValueError(f'detections[{k - 1}].id: expected {k}, found {detection.id!r}')
            centre, box = detection.bbox.center.position, detection.bbox
            hypothesis = detection.results[0].hypothesis
            detections.append(
                {
                    'class': hypothesis.class_id,
                    'score': hypothesis.score,
                    'box_xyxy': [
                        centre.x - box.size_x / 2,
                        centre.y - box.size_y / 2,
                        centre.x + box.size_x / 2,
                        centre.y + box.size_y / 2,
                    ],
                }
            )
        answer = {'stamp_ns': stamp, 'age_s': age_s, 'detections': detections}
        self._answers.write(json.dumps(answer) + '\n')
        self._answers.flush()
        report('answer', stamp_ns=stamp, age_s=age_s, arrived_s=time.monotonic())

    def _on_label_info(self, message: LabelInfo) -> None:
        classes = sorted(message.class_map, key=lambda item: int(item.class_id))
        report('classes', names=[str(item.class_name) for item in classes])

    def _on_stage_times(self, message: DiagnosticArray) -> None:
        stages = {
            item.key.removesuffix('_ms'): float(item.value)
            for status in message.status
            for item in status.values
            if item.key.endswith('_ms')
        }
        report('stages', stamp_ns=to_nanoseconds(message.header.stamp), stages_ms=stages)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {item.key: item.value for item in status.values}
            if 'received' in values and 'in_flight' in values:
                level = int.from_bytes(status.level, 'little')
                worse = level > int.from_bytes(DiagnosticStatus.OK, 'little')
                report('counts', values=values, complaint=status.message if worse else '')


def main() -> int:
    """Run the planner until stdin ends or a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--node', default='/segnode', help="the node's full name")
    parser.add_argument('folder', type=Path, help='where to write what comes')
    options = parser.parse_args()
    # Not an event, whose lock a second signal in the handler would wait for forever.
    ended: list[str] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: ended.append('signal'))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    with (options.folder / 'answers.jsonl').open('w', encoding='utf-8') as answers:
        planner = Planner(options.node, options.folder, answers)
        threading.Thread(target=_end_with_stdin, args=(ended,), daemon=True).start()
        # Nobody is left to report to where the parent was killed.
        with contextlib.suppress(BrokenPipeError):
            executor = SingleThreadedExecutor()
            executor.add_node(planner)
            while not ended:
                executor.spin_once(timeout_sec=SPIN_S)
        planner.destroy_node()
    rclpy.shutdown()
    return 0


def _end_with_stdin(ended: list[str]) -> None:
    sys.stdin.read()
    ended.append('stdin')


if __name__ == '__main__':
    sys.exit(main())
