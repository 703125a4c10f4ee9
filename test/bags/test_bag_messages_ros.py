# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Messages made without ROS say what the node publishes, read by ROS itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.serialization import deserialize_message
from seeds import fresh_seeds
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header as RosHeader
from test_bag_messages import CLASS_NAMES, HEADER, random_detections
from vision_msgs.msg import Detection2DArray, LabelInfo

from segnode.bags import messages
from segnode.ros import messages as ros_messages

pytestmark = pytest.mark.ros

ROS_HEADER = RosHeader(
    stamp=Time(sec=HEADER.stamp_ns // 10**9, nanosec=HEADER.stamp_ns % 10**9),
    frame_id=HEADER.frame_id,
)


def as_published(message: Any, kind: type) -> Any:
    return deserialize_message(message, kind) if isinstance(message, bytes) else message


@pytest.mark.parametrize('seed', fresh_seeds(3))
@pytest.mark.parametrize('count', [0, 1, 100])
@pytest.mark.parametrize('class_id_format', ['name', 'index'])
def test_detections(seed: int, count: int, class_id_format: str) -> None:
    given = random_detections(seed, count), CLASS_NAMES, class_id_format
    found = deserialize_message(messages.detections_message(HEADER, *given), Detection2DArray)
    assert len(found.detections) == count
    assert found == ros_messages.detections_message(ROS_HEADER, *given)


@pytest.mark.parametrize('seed', fresh_seeds(3))
def test_whole_images(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = (int(side) for side in random.integers(1, 200, 2))
    labels = random.integers(0, 65536, (height, width), np.uint16)
    overlay = random.integers(0, 256, (height, width, 3), np.uint8)
    for ours, theirs, kind in (
        (
            messages.instance_mask_message(HEADER, labels),
            ros_messages.instance_mask_message(ROS_HEADER, labels),
            Image,
        ),
        (
            messages.overlay_jpeg(HEADER, overlay),
            ros_messages.overlay_jpeg(ROS_HEADER, overlay),
            CompressedImage,
        ),
    ):
        assert deserialize_message(ours, kind) == as_published(theirs, kind)


def test_stage_times() -> None:
    given = 'segnode', {'decode': 1.5, 'paste': 2.25}, (480, 640), {'kept': 3, 'detected': 5}
    found = deserialize_message(messages.stage_times_message(HEADER, *given), DiagnosticArray)
    assert found == ros_messages.stage_times_message(ROS_HEADER, *given)


@pytest.mark.parametrize('names', [(), CLASS_NAMES])
def test_label_info(names: tuple[str, ...]) -> None:
    found = deserialize_message(messages.label_info_message(HEADER, names, 0.3), LabelInfo)
    expected = ros_messages.label_info_message(ROS_HEADER, names, np.float32(0.3))
    assert found == expected
