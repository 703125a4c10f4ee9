# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""ROS parameters, declared from the configuration dataclasses and kept in step with them."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy.qos
import yaml
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rcl_interfaces.srv import SetParameters
from rclpy.exceptions import NameValidationException
from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from rclpy.parameter_service import ParameterService
from rclpy.qos import QoSPolicyKind
from rclpy.validate_full_topic_name import validate_full_topic_name
from rclpy.validate_topic_name import validate_topic_name

from segnode.config import Config, Parameter, Settings, parameters, setting
from segnode.errors import ConfigError, SegnodeError
from segnode.live.camera_names import NAME, names_of_topics
from segnode.live.grey_values import FEWEST_BITS, FULL_BITS
from segnode.live.schedule import MOST_CAMERAS, ScheduleConfig


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
    mono16_bits: int = setting(
        FULL_BITS,
        'Bits in use of mono16 images and 16-bit PNG, from the lowest: 12 for a camera of 12 '
        'bits; brighter values are white',
        minimum=FEWEST_BITS,
        maximum=FULL_BITS,
        runtime=True,
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
        for topic in topics:
            _check_topic(topic)
        if not names:
            return
        if len(names) != len(topics) or len(set(names)) != len(names):
            raise ConfigError(
                f'camera_names: expected {len(topics)} different names, one for each of '
                f'image_topics, found {list(names)}'
            )
        for name in names:
            if not NAME.fullmatch(name):
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
        # A worker lowers the resolution while an operator may set something else.
        self._setting = threading.RLock()
        known = all_parameters()
        # rclpy has no public way to read an override without declaring it by its type first,
        # which fails for an integer where a double is meant and for an empty list.
        overrides = {
            name: override.value
            for name, override in node._parameter_overrides.items()
            if name in known
        }
        for said in _understand_compressed(overrides):
            node.get_logger().info(said)
        self.engine, self.node = _replace(Config(), NodeConfig(), overrides)
        resolved: dict[str, str] = {}
        for topic in self.node.image_topics:
            try:
                name = node.resolve_topic_name(topic)
            except (NameValidationException, RuntimeError, ValueError) as error:
                raise _no_topic(topic, error) from None
            if name in resolved:
                raise ConfigError(
                    f'image_topics: expected different topics, found {resolved[name]} and '
                    f'{topic}, which both are {name}'
                )
            resolved[name] = topic
        given = {name: override.value for name, override in node._parameter_overrides.items()}
        for warning in _check_qos_overrides(given):
            node.get_logger().warning(warning)
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
        with self._setting:
            return self._set_alone(changed)

    def _set_alone(self, changed: list[RosParameter]) -> SetParametersResult:
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


class ParameterSetService(ParameterService):
    """Takes a set of parameters whole where it is valid as a whole, else one by one.

    rclpy's own takes them one by one, as ``ros2 param load`` and YAML in rqt send them: then of
    two that have to fit each other, such as the least and the largest area, the first one may not
    fit the old value of the second.
    """

    def _set_parameters_callback(
        self, request: SetParameters.Request, response: SetParameters.Response
    ) -> SetParameters.Response:
        node = self._get_node()
        # A file of all parameters has those that cannot change, too: they are answered alone.
        together = [
            message
            for message in request.parameters
            if node.has_parameter(message.name)
            and not node.describe_parameter(message.name).read_only
        ]
        whole = None
        if len(together) > 1:
            whole = node.set_parameters_atomically(
                [RosParameter.from_parameter_msg(message) for message in together]
            )
        for message in request.parameters:
            if whole is not None and whole.successful and message in together:
                response.results.append(whole)
            else:
                alone = SetParameters.Request(parameters=[message])
                super()._set_parameters_callback(alone, response)
        return response


@dataclass(frozen=True, slots=True)
class ParameterFile:
    """A ROS parameter file: whom it is for.

    Attributes:
        path: as it was given.
        keys: the node names in it, with wildcards; nested namespaces joined with ``/``.
    """

    path: str
    keys: tuple[str, ...]

    @classmethod
    def read(cls, path: str) -> ParameterFile:
        """Read the keys; the file is parsed and nothing is built from it.

        Raises:
            ConfigError: no such file, or no parameter file.
        """
        expected = f'{path}: expected a YAML file of ROS parameters, found'
        try:
            with Path(path).open('rb') as stream:
                root = yaml.compose(stream, yaml.SafeLoader)
            return cls(path, tuple(dict.fromkeys(_node_keys(root))))
        except OSError as error:
            raise ConfigError(f'{expected} {error.strerror or "no file"}') from None
        except yaml.MarkedYAMLError as error:
            where = f' in line {error.problem_mark.line + 1}' if error.problem_mark else ''
            raise ConfigError(f'{expected} broken YAML: {error.problem}{where}') from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError(f'{expected} broken YAML: {cause(error)}') from None

    def warning(self, node_name: str) -> str:
        """Return what is wrong with a file that has nothing for a node, empty where it has.

        Args:
            node_name: full name of the node.
        """
        if any(_matches(key, node_name) for key in self.keys):
            return ''
        found = f'only {", ".join(self.keys)}' if self.keys else 'no node at all'
        return (
            f'{self.path}: expected parameters of {node_name}, found {found}, so nothing in it '
            f'has an effect; write {node_name}: or /**: (if you did not give this file: an '
            'including launch file hands on its own params_file, unless the include is scoped)'
        )


def parameter_files(args: Sequence[str]) -> list[ParameterFile]:
    """Return the parameter files that ROS arguments name, in their order.

    Raises:
        ConfigError: one of them cannot be read.
    """
    files, for_ros = [], False
    for index, arg in enumerate(args):
        if arg in ('--ros-args', '--'):
            for_ros = arg == '--ros-args'
        elif for_ros and arg == '--params-file' and index + 1 < len(args):
            files.append(ParameterFile.read(args[index + 1]))
    return files


def _node_keys(node: yaml.Node | None, namespace: str = '') -> Iterator[str]:
    """Yield the names that have ``ros__parameters`` under them."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = str(key.value)
        if name == 'ros__parameters':
            yield namespace
        else:
            yield from _node_keys(value, f'{namespace.rstrip("/")}/{name}' if namespace else name)


def _matches(key: str, node_name: str) -> bool:
    """Return whether a key is for a node, as rclpy finds out: ``/*`` is one name, ``/**`` any."""
    pattern = f'/{key.removeprefix("/")}'.replace('/*', r'(/\w+)')
    try:
        return re.fullmatch(pattern, node_name) is not None
    except re.error:
        return False


def cause(error: Exception) -> str:
    """Return what ROS says is wrong, in one line, without places in its own sources."""
    text = str(error)
    if isinstance(error, NameValidationException):
        # "Invalid topic name: CAUSE:", then the name, then a mark under one of its letters.
        text = text.splitlines()[0].partition(': ')[2]
    return re.sub(r' ?, at \S+:\d+', '', ' '.join(text.split())).rstrip(':')


def _check_topic(topic: str) -> None:
    """Refuse what ROS refuses as a topic name, before and after its expansion.

    Raises:
        ConfigError: the name.
    """
    try:
        validate_topic_name(topic)
        # The node's own name and namespace are not known yet; any will do.
        validate_full_topic_name(expand_topic_name(topic, 'segnode', '/namespace'))
    except (NameValidationException, RuntimeError, ValueError) as error:
        raise _no_topic(topic, error) from None


def _no_topic(topic: str, error: Exception) -> ConfigError:
    return ConfigError(f'image_topics: expected a topic name, found {topic!r}: {cause(error)}')


def _understand_compressed(overrides: dict[str, Any]) -> Iterator[str]:
    """Take the base topics and the transport where a compressed topic itself is given.

    Args:
        overrides: the given parameters by name; changed in place.

    Yields:
        What was understood, for each topic.

    Raises:
        ConfigError: one topic is compressed and another is not, in raw transport.
    """
    topics = overrides.get('image_topics')
    if not isinstance(topics, list | tuple) or not all(isinstance(t, str) for t in topics):
        return
    bases = [_base_topic(topic) for topic in topics]
    if bases == list(topics):
        return
    if overrides.get('image_transport', 'raw') == 'raw':
        raw = [topic for topic, base in zip(topics, bases, strict=True) if topic == base]
        if raw:
            raise ConfigError(
                f'image_topics: expected one transport, found {", ".join(topics)}, of which '
                f'{", ".join(raw)} is not compressed'
            )
        overrides['image_transport'] = 'compressed'
    overrides['image_topics'] = bases
    for topic, base in zip(topics, bases, strict=True):
        if topic != base:
            yield f'image_topics: {topic} is taken as {base} with image_transport: compressed'


def _base_topic(topic: str) -> str:
    """Return the topic that image_transport would add ``/compressed`` to, else the topic."""
    base = topic.removesuffix('/compressed')
    return topic if base in ('', '~') else base


_QOS_WORDS = ('history', 'reliability', 'durability', 'liveliness')


def _check_qos_overrides(overrides: Mapping[str, Any]) -> Iterator[str]:
    """Refuse values of QoS overrides that rclpy would fail on when the topic is opened.

    Yields:
        A warning for each policy that does not exist.

    Raises:
        ConfigError: a wrong word or number.
    """
    policies = [kind.name.lower() for kind in QoSPolicyKind if kind.name != 'INVALID']
    for name, value in overrides.items():
        found = re.fullmatch(r'qos_overrides\..+\.(?:publisher|subscription)\w*\.(\w+)', name)
        if found is None:
            continue
        policy = found[1]
        if policy in _QOS_WORDS:
            kinds = getattr(rclpy.qos, f'{policy.capitalize()}Policy')
            words = [word for word in kinds.short_keys() if word != 'unknown']
            expected = f'one of {", ".join(words)}'
            right = isinstance(value, str) and value.lower() in words
        elif policy == 'avoid_ros_namespace_conventions':
            expected, right = 'true or false', isinstance(value, bool)
        elif policy in policies:
            expected, right = 'an integer of 0 or more', type(value) is int and value >= 0
        else:
            near = difflib.get_close_matches(policy, policies, n=1)
            remedy = f'did you mean {near[0]}?' if near else f'known are {", ".join(policies)}'
            yield f'parameter {name} is unknown and has no effect; {remedy}'
            continue
        if not right:
            raise ConfigError(f'{name}: expected {expected}, found {value!r}')


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
