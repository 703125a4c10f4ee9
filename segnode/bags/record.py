# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a bag consists of, whatever its storage: topics, and messages as their serialised bytes."""

from __future__ import annotations

from dataclasses import dataclass

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of a bag.

    Attributes:
        name: as it was recorded.
        type_name: of its messages, always with the ``/msg/`` in the middle where it is ROS's.
        encoding: of its messages: ``cdr``, ``ros1``, or what else the bag says.
        messages: how many there are, None where the bag does not tell before it is read.
    """

    name: str
    type_name: str
    encoding: str
    messages: int | None = None

    @property
    def is_image(self) -> bool:
        """Whether segnode takes its messages for images."""
        return self.type_name in (IMAGE, COMPRESSED_IMAGE) and self.encoding in ('cdr', 'ros1')


@dataclass(frozen=True, slots=True)
class Record:
    """A message of a bag.

    Attributes:
        topic: that it is of.
        log_ns: when it was recorded, in nanoseconds.
        data: the serialised message, decompressed.
    """

    topic: Topic
    log_ns: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """A std_msgs/Header without ROS.

    Attributes:
        stamp_ns: nanoseconds since the epoch of the clock that stamped it; 0 is none.
        frame_id: as it was recorded.
    """

    stamp_ns: int
    frame_id: str
