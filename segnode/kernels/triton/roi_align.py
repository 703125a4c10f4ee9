# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""RoIAlign over the levels of a pyramid in Triton, on channels_last maps as they are.

Shapes: N images, R RoIs, C channels, S side of the output.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from segnode.kernels.plain.roi_align import roi_align_static
from segnode.model.architecture import Pooler
from segnode.model.pooler import assign_levels

# Levels that the kernel tells apart, each of twice the stride of the one before.
MOST_LEVELS = 4


def roi_align(
    features: list[Tensor], boxes: Tensor, image_index: Tensor | None, pooler: Pooler
) -> Tensor:
    """As ``segnode.kernels.plain.roi_align.roi_align_static``, its twin, for four levels or fewer.

    Maps that are not channels_last are copied first.
    """
    levels = len(pooler.strides)
    if levels > MOST_LEVELS or pooler.strides != tuple(
        pooler.strides[0] << level for level in range(levels)
    ):
        return roi_align_static(features, boxes, image_index, pooler)
    maps = [x.contiguous(memory_format=torch.channels_last) for x in features[:levels]]
    # No RoI is read from a level that is not there: the area from which it would be is infinite.
    maps += maps[-1:] * (MOST_LEVELS - levels)
    rois, channels, resolution = len(boxes), maps[0].shape[1], pooler.resolution
    pooled = torch.empty(
        (rois, channels, resolution, resolution),
        dtype=maps[0].dtype,
        device=boxes.device,
        memory_format=torch.channels_last,
    )
    if rois == 0:
        return pooled
    bins = triton.next_power_of_2(resolution)
    block_channels = min(triton.next_power_of_2(channels), 256)
    with torch.cuda.device_of(boxes):
        _roi_align_kernel[(rois, resolution, triton.cdiv(channels, block_channels))](
            *maps,
            boxes.contiguous(),
            boxes if image_index is None else image_index.contiguous(),
            pooled,
            rois // len(maps[0]),
            *(side for x in maps for side in x.shape[-2:]),
            *level_areas(pooler),
            indexed=image_index is not None,
            stride=pooler.strides[0],
            channels=channels,
            resolution=resolution,
            sampling_ratio=pooler.sampling_ratio,
            aligned=pooler.aligned,
            bins=bins,
            block_channels=block_channels,
            # 16 values of each of the four maps' corners a thread.
            num_warps=min(max(bins * block_channels // 512, 1), 8),
            # Fused, a side that is a whole number of samples could gain one.
            enable_fp_fusion=False,
        )
    return pooled


@lru_cache
def level_areas(pooler: Pooler) -> tuple[float, ...]:
    """Return the smallest float32 areas, square pixels, of RoIs read from levels 1, 2 and 3.

    Infinite where ``pooler`` has no such level.

    They are searched for with ``assign_levels`` on the CPU, so that a comparison in the kernel
    gives the very level that the logarithm and its rounding give there.
    """
    areas = []
    for level in range(1, MOST_LEVELS):
        if level >= len(pooler.strides):
            areas.append(float('inf'))
            continue
        # Positive floats order as their bits do.
        low, high = (int(x) for x in torch.tensor([1.0, 1e8]).view(torch.int32))
        while low < high:
            middle = (low + high) // 2
            area = torch.tensor(middle, dtype=torch.int32).view(torch.float32)
            box = torch.stack((area * 0, area * 0, area, area * 0 + 1))
            if int(assign_levels(box, pooler)) >= level:
                high = middle
            else:
                low = middle + 1
        areas.append(float(torch.tensor(low, dtype=torch.int32).view(torch.float32)))
    return tuple(areas)


@triton.jit(do_not_specialize=['each', 'h2', 'w2', 'h3', 'w3', 'h4', 'w4', 'h5', 'w5'])
def _roi_align_kernel(
    p2,
    p3,
    p4,
    p5,
    boxes,
    image_index,
    pooled,
    each,
    h2,
    w2,
    h3,
    w3,
    h4,
    w4,
    h5,
    w5,
    area3,
    area4,
    area5,
    indexed: tl.constexpr,
    stride: tl.constexpr,
    channels: tl.constexpr,
    resolution: tl.constexpr,
    sampling_ratio: tl.constexpr,
    aligned: tl.constexpr,
    bins: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Pool one row of one RoI's bins, ``block_channels`` channels of it."""
    roi = tl.program_id(0)
    bin_y = tl.program_id(1)
    box = boxes + roi * 4
    x0 = tl.load(box)
    y0 = tl.load(box + 1)
    x1 = tl.load(box + 2)
    y1 = tl.load(box + 3)

    area = (x1 - x0) * (y1 - y0)
    feature = tl.where(area >= area3, p3, p2)
    feature = tl.where(area >= area4, p4, feature)
    feature = tl.where(area >= area5, p5, feature)
    height = tl.where(area >= area3, h3, h2)
    height = tl.where(area >= area4, h4, height)
    height = tl.where(area >= area5, h5, height)
    width = tl.where(area >= area3, w3, w2)
    width = tl.where(area >= area4, w4, width)
    width = tl.where(area >= area5, w5, width)
    scale = tl.where(area >= area3, 0.5 / stride, 1.0 / stride)
    scale = tl.where(area >= area4, 0.25 / stride, scale)
    scale = tl.where(area >= area5, 0.125 / stride, scale)

    # The half-pixel correction, or a smallest side of one pixel instead.
    shift = 0.5 if aligned else 0.0
    smallest = float('-inf') if aligned else 1.0
    left = x0 * scale - shift
    top = y0 * scale - shift
    bin_width = tl.div_rn(tl.maximum(x1 * scale - shift - left, smallest), resolution * 1.0)
    bin_height = tl.div_rn(tl.maximum(y1 * scale - shift - top, smallest), resolution * 1.0)
    if sampling_ratio > 0:
        samples_x = sampling_ratio
        samples_y = sampling_ratio
    else:
        samples_x = tl.ceil(bin_width).to(tl.int32)
        samples_y = tl.ceil(bin_height).to(tl.int32)

    bin_x = tl.arange(0, bins)
    channel = tl.program_id(2) * block_channels + tl.arange(0, block_channels)
    used = channel < channels
    image = (tl.load(image_index + roi) if indexed else roi // each).to(tl.int64)
    feature += image * height * width * channels
    start_y = top + bin_y * bin_height
    start_x = left + bin_x.to(tl.float32) * bin_width
    total = tl.zeros([bins, block_channels], tl.float32)
    for sample_y in range(samples_y):
        y = start_y + tl.div_rn((sample_y + 0.5) * bin_height, samples_y * 1.0)
        bins_there = tl.where((y >= -1.0) & (y <= height), resolution, 0)
        y = tl.maximum(y, 0.0)
        low_y = tl.minimum(y.to(tl.int32), height - 1)
        high_y = tl.minimum(low_y + 1, height - 1)
        # Beyond the last row's centre the last row alone counts.
        upper_y = tl.where(low_y < height - 1, y - low_y, 0.0)
        lower_y = 1.0 - upper_y
        low_row = feature + low_y * width * channels
        high_row = feature + high_y * width * channels
        for sample_x in range(samples_x):
            x = start_x + tl.div_rn((sample_x + 0.5) * bin_width, samples_x * 1.0)
            there = (x >= -1.0) & (x <= width) & (bin_x < bins_there)
            x = tl.maximum(x, 0.0)
            low_x = tl.minimum(x.to(tl.int32), width - 1)
            high_x = tl.minimum(low_x + 1, width - 1)
            upper_x = tl.where(low_x < width - 1, x - low_x, 0.0)
            lower_x = 1.0 - upper_x
            low_column = low_x[:, None] * channels + channel[None, :]
            high_column = high_x[:, None] * channels + channel[None, :]
            read = there[:, None] & used[None, :]
            value00 = tl.load(low_row + low_column, mask=read, other=0.0).to(tl.float32)
            value01 = tl.load(low_row + high_column, mask=read, other=0.0).to(tl.float32)
            value10 = tl.load(high_row + low_column, mask=read, other=0.0).to(tl.float32)
            value11 = tl.load(high_row + high_column, mask=read, other=0.0).to(tl.float32)
            total += (
                (lower_y * lower_x)[:, None] * value00
                + (lower_y * upper_x)[:, None] * value01
                + (upper_y * lower_x)[:, None] * value10
                + (upper_y * upper_x)[:, None] * value11
            )
    count = tl.maximum(samples_y * samples_x, 1).to(tl.float32)
    total = tl.div_rn(total, tl.zeros_like(total) + count)
    first = (roi.to(tl.int64) * resolution + bin_y) * resolution * channels
    target = pooled + first + bin_x[:, None] * channels + channel[None, :]
    tl.store(
        target,
        total.to(pooled.dtype.element_ty),
        mask=(bin_x < resolution)[:, None] & used[None, :],
    )
