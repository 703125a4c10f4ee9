# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""An answer as the values that messages carry: the node publishes them, and bags hold them.

Shape letters: H, W image, D detections.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from segnode.engine import Detections

LABELS_ENCODING = '16UC1'
"""Of label images: cv_bridge would rescale mono16."""


@dataclass(frozen=True, slots=True)
class DetectionFields:
    """A detection as vision_msgs has it.

    Attributes:
        id: its number in the label image, from 1.
        centre_xy: of the box, input pixels.
        size_xy: of the box, input pixels.
        class_id: name or index of the class.
        score: 0 to 1.
    """

    id: str
    centre_xy: tuple[float, float]
    size_xy: tuple[float, float]
    class_id: str
    score: float


def detection_fields(
    detections: Detections, class_names: Sequence[str], class_id_format: str
) -> Iterator[DetectionFields]:
    """Yield all detections, highest score first; the id of the k-th (from 1) is str(k).

    Args:
        detections: D of them, highest score first.
        class_names: name of each class index.
        class_id_format: ``name`` or ``index``.
    """
    rows = zip(
        detections.boxes_xyxy.tolist(),
        detections.scores.tolist(),
        detections.class_ids.tolist(),
        strict=True,
    )
    for k, ((x0, y0, x1, y1), score, class_id) in enumerate(rows, start=1):
        yield DetectionFields(
            id=str(k),
            centre_xy=((x0 + x1) / 2, (y0 + y1) / 2),
            size_xy=(x1 - x0, y1 - y0),
            class_id=class_names[class_id] if class_id_format == 'name' else str(class_id),
            score=score,
        )


def stage_time_values(
    stage_ms: Mapping[str, float], network_hw: tuple[int, int], counts: Mapping[str, int]
) -> dict[str, str]:
    """Return one frame's times: ``<stage>_ms`` each, network input size in pixels, counts."""
    values = {f'{stage}_ms': f'{ms:.3f}' for stage, ms in stage_ms.items()}
    values['total_ms'] = f'{sum(stage_ms.values()):.3f}'
    values['network_height'], values['network_width'] = (str(side) for side in network_hw)
    return values | {count: str(n) for count, n in counts.items()}


def labels_png(label_image: npt.NDArray[np.uint16]) -> tuple[str, bytes]:
    """Return (H, W) labels as a PNG: its format as image_transport writes it, and its bytes.

    Subscribers take the pixels for mono8 where the format does not say 16UC1.
    """
    _, encoded = cv2.imencode('.png', label_image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return f'{LABELS_ENCODING}; png compressed ', encoded.tobytes()


def overlay_jpeg(overlay: npt.NDArray[np.uint8]) -> tuple[str, bytes]:
    """Return the drawn picture, (H, W, 3) uint8 BGR, as a JPEG: its format, and its bytes."""
    _, encoded = cv2.imencode('.jpg', overlay, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return 'bgr8; jpeg compressed bgr8', encoded.tobytes()
