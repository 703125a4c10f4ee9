# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A scene: what a seed draws once, and the frames rendered of it."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from segnode.demo.scene.arrays import FloatArray, Image
from segnode.demo.scene.background import render_background
from segnode.demo.scene.camera import CameraPath
from segnode.demo.scene.frame import SceneFrame, mask_boxes
from segnode.demo.scene.ground import Ground
from segnode.demo.scene.lighting import Light
from segnode.demo.scene.objects import place_objects
from segnode.demo.scene.optics import Optics
from segnode.demo.scene.panorama import Panorama
from segnode.demo.scene.patches import Patch, draw_object
from segnode.demo.scene.visibility import resolve_occlusion

# Disjoint: what the model learns from, what its training is judged on, what the demo shows.
TRAIN_SEEDS = range(0, 1_000_000)
VALIDATION_SEEDS = range(1_000_000, 1_001_000)
DEMO_SEEDS = range(2_000_000, 2_001_000)


class Scene:
    """A seeded scene: a moving camera, at least four objects in sight, changing light.

    Objects of which fewer than `MIN_VISIBLE_PX` pixels or less than `MIN_VISIBLE_FRACTION` can be
    seen are left out of the frame altogether (only their shadow stays), so that the truth names
    everything the image shows.
    """

    def __init__(
        self, seed: int, image_hw: tuple[int, int] = (480, 640), rate_hz: float = 10.0
    ) -> None:
        """Draws everything that stays the same.

        Args:
            seed: A number of one of the ranges above.
            image_hw: Height and width in pixels; the field of view stays the same.
            rate_hz: Frames per second of scene time.
        """
        self.seed = seed
        self.image_hw = image_hw
        self.rate_hz = rate_hz
        # One generator in a fixed order: another order draws another scene of the same seed.
        rng = np.random.default_rng(seed)
        self._ground = Ground.sample(rng)
        self._panorama = Panorama.sample(rng)
        self._objects = place_objects(rng, count=int(rng.integers(7, 13)))
        self._camera_path = CameraPath.sample(rng)
        self._light = Light.sample(rng)
        self._optics = Optics.sample(rng, image_hw)

    def frames(self, count: int) -> Iterator[SceneFrame]:
        """The first `count` frames."""
        return (self.frame(index) for index in range(count))

    def frame(self, index: int) -> SceneFrame:
        """Renders frame `index`; any order gives the same pictures."""
        seconds = index / self.rate_hz
        camera = self._camera_path.camera(seconds, self.image_hw)
        drawn = [draw_object(item, camera, self._light, seconds) for item in self._objects]
        patches, instance_map, occlusion = resolve_occlusion(
            [patch for patch in drawn if patch is not None], self.image_hw
        )
        shadows = self._light.shadows(self._objects, camera, seconds)
        canvas = render_background(self._ground, self._panorama, camera, shadows)
        _paint(canvas, patches, instance_map)
        blur_px = self._camera_path.image_speed_px(seconds, camera.focal_px)
        noise_rng = np.random.default_rng((self.seed, index))
        return SceneFrame(
            image=self._optics.expose(canvas, self._light.gain(seconds), blur_px, noise_rng),
            instance_map=instance_map,
            instance_ids=np.array([patch.item.instance_id for patch in patches], np.int64),
            class_ids=np.array([patch.item.class_id for patch in patches], np.int64),
            boxes_xyxy=mask_boxes(instance_map, range(1, len(patches) + 1)),
            occlusion=occlusion,
            stamp_ns=round(seconds * 1e9),
        )


def _paint(canvas: FloatArray, patches: list[Patch], instance_map: Image) -> None:
    """Copies the visible pixels of each patch onto the canvas."""
    for k, patch in enumerate(patches, start=1):
        window = (patch.rows, patch.columns)
        cv2.copyTo(patch.colour, (instance_map[window] == k).astype(np.uint8), canvas[window])
