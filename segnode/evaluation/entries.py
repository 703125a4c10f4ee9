# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The entries of a COCO dataset, each checked for itself; what cannot be used is written down.

H, W image height and width.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pycocotools import mask as coco_mask

from segnode.errors import ImageError
from segnode.evaluation.segmentation import (
    Rle,
    integer,
    number,
    packed_mask,
    polygons,
    relative,
)
from segnode.text_files import shown

MAX_SIDE_PX = 32767
_LARGEST_AREA = 1e10  # pixels, of COCOeval
_SAME_PLACE_IOU = 0.5

FRAME_KEYS = (
    'stamp_ns', 'timestamp_ns', 'stamp', 'timestamp', 'frame', 'frame_number', 'topic',
)  # fmt: skip
"""What images of a bag are annotated with, beside or instead of a file name."""

Id = int | str
_Entry = TypeVar('_Entry')
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image that the annotations know.

    Attributes:
        id: as the user has it.
        file_name: as annotated; empty where a key of `FRAME_KEYS` stands instead.
        image_hw: (H, W).
        frame_keys: what the file says of the frame of a bag that it is, by `FRAME_KEYS`.
    """

    id: Id
    file_name: str
    image_hw: tuple[int, int]
    frame_keys: Mapping[str, Any] = field(default_factory=dict, hash=False)


def name_parts(file_name: str) -> tuple[str, ...]:
    """Return the parts of an annotated file name, as far as it can be told from its end.

    Backslashes divide as well; what stands before ``..`` is unknown.
    """
    text = unicodedata.normalize('NFC', file_name).replace('\\', '/')
    parts = [part for part in text.split('/') if part not in ('', '.')]
    if '..' in parts:
        parts = parts[len(parts) - parts[::-1].index('..') :]
    return tuple(parts) or ('',)


def ends(path: str) -> list[tuple[str, ...]]:
    """Return the ends of a path that a file name can be, the longest first."""
    parts = name_parts(path)
    return [parts[k:] for k in range(len(parts))]


class Findings:
    """What was left out or taken as meant, by kind."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, place: str) -> None:
        """Write down an entry; a ``{}`` in its kind stands for how many are of it."""
        self._places[kind].append(place)

    def lines(self) -> list[str]:
        """Return a line a kind, which names the first few."""
        return [
            f'{kind.format(len(places))} ({few(places)})' for kind, places in self._places.items()
        ]


def few(items: Sequence[str], count: int = 3) -> str:
    """Return the first of some texts as a list for a message."""
    return ', '.join(shown(item, 120) for item in items[:count]) + (
        ', ...' if len(items) > count else ''
    )


def _identity(item: Mapping[str, Any], key: str) -> Id | None:
    """Return an id as the user has it, None where there is none."""
    value = item.get(key)
    if isinstance(value, str):
        return value.strip() or None
    try:
        return integer(value)
    except ValueError:
        return None


def _integer_form(text: str) -> str:
    """Return the text of an id as that of its integer where it is written like one."""
    match = re.fullmatch(r'([+-]?[0-9]{1,18})(?:\.0*)?', text)
    return str(int(match[1])) if match else text


def by_any_form(entries: Mapping[str, _Entry], items: Sequence[Any]) -> dict[str, _Entry]:
    """Return entries by the text of their id, and by its integer where one entry alone has it.

    Args:
        entries: by the text of their id.
        items: all that stand in the file, the unusable as well.
    """
    ids = {_identity(item, 'id') for item in items if isinstance(item, dict)}
    forms = Counter(_integer_form(text) for text in {str(i) for i in ids if i is not None})
    return {
        form: entry
        for form, entry in ((_integer_form(text), entry) for text, entry in entries.items())
        if forms[form] == 1
    } | dict(entries)


def _of(entries: Mapping[str, _Entry], found: Id | None) -> _Entry | None:
    """Return the entry of an id out of `by_any_form`."""
    if found is None:
        return None
    entry = entries.get(str(found))
    return entries.get(_integer_form(str(found))) if entry is None else entry


def entry_of(entries: Mapping[str, _Entry], item: object, key: str) -> _Entry | None:
    """Return the entry of `by_any_form` that an item's id names, None where there is none."""
    return _of(entries, _identity(item, key)) if isinstance(item, dict) else None


