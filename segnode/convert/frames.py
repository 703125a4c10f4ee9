# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Frames on their way into a bag: what they are, when they were, and the messages of them.

H, W image height and width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segnode.bags.messages import compressed_message, image_message
from segnode.bags.record import COMPRESSED_IMAGE, IMAGE, Header
from segnode.bags.writer import BagWriter
from segnode.errors import ConfigError

# Of a ROS stamp's seconds, which have 32 bits.
_LATEST_NS = (2**31 - 1) * 1_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture for a bag.

    Attributes:
        path: of its file.
        image_hw: H and W in pixels.
        pixels_bgr: (H, W, 3) uint8 where it is to be written raw, else None.
        encoded: the bytes of a JPEG or PNG file where it is to be written so.
        format: of these, as in sensor_msgs/CompressedImage.
    """

    path: Path
    image_hw: tuple[int, int]
    pixels_bgr: npt.NDArray[np.uint8] | None = None
    encoded: bytes = b''
    format: str = ''


@dataclass(frozen=True, slots=True)
class Written:
    """A frame that stands in the bag.

    Attributes:
        path: of its file.
        image_hw: H and W in pixels.
        number: position among the messages of its topic, from 0.
        stamp_ns: of its header, and when it is said to have been recorded.
    """

    path: Path
    image_hw: tuple[int, int]
    number: int
    stamp_ns: int


@dataclass(frozen=True, slots=True)
class Clock:
    """The stamps of frames that came at a steady rate.

    Attributes:
        start_ns: of the first frame.
        rate_hz: frames a second, exact.
    """

    start_ns: int
    rate_hz: Fraction

    def stamp_ns(self, number: int) -> int:
        """Return the stamp of a frame, the nearest nanosecond; no error adds up.

        Raises:
            ConfigError: it is none that a ROS stamp can say.
        """
        stamp_ns = self.start_ns + round(number * 1_000_000_000 / self.rate_hz)
        # 0 means that there is none.
        if not 0 < stamp_ns <= _LATEST_NS:
            raise ConfigError(
                f'expected stamps from 1970 to 2038, as those of ROS are, found '
                f'{stamp_ns // 10**9} s for frame {number}; choose another --start-stamp or --rate'
            )
        return stamp_ns


@dataclass(frozen=True, slots=True)
class Place:
    """Where frames go.

    Attributes:
        topic: of their messages, as it stands in the bag.
        frame_id: of their headers.
        raw: whether they are sensor_msgs/Image, else CompressedImage.
    """

    topic: str
    frame_id: str
    raw: bool

    @classmethod
    def of(cls, base_topic: str, frame_id: str, *, raw: bool) -> Place:
        """Return the place of a camera's frames: compressed ones have a topic below the raw."""
        return cls(base_topic if raw else f'{base_topic}/compressed', frame_id, raw)

    @property
    def type_name(self) -> str:
        """Return the type of the messages."""
        return IMAGE if self.raw else COMPRESSED_IMAGE


def write_frames(
    frames: Iterable[Frame], writer: BagWriter, place: Place, clock: Clock
) -> Iterator[Written]:
    """Write frames one by one, and yield what was written of each.

    Raises:
        ConfigError: they go on beyond the time that ROS has.
        OutputError: the bag cannot be written.
    """
    for number, frame in enumerate(frames):
        stamp_ns = clock.stamp_ns(number)
        header = Header(stamp_ns, place.frame_id)
        if frame.pixels_bgr is not None:
            message = image_message(header, frame.pixels_bgr, 'bgr8')
        else:
            message = compressed_message(header, frame.format, frame.encoded)
        writer.write(place.topic, place.type_name, message, stamp_ns)
        yield Written(frame.path, frame.image_hw, number, stamp_ns)
