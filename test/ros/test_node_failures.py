# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Frames that fail inside the engine: counted, reported, and never the end of the node."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.signals import SignalHandlerOptions
from ros_harness import DOMAIN_ID, Peer, bgr_message, values, wait_until

from segnode.config import Config
from segnode.engine import Engine, Segmentation
from segnode.engine.graphs import CapturedSequence
from segnode.engine.path import StaticPath
from segnode.engine.program import DeviceLimits
from segnode.engine.static import StaticBackend
from segnode.errors import OutOfMemoryError
from segnode.image import Image
from segnode.live.accounting import Counts
from segnode.ros import node as segmentation_node
from segnode.ros.camera import Camera
from segnode.ros.camera_info import CameraInfoRelay
from segnode.ros.image_input import ImageInput
from segnode.ros.node import SegmentationNode
from segnode.ros.outputs import Outputs

pytestmark = pytest.mark.ros

PIXELS = np.zeros((48, 64, 3), np.uint8)


class FaultyEngine(Engine):
    """The engine on the path that a GPU takes, with faults that a test asks for."""

    faults: list[Exception]

    def __init__(
        self, config: Config, report: Callable[[str], None], warn: Callable[[str], None]
    ) -> None:
        super().__init__(config, report=report, warn=warn, static=True)

    def segment(self, images: Sequence[Image], **how: Any) -> list[Segmentation]:
        if self.faults:
            raise self.faults.pop(0)
        return super().segment(images, **how)


