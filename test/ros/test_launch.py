# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The launch file, and the transport profile that it sets.

What it makes of its arguments is looked at with stand-ins for launch's classes, where no ROS is
installed, too; the rest needs a real ``ros2 launch``.
"""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
import types
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy', reason='needs ROS 2')

from ros_harness import (
    ROOT,
    SEG_YAML,
    Peer,
    Process,
    bgr_message,
    ros_environment,
    values,
    wait_until,
)

from segnode.ros.parameters import all_parameters

pytestmark = pytest.mark.ros

ARGUMENTS = {
    'params_file',
    'namespace',
    'image_topic',
    'image_transport',
    'model',
    'weights',
    'device',
    'precision',
    'short_side',
    'score_threshold',
    'min_mask_area',
    'classes',
    'use_sim_time',
    'log_level',
    'autostart',
    'respawn',
}
ENVIRONMENT = {
    'PATH': os.environ.get('PATH', os.defpath),
    'AMENT_PREFIX_PATH': os.pathsep.join(
        filter(None, [sys.prefix, os.environ.get('AMENT_PREFIX_PATH')])
    ),
}


def _launch(log: Path, *arguments: str, **environment: str) -> Process:
    command = ['ros2', 'launch', 'segnode', 'seg.launch.py', *arguments]
    return Process(command, log, **ENVIRONMENT, **environment)


def test_profile_has_room_for_images_on_both_transports() -> None:
    root = ElementTree.parse(ROOT / 'config' / 'fastdds.xml').getroot()
    space = {'x': root.tag.partition('}')[0].lstrip('{')}
    sizes = {}
    for transport in root.iterfind('.//x:transport_descriptor', space):
        fields = {child.tag.partition('}')[2]: child.text for child in transport}
        sizes[fields['type']] = fields
    assert int(sizes['SHM']['segment_size'] or 0) == 64 * 2**20
    assert int(sizes['UDPv4']['receiveBufferSize'] or 0) == 4 * 2**20
    used = {element.text for element in root.iterfind('.//x:userTransports/x:transport_id', space)}
    assert used == {fields['transport_id'] for fields in sizes.values()}


class _Context(types.SimpleNamespace):
    """What a launch context is to the launch file."""

    is_shutdown = False


class _Made(types.SimpleNamespace):
    """One of launch's objects, as it was made."""

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(positional=args, **fields)

    @property
    def name(self) -> str:
        return str(self.positional[0])

    def perform(self, context: _Context) -> str:
        return str(context.launch_configurations[self.name])


_STAND_INS = {
    'launch': ('LaunchContext', 'LaunchDescription'),
    'launch.actions': ('DeclareLaunchArgument', 'EmitEvent', 'LogInfo', 'OpaqueFunction'),
    'launch.events': ('matches_action',),
    'launch.events.process': ('ProcessExited', 'ShutdownProcess'),
    'launch.substitutions': ('LaunchConfiguration',),
    'launch_ros': (),
    'launch_ros.actions': ('Node',),
    'launch_ros.parameter_descriptions': ('ParameterValue',),
}


