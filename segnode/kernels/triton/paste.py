# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Masks pasted straight into one label image in Triton: no mask is ever written.

One kernel counts the pixels of every instance's own mask, going over its box alone; the other
paints tiles of the image with the instances that touch them.

Shapes: N images, D instances, M side of a mask, H and W of an image.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from segnode.model.architecture import Paste

# Pixels of a program: four a thread with four warps.
TILE_HW = (16, 32)

# Programs that share the box of one instance: a large one alone must not be what all wait for.
SHARES = 32


def paste_labels(
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
    """As ``segnode.kernels.plain.paste.paste_labels_static``, its twin."""
    n, d, cells, _ = probabilities.shape
    height, width = image_hw
    device = probabilities.device
    counted = torch.zeros((n, d), dtype=torch.int64, device=device)
    if n * d == 0:
        return torch.zeros((n, *image_hw), dtype=torch.uint16, device=device), counted
    areas = torch.empty_like(counted)
    labels = torch.empty((n, *image_hw), dtype=torch.int16, device=device)
    inputs = (probabilities.contiguous(), boxes.contiguous(), keep.contiguous().view(torch.uint8))
    block_h, block_w = TILE_HW
    with torch.cuda.device_of(probabilities):
        _area_kernel[(SHARES, d, n)](
            *inputs,
            threshold,
            counted,
            d,
            height,
            width,
            cells=cells,
            border=paste == 'torchvision',
            block_h=block_h,
            block_w=block_w,
            num_warps=4,
            # Rounded otherwise, pixels on a mask's edge would differ from the reference's.
            enable_fp_fusion=False,
        )
        _paint_kernel[(triton.cdiv(width, block_w), triton.cdiv(height, block_h), n)](
            *inputs,
            threshold,
            min_area,
            max_area,
            counted,
            areas,
            labels,
            d,
            height,
            width,
            cells=cells,
            border=paste == 'torchvision',
            capacity=triton.next_power_of_2(d),
            block_h=block_h,
            block_w=block_w,
            num_warps=4,
            enable_fp_fusion=False,
        )
    return labels.view(torch.uint16), areas


@triton.jit
def _pixel_range(low, high, size, cells: tl.constexpr, border: tl.constexpr):
    """Return the first pixel of an axis that a mask can reach and the one behind the last.

    An empty box reaches none.
    """
    if border:
        first, extent = _widened(low, high, cells)
        last = first + extent
    else:
        margin = (high - low) / cells + 1.0
        first = tl.floor(low - margin).to(tl.int32)
        last = tl.ceil(high + margin).to(tl.int32)
    return tl.maximum(first, 0), tl.where(high > low, tl.minimum(last, size), 0)


@triton.jit
def _widened(low, high, cells: tl.constexpr):
    """Return first pixel and extent of a box widened by one border cell a side."""
    half = (high - low) * 0.5 * ((cells + 2) / cells)
    center = (high + low) * 0.5
    start = (center - half).to(tl.int32)
    end = (center + half).to(tl.int32)
    return start, tl.maximum(end - start + 1, 1)


@triton.jit
def _position(pixel, low, high, cells: tl.constexpr, border: tl.constexpr):
    """Return where pixels sample the mask, in cells; -1 and M lie on the slack around it."""
    if border:
        start, extent = _widened(low, high, cells)
        ratio = tl.div_rn((cells + 2) * 1.0, extent.to(tl.float32))
        where = ((pixel - start).to(tl.float32) + 0.5) * ratio - 0.5
        where = tl.minimum(tl.maximum(where, 0.0), cells + 1.0) - 1.0
    else:
        where = tl.div_rn(pixel.to(tl.float32) + 0.5 - low, high - low) * cells - 0.5
    return tl.minimum(tl.maximum(where, -1.0), cells * 1.0)


@triton.jit
def _covered(
    probability,
    box,
    y,
    x,
    threshold,
    cells: tl.constexpr,
    border: tl.constexpr,
):
    """Return which of the pixels ``y`` by ``x`` the mask of one box covers."""
    where_y = _position(y, tl.load(box + 1), tl.load(box + 3), cells, border)
    where_x = _position(x, tl.load(box), tl.load(box + 2), cells, border)
    lower_y = tl.floor(where_y)
    lower_x = tl.floor(where_x)
    upper_y_weight = (where_y - lower_y)[:, None]
    upper_x_weight = (where_x - lower_x)[None, :]
    row = lower_y.to(tl.int32)
    column = lower_x.to(tl.int32)
    row_low = ((row >= 0) & (row < cells))[:, None]
    row_high = (row + 1 < cells)[:, None]
    column_low = ((column >= 0) & (column < cells))[None, :]
    column_high = (column + 1 < cells)[None, :]
    cell = probability + row[:, None] * cells + column[None, :]
    value00 = tl.load(cell, mask=row_low & column_low, other=0.0)
    value01 = tl.load(cell + 1, mask=row_low & column_high, other=0.0)
    value10 = tl.load(cell + cells, mask=row_high & column_low, other=0.0)
    value11 = tl.load(cell + cells + 1, mask=row_high & column_high, other=0.0)
    left = (1.0 - upper_y_weight) * value00 + upper_y_weight * value10
    right = (1.0 - upper_y_weight) * value01 + upper_y_weight * value11
    value = (1.0 - upper_x_weight) * left + upper_x_weight * right
    return value > threshold if border else value >= threshold


@triton.jit(do_not_specialize=['instances', 'height', 'width'])
def _area_kernel(
    probabilities,
    boxes,
    keep,
    threshold,
    counted,
    instances,
    height,
    width,
    cells: tl.constexpr,
    border: tl.constexpr,
    block_h: tl.constexpr,
    block_w: tl.constexpr,
):
    """Add the pixels of every ``num_programs``-th tile of one instance's box to its area."""
    share = tl.program_id(0)
    index = tl.program_id(2) * instances + tl.program_id(1)
    if tl.load(keep + index) != 0:
        box = boxes + index * 4
        first_x, last_x = _pixel_range(tl.load(box), tl.load(box + 2), width, cells, border)
        first_y, last_y = _pixel_range(tl.load(box + 1), tl.load(box + 3), height, cells, border)
        tiles_x = tl.maximum(tl.cdiv(last_x - first_x, block_w), 0)
        tiles = tiles_x * tl.maximum(tl.cdiv(last_y - first_y, block_h), 0)
        if share < tiles:
            limit = tl.load(threshold)
            total = tl.zeros([block_h, block_w], tl.int32)
            for tile in range(share, tiles, tl.num_programs(0)):
                y = first_y + tile // tiles_x * block_h + tl.arange(0, block_h)
                x = first_x + tile % tiles_x * block_w + tl.arange(0, block_w)
                probability = probabilities + index * cells * cells
                covered = _covered(probability, box, y, x, limit, cells, border)
                covered = covered & (y < last_y)[:, None] & (x < last_x)[None, :]
                total += covered.to(tl.int32)
            tl.atomic_add(counted + index, tl.sum(tl.sum(total, axis=1), axis=0).to(tl.int64))


@triton.jit(do_not_specialize=['instances', 'height', 'width'])
def _paint_kernel(
    probabilities,
    boxes,
    keep,
    threshold,
    min_area,
    max_area,
    counted,
    areas,
    labels,
    instances,
    height,
    width,
    cells: tl.constexpr,
    border: tl.constexpr,
    capacity: tl.constexpr,
    block_h: tl.constexpr,
    block_w: tl.constexpr,
):
    """Paint one tile; the first instance that covers a pixel has it.

    The first tile's program writes the areas of those that stay.
    """
    image = tl.program_id(2)
    first = image * instances
    index = tl.arange(0, capacity)
    there = index < instances
    area = tl.load(counted + first + index, mask=there, other=0)
    stays = tl.load(keep + first + index, mask=there, other=0) != 0
    stays = stays & (area >= tl.load(min_area)) & (area <= tl.load(max_area))
    if (tl.program_id(0) == 0) & (tl.program_id(1) == 0):
        tl.store(areas + first + index, tl.where(stays, area, -1), mask=there)

    box = boxes + (first + index) * 4
    x0 = tl.load(box, mask=there, other=0.0)
    y0 = tl.load(box + 1, mask=there, other=0.0)
    x1 = tl.load(box + 2, mask=there, other=1.0)
    y1 = tl.load(box + 3, mask=there, other=1.0)
    first_x, last_x = _pixel_range(x0, x1, width, cells, border)
    first_y, last_y = _pixel_range(y0, y1, height, cells, border)
    left = tl.program_id(0) * block_w
    top = tl.program_id(1) * block_h
    touches = (first_x < left + block_w) & (last_x > left)
    touches = touches & (first_y < top + block_h) & (last_y > top)
    todo = stays & touches

    x = left + tl.arange(0, block_w)
    y = top + tl.arange(0, block_h)
    inside = (y < height)[:, None] & (x < width)[None, :]
    # Pixels outside of the image count as painted.
    label = tl.where(inside, 0, 1)
    limit = tl.load(threshold)
    instance = tl.min(tl.where(todo, index, capacity), axis=0)
    unpainted = 1
    while (instance < capacity) & (unpainted > 0):
        which = first + instance
        probability = probabilities + which * cells * cells
        covered = _covered(probability, boxes + which * 4, y, x, limit, cells, border)
        number = tl.sum((stays & (index <= instance)).to(tl.int32), axis=0)
        label = tl.where((label == 0) & covered, number, label)
        unpainted = tl.max(tl.max((label == 0).to(tl.int32), axis=1), axis=0)
        instance = tl.min(tl.where(todo & (index > instance), index, capacity), axis=0)
    pixel = image.to(tl.int64) * height * width + y[:, None] * width + x[None, :]
    tl.store(labels + pixel, label.to(tl.int16), mask=inside)
