# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The node's contract over real DDS: one node, started with the shipped parameter file."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.publisher import Publisher
from rclpy.qos import ReliabilityPolicy
from ros_harness import (
    SEG_YAML,
    Peer,
    Process,
    bgr_message,
    label_image,
    start_node,
    values,
    wait_until,
)
from sensor_msgs.msg import CameraInfo, CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header
from vision_msgs.msg import LabelInfo

from segnode.config import Config, Filter, Resolution
from segnode.demo.scene import CLASS_NAMES, DEMO_SEEDS, Scene
from segnode.engine import Engine, Segmentation
from segnode.image import Image
from segnode.live.image_message import SUPPORTED_ENCODINGS, decode_image
from segnode.ros.messages import to_nanoseconds

pytestmark = pytest.mark.ros

SHORT_SIDE = 240
SCORE_THRESHOLD = 0.3


@pytest.fixture(scope='module')
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    log = tmp_path_factory.mktemp('node') / 'log'
    with start_node(log, f'--params-file {SEG_YAML}') as process:
        process.wait_for('active')
        yield process


@pytest.fixture(scope='module')
def peer(node: Process) -> Iterator[Peer]:
    with Peer() as peer:
        peer.watch('/segnode')
        changes = {
            'resolution.short_side': SHORT_SIDE,
            'filter.score_threshold': SCORE_THRESHOLD,
        }
        assert peer.set(changes).successful
        yield peer


@pytest.fixture(scope='module')
def camera(peer: Peer) -> Publisher:
    return peer.camera()


@pytest.fixture(scope='module')
def engine() -> Engine:
    """The same model in this process, with the settings of the node: the oracle."""
    return Engine(
        Config(
            filter=Filter(score_threshold=SCORE_THRESHOLD),
            resolution=Resolution(short_side=SHORT_SIDE),
        )
    )


@pytest.fixture(scope='module')
def scene() -> npt.NDArray[np.uint8]:
    """A scene as BGR, (240, 320, 3)."""
    (frame,) = Scene(DEMO_SEEDS[0], image_hw=(240, 320)).frames(1)
    return frame.image


def _assert_same(answer: dict[str, Any], expected: Segmentation) -> None:
    """The node's answer is what the engine says."""
    detections = answer['detections'].detections
    assert len(detections) == len(expected.detections)
    boxes = [
        (d.bbox.center.position.x, d.bbox.center.position.y, d.bbox.size_x, d.bbox.size_y)
        for d in detections
    ]
    x0, y0, x1, y1 = expected.detections.boxes_xyxy.T
    wanted = np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], axis=1)
    np.testing.assert_allclose(np.array(boxes).reshape(-1, 4), wanted, atol=0.05)
    labels = label_image(answer['instance_mask'])
    assert labels.shape == expected.label_image.shape
    assert (labels != expected.label_image).mean() < 1e-3


@pytest.mark.smoke
def test_every_topic_keeps_its_contract(
    peer: Peer, camera: Publisher, scene: npt.NDArray[np.uint8], engine: Engine
) -> None:
    header = peer.header('some/odd frame')
    answer = peer.exchange(camera, bgr_message(header, scene))
    for message in answer.values():
        assert message.header == header
    detections = answer['detections'].detections
    assert len(detections) >= 2
    assert [d.id for d in detections] == [str(k + 1) for k in range(len(detections))]
    scores = [d.results[0].hypothesis.score for d in detections]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > SCORE_THRESHOLD
    labels = label_image(answer['instance_mask'])
    assert labels.shape == scene.shape[:2]
    assert labels.max() <= len(detections)
    for k, detection in enumerate(detections, start=1):
        assert detection.header == header
        assert detection.results[0].hypothesis.class_id in CLASS_NAMES
        rows, columns = np.nonzero(labels == k)
        if rows.size:
            box, centre = detection.bbox, detection.bbox.center.position
            assert columns.min() >= centre.x - box.size_x / 2 - 1
            assert columns.max() <= centre.x + box.size_x / 2 + 1
            assert rows.min() >= centre.y - box.size_y / 2 - 1
            assert rows.max() <= centre.y + box.size_y / 2 + 1
    times = values(answer['stage_times'].status[0])
    assert {'wait_ms', 'decode_ms', 'backbone_ms', 'paste_ms', 'publish_ms'} <= set(times)
    assert (times['network_height'], times['network_width']) == ('240', '320')
    assert times['kept'] == str(len(detections))
    _assert_same(answer, engine.segment([_decode(bgr_message(header, scene))])[0])


