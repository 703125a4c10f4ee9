# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Start segnode on one camera: ``ros2 launch segnode seg.launch.py image_topic:=/camera/image``.

Only arguments that are given become parameters; all others stay as ``params_file`` has them.
"""

import os
import shutil
from pathlib import Path

from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext, LaunchDescription

CONFIG = Path(__file__).resolve().parents[1] / 'config'
AS_IN_PARAMS_FILE = ' (not given: as in params_file)'

# Launch argument: (parameter, type, description).
PARAMETERS = {
    'image_transport': ('image_transport', str, 'raw or compressed'),
    'model': (
        'model',
        str,
        'preset name, or path of a Detectron2 config or of the description of an exported model',
    ),
    'weights': ('weights', str, 'path or URL of the weights'),
    'device': ('device', str, 'auto, cpu, cuda or cuda:N'),
    'precision': ('precision', str, 'auto, fp16, bf16 or fp32'),
    'short_side': ('resolution.short_side', int, 'short side of the network input, pixels'),
    'min_mask_area': ('filter.min_mask_area', int, 'smallest mask that is kept, image pixels'),
    'use_sim_time': ('use_sim_time', bool, 'take the time from /clock'),
    'autostart': ('autostart', bool, 'configure and activate without a lifecycle manager'),
}

# Fast DDS 3 has another name for it, and complains where both are set.
PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
FAST_DDS_2 = ('humble', 'iron', 'jazzy')
TRANSPORT_CHOICES = (*PROFILE_VARIABLES, 'FASTDDS_BUILTIN_TRANSPORTS')
SHARED_MEMORY_BYTES = 2 * 64 * 2**20
"""Segments of the node and of a camera that has the profile as well."""


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the rest waits for their values."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                'params_file',
                default_value=str(CONFIG / 'seg.yaml'),
                description='YAML file with the parameters of the node',
            ),
            DeclareLaunchArgument(
                'namespace', default_value='', description='namespace of the node and its topics'
            ),
            DeclareLaunchArgument(
                'image_topic',
                default_value='',
                description="topic of the camera's images" + AS_IN_PARAMS_FILE,
            ),
            *(
                DeclareLaunchArgument(
                    name, default_value='', description=description + AS_IN_PARAMS_FILE
                )
                for name, (_, _, description) in PARAMETERS.items()
            ),
            DeclareLaunchArgument(
                'log_level', default_value='info', description='debug, info, warn, error or fatal'
            ),
            DeclareLaunchArgument(
                'respawn', default_value='false', description='start the node again when it ends'
            ),
            OpaqueFunction(function=_start),
        ]
    )


def _start(context: LaunchContext) -> list:
    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    parameters = {
        parameter: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (parameter, kind, _) in PARAMETERS.items()
        if given(name)
    }
    if given('image_topic'):
        parameters['image_topics'] = [given('image_topic')]
    environment, hints = _dds_profile()
    node = Node(
        package='segnode',
        executable='node',
        name='segnode',
        namespace=given('namespace') or None,
        parameters=[given('params_file'), *([parameters] if parameters else [])],
        arguments=['--ros-args', '--log-level', given('log_level')],
        additional_env=environment,
        output='screen',
        respawn=given('respawn').lower() in ('true', '1'),
        respawn_delay=2.0,
    )
    return [*hints, node]


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
    variable = PROFILE_VARIABLES[os.environ.get('ROS_DISTRO') in FAST_DDS_2]
    return {variable: str(CONFIG / 'fastdds.xml')}, []
