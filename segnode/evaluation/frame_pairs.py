# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Annotated images and frames of a topic in pairs, by number or by stamp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segnode.errors import AnnotationError
from segnode.evaluation.entries import AnnotatedImage
from segnode.evaluation.frame_keys import FrameKey
from segnode.evaluation.frames import FrameRow
from segnode.evaluation.nearest import nearest_pairs
from segnode.text_files import shown

_UNITS = {1: 'nanoseconds', 1_000: 'microseconds', 1_000_000: 'milliseconds'}
Keyed = tuple[AnnotatedImage, FrameKey]
Pair = tuple[AnnotatedImage, FrameRow]


@dataclass(frozen=True, slots=True)
class Camera:
    """A topic's annotated images and all its frames."""

    images: list[Keyed]
    frames: list[FrameRow]


def time_ns(row: FrameRow) -> int:
    """Return what annotated stamps are compared with: the header's stamp, else the log time."""
    return row.stamp_ns if row.clock == 'stamp' else row.log_ns


def by_number(cameras: Sequence[Camera], name: str) -> tuple[list[Pair], str]:
    """Return the pairs of equal numbers, and in words how frames are counted.

    Args:
        cameras: each with images.
        name: of the annotations, for messages.

    Raises:
        AnnotationError: a topic is in several bags.
    """
    for camera in cameras:
        bags = {row.bag for row in camera.frames}
        if len(bags) > 1:
            raise AnnotationError(
                f'{name}: expected stamps, as frame numbers begin anew in each of the '
                f'{len(bags)} bags, found numbers ({shown(camera.images[0][1].text)}); give '
                "each image its 'stamp_ns', or evaluate the bags one by one"
            )
    ranges = [
        (
            min(key.value for _, key in camera.images),
            max(key.value for _, key in camera.images),
            1 + max(row.number for row in camera.frames),
        )
        for camera in cameras
    ]
    # Counted from 0 the highest one would lie past the end.
    first = int(
        all(low >= 1 and high <= count for low, high, count in ranges)
        and any(high == count for _, high, count in ranges)
    )
    pairs = []
    for camera in cameras:
        free = {row.number: row for row in camera.frames}
        for image, key in camera.images:
            row = free.pop(key.value - first, None)
            if row is not None:
                pairs.append((image, row))
    return pairs, f'counted from {first}'


def by_stamp(cameras: Sequence[Camera], window_ns: int) -> tuple[list[Pair], str]:
    """Return the pairs of nearest stamps, and in words how stamps were read.

    Digits of an unknown unit are read in the one in which most images find a frame.

    Args:
        cameras: each with images.
        window_ns: how far apart a pair may be, in nanoseconds.
    """
    best: list[Pair] = []
    how = ''
    known = all(key.unit_known for camera in cameras for _, key in camera.images)
    for unit_ns, unit in _UNITS.items():
        pairs = [
            (camera.images[i][0], camera.frames[f])
            for camera in cameras
            for i, f in nearest_pairs(
                [key.value * (1 if key.unit_known else unit_ns) for _, key in camera.images],
                [time_ns(row) for row in camera.frames],
                window_ns,
            )
        ]
        if not how or len(pairs) > len(best):
            best, how = pairs, '' if known else f'in {unit}, '
        if known:
            break
    return best, f'{how}the nearest frame within {window_ns / 1e6:g} ms'
