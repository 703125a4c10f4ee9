# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The camera's own ``camera_info``, passed on beside its frames.

RViz's Camera display and depth_image_proc want one under the same name and header as the image.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque

from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from segnode.ros.intake import Intake
from segnode.ros.messages import to_nanoseconds

# A frame is answered a little later than its message came; by then newer ones have followed.
KEPT = 64
TYPE_NAME = 'sensor_msgs/msg/CameraInfo'


def camera_info_topic(image_topic: str) -> str:
    """Return the sibling of an image topic, as image_transport names it."""
    return f'{image_topic.rpartition("/")[0]}/camera_info'


class CameraInfoRelay:
    """Publishes a camera's CameraInfo with the header of a frame.

    The topic is offered while somebody publishes the camera's.

    Attributes:
        topic: full name of the camera's own.
    """

    def __init__(self, node: LifecycleNode, intake: Intake, image_topic: str, output: str) -> None:
        """Prepare it without offering anything.

        Args:
            node: subscribes and publishes.
            intake: takes the camera's messages.
            image_topic: full name of the image's base topic.
            output: topic to publish, below the node's own name.
        """
        # rclpy remaps what it is given, where it subscribes and where it counts publishers.
        self._name = camera_info_topic(image_topic)
        self.topic = node.resolve_topic_name(self._name)
        self._is_own = self.topic == node.resolve_topic_name(f'~/{output}')
        self._node = node
        self._intake = intake
        self._output = output
        self._lock = threading.Lock()
        self._by_stamp: OrderedDict[int, CameraInfo] = OrderedDict()
        # Of the last frames, whether each had one of its own stamp.
        self._matches: deque[bool] = deque(maxlen=100)
        self._subscription: Subscription | None = None
        self._publisher: Publisher | None = None
        self._closed = False
        # A transition closes it in another thread than the one that follows publishers.
        self._changing = threading.Lock()

    def follow(self) -> None:
        """Offer the topic where the camera has one, and no longer; called now and then."""
        with self._changing:
            if not (self._closed or self._is_own):
                self._follow()

    def _follow(self) -> None:
        publishers = [
            info
            for info in self._node.get_publishers_info_by_topic(self._name)
            if info.topic_type == TYPE_NAME
        ]
        if not publishers:
            self._withdraw()
        elif self._publisher is None:
            latched = all(
                info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
                for info in publishers
            )
            self._offer(latched=latched)

    def _offer(self, *, latched: bool) -> None:
        with self._lock:
            # One of the last publisher's may have been on its way when that went.
            self._by_stamp.clear()
        # Best effort fits every publisher, and a message of this size arrives; what is published
        # once and kept comes to those alone who ask for it reliably.
        wanted = QoSProfile(
            depth=5,
            reliability=ReliabilityPolicy.RELIABLE if latched else ReliabilityPolicy.BEST_EFFORT,
            durability=(
                DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
            ),
        )
        self._publisher = self._node.create_publisher(
            CameraInfo,
            f'~/{self._output}',
            QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._subscription = self._intake.subscribe(CameraInfo, self._name, self._receive, wanted)

    def _withdraw(self) -> None:
        with self._lock:
            subscription, publisher = self._subscription, self._publisher
            self._subscription = self._publisher = None
            self._by_stamp.clear()
            self._matches.clear()
        if subscription is not None:
            self._intake.unsubscribe(subscription)
        if publisher is not None:
            self._node.destroy_publisher(publisher)

    def close(self) -> None:
        """Take the topic back for good."""
        with self._changing:
            self._closed = True
            self._withdraw()

    def publish(self, header: Header) -> None:
        """Publish the camera's message of a frame's stamp, else its newest, under its header."""
        with self._lock:
            info = self._by_stamp.get(to_nanoseconds(header.stamp))
            self._matches.append(info is not None)
            if info is None and self._by_stamp:
                info = next(reversed(self._by_stamp.values()))
            # With the lock, as another thread may take the publisher away.
            publisher = self._publisher
            if info is not None and publisher is not None and publisher.get_subscription_count():
                fields = {name: getattr(info, name) for name in info.get_fields_and_field_types()}
                publisher.publish(CameraInfo(**fields | {'header': header}))

    def state(self) -> str:
        """Say for the diagnostics whether there is one, and whether it fits the frames."""
        if self._is_own:
            return f'{self.topic} would be the answer to itself'
        if self._publisher is None:
            return f'nobody publishes {self.topic}'
        with self._lock:
            if not self._by_stamp:
                return f'{self.topic} is silent'
            matches, frames = sum(self._matches), len(self._matches)
        if not frames:
            return 'no frame yet'
        if matches == frames:
            return 'of the same stamp'
        return f'{frames - matches} of {frames} frames had the newest one, as none had their stamp'

    def _receive(self, message: CameraInfo) -> None:
        stamp_ns = to_nanoseconds(message.header.stamp)
        with self._lock:
            self._by_stamp[stamp_ns] = message
            self._by_stamp.move_to_end(stamp_ns)
            while len(self._by_stamp) > KEPT:
                self._by_stamp.popitem(last=False)