def usable_images(
    items: list[Any], pictures: Sequence[Path], findings: Findings
) -> dict[str, AnnotatedImage]:
    """Return the usable images by the text of their id: tools write 7, "7" and 7.0 for one."""
    sizes = _Sizes(pictures)
    images: dict[str, AnnotatedImage] = {}
    twice: set[str] = set()
    for index, item in enumerate(items):
        place = f'images[{index}]'
        image_id = _identity(item, 'id') if isinstance(item, dict) else None
        if image_id is None:
            findings.add('left out {} images without an id', place)
            continue
        frame_keys = {key: item[key] for key in FRAME_KEYS if item.get(key) is not None}
        file_name = item.get('file_name') or ''
        named = isinstance(file_name, str) and name_parts(file_name)[-1] != ''
        if not named and (file_name or not frame_keys.keys() - {'topic'}):
            findings.add('left out {} images without a file name', place)
            continue
        place = f'{place}, {shown(file_name)}' if file_name else place
        hw = _size(item)
        if hw is None:
            hw = sizes.of(file_name)
            if hw is None:
                findings.add(
                    'left out {} images without a usable height and width, whose picture '
                    'is not given either',
                    place,
                )
                continue
            findings.add('took the size of {} images from their pictures', place)
        image = AnnotatedImage(image_id, file_name, hw, frame_keys)
        before = images.setdefault(str(image_id), image)
        if before is image:
            continue
        if replace(before, id=image_id) == image:
            findings.add('left out {} images that stand there twice', place)
        else:
            twice.add(str(image_id))
            findings.add('left out {} images whose id another image has as well, and that', place)
    for key in twice:
        other = images.pop(key)
        findings.add('left out {} images whose id another image has as well, and that',
                     shown(other.file_name))  # fmt: skip
    return images


def _size(item: Mapping[str, Any]) -> tuple[int, int] | None:
    try:
        height, width = integer(item.get('height')), integer(item.get('width'))
    except ValueError:
        return None
    return (height, width) if all(1 <= s <= MAX_SIDE_PX for s in (height, width)) else None


class _Sizes:
    """Sizes of pictures, read when they are asked for."""

    def __init__(self, pictures: Sequence[Path]) -> None:
        self._pictures = pictures

    @cached_property
    def _by_end(self) -> dict[tuple[str, ...], Path | None]:
        """Return the picture of every end of a path, None where several have it."""
        by_end: dict[tuple[str, ...], Path | None] = {}
        for path in dict.fromkeys(self._pictures):
            for end in ends(os.path.abspath(path)):  # noqa: PTH100
                by_end[end] = None if end in by_end else path
        return by_end

    def of(self, file_name: str) -> tuple[int, int] | None:
        """Return the (H, W) of the one picture of a name, None where there is no such."""
        from segnode.picture_files import read_image

        path = self._by_end.get(name_parts(file_name))
        if path is None:
            return None
        try:
            image = read_image(path)
        except ImageError:
            return None
        return image.height, image.width


@dataclass(slots=True)
class Category:
    """A category: its id as the user has it, and its name."""

    id: Id
    name: str


def usable_categories(items: list[Any], findings: Findings) -> dict[str, Category]:
    """Return the usable categories by the text of their id."""
    categories: dict[str, Category] = {}
    twice: set[str] = set()
    for index, item in enumerate(items):
        place = f'categories[{index}]'
        category_id = _identity(item, 'id') if isinstance(item, dict) else None
        name = item.get('name') if isinstance(item, dict) else None
        if category_id is None or not isinstance(name, str) or not name.strip():
            findings.add('left out {} categories without an id or a name', place)
            continue
        category = Category(category_id, name.strip())
        if categories.setdefault(str(category_id), category).name != category.name:
            twice.add(str(category_id))
    for key in twice:
        category = categories.pop(key)
        findings.add(
            'left out {} category ids that several names have', f'id {shown(category.id)}'
        )
    return categories


def merge_names(
    categories: Mapping[str, Category],
    instances: list[dict[str, Any]],
    report: Report,
    head: str,
) -> dict[str, Id]:
    """Return category ids by name, and give the objects of equal names one id."""
    used = {str(instance['category_id']) for instance in instances}
    merged: dict[str, Id] = {}
    several: list[str] = []
    # Roboflow writes a category for the group of all, which no object has.
    for category in sorted(categories.values(), key=lambda c: str(c.id) not in used):
        if category.name in merged:
            several.append(category.name)
        else:
            merged[category.name] = category.id
    names = {str(category.id): category.name for category in categories.values()}
    for instance in instances:
        instance['category_id'] = merged[names[str(instance['category_id'])]]
    if several:
        report(
            f'{head}: {len(several)} categories have the name of another one; all their objects '
            f'are taken as one class ({few(several)})'
        )
    order = [category.name for category in categories.values()]
    return {name: merged[name] for name in dict.fromkeys(order)}


