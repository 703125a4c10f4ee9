# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The ROS parameters: declared from the dataclasses, refused by name, swapped in whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip('rclpy', reason='needs ROS 2')

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter
from ros_harness import DOMAIN_ID, SEG_YAML

from segnode.config import Config
from segnode.errors import ConfigError
from segnode.ros import parameters as ros_parameters
from segnode.ros.parameters import (
    NodeConfig,
    NodeParameters,
    all_parameters,
    descriptor,
)

pytestmark = pytest.mark.ros


class Engine:
    """What the engine is told; it refuses classes other than cones."""

    def __init__(self) -> None:
        self.applied: list[Config] = []

    def configure(self, config: Config) -> None:
        if set(config.filter.classes) - {'cone'}:
            raise ConfigError('filter.classes: expected cone')
        self.applied.append(config)


@pytest.fixture(scope='module')
def context() -> Iterator[Context]:
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN_ID)
    yield context
    context.try_shutdown()


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def declare(context: Context, engine: Engine) -> Iterator[Any]:
    """Declare all parameters on a node that was started with some overrides."""
    nodes: list[Node] = []

    def start(**overrides: Any) -> tuple[Node, NodeParameters]:
        given = []
        for name, value in overrides.items():
            dotted = name.replace('__', '.')
            # Without a value: how an empty list of a parameter file arrives.
            given.append(Parameter(dotted, value=value) if value != [] else Parameter(dotted))
        node = rclpy.create_node('parameters', context=context, parameter_overrides=given)
        nodes.append(node)
        return node, NodeParameters(node, engine.configure)

    yield start
    for node in nodes:
        node.destroy_node()


def _set(node: Node, changes: dict[str, Any]) -> Any:
    return node.set_parameters_atomically([Parameter(n, value=v) for n, v in changes.items()])


def test_every_setting_is_declared_with_its_default(declare: Any) -> None:
    node, parameters = declare()
    assert parameters.engine == Config()
    assert parameters.node == NodeConfig()
    for name, parameter in all_parameters().items():
        value = node.get_parameter(name).value
        assert (tuple(value) if isinstance(value, list) else value) == parameter.default, name


def test_parameter_file_names_every_parameter_and_no_other() -> None:
    shipped = yaml.safe_load(SEG_YAML.read_text(encoding='utf-8'))
    assert list(shipped) == ['/**']
    assert set(shipped['/**']['ros__parameters']) == set(all_parameters())


def test_parameter_file_says_unit_and_range_of_every_number() -> None:
    comment, seen = '', 0
    for line in SEG_YAML.read_text(encoding='utf-8').splitlines():
        text = line.strip()
        if text.startswith('#'):
            comment += text + ' '
            continue
        parameter = all_parameters().get(text.partition(':')[0])
        if parameter is not None and type(parameter.default) in (int, float):
            seen += 1
            assert parameter.maximum is not None
            assert f'{parameter.maximum:.0f}' in comment, parameter.name
            assert parameter.unit.rpartition(' ')[2] in comment, parameter.name
        if parameter is not None:
            assert ('[runtime]' in comment) == parameter.runtime, parameter.name
        comment = ''
    assert seen == sum(type(p.default) in (int, float) for p in all_parameters().values())


@pytest.mark.parametrize('parameter', all_parameters().values(), ids=lambda p: p.name)
def test_descriptions_are_complete(parameter: Any) -> None:
    described = descriptor(parameter)
    assert len(described.description) > 10
    assert parameter.unit in described.description
    assert described.read_only != parameter.runtime
    assert bool(described.integer_range) == (type(parameter.default) is int)
    assert bool(described.floating_point_range) == (type(parameter.default) is float)
    assert all(choice in described.additional_constraints for choice in parameter.choices)


def test_integer_is_welcome_for_a_fraction(declare: Any, engine: Engine) -> None:
    node, parameters = declare(filter__score_threshold=1)
    assert parameters.engine.filter.score_threshold == 1.0
    assert type(node.get_parameter('filter.score_threshold').value) is float
    assert _set(node, {'filter.score_threshold': 0, 'mask_threshold': 1}).successful
    assert type(parameters.engine.filter.score_threshold) is float
    assert engine.applied[-1].filter.score_threshold == 0.0