def test_nothing_found_is_published_too(
    peer: Peer, camera: Publisher, scene: npt.NDArray[np.uint8]
) -> None:
    assert peer.set({'filter.score_threshold': 1.0}).successful
    answer = peer.exchange(camera, bgr_message(peer.header(), scene))
    assert answer['detections'].detections == []
    assert label_image(answer['instance_mask']).max() == 0
    assert values(answer['stage_times'].status[0])['kept'] == '0'
    assert peer.set({'filter.score_threshold': SCORE_THRESHOLD}).successful


def _encode(encoding: str, scene: npt.NDArray[np.uint8]) -> npt.NDArray[np.generic]:
    """Return rows of an image in one of the encodings, (rows, anything) of 8 or 16 bits."""
    height, width = scene.shape[:2]
    if encoding in ('bgr8', '8UC3'):
        return scene.reshape(height, -1)
    if encoding == 'rgb8':
        return cv2.cvtColor(scene, cv2.COLOR_BGR2RGB).reshape(height, -1)
    if encoding == 'bgra8':
        return cv2.cvtColor(scene, cv2.COLOR_BGR2BGRA).reshape(height, -1)
    if encoding == 'rgba8':
        return cv2.cvtColor(scene, cv2.COLOR_BGR2RGBA).reshape(height, -1)
    grey = cv2.cvtColor(scene, cv2.COLOR_BGR2GRAY)
    if encoding in ('mono8', '8UC1'):
        return grey
    if encoding == 'mono16':
        return grey.astype(np.uint16) * 257
    if encoding.startswith('bayer'):
        # Where blue and red lie in a mosaic is the decoder's business; here grey will do.
        return grey
    planes = cv2.cvtColor(scene, cv2.COLOR_BGR2YUV_I420).reshape(-1)
    luma = planes[: height * width].reshape(height, width)
    u, v = planes[height * width :].reshape(2, height // 2, width // 2)
    if encoding in ('nv12', 'nv21'):
        chroma = np.stack([u, v] if encoding == 'nv12' else [v, u], axis=-1)
        return np.vstack([luma, chroma.reshape(height // 2, width)])
    u, v = u.repeat(2, axis=0), v.repeat(2, axis=0)
    packed = np.empty((height, width // 2, 4), np.uint8)
    order = (1, 0, 3, 2) if encoding in ('uyvy', 'yuv422') else (0, 1, 2, 3)
    for position, plane in zip(order, (luma[:, ::2], u, luma[:, 1::2], v), strict=True):
        packed[..., position] = plane
    return packed.reshape(height, -1)


def _encoded_message(
    header: Header, encoding: str, scene: npt.NDArray[np.uint8], padding: int, big_endian: bool
) -> ImageMessage:
    rows = _encode(encoding, scene)
    if rows.dtype == np.uint16:
        rows = rows.astype('>u2' if big_endian else '<u2')
    rows = np.ascontiguousarray(rows).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    return ImageMessage(
        header=header,
        height=scene.shape[0],
        width=scene.shape[1],
        encoding=encoding,
        is_bigendian=big_endian,
        step=rows.shape[1],
        data=rows.tobytes(),
    )


def _decode(message: ImageMessage) -> Any:
    return decode_image(
        height=message.height,
        width=message.width,
        encoding=message.encoding,
        is_bigendian=bool(message.is_bigendian),
        step=message.step,
        data=bytes(message.data),
    )


@pytest.mark.parametrize('encoding', SUPPORTED_ENCODINGS)
@pytest.mark.parametrize(('padding', 'big_endian'), [(0, False), (12, True)])
def test_every_encoding(
    peer: Peer,
    camera: Publisher,
    scene: npt.NDArray[np.uint8],
    engine: Engine,
    encoding: str,
    padding: int,
    big_endian: bool,
) -> None:
    message = _encoded_message(peer.header(), encoding, scene, padding, big_endian)
    image = _decode(message)
    assert image.pixels.shape == scene.shape
    _assert_same(peer.exchange(camera, message), engine.segment([image])[0])


def test_a_camera_of_12_bits_is_said_and_scaled(
    node: Process, peer: Peer, camera: Publisher, scene: npt.NDArray[np.uint8], engine: Engine
) -> None:
    grey = cv2.cvtColor(scene, cv2.COLOR_BGR2GRAY)
    message = _encoded_message(peer.header(), 'mono16', scene, 0, big_endian=False)
    message.data = (grey.astype('<u2') * 16).tobytes()

    def exchange() -> dict[str, Any]:
        message.header = peer.header()
        return peer.exchange(camera, message)

    for _ in range(30):
        exchange()
    status = peer.status_once(lambda status: 'set mono16_bits to 12' in status.message, exchange)
    assert status.level == DiagnosticStatus.WARN
    wait_until(lambda: 'set mono16_bits to 12' in node.output(), node.output)
    assert peer.set({'mono16_bits': 12}).successful
    image = Image(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), 'bgr')
    _assert_same(exchange(), engine.segment([image])[0])
    peer.status_once(lambda status: status.level == DiagnosticStatus.OK, exchange)
    assert not peer.set({'mono16_bits': 7}).successful
    assert peer.set({'mono16_bits': 16}).successful


def test_size_changes_in_mid_stream(
    peer: Peer, camera: Publisher, scene: npt.NDArray[np.uint8]
) -> None:
    for height, width in ((240, 320), (480, 640), (321, 123), (1, 1), (3, 200), (240, 320)):
        pixels = cv2.resize(scene, (width, height))
        answer = peer.exchange(camera, bgr_message(peer.header(), pixels))
        mask = answer['instance_mask']
        assert (mask.height, mask.width) == (height, width)
    assert len(answer['detections'].detections) >= 2


def test_bad_frames_are_counted_and_stop_nothing(
    node: Process, peer: Peer, camera: Publisher, scene: npt.NDArray[np.uint8]
) -> None:
    before, seen = peer.counts(), len(peer.received['/diagnostics'])
    bad = [bgr_message(peer.header(), scene) for _ in range(5)]
    bad[0].encoding = 'jpeg2000'
    bad[1].data = bad[1].data[:-1]
    bad[2].height, bad[2].width, bad[2].step = 0, 0, 0
    bad[3].step = 7
    bad[4].height = 2**31
    for count, message in enumerate(bad, start=1):
        camera.publish(message)
        wait_until(
            lambda n=count: peer.counts()['dropped_decode'] == before['dropped_decode'] + n,
            f'{count} frames dropped',
        )
    failed = [s for m in peer.received['/diagnostics'][seen:] for s in m.status if s.level]
    levels = {status.level for status in failed if 'a frame failed' in status.message}
    assert levels == {DiagnosticStatus.ERROR}
    assert "'jpeg2000'" in node.output()
    assert 'bgr8' in node.output()
    peer.exchange(camera, bgr_message(peer.header(), scene))
    after = peer.counts()
    assert after['published'] == before['published'] + 1
    assert after['received'] == before['received'] + len(bad) + 1
    assert 'Traceback' not in node.output()
    peer.recover(camera, scene)


@pytest.mark.timed
def test_ten_failures_in_a_row_and_recovery(
    peer: Peer, camera: Publisher, scene: npt.NDArray[np.uint8]
) -> None:
    message = bgr_message(peer.header(), scene)
    message.encoding = '32FC1'
    for _ in range(30):
        camera.publish(message)
        time.sleep(0.05)
    status = peer.status_once(
        lambda status: 'frames failed' in status.message, lambda: camera.publish(message)
    )
    assert status.level == DiagnosticStatus.ERROR
    assert 'check the image encoding' in status.message
    peer.exchange(camera, bgr_message(peer.header(), scene))
    peer.recover(camera, scene)


def test_zero_stamp_and_empty_frame_id_stay(
    peer: Peer, camera: Publisher, scene: npt.NDArray[np.uint8]
) -> None:
    answer = peer.exchange(camera, bgr_message(Header(), scene))
    for message in answer.values():
        assert message.header == Header()
    assert answer['detections'].detections[0].header == Header()


def test_ages_are_of_the_stamp(
    peer: Peer, camera: Publisher, scene: npt.NDArray[np.uint8]
) -> None:
    header = peer.header()
    late_ms = (peer.node.get_clock().now().nanoseconds - to_nanoseconds(header.stamp)) / 1e6
    peer.exchange(camera, bgr_message(header, scene))
    # The age counts a moment after the outputs. The stamps of the tests lie an hour back.
    status = peer.status_once(lambda status: 'age_ms_max' in values(status))
    assert late_ms < float(values(status)['age_ms_max']) < late_ms + 60_000


def test_stamps_of_another_clock_are_said_and_their_ages_withdrawn(
    peer: Peer, camera: Publisher, scene: npt.NDArray[np.uint8]
) -> None:
    small = cv2.resize(scene, (64, 48))
    now_s = int(time.time())
    ahead = int(values(peer.status())['stamps_ahead'])
    sent: Counter[str] = Counter()
    for stamp_s, part in (
        (now_s + 300, "s ahead of the node's clock: set use_sim_time for simulated or replayed"),
        (1000, "days behind the node's clock: set use_sim_time"),
        (0, 'the images have no stamp'),
    ):
        header = Header(stamp=Time(sec=stamp_s), frame_id=f'of {stamp_s}')

        def exchange(header: Header = header) -> None:
            # All have the same stamp.
            peer.received['/segnode/detections'].clear()
            peer.exchange(camera, bgr_message(header, small))
            sent[header.frame_id] += 1

        status = peer.status_once(lambda status, part=part: part in status.message, exchange)
        assert status.level == DiagnosticStatus.WARN, status.message
        assert 'age_ms_p50' not in values(status)
    assert int(values(peer.status())['stamps_ahead']) == ahead + sent[f'of {now_s + 300}']
    peer.recover(camera, small)


@pytest.mark.smoke
def test_filters_and_resolution_change_at_run_time(
    peer: Peer, camera: Publisher, scene: npt.NDArray[np.uint8], engine: Engine
) -> None:
    full = peer.exchange(camera, bgr_message(peer.header(), scene))
    names = [d.results[0].hypothesis.class_id for d in full['detections'].detections]
    areas = engine.segment([_decode(bgr_message(peer.header(), scene))])[0].detections.mask_areas
    median = int(np.median(areas))

    assert peer.set({'filter.min_mask_area': median + 1}).successful
    large = peer.exchange(camera, bgr_message(peer.header(), scene))
    assert len(large['detections'].detections) == (areas > median).sum()
    assert peer.set({'filter.min_mask_area': 0, 'filter.classes': [names[0]]}).successful
    one_class = peer.exchange(camera, bgr_message(peer.header(), scene))
    assert {d.results[0].hypothesis.class_id for d in one_class['detections'].detections} == {
        names[0]
    }
    assert peer.set({'filter.classes': [], 'class_id_format': 'index'}).successful
    indexed = peer.exchange(camera, bgr_message(peer.header(), scene))
    found = [
        CLASS_NAMES[int(d.results[0].hypothesis.class_id)]
        for d in indexed['detections'].detections
    ]
    assert found == names
    assert peer.set({'class_id_format': 'name', 'resolution.short_side': 96}).successful
    small = peer.exchange(camera, bgr_message(peer.header(), scene))
    assert values(small['stage_times'].status[0])['network_height'] == '96'
    assert peer.set({'resolution.short_side': SHORT_SIDE}).successful
    again = peer.exchange(camera, bgr_message(peer.header(), scene))
    assert len(again['detections'].detections) == len(names)


def test_wrong_changes_are_refused_and_change_nothing(
    peer: Peer, camera: Publisher, scene: npt.NDArray[np.uint8]
) -> None:
    refused = {
        'filter.classes': ['unicorn'],
        'filter.score_threshold': 7.5,
        'resolution.short_side': -3,
        'model': 'elsewhere.yaml',
        'class_id_format': 'roman',
    }
    hash_before = values(peer.status())['config_hash']
    for name, value in refused.items():
        result = peer.set({'filter.max_instances': 1, name: value})
        assert not result.successful
        assert name in result.reason
    assert peer.get('filter.max_instances') == 0
    assert values(peer.status())['config_hash'] == hash_before
    answer = peer.exchange(camera, bgr_message(peer.header(), scene))
    assert len(answer['detections'].detections) >= 2
    assert peer.set({'filter.score_threshold': 1}).successful
    assert peer.set({'filter.score_threshold': SCORE_THRESHOLD}).successful


def test_label_info_waits_for_late_subscribers_and_follows_the_threshold(peer: Peer) -> None:
    peer.subscribe(LabelInfo, '/segnode/label_info', latched=True)
    received = peer.received['/segnode/label_info']
    wait_until(lambda: received, 'label_info')
    assert [c.class_name for c in received[-1].class_map] == list(CLASS_NAMES)
    assert received[-1].threshold == pytest.approx(SCORE_THRESHOLD)
    assert peer.set({'filter.score_threshold': 0.75}).successful
    wait_until(lambda: received[-1].threshold == 0.75, 'label_info with the new threshold')
    count = len(received)
    assert peer.set({'filter.min_mask_area': 1}).successful
    assert peer.set(
        {'filter.min_mask_area': 0, 'filter.score_threshold': SCORE_THRESHOLD}
    ).successful
    wait_until(
        lambda: received[-1].threshold == pytest.approx(SCORE_THRESHOLD),
        'label_info with the old threshold',
    )
    assert len(received) == count + 1


@pytest.mark.smoke
def test_outputs_on_demand(peer: Peer, camera: Publisher, scene: npt.NDArray[np.uint8]) -> None:
    on_demand = {
        'class_mask': ImageMessage,
        'confidence_mask': ImageMessage,
        'overlay': ImageMessage,
        'overlay/compressed': CompressedImage,
        'instance_mask/compressed': CompressedImage,
    }
    subscriptions = [
        peer.subscribe(message_type, f'/segnode/{topic}')
        for topic, message_type in on_demand.items()
    ]
    wait_until(lambda: all(s.get_publisher_count() for s in subscriptions), 'publishers on demand')
    # The publishers may learn of the subscribers a little later.
    wait_until(
        lambda: all(
            peer.find(
                f'/segnode/{topic}',
                peer.exchange(camera, bgr_message(peer.header(), scene))['detections'].header,
            )
            for topic in on_demand
        ),
        'outputs on demand',
    )
    header = peer.header('front')
    answer = peer.exchange(camera, bgr_message(header, scene), '/segnode', *on_demand)
    for message in answer.values():
        assert message.header == header
    labels = label_image(answer['instance_mask'])
    png = np.frombuffer(bytes(answer['instance_mask/compressed'].data), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(png, cv2.IMREAD_UNCHANGED), labels)
    classes = answer['class_mask']
    assert (classes.encoding, classes.height, classes.width) == ('mono8', *labels.shape)
    class_values = np.frombuffer(bytes(classes.data), np.uint8).reshape(labels.shape)
    np.testing.assert_array_equal(class_values == 255, labels == 0)
    sure = np.frombuffer(bytes(answer['confidence_mask'].data), np.uint8).reshape(labels.shape)
    np.testing.assert_array_equal(sure > 0, labels > 0)
    for k, detection in enumerate(answer['detections'].detections, start=1):
        # The index that label_info names.
        hypothesis = detection.results[0].hypothesis
        assert (class_values[labels == k] == CLASS_NAMES.index(hypothesis.class_id)).all()
        assert np.abs(sure[labels == k] - hypothesis.score * 255).max(initial=0) <= 0.51
    overlay = answer['overlay']
    assert (overlay.encoding, overlay.height, overlay.width) == ('bgr8', *labels.shape)
    pixels = np.frombuffer(bytes(overlay.data), np.uint8).reshape(scene.shape)
    assert 0.01 < (pixels != scene).any(axis=2).mean() < 0.9
    jpeg = np.frombuffer(bytes(answer['overlay/compressed'].data), np.uint8)
    difference = cv2.imdecode(jpeg, cv2.IMREAD_COLOR).astype(int) - pixels
    assert np.abs(difference).mean() < 10
    for subscription in subscriptions:
        peer.node.destroy_subscription(subscription)


def test_camera_info_goes_with_its_frame(
    peer: Peer, camera: Publisher, scene: npt.NDArray[np.uint8]
) -> None:
    small = cv2.resize(scene, (64, 48))
    assert values(peer.status())['camera_info'] == 'nobody publishes /camera_info'
    assert not peer.node.count_publishers('/segnode/camera_info')
    infos = peer.advertise(CameraInfo, '/camera_info')
    wait_until(lambda: peer.node.count_publishers('/segnode/camera_info') > 0, 'camera_info')
    peer.subscribe(CameraInfo, '/segnode/camera_info')
    wait_until(lambda: infos.get_subscription_count() > 0, 'subscriber of camera_info')
    focal_px = 100.0

    def tell(header: Header) -> None:
        k = [focal_px, 0.0, 32.0, 0.0, focal_px, 24.0, 0.0, 0.0, 1.0]
        infos.publish(CameraInfo(header=header, width=64, height=48, k=k))

    # The publisher may learn of the subscriber a little later.
    def passed_on() -> bool:
        header = peer.header()
        tell(header)
        answer = peer.exchange(camera, bgr_message(header, small))
        return peer.find('/segnode/camera_info', answer['detections'].header) is not None

    wait_until(passed_on, 'the first camera_info')
    headers = [peer.header('front') for _ in range(3)]
    for header in headers:
        focal_px += 1
        tell(header)
    # Another frame gets the newest one: all three have come then.
    wait_until(
        lambda: (
            peer.exchange(
                camera, bgr_message(peer.header('front'), small), '/segnode', 'camera_info'
            )['camera_info'].k[0]
            == focal_px
        ),
        'the newest camera_info',
    )
    # Each frame gets the one of its stamp, though newer ones have come.
    for number, header in enumerate(headers):
        answer = peer.exchange(camera, bgr_message(header, small), '/segnode', 'camera_info')
        info = answer['camera_info']
        assert info.header == header
        assert (info.width, info.height) == (64, 48)
        assert info.k[0] == focal_px - 2 + number
    answer = peer.exchange(
        camera, bgr_message(peer.header('front'), small), '/segnode', 'camera_info'
    )
    assert answer['camera_info'].k[0] == focal_px
    assert 'frames had the newest one' in values(peer.status())['camera_info']
    # No longer than the camera's own.
    peer.node.destroy_publisher(infos)
    wait_until(lambda: not peer.node.count_publishers('/segnode/camera_info'), 'its end')
    assert values(peer.status())['camera_info'] == 'nobody publishes /camera_info'


def test_reliability_follows_the_publishers(
    peer: Peer, camera: Publisher, scene: npt.NDArray[np.uint8]
) -> None:
    def reliability() -> list[ReliabilityPolicy]:
        infos = peer.node.get_subscriptions_info_by_topic('/image')
        return [info.qos_profile.reliability for info in infos]

    wait_until(lambda: reliability() == [ReliabilityPolicy.RELIABLE], 'reliable subscription')
    other = peer.advertise(ImageMessage, '/image', reliable=False)
    wait_until(lambda: reliability() == [ReliabilityPolicy.BEST_EFFORT], 'best effort')
    wait_until(lambda: other.get_subscription_count() == 1, 'match')
    small = cv2.resize(scene, (64, 48))
    header = peer.header()
    # Best effort: a message may be lost, so it is sent until it arrives.
    wait_until(
        lambda: (
            other.publish(bgr_message(header, small))
            or time.sleep(0.2)
            or peer.find('/segnode/detections', header) is not None
        ),
        'answer to a best-effort camera',
    )
    peer.node.destroy_publisher(other)
    wait_until(lambda: reliability() == [ReliabilityPolicy.RELIABLE], 'reliable again')
    wait_until(lambda: camera.get_subscription_count() == 1, 'match')


def test_burst_is_accounted_for_and_the_newest_frame_wins(
    peer: Peer, camera: Publisher, scene: npt.NDArray[np.uint8]
) -> None:
    def burst() -> tuple[int, int]:
        """Return how many frames newer ones replaced, and how many answers were lost."""
        peer.exchange(camera, bgr_message(peer.header(), scene))
        before = peer.counts()
        answers = peer.received['/segnode/detections']
        answers_before = len(answers)
        headers = [peer.header() for _ in range(60)]
        for header in headers:
            camera.publish(bgr_message(header, scene))
            time.sleep(0.005)
        wait_until(
            lambda: peer.find('/segnode/stage_times', headers[-1]) is not None, 'the newest frame'
        )
        after = peer.counts()
        delta = {key: after[key] - before[key] for key in after}
        dropped = sum(count for key, count in delta.items() if key.startswith('dropped_'))
        assert delta['received'] == delta['published'] + dropped
        assert delta['dropped_superseded'] == dropped
        assert 1 < delta['received'] <= 60
        lost = delta['published'] - (len(answers) - answers_before)
        assert lost >= 0
        return dropped, lost

    bursts = []
    # The middleware keeps few: with other work on the machine it may replace frames by itself,
    # and answers that nobody took.
    while not bursts or (len(bursts) < 3 and not (bursts[-1][0] and not bursts[-1][1])):
        bursts.append(burst())
    dropped, lost = bursts[-1]
    assert dropped > 0, bursts
    assert lost == 0, bursts


def test_diagnostics_tell_what_runs(peer: Peer, engine: Engine) -> None:
    # Of the thread that reads the machine; every Linux has it.
    status = peer.status_once(lambda status: 'memory_available_mib' in values(status))
    found = values(status)
    assert status.name == 'segnode: segmentation'
    assert status.hardware_id == 'cpu'
    assert found['state'] == 'active'
    assert found['weights_sha256'] == engine.weights_sha256
    assert found['model'] == engine.model_name
    assert found['precision'] == engine.precision
    assert (found['network_height'], found['network_width']) == ('240', '320')
    assert float(found['backbone_ms_p50']) > 0
    assert float(found['process_memory_mib']) > 50
    assert float(found['memory_available_mib']) > 0
    assert found['message_lost'].isdecimal()


@pytest.mark.smoke
def test_ctrl_c_ends_it_with_zero_and_no_traceback(
    node: Process, peer: Peer, camera: Publisher, scene: npt.NDArray[np.uint8]
) -> None:
    camera.publish(bgr_message(peer.header(), scene))
    node.send(signal.SIGINT)
    node.send(signal.SIGINT)
    assert node.wait() == 0
    assert 'Traceback' not in node.output()
