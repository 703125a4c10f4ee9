# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Several nodes, lifecycle, simulated time, start and end: each with node processes of its own."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from ros_harness import (
    ROOT,
    Peer,
    Process,
    bgr_message,
    label_image,
    start_node,
    values,
    wait_until,
)
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header
from weights_server import running_server

from segnode.demo.scene import CLASS_NAMES, DEMO_SEEDS, Scene
from segnode.ros_distribution import profile_variable

pytestmark = pytest.mark.ros

FAST = '-p resolution.short_side:=240 -p filter.score_threshold:=0.3'

BARE_CAMERA = """
import sys, time
import rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node('bare_camera')
publisher = node.create_publisher(Image, sys.argv[1], QoSProfile(depth=10))
message = Image(height=120, width=160, encoding='bgr8', step=480, data=bytes(120 * 480))
message.header.frame_id = 'bare'
while True:
    message.header.stamp = node.get_clock().now().to_msg()
    publisher.publish(message)
    time.sleep(0.5)
"""


@pytest.fixture(scope='module')
def peer() -> Iterator[Peer]:
    with Peer() as peer:
        yield peer


@pytest.fixture(scope='module')
def scene() -> npt.NDArray[np.uint8]:
    """A scene as BGR, (240, 320, 3)."""
    (frame,) = Scene(DEMO_SEEDS[1], image_hw=(240, 320)).frames(1)
    return frame.image


def _compressed(header: Header, kind: str, pixels: npt.NDArray[np.uint8]) -> CompressedImage:
    _, data = cv2.imencode('.jpg' if kind == 'jpeg' else '.png', pixels)
    image_format = f'bgr8; {kind} compressed bgr8'
    return CompressedImage(header=header, format=image_format, data=data.tobytes())


