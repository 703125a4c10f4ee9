# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The launch file with a real ``ros2 launch``, and the transport profile that it sets."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy', reason='needs ROS 2')

from ros_harness import ROOT, Peer, Process, bgr_message, ros_environment, values, wait_until

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
    'min_mask_area',
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
    """Only the arguments given beat the parameter file, and Ctrl-C ends it cleanly."""
    parameters = {
        'filter.score_threshold': 0.25,
        'filter.min_mask_area': 7,
        'image_topics': ['from/file'],
        'class_id_format': 'index',
    }
    file = tmp_path / 'own.yaml'
    file.write_text(yaml.safe_dump({'/**': {'ros__parameters': parameters}}), encoding='utf-8')
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
        'min_mask_area': ('filter.min_mask_area', 99),
        'use_sim_time': ('use_sim_time', True),
        'autostart': ('autostart', False),
        'model': ('model', 'not/loaded.yaml'),
        'weights': ('weights', 'not/loaded.pth'),
    }
    arguments = [
        f'{name}:={value[0] if isinstance(value, list) else str(value).lower()}'
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
