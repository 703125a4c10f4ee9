# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Pictures for tests: rendered ones, and photographs where the shared folder is at hand."""

from __future__ import annotations

from pathlib import Path

from segnode.demo.scene import VALIDATION_SEEDS, Scene
from segnode.image import Image
from segnode.picture_files import read_image


def rendered(index: int, image_hw: tuple[int, int], frame: int = 0) -> Image:
    """Return a frame of a textured scene of a size."""
    return Image(Scene(VALIDATION_SEEDS[600 + index], image_hw).frame(frame).image, 'bgr')


def photograph(shared: Path, index: int) -> Image:
    """Return one of the shared photographs; most are 640 pixels wide or high."""
    folder = shared / 'data' / 'coco_tiny_val' / 'images'
    return read_image(sorted(folder.glob('*.jpg'))[index])