def test_empty_lists_can_be_given_and_filled(declare: Any, engine: Engine) -> None:
    node, parameters = declare(filter__classes=[], class_names=[])
    assert parameters.engine.filter.classes == ()
    assert node.get_parameter('filter.classes').type_ == Parameter.Type.STRING_ARRAY
    assert _set(node, {'filter.classes': ['cone']}).successful
    assert engine.applied[-1].filter.classes == ('cone',)
    assert _set(node, {'filter.classes': []}).successful
    assert engine.applied[-1].filter.classes == ()
    assert _set(node, {'filter.classes': ['cone']}).successful


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'filter.score_threshold': 1.5}, 'score_threshold'),
        ({'filter.score_threshold': 2}, 'filter.score_threshold: expected -1 or more and 1'),
        ({'filter.score_threshold': 'high'}, 'filter.score_threshold: expected float'),
        ({'filter.score_threshold': -0.5}, 'filter.score_threshold: expected -1 or 0 to 1'),
        ({'resolution.short_side': 1.5}, 'Wrong parameter type'),
        ({'filter.min_mask_area': -1}, 'filter.min_mask_area'),
        ({'filter.min_mask_area': 10, 'filter.max_mask_area': 5}, 'filter.max_mask_area'),
        ({'filter.classes': ['unicorn']}, 'filter.classes: expected cone'),
        ({'filter.classes': [1, 2]}, 'filter.classes: expected a list of strings'),
        ({'class_id_format': 'roman'}, 'class_id_format: expected one of name, index'),
        ({'model': 'other.yaml'}, 'read-only'),
        ({'image_topics': ['a']}, 'read-only'),
        ({'filter.score_threshold': None}, 'cannot be deleted'),
        ({'filter.classes': None}, 'cannot be deleted'),
    ],
)
def test_wrong_changes_are_refused_with_a_reason(
    declare: Any, engine: Engine, changes: dict[str, Any], reason: str
) -> None:
    node, parameters = declare(filter__score_threshold=0.25)
    before = (parameters.engine, parameters.node, parameters.hash)
    result = _set(node, changes)
    assert not result.successful
    assert reason in result.reason
    assert (parameters.engine, parameters.node, parameters.hash) == before
    assert engine.applied == []
    assert node.get_parameter('filter.score_threshold').value == 0.25


def test_changes_are_all_or_none(declare: Any, engine: Engine) -> None:
    node, parameters = declare()
    assert not _set(node, {'filter.max_instances': 5, 'filter.classes': ['unicorn']}).successful
    assert not _set(node, {'filter.max_instances': 5, 'use_sim_time': 'yes'}).successful
    assert not _set(node, {'filter.max_instances': 5, 'class_id_format': 'roman'}).successful
    assert parameters.engine == Config()
    assert engine.applied == []
    assert node.get_parameter('filter.max_instances').value == 0
    # Each alone would contradict the other's old value.
    assert _set(node, {'filter.max_mask_area': 50, 'filter.min_mask_area': 20}).successful
    assert _set(node, {'filter.max_mask_area': 500, 'filter.min_mask_area': 200}).successful
    assert len(engine.applied) == 2


def test_the_engine_hears_only_of_its_own(declare: Any, engine: Engine) -> None:
    node, parameters = declare()
    before = parameters.hash
    assert _set(node, {'class_id_format': 'index'}).successful
    assert parameters.node.class_id_format == 'index'
    assert engine.applied == []
    assert parameters.hash != before


