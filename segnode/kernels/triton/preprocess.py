# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""From frames on the device to the network's input in Triton, either uint8 resize bit for bit.

Of Pillow's, one kernel is a pass into uint8; the other is the last pass, over the rows, and
reorders, normalises and pads on the way out. OpenCV's is one kernel with the same way out.

Shapes: N frames, H and W of a frame, C channels, H' and W' of the padded network input.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from segnode.kernels.plain.preprocess import preprocess_static
from segnode.kernels.resampling import (
    COLOURS,
    COLUMN_SHIFT,
    PRECISION_BITS,
    ROW_SHIFT,
    SUM_SHIFT,
    PreprocessPlan,
    ResampleTable,
)

# Rows and values (one a channel of a pixel) of a program: eight values a thread with four warps.
TILE_HW = (4, 256)


def preprocess(
    frames: Tensor,
    plan: PreprocessPlan,
    mean: Tensor,
    std: Tensor,
    swap: bool,
    dtype: torch.dtype,
    channels: int = COLOURS,
) -> Tensor:
    """As ``segnode.kernels.plain.preprocess.preprocess_static``, its twin.

    torchvision's resize of floats is that twin itself: PyTorch has a kernel for it.
    """
    if plan.last is None and plan.blend is None:
        return preprocess_static(frames, plan, mean, std, swap, dtype, channels)
    n = len(frames)
    padded_h, padded_w = plan.padded_hw
    output = torch.empty(
        (n, channels, padded_h, padded_w),
        dtype=dtype,
        device=frames.device,
        memory_format=torch.channels_last,
    )
    block_h, block_w = TILE_HW
    pixels = frames.contiguous()
    grid = (triton.cdiv(padded_w * channels, block_w), triton.cdiv(padded_h, block_h), n)
    with torch.cuda.device_of(frames):
        if plan.blend is not None:
            rows, columns = plan.blend
            _blend_kernel[grid](
                pixels,
                rows.neighbours,
                rows.weights,
                columns.neighbours,
                columns.weights,
                mean,
                std,
                output,
                *plan.image_hw,
                *plan.size_hw,
                padded_h,
                padded_w,
                int(swap),
                column_shift=COLUMN_SHIFT,
                row_shift=ROW_SHIFT,
                sum_shift=SUM_SHIFT,
                channels=channels,
                block_h=block_h,
                block_w=block_w,
                num_warps=4,
                enable_fp_fusion=False,
            )
        elif plan.last is not None:
            for table in plan.passes:
                pixels = _resample(pixels, table)
            _last_pass_kernel[grid](
                pixels,
                plan.last.taps,
                plan.last.weights,
                mean,
                std,
                output,
                plan.last.source,
                *plan.size_hw,
                padded_h,
                padded_w,
                len(plan.last.weights),
                int(swap),
                bits=PRECISION_BITS,
                channels=channels,
                block_h=block_h,
                block_w=block_w,
                num_warps=4,
                enable_fp_fusion=False,
            )
    return output


def _resample(pixels: Tensor, table: ResampleTable) -> Tensor:
    """Resample one dimension of (N, H, W, 3) uint8."""
    shape = list(pixels.shape)
    lines, inner = math.prod(shape[: table.dim]), math.prod(shape[table.dim + 1 :])
    taps, extent = table.taps.shape
    shape[table.dim] = extent
    resampled = torch.empty(shape, dtype=torch.uint8, device=pixels.device)
    block_h, block_w = TILE_HW
    grid = (triton.cdiv(extent * inner, block_w), triton.cdiv(lines, block_h))
    _pass_kernel[grid](
        pixels,
        table.taps,
        table.weights,
        resampled,
        lines,
        table.source,
        extent,
        inner,
        taps,
        bits=PRECISION_BITS,
        block_h=block_h,
        block_w=block_w,
        num_warps=4,
    )
    return resampled


@triton.jit(do_not_specialize=['lines', 'extent', 'new_extent', 'inner', 'taps'])
def _pass_kernel(
    source,
    pixels,
    weights,
    target,
    lines,
    extent,
    new_extent,
    inner,
    taps,
    bits: tl.constexpr,
    block_h: tl.constexpr,
    block_w: tl.constexpr,
):
    """Resample the middle dimension of (lines, extent, inner)."""
    value = tl.program_id(0) * block_w + tl.arange(0, block_w)
    line = tl.program_id(1) * block_h + tl.arange(0, block_h)
    position = value // inner
    within = value % inner
    inside = position < new_extent
    read = (line < lines)[:, None] & inside[None, :]
    source_line = source + (line.to(tl.int64) * extent * inner)[:, None]
    total = tl.full([block_h, block_w], 1 << (bits - 1), tl.int32)
    for tap in range(taps):
        weight = tl.load(weights + tap * new_extent + position, mask=inside, other=0)
        place = (
            tl.load(pixels + tap * new_extent + position, mask=inside, other=0) * inner + within
        )
        pixel = tl.load(source_line + place[None, :], mask=read, other=0)
        total += pixel.to(tl.int32) * weight[None, :]
    total = tl.minimum(tl.maximum(total >> bits, 0), 255)
    target_line = target + (line.to(tl.int64) * new_extent * inner)[:, None]
    tl.store(target_line + value[None, :], total.to(tl.uint8), mask=read)


