# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A configuration as the ROS 2 parameter file that the robot loads over the shipped one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from segnode.checkpoint.presets import PRESETS
from segnode.config import Config, parameters, user_path
from segnode.shipped import shipped_file

# What belongs to a machine, and not to what was evaluated on it.
_MACHINE = ('device', 'memory_limit_mb', 'refresh')
_FILES = ('model', 'weights')


def robot_parameters(config: Config, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what makes the node do as ``config`` does, by dotted name.

    The node takes the shipped ``config/seg.yaml`` first, which sets more than the defaults here:
    so what differs from that is returned, and the model however it is given.

    Args:
        config: of the engine.
        more: parameters of the node, by name.

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
        if name in _FILES:
            value = _absolute(str(value))
        if name == 'class_names':
            value = [_absolute(each) for each in flat[name]]
        if name != 'weights' or value:
            found[name] = value
    added = {name: value for name, value in (more or {}).items() if value != known.get(name)}
    return found | added


def _absolute(name: str) -> str:
    """Return the whole path of a file; names of presets and URLs stay."""
    path = user_path(name)
    return str(path.resolve()) if name and name not in PRESETS and path.is_file() else name


def parameter_file(config: Config, came_from: str, more: Mapping[str, Any] | None = None) -> str:
    """Return the text of a file for ``ros2 launch segnode seg.launch.py params_file:=``.

    Args:
        config: what the node shall do.
        came_from: lines for people, of where the values are from; they become comments.
        more: parameters of the node, by name.

    Raises:
        ConfigError: the shipped file is missing.
    """
    values = robot_parameters(config, more)
    body = yaml.safe_dump(
        {'/**': {'ros__parameters': values}}, sort_keys=False, allow_unicode=True
    )
    lines = (
        *came_from.splitlines(),
        'ros2 launch segnode seg.launch.py params_file:=THIS_FILE image_topic:=/your/image_raw',
        'It goes over the shipped config/seg.yaml and has what differs from that. Where the files',
        'of the model lie elsewhere on the robot, correct their paths. Topics, transport and',
        "device are the robot's; without a precision here it takes that which suits its device.",
    )
    return ''.join(f'# {line}\n' for line in lines) + f'\n{body}'
