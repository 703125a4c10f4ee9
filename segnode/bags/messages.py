# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Results as serialised messages without ROS: pure functions, one a topic.

A message of a frame says the same here as in what the node publishes. The bytes are
little-endian on every machine, so that equal bags are equal files.

Shape letters: H, W image, D detections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segnode.bags.message_types import (
    DETECTIONS,
    DIAGNOSTICS,
    IMAGE_ANNOTATIONS,
    LABEL_INFO,
    typestore,
)
from segnode.bags.record import COMPRESSED_IMAGE, IMAGE, Header
from segnode.live import answer_fields
from segnode.live.overlay import instance_colours, text_colour

if TYPE_CHECKING:
    from segnode.engine import Detections

_LATEST_S = 2**31 - 1
_LINE_LOOP = 2
_FONT_PX = 14.0
_LINE_PX = 2.0


def image_message(
    header: Header, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], encoding: str
) -> bytes:
    """Return a sensor_msgs/Image.

    Args:
        header: of the message.
        pixels: (H, W) or (H, W, C); rows are written without padding.
        encoding: as in sensor_msgs/image_encodings.hpp.
    """
    height, width = pixels.shape[:2]
    little = pixels.astype(pixels.dtype.newbyteorder('<'), copy=False)
    data = np.ascontiguousarray(little).reshape(-1).view(np.uint8)
    return _serialised(
        IMAGE,
        header=_header(header),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=data.size // height,
        data=data,
    )


def compressed_message(header: Header, format: str, data: bytes) -> bytes:  # noqa: A002
    """Return a sensor_msgs/CompressedImage; ``format`` as image_transport writes it."""
    pixels = np.frombuffer(data, np.uint8)
    return _serialised(COMPRESSED_IMAGE, header=_header(header), format=format, data=pixels)


def detections_message(
    header: Header,
    detections: Detections,
    class_names: Sequence[str],
    class_id_format: str = 'name',
) -> bytes:
    """Return a vision_msgs/Detection2DArray; the id of the k-th detection (from 1) is str(k).

    Args:
        header: of the image.
        detections: D of them, highest score first.
        class_names: name of each class index.
        class_id_format: ``name`` or ``index``.
    """
    ros_header = _header(header)
    return _serialised(
        DETECTIONS,
        header=ros_header,
        detections=[
            _new(
                'vision_msgs/msg/Detection2D',
                header=ros_header,
                results=[_hypothesis(found.class_id, found.score)],
                bbox=_box(found.centre_xy, found.size_xy),
                id=found.id,
            )
            for found in answer_fields.detection_fields(detections, class_names, class_id_format)
        ],
    )


def instance_mask_message(header: Header, label_image: npt.NDArray[np.uint16]) -> bytes:
    """Return the (H, W) label image as a sensor_msgs/Image."""
    return image_message(header, label_image, answer_fields.LABELS_ENCODING)


def overlay_jpeg(header: Header, overlay_bgr: npt.NDArray[np.uint8]) -> bytes:
    """Return the drawn picture, (H, W, 3) uint8 BGR, as a sensor_msgs/CompressedImage."""
    return compressed_message(header, *answer_fields.overlay_jpeg(overlay_bgr))


def label_info_message(
    header: Header, class_names: Sequence[str], score_threshold: float
) -> bytes:
    """Return a vision_msgs/LabelInfo: the class map and the score threshold in force."""
    return _serialised(
        LABEL_INFO,
        header=_header(header),
        class_map=[
            _new('vision_msgs/msg/VisionClass', class_id=index, class_name=name)
            for index, name in enumerate(class_names)
        ],
        threshold=float(score_threshold),
    )


def stage_times_message(
    header: Header,
    name: str,
    stage_ms: Mapping[str, float],
    network_hw: tuple[int, int],
    counts: Mapping[str, int],
) -> bytes:
    """Return one frame's times as a diagnostic_msgs/DiagnosticArray.

    Args:
        header: of the image.
        name: of the status, as that of the node.
        stage_ms: milliseconds by stage.
        network_hw: the network's input before padding, pixels.
        counts: what was found, and what each filter took out.
    """
    values = answer_fields.stage_time_values(stage_ms, network_hw, counts)
    status = _new(
        'diagnostic_msgs/msg/DiagnosticStatus',
        level=0,
        name=name,
        message='',
        hardware_id='',
        values=[
            _new('diagnostic_msgs/msg/KeyValue', key=key, value=value)
            for key, value in values.items()
        ],
    )
    return _serialised(DIAGNOSTICS, header=_header(header), status=[status])


