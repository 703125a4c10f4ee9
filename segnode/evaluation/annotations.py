# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Ground truth in COCO's instance format.

pycocotools trusts what it is given (a polygon with a NaN makes it allocate without end), so every
value is checked here, before it gets there.

H, W image height and width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from segnode.errors import AnnotationError

MAX_SIDE_PX = 32767

Rle = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image that the annotations know: its id, file name and (H, W)."""

    id: int
    file_name: str
    image_hw: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Annotations:
    """Checked instance annotations.

    Attributes:
        images: by image id.
        categories: category id by name.
        instances: COCO annotation dicts, numbered from 1 (pycocotools takes an id of 0 for
            "unmatched"), their segmentation as run lengths.
        has_masks: every instance has a segmentation, so masks can be scored.
    """

    images: dict[int, AnnotatedImage]
    categories: dict[str, int]
    instances: list[dict[str, Any]]
    has_masks: bool

    @classmethod
    def read(cls, path: Path) -> Annotations:
        """Read ``instances_*.json``.

        Raises:
            AnnotationError: the file is missing, no JSON, or not in COCO's instance format.
        """
        try:
            dataset = json.loads(path.read_text(encoding='utf-8'))
        except OSError as error:
            raise AnnotationError(f'{path}: cannot be read ({error.strerror})') from None
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise AnnotationError(
                f'{path}: expected JSON, found something else ({error})'
            ) from None
        return cls.from_coco(dataset, name=str(path))

    @classmethod
    def from_coco(cls, dataset: object, name: str = 'annotations') -> Annotations:
        """Check a parsed dataset; ``name`` stands at the head of error messages.

        Raises:
            AnnotationError: it is not in COCO's instance format.
        """
        if not isinstance(dataset, dict):
            raise AnnotationError(f'{name}: expected a COCO object, found {_short(dataset)}')
        entries: dict[str, list[Mapping[str, Any]]] = {}
        for key in ('images', 'categories', 'annotations'):
            items = dataset.get(key)
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise AnnotationError(
                    f'{name}: expected a list of objects under {key!r}, found {_short(items)}'
                )
            entries[key] = items
        where = ''
        try:
            images: dict[int, AnnotatedImage] = {}
            for index, item in enumerate(entries['images']):
                where = f'images[{index}]'
                hw = (_integer(item, 'height'), _integer(item, 'width'))
                if not all(1 <= side <= MAX_SIDE_PX for side in hw):
                    raise ValueError(f'height and width are {hw[0]} and {hw[1]}')
                image_id = _integer(item, 'id')
                if image_id in images:
                    raise ValueError(f'image id {image_id} stands there twice')
                images[image_id] = AnnotatedImage(image_id, _text(item, 'file_name'), hw)
            categories: dict[str, int] = {}
            for index, item in enumerate(entries['categories']):
                where = f'categories[{index}]'
                if _text(item, 'name') in categories:
                    raise ValueError(f'category {item["name"]!r} stands there twice')
                categories[item['name']] = _integer(item, 'id')
            instances: list[dict[str, Any]] = []
            for index, item in enumerate(entries['annotations']):
                where = f'annotations[{index}]'
                instances.append(_instance(item, index + 1, images, set(categories.values())))
        except ValueError as error:
            raise AnnotationError(f'{name}: {where}: {error}') from None
        has_masks = all('segmentation' in item for item in instances)
        return cls(images, categories, instances, has_masks)

    def find(self, path: Path) -> AnnotatedImage | None:
        """Return the image that a file is, by its name, or None where none has that name.

        Raises:
            AnnotationError: several images have it.
        """
        named = [i for i in self.images.values() if Path(i.file_name).name == path.name]
        if len(named) > 1:
            tails = [(i, Path(i.file_name).parts) for i in named]
            named = [i for i, parts in tails if path.parts[-len(parts) :] == parts]
        if len(named) > 1:
            raise AnnotationError(
                f'{path}: {len(named)} annotated images have this name; give them unique names'
            )
        return named[0] if named else None


def _instance(
    item: Mapping[str, Any],
    number: int,
    images: Mapping[int, AnnotatedImage],
    categories: set[int],
) -> dict[str, Any]:
    image_id, category_id = _integer(item, 'image_id'), _integer(item, 'category_id')
    if image_id not in images:
        raise ValueError(f'image_id {image_id} is not among the images')
    if category_id not in categories:
        raise ValueError(f'category_id {category_id} is not among the categories')
    instance: dict[str, Any] = {
        'id': number,
        'image_id': image_id,
        'category_id': category_id,
        'bbox': _numbers(item.get('bbox'), 'bbox', 4),
        'iscrowd': int(bool(item.get('iscrowd', 0))),
    }
    if item.get('segmentation'):
        rle = _rle(item['segmentation'], images[image_id].image_hw)
        instance['segmentation'] = rle
        instance['area'] = float(coco_mask.area(rle))
    else:
        instance['area'] = instance['bbox'][2] * instance['bbox'][3]
    if 'area' in item:
        instance['area'] = _numbers([item['area']], 'area', 1)[0]
    return instance


def _rle(segmentation: object, image_hw: tuple[int, int]) -> Rle:
    """Return polygons or run lengths of any form as pycocotools' compressed run lengths."""
    height, width = image_hw
    if isinstance(segmentation, list):
        polygons = []
        for polygon in segmentation:
            points = _numbers(polygon, 'a polygon of segmentation')
            if len(points) < 6 or len(points) % 2:
                raise ValueError(f'a polygon of segmentation has {len(points)} numbers')
            if max(map(abs, points)) > 10 * max(image_hw):
                raise ValueError('a polygon of segmentation lies far outside its image')
            polygons.append(points)
        rle: Rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        return rle
    if not isinstance(segmentation, dict) or segmentation.get('size') != [height, width]:
        found = segmentation.get('size') if isinstance(segmentation, dict) else segmentation
        raise ValueError(
            f'expected polygons or run lengths of size [{height}, {width}] under segmentation, '
            f'found {_short(found)}'
        )
    counts = segmentation.get('counts')
    runs = run_lengths(counts) if isinstance(counts, str) else counts
    if (
        not isinstance(runs, list)
        or not all(type(run) is int and run >= 0 for run in runs)
        or sum(runs) != height * width
    ):
        raise ValueError(f'the run lengths do not add up to {height} x {width} pixels')
    packed: Rle = coco_mask.frPyObjects({'size': [height, width], 'counts': runs}, height, width)
    return packed


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
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError('the run lengths end in the middle of a number')
    return runs


def _integer(item: Mapping[str, Any], key: str) -> int:
    value = item.get(key)
    if type(value) is not int:
        raise ValueError(f'expected an integer under {key!r}, found {_short(value)}')
    return value


def _text(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f'expected a text under {key!r}, found {_short(value)}')
    return value


def _numbers(value: object, what: str, count: int | None = None) -> list[float]:
    if (
        not isinstance(value, Sequence)
        or not all(type(v) in (int, float) and math.isfinite(v) for v in value)
        or len(value) != (len(value) if count is None else count)
    ):
        raise ValueError(f'expected {count or "finite"} numbers for {what}, found {_short(value)}')
    return [float(v) for v in value]


def _short(value: object) -> str:
    text = 'nothing' if value is None else repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
