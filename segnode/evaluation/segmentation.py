# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""COCO's ways of writing a mask, checked and packed as pycocotools' run lengths.

pycocotools trusts what it is given: a NaN makes it allocate without end, a polygon of four
numbers is a box to it, and run lengths are drawn past the end of the picture.

H, W image height and width.
"""

from __future__ import annotations

import ast
import math
from typing import Any

from pycocotools import mask as coco_mask

Rle = dict[str, Any]

# pycocotools walks along a polygon in fifths of a pixel and keeps every step.
_LONGEST_OUTLINE_PX = 4_000_000
# Run lengths have 32 bits, five a character.
_LONGEST_RUN_BITS = 35


def number(value: object) -> float:
    """Return a finite number, also one that is written as a text.

    Raises:
        ValueError: it is none.
    """
    if type(value) not in (int, float, str):
        raise ValueError('no number')
    try:
        found = float(value)  # type: ignore[arg-type]
    except OverflowError:
        raise ValueError('a huge number') from None
    if not math.isfinite(found):
        raise ValueError('NaN or Infinity')
    return found


def integer(value: object) -> int:
    """Return an integer, also one that is written as ``3.0`` or as a text.

    Raises:
        ValueError: it is none.
    """
    if type(value) is int:
        return value
    found = number(value)
    if found != int(found):
        raise ValueError('a fraction')
    return int(found)


def relative(what: str) -> str:
    """Return why coordinates of 0 to 1 are refused, which would be a pixel in the corner."""
    return f'all coordinates of the {what} are at most 1 (relative to the image? expected pixels)'


def packed_mask(segmentation: object, image_hw: tuple[int, int]) -> Rle:
    """Return polygons or run lengths of any form as pycocotools' compressed run lengths.

    Polygons may be a list of lists, a single flat list, or lists of points. Those of less than
    three points have no area and are passed over.

    Raises:
        ValueError: it is no mask of this image, or an empty one; the text says why, without
            values, so that equal reasons can be counted.
    """
    if isinstance(segmentation, dict):
        runs = _checked_runs(segmentation, image_hw)
        rle: Rle = coco_mask.frPyObjects(
            {'size': list(image_hw), 'counts': runs}, image_hw[0], image_hw[1]
        )
    elif isinstance(segmentation, list):
        rle = coco_mask.merge(
            coco_mask.frPyObjects(polygons(segmentation, image_hw), image_hw[0], image_hw[1])
        )
    elif segmentation is None:
        raise ValueError('there is no segmentation')
    else:
        raise ValueError('the segmentation is neither polygons nor run lengths')
    if not coco_mask.area(rle):
        if isinstance(segmentation, list):
            raise ValueError('the polygons cover no pixel of their image')
        raise ValueError('the mask is empty')
    return rle


def polygons(segmentation: list[Any], image_hw: tuple[int, int]) -> list[list[float]]:
    """Return the polygons of a segmentation as lists of six and more numbers.

    Raises:
        ValueError: as `packed_mask`.
    """
    found = []
    outline_px = farthest = 0.0
    for ring in _rings(segmentation):
        try:
            points = [number(value) for value in ring]
        except ValueError:
            raise ValueError('a polygon holds something else than finite numbers') from None
        if len(points) % 2:
            raise ValueError('a polygon has an odd number of coordinates')
        if len(points) < 6:
            continue
        farthest = max(farthest, max(map(abs, points)))
        if farthest > 10 * max(image_hw):
            raise ValueError('a polygon lies far outside its image')
        for axis in (points[0::2], points[1::2]):
            outline_px += sum(abs(a - b) for a, b in zip(axis, axis[1:] + axis[:1], strict=True))
        if outline_px > _LONGEST_OUTLINE_PX:
            raise ValueError('the outline is too long')
        found.append(points)
    if not found:
        raise ValueError('the mask is empty')
    if farthest <= 1 < max(image_hw):
        raise ValueError(relative('polygons'))
    return found


def _rings(segmentation: list[Any]) -> list[list[Any]]:
    """Return lists of coordinates, however deep they lie."""
    if segmentation and not any(isinstance(item, list) for item in segmentation):
        return [segmentation]
    if len(segmentation) > 2 and all(_is_point(item) for item in segmentation):
        return [[value for point in segmentation for value in point]]
    rings = []
    for item in segmentation:
        if not isinstance(item, list):
            raise ValueError('polygons and numbers are mixed')
        if item and all(_is_point(point) for point in item):
            item = [value for point in item for value in point]
        rings.append(item)
    return rings


def _is_point(item: object) -> bool:
    return (
        isinstance(item, list)
        and len(item) == 2
        and not any(isinstance(value, list) for value in item)
    )


def _checked_runs(segmentation: dict[str, Any], image_hw: tuple[int, int]) -> list[int]:
    size = segmentation.get('size')
    try:
        sides = [integer(side) for side in size] if isinstance(size, list) else []
    except ValueError:
        sides = []
    if sides != list(image_hw):
        raise ValueError('the run lengths are of another size than the image')
    counts = segmentation.get('counts')
    try:
        if isinstance(counts, bytes):
            counts = counts.decode('ascii')
        if isinstance(counts, str):
            # What str() makes of bytes; a quote is no character of the encoding.
            quoted = counts[:2] in ("b'", 'b"')
            runs = run_lengths(ast.literal_eval(counts).decode() if quoted else counts)
        else:
            runs = [integer(run) for run in counts] if isinstance(counts, list) else []
    except (ValueError, SyntaxError, MemoryError):
        raise ValueError('the run lengths are no run lengths') from None
    if not runs or min(runs) < 0 or sum(runs) != image_hw[0] * image_hw[1]:
        raise ValueError('the run lengths do not add up to the image')
    return runs


def run_lengths(text: str) -> list[int]:
    """Return the run lengths that COCO's compressed text stands for (cocoapi, maskApi.c).

    Six bits a character from '0' on: five of value, one for "more follows"; signed, and from
    the fourth number on relative to the last but one.

    Raises:
        ValueError: the text is no such encoding.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f'the run lengths hold the character {character!r}')
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            if shift > _LONGEST_RUN_BITS:
                raise ValueError('a run length has too many digits')
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError('the run lengths end in the middle of a number')
    return runs
