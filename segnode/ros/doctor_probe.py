# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What ``segnode doctor`` asks of ROS, in a process of its own: answers as JSON on stdout."""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

from segnode.ros_distribution import rclpy_version, ros_distribution

MESSAGES = {
    'sensor_msgs': 'Image',
    'diagnostic_msgs': 'DiagnosticArray',
    'vision_msgs': 'Detection2DArray',
}
OPTIONAL = ('cv_bridge',)
GRAPH_TIMEOUT_S = 5.0


def probe() -> dict[str, Any]:
    """Return distribution, rclpy's version, middleware, what cannot be imported, type hashes.

    The hash is what this machine would announce to others: publishers of every type are made and
    their announcement is read back. Distributions before Jazzy have none.
    """
    errors = {}
    messages = {}
    for package, name in MESSAGES.items():
        try:
            messages[package] = getattr(importlib.import_module(f'{package}.msg'), name)
        except ImportError as error:
            errors[package] = str(error)
    for package in OPTIONAL:
        try:
            importlib.import_module(package)
        except ImportError as error:
            errors[package] = str(error)

    import rclpy
    from rclpy.utilities import get_rmw_implementation_identifier

    rclpy.init()
    node = rclpy.create_node('segnode_doctor')
    hashes = {}
    for package, message in messages.items():
        topic = node.create_publisher(message, f'~/{package}', 1).topic_name
        end = time.monotonic() + GRAPH_TIMEOUT_S
        while not (found := node.get_publishers_info_by_topic(topic)) and time.monotonic() < end:
            time.sleep(0.02)
        if found and hasattr(found[0], 'topic_type_hash'):
            hashes[f'{package}/{MESSAGES[package]}'] = str(found[0].topic_type_hash)
    answer = {
        'distro': ros_distribution(),
        'rclpy': rclpy_version(),
        'rmw': get_rmw_implementation_identifier(),
        'errors': errors,
        'type_hashes': hashes,
    }
    node.destroy_node()
    rclpy.shutdown()
    return answer


if __name__ == '__main__':
    sys.stdout.write(json.dumps(probe()) + '\n')
