# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The ground truth of frames as a COCO dataset."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from segnode.demo.scene.classes import CLASS_NAMES
from segnode.demo.scene.frame import SceneFrame


def coco_annotations(frames: Iterable[SceneFrame]) -> dict[str, Any]:
    """Ground truth as a COCO dataset; image ids count from 0, category ids are class ids.

    Needs pycocotools. Masks are compressed run lengths with text counts, fit for JSON.
    """
    from pycocotools import mask as coco_mask

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, frame in enumerate(frames):
        height, width = frame.instance_map.shape
        images.append(
            {'id': image_id, 'file_name': f'{image_id:06d}', 'height': height, 'width': width}
        )
        for class_id, box, mask in zip(
            frame.class_ids, frame.boxes_xyxy, frame.masks, strict=True
        ):
            encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            left, top, right, bottom = map(float, box)
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': image_id,
                    'category_id': int(class_id),
                    'bbox': [left, top, right - left, bottom - top],
                    'area': int(np.count_nonzero(mask)),
                    'segmentation': {
                        'size': [height, width],
                        'counts': encoded['counts'].decode('ascii'),
                    },
                    'iscrowd': 0,
                }
            )
    return {
        'info': {'description': 'segnode rendered scene'},
        'images': images,
        'annotations': annotations,
        'categories': [{'id': k, 'name': name} for k, name in enumerate(CLASS_NAMES)],
    }
