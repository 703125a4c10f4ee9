# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The benchmark's subscriber: how old answers are when somebody has them.

A node's answer is there with the later one of ``detections`` and ``instance_mask``, joined by
their stamp; the relay's with its image. Commands: ``{"ready": true}`` is answered by whether every
topic has a publisher, ``{"take": true}`` by all that has come since the last one.
"""

from __future__ import annotations

import argparse
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from segnode.live.cdr import read_stamp
from segnode.ros.benchmark_peer import image_topic, serve
from segnode.ros.messages import to_nanoseconds

QUEUE = QoSProfile(depth=50)
UNPAIRED_LIMIT = 100


class Subscriber:
    """Notes what comes from a node's cameras and from the relay.

    Attributes:
        node: subscribes.
    """

    def __init__(self, outputs: Sequence[str], relayed: Sequence[str], transport: str) -> None:
        """Subscribe.

        Args:
            outputs: where each camera's results lie.
            relayed: base topics of the relay's images.
            transport: raw or compressed.
        """
        self.node = rclpy.create_node('subscriber')
        self._inputs: list[Any] = []
        self._unpaired: dict[tuple[int, int], dict[str, Any]] = {}
        self._answers: list[dict[str, Any]] = []
        self._relayed: list[dict[str, Any]] = []
        self._stages: list[dict[str, Any]] = []
        self._counts: dict[str, int] = {}
        self._counted = 0
        self._complaint = ''
        for camera, prefix in enumerate(outputs):
            detections, mask, stages = (
                partial(each, camera)
                for each in (self._on_detections, self._on_mask, self._on_stage_times)
            )
            self._subscribe(Detection2DArray, f'{prefix}/detections', detections, raw=True)
            self._subscribe(Image, f'{prefix}/instance_mask', mask, raw=True)
            self._subscribe(DiagnosticArray, f'{prefix}/stage_times', stages)
        for camera, topic in enumerate(relayed):
            kind, name = image_topic(topic, transport)
            self._subscribe(kind, name, partial(self._on_relayed, camera), raw=True)
        self._subscribe(DiagnosticArray, '/diagnostics', self._on_diagnostics)

    def answer(self, command: Mapping[str, Any], ended: Callable[[], bool]) -> dict[str, Any]:
        """See ``segnode.ros.benchmark_peer.Peer``."""
        if 'ready' in command:
            names = [each.topic_name for each in self._inputs]
            return {'ready': all(self.node.count_publishers(name) for name in names)}
        taken = {
            'answers': self._answers,
            'relayed': self._relayed,
            'stages': self._stages,
            'counts': self._counts,
            'counted': self._counted,
            'complaint': self._complaint,
            'rmw': get_rmw_implementation_identifier(),
        }
        self._answers, self._relayed, self._stages = [], [], []
        return taken

    def _subscribe(
        self, kind: type[Any], topic: str, receive: Callable[..., None], *, raw: bool = False
    ) -> None:
        self._inputs.append(self.node.create_subscription(kind, topic, receive, QUEUE, raw=raw))

    def _on_detections(self, camera: int, data: bytes) -> None:
        stamp_ns, body, order = read_stamp(data)
        (instances,) = struct.unpack_from(f'{order}I', data, body)
        self._join(camera, stamp_ns, {'instances': instances})

    def _on_mask(self, camera: int, data: bytes) -> None:
        stamp_ns, body, order = read_stamp(data)
        self._join(camera, stamp_ns, {'mask_hw': struct.unpack_from(f'{order}II', data, body)})

    def _join(self, camera: int, stamp_ns: int, part: dict[str, Any]) -> None:
        age_ms = (time.time_ns() - stamp_ns) / 1e6
        other = self._unpaired.pop((camera, stamp_ns), None)
        if other is not None:
            arrival = {'camera': camera, 'stamp_ns': stamp_ns, 'age_ms': age_ms}
            self._answers.append({**arrival, **other, **part})
            return
        self._unpaired[camera, stamp_ns] = part
        if len(self._unpaired) > UNPAIRED_LIMIT:
            del self._unpaired[next(iter(self._unpaired))]

    def _on_relayed(self, camera: int, data: bytes) -> None:
        stamp_ns, _, _ = read_stamp(data)
        age_ms = (time.time_ns() - stamp_ns) / 1e6
        self._relayed.append({'camera': camera, 'stamp_ns': stamp_ns, 'age_ms': age_ms})

    def _on_stage_times(self, camera: int, message: DiagnosticArray) -> None:
        (status,) = message.status
        stages_ms = {
            item.key.removesuffix('_ms'): float(item.value)
            for item in status.values
            if item.key.endswith('_ms')
        }
        stamp_ns = to_nanoseconds(message.header.stamp)
        self._stages.append({'camera': camera, 'stamp_ns': stamp_ns, 'stages_ms': stages_ms})

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        """Add up the counts of all cameras."""
        counts: dict[str, int] = {}
        complaints = []
        for status in message.status:
            values = {item.key: item.value for item in status.values}
            if 'in_flight' not in values:
                continue
            complaints.append(status.message)
            for key, value in values.items():
                if key in ('received', 'published', 'in_flight') or key.startswith('dropped_'):
                    counts[key] = counts.get(key, 0) + int(value)
        if counts:
            self._counts, self._complaint = counts, '; '.join(dict.fromkeys(complaints))
            self._counted += 1


def main() -> int:
    """Run the subscriber until stdin ends or a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('transport', choices=('raw', 'compressed'))
    parser.add_argument('--outputs', nargs='+', required=True, help="where a camera's results lie")
    parser.add_argument('--relayed', nargs='+', required=True, help='base topics of the relay')
    options = parser.parse_args()
    return serve(lambda: Subscriber(options.outputs, options.relayed, options.transport))


if __name__ == '__main__':
    sys.exit(main())
