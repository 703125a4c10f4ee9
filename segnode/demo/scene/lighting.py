# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The light: its colour on a surface, its shadows on the floor, its change with time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segnode.demo.scene.arrays import FloatArray, Image
from segnode.demo.scene.camera import Camera
from segnode.demo.scene.objects import SceneObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """A sun, and a sky that lights what the sun does not.

    Attributes:
        direction: (3,) unit vector from the floor to the sun, in the world.
        ambient: brightness that the sky gives.
        diffuse: brightness that the sun gives a surface that faces it.
        shadow: factor on the floor's brightness where the sun is hidden.
        penumbra_px: standard deviation of a shadow's edge.
        swing: amplitude of the gain about 1.
        swing_rad_s: angular frequency of the gain.
        phase: of the gain at time 0, in radians.
    """

    direction: NDArray[np.float64]
    ambient: float
    diffuse: float
    shadow: float
    penumbra_px: float
    swing: float
    swing_rad_s: float
    phase: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Light:
        """A sun between 40 and 77 degrees above the horizon."""
        azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.35)
        direction = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation)]
        ambient = rng.uniform(0.4, 0.7)
        return cls(
            direction=np.array([*direction, np.sin(elevation)]),
            ambient=ambient,
            diffuse=1.15 - ambient,
            shadow=rng.uniform(0.35, 0.75),
            penumbra_px=rng.uniform(1.0, 5.0),
            swing=rng.uniform(0.0, 0.25),
            swing_rad_s=rng.uniform(0.2, 1.2),
            phase=rng.uniform(0, 2 * np.pi),
        )

    def gain(self, seconds: float) -> float:
        """The factor on the whole picture's brightness at a time."""
        return float(1 + self.swing * np.sin(self.swing_rad_s * seconds + self.phase))

    def shade(
        self,
        normal: list[FloatArray],
        rays: list[FloatArray],
        sun: NDArray[np.float64],
        shininess: float,
        texels: Image,
    ) -> FloatArray:
        """Lights a window: ambient from the sky, Lambert, and a Phong highlight.

        Args:
            normal: x, y and z of the unit normals, each (h, w) float32.
            rays: x, y and z of the rays from the camera, each (h, w) float32.
            sun: (3,) direction of the sun in the frame of normals and rays.
            shininess: Strength of the highlight, 0 to 1.
            texels: (h, w, 3) uint8 colour of the surface.

        Returns:
            (h, w, 3) float32 colour, linear 0 to 255.
        """
        x, y, z = (np.float32(value) for value in sun)
        facing = normal[0] * x + normal[1] * y + normal[2] * z
        level = np.float32(self.ambient) * (np.float32(0.85) + np.float32(0.15) * normal[2])
        level += np.float32(self.diffuse) * np.maximum(facing, 0)
        colour = texels * level[..., None]
        if shininess:
            along = (rays[0] * normal[0] + rays[1] * normal[1] + rays[2] * normal[2]) * 2
            mirrored = sum(
                (ray - along * part) * side
                for ray, part, side in zip(rays, normal, (x, y, z), strict=True)
            )
            length = np.sqrt(rays[0] ** 2 + rays[1] ** 2 + rays[2] ** 2)
            spot = np.maximum(mirrored / length, 0) ** 16
            colour += (np.float32(255 * shininess) * spot)[..., None]
        return np.asarray(colour, np.float32)

    def shadows(
        self, objects: Iterable[SceneObject], camera: Camera, seconds: float
    ) -> FloatArray:
        """(H, W) float32 factor on the floor's brightness."""
        factor = np.full(camera.image_hw, 255, np.uint8)
        fall = self.direction[:2] / self.direction[2]
        for item in objects:
            position, rotation = item.pose(seconds)
            outline = np.concatenate([solid.outline() for solid in item.solids])
            points = position + outline @ rotation.T
            ground = points[:, :2] - points[:, 2:] * fall
            hull = cv2.convexHull(ground.astype(np.float32))[:, 0]
            pixels, depth = camera.project(np.column_stack([hull, np.zeros(len(hull))]))
            pixels = pixels[depth > 0.4]
            if len(pixels) > 2:
                fixed = np.clip(pixels * 16, -1e6, 1e6).astype(np.int32)
                cv2.fillConvexPoly(factor, fixed, int(255 * self.shadow), cv2.LINE_AA, 4)
        soft = cv2.GaussianBlur(factor, (0, 0), self.penumbra_px)
        return np.multiply(soft, 1 / 255, dtype=np.float32)
