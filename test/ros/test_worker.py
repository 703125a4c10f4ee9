# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What an active node does over real DDS: steps that overlap, the latency budget, raw masks."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from ros_harness import (
    ROOT,
    TIMEOUT_S,
    Peer,
    Process,
    bgr_message,
    start_node,
    values,
    wait_until,
)
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from sized_null_node import FULL_HW, FULL_MS

from segnode.config import Config
from segnode.demo.scene import DEMO_SEEDS, Scene
from segnode.engine import Engine
from segnode.image import Image
from segnode.live.schedule import ScheduleConfig
from segnode.ros.messages import to_nanoseconds
from segnode.ros.worker import Worker

pytestmark = [pytest.mark.ros, pytest.mark.timed]

WAIT_MS = 30
# Of a processor, by others than the node and this process: too much for a promise to be kept.
DISTURBED = 0.1
HOST_STAGES = ('wait', 'decode', 'device_wait', 'publish_wait', 'publish', 'total')


@pytest.fixture(scope='module')
def scene() -> npt.NDArray[np.uint8]:
    """A scene as BGR, (480, 640, 3)."""
    return next(iter(Scene(DEMO_SEEDS[0], image_hw=(480, 640)).frames(1))).image


@pytest.fixture(scope='module')
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A node whose device takes 30 ms a frame and leaves the host free meanwhile."""
    log = tmp_path_factory.mktemp('waiting') / 'log'
    arguments = f'-r __node:=waiting -p model:=null:{WAIT_MS} -p resolution.short_side:=240'
    with start_node(log, arguments) as process:
        process.wait_for('active')
        yield process


@pytest.fixture(scope='module')
def peer(waiting: Process) -> Iterator[Peer]:
    with Peer('of_the_worker') as peer:
        peer.watch('/waiting')
        yield peer


def play(peer: Peer, camera: Publisher, pixels: npt.NDArray[np.uint8], seconds: float) -> int:
    """Publish at 60 Hz with stamps of now; return how many."""
    message = bgr_message(peer.header(), pixels)
    sent, end_s = 0, time.monotonic() + seconds
    while time.monotonic() < end_s:
        message.header.stamp = peer.node.get_clock().now().to_msg()
        camera.publish(message)
        sent += 1
        time.sleep(1 / 60)
    return sent


def stage_times(message: DiagnosticArray) -> dict[str, float]:
    return {
        key.removesuffix('_ms'): float(value)
        for key, value in values(message.status[0]).items()
        if key.endswith('_ms')
    }


def test_decoding_and_publishing_cost_no_rate(peer: Peer, scene: npt.NDArray[np.uint8]) -> None:
    """The rate is the longest step's; one after the other it would be that of their sum."""
    camera = peer.camera()
    arrived: list[tuple[float, DiagnosticArray]] = []
    peer.node.create_subscription(
        DiagnosticArray,
        '/waiting/stage_times',
        lambda message: arrived.append((time.monotonic(), message)),
        100,
    )
    # What takes long to make: a PNG, and a drawn JPEG.
    for topic in ('instance_mask/compressed', 'overlay/compressed'):
        peer.subscribe(CompressedImage, f'/waiting/{topic}')
    ratios = []
    # The best of some: the machine may have other work.
    for _ in range(10):
        first = len(arrived)
        play(peer, camera, scene, 2.0)
        peer.counts('waiting')
        window = arrived[first + 5 :]
        if len(window) < 10:
            ratios.append((0.0, 1.0))
            continue
        stages = [stage_times(message) for _, message in window]
        steps = np.array(
            [
                (
                    each['decode'],
                    sum(ms for name, ms in each.items() if name not in HOST_STAGES),
                    each['publish'],
                )
                for each in stages
            ]
        )
        rate_hz = (len(window) - 1) / (window[-1][0] - window[0][0])
        decode_ms, infer_ms, publish_ms = steps.mean(0)
        assert infer_ms > WAIT_MS
        serial = max(infer_ms, publish_ms) / (decode_ms + infer_ms + publish_ms)
        ratios.append((rate_hz * max(infer_ms, publish_ms) / 1e3, serial))
        if ratios[-1][0] >= 0.95 and serial < 0.9:
            break
    ratio, serial = max(ratios, key=lambda each: (each[1] < 0.9, each[0]))
    assert serial < 0.9, ratios
    assert ratio >= 0.95, ratios