@pytest.fixture
def launch_file(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the launch file, which was run with stand-ins for launch's classes."""
    for module, classes in _STAND_INS.items():
        made = types.ModuleType(module)
        for name in classes:
            # Node has a field of that name.
            members = {'name': None} if name == 'Node' else {}
            setattr(made, name, type(name, (_Made,), members))
        monkeypatch.setitem(sys.modules, module, made)
    monkeypatch.setenv('FASTDDS_BUILTIN_TRANSPORTS', 'DEFAULT')
    return runpy.run_path(str(ROOT / 'launch' / 'seg.launch.py'))


Launched = Callable[..., dict[str, Any] | str]


@pytest.fixture
def launched(launch_file: dict[str, Any]) -> Launched:
    """Return what performs it: gives what the node is made with, or the text that ends it."""

    def perform(**given: str) -> dict[str, Any] | str:
        *declared, start = launch_file['generate_launch_description']().positional[0]
        configurations = {argument.name: argument.default_value for argument in declared}
        context = _Context(launch_configurations=configurations | given)
        try:
            (node,) = start.function(context, *vars(start).get('args', ()))
        except (RuntimeError, ValueError) as error:
            return str(error)
        return dict(vars(node))

    return perform


def _parameters(node: dict[str, Any] | str) -> dict[str, Any]:
    """What of the arguments reaches the node, by parameter: value and type, or a list."""
    assert isinstance(node, dict), node
    (given,) = [each for each in node['parameters'] if isinstance(each, dict)] or [{}]
    return {
        name: (value.positional[0], value.value_type) if isinstance(value, _Made) else value
        for name, value in given.items()
    }


def test_arguments_are_declared(launch_file: dict[str, Any]) -> None:
    *declared, _ = launch_file['generate_launch_description']().positional[0]
    assert {argument.name for argument in declared} == ARGUMENTS
    assert all(len(argument.description) > 10 for argument in declared)


def test_only_the_given_arguments_become_parameters(launched: Launched, tmp_path: Path) -> None:
    """After the user's file; the node itself takes the shipped one before both."""
    file = tmp_path / 'own.yaml'
    file.touch()
    bare, given = launched(), launched(params_file=str(file), short_side='480')
    assert isinstance(bare, dict)
    assert isinstance(given, dict)
    assert bare['parameters'] == []
    # With a namespace the name is full, else a file with a full name would win.
    assert bare['namespace'] == ''
    assert given['parameters'][0] == str(file)
    assert len(given['parameters']) == 2
    assert _parameters(given) == {'resolution.short_side': (480, int)}


@pytest.mark.parametrize(
    ('name', 'text', 'parameter', 'value'),
    [
        ('score_threshold', '0.3', 'filter.score_threshold', (0.3, float)),
        ('score_threshold', '1', 'filter.score_threshold', (1.0, float)),
        ('classes', 'cone', 'filter.classes', ['cone']),
        ('classes', 'traffic light, 7,on', 'filter.classes', ['traffic light', '7', 'on']),
        ('classes', "['cone', ball]", 'filter.classes', ['cone', 'ball']),
        ('image_topic', '/eye', 'image_topics', ['/eye']),
        ('model', '7', 'model', ('7', str)),
        ('precision', 'bf16', 'precision', ('bf16', str)),
        *(
            ('autostart', text, 'autostart', (value, bool))
            for value, texts in {
                True: ('true', 'True', '1', 'yes', 'YES', 'on'),
                False: ('false', 'FALSE', '0', 'no', 'off'),
            }.items()
            for text in texts
        ),
    ],
)
def test_arguments_have_types(
    launched: Launched, name: str, text: str, parameter: str, value: Any
) -> None:
    assert _parameters(launched(**{name: text})) == {parameter: value}


@pytest.mark.parametrize(
    ('name', 'text', 'expected'),
    [
        ('short_side', 'abc', 'a whole number'),
        ('min_mask_area', '1.5', 'a whole number'),
        ('score_threshold', 'high', 'a number'),
        ('classes', 'cone,,ball', 'names with commas between'),
        ('use_sim_time', 'maybe', 'true or false'),
        ('respawn', 'always', 'true or false'),
        ('image_transport', 'h264', 'one of raw, compressed'),
        ('precision', 'int4', 'one of auto, fp16, bf16, fp32, int8'),
        ('log_level', 'loud', 'one of debug, info, warn, error, fatal'),
    ],
)
def test_wrong_arguments_are_named(
    launched: Launched, name: str, text: str, expected: str
) -> None:
    assert launched(**{name: text}) == f'{name}: expected {expected}, found {text!r}'


def test_choices_are_those_of_the_parameters(launch_file: dict[str, Any]) -> None:
    known = all_parameters()
    found = {
        parameter: kind if isinstance(kind, tuple) else ()
        for parameter, kind, _ in launch_file['PARAMETERS'].values()
        if parameter in known
    }
    assert found == {parameter: known[parameter].choices for parameter in found}


@pytest.mark.parametrize(
    ('name', 'meant'),
    [
        ('image_topics', 'image_topic'),
        ('scorethreshold', 'score_threshold'),
        ('param_file', 'params_file'),
        ('shortside', 'short_side'),
        ('weight', 'weights'),
    ],
)
def test_near_misses_are_errors(launched: Launched, name: str, meant: str) -> None:
    found = launched(**{name: 'x'})
    start = f'{name}: expected an argument of seg.launch.py, did you mean {meant}?'
    assert str(found).startswith(start)


@pytest.mark.parametrize(
    'name', ['map', 'mode', 'image_topic_left', 'image_topic2', 'ros_namespace', 'robot_model']
)
def test_arguments_of_a_parent_pass(launched: Launched, name: str) -> None:
    assert isinstance(launched(**{name: 'x'}), dict)


def test_params_file_has_to_be_there(
    launched: Launched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    missing = launched(params_file='~/own.yaml')
    assert missing == f"params_file: expected a YAML file, found none at '{tmp_path}/own.yaml'"
    (tmp_path / 'own.yaml').touch()
    found = launched(params_file='~/own.yaml')
    assert isinstance(found, dict)
    assert found['parameters'] == [str(tmp_path / 'own.yaml')]
    assert isinstance(launched(params_file=str(tmp_path)), str)


def test_an_empty_params_file_is_not_given(launched: Launched) -> None:
    """As an include has it that wants the defaults, and as any argument that is not given."""
    found = launched(params_file='')
    assert isinstance(found, dict)
    assert found['parameters'] == []


def test_only_what_starting_again_may_mend_is_respawned(launched: Launched) -> None:
    plain, node = launched(), launched(respawn='Yes')
    assert isinstance(plain, dict)
    assert isinstance(node, dict)
    assert plain['respawn'] is False
    assert node['respawn'] is True
    on_exit = node.get('on_exit')
    assert on_exit is not None

    def kept_down(code: int) -> bool:
        event = types.SimpleNamespace(returncode=code, action=None)
        actions = on_exit(event, _Context(launch_configurations={}))
        return 'EmitEvent' in [type(action).__name__ for action in actions]

    assert [code for code in (0, 1, 2, -9, -11) if kept_down(code)] == [0, 2]


@pytest.mark.launch
def test_show_args_describes_every_argument() -> None:
    shown = subprocess.run(
        ['ros2', 'launch', 'segnode', 'seg.launch.py', '--show-args'],
        env=ros_environment() | ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = dict(re.findall(r"^    '(\w+)':\n        (.+)$", shown, re.MULTILINE))
    assert set(found) == ARGUMENTS
    assert all(len(description) > 10 for description in found.values())


@pytest.mark.launch
def test_launch_publishes_and_keeps_what_it_is_not_told(tmp_path: Path) -> None:
    """Only the arguments given beat the parameter file, and Ctrl-C ends it cleanly.

    The file has the full name, which beats the wildcard of the shipped one.
    """
    parameters = {
        'filter.score_threshold': 0.25,
        'filter.min_mask_area': 7,
        'image_topics': ['from/file'],
        'class_id_format': 'index',
    }
    file = tmp_path / 'own.yaml'
    content = {'/front/segnode': {'ros__parameters': parameters | {'resolution.short_side': 320}}}
    file.write_text(yaml.safe_dump(content), encoding='utf-8')
    arguments = (f'params_file:={file}', 'namespace:=front', 'short_side:=240')
    with Peer('launch_peer') as peer, _launch(tmp_path / 'log', *arguments) as launch:
        launch.wait_for('active, subscribed to /front/from/file')
        peer.watch('/front/segnode')
        camera = peer.camera(topic='/front/from/file')
        message = bgr_message(peer.header(), np.zeros((120, 160, 3), np.uint8))
        answer = peer.exchange(camera, message, '/front/segnode')
        assert values(answer['stage_times'].status[0])['network_height'] == '240'
        for name, value in (parameters | {'resolution.short_side': 240}).items():
            assert peer.get(name, '/front/segnode') == value
        launch.send(signal.SIGINT)
        assert launch.wait() == 0
        assert 'process has finished cleanly' in launch.output()


@pytest.mark.launch
def test_every_argument_reaches_its_parameter(tmp_path: Path) -> None:
    given = {
        'image_topic': ('image_topics', ['/eye/image']),
        'image_transport': ('image_transport', 'compressed'),
        'device': ('device', 'cpu'),
        'precision': ('precision', 'fp32'),
        'score_threshold': ('filter.score_threshold', 0.75),
        'min_mask_area': ('filter.min_mask_area', 99),
        'classes': ('filter.classes', ['cone', '7']),
        'use_sim_time': ('use_sim_time', True),
        'autostart': ('autostart', False),
        'model': ('model', 'not/loaded.yaml'),
        'weights': ('weights', 'not/loaded.pth'),
    }
    arguments = [
        f'{name}:={",".join(value) if isinstance(value, list) else str(value).lower()}'
        for name, (_, value) in given.items()
    ]
    with (
        Peer('launch_peer') as peer,
        _launch(tmp_path / 'log', *arguments, 'log_level:=debug', 'respawn:=true') as launch,
    ):
        wait_until(lambda: 'segnode' in peer.node.get_node_names(), launch.output)
        for parameter, value in given.values():
            assert peer.get(parameter) == value
        assert 'DEBUG' in launch.output()
        launch.send(signal.SIGINT)
        assert launch.wait() == 0


@pytest.mark.launch
@pytest.mark.parametrize(
    'variable',
    ['FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE', None],
)
def test_profile_is_set_unless_the_user_has_one(tmp_path: Path, variable: str | None) -> None:
    own = tmp_path / 'own.xml'
    own.write_bytes((ROOT / 'config' / 'fastdds.xml').read_bytes())
    environment = {variable: str(own)} if variable else {}
    with _launch(tmp_path / 'log', 'autostart:=false', **environment) as launch:
        launch.wait_for('process started with pid')
        (pid,) = re.findall(r'process started with pid \[(\d+)\]', launch.output())
        content = Path('/proc', pid, 'environ').read_bytes().decode()
        found = dict(entry.partition('=')[::2] for entry in content.split('\0') if entry)
        launch.send(signal.SIGINT)
        launch.wait()
    profiles = {k: v for k, v in found.items() if k.endswith('_DEFAULT_PROFILES_FILE')}
    if variable:
        assert profiles == {variable: str(own)}
    else:
        (profile,) = profiles.values()
        assert profile.endswith('share/segnode/config/fastdds.xml')


PARENT = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

def generate_launch_description():
    source = PythonLaunchDescriptionSource(FILE)
    include = IncludeLaunchDescription(source, launch_arguments=ARGUMENTS.items())
    group = GroupAction([include], SCOPE)
    return LaunchDescription([DeclareLaunchArgument('params_file', default_value=LEAK), group])
"""


@pytest.mark.launch
@pytest.mark.parametrize('included', ['leaking', 'scoped', 'empty'])
def test_params_file_of_a_parent(tmp_path: Path, included: str) -> None:
    leak, parent = tmp_path / 'leak.yaml', tmp_path / 'parent.launch.py'
    content = {'planner': {'ros__parameters': {'filter.score_threshold': 0.25}}}
    leak.write_text(yaml.safe_dump(content), encoding='utf-8')
    arguments = {'autostart': 'false'} | ({'params_file': ''} if included == 'empty' else {})
    words = {
        'FILE': repr(str(ROOT / 'launch' / 'seg.launch.py')),
        'ARGUMENTS': repr(arguments),
        'SCOPE': 'scoped=True, forwarding=False' if included == 'scoped' else 'scoped=True',
        'LEAK': repr(str(leak)),
    }
    parent.write_text(re.sub('|'.join(words), lambda found: words[found[0]], PARENT))
    command = ['ros2', 'launch', str(parent)]
    with Peer('launch_peer') as peer, Process(command, tmp_path / 'log', **ENVIRONMENT) as launch:
        wait_until(lambda: 'segnode' in peer.node.get_node_names(), launch.output)
        shipped = yaml.safe_load(SEG_YAML.read_text(encoding='utf-8'))['/**']['ros__parameters']
        assert peer.get('filter.score_threshold') == shipped['filter.score_threshold']
        launch.send(signal.SIGINT)
        assert launch.wait() == 0
        named = f'{leak}: expected parameters of /segnode, found only planner' in launch.output()
        assert named == (included == 'leaking')


@pytest.mark.launch
def test_a_wrong_model_is_not_tried_again(tmp_path: Path) -> None:
    with _launch(tmp_path / 'log', 'model:=/no/such.yaml', 'respawn:=yes') as launch:
        launch.wait()
        assert launch.output().count('process started with pid') == 1
        assert 'exit code 2' in launch.output()
        assert 'not started again' in launch.output()


@pytest.mark.launch
def test_a_killed_node_is_started_again(tmp_path: Path) -> None:
    with _launch(tmp_path / 'log', 'autostart:=false', 'respawn:=on') as launch:
        launch.wait_for('process started with pid')
        (pid,) = re.findall(r'process started with pid \[(\d+)\]', launch.output())
        os.kill(int(pid), signal.SIGKILL)
        wait_until(lambda: launch.output().count('process started with pid') == 2, launch.output)
        launch.send(signal.SIGINT)
        assert launch.wait() == 0
