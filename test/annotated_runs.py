# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Frames, results and annotations of small runs, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from segnode.evaluation.frames import FrameRow

H, W = 60, 90
BOX = (10, 10, 20, 10)
Box = tuple[int, int, int, int]


def rle_of(box: Box) -> dict[str, Any]:
    x, y, w, h = box
    mask = np.zeros((H, W), np.uint8, order='F')
    mask[y : y + h, x : x + w] = 1
    encoded = coco_mask.encode(mask)
    return {'size': encoded['size'], 'counts': encoded['counts'].decode()}


def frame_row(frame: int, time_ms: float | None = None, **changes: Any) -> FrameRow:
    """A frame of a camera of 20 Hz, stamped in 2023 and recorded 7 ms later."""
    time_ns = 1_700_000_000_000_000_000 + round((50 * frame if time_ms is None else time_ms) * 1e6)
    fields: dict[str, Any] = {
        'frame': frame,
        'bag': 0,
        'topic': '/camera/image',
        'number': frame,
        'stamp_ns': time_ns,
        'log_ns': time_ns + 7_000_000,
        'time_ns': time_ns,
        'height': H,
        'width': W,
        'stage_ms': {'heads': 20.0},
    }
    return FrameRow(**(fields | changes))


def entry(frame: int, box: Box, score: float = 0.9, name: str = 'cone') -> dict[str, Any]:
    return {
        'image_id': frame,
        'category_name': name,
        'bbox': list(box),
        'score': score,
        'segmentation': rle_of(box),
    }


def dataset(count: int, boxes: list[Box] | None = None, **image: Any) -> dict[str, Any]:
    """An object on each image; their ids begin at 0, their file names tell no frame."""
    boxes = boxes or [BOX] * count
    return {
        'images': [
            {'id': k, 'file_name': f'{k}_.png', 'height': H, 'width': W, **image}
            for k in range(count)
        ],
        'categories': [{'id': 4, 'name': 'cone'}, {'id': 2, 'name': 'ball'}],
        'annotations': [
            {
                'id': k,
                'image_id': k,
                'category_id': 4,
                'bbox': list(box),
                'area': box[2] * box[3],
                'iscrowd': 0,
                'segmentation': rle_of(box),
            }
            for k, box in enumerate(boxes)
        ],
    }
