# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Frames that fail inside the engine: counted, reported, and never the end of the node."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from ros_harness import DOMAIN_ID, Peer, bgr_message, values, wait_until

from segnode.config import Config
from segnode.engine import Engine, Segmentation
from segnode.errors import OutOfMemoryError
from segnode.image import Image
from segnode.ros import node as segmentation_node
from segnode.ros.node import SegmentationNode

pytestmark = pytest.mark.ros

PIXELS = np.zeros((48, 64, 3), np.uint8)


class FaultyEngine(Engine):
    """The engine on the path that a GPU takes, with faults that a test asks for."""

    faults: list[Exception]

    def __init__(self, config: Config, report: Callable[[str], None]) -> None:
        super().__init__(config, report, static=True)

    def segment(self, images: Sequence[Image]) -> list[Segmentation]:
        if self.faults:
            raise self.faults.pop(0)
        return super().segment(images)


@pytest.fixture(scope='module')
def faults() -> Iterator[list[Exception]]:
    """Faults of the frames to come, of a node that runs in this process."""
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
        yield FaultyEngine.faults
        stop.set()
        thread.join()
        assert node.close(10.0)
        node.destroy_node()
        rclpy.shutdown()
        assert not failed.is_set()


@pytest.fixture(scope='module')
def peer(faults: list[Exception]) -> Iterator[Peer]:
    with Peer('faulty_peer') as peer:
        yield peer


def _fail(peer: Peer, camera: rclpy.publisher.Publisher, count: int) -> DiagnosticStatus:
    """Send frames until some more have failed."""
    before = peer.counts('faulty')['dropped_error']
    for done in range(1, count + 1):
        camera.publish(bgr_message(peer.header(), PIXELS))
        wait_until(lambda left=count - done: len(FaultyEngine.faults) <= left, 'a fault')
    wait_until(lambda: peer.counts('faulty')['dropped_error'] == before + count, 'drops')
    return peer.status('faulty')


def test_no_fault_stops_the_node(faults: list[Exception], peer: Peer) -> None:
    camera = peer.camera(topic='/faulty_camera')
    peer.watch('/faulty')
    peer.exchange(camera, bgr_message(peer.header(), PIXELS), '/faulty')

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
    assert (counts['dropped_error'], counts['published']) == (11, 3)
    assert counts['received'] == 14
    wait_until(lambda: peer.status('faulty').level == DiagnosticStatus.OK, 'recovery')


def test_diagnostics_tell_how_frames_are_run(faults: list[Exception], peer: Peer) -> None:
    found = values(peer.status('faulty'))
    assert found['graphs'] == 'off (none on a CPU)'
    assert found['operators'] == 'PyTorch (no kernels for device cpu)'
