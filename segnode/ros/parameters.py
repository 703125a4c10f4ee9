# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""ROS parameters, declared from the configuration dataclasses and kept in step with them."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from segnode.config import Config, Parameter, Settings, parameters, setting
from segnode.errors import ConfigError, SegnodeError


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig(Settings):
    """What the node adds to the engine's settings."""

    image_topics: tuple[str, ...] = setting(
        ('image',),
        "Topic of the camera's images, as a list of one; relative names can be remapped",
    )
    image_transport: str = setting(
        'raw',
        'raw takes sensor_msgs/Image on the topic, compressed takes sensor_msgs/CompressedImage '
        'on <topic>/compressed',
        choices=('raw', 'compressed'),
    )
    image_qos: str = setting(
        'auto',
        'Reliability of the subscription: auto is reliable where every publisher offers it, '
        'else best effort; sensor_data is best effort',
        choices=('auto', 'sensor_data', 'reliable'),
    )
    class_id_format: str = setting(
        'name',
        'class_id of a detection: the name of its class or the index',
        choices=('name', 'index'),
        runtime=True,
    )
    autostart: bool = setting(
        True, 'Configure and activate at start; false waits for a lifecycle manager'
    )

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        if len(self.image_topics) != 1 or not self.image_topics[0]:
            raise ConfigError(
                'image_topics: expected a list of exactly one topic, found '
                f'{list(self.image_topics)}; start one node for each camera'
            )


def all_parameters() -> dict[str, Parameter]:
    """Return every parameter of the node by name: the engine's, then its own."""
    return {p.name: p for settings in (Config, NodeConfig) for p in parameters(settings)}


class NodeParameters:
    """The node's declared parameters and the two configurations that they stand for.

    Args:
        node: the node that declares them; overrides from its arguments and files apply.
        apply: called with the engine's configuration before a change of it is accepted; raises
            SegnodeError to refuse it.

    Raises:
        ConfigError: an override does not fit.
    """

    def __init__(self, node: Node, apply: Callable[[Config], None]) -> None:
        self._node = node
        self._apply = apply
        known = all_parameters()
        # rclpy has no public way to read an override without declaring it by its type first,
        # which fails for an integer where a double is meant and for an empty list.
        overrides = {
            name: override.value
            for name, override in node._parameter_overrides.items()
            if name in known
        }
        self.engine, self.node = _replace(Config(), NodeConfig(), overrides)
        values = {**self.engine.flat(), **self.node.flat()}
        for name, parameter in known.items():
            _declare(node, parameter, values[name])
        for warning in _unknown(node._parameter_overrides, (*node._parameters, *known)):
            node.get_logger().warning(warning)
        node.add_on_set_parameters_callback(self._set)

    @property
    def hash(self) -> str:
        """Short hash of all values: equal hashes, equal configuration."""
        text = json.dumps({**self.engine.flat(), **self.node.flat()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _set(self, changed: list[RosParameter]) -> SetParametersResult:
        known = all_parameters()
        changes = {p.name: p.value for p in changed if p.name in known}
        try:
            for ros_parameter in changed:
                if ros_parameter.type_ == RosParameter.Type.NOT_SET:
                    raise ConfigError(f'{ros_parameter.name}: a parameter cannot be deleted')
                if ros_parameter.name == 'use_sim_time' and type(ros_parameter.value) is not bool:
                    # rclpy refuses it too, but only after this callback.
                    raise ConfigError('use_sim_time: expected bool')
            engine, node = _replace(self.engine, self.node, changes)
            if engine != self.engine:
                self._apply(engine)
        except SegnodeError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.engine, self.node = engine, node
        return SetParametersResult(successful=True)


def _replace(
    engine: Config, node: NodeConfig, changes: Mapping[str, Any]
) -> tuple[Config, NodeConfig]:
    own = {p.name for p in parameters(NodeConfig)}
    return (
        engine.replace({name: v for name, v in changes.items() if name not in own}),
        node.replace({name: v for name, v in changes.items() if name in own}),
    )


def descriptor(parameter: Parameter) -> ParameterDescriptor:
    """Describe a parameter for tools: text with the unit, range, and whether it can change."""
    unit = f' [{parameter.unit}]' if parameter.unit else ''
    low, high = parameter.minimum, parameter.maximum
    described = ParameterDescriptor(
        name=parameter.name,
        description=parameter.description + unit,
        additional_constraints='one of ' + ', '.join(parameter.choices)
        if parameter.choices
        else '',
        read_only=not parameter.runtime,
        # An integer for a double, and an empty list (it has no type of its own) are welcome.
        dynamic_typing=isinstance(parameter.default, float | tuple),
    )
    if low is not None and high is not None:
        if isinstance(parameter.default, int):
            described.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            described.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
    return described


def _declare(node: Node, parameter: Parameter, value: Any) -> None:
    described = descriptor(parameter)
    if value == ():
        # Declared by its value, an empty list would become a list of bytes.
        described.read_only = False
        node.declare_parameter(parameter.name, [], described, ignore_override=True)
        empty = RosParameter(parameter.name, RosParameter.Type.STRING_ARRAY, [])
        node.set_parameters([empty])
        node.set_descriptor(parameter.name, descriptor(parameter))
        return
    ros_value = list(value) if isinstance(value, tuple) else value
    node.declare_parameter(parameter.name, ros_value, described, ignore_override=True)


def _unknown(overrides: Iterable[str], declared: Iterable[str]) -> list[str]:
    """Return a warning for each override that nothing has declared, most likely a typing error."""
    declared = list(declared)
    warnings = []
    for name in sorted(set(overrides) - set(declared)):
        if not name.startswith('qos_overrides.'):
            near = difflib.get_close_matches(name, declared, n=1)
            remedy = f'did you mean {near[0]}?' if near else 'ros2 param list shows what there is'
            warnings.append(f'parameter {name} is unknown and has no effect; {remedy}')
    return warnings
