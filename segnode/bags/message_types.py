# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The types of the messages that segnode writes, with their definitions.

rosbags knows those that come with ROS. Those of vision_msgs and foxglove_msgs are other packages';
their fields are given here, as a bag carries the definitions of its topics.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

DETECTIONS = 'vision_msgs/msg/Detection2DArray'
DIAGNOSTICS = 'diagnostic_msgs/msg/DiagnosticArray'
IMAGE_ANNOTATIONS = 'foxglove_msgs/msg/ImageAnnotations'
LABEL_INFO = 'vision_msgs/msg/LabelInfo'

_DEFINITIONS = {
    # 4.1 of vision_msgs, those of its types that lead to the two above.
    'vision_msgs': {
        'Point2D': 'float64 x; float64 y',
        'Pose2D': 'vision_msgs/Point2D position; float64 theta',
        'BoundingBox2D': 'vision_msgs/Pose2D center; float64 size_x; float64 size_y',
        'ObjectHypothesis': 'string class_id; float64 score',
        'ObjectHypothesisWithPose': (
            'vision_msgs/ObjectHypothesis hypothesis; geometry_msgs/PoseWithCovariance pose'
        ),
        'Detection2D': (
            'std_msgs/Header header; vision_msgs/ObjectHypothesisWithPose[] results; '
            'vision_msgs/BoundingBox2D bbox; string id'
        ),
        'Detection2DArray': 'std_msgs/Header header; vision_msgs/Detection2D[] detections',
        'VisionClass': 'uint16 class_id; string class_name',
        'LabelInfo': (
            'std_msgs/Header header; vision_msgs/VisionClass[] class_map; float32 threshold'
        ),
    },
    # As ROS distributions release it, 3.2 (github.com/foxglove/foxglove-sdk, schemas/ros2).
    'foxglove_msgs': {
        'Point2': 'float64 x; float64 y',
        'Color': 'float64 r; float64 g; float64 b; float64 a',
        'CircleAnnotation': (
            'builtin_interfaces/Time timestamp; foxglove_msgs/Point2 position; '
            'float64 diameter; float64 thickness; '
            'foxglove_msgs/Color fill_color; foxglove_msgs/Color outline_color'
        ),
        'PointsAnnotation': (
            'builtin_interfaces/Time timestamp; uint8 UNKNOWN=0; uint8 POINTS=1; '
            'uint8 LINE_LOOP=2; uint8 LINE_STRIP=3; uint8 LINE_LIST=4; uint8 type; '
            'foxglove_msgs/Point2[] points; foxglove_msgs/Color outline_color; '
            'foxglove_msgs/Color[] outline_colors; foxglove_msgs/Color fill_color; '
            'float64 thickness'
        ),
        'TextAnnotation': (
            'builtin_interfaces/Time timestamp; foxglove_msgs/Point2 position; string text; '
            'float64 font_size; foxglove_msgs/Color text_color; '
            'foxglove_msgs/Color background_color'
        ),
        'ImageAnnotations': (
            'foxglove_msgs/CircleAnnotation[] circles; foxglove_msgs/PointsAnnotation[] points; '
            'foxglove_msgs/TextAnnotation[] texts'
        ),
    },
}


@functools.cache
def typestore() -> Typestore:
    """Return the types of ROS, vision_msgs and foxglove_msgs, made at the first call.

    ROS's own that segnode writes are the same in every distribution.
    """
    # Reading options and refusing them needs none of it.
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    for package, definitions in _DEFINITIONS.items():
        for name, fields in definitions.items():
            text = fields.replace('; ', '\n')
            store.register(get_types_from_msg(text, f'{package}/msg/{name}'))
    return store
