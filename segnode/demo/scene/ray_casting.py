# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Where rays meet a solid: depth, normal and texture coordinates, pixel by pixel.

h, w height and width of the window of the image through which the rays pass. The rays are three
(h, w) float32 arrays, the x, y and z of a direction whose length along the optical axis is one, so
that distances along a ray are depths.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from segnode.demo.scene.arrays import FloatArray
from segnode.demo.scene.solids import Solid


class Hits(NamedTuple):
    """What the rays meet.

    Attributes:
        depth: (h, w) float32, inf where missed.
        normal: x, y and z of the unit normal, each (h, w) float32.
        uv: across and down the texture, each (h, w) float32 in [0, 1].
    """

    depth: FloatArray
    normal: list[FloatArray]
    uv: tuple[FloatArray, FloatArray]


def cast_rays(
    solid: Solid, origin: NDArray[np.float64], rays: list[FloatArray], roll: NDArray[np.float64]
) -> Hits:
    """Hits of rays from `origin` (3,), both in the object's frame; `roll` (3, 3) turns a ball."""
    start = origin - (0, 0, solid.bottom)
    if solid.profile is None:
        return _cast_cuboid(solid, start, rays)
    return _cast_revolution(solid, start, rays, roll if solid.is_ball else None)


def _cast_cuboid(solid: Solid, origin: NDArray[np.float64], rays: list[FloatArray]) -> Hits:
    """Hits of a cuboid, its bottom at z = 0.

    The slab method: a ray is inside where it is between the planes of all three axes. The lower
    half of the texture is the top face's.
    """
    half = np.array([*solid.half_xy, solid.height / 2], np.float32)
    start = (origin - (0, 0, solid.height / 2)).astype(np.float32)
    entries, exits = [], []
    for axis in range(3):
        ray = np.where(np.abs(rays[axis]) < 1e-6, np.float32(1e-6), rays[axis])
        one, other = (-half[axis] - start[axis]) / ray, (half[axis] - start[axis]) / ray
        entries.append(np.minimum(one, other))
        exits.append(np.maximum(one, other))
    enter = np.maximum(np.maximum(entries[0], entries[1]), entries[2])
    leave = np.minimum(np.minimum(exits[0], exits[1]), exits[2])
    hit = np.where((enter < leave) & (enter > 0), enter, np.float32(np.inf))
    reach = np.minimum(enter, np.float32(1e3))
    faces = [enter == entries[0], enter == entries[1], enter == entries[2]]
    normal = [
        np.where(face, -np.sign(ray), 0).astype(np.float32)
        for face, ray in zip(faces, rays, strict=True)
    ]
    x, y, z = ((start[i] + reach * rays[i]) / (2 * half[i]) + np.float32(0.5) for i in range(3))
    across = np.where(faces[0], y, x)
    down = np.where(faces[2], 0.5 + y * 0.5, (1 - z) * 0.5).astype(np.float32)
    return Hits(hit, normal, (across, down))


def _cast_revolution(
    solid: Solid,
    origin: NDArray[np.float64],
    rays: list[FloatArray],
    skin: NDArray[np.float64] | None,
) -> Hits:
    """Hits of x^2 + y^2 = a + b z + c z^2, cut at z = 0 and z = height.

    The lower half of the texture is the lid's. `skin` turns the texture of a ball, which is
    spread over the whole picture.
    """
    assert solid.profile is not None
    a, b, c = (np.float32(value) for value in solid.profile)
    ox, oy, oz = (np.float32(value) for value in origin)
    dx, dy, dz = rays
    square = dx * dx + dy * dy - c * dz * dz
    square = np.where(np.abs(square) < 1e-9, np.float32(1e-9), square)
    middle = ox * dx + oy * dy - (b / 2 + c * oz) * dz
    constant = ox * ox + oy * oy - a - b * oz - c * oz * oz
    root = np.sqrt(np.maximum(middle * middle - square * constant, 0))
    missed = middle * middle < square * constant
    hit = np.full(dx.shape, np.inf, np.float32)
    # A cone seen from steeply above is met at the second root of the equation.
    for sign in (-1, 1) if c > 0 else (-1,):
        t = (-middle + sign * root) / square
        z = oz + t * dz
        valid = ~missed & (t > 0) & (z >= 0) & (z <= solid.height)
        np.copyto(hit, t, where=valid & (t < hit))
    lid_radius2 = a + b * solid.height + c * solid.height**2
    lid = np.zeros(dx.shape, bool)
    if oz > solid.height and lid_radius2 > 1e-6:
        t = (solid.height - oz) / np.minimum(dz, -1e-6)
        x, y = ox + t * dx, oy + t * dy
        lid = (dz < -1e-6) & (x * x + y * y <= lid_radius2) & (t <= hit)
        np.copyto(hit, t, where=lid)
    reach = np.where(np.isfinite(hit), hit, np.float32(1))
    x, y, z = ox + reach * dx, oy + reach * dy, oz + reach * dz
    rise = -(b / 2 + c * z)
    length = np.sqrt(x * x + y * y + rise * rise) + np.float32(1e-9)
    normal = [
        np.where(lid, np.float32(0), x / length),
        np.where(lid, np.float32(0), y / length),
        np.where(lid, np.float32(1), rise / length),
    ]
    if skin is not None:
        turned = np.tensordot(skin.T.astype(np.float32), np.stack(normal), axes=1)
        across = cv2.phase(turned[0], turned[1]) / np.float32(2 * np.pi)
        down = np.arccos(np.clip(turned[2], -1, 1)) / np.float32(np.pi)
        return Hits(hit, normal, (across, down))
    across = cv2.phase(x, y) / np.float32(2 * np.pi)
    radius = np.sqrt((x * x + y * y) / max(float(lid_radius2), 1e-6))
    down = np.where(lid, 0.5 + radius * 0.5, (1 - z / np.float32(solid.height)) * 0.5)
    return Hits(hit, normal, (across, down.astype(np.float32)))
