# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Start segnode on one camera: ``ros2 launch segnode seg.launch.py image_topic:=/camera/image``.

The node takes the shipped ``config/seg.yaml`` by itself, ``params_file`` goes over it, and the
arguments that are given over both.
"""

import difflib
import os
import re
import shutil
from pathlib import Path

from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo, OpaqueFunction
from launch.events import matches_action
from launch.events.process import ProcessExited, ShutdownProcess
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext, LaunchDescription
from segnode.ros_distribution import profile_variable

CONFIG = Path(__file__).resolve().parents[1] / 'config'
NOT_GIVEN = ' (not given: as in params_file)'

# Launch argument: (parameter, type or choices, description).
PARAMETERS = {
    'image_transport': ('image_transport', ('raw', 'compressed'), 'raw or compressed'),
    'model': (
        'model',
        str,
        'preset name, or path of a config, a checkpoint of MMDetection or a model description',
    ),
    'weights': ('weights', str, 'path or URL of the weights'),
    'device': ('device', str, 'auto, cpu, cuda or cuda:N'),
    'precision': (
        'precision',
        ('auto', 'fp16', 'bf16', 'fp32', 'int8'),
        'auto, fp16, bf16 or fp32; int8 for a folder exported so',
    ),
    'short_side': ('resolution.short_side', int, 'short side of the network input, pixels'),
    'score_threshold': ('filter.score_threshold', float, 'a score has to exceed it, 0 to 1'),
    'min_mask_area': ('filter.min_mask_area', int, 'smallest mask that is kept, image pixels'),
    'classes': ('filter.classes', list, 'names of the classes to keep: cone,ball'),
    'use_sim_time': ('use_sim_time', bool, 'take the time from /clock'),
    'autostart': ('autostart', bool, 'configure and activate without a lifecycle manager'),
}
LOG_LEVELS = ('debug', 'info', 'warn', 'error', 'fatal')

BOOLEANS = dict.fromkeys(('true', '1', 'yes', 'on'), True) | dict.fromkeys(
    ('false', '0', 'no', 'off'), False
)
# Typing errors of ten letters are nearer than that; two words of their own rarely are.
NEAR = 0.9

# Exit codes of the node after which it is not started again: it was ended on purpose, or its
# arguments, parameters, model or installation are wrong.
ENDED = 0
WRONG_USE = 2

# With any of these the user has chosen.
TRANSPORT_CHOICES = (
    'FASTDDS_DEFAULT_PROFILES_FILE',
    'FASTRTPS_DEFAULT_PROFILES_FILE',
    'FASTDDS_BUILTIN_TRANSPORTS',
)
SHARED_MEMORY_BYTES = 2 * 64 * 2**20
"""Segments of the node and of a camera that has the profile as well."""


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the rest waits for their values."""
    declared = [
        DeclareLaunchArgument(
            'params_file',
            default_value='',
            description="YAML file with the node's parameters, which goes over the shipped "
            + str(CONFIG / 'seg.yaml'),
        ),
        DeclareLaunchArgument(
            'namespace', default_value='', description='namespace of the node and its topics'
        ),
        DeclareLaunchArgument(
            'image_topic',
            default_value='',
            description="topic of the camera's images" + NOT_GIVEN,
        ),
        *(
            DeclareLaunchArgument(name, default_value='', description=description + NOT_GIVEN)
            for name, (_, _, description) in PARAMETERS.items()
        ),
        DeclareLaunchArgument(
            'log_level', default_value='info', description=', '.join(LOG_LEVELS)
        ),
        DeclareLaunchArgument(
            'respawn',
            default_value='false',
            description='start the node again after a fault that a restart may mend',
        ),
    ]
    names = [argument.name for argument in declared]
    return LaunchDescription([*declared, OpaqueFunction(function=_start, args=[names])])


