# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Objects on the floor: where they stand, and how they move."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segnode.demo.scene.classes import CLASS_NAMES, sample_solids
from segnode.demo.scene.solids import Solid


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObject:
    """Solids that move together, back and forth along `swing_xy` about `position_xy`.

    Attributes:
        instance_id: from 1, the same in every frame.
        class_id: index into `CLASS_NAMES`.
        solids: in the object's frame, whose z axis passes through `position_xy`.
        radius: of the circle around the object, as seen from above.
        position_xy: (2,) middle of the motion.
        yaw: rotation about z in radians.
        swing_xy: (2,) amplitude of the motion; zero for what stands still.
        swing_rad_s: angular frequency of the motion.
        phase: of the motion at time 0, in radians.
    """

    instance_id: int
    class_id: int
    solids: tuple[Solid, ...]
    radius: float
    position_xy: NDArray[np.float64]
    yaw: float
    swing_xy: NDArray[np.float64]
    swing_rad_s: float
    phase: float

    def pose(self, seconds: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Position (3,) and rotation (3, 3), object to world, at a time."""
        along = np.sin(self.swing_rad_s * seconds + self.phase)
        position = np.append(self.position_xy + self.swing_xy * along, 0.0)
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        return position, np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])

    def roll(self, seconds: float) -> NDArray[np.float64]:
        """Rotation (3, 3) of a ball's skin that has rolled without slipping."""
        length = float(np.linalg.norm(self.swing_xy))
        if length == 0.0:
            return np.eye(3)
        axis = np.array([-self.swing_xy[1], self.swing_xy[0], 0.0]) / length
        angle = length * np.sin(self.swing_rad_s * seconds + self.phase) / self.radius
        rotation, _ = cv2.Rodrigues(axis * angle)
        return np.asarray(rotation)

    def corners(self) -> NDArray[np.float64]:
        """(8, 3) corners of the cuboid around the solids, in the object's frame."""
        low = np.array([(-s.half_xy[0], -s.half_xy[1], s.bottom) for s in self.solids])
        high = np.array([(*s.half_xy, s.bottom + s.height) for s in self.solids])
        bounds = np.stack([low.min(axis=0), high.max(axis=0)])
        return np.array(
            [
                [bounds[i, 0], bounds[j, 1], bounds[k, 2]]
                for i in (0, 1)
                for j in (0, 1)
                for k in (0, 1)
            ]
        )


def place_objects(rng: np.random.Generator, count: int) -> tuple[SceneObject, ...]:
    """Objects on a disc of two metres, none inside another, some of them moving."""
    objects: list[SceneObject] = []
    for _ in range(count * 30):
        if len(objects) == count:
            break
        # Every class is in every scene, the rest by chance.
        class_id = (
            len(objects)
            if len(objects) < len(CLASS_NAMES)
            else int(rng.integers(len(CLASS_NAMES)))
        )
        solids = sample_solids(rng, class_id)
        radius = max(solid.reach for solid in solids)
        distance, angle = 1.95 * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        position = np.array([np.cos(angle), np.sin(angle)]) * distance
        moves = CLASS_NAMES[class_id] == 'ball' or rng.random() < 0.15
        heading = rng.uniform(0, 2 * np.pi)
        swing = np.array([np.cos(heading), np.sin(heading)]) * (
            rng.uniform(0.2, 0.8) if moves else 0
        )
        if any(_gap(position, swing, other) < radius + other.radius for other in objects):
            continue
        objects.append(
            SceneObject(
                instance_id=len(objects) + 1,
                class_id=class_id,
                solids=solids,
                radius=radius,
                position_xy=position,
                yaw=rng.uniform(0, 2 * np.pi),
                swing_xy=swing,
                swing_rad_s=rng.uniform(0.3, 0.9),
                phase=rng.uniform(0, 2 * np.pi),
            )
        )
    return tuple(objects)


def _gap(position: NDArray[np.float64], swing: NDArray[np.float64], other: SceneObject) -> float:
    """Smallest distance between the centre lines two objects swing along, sampled."""
    steps = np.linspace(-1, 1, 9)[:, None]
    mine, theirs = position + steps * swing, other.position_xy + steps * other.swing_xy
    return float(np.linalg.norm(mine[:, None] - theirs[None], axis=2).min())
