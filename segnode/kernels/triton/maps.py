# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Max-pooling and the pyramid's sums in Triton, on channels_last maps, to the last bit.

PyTorch's own pooling on a GPU writes the int64 index of each value beside it, four times the bytes
of the map in half precision. Its sum of a map and a coarser one has six dimensions.

Shapes: N images, C channels, H and W of the map at hand, h and w of one half as fine.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Values of a program: eight a thread with four warps. Channels of it, at most.
VALUES = 1024
MOST_CHANNELS = 128


def max_pool(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """As ``segnode.model.maps.max_pool``, its twin; maps not in channels_last are copied first."""
    x = x.contiguous(memory_format=torch.channels_last)
    n, channels, height, width = x.shape
    new_h, new_w = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    pooled = torch.empty(
        (n, channels, new_h, new_w),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )
    grid, block_pixels, block_channels = _blocks(n * new_h * new_w, channels)
    with torch.cuda.device_of(x):
        _max_pool_kernel[grid](
            x,
            pooled,
            n * new_h * new_w,
            height,
            width,
            new_h,
            new_w,
            channels=channels,
            kernel=kernel,
            stride=stride,
            padding=padding,
            block_pixels=block_pixels,
            block_channels=block_channels,
            num_warps=4,
        )
    return pooled


def add_enlarged(x: Tensor, small: Tensor) -> Tensor:
    """As ``segnode.model.maps.add_enlarged``, its twin; maps not in channels_last are copied.

    Raises:
        ValueError: the maps do not fit together.
    """
    x, small = (each.contiguous(memory_format=torch.channels_last) for each in (x, small))
    n, channels, height, width = x.shape
    if (n, channels, height, width) != (*small.shape[:2], *(2 * side for side in small.shape[2:])):
        raise ValueError(f'{tuple(small.shape)} enlarged does not fit {tuple(x.shape)}')
    dtype = x.dtype if x.dtype == small.dtype else torch.promote_types(x.dtype, small.dtype)
    total = torch.empty(
        x.shape,
        dtype=dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )
    grid, block_pixels, block_channels = _blocks(n * height * width, channels)
    with torch.cuda.device_of(x):
        _add_enlarged_kernel[grid](
            x,
            small,
            total,
            n * height * width,
            width,
            channels=channels,
            block_pixels=block_pixels,
            block_channels=block_channels,
            num_warps=4,
        )
    return total


def _blocks(pixels: int, channels: int) -> tuple[tuple[int, int], int, int]:
    """Return the grid over a map's pixels and channels, and how many of each a program has."""
    block_channels = min(triton.next_power_of_2(channels), MOST_CHANNELS)
    block_pixels = VALUES // block_channels
    grid = (triton.cdiv(pixels, block_pixels), triton.cdiv(channels, block_channels))
    return grid, block_pixels, block_channels


@triton.jit(do_not_specialize=['pixels', 'height', 'width', 'new_h', 'new_w'])
def _max_pool_kernel(
    source,
    target,
    pixels,
    height,
    width,
    new_h,
    new_w,
    channels: tl.constexpr,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    padding: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Take the largest of each window of (N, height, width, channels), in PyTorch's order."""
    pixel = tl.program_id(0) * block_pixels + tl.arange(0, block_pixels)
    channel = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    there = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    row = pixel // new_w
    top = row % new_h * stride - padding
    left = pixel % new_w * stride - padding
    first = (row // new_h).to(tl.int64) * height
    largest = tl.full([block_pixels, block_channels], float('-inf'), tl.float32)
    for down in tl.static_range(kernel):
        y = top + down
        for right in tl.static_range(kernel):
            x = left + right
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            place = ((first + y) * width + x) * channels
            value = tl.load(
                source + place[:, None] + channel[None, :],
                mask=there & inside[:, None],
                other=float('-inf'),
            ).to(tl.float32)
            # What is no number wins, and of equal ones, as of zeros with a sign, the first.
            largest = tl.where((value > largest) | (value != value), value, largest)
    place = pixel.to(tl.int64) * channels
    tl.store(
        target + place[:, None] + channel[None, :],
        largest.to(target.dtype.element_ty),
        mask=there,
    )


@triton.jit(do_not_specialize=['pixels', 'width'])
def _add_enlarged_kernel(
    x,
    small,
    total,
    pixels,
    width,
    channels: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Add to each pixel of (N, H, width, channels) the one of ``small`` that it lies in."""
    pixel = tl.program_id(0) * block_pixels + tl.arange(0, block_pixels)
    channel = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    there = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    # Two rows are one of the coarser map, across the border of two images too.
    coarse = pixel // width // 2 * (width // 2) + pixel % width // 2
    place = (pixel.to(tl.int64) * channels)[:, None] + channel[None, :]
    coarse_place = (coarse.to(tl.int64) * channels)[:, None] + channel[None, :]
    fine = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    summand = tl.load(small + coarse_place, mask=there, other=0.0).to(tl.float32)
    tl.store(total + place, (fine + summand).to(total.dtype.element_ty), mask=there)
