# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The SROS 2 policy, held against what real nodes have on the graph; the variables of SROS 2."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from ros_harness import (
    ROOT,
    TIMEOUT_S,
    Peer,
    Process,
    bgr_message,
    ros_environment,
    start_node,
    wait_until,
)
from sensor_msgs.msg import CameraInfo, CompressedImage
from sensor_msgs.msg import Image as ImageMessage

from segnode.errors import ConfigError
from segnode.ros import security

pytestmark = pytest.mark.ros

# Kind and right, as a policy has them, and the names.
Rights = dict[tuple[str, str], set[str]]

# What a node has only while a camera offers it, or with simulated time.
ONE_LESS: Rights = {
    ('service', 'reply'): set(),
    ('topic', 'publish'): {'/ns/one/camera_info'},
    ('topic', 'subscribe'): {'/clock', '/front/eye/camera_info'},
}


@dataclass(frozen=True)
class Case:
    """A node: its arguments, its full name, its enclave, and what its cameras publish."""

    arguments: str
    name: str
    enclave: str
    cameras: Mapping[str, type]


CASES = {
    'one': Case(
        '-r __ns:=/ns -r __node:=one -r image:=/front/eye/image_raw -r camera_info:=elsewhere '
        '--enclave /robot/one',
        '/ns/one',
        '/robot/one',
        {'/front/eye/image_raw': ImageMessage},
    ),
    'two': Case(
        '-r __node:=two -p image_topics:=[left/image_raw,/right/image_raw] '
        '-p image_transport:=compressed -r /right/camera_info:=/calibrated',
        '/two',
        '/',
        {
            '/left/image_raw/compressed': CompressedImage,
            '/right/image_raw/compressed': CompressedImage,
            '/left/camera_info': CameraInfo,
            '/calibrated': CameraInfo,
        },
    ),
}


def policy_command(path: Path, arguments: str) -> list[str]:
    command = [sys.executable, '-m', 'segnode', 'node', '--sros2-policy', str(path)]
    return [*command, '--ros-args', *arguments.split()]


@pytest.fixture(scope='module')
def policies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], ET.Element]]:
    """Policies of the cases; written side by side with the nodes' start."""
    folder = tmp_path_factory.mktemp('policies')
    with contextlib.ExitStack() as stack:
        processes = {
            name: stack.enter_context(
                Process(policy_command(folder / name, case.arguments), folder / f'{name}.log')
            )
            for name, case in CASES.items()
        }

        def read(name: str) -> ET.Element:
            assert processes[name].wait() == 0, processes[name].output()
            return ET.parse(folder / name).getroot()

        yield read


@pytest.fixture(scope='module')
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Process]]:
    """The cases' nodes, one of them in want of keys, the other with simulated time."""
    folder = tmp_path_factory.mktemp('nodes')
    more = {'one': '', 'two': ' -p use_sim_time:=true'}
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(
                start_node(
                    folder / name,
                    f'{case.arguments} -p model:=null{more[name]}',
                    **({'ROS_SECURITY_ENABLE': 'true'} if name == 'one' else {}),
                )
            )
            for name, case in CASES.items()
        }


def allowed(policy: ET.Element, case: Case) -> Rights:
    """The names in a policy, which is read by the rules of sros2's schema."""
    assert (policy.tag, policy.attrib) == ('policy', {'version': '0.2.0'})
    (enclave,) = policy.findall('enclaves/enclave')
    assert enclave.get('path') == case.enclave
    (profile,) = enclave.findall('profiles/profile')
    namespace, _, name = case.name.rpartition('/')
    assert profile.attrib == {'ns': namespace or '/', 'node': name}
    rights: Rights = {}
    for rule in profile:
        ((right, qualifier),) = rule.attrib.items()
        kind = rule.tag.removesuffix('s')
        assert (qualifier, {each.tag for each in rule}) == ('ALLOW', {kind})
        names = [each.text or '' for each in rule]
        assert len(set(names)) == len(names)
        assert all(each.startswith('/') for each in names)
        rights[kind, right] = set(names)
    return rights


