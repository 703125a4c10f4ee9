# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""vision_msgs is whole and wire-compatible with the published package, built here or sourced.

The type hashes in the table were read off the published package 4.1.1, generated from its own
`.msg` files under Kilted: a hash covers the names, types and order of all fields, and of the
messages inside. Here they are held against what is generated from the table's fields.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from ros_harness import Peer, Process, wait_until
from vision_msgs import msg

from segnode.ros_distribution import ros_distribution

pytestmark = [pytest.mark.ros, pytest.mark.smoke]
ROOT = Path(__file__).resolve().parents[2]
TABLE = json.loads((ROOT / 'resource' / 'environment' / 'vision_msgs.json').read_text())
MESSAGES = TABLE['messages']

# A user's own node: it hands back what it gets, of every type that it is told.
ECHO = """
import sys
import rclpy
import vision_msgs.msg
from rclpy.qos import DurabilityPolicy, QoSProfile

kept = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
rclpy.init()
node = rclpy.create_node('echo')
for name in sys.argv[1:]:
    kind = getattr(vision_msgs.msg, name)
    publisher = node.create_publisher(kind, f'/back/{name}', kept)
    node.create_subscription(kind, f'/out/{name}', publisher.publish, 10)
rclpy.spin(node)
"""


def slots(field: str) -> tuple[str, str]:
    """The name of a field and its type, as the generated Python states it."""
    kind, name = field.split()
    array, kind = kind.endswith('[]'), kind.removesuffix('[]')
    kind = 'double' if kind == 'float64' else 'float' if kind == 'float32' else kind
    if kind in MESSAGES:
        kind = f'vision_msgs/{kind}'
    return name, f'sequence<{kind}>' if array else kind


def filled(message_type: type, numbers: Iterator[int]) -> Any:
    """A message in which every value is another one."""

    def value(kind: str) -> Any:
        if kind.startswith('sequence<'):
            return [value(kind[len('sequence<') : -1]) for _ in range(2)]
        if kind.endswith(']'):
            kind, _, count = kind[:-1].partition('[')
            return [value(kind) for _ in range(int(count))]
        if '/' in kind:
            package, name = kind.split('/')
            return filled(getattr(import_module(f'{package}.msg'), name), numbers)
        number = next(numbers)
        if kind == 'string':
            return f'Größe {number}'
        return number + 0.5 if kind in ('float', 'double') else number

    kinds = message_type.get_fields_and_field_types()  # type: ignore[attr-defined]
    return message_type(**{name: value(kind) for name, kind in kinds.items()})


def test_all_messages_are_there() -> None:
    installed = {name for name in dir(msg) if isinstance(getattr(msg, name), type)}
    assert len(MESSAGES) == 16
    assert installed == set(MESSAGES)


@pytest.mark.parametrize('name', MESSAGES)
def test_fields(name: str) -> None:
    expected = dict(map(slots, MESSAGES[name]['fields']))
    assert getattr(msg, name).get_fields_and_field_types() == expected


def test_type_hashes() -> None:
    shares = (prefix / 'share' / 'vision_msgs' for prefix in Path(msg.__file__).parents)
    folder = next(filter(Path.is_dir, shares)) / 'msg'
    found = {}
    for path in folder.glob('*.json'):
        for entry in json.loads(path.read_text())['type_hashes']:
            found[entry['type_name']] = entry['hash_string']
    if ros_distribution() == 'humble':  # older than type hashes
        assert found == {}
        return
    expected = {f'vision_msgs/msg/{name}': m['type_hash'] for name, m in MESSAGES.items()}
    assert {name: found.get(name) for name in expected} == expected


def test_every_message_goes_to_a_node_of_the_users_own_and_back(tmp_path: Path) -> None:
    command = [sys.executable, '-c', ECHO, *MESSAGES]
    numbers = itertools.count(1)
    sent = {name: filled(getattr(msg, name), numbers) for name in MESSAGES}
    with Peer('user') as peer, Process(command, tmp_path / 'echo'):
        for name, message in sent.items():
            peer.subscribe(type(message), f'/back/{name}', latched=True)
            publisher = peer.camera(type(message), f'/out/{name}')
            wait_until(lambda name=name: peer.node.count_publishers(f'/back/{name}') > 0, name)
            publisher.publish(message)
        if ros_distribution() != 'humble':
            infos = {n: peer.node.get_publishers_info_by_topic(f'/back/{n}')[0] for n in sent}
            announced = {name: str(info.topic_type_hash) for name, info in infos.items()}
            assert announced == {name: MESSAGES[name]['type_hash'] for name in sent}
        wait_until(lambda: all(peer.received[f'/back/{name}'] for name in sent), 'all echoes')
        back = {name: peer.received[f'/back/{name}'][0] for name in sent}
    assert back == sent
