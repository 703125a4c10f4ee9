# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Ground truth out of a topic of label images: each value but 0 is an instance.

Classes come from the topic ``detections`` beside it where the bag has one, as segnode publishes
it: value k is of the k-th detection of the message of equal stamp. Else all are of one class.

H, W image height and width.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pycocotools import mask as coco_mask

from segnode.bags.record import Record
from segnode.errors import AnnotationError, BagError, ImageError, first_line
from segnode.evaluation.entries import few
from segnode.evaluation.metrics import instance_rles
from segnode.text_files import shown

if TYPE_CHECKING:
    from segnode.bags.bag import Bag

_SHOWN_REASONS = 5


def annotations_of_labels(
    bag: Bag, topic: str, report: Callable[[str], None], *, class_name: str = 'object'
) -> dict[str, Any]:
    """Return the label images of a bag as a COCO dataset, whose images have a ``stamp_ns``.

    A label image without a header stamp has the time at which it was recorded.

    Args:
        bag: an open one; it is read once, twice where there are detections.
        topic: of label images (`segnode.bags.images.read_labels`).
        report: is told where the classes come from, and what was left out.
        class_name: of all instances where there are no detections.

    Raises:
        BagError: the bag does not have the topic.
        AnnotationError: none of its label images can be used.
    """
    from tqdm import tqdm

    from segnode.bags.images import read_labels

    if topic not in bag.topics:
        known = [name for name, found in bag.topics.items() if found.is_image]
        raise BagError(
            f'{bag.path}: expected the label images {shown(topic)}, found the image topics '
            f'{few(known) or "none"}'
        )
    classes = _classes(bag, topic, report)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    left_out: Counter[str] = Counter()
    for record in tqdm(
        bag.records([topic]),
        total=bag.topics[topic].messages,
        desc='labels',
        unit='image',
        disable=None,
        leave=False,
    ):
        try:
            header, labels = read_labels(record)
        except ImageError as error:
            left_out[first_line(error)] += 1
            continue
        rles = instance_rles(labels)
        count = max(rles, default=0)
        names = (class_name,) * count if classes is None else classes.get(header.stamp_ns)
        if names is None:
            left_out['there are no detections of their stamp'] += 1
            continue
        if len(names) < count:
            left_out['they have more instances than there are detections'] += 1
            continue
        stamp_ns = header.stamp_ns or record.log_ns
        image_id = len(images) + 1
        images.append(
            {
                'id': image_id,
                'file_name': str(stamp_ns),
                'height': labels.shape[0],
                'width': labels.shape[1],
                'stamp_ns': stamp_ns,
            }
        )
        for value, rle in rles.items():
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': image_id,
                    'category_id': categories.setdefault(
                        names[value - 1] or class_name, len(categories) + 1
                    ),
                    'bbox': [float(side) for side in coco_mask.toBbox(rle)],
                    'area': int(coco_mask.area(rle)),
                    'iscrowd': 0,
                    'segmentation': {
                        'size': [int(side) for side in rle['size']],
                        'counts': rle['counts'].decode('ascii'),
                    },
                }
            )
    for why, count in left_out.most_common(_SHOWN_REASONS):
        report(f'{topic}: left out {count} label images, as {shown(why)}')
    if rest := left_out.total() - sum(n for _, n in left_out.most_common(_SHOWN_REASONS)):
        report(f'{topic}: left out {rest} label images for other reasons')
    if not images:
        why = few(list(left_out)) or 'it has no messages'
        raise AnnotationError(
            f'{bag.path}: expected label images on {shown(topic)}, found none to use ({why})'
        )
    return {
        'images': images,
        'categories': [{'id': number, 'name': name} for name, number in categories.items()],
        'annotations': annotations,
    }


def _classes(
    bag: Bag, topic: str, report: Callable[[str], None]
) -> dict[int, tuple[str, ...]] | None:
    """Return the class names of detections by stamp, None where the bag has no detections."""
    from segnode.bags.message_types import DETECTIONS

    plain = topic.removesuffix('/compressed')
    folder, slash, _ = plain.rpartition('/')
    beside = f'{folder}{slash}detections'
    if beside not in bag.topics or bag.topics[beside].type_name != DETECTIONS:
        report(f'{topic}: there is no topic {beside} of {DETECTIONS}, so all are of one class')
        return None
    classes: dict[int, tuple[str, ...]] = {}
    unreadable = 0
    for record in bag.records([beside]):
        try:
            stamp_ns, names = _detections(record)
        except ValueError:
            unreadable += 1
        else:
            classes[stamp_ns] = names
    if unreadable:
        report(f'{beside}: left out {unreadable} messages that cannot be read')
    return classes


def _detections(record: Record) -> tuple[int, tuple[str, ...]]:
    """Return the stamp and class names of a vision_msgs/Detection2DArray.

    Raises:
        ValueError: the message is broken.
    """
    from segnode.bags.message_types import DETECTIONS, typestore

    store = typestore()
    deserialise = (
        store.deserialize_ros1 if record.topic.encoding == 'ros1' else store.deserialize_cdr
    )
    try:
        message: Any = deserialise(record.data, DETECTIONS)
    except Exception as error:  # noqa: BLE001 - SerdeError, struct.error, UnicodeDecodeError, ...
        raise ValueError(first_line(error)) from None
    stamp = message.header.stamp
    # Interned, as there are few names and many detections.
    names = tuple(
        sys.intern(detection.results[0].hypothesis.class_id) if detection.results else ''
        for detection in message.detections
    )
    return stamp.sec * 10**9 + stamp.nanosec, names