def test_a_thousand_changes_drop_nothing(peer: Peer, scene: npt.NDArray[np.uint8]) -> None:
    camera = peer.camera()
    before = peer.counts('waiting')
    memory = float(values(peer.status('waiting'))['process_memory_mib'])
    client = peer.node.create_client(SetParametersAtomically, '/waiting/set_parameters_atomically')
    assert client.wait_for_service(TIMEOUT_S)
    rng = np.random.default_rng(1)
    answers = []
    for number in range(1000):
        wanted = {
            'filter.score_threshold': float(rng.uniform(0.1, 0.9)),
            'filter.min_mask_area': int(rng.integers(0, 500)),
            'filter.max_instances': int(rng.integers(1, 30)),
            'mask_threshold': float(rng.uniform(0.3, 0.7)),
            'resolution.short_side': int(rng.integers(100, 300)),
            'schedule.max_age_ms': float(rng.choice([0.0, 60_000.0])),
            'class_id_format': str(rng.choice(['name', 'index'])),
        }
        name = list(wanted)[number % len(wanted)]
        changed = Parameter(name, value=wanted[name]).to_parameter_msg()
        answers.append(client.call_async(SetParametersAtomically.Request(parameters=[changed])))
        # The middleware keeps ten.
        wait_until(lambda: sum(not answer.done() for answer in answers[-8:]) < 5, 'answers')
        if number % 10 == 0:
            play(peer, camera, scene, 0.02)
    wait_until(lambda: all(answer.done() for answer in answers), 'answers')
    assert all(answer.result().result.successful for answer in answers)
    after = peer.counts('waiting')
    gone = {key: after[key] - before[key] for key in after}
    assert gone['published'] >= 50
    failed = {k: n for k, n in gone.items() if k.startswith('dropped_') and 'superseded' not in k}
    assert not any(failed.values()), failed
    assert float(values(peer.status('waiting'))['process_memory_mib']) < memory + 30


def test_a_set_is_taken_whole(peer: Peer) -> None:
    """As ``ros2 param load`` sends it: each alone would not fit the others' old values."""

    def set_all(changes: dict[str, int]) -> list[tuple[bool, str]]:
        messages = [Parameter(k, value=v).to_parameter_msg() for k, v in changes.items()]
        request = SetParameters.Request(parameters=messages)
        results = peer.call(SetParameters, '/waiting/set_parameters', request).results
        return [(result.successful, result.reason) for result in results]

    least, most = 'filter.min_mask_area', 'filter.max_mask_area'
    assert set_all({least: 10, most: 100}) == [(True, ''), (True, '')]
    assert set_all({least: 200, most: 300}) == [(True, ''), (True, '')]
    assert (peer.get(least, '/waiting'), peer.get(most, '/waiting')) == (200, 300)
    # What is not valid as a whole is taken as far as it goes, and the rest is refused by name.
    (taken, _), (refused, reason) = set_all({most: 250, 'mask_threshold': 7})
    assert (taken, refused) == (True, False)
    assert 'mask_threshold' in reason
    assert peer.get(most, '/waiting') == 250
    # What cannot change, as in a file of all parameters, spoils nothing.
    (first, _), (refused, _), (second, _) = set_all({least: 500, 'memory_limit_mb': 1, most: 600})
    assert (first, refused, second) == (True, False, True)
    assert (peer.get(least, '/waiting'), peer.get(most, '/waiting')) == (500, 600)
    assert set_all({least: 0, most: 0}) == [(True, ''), (True, '')]


@pytest.fixture(scope='module')
def demo(tmp_path_factory: pytest.TempPathFactory, peer: Peer) -> Iterator[Process]:
    """The embedded model on this machine."""
    log = tmp_path_factory.mktemp('demo') / 'log'
    with start_node(log, '-r __node:=promise -r image:=/promise_image') as process:
        process.wait_for('active')
        peer.watch('/promise')
        yield process


def test_raw_masks_are_the_networks_own(
    peer: Peer, demo: Process, scene: npt.NDArray[np.uint8]
) -> None:
    camera = peer.camera(topic='/promise_image')
    peer.subscribe(ImageMessage, '/promise/raw_masks')
    wait_until(lambda: peer.node.count_publishers('/promise/raw_masks') == 1, 'publisher')
    wait_until(lambda: peer.node.count_subscribers('/promise/raw_masks') > 0, 'subscription')
    # The node learns of its subscriber a moment later.
    answer: dict[str, ImageMessage] = {}

    def answered() -> bool:
        message = bgr_message(peer.header(), scene)
        answer.update(peer.exchange(camera, message, '/promise'))
        raw = peer.find('/promise/raw_masks', message.header)
        if raw is not None:
            answer['raw'] = raw
        return raw is not None

    wait_until(answered, 'raw masks')
    raw, detections = answer['raw'], answer['detections'].detections
    assert raw.header == answer['detections'].header
    assert (raw.encoding, raw.width, raw.height) == ('mono8', 28, 28 * len(detections))
    found = np.frombuffer(bytes(raw.data), np.uint8).reshape(-1, 28, 28)
    engine = Engine(Config().replace({'filter.score_threshold': 0.5}))
    (expected,) = engine.segment([Image(scene, 'bgr')], raw_masks=True)
    assert expected.raw_masks is not None
    assert len(detections) == len(expected.detections) >= 2
    np.testing.assert_allclose(found.astype(int), expected.raw_masks.astype(int), atol=6)


