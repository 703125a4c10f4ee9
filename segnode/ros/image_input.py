# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A camera's subscription: QoS that fits the publishers, undecoded messages, and decoding."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cv2
from builtin_interfaces.msg import Time
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

from segnode.errors import ImageError
from segnode.image import Image, Lend
from segnode.live.cdr import is_plain, read_image
from segnode.live.grey_values import GreyValues
from segnode.live.image_message import UnsupportedEncodingError, decode_compressed, decode_image
from segnode.ros.intake import Intake

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

TYPE_NAMES = {
    ImageMessage: 'sensor_msgs/msg/Image',
    CompressedImage: 'sensor_msgs/msg/CompressedImage',
}


def common_reliability(offers: Sequence[ReliabilityPolicy]) -> ReliabilityPolicy:
    """Return reliable where every publisher offers it, else best effort, which fits them all.

    Without a publisher it is reliable: large raw images rarely survive best effort.
    """
    if all(offer == ReliabilityPolicy.RELIABLE for offer in offers):
        return ReliabilityPolicy.RELIABLE
    return ReliabilityPolicy.BEST_EFFORT


class ImageInput:
    """One camera: every message goes to a callback as its serialised bytes.

    Bytes are deserialised and decoded only for frames that are worked on.

    Attributes:
        topic: the full name of what is subscribed.
        base_topic: the same without the transport.
        messages_lost: losses that the middleware reported, None where it cannot.
    """

    def __init__(
        self,
        node: LifecycleNode,
        intake: Intake,
        topic: str,
        transport: str,
        qos: str,
        receive: Callable[[bytes], None],
        grey: GreyValues | None = None,
        lend: Lend | None = None,
    ) -> None:
        """Prepare a subscription without opening it.

        Args:
            node: the node that subscribes.
            intake: takes its messages.
            topic: the camera's base topic, before remapping.
            transport: ``raw`` or ``compressed``.
            qos: ``auto``, ``sensor_data`` or ``reliable``.
            receive: called with each message, in the intake's thread.
            grey: scales values of 16 bits; None takes them as they are.
            lend: lends the memory that images are decoded into; None takes what comes.
        """
        self._node = node
        self._intake = intake
        self._receive = receive
        self._grey = grey
        self._lend = lend
        self._message_type = CompressedImage if transport == 'compressed' else ImageMessage
        self.topic = self.base_topic = node.resolve_topic_name(topic)
        # rclpy remaps what it is given: a name that is resolved would be remapped once more.
        self._name = topic
        if transport == 'compressed':
            # As image_transport does: remap the base topic first, then add the transport.
            self._name = f'{self.base_topic}/compressed'
            self.topic = node.resolve_topic_name(self._name)
        self.messages_lost: int | None = 0
        override = f'qos_overrides.{self.topic}.subscription.reliability'
        self._follows = qos == 'auto' and override not in node._parameter_overrides
        self._reliability = (
            ReliabilityPolicy.BEST_EFFORT if qos == 'sensor_data' else ReliabilityPolicy.RELIABLE
        )
        self._subscription: Subscription | None = None
        # A transition closes it in another thread than the one that follows publishers.
        self._changing = threading.RLock()

    def open(self) -> None:
        """Subscribe."""
        with self._changing:
            if self._follows:
                self._reliability = common_reliability(self._offers())
            try:
                self._subscription = self._subscribe(
                    {'message_lost': self._count_lost, 'incompatible_qos': self._note_incompatible}
                )
            except UnsupportedEventTypeError:
                self.messages_lost = None
                self._subscription = self._subscribe({})

    def close(self) -> None:
        """Unsubscribe."""
        with self._changing:
            if self._subscription is not None:
                self._intake.unsubscribe(self._subscription)
                self._subscription = None

    def follow_publishers(self) -> None:
        """Subscribe anew where the publishers' reliability has changed."""
        if not self._follows:
            return
        with self._changing:
            offers = self._offers() if self._subscription is not None else []
            if not offers or common_reliability(offers) == self._reliability:
                return
            self.close()
            self.open()
        self._node.get_logger().info(
            f'{self.topic}: subscribed {self._reliability.name.lower()} as it is published'
        )

    def silence(self) -> str:
        """Say why no image may be coming, and what to do."""
        publishers = self._node.get_publishers_info_by_topic(self._name)
        if not publishers:
            return f'nobody publishes {self.topic}; check image_topics, remapping, ROS_DOMAIN_ID'
        expected = TYPE_NAMES[self._message_type]
        others = sorted({p.topic_type for p in publishers} - {expected})
        if others:
            remedy = "subscribe to the camera's colour images"
            if self.topic.endswith('/compressedDepth'):
                remedy = f'it is a depth image: {remedy}'
            elif set(others) <= set(TYPE_NAMES.values()):
                remedy = 'check image_transport'
            return f'{self.topic} is {", ".join(others)}, not {expected}; {remedy}'
        offered = common_reliability([p.qos_profile.reliability for p in publishers])
        if self._reliability == ReliabilityPolicy.RELIABLE != offered:
            return (
                f'incompatible QoS: {self.topic} is published best effort and subscribed '
                'reliable; set image_qos to auto'
            )
        if self._reliability == ReliabilityPolicy.RELIABLE:
            return f'the publisher of {self.topic} is silent'
        return (
            f'the publisher of {self.topic} is silent, or its images are lost on the way: give '
            "the camera's process the Fast DDS profile of segnode (config/fastdds.xml says how) "
            'or a reliable publisher'
        )

    def decode(self, data: bytes) -> tuple[Header, Image]:
        """Return header and pixels of a serialised message.

        Raises:
            ImageError: the message or the image in it cannot be decoded.
        """
        try:
            # The pixels of raw images stay where they are.
            viewed = self._message_type is ImageMessage and is_plain(data)
            message: Any = read_image(data) if viewed else self._deserialised(data)
        except (RuntimeError, ValueError) as error:
            raise ImageError(f'expected {TYPE_NAMES[self._message_type]}: {error}') from None
        if self._message_type is CompressedImage:
            return message.header, decode_compressed(
                format=message.format, data=message.data, grey=self._grey, lend=self._lend
            )
        try:
            image = decode_image(
                height=message.height,
                width=message.width,
                encoding=message.encoding,
                is_bigendian=bool(message.is_bigendian),
                step=message.step,
                data=message.data,
                grey=self._grey,
                lend=self._lend,
            )
        except UnsupportedEncodingError as error:
            image = _decode_with_cv_bridge(partial(self._deserialised, data), error)
        header = message.header
        if viewed:
            stamp = Time(sec=header.stamp.sec, nanosec=header.stamp.nanosec)
            header = Header(stamp=stamp, frame_id=header.frame_id)
        return header, image

    def _deserialised(self, data: bytes) -> Any:
        return deserialize_message(data, self._message_type)

    def _offers(self) -> list[ReliabilityPolicy]:
        publishers = self._node.get_publishers_info_by_topic(self._name)
        return [p.qos_profile.reliability for p in publishers]

    def _subscribe(self, callbacks: dict[str, Callable[[Any], None]]) -> Subscription:
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=1,
            reliability=self._reliability,
            durability=DurabilityPolicy.VOLATILE,
        )
        kinds = [QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH]
        if not self._follows:
            # An override that is declared once would pin the reliability of all that follow.
            kinds.append(QoSPolicyKind.RELIABILITY)
        subscription = self._intake.subscribe(
            self._message_type,
            self._name,
            self._receive,
            profile,
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False, **callbacks),
            qos_overriding_options=QoSOverridingOptions(kinds),
        )
        self._reliability = profile.reliability
        return subscription

    def _note_incompatible(self, _event: Any) -> None:
        if self._follows:
            self.follow_publishers()
        else:
            self._node.get_logger().warning(self.silence())

    def _count_lost(self, event: Any) -> None:
        self.messages_lost = (self.messages_lost or 0) + event.total_count_change


def _decode_with_cv_bridge(
    read: Callable[[], ImageMessage], unsupported: UnsupportedEncodingError
) -> Image:
    try:
        bridge = importlib.import_module('cv_bridge').CvBridge()
    except ImportError:
        raise unsupported from None
    try:
        return Image(bridge.imgmsg_to_cv2(read(), 'bgr8'), 'bgr')
    except (TypeError, ValueError, LookupError, RuntimeError, cv2.error) as error:
        raise ImageError(f'{unsupported}; cv_bridge: {error}') from None
