# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""COCO files of a bag: the annotations of the pictures that became its frames.

An image of such a file says which message it is: ``topic``, ``frame``, which is its number among
the topic's messages from 0, and ``stamp_ns``, an integer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from segnode.convert.frames import Written
from segnode.evaluation.annotations import GroundTruth
from segnode.evaluation.entries import Id, by_any_form, entry_of
from segnode.text_files import decode

_MARK = 'segnode'
OWN_BEGINNING = rf'\{{"info": \{{"{_MARK}": "convert"'
"""The regular expression that every file which `marked` makes begins with."""


def marked(dataset: dict[str, Any]) -> dict[str, Any]:
    """Return a COCO dataset that tells that segnode wrote it, so that it may replace it."""
    info = dataset.get('info')
    known = info if isinstance(info, dict) else {}
    rest = {key: value for key, value in dataset.items() if key != 'info'}
    return {'info': {_MARK: 'convert'} | known | {_MARK: 'convert'}, **rest}


def annotations_of_frames(
    path: Path,
    truth: GroundTruth,
    written: Sequence[Written],
    topic: str,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Return the annotations of a bag's frames as a COCO dataset.

    The entries are the user's own, with their ids; their checking is left to whoever reads them.

    Args:
        path: of the annotations.
        truth: as read from there, for all pictures.
        written: the frames of the bag.
        topic: of their messages.
        report: is told what is not in the dataset.
    """
    # It was read and checked before: it is an object with the three lists.
    dataset: dict[str, Any] = json.loads(decode(path.read_bytes()))
    by_id = {str(image.id): image for image in truth.annotations.images.values()}
    known = by_any_form(by_id, dataset['images'])
    frames = _first_frames(truth, written, report)
    images: dict[Id, dict[str, Any]] = {}
    for item in dataset['images']:
        image = entry_of(known, item, 'id')
        if image is None or image.id not in frames:
            continue
        frame = frames[image.id]
        own = {
            'id': image.id,
            'file_name': image.file_name,
            'height': image.image_hw[0],
            'width': image.image_hw[1],
            'topic': topic,
            'frame': frame.number,
            'stamp_ns': frame.stamp_ns,
        }
        images.setdefault(image.id, {**item, **own})
    annotations = []
    for item in dataset['annotations']:
        image = entry_of(known, item, 'image_id')
        if image is not None and image.id in images:
            annotations.append({**item, 'image_id': image.id})
    if len(images) < len(by_id):
        report(f'{len(images)} of the {len(by_id)} images that are annotated are in the bag')
    # A bag goes on in time.
    in_order = sorted(images.values(), key=lambda item: int(item['frame']))
    return dataset | {'images': in_order, 'annotations': annotations}


def _first_frames(
    truth: GroundTruth, written: Sequence[Written], report: Callable[[str], None]
) -> dict[Id, Written]:
    """Return the first frame of every annotated image, where it has the annotated size."""
    frames: dict[Id, Written] = {}
    again = 0
    for frame in written:
        image = truth.images.get(frame.path)
        if image is None:
            continue
        if image.image_hw != frame.image_hw:
            report(
                f'{frame.path}: left out of the annotations: expected {image.image_hw[1]} x '
                f'{image.image_hw[0]} pixels as annotated, found {frame.image_hw[1]} x '
                f'{frame.image_hw[0]}'
            )
        elif image.id in frames:
            again += 1
        else:
            frames[image.id] = frame
    if again:
        report(f'{again} frames show an image again; its annotations are those of the first one')
    return frames
