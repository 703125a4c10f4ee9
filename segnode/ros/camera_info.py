# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The camera's own ``camera_info``, passed on beside its frames.

RViz's Camera display and depth_image_proc want one under the same name and header as the image.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from segnode.ros.messages import to_nanoseconds

# A frame is answered a little later than its message came; by then newer ones have followed.
KEPT = 64


def camera_info_topic(image_topic: str) -> str:
    """Return the sibling of an image topic, as image_transport names it."""
    return f'{image_topic.rpartition("/")[0]}/camera_info'


class CameraInfoRelay:
    """Publishes a camera's CameraInfo with the header of a frame.

    The topic is offered as soon as somebody publishes the camera's; until then there is none.

    Attributes:
        topic: full name of the camera's own.
    """

    def __init__(self, node: LifecycleNode, image_topic: str, output: str) -> None:
        """Prepare it without offering anything.

        Args:
            node: subscribes and publishes.
            image_topic: full name of the image's base topic.
            output: topic to publish, below the node's own name.
        """
        self.topic = camera_info_topic(image_topic)
        self._node = node
        self._output = output
        self._lock = threading.Lock()
        self._by_stamp: OrderedDict[int, CameraInfo] = OrderedDict()
        self._others = 0
        self._subscription: Subscription | None = None
        self._publisher: Publisher | None = None

    def follow(self) -> None:
        """Offer the topic where the camera has one; called now and then."""
        if self._publisher is not None or not self._node.count_publishers(self.topic):
            return
        # Best effort fits every publisher, and a message of this size arrives.
        wanted = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        offered = QoSProfile(
            depth=5,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.VOLATILE,
        )
        self._subscription = self._node.create_subscription(
            CameraInfo, self.topic, self._receive, wanted
        )
        self._publisher = self._node.create_publisher(CameraInfo, f'~/{self._output}', offered)

    def close(self) -> None:
        """Take the topic back."""
        subscription, publisher = self._subscription, self._publisher
        self._subscription = self._publisher = None
        if subscription is not None:
            self._node.destroy_subscription(subscription)
        if publisher is not None:
            self._node.destroy_publisher(publisher)

    def publish(self, header: Header) -> None:
        """Publish the camera's message of a frame's stamp, else its newest, under its header."""
        publisher = self._publisher
        if publisher is None or not publisher.get_subscription_count():
            return
        with self._lock:
            info = self._by_stamp.get(to_nanoseconds(header.stamp))
            if info is None and self._by_stamp:
                info = next(reversed(self._by_stamp.values()))
                self._others += 1
        if info is not None:
            fields = {name: getattr(info, name) for name in info.get_fields_and_field_types()}
            publisher.publish(CameraInfo(**fields | {'header': header}))

    def state(self) -> str:
        """Say for the diagnostics whether there is one, and whether it fits the frames."""
        if self._publisher is None:
            return f'nobody publishes {self.topic}'
        with self._lock:
            if not self._by_stamp:
                return f'{self.topic} is silent'
            if self._others:
                return f'{self._others} frames had the newest one, as none had their stamp'
        return 'of the same stamp'

    def _receive(self, message: CameraInfo) -> None:
        stamp_ns = to_nanoseconds(message.header.stamp)
        with self._lock:
            self._by_stamp[stamp_ns] = message
            self._by_stamp.move_to_end(stamp_ns)
            while len(self._by_stamp) > KEPT:
                self._by_stamp.popitem(last=False)
