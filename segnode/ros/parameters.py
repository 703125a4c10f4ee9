# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""ROS parameters, declared from the configuration dataclasses and kept in step with them."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
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

MOST_CAMERAS = 8
# Last parts of an image topic that say what the image is, and not which camera's.
_IMAGE_WORDS = re.compile(r'image(_\w+)?|compressed|rgb|color|raw')


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig(Settings):
    """Which frames are worked on, and when."""

    max_age_ms: float = setting(
        0.0,
        'Age of a frame (now - stamp) from which it is dropped before it costs device time; '
        '0 is off',
        unit='ms',
        minimum=0.0,
        maximum=3.6e6,
        runtime=True,
    )
    max_rate_hz: float = setting(
        0.0,
        'Most frames a second, of all cameras together, for power or for a shared GPU; 0 is off',
        unit='Hz',
        minimum=0.0,
        maximum=1000.0,
        runtime=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraConfig:
    """A camera as the parameters have it.

    Attributes:
        name: unique among the node's.
        topic: base topic of its images, before remapping.
        prefix: of its outputs below the node's own name; empty where there is one camera.
    """

    name: str
    topic: str
    prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig(Settings):
    """What the node adds to the engine's settings."""

    image_topics: tuple[str, ...] = setting(
        ('image',),
        'Topics of the images, one a camera, 1 to 8; relative names can be remapped',
    )
    camera_names: tuple[str, ...] = setting(
        (), "Names of the cameras, in the order of image_topics; empty takes the topics'"
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
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    autostart: bool = setting(
        True, 'Configure and activate at start; false waits for a lifecycle manager'
    )

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        topics, names = self.image_topics, self.camera_names
        if not 1 <= len(topics) <= MOST_CAMERAS or not all(topics):
            raise ConfigError(
                f'image_topics: expected 1 to {MOST_CAMERAS} topics, found {list(topics)}'
            )
        if len(set(topics)) != len(topics):
            raise ConfigError(f'image_topics: expected different topics, found {list(topics)}')
        if not names:
            return
        if len(names) != len(topics) or len(set(names)) != len(names):
            raise ConfigError(
                f'camera_names: expected {len(topics)} different names, one for each of '
                f'image_topics, found {list(names)}'
            )
        for name in names:
            if not re.fullmatch('[A-Za-z][A-Za-z0-9_]*', name):
                raise ConfigError(
                    'camera_names: expected names of letters, digits and underscores that begin '
                    f'with a letter, as they stand in topics, found {name!r}'
                )

    def cameras(self) -> list[CameraConfig]:
        """Return the cameras, in the order of ``image_topics``."""
        names = self.camera_names or names_of_topics(self.image_topics)
        several = len(names) > 1
        return [
            CameraConfig(name=name, topic=topic, prefix=f'{name}/' if several else '')
            for name, topic in zip(names, self.image_topics, strict=True)
        ]


def names_of_topics(topics: Sequence[str]) -> list[str]:
    """Return a name for each camera: the shortest part of its topic that tells it from others.

    ``/front/image_raw`` and ``/rear/image_raw`` are ``front`` and ``rear``.
    """
    parts = []
    for topic in topics:
        words = [word for word in topic.strip('~/').split('/') if word]
        while len(words) > 1 and _IMAGE_WORDS.fullmatch(words[-1]):
            words.pop()
        parts.append(words or ['camera'])
    longest = max(map(len, parts))
    names: list[str] = []
    for length in range(1, longest + 1):
        names = ['_'.join(words[-length:]) for words in parts]
        if len(set(names)) == len(names):
            break
    if len(set(names)) != len(names):
        # Names that differ in what is left out alone, as left/image_raw and left/image_color.
        names = ['_'.join(word for word in topic.strip('~/').split('/')) for topic in topics]
    if len(set(names)) != len(names):
        names = [f'camera_{number}' for number in range(len(topics))]
    return names


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
    def cameras(self) -> list[CameraConfig]:
        """The cameras of the node."""
        return self.node.cameras()

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