def image_annotations_message(
    header: Header, detections: Detections, class_names: Sequence[str]
) -> bytes:
    """Return boxes, class names and scores as a foxglove_msgs/ImageAnnotations.

    Foxglove draws it over an image of the same stamp; colours are those of the overlay.

    Args:
        header: of the image; the annotations carry its stamp, and no frame.
        detections: D of them.
        class_names: name of each class index.
    """
    stamp = _header(header).stamp
    rows = zip(
        detections.boxes_xyxy.tolist(),
        detections.scores.tolist(),
        detections.class_ids.tolist(),
        instance_colours(detections.class_ids).tolist(),
        strict=True,
    )
    points, texts = [], []
    for (x0, y0, x1, y1), score, class_id, bgr in rows:
        corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
        points.append(
            _new(
                'foxglove_msgs/msg/PointsAnnotation',
                timestamp=stamp,
                type=_LINE_LOOP,
                points=[_new('foxglove_msgs/msg/Point2', x=x, y=y) for x, y in corners],
                outline_color=_colour(bgr),
                outline_colors=[],
                fill_color=_colour(bgr, alpha=0.0),
                thickness=_LINE_PX,
            )
        )
        texts.append(
            _new(
                'foxglove_msgs/msg/TextAnnotation',
                timestamp=stamp,
                position=_new('foxglove_msgs/msg/Point2', x=x0, y=y0),
                text=f'{class_names[class_id]} {score:.2f}',
                font_size=_FONT_PX,
                text_color=_colour(text_colour(tuple(bgr))),
                background_color=_colour(bgr),
            )
        )
    return _serialised(IMAGE_ANNOTATIONS, circles=[], points=points, texts=texts)


def _new(type_name: str, **fields: Any) -> Any:
    return typestore().types[type_name](**fields)


def _serialised(type_name: str, **fields: Any) -> bytes:
    message = _new(type_name, **fields)
    return bytes(typestore().serialize_cdr(message, type_name, little_endian=True))


def _header(header: Header) -> Any:
    # Where a broken stamp has more than a second of nanoseconds, they may have to carry it.
    seconds = min(header.stamp_ns // 1_000_000_000, _LATEST_S)
    nanoseconds = header.stamp_ns - seconds * 1_000_000_000
    stamp = _new('builtin_interfaces/msg/Time', sec=seconds, nanosec=nanoseconds)
    return _new('std_msgs/msg/Header', stamp=stamp, frame_id=header.frame_id)


def _hypothesis(class_id: str, score: float) -> Any:
    """Return a class with a score; its pose is at the origin, unturned, as ROS makes it."""
    pose = _new(
        'geometry_msgs/msg/PoseWithCovariance',
        pose=_new(
            'geometry_msgs/msg/Pose',
            position=_new('geometry_msgs/msg/Point', x=0.0, y=0.0, z=0.0),
            orientation=_new('geometry_msgs/msg/Quaternion', x=0.0, y=0.0, z=0.0, w=1.0),
        ),
        covariance=np.zeros(36),
    )
    hypothesis = _new('vision_msgs/msg/ObjectHypothesis', class_id=class_id, score=score)
    return _new('vision_msgs/msg/ObjectHypothesisWithPose', hypothesis=hypothesis, pose=pose)


def _box(centre_xy: tuple[float, float], size_xy: tuple[float, float]) -> Any:
    centre = _new('vision_msgs/msg/Point2D', x=centre_xy[0], y=centre_xy[1])
    return _new(
        'vision_msgs/msg/BoundingBox2D',
        center=_new('vision_msgs/msg/Pose2D', position=centre, theta=0.0),
        size_x=size_xy[0],
        size_y=size_xy[1],
    )


def _colour(bgr: Sequence[int], alpha: float = 1.0) -> Any:
    blue, green, red = (value / 255 for value in bgr)
    return _new('foxglove_msgs/msg/Color', r=red, g=green, b=blue, a=alpha)
