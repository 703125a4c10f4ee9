# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The topics that the node publishes for a camera."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, LabelInfo

from segnode.engine import Segmentation
from segnode.image import Image
from segnode.live.labels import undrawable
from segnode.live.overlay import draw_overlay
from segnode.ros import messages


class Outputs:
    """Publishers under the node's own name; what nobody subscribes to is not even made."""

    def __init__(
        self,
        node: LifecycleNode,
        prefix: str,
        class_names: Sequence[str],
        *,
        raw_masks: bool,
    ) -> None:
        """Offer the topics.

        Args:
            node: publishes.
            prefix: of the topics below the node's own name: empty, or a camera's with a slash.
            class_names: name of each class index.
            raw_masks: whether the model has masks of its own size.
        """
        self._node = node
        self._prefix = prefix
        self._class_names = class_names
        self._all: list[Publisher] = []
        # A transition closes them in another thread than the one that sets parameters.
        self._changing = threading.Lock()
        self._raw_masks: Publisher | None = None
        try:
            self._offer()
            if raw_masks:
                self._raw_masks = self._publisher(ImageMessage, 'raw_masks')
        except Exception:
            self.close()
            raise
        # It looks for fonts, which must not cost a frame its time.
        if line := undrawable(class_names):
            node.get_logger().warning(line)

    def _offer(self) -> None:
        self._detections = self._publisher(Detection2DArray, 'detections')
        self._instance_mask = self._publisher(ImageMessage, 'instance_mask')
        self._instance_mask_png = self._publisher(CompressedImage, 'instance_mask/compressed')
        self._class_mask = self._publisher(ImageMessage, 'class_mask')
        self._confidence_mask = self._publisher(ImageMessage, 'confidence_mask')
        self._overlay = self._publisher(ImageMessage, 'overlay')
        self._overlay_jpeg = self._publisher(CompressedImage, 'overlay/compressed')
        self._stage_times = self._publisher(DiagnosticArray, 'stage_times')
        self._label_info = self._publisher(
            LabelInfo, 'label_info', depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL
        )

    def wants_raw_masks(self) -> bool:
        """Return whether somebody subscribes to the network's own masks."""
        return self._raw_masks is not None and _wanted(self._raw_masks)

    def close(self) -> None:
        """Remove all publishers."""
        with self._changing:
            while self._all:
                self._node.destroy_publisher(self._all.pop())

    def publish(
        self, header: Header, image: Image, result: Segmentation, class_id_format: str
    ) -> None:
        """Publish one frame's results under the header of its image."""
        detections, labels = result.detections, result.label_image
        self._detections.publish(
            messages.detections_message(header, detections, self._class_names, class_id_format)
        )
        self._instance_mask.publish(messages.instance_mask_message(header, labels))
        if _wanted(self._instance_mask_png):
            self._instance_mask_png.publish(messages.instance_mask_png(header, labels))
        if _wanted(self._class_mask):
            classes = len(self._class_names)
            self._class_mask.publish(
                messages.class_mask_message(header, labels, detections.class_ids, classes)
            )
        if _wanted(self._confidence_mask):
            self._confidence_mask.publish(
                messages.confidence_mask_message(header, labels, detections.scores)
            )
        if self._raw_masks is not None and result.raw_masks is not None and self.wants_raw_masks():
            self._raw_masks.publish(messages.raw_masks_message(header, result.raw_masks))
        if _wanted(self._overlay) or _wanted(self._overlay_jpeg):
            overlay = draw_overlay(image, detections, labels, self._class_names)
            if _wanted(self._overlay):
                self._overlay.publish(messages.overlay_message(header, overlay))
            if _wanted(self._overlay_jpeg):
                self._overlay_jpeg.publish(messages.overlay_jpeg(header, overlay))

    def publish_stage_times(
        self, header: Header, stage_ms: Mapping[str, float], result: Segmentation
    ) -> None:
        """Publish where one frame's time went."""
        self._stage_times.publish(
            messages.stage_times_message(
                header,
                self._node.get_fully_qualified_name().lstrip('/'),
                stage_ms,
                result.network_hw,
                dataclasses.asdict(result.counts),
            )
        )

    def publish_label_info(self, score_threshold: float) -> None:
        """Publish the class map; late subscribers get the last one as well."""
        header = Header(stamp=self._node.get_clock().now().to_msg())
        message = messages.label_info_message(header, self._class_names, score_threshold)
        with self._changing:
            if self._all:
                self._label_info.publish(message)

    def _publisher(
        self,
        message_type: type[Any],
        topic: str,
        depth: int = 5,
        durability: DurabilityPolicy = DurabilityPolicy.VOLATILE,
    ) -> Publisher:
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=depth,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=durability,
        )
        publisher = self._node.create_publisher(
            message_type,
            f'~/{self._prefix}{topic}',
            profile,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._all.append(publisher)
        return publisher


def _wanted(publisher: Publisher) -> bool:
    return publisher.get_subscription_count() > 0