def checked_instance(
    item: object,
    place: str,
    images: Mapping[str, AnnotatedImage],
    categories: Mapping[str, Category],
    findings: Findings,
) -> dict[str, Any] | None:
    """Return a checked annotation, None where it has to be left out.

    Args:
        item: the annotation as it stands in the file.
        place: what it is called in messages.
        images: out of `by_any_form`.
        categories: out of `by_any_form`.
        findings: gets what is left out or taken as meant.
    """
    if not isinstance(item, dict):
        findings.add('left out {} annotations that are no objects', place)
        return None
    image_id, category_id = _identity(item, 'image_id'), _identity(item, 'category_id')
    image = _of(images, image_id)
    if image is None:
        findings.add('left out {} annotations on images that are not there', place)
        return None
    category = _of(categories, category_id)
    if category is None:
        findings.add('left out {} annotations of categories that are not there', place)
        return None
    iscrowd = _flag(item.get('iscrowd'))
    if iscrowd is None:
        findings.add('left out {} annotations whose iscrowd is neither 0 nor 1', place)
        return None
    instance: dict[str, Any] = {
        'image_id': image.id,
        'category_id': category.id,
        'iscrowd': iscrowd,
    }
    segmentation = item.get('segmentation')
    box, why = None, ''
    try:
        box = _box(item.get('bbox'), image.image_hw)
    except ValueError as error:
        why = str(error)
    try:
        rle = packed_mask(segmentation, image.image_hw)
    except ValueError as error:
        if box is None:
            findings.add(
                f'left out {{}} annotations without a usable box or mask, as {why} and {error}',
                place,
            )
            return None
        findings.add(f'kept only the box of {{}} annotations, as {error}', place)
        instance |= {'bbox': box, 'area': box[2] * box[3]}
    else:
        if box is None:
            findings.add(f'took the box of {{}} annotations from their masks, as {why}', place)
            box = _bounds(segmentation, rle, image.image_hw)
        elif (
            coco_mask.iou([_clipped(box, image.image_hw)], [coco_mask.toBbox(rle)], [0])[0, 0]
            < _SAME_PLACE_IOU
        ):
            findings.add(
                'the boxes of {} annotations do not lie around their masks; expected left, top, '
                'width and height, kept as they are',
                place,
            )
        instance |= {'bbox': box, 'area': float(coco_mask.area(rle)), 'segmentation': rle}
    area = _area(item.get('area'))
    if area is None:
        what = 'masks' if 'segmentation' in instance else 'boxes'
        findings.add(f'took the area of {{}} annotations from their {what}', place)
    else:
        instance['area'] = area
    return instance


def _flag(value: object) -> int | None:
    """Return 0 or 1 however it is written; an absent one is 0."""
    if value is None or value == '':
        return 0
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and value.strip().lower() in ('true', 'false'):
        return int(value.strip().lower() == 'true')
    try:
        found = integer(value)
    except ValueError:
        return None
    return found if found in (0, 1) else None


def _box(value: object, image_hw: tuple[int, int]) -> list[float]:
    """Return a box with an area in its image, as left, top, width and height in pixels.

    Raises:
        ValueError: it is none; the text says why, without values.
    """
    if not value:
        raise ValueError('there is no box')
    try:
        box = [number(side) for side in value] if isinstance(value, list | tuple) else []
    except ValueError:
        box = []
    if len(box) != 4 or min(box[2:]) <= 0:
        raise ValueError('the box is no left, top, width and height')
    if max(map(abs, box)) > 10 * max(image_hw):
        raise ValueError('the box lies far outside its image')
    if min(_clipped(box, image_hw)[2:]) <= 0:
        raise ValueError('the box lies outside of its image')
    if max(map(abs, box)) <= 1 < max(image_hw):
        raise ValueError(relative('box'))
    return box


def _clipped(box: Sequence[float], image_hw: tuple[int, int]) -> list[float]:
    """Return the part of a box that lies in its image; without an area where none does."""
    left, top, right, bottom = (
        min(max(value, 0.0), side)
        for value, side in zip(
            (box[0], box[1], box[0] + box[2], box[1] + box[3]), image_hw[::-1] * 2, strict=True
        )
    )
    return [left, top, right - left, bottom - top]


def _bounds(segmentation: object, rle: Rle, image_hw: tuple[int, int]) -> list[float]:
    """Return the box around a mask: around its polygons' corners within the image, or pixels."""
    if isinstance(segmentation, list):
        points = [value for ring in polygons(segmentation, image_hw) for value in ring]
        x, y = (
            sorted(min(max(value, 0.0), side) for value in axis)
            for axis, side in zip((points[0::2], points[1::2]), image_hw[::-1], strict=True)
        )
        if x[0] < x[-1] and y[0] < y[-1]:
            return [x[0], y[0], x[-1] - x[0], y[-1] - y[0]]
    return [float(side) for side in coco_mask.toBbox(rle)]


def _area(value: object) -> float | None:
    """Return an area within COCO's range of all areas; what is outside is passed over there."""
    try:
        area = number(value)
    except ValueError:
        return None
    return area if 0 < area < _LARGEST_AREA else None
