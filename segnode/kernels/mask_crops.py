# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""From M x M mask probabilities to masks in the image.

A paste is separable: the value at a pixel is a row of y weights times the probabilities times a
column of x weights, with two weights a pixel and axis. Detectron2 and torchvision differ only in
where a pixel samples the mask.

Sources: Detectron2's ``layers/mask_ops.py`` (``_do_paste_mask``) and torchvision's
``paste_masks_in_image``.

Shapes: D instances, M side of a mask, H and W of the image, h and w of a box's pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segnode.kernels.cpu import cpu_kernels
from segnode.model.architecture import Paste


@dataclass(frozen=True, slots=True)
class MaskCrop:
    """An instance's own mask, before overlaps are resolved.

    Attributes:
        top, left: input pixels, where the crop's first pixel lies.
        pixels: (h, w) bool; outside of it the mask is empty.
        area: number of set pixels.
    """

    top: int
    left: int
    pixels: npt.NDArray[np.bool_]
    area: int


def axis_weights(
    low: float, high: float, size: int, cells: int, paste: Paste, threshold: float
) -> tuple[int, npt.NDArray[np.float32]]:
    """Return how the pixels of one axis sample the mask of one box.

    Args:
        low: start of the box's interval, input pixels.
        high: its end.
        size: the image's extent in pixels.
        cells: M.
        paste: whose sampling to follow.
        threshold: below 0.5 a pixel outside of the box can be set as well.

    Returns:
        The first pixel and (n, M) float32 weights of it and the n - 1 behind it; n may be 0, and
        is where the interval is empty.
    """
    if not high > low:
        return 0, np.zeros((0, cells), dtype=np.float32)
    if paste == 'detectron2':
        margin = 1.0 if threshold >= 0.5 else 1.0 + (high - low) / cells
        first = max(int(np.floor(low - margin)), 0)
        last = min(int(np.ceil(high + margin)), size)
        pixel = np.arange(first, last, dtype=np.float32)
        where = (pixel + 0.5 - np.float32(low)) / np.float32(high - low) * cells - 0.5
    else:
        # One border cell of zeros around the mask, and the box widened to match.
        half = (np.float32(high) - np.float32(low)) * np.float32(0.5)
        half *= np.float32((cells + 2) / cells)
        center = (np.float32(high) + np.float32(low)) * np.float32(0.5)
        start, end = int(center - half), int(center + half)
        extent = max(end - start + 1, 1)
        first, last = max(start, 0), min(end + 1, size)
        pixel = np.arange(first, last, dtype=np.float32)
        where = (pixel - start + 0.5) * np.float32((cells + 2) / extent) - 0.5
        where = np.clip(where, 0, cells + 1) - 1
    # What falls off the mask weighs on the cells of slack around it, which are cut away.
    where = np.clip(where, -1, cells)
    lower = np.floor(where)
    upper_weight = where - lower
    tap = lower.astype(np.int64) + 1
    row = np.arange(len(where))
    weights = np.zeros((len(where), cells + 3), dtype=np.float32)
    weights[row, tap] = 1 - upper_weight
    weights[row, tap + 1] = upper_weight
    return first, weights[:, 1 : cells + 1]


def paste_mask(
    probabilities: npt.NDArray[np.float32],
    box_xyxy: npt.NDArray[np.float32],
    image_hw: tuple[int, int],
    threshold: float,
    paste: Paste,
) -> MaskCrop:
    """Paste one instance.

    Args:
        probabilities: (M, M) float32.
        box_xyxy: (4,) float32, input pixels.
        image_hw: size of the input image.
        threshold: Detectron2 sets a pixel at this value, torchvision above it.
        paste: whose sampling to follow.
    """
    x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    cells = len(probabilities)
    left, x_weights = axis_weights(x0, x1, image_hw[1], cells, paste, threshold)
    top, y_weights = axis_weights(y0, y1, image_hw[0], cells, paste, threshold)
    values = y_weights @ probabilities @ x_weights.T
    pixels = values >= threshold if paste == 'detectron2' else values > threshold
    return MaskCrop(top, left, pixels, int(np.count_nonzero(pixels)))


def paste_masks(
    probabilities: npt.NDArray[np.float32],
    boxes_xyxy: npt.NDArray[np.float32],
    image_hw: tuple[int, int],
    threshold: float,
    paste: Paste,
) -> list[MaskCrop]:
    """Paste (D, M, M) probabilities into (D, 4) boxes, each as ``paste_mask`` does.

    The compiled kernel and NumPy can differ in pixels whose value is the threshold but for
    rounding.
    """
    kernels = cpu_kernels()
    if kernels is None:
        return [
            paste_mask(probability, box, image_hw, threshold, paste)
            for probability, box in zip(probabilities, boxes_xyxy, strict=True)
        ]
    extents, pixels, areas = kernels.paste_masks(
        probabilities, boxes_xyxy, image_hw, threshold, paste
    )
    return [
        MaskCrop(top, left, crop, area)
        for (left, top, _, _), crop, area in zip(
            extents.tolist(), pixels, areas.tolist(), strict=True
        )
    ]


def crop_mask(mask: npt.NDArray[np.bool_]) -> MaskCrop:
    """Return an (H, W) bool mask of the whole image as a crop."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return MaskCrop(0, 0, np.zeros((0, 0), np.bool_), 0)
    top, left = int(rows[0]), int(columns[0])
    pixels = np.ascontiguousarray(mask[top : rows[-1] + 1, left : columns[-1] + 1])
    return MaskCrop(top, left, pixels, int(np.count_nonzero(pixels)))


def label_image(crops: list[MaskCrop], image_hw: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """Paint the masks into one (H, W) uint16 image: k + 1 for ``crops[k]``, the first one wins."""
    kernels = cpu_kernels()
    if kernels is not None:
        extents = [(c.left, c.top, c.pixels.shape[1], c.pixels.shape[0]) for c in crops]
        return kernels.paint_labels(
            np.array(extents, np.int64).reshape(-1, 4), [c.pixels for c in crops], image_hw
        )
    labels = np.zeros(image_hw, dtype=np.uint16)
    for k in range(len(crops) - 1, -1, -1):
        crop = crops[k]
        height, width = crop.pixels.shape
        region = labels[crop.top : crop.top + height, crop.left : crop.left + width]
        np.copyto(region, np.uint16(k + 1), where=crop.pixels)
    return labels


def whole_mask(crop: MaskCrop, image_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the mask in the whole image: (H, W) bool."""
    mask = np.zeros(image_hw, dtype=np.bool_)
    height, width = crop.pixels.shape
    mask[crop.top : crop.top + height, crop.left : crop.left + width] = crop.pixels
    return mask
