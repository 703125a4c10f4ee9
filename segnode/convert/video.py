# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A video file as frames, one after the other, whatever its length."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
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
# By so much the sound may go on where the pictures have ended.
_SOUND_S = 1
_MISSING = 'frames that the video says and that cannot be read'

# LOG_LEVEL_SILENT of OpenCV.
_SILENT = 0


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
        # OpenCV 4 has it at the top, OpenCV 5 below.
        (cv2 if hasattr(cv2, 'setLogLevel') else cv2.utils.logging).setLogLevel(_SILENT)
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

    def frames(
        self, report: Callable[[str], None], left_out: Counter[str], *, quality: int, raw: bool
    ) -> Iterator[Frame]:
        """Yield the frames.

        Args:
            report: is told where there are fewer than the header says.
            left_out: counts those that are missing.
            quality: of the JPEGs, 1 to 100.
            raw: whether they stay raw instead.

        Raises:
            ImageError: they are larger than images may be.
        """
        times_ms: list[float] = []
        while True:
            read, pixels = self._capture.read()
            if not read:
                break
            times_ms.append(self._capture.get(cv2.CAP_PROP_POS_MSEC))
            yield self._frame(cast('npt.NDArray[np.uint8]', pixels), quality, raw)
        if 0 < len(times_ms) < self.announced:
            self._note_missing(times_ms, report, left_out)

    def _note_missing(
        self, times_ms: Sequence[float], report: Callable[[str], None], left_out: Counter[str]
    ) -> None:
        """Count frames that the file says and that OpenCV did not give, which passes them over.

        Args:
            times_ms: in the video, of the frames that there were.
            report: is told.
            left_out: counts them.
        """
        missing = self.announced - len(times_ms)
        text = (
            f'{self.path}: {len(times_ms)} of the {self.announced} frames that its header says '
            'can be read'
        )
        rate_hz = self._capture.get(cv2.CAP_PROP_FPS)
        gaps = gaps_between(times_ms, rate_hz)
        inside = min(missing, sum(gaps.values()))
        if inside:
            text += (
                f'; {inside} are missing behind frame {min(gaps)}, so that later stamps are too '
                'early'
            )
        elif self._counts_frames():
            text += '; if others than the last are missing, later stamps are too early'
        elif missing <= _SOUND_S * rate_hz:
            report(f'{text}; this kind of file says it by its length alone')
            return
        report(text)
        left_out[_MISSING] += missing

    def _counts_frames(self) -> bool:
        """Return whether the kind of the file, AVI or MP4, has a number of frames.

        Of others OpenCV reckons it out of their length, which is that of the sound, too.
        """
        with self.path.open('rb') as file:
            head = file.read(8)
        return head.startswith(b'RIFF') or head[4:] == b'ftyp'

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


def gaps_between(times_ms: Sequence[float], rate_hz: float) -> dict[int, int]:
    """Return how many frames are missing behind which, by the times of those that are there.

    Args:
        times_ms: of the frames in the video, milliseconds.
        rate_hz: of the video.

    Returns:
        Counts by the number of the frame in front; none where the times are none of frames.
    """
    steps = [(after - before) * rate_hz / 1000 for before, after in pairwise(times_ms)]
    if not all(math.isfinite(step) and step > 0 for step in steps):
        return {}
    return {number: round(step) - 1 for number, step in enumerate(steps) if round(step) > 1}