def test_two_nodes_at_once(peer: Peer, scene: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    """One on a remapped raw topic, one on a compressed one, each in its namespace."""
    front_arguments = f'{FAST} -r __ns:=/front -r image:=/eye/image'
    rear_arguments = (
        f'{FAST} -r __ns:=/rear -p image_transport:=compressed '
        '-p image_topics:=[camera/image] -p class_id_format:=index'
    )
    front = start_node(tmp_path / 'front', front_arguments)
    with front, start_node(tmp_path / 'rear', rear_arguments) as rear:
        front.wait_for('active, subscribed to /eye/image')
        rear.wait_for('active, subscribed to /rear/camera/image/compressed')
        peer.watch('/front/segnode')
        peer.watch('/rear/segnode')
        raw = peer.camera(topic='/eye/image')
        compressed = peer.camera(CompressedImage, '/rear/camera/image/compressed')
        expected = peer.exchange(raw, bgr_message(peer.header(), scene), '/front/segnode')
        names = [d.results[0].hypothesis.class_id for d in expected['detections'].detections]
        assert len(names) >= 2
        assert set(names) <= set(CLASS_NAMES)
        assert peer.received['/rear/segnode/detections'] == []
        counts = peer.counts('front/segnode')

        message = _compressed(peer.header('rear'), 'png', scene)
        found = peer.exchange(compressed, message, '/rear/segnode')
        for answer in found.values():
            assert answer.header == message.header
        indices = [d.results[0].hypothesis.class_id for d in found['detections'].detections]
        assert [CLASS_NAMES[int(index)] for index in indices] == names
        labels, same = label_image(found['instance_mask']), label_image(expected['instance_mask'])
        assert (labels != same).mean() < 1e-3

        lossy = _compressed(peer.header(), 'jpeg', scene)
        lossy.format = 'jpeg'
        found = peer.exchange(compressed, lossy, '/rear/segnode')
        assert len(found['detections'].detections) >= 1

        broken = _compressed(peer.header(), 'jpeg', scene)
        broken.data = broken.data[:500]
        compressed.publish(broken)
        wait_until(lambda: peer.counts('rear/segnode')['dropped_decode'] == 1, 'a drop')
        peer.exchange(compressed, _compressed(peer.header(), 'png', scene), '/rear/segnode')
        # What the other camera sends is nothing to this one.
        assert peer.counts('front/segnode') == counts
        assert counts['published'] == counts['received'] >= 1
        for process in (front, rear):
            process.send(signal.SIGTERM if process is rear else signal.SIGINT)
        assert (front.wait(), rear.wait()) == (0, 0)
        assert 'Traceback' not in front.output() + rear.output()
    peer.node.destroy_publisher(raw)
    peer.node.destroy_publisher(compressed)


@pytest.fixture(scope='module')
def managed(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A node that waits for its lifecycle manager and lives in simulated time."""
    log = tmp_path_factory.mktemp('managed') / 'log'
    arguments = (
        f'{FAST} -r __node:=managed -p autostart:=false -p use_sim_time:=true '
        '-p image_topics:=[/managed_camera]'
    )
    environment = {profile_variable(): str(ROOT / 'config' / 'fastdds.xml')}
    with start_node(log, arguments, **environment) as process:
        assert peer.state('/managed') == 'unconfigured'
        yield process


@pytest.mark.smoke
def test_lifecycle(managed: Process, peer: Peer, scene: npt.NDArray[np.uint8]) -> None:
    camera = peer.advertise(ImageMessage, '/managed_camera')
    assert values(peer.status('managed'))['state'] == 'unconfigured'
    assert not peer.change_state(Transition.TRANSITION_ACTIVATE, '/managed')
    for _ in range(2):
        assert peer.change_state(Transition.TRANSITION_CONFIGURE, '/managed')
        assert peer.state('/managed') == 'inactive'
        assert camera.get_subscription_count() == 0
        assert peer.change_state(Transition.TRANSITION_ACTIVATE, '/managed')
        peer.watch('/managed')
        wait_until(lambda: camera.get_subscription_count() == 1, 'subscription')
        answer = peer.exchange(camera, bgr_message(peer.header(), scene), '/managed')
        assert len(answer['detections'].detections) >= 2
        for _ in range(5):
            camera.publish(bgr_message(peer.header(), scene))
        assert peer.change_state(Transition.TRANSITION_DEACTIVATE, '/managed')
        wait_until(lambda: camera.get_subscription_count() == 0, 'end of the subscription')
        camera.publish(bgr_message(peer.header(), scene))
        counts = peer.counts('managed')
        assert counts['received'] == counts['published'] + sum(
            count for key, count in counts.items() if key.startswith('dropped_')
        )
        assert values(peer.status('managed'))['state'] == 'inactive'
        assert peer.change_state(Transition.TRANSITION_CLEANUP, '/managed')
        assert peer.state('/managed') == 'unconfigured'
        assert 'model' not in values(peer.status('managed'))
    peer.node.destroy_publisher(camera)


def test_simulated_time_and_its_jumps(
    managed: Process, peer: Peer, scene: npt.NDArray[np.uint8]
) -> None:
    clock = peer.advertise(Clock, '/clock')
    camera = peer.advertise(ImageMessage, '/managed_camera')
    assert peer.change_state(Transition.TRANSITION_CONFIGURE, '/managed')
    assert peer.change_state(Transition.TRANSITION_ACTIVATE, '/managed')
    peer.watch('/managed')
    wait_until(lambda: camera.get_subscription_count() == 1, 'subscription')

    def frame_at(now_s: int, stamp_s: int) -> None:
        def there() -> bool:
            clock.publish(Clock(clock=Time(sec=now_s)))
            time.sleep(0.1)
            return now_s in [m.header.stamp.sec for m in peer.received['/diagnostics'][-4:]]

        wait_until(there, 'diagnostics in simulated time')
        header = Header(stamp=Time(sec=stamp_s, nanosec=now_s))
        peer.exchange(camera, bgr_message(header, scene), '/managed')

    def ages_ms() -> list[float]:
        # A frame's age counts a moment after its outputs.
        status = peer.status_once(lambda status: 'age_ms_max' in values(status), node='managed')
        return [float(values(status)[f'age_ms_{which}']) for which in ('p50', 'max')]

    first = len(peer.received['/diagnostics'])
    frame_at(now_s=500, stamp_s=497)
    assert max(ages_ms()) == pytest.approx(3000, abs=1)
    # Back to an earlier time: stamps of then are in the future, and no age means anything.
    ahead = "398.0 s ahead of the node's clock: is /clock published"

    def told() -> bool:
        frame_at(now_s=100, stamp_s=498)
        status = peer.status('managed')
        return ahead in status.message and 'age_ms_p50' not in values(status)

    wait_until(told, lambda: f'{ahead}: {peer.status("managed")}')
    frame_at(now_s=101, stamp_s=99)
    assert ages_ms() == pytest.approx([2000, 2000], abs=1)
    # The diagnostics go on while the simulated clock stands still.
    wait_until(lambda: len(peer.received['/diagnostics']) > first + 4, 'diagnostics')
    peer.node.destroy_publisher(camera)
    peer.node.destroy_publisher(clock)


def test_silence_is_reported_with_its_reason(managed: Process, peer: Peer) -> None:
    before = len(managed.output())

    def reported(reason: str) -> None:
        """Wait until the diagnostics tell it and, as a terminal tells, too, the log."""

        def told() -> bool:
            status = peer.status('managed')
            return status.level == DiagnosticStatus.WARN and reason in status.message

        wait_until(told, reason)
        wait_until(lambda: reason in managed.output(), managed.output)

    reported('nobody publishes /managed_camera')
    camera = peer.camera(topic='/managed_camera')
    reported('the publisher of /managed_camera is silent')
    peer.node.destroy_publisher(camera)
    with Peer('other_peer') as other:
        other.advertise(CompressedImage, '/managed_camera')
        reported('check image_transport')
    # The log tells a reason once, and again after a minute.
    said = re.findall(r'no image for (\d+) s: (.*)', managed.output()[before:])
    assert len(said) >= 2
    for (earlier_s, earlier), (later_s, later) in pairwise(said):
        assert earlier != later or int(later_s) - int(earlier_s) >= 59, said


def test_publisher_with_a_bare_environment(managed: Process, peer: Peer, tmp_path: Path) -> None:
    """Its environment has the domain, and no transport settings; the node has its profile."""
    before = peer.counts('managed')['published']
    command = [sys.executable, '-c', BARE_CAMERA, '/managed_camera']
    with Process(command, tmp_path / 'camera'):
        # Not `counts`: a frame may be in flight whenever a status is composed.
        wait_until(
            lambda: int(values(peer.status('managed'))['published']) >= before + 3, 'frames'
        )
    frames = [m.header.frame_id for m in peer.received['/managed/detections']]
    assert 'bare' in frames


def test_shutdown_and_ctrl_c(managed: Process, peer: Peer) -> None:
    assert peer.change_state(Transition.TRANSITION_ACTIVE_SHUTDOWN, '/managed')
    assert peer.state('/managed') == 'finalized'
    managed.send(signal.SIGINT)
    assert managed.wait() == 0
    assert 'Traceback' not in managed.output()


@pytest.mark.timed
def test_ctrl_c_at_any_moment(peer: Peer, tmp_path: Path) -> None:
    """At 20 moments: while Python imports, while the model is warmed up, while frames come."""
    moments = random.Random(7)
    waits = [('imported', 0.3 + 0.12 * (index + moments.random())) for index in range(15)]
    waits += [('warming up', 0.3 * moments.random()) for _ in range(2)]
    waits += [('active', 0.3 * moments.random()) for _ in range(3)]
    camera = peer.advertise(ImageMessage, '/image')
    header, pixels = peer.header(), np.zeros((120, 160, 3), np.uint8)
    arguments = ['node', '--ros-args', *FAST.split()]
    ready = "import segnode.__main__, sys; print('imported', flush=True); "
    command = [sys.executable, '-c', f'{ready} sys.exit(segnode.__main__.main({arguments}))']

    def interrupt(index: int) -> float:
        """Return how long the end took, in seconds."""
        text, delay_s = waits[index]
        with Process(command, tmp_path / str(index)) as process:
            process.wait_for(text)
            process.wait_for_handlers()
            time.sleep(delay_s)
            start_s = time.monotonic()
            process.send(signal.SIGINT)
            if index % 2:  # The second meets the ending.
                time.sleep(0.03)
                with contextlib.suppress(ProcessLookupError):
                    process.send(signal.SIGINT)
            code, ended_s, output = process.wait(), time.monotonic() - start_s, process.output()
            assert code == 0, output
            assert 'Traceback' not in output
            return ended_s

    with ThreadPoolExecutor(4) as pool:

        def interrupt_all(indices: Iterable[int]) -> dict[int, float]:
            ends = {index: pool.submit(interrupt, index) for index in indices}
            while not all(end.done() for end in ends.values()):
                camera.publish(bgr_message(header, pixels))
                time.sleep(0.1)
            return {index: end.result() for index, end in ends.items()}

        # The long ones last of all would leave cores idle.
        took_s = interrupt_all(reversed(range(len(waits))))
        # Alone, as the others were work for the machine, which may have more of it.
        for index in [index for index, s in took_s.items() if s >= 3.0] * 2:
            if took_s[index] >= 3.0:
                took_s |= interrupt_all([index])
    assert max(took_s.values()) < 3.0, sorted((s, *waits[index]) for index, s in took_s.items())
    peer.node.destroy_publisher(camera)


@pytest.mark.timed
def test_a_long_frame_does_not_keep_it(peer: Peer, tmp_path: Path) -> None:
    """It is left behind: who sends a signal is patient for some seconds alone."""
    arguments = '-r __node:=long -r image:=/long_image -p model:=null:10000'
    took_s = []
    # The machine may have other work.
    while not took_s or (took_s[-1] >= 3 and len(took_s) < 3):
        log = tmp_path / str(len(took_s))
        with start_node(log, arguments, FASTDDS_BUILTIN_TRANSPORTS='UDPv4') as process:
            process.wait_for('active')
            camera = peer.camera(topic='/long_image')
            camera.publish(bgr_message(peer.header(), np.zeros((48, 64, 3), np.uint8)))
            wait_until(lambda: values(peer.status('long'))['in_flight'] == '1', 'the frame')
            process.send(signal.SIGINT)
            began_s = time.monotonic()
            assert process.wait() == 0
            took_s.append(time.monotonic() - began_s)
            assert 'Traceback' not in process.output()
    assert min(took_s) < 3, took_s


def test_many_signals_end_it_as_one_does(tmp_path: Path) -> None:
    """What is impatient sends one after the other, and the handler of the first still runs."""
    arguments = '-r __node:=signalled -p autostart:=false'
    for index, delay_s in enumerate((0.5, 4.0)):
        with start_node(tmp_path / str(index), arguments) as process:
            if index:
                process.wait_for_handlers()
            time.sleep(delay_s)
            for round_ in range(2000):
                process.send(signal.SIGINT if round_ % 2 else signal.SIGTERM)
                # The time that a handler takes: sooner, and the kernel makes one of two.
                end = time.perf_counter() + 1e-5
                while time.perf_counter() < end:
                    pass
            # Before Python is up a signal ends the process by itself.
            assert process.wait() in ((0, -signal.SIGINT, -signal.SIGTERM) if index == 0 else (0,))
            assert 'Traceback' not in process.output()


def test_shipped_parameters_come_first(peer: Peer, tmp_path: Path) -> None:
    """The user's own files and arguments beat them, and a file for another node is named."""
    own, other = tmp_path / 'own.yaml', tmp_path / 'other.yaml'
    own.write_text('/ns/own:\n  ros__parameters:\n    filter.score_threshold: 0.25\n')
    other.write_text('seg_node:\n  ros__parameters:\n    filter.score_threshold: 0.75\n')
    waiting = '-p autostart:=false'
    with (
        Process(
            [sys.executable, '-m', 'segnode', 'node'], tmp_path / 'bare', ROS_LOG_DIR=str(tmp_path)
        ) as bare,
        start_node(
            tmp_path / 'given', f'{waiting} -r __node:=given -p filter.score_threshold:=0.3'
        ),
        start_node(
            tmp_path / 'files',
            f'{waiting} -r __node:=own -r __ns:=/ns --params-file {own} --params-file {other}',
        ) as files,
    ):
        thresholds = {
            name: peer.get('filter.score_threshold', name)
            for name in ('/segnode', '/given', '/ns/own')
        }
        warnings = [line for line in files.output().splitlines() if '[WARN]' in line]
        named = [line.partition(']: ')[2].partition(', so')[0] for line in warnings]
        assert (thresholds, named) == (
            {'/segnode': 0.5, '/given': 0.3, '/ns/own': 0.25},
            [f'{other}: expected parameters of /ns/own, found only seg_node'],
        )
        # That no image comes is right, where the other two take long.
        warnings = [line for line in bare.output().splitlines() if '[WARN]' in line]
        assert [line for line in warnings if 'no image for' not in line] == []


@pytest.mark.timed
def test_it_answers_while_it_configures(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slowly weights come: a manager and an operator see what it is doing."""
    with running_server(monkeypatch) as server:
        server.answering.clear()
        arguments = (
            '-r __node:=slow -p autostart:=false -p model:=mask_rcnn_R_50_FPN_3x '
            f'-p weights:={server.url}/model.pkl'
        )
        with start_node(tmp_path / 'log', arguments, SEGNODE_CACHE=str(tmp_path)) as process:
            configure = ChangeState.Request()
            configure.transition.id = Transition.TRANSITION_CONFIGURE
            client = peer.node.create_client(ChangeState, '/slow/change_state')
            assert client.wait_for_service(60)
            configured = client.call_async(configure)
            process.wait_for('fetching')
            assert peer.state('/slow') == 'configuring'
            assert not peer.change_state(Transition.TRANSITION_ACTIVATE, '/slow')
            assert peer.set({'class_id_format': 'index'}, '/slow').successful
            assert peer.get('class_id_format', '/slow') == 'index'
            refused = peer.set({'filter.classes': ['dgo']}, '/slow')
            assert not refused.successful
            assert 'the model is being loaded' in refused.reason
            status = peer.status('slow')
            assert status.level == DiagnosticStatus.OK
            assert status.message.startswith('configuring: fetching')
            assert values(status)['state'] == 'configuring'
            assert not configured.done()
            server.answering.set()
            wait_until(configured.done, 'the end of it')
            # What came are no weights, which the diagnostics tell as the log does.
            assert not configured.result().success
            assert peer.state('/slow') == 'unconfigured'
            status = peer.status('slow')
            assert status.level == DiagnosticStatus.ERROR
            assert 'model.pkl' in status.message
            assert 'Traceback' not in process.output()
            # Another try, and an end in the middle of it; what is cached would be refused at once.
            shutil.rmtree(next(tmp_path.glob('*/model.pkl')).parent)
            server.answering.clear()
            client.call_async(configure)
            wait_until(lambda: peer.state('/slow') == 'configuring', 'another try')
            process.send(signal.SIGINT)
            began_s = time.monotonic()
            assert process.wait() == 0
            assert time.monotonic() - began_s < 10
            server.answering.set()


@pytest.fixture(scope='module')
def fatal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Process]]:
    """Nodes that cannot start, all started at once."""
    folder = tmp_path_factory.mktemp('fatal')
    broken = folder / 'broken.yaml'
    broken.write_text('/**: [\n', encoding='utf-8')
    text = folder / 'text.yaml'
    text.write_text('/**:\n  ros__parameters:\n    use_sim_time: "true"\n', encoding='utf-8')
    # All that an enclave has, by name; a middleware with the plugin would refuse what is in them.
    enclave = folder / 'keys' / 'enclaves' / 'robot'
    enclave.mkdir(parents=True)
    for name in ('identity_ca.cert', 'cert', 'key', 'permissions_ca.cert'):
        (enclave / f'{name}.pem').touch()
    for name in ('governance.p7s', 'permissions.p7s'):
        (enclave / name).touch()
    secure = {'ROS_SECURITY_ENABLE': 'true', 'ROS_SECURITY_KEYSTORE': str(folder / 'keys')}
    enforced = secure | {'ROS_SECURITY_STRATEGY': 'Enforce'}
    arguments = {
        'no such model': '-p model:=/no/such/model.yaml',
        'unknown class': '-p filter.classes:=[unicorn]',
        'out of range': '-p filter.score_threshold:=1.5',
        'no such file': '--params-file /no/such/file.yaml',
        'wrong ROS argument': '--wrong',
        'broken YAML': f'--params-file {broken}',
        'text for a boolean': f'--params-file {text}',
        'wrong topic': '-p image_topics:=[/camera-1/image_raw]',
        'no server': '-p weights:=http://127.0.0.1:9/model.pth',
        'no place for logs': '',
        'no such middleware': '',
        'no such domain': '',
        'no use of keys': '--enclave /robot',
        'no use of keys, enforced': '--enclave /robot',
        'no such enclave': '--enclave /other',
        'no keystore': '',
    }
    environment = {
        'no server': {'SEGNODE_CACHE': str(folder)},
        'no place for logs': {'ROS_LOG_DIR': '/proc/nowhere'},
        'no such middleware': {'RMW_IMPLEMENTATION': 'rmw_none_cpp'},
        'no such domain': {'ROS_DOMAIN_ID': '300'},
        'no use of keys': secure,
        'no use of keys, enforced': enforced,
        'no such enclave': enforced,
        'no keystore': enforced | {'ROS_SECURITY_KEYSTORE': ''},
    }
    processes = {
        name: start_node(folder / name.replace(' ', '_'), extra, **environment.get(name, {}))
        for name, extra in arguments.items()
    }
    yield processes
    for process in processes.values():
        process.__exit__()


@pytest.mark.parametrize(
    ('name', 'code', 'text'),
    [
        ('no such model', 2, '/no/such/model.yaml'),
        ('unknown class', 2, 'unicorn'),
        ('out of range', 2, 'filter.score_threshold: expected'),
        ('no such file', 2, '/no/such/file.yaml: expected a YAML file of ROS parameters'),
        ('wrong ROS argument', 2, '--wrong'),
        ('broken YAML', 2, 'broken.yaml: expected a YAML file of ROS parameters, found broken'),
        ('text for a boolean', 2, "'use_sim_time' to 'true' of type 'STRING', expecting type 'BO"),
        ('wrong topic', 2, "image_topics: expected a topic name, found '/camera-1/image_raw'"),
        # It may answer when the node is started again.
        ('no server', 1, 'cannot be fetched'),
        ('no place for logs', 2, 'set ROS_LOG_DIR'),
        ('no such middleware', 2, 'RMW_IMPLEMENTATION: expected what is installed (rmw_'),
        ('no such domain', 2, "ROS_DOMAIN_ID: expected 0 to 232, found '300'"),
        ('no use of keys', 2, 'ROS_SECURITY_ENABLE: expected '),
        ('no use of keys, enforced', 2, 'ROS_SECURITY_ENABLE: expected '),
        ('no such enclave', 2, 'ROS_SECURITY_KEYSTORE: expected one with the enclave of this'),
        ('no keystore', 2, 'ROS_SECURITY_KEYSTORE: expected a folder, found it unset'),
    ],
)
def test_fatal_faults_end_it_with_an_error(
    fatal: dict[str, Process], name: str, code: int, text: str
) -> None:
    process = fatal[name]
    assert process.wait() == code, process.output()
    marks = ('[ERROR]', '[FATAL]', 'segnode: error:')
    complaints = [
        line for line in process.output().splitlines() if any(mark in line for mark in marks)
    ]
    assert 'Traceback' not in process.output()
    own = [line for line in complaints if '[rcl]' not in line]
    assert [text in line for line in own] == [True], process.output()
