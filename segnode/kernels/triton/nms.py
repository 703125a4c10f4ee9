# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Greedy non-maximum suppression in Triton: a bitmask of all overlaps, then one scan.

Shapes: B independent sets (any leading dimensions), K boxes a set, in blocks of 64.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from segnode.kernels.plain.nms import largest_float32

# Boxes of a block: as many as a word of the mask has bits.
BLOCK = 64


def nms(
    boxes: Tensor, valid: Tensor, threshold: float | Tensor, groups: Tensor | None = None
) -> Tensor:
    """As ``segnode.kernels.plain.nms.nms_static``, its twin."""
    return nms_and_count(boxes, valid, threshold, groups)[0]


def nms_and_count(
    boxes: Tensor, valid: Tensor, threshold: float | Tensor, groups: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As ``nms``; also return (..., K) int32, how many stay up to each box, with it."""
    k = valid.shape[-1]
    keep = torch.empty(valid.shape, dtype=torch.bool, device=valid.device)
    count = torch.empty(valid.shape, dtype=torch.int32, device=valid.device)
    if keep.numel() == 0:
        return keep, count
    if not isinstance(threshold, Tensor):
        threshold = torch.full((), largest_float32(threshold), device=boxes.device)
    sets, blocks = keep.numel() // k, triton.cdiv(k, BLOCK)
    mask = torch.empty((sets, blocks, blocks, BLOCK), dtype=torch.int64, device=boxes.device)
    capacity = triton.next_power_of_2(blocks)
    with torch.cuda.device_of(boxes):
        _mask_kernel[(blocks, blocks, sets)](
            boxes.contiguous(),
            boxes if groups is None else groups.contiguous(),
            threshold,
            mask,
            k,
            blocks,
            grouped=groups is not None,
            block=BLOCK,
            num_warps=8,
            # A fused multiply-add rounds once where the reference rounds twice.
            enable_fp_fusion=False,
        )
        _scan_kernel[(sets,)](
            mask,
            valid.contiguous().view(torch.uint8),
            keep.view(torch.uint8),
            count,
            k,
            blocks,
            capacity=capacity,
            block=BLOCK,
            # One warp needs no barriers; more only where its registers cannot hold a tile.
            num_warps=1 if capacity <= 16 else capacity // 8,
        )
    return keep, count


@triton.jit(do_not_specialize=['k', 'blocks'])
def _mask_kernel(
    boxes,
    groups,
    threshold,
    mask,
    k,
    blocks,
    grouped: tl.constexpr,
    block: tl.constexpr,
):
    """Set bit i of word j where box i of the row block overlaps box j of the column block.

    Words lie as (B, column block, row block, j), so that the scan reads one stretch a block.
    """
    row_block = tl.program_id(0)
    column_block = tl.program_id(1)
    if row_block <= column_block:
        first = tl.program_id(2).to(tl.int64) * k
        index = tl.arange(0, block)
        row = row_block * block + index
        column = column_block * block + index
        there = row < k
        here = column < k
        row_box = boxes + (first + row) * 4
        column_box = boxes + (first + column) * 4
        ax0 = tl.load(row_box, mask=there, other=0.0)[:, None]
        ay0 = tl.load(row_box + 1, mask=there, other=0.0)[:, None]
        ax1 = tl.load(row_box + 2, mask=there, other=0.0)[:, None]
        ay1 = tl.load(row_box + 3, mask=there, other=0.0)[:, None]
        bx0 = tl.load(column_box, mask=here, other=0.0)[None, :]
        by0 = tl.load(column_box + 1, mask=here, other=0.0)[None, :]
        bx1 = tl.load(column_box + 2, mask=here, other=0.0)[None, :]
        by1 = tl.load(column_box + 3, mask=here, other=0.0)[None, :]
        width = tl.maximum(tl.minimum(ax1, bx1) - tl.maximum(ax0, bx0), 0.0)
        height = tl.maximum(tl.minimum(ay1, by1) - tl.maximum(ay0, by0), 0.0)
        intersection = width * height
        union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - intersection
        # Plain division is approximate on a GPU.
        overlap = tl.div_rn(intersection, union) > tl.load(threshold)
        overlap = overlap & (row[:, None] < column[None, :]) & there[:, None] & here[None, :]
        if grouped:
            row_group = tl.load(groups + first + row, mask=there, other=0)
            column_group = tl.load(groups + first + column, mask=here, other=0)
            overlap = overlap & (row_group[:, None] == column_group[None, :])
        bit = tl.full([block], 1, tl.int64) << index.to(tl.int64)
        word = tl.sum(tl.where(overlap, bit[:, None], 0), axis=0)
        tile = (tl.program_id(2).to(tl.int64) * blocks + column_block) * blocks + row_block
        tl.store(mask + tile * block + index, word)


@triton.jit(do_not_specialize=['k', 'blocks'])
def _scan_kernel(
    mask,
    valid,
    keep,
    count,
    k,
    blocks,
    capacity: tl.constexpr,
    block: tl.constexpr,
):
    """Resolve the blocks of one set in order; ``kept`` holds a word for each one done."""
    one_set = tl.program_id(0).to(tl.int64)
    valid += one_set * k
    keep += one_set * k
    count += one_set * k
    mask += one_set * blocks * blocks * block
    index = tl.arange(0, block)
    bit = tl.full([block], 1, tl.int64) << index.to(tl.int64)
    row_block = tl.arange(0, capacity)
    tile = row_block[:, None] * block + index[None, :]
    kept = tl.zeros([capacity], tl.int64)
    staying = 0
    following = tl.load(mask + tile, mask=row_block[:, None] < 1, other=0)
    for column_block in range(blocks):
        words = following
        # The next tile does not depend on what is decided here: its way is hidden behind it.
        ahead = column_block + 1
        wanted = (row_block <= ahead) & (ahead < blocks)
        following = tl.load(mask + ahead * blocks * block + tile, mask=wanted[:, None], other=0)
        column = column_block * block + index
        usable = tl.load(valid + column, mask=column < k, other=0) != 0
        removed = tl.max(((words & kept[:, None]) != 0).to(tl.int32), axis=0)
        candidate = usable & (removed == 0)
        # Within the block: strike out what the present word overlaps until nothing changes. Round
        # n settles at least the first n boxes, and the settled word is the greedy one.
        own = tl.sum(tl.where(row_block[:, None] == column_block, words, 0), axis=0)
        word = tl.sum(tl.where(candidate, bit, 0), axis=0)
        before = ~word
        while word != before:
            before = word
            word = tl.sum(tl.where(candidate & ((own & before) == 0), bit, 0), axis=0)
        kept = tl.where(row_block == column_block, word, kept)
        stays = ((word & bit) != 0).to(tl.int32)
        tl.store(keep + column, stays.to(tl.uint8), mask=column < k)
        tl.store(count + column, staying + tl.cumsum(stays, axis=0), mask=column < k)
        staying += tl.sum(stays, axis=0)
