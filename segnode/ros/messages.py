# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Results as ROS messages, whole images serialised: pure functions, one a topic.

Shape letters: H, W image, D detections.
"""

from __future__ import annotations

import array
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header
from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesisWithPose,
    VisionClass,
)

from segnode.engine import Detections
from segnode.live import answer_fields
from segnode.live.cdr import write_image

# A pixel that belongs to no instance: the largest value of the type, which VisionClass.msg calls
# UNLABELED, 8 bits wide for fewer classes than that.
UNLABELED = 255


def detections_message(
    header: Header,
    detections: Detections,
    class_names: Sequence[str],
    class_id_format: str,
) -> Detection2DArray:
    """Return all detections, highest score first; the id of the k-th (from 1) is str(k).

    Args:
        header: of the image.
        detections: D of them, highest score first.
        class_names: name of each class index.
        class_id_format: ``name`` or ``index``.
    """
    message = Detection2DArray(header=header)
    for found in answer_fields.detection_fields(detections, class_names, class_id_format):
        detection = Detection2D(header=header, id=found.id)
        detection.bbox.center.position.x, detection.bbox.center.position.y = found.centre_xy
        detection.bbox.size_x, detection.bbox.size_y = found.size_xy
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id = found.class_id
        result.hypothesis.score = found.score
        detection.results.append(result)
        message.detections.append(detection)
    return message


def instance_mask_message(header: Header, label_image: npt.NDArray[np.uint16]) -> bytes:
    """Return the label image, serialised."""
    return write_image(header, label_image, answer_fields.LABELS_ENCODING)


def instance_mask_png(header: Header, label_image: npt.NDArray[np.uint16]) -> CompressedImage:
    """Return the label image as a PNG."""
    return _compressed_message(header, *answer_fields.labels_png(label_image))


def class_mask_message(
    header: Header,
    label_image: npt.NDArray[np.uint16],
    class_ids: npt.NDArray[np.int64],
    classes: int,
) -> bytes:
    """Return the class index of the instance that owns each pixel, as ``label_info`` names it.

    Pixels without an instance are UNLABELED as VisionClass.msg has it: 255 in mono8, and for
    models of 255 classes and more 65535 in 16UC1. The message is serialised.

    Args:
        header: of the image.
        label_image: (H, W) uint16, 0 is background.
        class_ids: (D,) int64.
        classes: number of the model's classes, at most 65535.
    """
    dtype, encoding = (np.uint8, 'mono8') if classes < UNLABELED else (np.uint16, '16UC1')
    values = np.concatenate([[np.iinfo(dtype).max], class_ids]).astype(dtype)
    return write_image(header, values[label_image], encoding)


def confidence_mask_message(
    header: Header, label_image: npt.NDArray[np.uint16], scores: npt.NDArray[np.float32]
) -> bytes:
    """Return mono8 of the score x 255, at least 1, of the instance that owns each pixel, else 0.

    The message is serialised.

    Args:
        header: of the image.
        label_image: (H, W) uint16, 0 is background.
        scores: (D,) float32, 0 to 1.
    """
    values = np.concatenate([[0.0], (scores * 255).round().clip(min=1)]).astype(np.uint8)
    return write_image(header, values[label_image], 'mono8')


def raw_masks_message(header: Header, masks: npt.NDArray[np.uint8]) -> bytes:
    """Return the network's own masks one below the other as mono8, M wide and D x M high.

    The message is serialised.

    Args:
        header: of the image.
        masks: (D, M, M) uint8, probability x 255.
    """
    return write_image(header, masks.reshape(-1, masks.shape[-1]), 'mono8')


def overlay_message(header: Header, overlay: npt.NDArray[np.uint8]) -> bytes:
    """Return the drawn picture, (H, W, 3) uint8 BGR, as bgr8, serialised."""
    return write_image(header, overlay, 'bgr8')


def overlay_jpeg(header: Header, overlay: npt.NDArray[np.uint8]) -> CompressedImage:
    """Return the drawn picture, (H, W, 3) uint8 BGR, as a JPEG."""
    return _compressed_message(header, *answer_fields.overlay_jpeg(overlay))


def label_info_message(
    header: Header, class_names: Sequence[str], score_threshold: float
) -> LabelInfo:
    """Return the class map (class index to name) and the score threshold in force."""
    classes = [VisionClass(class_id=i, class_name=name) for i, name in enumerate(class_names)]
    return LabelInfo(header=header, class_map=classes, threshold=float(score_threshold))


def stage_times_message(
    header: Header,
    name: str,
    stage_ms: Mapping[str, float],
    network_hw: tuple[int, int],
    counts: Mapping[str, int],
) -> DiagnosticArray:
    """Return one frame's times: ``<stage>_ms`` each, network input size in pixels, counts."""
    values = answer_fields.stage_time_values(stage_ms, network_hw, counts)
    status = DiagnosticStatus(name=name, level=DiagnosticStatus.OK, values=key_values(values))
    return DiagnosticArray(header=header, status=[status])


def to_nanoseconds(stamp: Time) -> int:
    """Return a stamp in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def key_values(values: Mapping[str, str]) -> list[KeyValue]:
    """Return a mapping as diagnostic_msgs has it."""
    return [KeyValue(key=key, value=value) for key, value in values.items()]


def _compressed_message(header: Header, image_format: str, encoded: bytes) -> CompressedImage:
    return CompressedImage(header=header, format=image_format, data=array.array('B', encoded))