def on_graph(peer: Peer, case: Case) -> Rights:
    """What another process sees that a node has."""
    namespace, _, name = case.name.rpartition('/')
    node = peer.node
    if (name, namespace or '/') not in node.get_node_names_and_namespaces():
        return {}  # Not discovered yet.
    asked = {
        ('service', 'reply'): node.get_service_names_and_types_by_node,
        ('service', 'request'): node.get_client_names_and_types_by_node,
        ('topic', 'publish'): node.get_publisher_names_and_types_by_node,
        ('topic', 'subscribe'): node.get_subscriber_names_and_types_by_node,
    }
    found = {
        right: {each for each, _ in ask(name, namespace or '/')} for right, ask in asked.items()
    }
    return {right: names for right, names in found.items() if names}


def test_the_policy_allows_what_a_node_has_and_no_more(
    nodes: dict[str, Process], policies: Callable[[str], ET.Element]
) -> None:
    with Peer('watching_peer') as peer:
        for case in CASES.values():
            for topic, message_type in case.cameras.items():
                peer.advertise(message_type, topic)
        for name, less in {'one': ONE_LESS, 'two': {}}.items():
            case = CASES[name]
            expected = {
                right: names - less.get(right, set())
                for right, names in allowed(policies(name), case).items()
            }
            nodes[name].wait_for('active, subscribed to')
            wait_until(
                lambda case=case, expected=expected: on_graph(peer, case) == expected,
                lambda case=case, expected=expected: f'{expected} in {on_graph(peer, case)}',
                60.0,
            )
        published = 'topic', 'publish'
        calibration = peer.advertise(CameraInfo, '/front/eye/camera_info')
        wait_until(
            lambda: '/ns/one/camera_info' in on_graph(peer, CASES['one']).get(published, ()),
            'the offer of camera_info',
        )
        peer.node.destroy_publisher(calibration)


def test_who_asks_for_protection_and_has_none_is_told(nodes: dict[str, Process]) -> None:
    nodes['one'].wait_for('active, subscribed to')
    said = [line for line in nodes['one'].output().splitlines() if 'WITHOUT protection' in line]
    assert len(said) == 1
    assert '[WARN]' in said[0]
    assert 'ROS_SECURITY_KEYSTORE is not set' in said[0]
    nodes['two'].wait_for('active, subscribed to')
    assert 'protection' not in nodes['two'].output()


