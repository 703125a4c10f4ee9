# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""OpenCV's bilinear resize as x86-64 has it, asked of the compiled step on another machine.

On aarch64 OpenCV 5.0.0 resizes by KleidiCV and Carotene: where it shrinks, a quarter to a third of
the bytes differ by 1 or 2 from what it gives on x86-64, on which models are trained and measured.
The compiled step gives x86-64's everywhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / 'test')]

import cv2  # noqa: E402 - the paths come first
import numpy as np  # noqa: E402
import torch  # noqa: E402

from segnode.kernels.cpu import cpu_kernels, cpu_plan  # noqa: E402
from segnode.kernels.resampling import prepare_preprocess  # noqa: E402

COUNT = 120


def record(path: Path) -> None:
    """Resize pictures of random sizes by OpenCV."""
    rng = np.random.default_rng()
    arrays = {}
    for number in range(COUNT):
        height, width, to_height, to_width = rng.integers(1, 200, 4).tolist()
        if number % 8 == 0:  # exactly half, for which OpenCV has a way of its own
            to_height, to_width = height, width
            height, width = 2 * height, 2 * width
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        arrays[f'given_{number}'] = pixels
        arrays[f'resized_{number}'] = cv2.resize(pixels, (to_width, to_height))
    np.savez_compressed(path, **arrays)


def compare(path: Path) -> int:
    """Compare the compiled step with the record; return how many pictures differ."""
    kernels = cpu_kernels()
    assert kernels is not None, 'not built'
    values = np.tile(np.arange(256, dtype=np.float32), (3, 1))
    cpu, differing, opencvs = torch.device('cpu'), 0, 0
    with np.load(path) as arrays:
        for number in range(COUNT):
            given, resized = arrays[f'given_{number}'], arrays[f'resized_{number}']
            size = resized.shape[:2]
            plan = cpu_plan(prepare_preprocess(given.shape[:2], size, cpu, resize='mmdetection'))
            assert plan is not None
            planes = kernels.preprocess(given, plan, values, False).numpy()
            found = planes[:, : size[0], : size[1]].transpose(1, 2, 0)
            differing += not np.array_equal(found, resized)
            opencvs += not np.array_equal(cv2.resize(given, size[::-1]), resized)
    print(  # noqa: T201 - a command
        f'{COUNT} pictures resized as OpenCV does on x86-64: {differing} differ compiled, '
        f'{opencvs} by the OpenCV at hand'
    )
    return differing


if __name__ == '__main__':
    what, file = sys.argv[1:]
    sys.exit(bool(compare(Path(file))) if what == 'compare' else record(Path(file)))
