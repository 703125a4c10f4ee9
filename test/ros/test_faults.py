# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a robot does to a node: processes that die or hang, odd stamps, files that go, storms."""

from __future__ import annotations

import math
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rclpy.publisher import Publisher
from ros_harness import (
    ROOT,
    Peer,
    Process,
    bgr_message,
    start_node,
    values,
    wait_until,
)
from seeds import fresh_seeds
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from segnode.ros_distribution import profile_variable

pytestmark = pytest.mark.ros

PIXELS = np.zeros((120, 160, 3), np.uint8)

TRANSITIONS = {
    name: getattr(Transition, f'TRANSITION_{name.upper()}')
    for name in ('configure', 'activate', 'deactivate', 'cleanup')
}

OTHER = """
import sys, time
import rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node('other')
if sys.argv[1] == 'subscribe':
    # Reliable, with a long queue: whatever it does not take, the publisher has to keep.
    node.create_subscription(Image, sys.argv[2], lambda _: None, QoSProfile(depth=100))
    print('ready', flush=True)
    rclpy.spin(node)
publisher = node.create_publisher(Image, sys.argv[2], QoSProfile(depth=10))
message = Image(height=120, width=160, encoding='bgr8', step=480, data=bytes(120 * 480))
message.header.frame_id = sys.argv[1]
while True:
    message.header.stamp = node.get_clock().now().to_msg()
    publisher.publish(message)
    print('ready', flush=True)
    time.sleep(0.02)
"""


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp('weights') / 'model.safetensors'
    shutil.copy(ROOT / 'segnode' / 'demo' / 'mask_rcnn_demo.safetensors', copy)
    return copy


@pytest.fixture(scope='module')
def node(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Process]:
    log = tmp_path_factory.mktemp('sturdy') / 'log'
    arguments = (
        f'-r __node:=sturdy -r image:=/sturdy_image -p weights:={weights} '
        '-p resolution.short_side:=96'
    )
    # As the launch file has it: a process that is stopped keeps the buffers that it has not read,
    # and in the room that Fast DDS has by itself little is left for the others.
    environment = {profile_variable(): str(ROOT / 'config' / 'fastdds.xml')}
    with start_node(log, arguments, **environment) as process:
        process.wait_for('active')
        yield process


@pytest.fixture(scope='module')
def peer(node: Process) -> Iterator[Peer]:
    with Peer('of_faults') as peer:
        peer.watch('/sturdy')
        yield peer


@pytest.fixture(scope='module')
def camera(peer: Peer) -> Publisher:
    return peer.camera(topic='/sturdy_image')


def other(tmp_path: Path, *arguments: str) -> Process:
    process = Process([sys.executable, '-c', OTHER, *arguments], tmp_path / arguments[0])
    process.wait_for('ready')
    return process


def assert_alive(peer: Peer, camera: Publisher, node: Process) -> None:
    """A frame is answered, and every one so far is accounted for."""
    peer.exchange(camera, bgr_message(peer.header(), PIXELS), '/sturdy')
    counts = peer.counts('sturdy')
    dropped = sum(n for key, n in counts.items() if key.startswith('dropped_'))
    assert counts['received'] == counts['published'] + dropped
    assert 'Traceback' not in node.output()


def test_a_publisher_that_dies_in_mid_stream(
    node: Process, peer: Peer, camera: Publisher, tmp_path: Path
) -> None:
    with other(tmp_path, 'dying', '/sturdy_image') as publisher:
        wait_until(
            lambda: any(m.header.frame_id == 'dying' for m in peer.received['/sturdy/detections']),
            'its frames',
        )
        publisher.send(signal.SIGKILL)
        publisher.wait()
    assert_alive(peer, camera, node)


@pytest.mark.timed
def test_a_subscriber_that_stops_reading(
    node: Process, peer: Peer, camera: Publisher, tmp_path: Path
) -> None:
    """Its queue fills, and neither the rate nor the other subscribers feel it."""
    with other(tmp_path, 'subscribe', '/sturdy/instance_mask') as subscriber:
        wait_until(lambda: peer.node.count_subscribers('/sturdy/instance_mask') == 2, 'it')

        def seconds() -> float:
            began_s = time.monotonic()
            for _ in range(20):
                peer.exchange(camera, bgr_message(peer.header(), PIXELS), '/sturdy')
            return time.monotonic() - began_s

        read_s = seconds()
        subscriber.send(signal.SIGSTOP)
        seconds()
        # Its history is five deep; a publisher that waited for it would wait every time. The
        # best of some, as the machine may have other work.
        stopped_s = []
        while len(stopped_s) < 8 and min(stopped_s, default=math.inf) >= 3 * read_s + 1:
            stopped_s.append(seconds())
        assert min(stopped_s) < 3 * read_s + 1, (read_s, stopped_s)
        subscriber.send(signal.SIGCONT)
    assert_alive(peer, camera, node)


