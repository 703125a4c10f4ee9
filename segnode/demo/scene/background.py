# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Everything behind the objects: floor, shadows, haze, and what is beyond."""

from __future__ import annotations

import cv2
import numpy as np

from segnode.demo.scene.arrays import FloatArray
from segnode.demo.scene.camera import Camera
from segnode.demo.scene.ground import Ground
from segnode.demo.scene.panorama import Panorama

# A ray that sinks less for each metre of depth meets no floor.
_HORIZON_SINK = 2e-3


def render_background(
    ground: Ground, panorama: Panorama, camera: Camera, shadows: FloatArray
) -> FloatArray:
    """(H, W, 3) float32, linear 0 to 255; `shadows` (H, W) is a factor on the brightness."""
    height, width = camera.image_hw
    u, v = camera.ray_slopes(slice(0, height), slice(0, width))
    row = camera.rotation.astype(np.float32)[:, 2]
    sink = -(row[2] + row[0] * u + row[1] * v)
    depth_m = np.float32(camera.position[2]) / np.maximum(sink, np.float32(1e-3))

    picture = ground.view(camera, depth_m)
    cv2.copyTo(panorama.view(camera), (sink <= _HORIZON_SINK).astype(np.uint8), picture)
    canvas = cv2.multiply(picture, cv2.merge([shadows] * 3), dtype=cv2.CV_32F)

    hazy = (depth_m > 12) & (sink > _HORIZON_SINK)
    haze = np.minimum((depth_m[hazy] - 12) / 30, 1)[:, None]
    canvas[hazy] += (panorama.haze - canvas[hazy]) * haze
    return np.asarray(canvas, np.float32)
