# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The two kinds of solid that every object consists of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segnode.demo.scene.arrays import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Solid:
    """A solid in its object's frame, resting on z = `bottom`, `height` high.

    `profile` (a, b, c) is a solid of revolution of radius sqrt(a + b z + c z^2), z above `bottom`;
    without it the solid is a cuboid of `half_xy`.

    `texture` is (128, 128, 3) uint8, BGR: the upper half is the sides', the lower half that of the
    top. On a ball all of it is spread from pole to pole.
    """

    texture: Image
    half_xy: tuple[float, float]
    height: float
    bottom: float = 0.0
    profile: tuple[float, float, float] | None = None
    shininess: float = 0.0

    @property
    def is_ball(self) -> bool:
        """Whether the profile is a circle's."""
        return self.profile is not None and self.profile[2] == -1.0

    @property
    def reach(self) -> float:
        """The largest distance from the axis."""
        return float(np.hypot(*self.half_xy) if self.profile is None else self.half_xy[0])

    def outline(self) -> NDArray[np.float64]:
        """(P, 3) points whose convex hull holds the solid, in the object's frame."""
        levels = np.linspace(0, self.height, 2 if self.profile is None else 5)
        if self.profile is None:
            (x, y) = self.half_xy
            ring = np.array([[x, y], [-x, y], [-x, -y], [x, -y]])
            radii = np.ones(len(levels))
        else:
            angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
            ring = np.column_stack([np.cos(angles), np.sin(angles)])
            radii = np.sqrt(np.maximum(np.polyval(self.profile[::-1], levels), 0))
        return np.concatenate(
            [
                np.column_stack([ring * radius, np.full(len(ring), self.bottom + level)])
                for radius, level in zip(radii, levels, strict=True)
            ]
        )