class Promise:
    """A camera of a node that has a latency budget, and what becomes of its frames."""

    def __init__(
        self, peer: Peer, node: Process, name: str, topic: str, pixels: npt.NDArray[np.uint8]
    ) -> None:
        self._peer, self._name, self._pixels = peer, name, pixels
        self._camera = peer.camera(topic=topic)
        self._processes = [os.getpid(), node.pid]
        self._arrived: list[tuple[float, float]] = []
        self._heights: list[int] = []
        peer.node.create_subscription(DiagnosticArray, f'/{name}/stage_times', self._note, 100)

    def _note(self, message: DiagnosticArray) -> None:
        age_ns = time.time_ns() - to_nanoseconds(message.header.stamp)
        self._arrived.append((time.monotonic(), age_ns / 1e6))
        self._heights.append(int(values(message.status[0])['network_height']))

    def play(self, seconds: float) -> None:
        """Send frames."""
        play(self._peer, self._camera, self._pixels, seconds)

    def play_until(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Send frames until a condition holds.

        The test is skipped where it does not and other work took the processors meanwhile.
        """
        end_s, before = time.monotonic() + timeout_s, processor_times_s(self._processes)
        while not condition():
            if time.monotonic() > end_s:
                passed, own = np.subtract(processor_times_s(self._processes), before)
                if passed - own > DISTURBED * timeout_s:
                    pytest.skip(f'other work took {passed - own:.0f} s of {timeout_s:g} s')
                raise AssertionError(f'{what}: {self._peer.status(self._name).message}')
            self.play(0.25)

    def height(self) -> int:
        """Return that of the network's input of the last frame, 0 before the first."""
        return self._heights[-1] if self._heights else 0

    def ages_ms(self, seconds: float) -> list[float]:
        """Return the ages of the last frames."""
        now_s = time.monotonic()
        return [ms for at_s, ms in self._arrived if now_s - at_s < seconds]

    def late_ms(self, seconds: float) -> float:
        """Return the p95 of their ages, infinite where none came."""
        ages_ms = self.ages_ms(seconds)
        return float(np.percentile(ages_ms, 95)) if ages_ms else math.inf

    def set_budget(self, ms: float) -> None:
        """Set it, 0 for none."""
        changes = {'schedule.latency_budget_ms': ms}
        assert self._peer.set(changes, f'/{self._name}').successful

    def missed(self) -> bool:
        """Return whether the node says that it cannot keep the budget."""
        status = self._peer.status(self._name)
        return status.level == DiagnosticStatus.WARN and 'latency_budget_ms' in status.message


def processor_times_s(processes: Sequence[int]) -> tuple[float, float]:
    """Return what all processors worked, or were lent elsewhere, and what of it was for some."""
    user, nice, system, _, _, irq, soft, steal = map(
        int, Path('/proc/stat').read_text(encoding='ascii').split()[1:9]
    )
    own = 0
    for process in processes:
        fields = Path(f'/proc/{process}/stat').read_text(encoding='ascii').rpartition(')')[2]
        own += sum(map(int, fields.split()[11:13]))
    ticks = os.sysconf('SC_CLK_TCK')
    return (user + nice + system + irq + soft + steal) / ticks, own / ticks


def test_the_latency_budget_is_kept(peer: Peer, tmp_path: Path) -> None:
    """On a device that nothing else on the machine makes slower."""
    with Process(
        [
            *(sys.executable, str(ROOT / 'test' / 'sized_null_node.py'), '--ros-args'),
            *('-r', '__node:=sized', '-r', 'image:=/sized_image', '-p', 'model:=null'),
            *('-p', f'resolution.short_side:={FULL_HW[0]}'),
        ],
        tmp_path / 'log',
    ) as process:
        process.wait_for('active')
        peer.watch('/sized')
        pixels = np.zeros((*FULL_HW, 3), np.uint8)
        promise = Promise(peer, process, 'sized', '/sized_image', pixels)
        promise.play_until(lambda: promise.height() == FULL_HW[0], 'a frame', 60)
        budget_ms = 0.8 * FULL_MS
        late = []
        # The best of some: the machine may have other work.
        for _ in range(5):
            promise.set_budget(0)
            promise.play_until(lambda: promise.height() == FULL_HW[0], 'the full input', 60)
            promise.play(1)
            assert min(promise.ages_ms(1), default=FULL_MS) >= FULL_MS
            promise.set_budget(budget_ms)
            promise.play(10)
            late.append(promise.late_ms(5))
            if late[-1] <= budget_ms:
                break
        assert late[-1] <= budget_ms, late
        assert 0.4 * FULL_HW[0] < promise.height() < FULL_HW[0]
        promise.set_budget(20 * FULL_MS)
        promise.play_until(lambda: promise.height() == FULL_HW[0], 'the full input', 60)


def test_the_latency_budget_steps_the_input(
    peer: Peer, demo: Process, scene: npt.NDArray[np.uint8]
) -> None:
    """With a network, on cores that may be shared."""
    promise = Promise(peer, demo, 'promise', '/promise_image', scene)
    # So large that the network takes the most of a frame's time, and a smaller input helps.
    sides = {'resolution.short_side': 800, 'resolution.long_side': 1344}
    assert peer.set(sides, '/promise').successful
    promise.play_until(lambda: promise.height() == 800, 'the size that was set', 60)
    promise.play(4.0)
    full = promise.height()
    promise.play_until(lambda: bool(promise.ages_ms(2.0)), 'frames of that size', 60)
    # Less than full size takes even where nothing disturbs it.
    full_ms = min(promise.ages_ms(4.0))
    budget_ms = 0.75 * full_ms
    promise.set_budget(budget_ms)
    # On a busy machine it may take a little longer to see.
    promise.play_until(lambda: promise.height() < full, 'a smaller input', 60)
    peer.counts('promise')  # Of a frame in flight it would tell another size.
    status = values(peer.status('promise'))
    assert 0.4 < float(status['resolution_scale']) < 1
    assert int(status['network_height']) == promise.height()
    assert 'rehearsed 480x640' in demo.output()
    promise.play_until(lambda: promise.late_ms(2) <= budget_ms, 'ages within the budget', 60)
    # With room again it climbs back.
    promise.set_budget(20 * full_ms)
    promise.play_until(lambda: promise.height() == full, 'the full input', 90)
    # What cannot be kept is said.
    promise.set_budget(1.0)
    promise.play_until(promise.missed, 'a warning', 60)
    promise.set_budget(0)
    promise.play_until(lambda: promise.height() == full, 'the full input', 60)


def test_whether_cameras_go_together_is_measured(peer: Peer, tmp_path: Path) -> None:
    topics = {'a': '/together/a/image', 'b': '/together/b/image'}
    arguments = (
        '-r __node:=together -p model:=null:20 -p resolution.short_side:=120 '
        f'-p schedule.max_batch:=2 -p image_topics:=[{",".join(topics.values())}]'
    )
    small = np.zeros((120, 160, 3), np.uint8)
    with start_node(tmp_path / 'log', arguments) as process:
        process.wait_for('active')
        for name in topics:
            peer.watch(f'/together/{name}')
        cameras = [peer.camera(topic=topic) for topic in topics.values()]
        for _ in range(4):
            for camera, name in zip(cameras, topics, strict=True):
                peer.exchange(camera, bgr_message(peer.header(), small), f'/together/{name}')
        process.wait_for('rehearsed 120x160')
        assert '2 together' in process.output()


def test_cameras_decode_into_what_the_engine_lends() -> None:
    given: list[object] = []

    class Camera:
        def subscribe(self, receive: Callable[[bytes], None], lend: object) -> None:
            given.append(lend)

        def unsubscribe(self) -> None:
            pass

        leave = unsubscribe

    engine: Any = SimpleNamespace(lend=lambda size: np.empty(size, np.uint8))
    settings: Any = SimpleNamespace(node=SimpleNamespace(schedule=ScheduleConfig()))
    cameras: Any = [Camera(), Camera()]
    log: Any = SimpleNamespace(info=lambda line: None)
    worker = Worker(cameras, engine, settings, log, lambda: None)
    worker.start()
    assert worker.stop(10.0)
    assert given == [engine.lend] * 2
