# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Rendered frames on disk and random crops of them.

B images, H and W height and width, G ground-truth instances of one image.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from segnode.demo.scene import Scene, mask_boxes

FRAMES_PER_SCENE = 3
MAX_INSTANCES = 16
MIN_CROPPED_PX = 100
MIN_CROPPED_FRACTION = 0.2


@dataclass(frozen=True, slots=True)
class Target:
    """Ground truth of one image: boxes (G, 4) float32 xyxy, classes (G,), masks (G, H, W) bool."""

    boxes: Tensor
    class_ids: Tensor
    masks: Tensor


@dataclass(frozen=True, slots=True)
class FramePool:
    """Frames of many scenes: images (F, H, W, 3), instance maps (F, H, W), classes (F, 16)."""

    images: NDArray[np.uint8]
    instance_maps: NDArray[np.uint8]
    class_ids: NDArray[np.int8]

    @classmethod
    def render(cls, folder: Path, seeds: Sequence[int], workers: int = 2) -> FramePool:
        """Renders `FRAMES_PER_SCENE` frames of each seed into `folder`, unless they are there."""
        count = len(seeds) * FRAMES_PER_SCENE
        shapes = {
            'images': (count, 480, 640, 3),
            'instance_maps': (count, 480, 640),
            'class_ids': (count, MAX_INSTANCES),
        }
        done = folder / 'done'
        key = f'{seeds[0]} {seeds[-1]} {count}'
        if not (done.exists() and done.read_text() == key):
            folder.mkdir(parents=True, exist_ok=True)
            for name, shape in shapes.items():
                dtype = np.int8 if name == 'class_ids' else np.uint8
                np.lib.format.open_memmap(folder / f'{name}.npy', 'w+', dtype, shape).flush()
            jobs = [(str(folder), place, seed) for place, seed in enumerate(seeds)]
            with multiprocessing.get_context('spawn').Pool(workers) as pool:
                rendered = pool.imap_unordered(_render_scene, jobs, chunksize=4)
                for _ in tqdm(rendered, total=len(jobs), desc='rendering', unit='scene'):
                    pass
            done.write_text(key)
        return cls(*(np.load(folder / f'{name}.npy', mmap_mode='r') for name in shapes))

    def sample(
        self, rng: np.random.Generator, count: int, size_hw: tuple[int, int]
    ) -> tuple[Tensor, list[Target]]:
        """(B, 3, H, W) uint8 BGR random crops, and their ground truth."""
        images: list[Tensor] = []
        targets: list[Target] = []
        while len(images) < count:
            number = int(rng.integers(len(self.images)))
            image, instance_map = _crop(
                rng, self.images[number], self.instance_maps[number], size_hw
            )
            target = _target(self.instance_maps[number], instance_map, self.class_ids[number])
            if len(target.boxes):
                images.append(torch.from_numpy(image).permute(2, 0, 1))
                targets.append(target)
        return torch.stack(images), targets


def _render_scene(job: tuple[str, int, int]) -> None:
    folder, place, seed = job
    cv2.setNumThreads(1)
    names = ('images', 'instance_maps', 'class_ids')
    images, instance_maps, class_ids = (
        np.load(Path(folder) / f'{name}.npy', mmap_mode='r+') for name in names
    )
    scene = Scene(seed)
    for k in range(FRAMES_PER_SCENE):
        frame = scene.frame(k * 70 + seed % 10)
        row = place * FRAMES_PER_SCENE + k
        images[row] = frame.image
        instance_maps[row] = frame.instance_map
        class_ids[row] = -1
        class_ids[row, : len(frame.class_ids)] = frame.class_ids


def _crop(
    rng: np.random.Generator,
    image: NDArray[Any],
    instance_map: NDArray[Any],
    size_hw: tuple[int, int],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A randomly scaled, placed and mirrored window, with a little change of colour."""
    height, width = image.shape[:2]
    smallest = max(size_hw[0] / height, size_hw[1] / width)
    scale = max(smallest, rng.uniform(0.8, 1.25) if rng.random() < 0.7 else rng.uniform(0.5, 0.8))
    rows, columns = round(size_hw[0] / scale), round(size_hw[1] / scale)
    top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
    window = np.s_[top : top + rows, left : left + columns]
    shrinks = scale < 1
    image = cv2.resize(
        image[window], size_hw[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    instance_map = cv2.resize(
        instance_map[window], size_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT
    )
    if rng.random() < 0.5:
        image, instance_map = image[:, ::-1], instance_map[:, ::-1]
    levels = np.arange(256)[:, None] * rng.uniform(0.85, 1.15, 3) + rng.uniform(-10, 10)
    table = np.clip(levels, 0, 255).astype(np.uint8)[None]
    return cv2.LUT(np.ascontiguousarray(image), table), np.ascontiguousarray(instance_map)


def _target(
    whole_map: NDArray[np.uint8], instance_map: NDArray[np.uint8], class_ids: NDArray[np.int8]
) -> Target:
    """Ground truth of a crop, without the slivers that its edges leave."""
    area = np.bincount(instance_map.ravel(), minlength=MAX_INSTANCES + 1)
    scale = instance_map.size / whole_map.size
    whole = np.bincount(whole_map.ravel(), minlength=MAX_INSTANCES + 1) * min(1.0, scale)
    enough = (area >= MIN_CROPPED_PX) & (area >= MIN_CROPPED_FRACTION * whole)
    numbers = [k for k in range(1, MAX_INSTANCES + 1) if enough[k]]
    masks = np.array(numbers, np.uint8)[:, None, None] == instance_map[None]
    boxes = mask_boxes(instance_map, numbers)
    classes = class_ids[np.array(numbers, int) - 1].astype(np.int64)
    return Target(torch.from_numpy(boxes), torch.from_numpy(classes), torch.from_numpy(masks))
