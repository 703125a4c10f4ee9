# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What textures are made of: smooth noise, random colours, seamless borders."""

from __future__ import annotations

import cv2
import numpy as np

from segnode.demo.scene.arrays import FloatArray, Image


def smooth_noise(
    rng: np.random.Generator, hw: tuple[int, int], cell: tuple[int, int], octaves: int = 3
) -> FloatArray:
    """(h, w) float32 smooth noise of mean 0 and about unit spread; `cell` pixels a bump."""
    total = np.zeros(hw, np.float32)
    for octave in range(octaves):
        grid = (
            max(2, hw[0] * 2**octave // cell[0]),
            max(2, hw[1] * 2**octave // cell[1]),
        )
        grid = (min(grid[0], hw[0]), min(grid[1], hw[1]))
        coarse = rng.standard_normal(grid, dtype=np.float32)
        total += cv2.resize(coarse, hw[::-1], interpolation=cv2.INTER_LINEAR) * 0.6**octave
    return total


def random_colour(
    rng: np.random.Generator,
    hue: tuple[float, float],
    saturation: tuple[float, float],
    value: tuple[float, float],
) -> FloatArray:
    """(3,) float32 BGR of 0 to 255; hue in degrees."""
    hsv = [rng.uniform(*hue) % 360, rng.uniform(*saturation), rng.uniform(*value)]
    pixel = cv2.cvtColor(np.array([[hsv]], np.float32), cv2.COLOR_HSV2BGR)
    return np.asarray(pixel[0, 0] * 255, np.float32)


def as_image(texture: FloatArray) -> Image:
    """The texture as (h, w, 3) uint8, clipped."""
    return np.asarray(np.clip(texture, 0, 255), np.uint8)


def mirrored(texture: FloatArray) -> Image:
    """(2h, 2w, 3) uint8: the texture and its mirror images, which wrap around without a seam."""
    image = as_image(texture)
    return np.asarray(
        cv2.copyMakeBorder(image, 0, len(image), 0, image.shape[1], cv2.BORDER_REFLECT)
    )
