# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A video file as frames, one after the other, whatever its length."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from segnode.convert.frames import Frame
from segnode.errors import ConfigError, ImageError
from segnode.image import check_size

VIDEO_SUFFIXES = (
    '.3gp', '.avi', '.flv', '.m2ts', '.m4v', '.mjpeg', '.mjpg', '.mkv', '.mov', '.mp4', '.mpeg',
    '.mpg', '.mts', '.ogv', '.ts', '.webm', '.wmv',
)  # fmt: skip

# Rates come as floating point: 30000/1001 is the one that 29.97002997 means.
_LARGEST_DENOMINATOR = 1001
_FASTEST_HZ = 100_000


class Video:
    """A video file that is open.

    Attributes:
        path: of the file.
        announced: how many frames its header says, 0 where it does not.
    """

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            ImageError: it is missing, or no video that OpenCV can open here.
        """
        self.path = path
        if not path.is_file():
            found = 'something else' if os.path.lexists(path) else 'nothing'
            raise ImageError(f'{path}: expected a video file, found {found} of this name')
        # Else they write lines of their own about a damaged file.
        os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        has_ffmpeg = cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG)
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG if has_ffmpeg else cv2.CAP_ANY)
        if not self._capture.isOpened():
            raise ImageError(
                f'{path}: expected a video that OpenCV can open, found something else; convert it '
                'to MP4 with H.264 first'
            )
        announced = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.announced = int(announced) if 0 < announced < 2**31 else 0

    def rate_hz(self) -> Fraction:
        """Return the rate that the file says.

        Raises:
            ConfigError: it says none.
        """
        rate_hz = self._capture.get(cv2.CAP_PROP_FPS)
        if not (math.isfinite(rate_hz) and 0 < rate_hz <= _FASTEST_HZ):
            raise ConfigError(
                f'{self.path}: expected a video that says its rate, found {rate_hz:g} frames a '
                'second; give --rate HZ'
            )
        return Fraction(rate_hz).limit_denominator(_LARGEST_DENOMINATOR) or Fraction(rate_hz)

    def frames(self, report: Callable[[str], None], *, quality: int, raw: bool) -> Iterator[Frame]:
        """Yield the frames.

        Args:
            report: is told where there are fewer than the header says.
            quality: of the JPEGs, 1 to 100.
            raw: whether they stay raw instead.

        Raises:
            ImageError: they are larger than images may be.
        """
        count = 0
        while True:
            read, pixels = self._capture.read()
            if not read:
                break
            yield self._frame(cast('npt.NDArray[np.uint8]', pixels), quality, raw)
            count += 1
        if 0 < count < self.announced:
            report(
                f'{self.path}: the video ends after {count} of the {self.announced} frames that '
                'its header says'
            )

    def _frame(self, pixels: npt.NDArray[np.uint8], quality: int, raw: bool) -> Frame:
        height, width = pixels.shape[:2]
        check_size(height, width)
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        if raw:
            return Frame(self.path, (height, width), pixels_bgr=pixels)
        _, encoded = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return Frame(self.path, (height, width), encoded=encoded.tobytes(), format='jpeg')

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._capture.release()
