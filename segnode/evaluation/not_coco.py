# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a file is that is no ground truth in COCO's instance format, and what to do with it."""

from __future__ import annotations

import re

_EXPORT = 'export them as COCO'
_BEGINNINGS = (
    (b'\x1f\x8b', 'a gzip archive; unpack it'),
    (b'PK\x03\x04', 'a zip archive; unpack it'),
    (b'BZh', 'a bzip2 archive; unpack it'),
    (b'\xfd7zXZ', 'an xz archive; unpack it'),
    (b'\x89PNG', 'a picture; name the annotations'),
    (b'\xff\xd8\xff', 'a picture; name the annotations'),
    (b'\x80', 'a pickle, which is never read'),
)
_YOLO = re.compile(r'\d+(\s+-?\d*\.?\d+(e-?\d+)?){4,}\s*')
# Keys that tell a tool's own format.
_OBJECTS = (
    ({'shapes', 'imagePath'}, f"labelme's own annotations of one image; {_EXPORT}"),
    ({'_via_img_metadata'}, f"a project of VIA's; {_EXPORT}"),
    ({'objects', 'size'}, f"Supervisely's own annotations of one image; {_EXPORT}"),
    ({'items', 'categories'}, f"Datumaro's own annotations; {_EXPORT}"),
    ({'results'}, "segnode's results; name the annotations"),
)
_ITEMS = (
    ({'image_id', 'score'}, 'a list of COCO results, which are detections; name the annotations'),
    (
        {'image_id', 'category_id'},
        'a list of annotations alone; write the whole object, with images and categories',
    ),
    ({'data', 'annotations'}, f"Label Studio's own tasks; {_EXPORT}"),
    ({'data', 'completions'}, f"Label Studio's own tasks; {_EXPORT}"),
    ({'image', 'annotations'}, f'annotations for CreateML; {_EXPORT}'),
)


def describe_bytes(data: bytes) -> str:
    """Return what a file is that is no JSON, and what to do; empty where nothing is known."""
    if not data.strip():
        return 'an empty file'
    for beginning, what in _BEGINNINGS:
        if data.startswith(beginning):
            return what
    lines = data[:4096].decode('utf-8', 'replace').lstrip('\ufeff \t\r\n').splitlines()
    if lines and lines[0].startswith('<'):
        return f'XML, as Pascal VOC and CVAT write it; {_EXPORT}'
    if lines and _YOLO.fullmatch(lines[0]):
        return f"YOLO's labels of one image; {_EXPORT}"
    if len(lines) > 1 and all(re.fullmatch(r'\{.*\}', line.strip()) for line in lines[:2]):
        return f'an object on each line; {_EXPORT}'
    return ''


def describe_json(dataset: object) -> str:
    """Return what parsed JSON is that has no images, categories and annotations."""
    if isinstance(dataset, list):
        first = dataset[0] if dataset else None
        keys = set(first) if isinstance(first, dict) else set()
        for known, what in _ITEMS:
            if known <= keys:
                return what
        return f'a list; {_EXPORT}' if dataset else 'an empty list'
    if not isinstance(dataset, dict):
        return 'nothing' if dataset is None else f'a {type(dataset).__name__}'
    for known, what in _OBJECTS:
        if known <= set(dataset):
            return what
    values = [value for value in list(dataset.values())[:3] if isinstance(value, dict)]
    if values and all({'filename', 'regions'} <= set(value) for value in values):
        return f"VIA's own annotations; {_EXPORT}"
    for key in ('images', 'categories', 'annotations'):
        if key not in dataset:
            return f'no {key!r} in it'
        if not isinstance(dataset[key], list):
            return f'a {type(dataset[key]).__name__}, not a list, under {key!r}'
    return 'something else'
