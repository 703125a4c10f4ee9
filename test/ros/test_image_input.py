# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A camera's subscription: reliability, reasons for silence, and decoding with its fallback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

import rclpy
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from rclpy.serialization import serialize_message
from ros_harness import DOMAIN_ID, TIMEOUT_S, Peer, bgr_message, wait_until
from sensor_msgs.msg import CompressedImage, PointCloud2
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

from segnode.errors import ImageError
from segnode.ros.image_input import ImageInput, common_reliability
from segnode.ros.intake import Intake

pytestmark = pytest.mark.ros

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
PIXELS = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)


@pytest.fixture(scope='module')
def peer() -> Iterator[Peer]:
    with Peer('input_peer') as peer:
        yield peer


@pytest.fixture
def subscribe() -> Iterator[Any]:
    """Make an input on a node of its own, started with some overrides."""
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN_ID)
    intakes: list[Intake] = []

    def make(
        transport: str = 'raw', qos: str = 'auto', topic: str = 'input_image', **overrides: Any
    ) -> ImageInput:
        given = [Parameter(name, value=value) for name, value in overrides.items()]
        node = LifecycleNode('input', context=context, parameter_overrides=given)
        intakes.append(Intake(node))
        return ImageInput(node, intakes[-1], topic, transport, qos, lambda data: None)

    yield make
    assert all(intake.close(TIMEOUT_S) for intake in intakes)
    context.try_shutdown()


@pytest.mark.parametrize(
    ('offers', 'expected'),
    [
        ([], RELIABLE),
        ([RELIABLE], RELIABLE),
        ([RELIABLE, RELIABLE], RELIABLE),
        ([RELIABLE, BEST_EFFORT], BEST_EFFORT),
        ([BEST_EFFORT], BEST_EFFORT),
        ([ReliabilityPolicy.UNKNOWN], BEST_EFFORT),
    ],
)
def test_reliability_fits_every_publisher(
    offers: list[ReliabilityPolicy], expected: ReliabilityPolicy
) -> None:
    assert common_reliability(offers) == expected


@pytest.mark.parametrize(
    ('qos', 'overrides', 'expected'),
    [
        ('auto', {}, RELIABLE),
        ('sensor_data', {}, BEST_EFFORT),
        ('reliable', {}, RELIABLE),
        (
            'auto',
            {'qos_overrides./input_image.subscription.reliability': 'best_effort'},
            BEST_EFFORT,
        ),
        (
            'sensor_data',
            {'qos_overrides./input_image.subscription.reliability': 'reliable'},
            RELIABLE,
        ),
    ],
)
def test_reliability_is_what_was_asked_for(
    subscribe: Any, peer: Peer, qos: str, overrides: dict[str, str], expected: ReliabilityPolicy
) -> None:
    camera = subscribe(qos=qos, **overrides)
    camera.open()

    def subscriptions() -> list[ReliabilityPolicy]:
        infos = peer.node.get_subscriptions_info_by_topic('/input_image')
        return [info.qos_profile.reliability for info in infos]

    wait_until(lambda: subscriptions() == [expected], 'subscription')
    camera.follow_publishers()
    camera.close()
    wait_until(lambda: subscriptions() == [], 'end of the subscription')


def test_incompatible_qos_is_the_reason_for_silence(subscribe: Any, peer: Peer) -> None:
    camera = subscribe(qos='reliable')
    camera.open()
    assert 'nobody publishes /input_image' in camera.silence()
    publisher = peer.advertise(ImageMessage, '/input_image', reliable=False)
    wait_until(lambda: 'incompatible QoS' in camera.silence(), camera.silence)
    peer.node.destroy_publisher(publisher)
    best_effort = subscribe(qos='sensor_data')
    publisher = peer.advertise(ImageMessage, '/input_image')
    wait_until(lambda: 'fastdds.xml' in best_effort.silence(), 'hint')
    peer.node.destroy_publisher(publisher)


@pytest.mark.parametrize(
    ('message_type', 'topic', 'remedy'),
    [
        (CompressedImage, 'front/image', 'check image_transport'),
        (CompressedImage, 'depth/compressedDepth', 'it is a depth image: subscribe to the'),
        (PointCloud2, 'depth/points', "subscribe to the camera's colour images"),
    ],
)
def test_a_wrong_type_is_the_reason_for_silence(
    subscribe: Any, peer: Peer, message_type: type, topic: str, remedy: str
) -> None:
    publisher = peer.advertise(message_type, f'/{topic}')
    camera = subscribe(topic=topic)
    found = f'/{topic} is sensor_msgs/msg/{message_type.__name__}, not sensor_msgs/msg/Image; '
    wait_until(lambda: found + remedy in camera.silence(), camera.silence)
    peer.node.destroy_publisher(publisher)


def test_compressed_topic_lies_beside_the_image(subscribe: Any) -> None:
    assert subscribe(transport='compressed').topic == '/input_image/compressed'


@pytest.mark.parametrize(
    ('transport', 'data'),
    [
        ('raw', b''),
        ('raw', b'\x00\x01\x00\x00'),
        ('raw', b'\xff' * 100),
        ('compressed', b'\x00\x01\x00\x00' + b'\xff' * 64),
        ('compressed', serialize_message(CompressedImage(format='jpeg', data=b'noise'))),
    ],
)
def test_noise_is_an_image_error(subscribe: Any, transport: str, data: bytes) -> None:
    with pytest.raises(ImageError):
        subscribe(transport=transport).decode(data)


def test_pixels_stay_where_the_message_has_them(subscribe: Any) -> None:
    message = bgr_message(Header(frame_id='a'), PIXELS)
    data = bytes(serialize_message(message))
    header, image = subscribe().decode(data)
    assert header == message.header
    np.testing.assert_array_equal(image.pixels, PIXELS)
    assert np.shares_memory(image.pixels, np.frombuffer(data, np.uint8))


def test_unknown_encodings_go_to_cv_bridge_where_it_is_installed(
    subscribe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CvBridge:
        """Knows one more encoding."""

        def imgmsg_to_cv2(self, message: ImageMessage, encoding: str) -> npt.NDArray[np.uint8]:
            assert encoding == 'bgr8'
            if message.encoding != 'bgr16':
                raise TypeError('no such encoding')
            return PIXELS

    camera = subscribe()
    message = bgr_message(Header(frame_id='a'), PIXELS)
    message.encoding = 'bgr16'
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    with pytest.raises(ImageError, match="'bgr16' is not supported; supported are rgb8"):
        camera.decode(serialize_message(message))
    cv_bridge = ModuleType('cv_bridge')
    cv_bridge.CvBridge = CvBridge
    monkeypatch.setitem(sys.modules, 'cv_bridge', cv_bridge)
    header, image = camera.decode(serialize_message(message))
    assert header == message.header
    assert image.order == 'bgr'
    np.testing.assert_array_equal(image.pixels, PIXELS)
    message.encoding = '32FC7'
    with pytest.raises(ImageError, match=r"'32FC7' is not supported.*cv_bridge: no such encoding"):
        camera.decode(serialize_message(message))