@pytest.fixture(scope='module')
def running() -> Iterator[SegmentationNode]:
    """A node that runs in this process."""
    with pytest.MonkeyPatch.context() as patch:
        FaultyEngine.faults = []
        patch.setattr(segmentation_node, 'Engine', FaultyEngine)
        arguments = '--ros-args -r __node:=faulty -r image:=/faulty_camera'
        rclpy.init(
            args=[*arguments.split(), '-p', 'resolution.short_side:=64'],
            domain_id=DOMAIN_ID,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        failed, stop = threading.Event(), threading.Event()
        node = SegmentationNode(failed.set)
        executor = SingleThreadedExecutor()
        executor.add_node(node)

        def spin() -> None:
            while not stop.is_set():
                executor.spin_once(timeout_sec=0.1)

        thread = threading.Thread(target=spin)
        thread.start()
        yield node
        stop.set()
        thread.join()
        assert node.close(10.0)
        node.destroy_node()
        rclpy.shutdown()
        assert not failed.is_set()


@pytest.fixture
def faults(running: SegmentationNode) -> list[Exception]:
    """Faults of the frames to come."""
    return FaultyEngine.faults


@pytest.fixture(scope='module')
def peer(running: SegmentationNode) -> Iterator[Peer]:
    with Peer('faulty_peer') as peer:
        yield peer


@pytest.fixture(scope='module')
def camera(peer: Peer) -> Publisher:
    camera = peer.camera(topic='/faulty_camera')
    peer.watch('/faulty')
    return camera


def _fail(peer: Peer, camera: Publisher, count: int) -> DiagnosticStatus:
    """Send frames until some more have failed; return the first status that counts them."""
    before, seen = peer.counts('faulty')['dropped_error'], len(peer.received['/diagnostics'])
    for done in range(1, count + 1):
        camera.publish(bgr_message(peer.header(), PIXELS))
        wait_until(lambda left=count - done: len(FaultyEngine.faults) <= left, 'a fault')
    wait_until(lambda: peer.counts('faulty')['dropped_error'] == before + count, 'drops')
    statuses = [status for m in peer.received['/diagnostics'][seen:] for status in m.status]
    # Told for five seconds, which a later one might miss.
    counted = {'dropped_error': str(before + count)}
    return next(s for s in statuses if counted.items() <= values(s).items())


def test_no_fault_stops_the_node(faults: list[Exception], peer: Peer, camera: Publisher) -> None:
    peer.exchange(camera, bgr_message(peer.header(), PIXELS), '/faulty')
    before = peer.counts('faulty')

    faults.append(OutOfMemoryError('the device ran out of memory'))
    status = _fail(peer, camera, 1)
    assert status.level == DiagnosticStatus.WARN
    assert 'ran out of memory' in status.message
    peer.exchange(camera, bgr_message(peer.header(), PIXELS), '/faulty')

    faults.extend(RuntimeError('CUDA error:\nsomething') for _ in range(10))
    status = _fail(peer, camera, 10)
    assert status.level == DiagnosticStatus.ERROR
    assert 'the last 10 frames failed (CUDA error: something)' in status.message
    assert 'restart the node' in status.message
    peer.exchange(camera, bgr_message(peer.header(), PIXELS), '/faulty')
    counts = peer.counts('faulty')
    gone = {key: counts[key] - before[key] for key in ('received', 'published', 'dropped_error')}
    assert gone == {'received': 13, 'published': 2, 'dropped_error': 11}
    peer.recover(camera, PIXELS, 'faulty')


def test_diagnostics_tell_how_frames_are_run(faults: list[Exception], peer: Peer) -> None:
    found = values(peer.status('faulty'))
    assert found['graphs'] == 'off (none on a CPU)'
    assert found['operators'] == 'PyTorch (no kernels for device cpu)'


# Where a frame passes, from its message to its last output: whose method, and which.
STATIONS: dict[str, tuple[type, str]] = {
    'message': (ImageInput, 'decode'),
    'age': (Camera, 'check_age'),
    'capture': (StaticBackend, '_build'),
    'upload': (DeviceLimits, 'set'),
    'detect': (CapturedSequence, '__call__'),
    'mask head and paste': (StaticPath, '_mask'),
    'download': (StaticPath, '_labelled'),
    'messages': (Outputs, 'publish'),
    'camera info': (CameraInfoRelay, 'publish'),
    'stage times': (Outputs, 'publish_stage_times'),
}


@pytest.mark.parametrize('raised', [MemoryError(), RuntimeError('something odd')], ids=repr)
@pytest.mark.parametrize('station', STATIONS)
def test_a_fault_costs_its_frame_alone(
    running: SegmentationNode,
    faults: list[Exception],
    peer: Peer,
    camera: Publisher,
    station: str,
    raised: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def counts() -> Counts:
        return running._cameras[0].accounting.counts()

    owner, method = STATIONS[station]
    asked = threading.Event()

    def refuse(*_: object, **__: object) -> None:
        asked.set()
        raise raised

    # A size that nothing was built for yet.
    sizes = itertools.count(2 * list(STATIONS).index(station) + isinstance(raised, MemoryError))
    pixels = np.zeros((60 + next(sizes), 64, 3), np.uint8)
    before = counts()
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, refuse)
        camera.publish(bgr_message(peer.header(), pixels))
        wait_until(lambda: counts().dropped['error'] > before.dropped['error'], 'its drop')
    assert asked.is_set()
    peer.exchange(camera, bgr_message(peer.header(), pixels), '/faulty')
    wait_until(lambda: not counts().in_flight, 'the end of it')
    after = counts()
    assert after.received == before.received + 2
    assert after.published == before.published + 1
    assert after.dropped == {**before.dropped, 'error': before.dropped['error'] + 1}
    assert after.received == after.published + sum(after.dropped.values())
    assert running._worker is not None
    assert not running._worker.broken()


def test_another_node_of_the_same_name_is_told(
    running: SegmentationNode, peer: Peer, camera: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('segnode.ros.node.NAMESAKE_S', 1.5)
    peer.recover(camera, PIXELS, 'faulty')
    with Peer('faulty'):

        def told() -> bool:
            camera.publish(bgr_message(peer.header(), PIXELS))
            status = peer.status('faulty')
            return status.level == DiagnosticStatus.WARN and 'another node is called /faulty' in (
                status.message
            )

        wait_until(told, 'a warning')
    wait_until(lambda: 'another node' not in peer.status('faulty').message, 'the end of it')


def test_a_shutdown_that_fails_half_way_frees_what_it_can(
    running: SegmentationNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one here: rcl goes to ``finalized`` for good."""

    def refuse(_: object) -> None:
        raise RuntimeError('something odd')

    with monkeypatch.context() as patch:
        patch.setattr(Camera, 'unsubscribe', refuse)
        assert running.trigger_shutdown() == TransitionCallbackReturn.FAILURE
    assert 'something odd' in str(running.fault)
    assert running._lifecycle == 'finalized'
    assert running._engine is None
