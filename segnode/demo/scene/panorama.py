# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What is beyond the floor, a wall or a sky with a skyline, and how a camera sees it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from segnode.demo.scene.arrays import FloatArray, Image
from segnode.demo.scene.camera import Camera
from segnode.demo.scene.textures import mirrored, random_colour, smooth_noise

_TEXTURE_HW = (256, 2048)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panorama:
    """A picture infinitely far away, all around.

    Attributes:
        texture: (512, 4096, 3) uint8, which repeats without a seam; the horizon is row 255.
    """

    texture: Image

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Panorama:
        """A wall or a sky."""
        return cls(texture=_wall(rng) if rng.random() < 0.4 else _sky(rng))

    @property
    def haze(self) -> FloatArray:
        """(3,) float32 BGR: the mean colour of the horizon."""
        return np.asarray(self.texture[_TEXTURE_HW[0] - 1].mean(axis=0, dtype=np.float32))

    def view(self, camera: Camera) -> Image:
        """(H, W, 3) uint8 picture, of use above the horizon."""
        height, width = camera.image_hw
        rotation, focal = camera.rotation, camera.focal_px
        centre_x, centre_y = camera.centre_px
        heading = np.arctan2(rotation[2, 0], rotation[2, 1])
        slope = -np.arctan2(rotation[0, 2], np.hypot(rotation[1, 2], 1e-6))
        horizon = centre_y + focal * rotation[2, 2] / -rotation[1, 2]
        cos, sin = np.cos(slope), np.sin(slope)
        stretch = _TEXTURE_HW[0] / 0.75 / height
        turn = np.array([[cos, sin], [-sin, cos]]) * stretch
        start = np.array([heading * focal * stretch, _TEXTURE_HW[0]])
        return cv2.warpAffine(
            self.texture,
            np.column_stack([turn, start - turn @ [centre_x, horizon]]),
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_WRAP,
        )


def _wall(rng: np.random.Generator) -> Image:
    """A wall with panels."""
    width = _TEXTURE_HW[1]
    base = random_colour(rng, (0, 360), (0, 0.35), (0.4, 0.85))
    texture = base * (1 + 0.06 * smooth_noise(rng, _TEXTURE_HW, (128, 128))[..., None])
    step = int(rng.integers(60, 240))
    shade = rng.normal(1, 0.08, (1, width // step + 1, 1)).astype(np.float32)
    texture = texture * shade[:, np.arange(width) // step]
    texture[:, np.arange(width) % step < 3] *= 0.7
    texture[-int(rng.integers(6, 20)) :] *= 0.6
    return mirrored(texture)


def _sky(rng: np.random.Generator) -> Image:
    """Clouds above a skyline of houses and trees."""
    height, width = _TEXTURE_HW
    up = np.linspace(1, 0, height, dtype=np.float32)[:, None, None]
    top = random_colour(rng, (195, 225), (0.1, 0.6), (0.6, 0.95))
    low = random_colour(rng, (190, 240), (0.0, 0.15), (0.7, 0.95))
    clouds = np.clip(smooth_noise(rng, _TEXTURE_HW, (64, 200), 4), 0, 1.5)[..., None]
    texture = low + (top - low) * up + clouds * rng.uniform(0, 40)
    for x in range(0, width, 24):
        if rng.random() < 0.55:
            tall, broad = int(rng.integers(6, 70)), int(rng.integers(16, 110))
            colour = random_colour(rng, (20, 140), (0.05, 0.45), (0.25, 0.6)).tolist()
            if rng.random() < 0.5:
                cv2.rectangle(texture, (x, height - tall), (x + broad, height), colour, -1)
            else:
                cv2.ellipse(texture, (x, height), (broad // 2, tall), 0, 0, 360, colour, -1)
    texture += 4 * smooth_noise(rng, _TEXTURE_HW, (16, 16), 2)[..., None]
    return mirrored(texture)
