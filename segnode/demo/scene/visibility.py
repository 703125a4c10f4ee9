# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Which objects can be seen: what hides what, and what is left out."""

from __future__ import annotations

import numpy as np

from segnode.demo.scene.arrays import FloatArray, Image
from segnode.demo.scene.patches import Patch

MIN_VISIBLE_PX = 200
MIN_VISIBLE_FRACTION = 0.2


def resolve_occlusion(
    patches: list[Patch], image_hw: tuple[int, int]
) -> tuple[list[Patch], Image, FloatArray]:
    """Leaves out what can hardly be seen.

    Args:
        patches: All objects in sight.
        image_hw: Height and width in pixels.

    Returns:
        The N patches that remain; (H, W) uint8, 0 = background, k = the k-th of them; (N,)
        float32, the share of each that others cover.
    """
    patches = [patch for patch in patches if patch.inside_fraction >= MIN_VISIBLE_FRACTION]
    while True:
        instance_map, seen_px = _compose(patches, image_hw)
        whole_px = [int(np.isfinite(patch.depth).sum()) for patch in patches]
        # Hidden objects go one at a time: without one, those behind it show more.
        shares = [seen / max(whole, 1) for seen, whole in zip(seen_px, whole_px, strict=True)]
        hidden = [
            k
            for k, (seen, share) in enumerate(zip(seen_px, shares, strict=True))
            if seen < MIN_VISIBLE_PX or share < MIN_VISIBLE_FRACTION
        ]
        if not hidden:
            return patches, instance_map, 1 - np.array(shares, np.float32)
        patches.pop(min(hidden, key=shares.__getitem__))


def _compose(patches: list[Patch], image_hw: tuple[int, int]) -> tuple[Image, list[int]]:
    """The number, from 1, of the nearest patch at each pixel, and the pixels of each."""
    depth = np.full(image_hw, np.inf, np.float32)
    instance_map = np.zeros(image_hw, np.uint8)
    for k, patch in enumerate(patches, start=1):
        window = (patch.rows, patch.columns)
        nearer = patch.depth < depth[window]
        np.copyto(depth[window], patch.depth, where=nearer)
        instance_map[window][nearer] = k
    return instance_map, np.bincount(instance_map.ravel(), minlength=len(patches) + 1)[1:].tolist()