@pytest.mark.parametrize(
    ('overrides', 'reason'),
    [
        ({'image_topics': []}, 'image_topics: expected 1 to 8 topics, found []'),
        ({'image_topics': list('abcdefghi')}, 'image_topics: expected 1 to 8 topics, found ['),
        ({'image_topics': ['a', 'a']}, 'image_topics: expected different topics'),
        ({'camera_names': ['a', 'b']}, 'camera_names: expected 1 different names, one for each'),
        ({'camera_names': ['front-left']}, 'camera_names: expected names of letters, digits and'),
        ({'image_topics': ['image', '/image']}, 'which both are /image'),
        ({'schedule__max_rate_hz': 1e-10}, 'schedule.max_rate_hz: expected 0 or 0.01 or more'),
        ({'schedule__max_age_ms': -1.0}, 'schedule.max_age_ms: expected 0 or more'),
        ({'image_topics': 'image'}, 'image_topics: expected a list of strings'),
        ({'image_transport': 'h264'}, 'image_transport: expected one of raw, compressed'),
        ({'filter__score_threshold': 2}, 'filter.score_threshold'),
        ({'model': 7}, 'model: expected str'),
        ({'autostart': 'yes'}, 'autostart: expected bool'),
    ],
)
def test_wrong_start_values_are_refused_by_name(
    declare: Any, overrides: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        declare(**overrides)
    assert reason in str(raised.value)
    assert '\n' not in str(raised.value)


def test_unknown_parameters_are_named(declare: Any, capfd: pytest.CaptureFixture[str]) -> None:
    declare(filter__score_treshold=0.5, zzz=1, use_sim_time=False)
    captured = capfd.readouterr()
    text = captured.out + captured.err
    assert 'filter.score_treshold is unknown' in text
    assert 'did you mean filter.score_threshold?' in text
    assert 'parameter zzz is unknown' in text
    assert 'use_sim_time' not in text


@pytest.mark.parametrize(
    ('topics', 'names'),
    [
        (['image'], ['image']),
        (['/camera/image_raw'], ['camera']),
        (['front/image_raw', '/rear/image_raw'], ['front', 'rear']),
        (['/front/color/image_raw', '/rear/color/image_rect'], ['front', 'rear']),
        (['/a/left/image', '/b/left/image'], ['a_left', 'b_left']),
        (['/left/image_raw', '/left/image_color'], ['left_image_raw', 'left_image_color']),
        (['~/image', '/image'], ['camera_0', 'camera_1']),
    ],
)
def test_cameras_are_named_after_their_topics(topics: list[str], names: list[str]) -> None:
    cameras = NodeConfig(image_topics=tuple(topics)).cameras()
    assert [camera.name for camera in cameras] == names
    assert [camera.topic for camera in cameras] == topics
    several = len(names) > 1
    assert [camera.prefix for camera in cameras] == [f'{n}/' if several else '' for n in names]


@pytest.mark.parametrize(
    ('topic', 'cause'),
    [
        ('/camera-1/image_raw', 'topic name must not contain characters other than'),
        ('camera/', 'topic name must not end with a forward slash'),
        ('a//b', "topic name must not contain repeated '/'"),
        ('//a', "topic name must not contain repeated '/'"),
        ('/1/image', 'topic name token must not start with a number'),
        ('2nd', 'topic name token must not start with a number'),
        ('a/~', "topic name must not have tilde '~'"),
        ('{place}/image', 'unknown substitution: {place}'),
        ('{node', 'topic name must not have unmatched'),
        # It begins with two slashes in the root namespace, where this node is.
        ('{ns}/image', "topic name must not contain repeated '/'"),
        ('/' + 'a' * 300, 'topic length should not exceed'),
    ],
)
def test_topic_names_are_ros_s(declare: Any, topic: str, cause: str) -> None:
    found = ''
    try:
        node, _ = declare(image_topics=[topic])
    except ConfigError as error:
        found = str(error)
    else:  # ROS refuses them all, as it should here.
        with pytest.raises(RuntimeError):
            node.resolve_topic_name(topic)
    assert found.startswith(f'image_topics: expected a topic name, found {topic!r}: ')
    assert cause in found
    assert '\n' not in found


@pytest.mark.parametrize(
    'topic', ['image', '/a/b_1', '~/image', '{node}/image', '/{node}_left', 'compressed']
)
def test_good_topic_names_stay(declare: Any, topic: str) -> None:
    node, parameters = declare(image_topics=[topic])
    assert parameters.node.image_topics == (topic,)
    assert parameters.node.image_transport == 'raw'
    assert node.resolve_topic_name(topic)


@pytest.mark.parametrize(
    'transport', [{}, *({'image_transport': t} for t in ('raw', 'compressed'))]
)
def test_a_compressed_topic_is_understood(
    declare: Any, capfd: pytest.CaptureFixture[str], transport: dict[str, str]
) -> None:
    node, parameters = declare(image_topics=['/eye/image/compressed'], **transport)
    assert parameters.node.image_topics == ('/eye/image',)
    assert parameters.node.image_transport == 'compressed'
    assert node.get_parameter('image_topics').value == ['/eye/image']
    assert node.get_parameter('image_transport').value == 'compressed'
    captured = capfd.readouterr()
    assert '/eye/image/compressed is taken as /eye/image' in captured.out + captured.err


@pytest.mark.parametrize(
    ('policy', 'value', 'expected'),
    [
        ('reliability', 'relable', 'one of system_default, reliable, best_effort'),
        ('reliability', 1, 'one of system_default'),
        ('history', 'keep-last', 'one of system_default, keep_last, keep_all'),
        ('durability', 'unknown', 'one of system_default, transient_local, volatile'),
        ('depth', '5', 'an integer of 0 or more'),
        ('depth', -1, 'an integer of 0 or more'),
        ('depth', True, 'an integer of 0 or more'),
    ],
)
@pytest.mark.parametrize('entity', ['/image.subscription', '/parameters/overlay.publisher'])
def test_wrong_qos_overrides_are_refused(
    declare: Any, entity: str, policy: str, value: Any, expected: str
) -> None:
    name, found = f'qos_overrides.{entity}.{policy}', ''
    try:
        declare(**{name: value})
    except ConfigError as error:
        found = str(error)
    assert found.startswith(f'{name}: expected {expected}')
    assert found.endswith(f', found {value!r}')


def test_good_qos_overrides_are_taken_and_others_named(
    declare: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    names = 'qos_overrides./image.subscription.{}'.format
    declare(
        **{
            names('reliability'): 'best_effort',
            names('history'): 'KEEP_LAST',
            names('depth'): 2,
            names('reliabilty'): 'reliable',
        }
    )
    captured = capfd.readouterr()
    warnings = [line for line in (captured.out + captured.err).splitlines() if '[WARN]' in line]
    asked = (
        f'parameter {names("reliabilty")} is unknown and has no effect; did you mean reliability?'
    )
    assert [line.partition(']: ')[2] for line in warnings] == [asked]


KEYS = (
    'parameters', '/parameters', '/**', '**', '/*', '*', '/front/parameters', 'front/parameters',
    '/*/parameters', '/**/parameters', '/front/*', '/front/**', 'Parameters',
    '/parameter', '/front', 'rear/parameters',
)  # fmt: skip


@pytest.mark.parametrize('namespace', ['/', '/front', '/a/front'])
@pytest.mark.parametrize('key', KEYS)
def test_files_are_for_the_nodes_that_ros_gives_them_to(
    context: Context, tmp_path: Path, key: str, namespace: str
) -> None:
    path = tmp_path / 'file.yaml'
    content = {key: {'ros__parameters': {'proposals': 7}}}
    if key.count('/') == 2 and key[0] == '/' and '*' not in key:  # Nested, it is the same.
        first, second = key.strip('/').split('/')
        content = {f'/{first}': {second: content[key]}}
    path.write_text(yaml.safe_dump(content), encoding='utf-8')
    arguments = ['--ros-args', '--params-file', str(path)]
    node = rclpy.create_node(
        'parameters', context=context, namespace=namespace, cli_args=arguments
    )
    try:
        taken = 'proposals' in node._parameter_overrides
        (file,) = ros_parameters.parameter_files(arguments)
        assert (file.warning(node.get_fully_qualified_name()) == '') == taken
    finally:
        node.destroy_node()


def test_a_parameter_file_is_parsed_and_nothing_is_built(tmp_path: Path) -> None:
    path = tmp_path / 'file.yaml'
    arguments = ['x', '--params-file', 'not/ours', '--ros-args', '--params-file', str(path)]
    made = tmp_path / 'made'
    path.write_text(
        f'/**:\n  ros__parameters:\n    a: !!python/object/apply:os.mkdir [{made}]\n',
        encoding='utf-8',
    )
    (file,) = ros_parameters.parameter_files(arguments)
    assert file == ros_parameters.ParameterFile(str(path), ('/**',))
    assert not made.exists()
    for content in (b'/**: [', b'\t', b'a: b: c', b'\xff\xfe\x00', b'/**: &a\n  x: *a\n', b'*b'):
        path.write_bytes(content)
        with pytest.raises(ConfigError) as raised:
            ros_parameters.parameter_files(arguments)
        assert str(raised.value).startswith(f'{path}: expected a YAML file of ROS parameters, ')
        assert '\n' not in str(raised.value)
