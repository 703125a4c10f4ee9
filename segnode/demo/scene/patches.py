# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""One object in the image, as if it were alone."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segnode.demo.scene.arrays import FloatArray
from segnode.demo.scene.camera import Camera
from segnode.demo.scene.lighting import Light
from segnode.demo.scene.objects import SceneObject
from segnode.demo.scene.ray_casting import cast_rays


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """What one object covers in the image, before others hide it.

    Attributes:
        item: the object.
        rows: of the image, h of them.
        columns: of the image, w of them.
        depth: (h, w) float32 in metres, inf where the object is not.
        colour: (h, w, 3) float32, linear 0 to 255.
        inside_fraction: share of the object's bounding box that is in the image.
    """

    item: SceneObject
    rows: slice
    columns: slice
    depth: FloatArray
    colour: FloatArray
    inside_fraction: float


def draw_object(item: SceneObject, camera: Camera, light: Light, seconds: float) -> Patch | None:
    """Depth and colour of an object on the part of the image it may cover; None out of sight."""
    position, rotation = item.pose(seconds)
    window = _window(position + item.corners() @ rotation.T, camera)
    if window is None:
        return None
    rows, columns, inside_fraction = window

    u, v = camera.ray_slopes(rows, columns)
    to_object = rotation.T @ camera.rotation.T  # camera frame to object frame
    rays = [
        (row[2] + row[0] * u + row[1] * v).astype(np.float32)
        for row in to_object.astype(np.float32)
    ]
    origin = rotation.T @ (camera.position - position)
    sun = rotation.T @ light.direction
    roll = item.roll(seconds)
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    depth = np.full(shape, np.inf, np.float32)
    colour = np.zeros((*shape, 3), np.float32)
    for solid in item.solids:
        hits = cast_rays(solid, origin, rays, roll)
        nearer = hits.depth < depth
        texels = cv2.remap(
            solid.texture,
            hits.uv[0] * solid.texture.shape[1],
            hits.uv[1] * solid.texture.shape[0],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        shaded = light.shade(hits.normal, rays, sun, solid.shininess, texels)
        np.copyto(depth, hits.depth, where=nearer)
        np.copyto(colour, shaded, where=nearer[..., None])
    return Patch(
        item=item,
        rows=rows,
        columns=columns,
        depth=depth,
        colour=colour,
        inside_fraction=inside_fraction,
    )


def _window(corners: NDArray[np.float64], camera: Camera) -> tuple[slice, slice, float] | None:
    """Rows and columns around the world points (8, 3), and the share of them in the image."""
    pixels, depths = camera.project(corners)
    if depths.min() < 0.3:
        return None
    height, width = camera.image_hw
    left, top = np.floor(pixels.min(axis=0)).astype(int)
    right, bottom = np.ceil(pixels.max(axis=0)).astype(int)
    rows = slice(max(top, 0), min(bottom, height))
    columns = slice(max(left, 0), min(right, width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    inside = (rows.stop - rows.start) * (columns.stop - columns.start)
    return rows, columns, inside / ((right - left) * (bottom - top))
