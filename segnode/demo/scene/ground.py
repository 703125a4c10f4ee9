# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The floor: its texture, and how a camera sees it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segnode.demo.scene.arrays import FloatArray, Image
from segnode.demo.scene.camera import Camera
from segnode.demo.scene.textures import mirrored, random_colour, smooth_noise

_TEXELS_PER_METRE = 200.0
_TEXTURE_HW = (1024, 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The plane z = 0.

    Attributes:
        near: (2048, 2048, 3) uint8 texture, which repeats without a seam.
        far: the same, blurred against aliasing.
    """

    near: Image
    far: Image

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Ground:
        """A floor of one of eight kinds."""
        texture = _texture(rng)
        return cls(near=texture, far=cv2.blur(texture, (21, 21)))

    def view(self, camera: Camera, depth_m: FloatArray) -> Image:
        """(H, W, 3) uint8 picture of the unshaded floor; `depth_m` (H, W) of its points."""
        height, width = camera.image_hw
        to_texture = self._image_to_texture(camera)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        near = cv2.warpPerspective(
            self.near, to_texture, (width, height), flags=flags, borderMode=cv2.BORDER_WRAP
        )
        # What is far is blurred against aliasing, so that a quarter of the pixels is enough.
        far = cv2.warpPerspective(
            self.far,
            to_texture @ np.diag([2.0, 2.0, 1.0]),
            (width // 2, height // 2),
            flags=flags,
            borderMode=cv2.BORDER_WRAP,
        )
        far = cv2.resize(far, (width, height))
        blend = np.clip((depth_m - 2) / 5, 0, 1)
        return cv2.blendLinear(near, far, 1 - blend, blend)

    def _image_to_texture(self, camera: Camera) -> NDArray[np.float64]:
        """(3, 3) homography from pixels to texels."""
        rotation, focal = camera.rotation, camera.focal_px
        centre_x, centre_y = camera.centre_px
        intrinsics = np.array([[focal, 0, centre_x], [0, focal, centre_y], [0, 0, 1.0]])
        to_image = intrinsics @ np.column_stack(
            [rotation[:, 0], rotation[:, 1], -rotation @ camera.position]
        )
        middle = self.near.shape[1] / 2
        to_texels = np.array(
            [[_TEXELS_PER_METRE, 0, middle], [0, _TEXELS_PER_METRE, middle], [0, 0, 1.0]]
        )
        return np.asarray(to_texels @ np.linalg.inv(to_image))


def _texture(rng: np.random.Generator) -> Image:
    """(2048, 2048, 3) uint8 of one of eight kinds of floor."""
    height, width = hw = _TEXTURE_HW
    y, x = np.mgrid[:height, :width].astype(np.float32)
    kind = rng.choice(
        ['asphalt', 'concrete', 'grass', 'tiles', 'planks', 'gravel', 'checker', 'lines']
    )
    grain = rng.standard_normal(hw, dtype=np.float32)[..., None]
    patches = smooth_noise(rng, hw, (256, 256))[..., None]
    if kind == 'grass':
        base = random_colour(rng, (60, 130), (0.25, 0.6), (0.25, 0.55))
        blades = smooth_noise(rng, hw, (24, 6), 2)[..., None]
        return mirrored(base * (1 + 0.14 * blades + 0.1 * patches + 0.08 * grain))
    base = random_colour(rng, (0, 360), (0.0, 0.25), (0.3, 0.75))
    if kind == 'gravel':
        stones = smooth_noise(rng, hw, (12, 12), 2)[..., None]
        return mirrored(base * (1 + 0.17 * stones + 0.06 * patches))
    texture = base * (1 + 0.07 * patches + (0.1 if kind == 'asphalt' else 0.03) * grain)
    side = int(rng.integers(60, 180))
    if kind == 'tiles':
        shade = rng.normal(1, rng.uniform(0.02, 0.12), (height // side + 1, width // side + 1, 1))
        texture *= shade[(y // side).astype(int), (x // side).astype(int)].astype(np.float32)
        joint = (y % side < 5) | (x % side < 5)
        texture[joint] *= rng.uniform(0.55, 1.3)
    elif kind == 'checker':
        other = (y // side + x // side) % 2 == 1
        texture[other] *= random_colour(rng, (0, 360), (0, 0.3), (0.6, 1)) / 255 * 0.9
    elif kind == 'planks':
        wood = random_colour(rng, (18, 38), (0.25, 0.6), (0.4, 0.75))
        streaks = smooth_noise(rng, hw, (8, 300), 2)[..., None]
        shade = rng.normal(1, 0.08, (height // side + 1, 1)).astype(np.float32)
        texture = wood * (1 + 0.07 * streaks) * shade[(y // side).astype(int)]
        texture[y % side < 4] *= 0.6
    elif kind == 'lines':
        paint = random_colour(rng, (40, 60), (0.0, 0.8), (0.75, 0.95))
        for _ in range(int(rng.integers(3, 8))):
            ends = rng.integers(-200, 1224, (2, 2))
            mask = cv2.line(
                np.zeros(hw, np.uint8),
                ends[0].tolist(),
                ends[1].tolist(),
                1,
                int(rng.integers(8, 30)),
            ).astype(bool)
            texture[mask] = paint * (1 + 0.08 * grain[mask])
    return mirrored(texture)
