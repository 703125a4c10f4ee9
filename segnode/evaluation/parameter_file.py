# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A configuration as the ROS 2 parameter file that the robot loads over the shipped one."""

from __future__ import annotations

from typing import Any

import yaml

from segnode.config import Config, parameters, user_path
from segnode.shipped import shipped_file

# What belongs to a machine, and not to what was evaluated on it.
_MACHINE = ('device', 'memory_limit_mb', 'refresh')
_FILES = ('model', 'weights')


def robot_parameters(config: Config) -> dict[str, Any]:
    """Return what makes the node do as ``config`` does, by dotted name.

    The node takes the shipped ``config/seg.yaml`` first, which sets more than the defaults here:
    so what differs from that is returned, and the model however it is given.

    Raises:
        ConfigError: the shipped file is missing.
    """
    shipped = yaml.safe_load(shipped_file('config/seg.yaml').read_text(encoding='utf-8'))
    known = shipped['/**']['ros__parameters']
    flat, found = config.flat(), {}
    for parameter in parameters(Config):
        name = parameter.name
        value = list(flat[name]) if isinstance(flat[name], tuple) else flat[name]
        if name in _MACHINE or (name not in _FILES and value == known.get(name)):
            continue
        if name in _FILES and value and user_path(str(value)).exists():
            value = str(user_path(str(value)).resolve())
        if name != 'weights' or value:
            found[name] = value
    return found


def parameter_file(config: Config, came_from: str) -> str:
    """Return the text of a file for ``ros2 launch segnode seg.launch.py params_file:=``.

    Args:
        config: what the node shall do.
        came_from: lines for people, of where the values are from; they become comments.

    Raises:
        ConfigError: the shipped file is missing.
    """
    values = robot_parameters(config)
    body = yaml.safe_dump(
        {'/**': {'ros__parameters': values}}, sort_keys=False, allow_unicode=True
    )
    lines = (
        *came_from.splitlines(),
        'ros2 launch segnode seg.launch.py params_file:=THIS_FILE',
        'It goes over the shipped config/seg.yaml and has what differs from that. Where the files',
        'of the model lie elsewhere on the robot, correct their paths.',
    )
    return ''.join(f'# {line}\n' for line in lines) + f'\n{body}'
