# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The camera: a pinhole, and the path on which it circles the objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnode.demo.scene.arrays import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """A pinhole at `position` (3,), the principal point in the middle of the image."""

    position: NDArray[np.float64]
    rotation: NDArray[np.float64]  # rows: right, down, forward in the world
    focal_px: float
    image_hw: tuple[int, int]

    @property
    def centre_px(self) -> tuple[float, float]:
        """The principal point (x, y)."""
        return self.image_hw[1] / 2, self.image_hw[0] / 2

    def project(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], Any]:
        """Pixels (P, 2) and depths (P,) of world points (P, 3)."""
        local = (points - self.position) @ self.rotation.T
        depth = np.maximum(local[:, 2], 1e-6)
        return local[:, :2] / depth[:, None] * self.focal_px + self.centre_px, local[:, 2]

    def ray_slopes(self, rows: slice, columns: slice) -> tuple[FloatArray, FloatArray]:
        """Horizontal (1, w) and vertical (h, 1) slopes of the rays through pixel centres."""
        centre_x, centre_y = self.centre_px
        u = (np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5 - centre_x)[None, :]
        v = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5 - centre_y)[:, None]
        return u / np.float32(self.focal_px), v / np.float32(self.focal_px)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraPath:
    """An arc around the objects with sway in distance, height, aim and roll."""

    start_rad: float
    rate_rad_s: float
    distance_m: tuple[float, float]
    height_m: tuple[float, float]
    aim_m: float
    roll_rad: float
    frequency_rad_s: NDArray[np.float64]
    phase: NDArray[np.float64]
    focal_ratio: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> CameraPath:
        """An arc that keeps the objects in sight."""
        return cls(
            start_rad=rng.uniform(0, 2 * np.pi),
            rate_rad_s=rng.choice([-1, 1]) * rng.uniform(0.02, 0.12),
            distance_m=(rng.uniform(3.4, 4.4), rng.uniform(0.1, 0.5)),
            height_m=(rng.uniform(0.9, 1.7), rng.uniform(0.0, 0.25)),
            aim_m=rng.uniform(0.1, 0.4),
            roll_rad=rng.uniform(0, 0.04),
            frequency_rad_s=rng.uniform(0.3, 1.0, 5),
            phase=rng.uniform(0, 2 * np.pi, 5),
            focal_ratio=rng.uniform(0.82, 0.98),
        )

    def camera(self, seconds: float, image_hw: tuple[int, int]) -> Camera:
        """The camera at a time."""
        sway = np.sin(self.frequency_rad_s * seconds + self.phase)
        angle = self.start_rad + self.rate_rad_s * seconds
        distance = self.distance_m[0] + self.distance_m[1] * sway[0]
        position = np.array([0.0, 0.0, self.height_m[0] + self.height_m[1] * sway[1]])
        position[:2] = np.cos(angle) * distance, np.sin(angle) * distance
        aim = np.array([self.aim_m * sway[2], self.aim_m * sway[3], 0.2])
        forward = (aim - position) / np.linalg.norm(aim - position)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        roll = self.roll_rad * sway[4]
        right, down = (
            np.cos(roll) * right + np.sin(roll) * down,
            np.cos(roll) * down - np.sin(roll) * right,
        )
        return Camera(
            position=position,
            rotation=np.stack([right, down, forward]),
            focal_px=self.focal_ratio * image_hw[1],
            image_hw=image_hw,
        )

    def image_speed_px(self, seconds: float, focal_px: float) -> NDArray[np.float64]:
        """(2,) motion of a point at mid-distance in pixels during an exposure of 1/100 s."""
        aim = np.array([[0.0, 0.0, 0.3]])
        before, after = (
            self.camera(seconds + shift, (480, 640)).project(aim)[0][0] for shift in (-0.05, 0.05)
        )
        yaw_px = self.rate_rad_s * focal_px * 0.1
        return np.asarray((after - before + [yaw_px, 0]) / 0.1 * 0.01 * 4)