@pytest.mark.parametrize(
    ('file', 'arguments', 'text'),
    [
        ('', '', '--sros2-policy: expected a file'),
        ('mine.xml', '', 'expected a new file'),
        ('params.yaml', '--params-file {params}', 'reads or writes already'),
        ('p.xml', '-p image_topics:=[/camera-1/image]', 'image_topics: expected a topic name'),
        ('p.xml', '-p use_sim_time:=maybe', "'use_sim_time'"),
    ],
)
def test_a_policy_that_cannot_be_had_is_one_line(
    file: str, arguments: str, text: str, tmp_path: Path
) -> None:
    mine, params = tmp_path / 'mine.xml', tmp_path / 'params.yaml'
    mine.write_text('<?xml version="1.0" encoding="UTF-8"?>\n<policy version="0.2.0"/>\n')
    params.write_text('/**:\n  ros__parameters:\n    autostart: false\n')
    before = mine.read_text(), params.read_text()
    command = policy_command(tmp_path / file, arguments.format(params=params))
    if not file:
        command = [*command[:5], '--ros-args']
    done = subprocess.run(
        command,
        env=ros_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    # The middleware tells of processes that were killed, whose memory it finds.
    own = [line for line in done.stderr.splitlines() if 'RTPS_' not in line]
    assert (done.returncode, len(own)) == (2, 1), done.stderr
    assert text in done.stderr
    assert (mine.read_text(), params.read_text()) == before
    assert not (tmp_path / 'p.xml').exists()


def tree(folder: Path) -> dict[str, bytes]:
    """The files in a folder."""
    files = (path for path in folder.rglob('*') if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_it_writes_its_log_and_nothing_else(tmp_path: Path) -> None:
    """From its start over a frame with all outputs to its end, wherever it might."""
    folders = {name: tmp_path / name for name in ('given', 'here', 'home', 'temporary', 'logs')}
    for folder in folders.values():
        folder.mkdir()
    given = folders['given']
    demo = ROOT / 'segnode' / 'demo' / 'mask_rcnn_demo.yaml'
    for path in (demo, demo.with_suffix('.safetensors')):
        shutil.copy(path, given)
    # A font has to be looked for.
    (given / 'names.txt').write_text('円錐\nball\nbox\nbarrel\npallet\n', encoding='utf-8')
    before = tree(tmp_path)
    arguments = (
        f'-r __node:=writer -r image:=/writer_camera -p model:={given}/{demo.name} '
        f'-p class_names:=[{given}/names.txt] -p resolution.short_side:=96 -p device:=cpu'
    )
    node = f'cd {folders["here"]} && exec {sys.executable} -m segnode node --ros-args {arguments}'
    places = {'HOME': 'home', 'TMPDIR': 'temporary', 'ROS_LOG_DIR': 'logs'}
    environment = {name: str(folders[place]) for name, place in places.items()}
    outputs = {
        'class_mask': ImageMessage,
        'overlay': ImageMessage,
        'overlay/compressed': CompressedImage,
        'instance_mask/compressed': CompressedImage,
    }
    log = tmp_path / 'output'
    with Peer('reading_peer') as peer, Process(['sh', '-c', node], log, **environment) as process:
        process.wait_for('active, subscribed to')
        peer.watch('/writer', **outputs)
        camera = peer.camera(topic='/writer_camera')
        pixels = np.full((48, 64, 3), 90, np.uint8)
        peer.exchange(camera, bgr_message(peer.header(), pixels), '/writer')
        process.send(signal.SIGINT)
        assert process.wait() == 0
    after = tree(tmp_path)
    after.pop(log.name)
    written = [path for path in after if before.get(path) != after[path]]
    assert written
    assert [path for path in written if not path.startswith('logs/')] == []
    assert set(before) <= set(after)


@pytest.mark.parametrize(
    ('variables', 'text'),
    [
        ({'ENABLE': 'True'}, "ROS_SECURITY_ENABLE: expected true or false, found 'True'"),
        ({'ENABLE': 'true', 'STRATEGY': 'enforce'}, 'expected Enforce or Permissive'),
        ({'ENABLE': 'true', 'STRATEGY': 'Enforce'}, 'ROS_SECURITY_KEYSTORE: expected a folder'),
        ({'ENABLE': 'true', 'STRATEGY': 'Enforce', 'KEYSTORE': '/keys'}, ''),
        ({'ENABLE': 'false', 'STRATEGY': 'enforce'}, ''),
        ({}, ''),
    ],
)
def test_variables_mean_what_they_seem_to(
    variables: dict[str, str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(monkeypatch, variables)
    with pytest.raises(ConfigError, match=text) if text else contextlib.nullcontext():
        security.check_variables()


def set_variables(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name in ('ENABLE', 'STRATEGY', 'KEYSTORE', 'ENCLAVE_OVERRIDE'):
        monkeypatch.delenv(f'ROS_SECURITY_{name}', raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(f'ROS_SECURITY_{name}', value)


def test_an_enclave_has_to_be_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, {'ENABLE': 'true', 'KEYSTORE': str(tmp_path)})
    enclave = tmp_path / 'enclaves' / 'robot' / 'seg'
    assert f'{enclave} does not exist' in security.warning('/robot/seg')
    enclave.mkdir(parents=True)
    names = ['identity_ca.cert.pem', 'cert.pem', 'key.p11', 'permissions_ca.cert.pem']
    for name in (*names, 'governance.p7s'):
        (enclave / name).touch()
    assert f'{enclave} has no permissions.p7s;' in security.warning('/robot/seg')
    (enclave / 'permissions.p7s').touch()
    assert security.warning('/robot/seg') == ''
    monkeypatch.setenv('ROS_SECURITY_ENCLAVE_OVERRIDE', '/other')
    assert 'enclaves/other does not exist' in security.warning('/robot/seg')
    monkeypatch.setenv('ROS_SECURITY_ENABLE', 'false')
    assert security.warning('/robot/seg') == ''