def _start(context: LaunchContext, names: list) -> list:
    _refuse_near_misses(context.launch_configurations, names)

    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    parameters = {}
    for name, (parameter, kind, _) in PARAMETERS.items():
        if given(name):
            value = _value(name, kind, given(name))
            # Without its type, launch would make a number of a text such as 7.
            parameters[parameter] = (
                value if kind is list else ParameterValue(value, value_type=type(value))
            )
    if given('image_topic'):
        parameters['image_topics'] = [given('image_topic')]
    log_level = given('log_level')
    _value('log_level', LOG_LEVELS, log_level.rpartition(':=')[2].lower())
    respawn = _value('respawn', bool, given('respawn'))
    environment, hints = _dds_profile()
    node = Node(
        package='segnode',
        executable='node',
        name='segnode',
        # Never None: only a full name gives the arguments the same key as an exact one in the
        # file, and else the file would win.
        namespace=given('namespace'),
        parameters=[*_params_file(given('params_file')), *([parameters] if parameters else [])],
        arguments=['--ros-args', '--log-level', log_level],
        additional_env=environment,
        output='screen',
        respawn=respawn,
        respawn_delay=2.0,
        on_exit=_stay_down if respawn else None,
    )
    return [*hints, node]


def _refuse_near_misses(given: dict, names: list) -> None:
    """Refuse a name that is most likely a typing error; others may be a parent's own.

    So may a declared name with a number or a word after it.
    """
    for name in sorted(set(given) - set(names)):
        near = difflib.get_close_matches(name, names, n=1, cutoff=NEAR)
        if near and not re.fullmatch(f'{near[0]}(_\\w+|\\d+)', name):
            raise RuntimeError(
                f'{name}: expected an argument of seg.launch.py, did you mean {near[0]}? (where '
                "it is another launch file's, include this one without forwarding)"
            )


def _value(name: str, kind: object, text: str) -> object:
    """Return the value of a launch argument.

    Raises:
        RuntimeError: it does not fit; launch shows the text and ends.
    """
    if isinstance(kind, tuple):
        expected = f'one of {", ".join(kind)}'
        if text in kind:
            return text
    elif kind is bool:
        expected = 'true or false'
        if text.lower() in BOOLEANS:
            return BOOLEANS[text.lower()]
    elif kind is list:
        expected = 'names with commas between'
        items = [item.strip(' \'"') for item in text.strip('[] ').split(',')]
        if all(items):
            return items
    else:
        expected = 'a whole number' if kind is int else 'a number'
        try:
            return kind(text)
        except ValueError:
            pass
    raise RuntimeError(f'{name}: expected {expected}, found {text!r}')


def _params_file(text: str) -> list:
    if not text:
        return []
    path = Path(text).expanduser()
    if not path.is_file():
        raise RuntimeError(f"params_file: expected a YAML file, found none at '{path}'")
    return [str(path)]


def _stay_down(event: ProcessExited, context: LaunchContext) -> list:
    """Keep launch from starting the node again where that would not change anything."""
    if event.returncode not in (ENDED, WRONG_USE) or context.is_shutdown:
        return []
    stop = EmitEvent(event=ShutdownProcess(process_matcher=matches_action(event.action)))
    if event.returncode == ENDED:
        return [stop]
    return [LogInfo(msg='segnode: not started again, as that would not mend it'), stop]


def _dds_profile() -> tuple[dict, list]:
    """Return what gives Fast DDS room for images, unless the user has chosen its transports."""
    if any(os.environ.get(name) for name in TRANSPORT_CHOICES):
        return {}, []
    shared_memory = Path('/dev/shm')
    if shared_memory.is_dir() and shutil.disk_usage(shared_memory).free < SHARED_MEMORY_BYTES:
        hint = (
            f'segnode: less than {SHARED_MEMORY_BYTES // 2**20} MiB free in /dev/shm, so Fast DDS '
            'stays as it is; for large images give a container more (docker run --shm-size=512m)'
        )
        return {}, [LogInfo(msg=hint)]
    return {profile_variable(): str(CONFIG / 'fastdds.xml')}, []