@triton.jit(do_not_specialize=['height', 'new_h', 'new_w', 'padded_h', 'padded_w', 'taps', 'swap'])
def _last_pass_kernel(
    source,
    rows,
    weights,
    mean,
    std,
    output,
    height,
    new_h,
    new_w,
    padded_h,
    padded_w,
    taps,
    swap,
    bits: tl.constexpr,
    channels: tl.constexpr,
    block_h: tl.constexpr,
    block_w: tl.constexpr,
):
    """Resample the rows of (N, height, W, 3), reorder, normalise and pad."""
    value = tl.program_id(0) * block_w + tl.arange(0, block_w)
    y = tl.program_id(1) * block_h + tl.arange(0, block_h)
    frame = tl.program_id(2).to(tl.int64)
    x = value // channels
    channel = value % channels
    there = y < new_h
    read = there[:, None] & ((x < new_w) & (channel < 3))[None, :]
    place = x * 3 + tl.where(swap != 0, 2 - channel, channel)
    source += frame * height * new_w * 3
    total = tl.full([block_h, block_w], 1 << (bits - 1), tl.int32)
    for tap in range(taps):
        weight = tl.load(weights + tap * new_h + y, mask=there, other=0)
        row = tl.load(rows + tap * new_h + y, mask=there, other=0).to(tl.int64) * new_w * 3
        pixel = tl.load(source + row[:, None] + place[None, :], mask=read, other=0)
        total += pixel.to(tl.int32) * weight[:, None]
    total = tl.minimum(tl.maximum(total >> bits, 0), 255)
    output += frame * padded_h * padded_w * channels
    _store_normalised(total, read, y, value, mean, std, output, padded_h, padded_w, channels)


@triton.jit(
    do_not_specialize=['height', 'width', 'new_h', 'new_w', 'padded_h', 'padded_w', 'swap']
)
def _blend_kernel(
    source,
    rows,
    row_weights,
    columns,
    column_weights,
    mean,
    std,
    output,
    height,
    width,
    new_h,
    new_w,
    padded_h,
    padded_w,
    swap,
    column_shift: tl.constexpr,
    row_shift: tl.constexpr,
    sum_shift: tl.constexpr,
    channels: tl.constexpr,
    block_h: tl.constexpr,
    block_w: tl.constexpr,
):
    """Blend two by two neighbours of (N, height, width, 3), reorder, normalise and pad."""
    value = tl.program_id(0) * block_w + tl.arange(0, block_w)
    y = tl.program_id(1) * block_h + tl.arange(0, block_h)
    frame = tl.program_id(2).to(tl.int64)
    x = value // channels
    channel = value % channels
    there = y < new_h
    across = (x < new_w) & (channel < 3)
    read = there[:, None] & across[None, :]
    place = tl.where(swap != 0, 2 - channel, channel)
    source += frame * height * width * 3
    total = tl.full([block_h, block_w], 1 << (sum_shift - 1), tl.int32)
    for down in tl.static_range(2):
        row = tl.load(rows + down * new_h + y, mask=there, other=0).to(tl.int64) * width * 3
        blended = tl.zeros([block_h, block_w], tl.int32)
        for right in tl.static_range(2):
            column = tl.load(columns + right * new_w + x, mask=across, other=0) * 3 + place
            weight = tl.load(column_weights + right * new_w + x, mask=across, other=0)
            pixel = tl.load(source + row[:, None] + column[None, :], mask=read, other=0)
            blended += pixel.to(tl.int32) * weight[None, :]
        weight = tl.load(row_weights + down * new_h + y, mask=there, other=0)
        total += ((blended >> column_shift) * weight[:, None]) >> row_shift
    output += frame * padded_h * padded_w * channels
    _store_normalised(
        total >> sum_shift, read, y, value, mean, std, output, padded_h, padded_w, channels
    )


@triton.jit
def _store_normalised(
    pixels, there, y, value, mean, std, output, padded_h, padded_w, channels: tl.constexpr
):
    """Store values of one frame, ``channels`` a pixel, and zero where there are none."""
    channel = value % channels
    colour = channel < 3
    shift = tl.load(mean + channel, mask=colour, other=0.0)[None, :]
    scale = tl.load(std + channel, mask=colour, other=1.0)[None, :]
    scale += tl.zeros(pixels.shape, tl.float32)
    normalised = tl.where(there, tl.div_rn(pixels.to(tl.float32) - shift, scale), 0.0)
    target_row = output + (y.to(tl.int64) * padded_w * channels)[:, None]
    tl.store(
        target_row + value[None, :],
        normalised.to(output.dtype.element_ty),
        mask=(y < padded_h)[:, None] & (value < padded_w * channels)[None, :],
    )
