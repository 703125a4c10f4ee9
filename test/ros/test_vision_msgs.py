# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""vision_msgs is wire-compatible with the published package, built here or sourced."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from geometry_msgs.msg import Point, Pose, PoseWithCovariance
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header
from vision_msgs import msg

pytestmark = pytest.mark.ros
ROOT = Path(__file__).resolve().parents[2]
TABLE = json.loads((ROOT / 'resource' / 'environment' / 'vision_msgs.json').read_text())
MESSAGES = TABLE['messages']


def slots(field: str) -> tuple[str, str]:
    """The name of a field and its type, as the generated Python states it."""
    kind, name = field.split()
    array, kind = kind.endswith('[]'), kind.removesuffix('[]')
    kind = 'double' if kind == 'float64' else 'float' if kind == 'float32' else kind
    if kind == 'Header':
        kind = 'std_msgs/Header'
    elif kind in MESSAGES:
        kind = f'vision_msgs/{kind}'
    return name, f'sequence<{kind}>' if array else kind


@pytest.mark.parametrize('name', MESSAGES)
def test_fields(name: str) -> None:
    expected = dict(map(slots, MESSAGES[name]['fields']))
    assert getattr(msg, name).get_fields_and_field_types() == expected


def test_type_hashes() -> None:
    shares = (prefix / 'share' / 'vision_msgs' for prefix in Path(msg.__file__).parents)
    folder = next(filter(Path.is_dir, shares)) / 'msg'
    found = {}
    for path in folder.glob('*.json'):
        for entry in json.loads(path.read_text())['type_hashes']:
            found[entry['type_name']] = entry['hash_string']
    if os.environ.get('ROS_DISTRO') == 'humble':  # older than type hashes
        assert found == {}
        return
    expected = {f'vision_msgs/msg/{name}': m['type_hash'] for name, m in MESSAGES.items()}
    assert {name: found.get(name) for name in expected} == expected


def test_round_trip() -> None:
    header = Header(frame_id='camera')
    header.stamp.sec, header.stamp.nanosec = 7, 8
    pose = PoseWithCovariance(pose=Pose(position=Point(x=1.5)), covariance=[0.25] * 36)
    result = msg.ObjectHypothesisWithPose(
        hypothesis=msg.ObjectHypothesis(class_id='cone', score=0.75), pose=pose
    )
    center = msg.Pose2D(position=msg.Point2D(x=3.5, y=-4.25), theta=0.125)
    detection = msg.Detection2D(
        header=header,
        results=[result],
        bbox=msg.BoundingBox2D(center=center, size_x=10.0, size_y=20.5),
        id='1',
    )
    array = msg.Detection2DArray(header=header, detections=[detection, msg.Detection2D(id='2')])
    assert deserialize_message(serialize_message(array), msg.Detection2DArray) == array

    classes = [msg.VisionClass(class_id=65535, class_name='Fußgänger')]
    info = msg.LabelInfo(header=header, class_map=classes, threshold=0.5)
    assert deserialize_message(serialize_message(info), msg.LabelInfo) == info
