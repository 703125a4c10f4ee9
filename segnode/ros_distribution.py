# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Which ROS 2 distribution runs here, and what it calls things."""

from __future__ import annotations

import os
from importlib import metadata

# A distribution keeps its rclpy's first two numbers. Wheels set no ROS_DISTRO, and a shell may
# have sourced another one than the interpreter imports.
_BY_RCLPY = {'3.3': 'humble', '4.1': 'iron', '7.1': 'jazzy', '9.1': 'kilted'}
_WITH_FAST_DDS_2 = ('humble', 'iron', 'jazzy')


def rclpy_version() -> str:
    """Return the version of the rclpy that is imported here, '' where there is none."""
    try:
        return metadata.version('rclpy')
    except metadata.PackageNotFoundError:
        return ''


def ros_distribution() -> str:
    """Return the distribution's name, '' where nothing says it."""
    series = '.'.join(rclpy_version().split('.')[:2])
    return _BY_RCLPY.get(series) or os.environ.get('ROS_DISTRO', '')


def profile_variable() -> str:
    """Return the variable from which this distribution's Fast DDS takes its XML profile.

    Fast DDS 3 has another name for it, and ignores the one of Fast DDS 2.
    """
    vendor = 'FASTRTPS' if ros_distribution() in _WITH_FAST_DDS_2 else 'FASTDDS'
    return f'{vendor}_DEFAULT_PROFILES_FILE'
