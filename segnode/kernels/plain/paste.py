# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Masks pasted into one label image in plain PyTorch: one shape, no host stop.

Shapes: N images, D instances, C of them at a time, M side of a mask, H and W of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segnode.model.architecture import Paste

# Pixels of whole masks held at a time, over all images: 64 MB in float32.
CHUNK_PIXELS = 2**24


def paste_labels_static(
    probabilities: Tensor,
    boxes: Tensor,
    keep: Tensor,
    image_hw: tuple[int, int],
    *,
    threshold: Tensor,
    min_area: Tensor,
    max_area: Tensor,
    paste: Paste,
) -> tuple[Tensor, Tensor]:
    """Paste masks, count their pixels, drop by area and paint what stays into one image.

    It samples as ``segnode.kernels.mask_crops.axis_weights`` does, and needs float32 matrix
    products in full precision (PyTorch's default).

    Args:
        probabilities: (N, D, M, M) float32.
        boxes: (N, D, 4) float32 xyxy, input pixels.
        keep: (N, D) bool; other instances are as good as absent.
        image_hw: H and W.
        threshold: () float32, above 0; Detectron2 sets a pixel at this value, torchvision above.
        min_area: () int64, smallest area to stay, in input pixels; 0 or more.
        max_area: () int64, largest area to stay.
        paste: whose sampling to follow.

    Returns:
        labels: (N, H, W) uint16; 0 is background, k the k-th instance that stays, and where
            instances overlap the first one has the pixel.
        areas: (N, D) int64, pixels of the instance's own mask, before overlaps; -1 where it does
            not stay, which it does where it is kept and within the bounds.
    """
    n, d = keep.shape
    height, width = image_hw
    labels = torch.zeros((n, height, width), dtype=torch.int32, device=keep.device)
    taken = torch.zeros((n, 1), dtype=torch.int32, device=keep.device)
    areas, stay = [keep.new_zeros((n, 0), dtype=torch.int64)], [keep[:, :0]]
    chunk = max(CHUNK_PIXELS // max(labels.numel(), 1), 1)
    for start in range(0, d, chunk):
        part = slice(start, start + chunk)
        x0, y0, x1, y1 = boxes[:, part, :, None].unbind(2)
        rows = sampling_weights(y0, y1, height, probabilities.shape[-1], paste)
        columns = sampling_weights(x0, x1, width, probabilities.shape[-1], paste)
        values = rows @ probabilities[:, part] @ columns.mT
        covered = values >= threshold if paste == 'detectron2' else values > threshold
        covered &= keep[:, part, None, None]
        area = covered.sum((-2, -1))
        stays = keep[:, part] & (area >= min_area) & (area <= max_area)
        number = taken + stays.cumsum(1, dtype=torch.int32)
        covered &= stays[..., None, None]
        nobody = d + 1
        first = number[..., None, None].masked_fill(~covered, nobody).amin(1)
        labels += first.masked_fill((labels > 0) | (first == nobody), 0)
        taken = number[:, -1:]
        areas.append(area)
        stay.append(stays)
    # PyTorch can store uint16 but hardly compute with it.
    own = torch.where(torch.cat(stay, 1), torch.cat(areas, 1), -1)
    return labels.to(torch.int16).view(torch.uint16), own


def sampling_weights(low: Tensor, high: Tensor, size: int, cells: int, paste: Paste) -> Tensor:
    """Return (N, C, size, M) weights of the cells in each pixel; all are 0 for an empty box."""
    pixel = torch.arange(size, dtype=torch.float32, device=low.device)
    if paste == 'detectron2':
        where = (pixel + 0.5 - low) / (high - low) * cells - 0.5
    else:
        # One border cell of zeros around the mask, and the box widened to match.
        half = (high - low) * 0.5 * ((cells + 2) / cells)
        center = (high + low) * 0.5
        start, end = (center - half).trunc(), (center + half).trunc()
        extent = (end - start + 1).clamp(min=1)
        where = (pixel - start + 0.5) * ((cells + 2) / extent) - 0.5
        where = where.clamp(0, cells + 1) - 1
    where = where.clamp(-1, cells).masked_fill(~(high > low), -1)[..., None]
    lower = where.floor()
    upper_weight = where - lower
    cell = torch.arange(cells, dtype=torch.float32, device=low.device)
    return (cell == lower) * (1 - upper_weight) + (cell == lower + 1) * upper_weight