@pytest.mark.parametrize(
    'stamps_s',
    [[0, 0, 0], [5, 5, 5], [100, 50, 100, 49], [2**31 - 1, 0, 2**31 - 1], [-5, -(2**31)]],
    ids=['zero', 'the same', 'backwards', 'the end of time', 'negative'],
)
def test_odd_stamps_go_out_as_they_came(
    node: Process, peer: Peer, camera: Publisher, stamps_s: list[int]
) -> None:
    found = peer.received['/sturdy/stage_times']
    for number, stamp_s in enumerate(stamps_s):
        before = len(found)
        header = Header(stamp=Time(sec=stamp_s), frame_id=f'odd {number}')
        camera.publish(bgr_message(header, PIXELS))
        wait_until(lambda n=before: len(found) > n, 'an answer')
        assert found[-1].header == header
    assert_alive(peer, camera, node)


def test_a_bomb_costs_its_frame_alone(peer: Peer, tmp_path: Path) -> None:
    """A small file that claims 60,000 x 60,000 pixels, as PNG and as JPEG."""
    size = (60_000).to_bytes(4, 'big')
    png = b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR' + 2 * size + b'\x08\x02\0\0\0' + bytes(4) + bytes(200)
    short = (60_000).to_bytes(2, 'big')
    jpeg = b'\xff\xd8\xff\xc0\0\x11\x08' + 2 * short + b'\x03\x01"\0\x02\x11\x01\x03\x11\x01'
    arguments = (
        '-r __node:=bombed -r image:=/bombed -p image_transport:=compressed -p model:=null '
        '-p resolution.short_side:=96'
    )
    with start_node(tmp_path / 'log', arguments) as process:
        process.wait_for('active')
        camera = peer.camera(CompressedImage, '/bombed/compressed')
        memory = float(values(peer.status('bombed'))['process_memory_peak_mib'])
        for number, (name, data) in enumerate({'png': png, 'jpeg': jpeg + b'\xff\xd9'}.items(), 1):
            camera.publish(CompressedImage(header=peer.header(), format=name, data=data))
            wait_until(lambda n=number: peer.counts('bombed')['dropped_decode'] == n, 'its drop')

        def told() -> bool:
            # A failure is told for some seconds; ten in a row stay.
            camera.publish(CompressedImage(header=peer.header(), format='png', data=png))
            return peer.status('bombed').level == DiagnosticStatus.ERROR

        wait_until(told, 'an error')
        assert float(values(peer.status('bombed'))['process_memory_peak_mib']) < memory + 100
        assert 'Traceback' not in process.output()


@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_a_storm_of_transitions(
    node: Process, peer: Peer, camera: Publisher, tmp_path: Path, seed: int
) -> None:
    """In any order and while images come: what is not possible is refused, the rest is done."""
    rng = random.Random(seed)
    possible = {
        ('unconfigured', 'configure'): 'inactive',
        ('inactive', 'activate'): 'active',
        ('inactive', 'cleanup'): 'unconfigured',
        ('active', 'deactivate'): 'inactive',
    }
    state = peer.state('/sturdy')
    with other(tmp_path, 'storm', '/sturdy_image'):
        for _ in range(30):
            name = rng.choice(list(TRANSITIONS))
            reached = possible.get((state, name))
            assert peer.change_state(TRANSITIONS[name], '/sturdy') == (reached is not None)
            state = reached or state
            assert peer.state('/sturdy') == state
    for name in ('configure', 'activate'):
        if (state, name) in possible:
            assert peer.change_state(TRANSITIONS[name], '/sturdy')
            state = possible[state, name]
    wait_until(lambda: camera.get_subscription_count() == 1, 'subscription')
    peer.watch('/sturdy')
    assert_alive(peer, camera, node)


def test_weights_that_go_after_the_start(
    node: Process, peer: Peer, camera: Publisher, weights: Path
) -> None:
    kept = weights.read_bytes()
    weights.unlink()
    assert_alive(peer, camera, node)
    assert peer.change_state(TRANSITIONS['deactivate'], '/sturdy')
    assert peer.change_state(TRANSITIONS['cleanup'], '/sturdy')
    assert not peer.change_state(TRANSITIONS['configure'], '/sturdy')
    status = peer.status('sturdy')
    assert status.level == DiagnosticStatus.ERROR
    assert str(weights) in status.message
    weights.write_bytes(kept)
    for name in ('configure', 'activate'):
        assert peer.change_state(TRANSITIONS[name], '/sturdy')
    wait_until(lambda: camera.get_subscription_count() == 1, 'subscription')
    peer.watch('/sturdy')
    assert_alive(peer, camera, node)


def test_kill_and_start_again(
    node: Process, peer: Peer, camera: Publisher, weights: Path, tmp_path: Path
) -> None:
    """As ``respawn`` does; the last test here, as the node of the others is gone after it."""
    node.send(signal.SIGKILL)
    assert node.wait() == -signal.SIGKILL
    arguments = f'-r __node:=sturdy -r image:=/sturdy_image -p weights:={weights}'
    with start_node(tmp_path / 'log', arguments) as again:
        again.wait_for('active')
        message = bgr_message(peer.header('again'), PIXELS)

        def answered() -> bool:
            # For a while the middleware takes the dead one for alive as well.
            camera.publish(message)
            time.sleep(0.1)
            return peer.find('/sturdy/detections', message.header) is not None

        wait_until(answered, 'an answer')
        again.send(signal.SIGTERM)
        assert again.wait() == 0
