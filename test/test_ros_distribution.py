# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The distribution is that of the rclpy which is imported, whatever a shell has sourced."""

from __future__ import annotations

from pathlib import Path

import pytest

from segnode.ros_distribution import profile_variable, rclpy_version, ros_distribution


@pytest.mark.parametrize(
    ('version', 'sourced', 'expected', 'vendor'),
    [
        ('3.3.16', 'humble', 'humble', 'FASTRTPS'),
        ('7.1.6', None, 'jazzy', 'FASTRTPS'),
        ('7.1.5', 'kilted', 'jazzy', 'FASTRTPS'),
        ('9.1.2', None, 'kilted', 'FASTDDS'),
        ('11.0.1', 'rolling', 'rolling', 'FASTDDS'),
        ('11.0.1', None, '', 'FASTDDS'),
    ],
)
def test_distribution(
    version: str,
    sourced: str | None,
    expected: str,
    vendor: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    information = tmp_path / f'rclpy-{version}-py3.11.egg-info'
    information.mkdir()
    (information / 'PKG-INFO').write_text(
        f'Metadata-Version: 2.1\nName: rclpy\nVersion: {version}\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv('ROS_DISTRO', raising=False)
    if sourced is not None:
        monkeypatch.setenv('ROS_DISTRO', sourced)
    assert rclpy_version() == version
    assert ros_distribution() == expected
    assert profile_variable() == f'{vendor}_DEFAULT_PROFILES_FILE'
