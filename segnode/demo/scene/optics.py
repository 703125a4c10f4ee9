# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What lens, sensor and encoder do to the picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from segnode.demo.scene.arrays import FloatArray, Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Optics:
    """White balance, fall-off, blur, noise, gamma and JPEG of one camera.

    Attributes:
        tint: (H, W, 3) float32 factor: white balance, exposure, fall-off to the corners.
        contrast_lut: (256,) uint8, the gamma curve.
        blur_sigma: of the lens, in pixels.
        noise: standard deviation at 0, and its growth with the square root of the level.
        jpeg_quality: 0 without compression.
    """

    tint: FloatArray
    contrast_lut: Image
    blur_sigma: float
    noise: tuple[float, float]
    jpeg_quality: int

    @classmethod
    def sample(cls, rng: np.random.Generator, image_hw: tuple[int, int]) -> Optics:
        """A camera for images of one size."""
        height, width = image_hw
        y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
        slant = rng.uniform(-0.15, 0.15, 2)
        falloff = 1 - rng.uniform(0.0, 0.2) * (x * x + y * y) / 2 + slant[0] * x + slant[1] * y
        warmth = rng.uniform(-0.12, 0.12)
        white = np.array([1 - warmth, 1 + rng.uniform(-0.04, 0.04), 1 + warmth])
        exposure = rng.uniform(0.75, 1.2)
        gamma = rng.uniform(0.8, 1.25)
        levels = np.linspace(0, 1, 256) ** gamma
        return cls(
            tint=(falloff[..., None] * white * exposure).astype(np.float32),
            contrast_lut=np.round(levels * 255).astype(np.uint8),
            blur_sigma=rng.uniform(0.45, 0.8),
            noise=(rng.uniform(0.5, 4.0), rng.uniform(0.1, 0.6)),
            jpeg_quality=int(rng.integers(60, 95)) if rng.random() < 0.35 else 0,
        )

    def expose(
        self,
        canvas: FloatArray,
        gain: float,
        motion_px: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> Image:
        """Takes the picture.

        Args:
            canvas: (H, W, 3) float32, linear 0 to 255; it is overwritten.
            gain: Factor on the brightness.
            motion_px: (2,) motion of the picture during the exposure.
            rng: Draws the noise.

        Returns:
            (H, W, 3) uint8, BGR.
        """
        cv2.multiply(canvas, self.tint, canvas, gain)
        canvas = cv2.GaussianBlur(canvas, (3, 3), self.blur_sigma)
        length = float(np.hypot(*motion_px))
        if length > 1.2:
            canvas = cv2.filter2D(canvas, -1, _streak(motion_px * min(1, 4 / length)))
        pool = _noise_pool()
        height, width = canvas.shape[:2]
        top, left = rng.integers(0, pool.shape[0] - height), rng.integers(0, pool.shape[1] - width)
        sigma = cv2.sqrt(np.maximum(canvas, 0)) * np.float32(self.noise[1])
        sigma += np.float32(self.noise[0])
        sigma *= pool[top : top + height, left : left + width]
        image: Image = cv2.LUT(
            cv2.convertScaleAbs(np.maximum(canvas + sigma, 0)), self.contrast_lut
        )
        if self.jpeg_quality:
            _, coded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality])
            image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
        return image


def _streak(motion_px: NDArray[np.float64]) -> FloatArray:
    """(7, 7) float32 kernel of sum 1: a line along the motion."""
    kernel = np.zeros((7, 7), np.float32)
    ends = np.round((3 + np.stack([-motion_px, motion_px]) / 2) * 16).astype(int)
    cv2.line(kernel, ends[0].tolist(), ends[1].tolist(), 1.0, 1, cv2.LINE_8, 4)
    return np.asarray(kernel / kernel.sum(), np.float32)


@lru_cache(maxsize=1)
def _noise_pool() -> FloatArray:
    """(1300, 1700, 3) float32 unit normal noise, of which each frame takes a window."""
    rng = np.random.default_rng(7)
    return rng.standard_normal((1300, 1700, 3), dtype=np.float32)
