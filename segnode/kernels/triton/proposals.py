# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The RPN's selection in Triton kernels around PyTorch's top-k of each level.

Shapes: N images, L levels, S_l anchors of a level, S of all levels, K candidates a level, P
proposals.
"""

from __future__ import annotations

from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor

from segnode.kernels.plain.selection import select_proposals_static
from segnode.kernels.triton.boxes import BLOCK, decode_box, rank_key, store_box
from segnode.kernels.triton.nms import nms
from segnode.model.architecture import Architecture
from segnode.model.boxes import SCALE_CLAMP
from segnode.model.rpn import Proposals

# Levels that the kernel tells apart.
MOST_LEVELS = 5


def select_proposals(
    logits: list[Tensor],
    deltas: list[Tensor],
    anchors: Tensor,
    image_hw: tuple[int, int],
    architecture: Architecture,
    post_nms_topk: int,
) -> Proposals:
    """As ``segnode.kernels.plain.selection.select_proposals_static``, its twin.

    What has more levels, or deltas of several formats, is left to that.
    """
    dtypes = {x.dtype for x in deltas}
    if len(logits) > MOST_LEVELS or len(dtypes) > 1:
        return select_proposals_static(
            logits, deltas, anchors, image_hw, architecture, post_nms_topk
        )
    n, levels, candidates = len(logits[0]), len(logits), architecture.rpn_pre_nms_topk
    if architecture.semantics.rank_probabilities:
        logits = [torch.sigmoid(x.float().contiguous()) for x in logits]
    scores, sizes = torch.cat(logits, 1), [x.shape[1] for x in logits]
    device, everything = scores.device, levels * candidates
    keys = torch.empty(scores.shape, dtype=torch.int64, device=device)
    boxes = torch.empty((n, levels, candidates, 4), device=device)
    best = torch.empty((n, levels, candidates), device=device)
    valid = torch.empty((n, levels, candidates), dtype=torch.bool, device=device)
    with torch.cuda.device_of(scores):
        _score_keys_kernel[(triton.cdiv(sum(sizes), BLOCK), n)](
            scores, scores, keys, sum(sizes), masked=False, block=BLOCK, num_warps=4
        )
        index = [
            torch.topk(part, min(candidates, size), dim=1).indices
            for part, size in zip(keys.split(sizes, 1), sizes, strict=True)
        ]
        moves, pitch = _in_step(deltas)
        missing = MOST_LEVELS - levels
        _candidates_kernel[(triton.cdiv(candidates, BLOCK), levels, n)](
            scores,
            anchors,
            *(moves + moves[-1:] * missing),
            *(index + index[-1:] * missing),
            boxes,
            best,
            valid.view(torch.uint8),
            *(accumulate([*sizes, *[0] * missing])),
            candidates,
            *architecture.rpn_bbox_weights,
            *(float(side) for side in image_hw),
            SCALE_CLAMP,
            architecture.rpn_min_size,
            levels=levels,
            pitch=pitch,
            clamp_shrinking=architecture.semantics.clamp_shrinking,
            inclusive=architecture.semantics.inclusive_sides,
            block=BLOCK,
            num_warps=4,
            # A fused multiply-add rounds once where the twin rounds twice.
            enable_fp_fusion=False,
        )
        keep = nms(boxes, valid, architecture.rpn_nms_threshold)
        keys = torch.empty((n, everything), dtype=torch.int64, device=device)
        kept = keep.view(torch.uint8)
        _score_keys_kernel[(triton.cdiv(everything, BLOCK), n)](
            best, kept, keys, everything, masked=True, block=BLOCK, num_warps=4
        )
        chosen = torch.topk(keys, min(post_nms_topk, everything), dim=1).indices
        count = chosen.shape[1]
        proposals = Proposals(
            torch.empty((n, count, 4), device=device),
            torch.empty((n, count), device=device),
            torch.empty((n, count), dtype=torch.bool, device=device),
        )
        _take_kernel[(triton.cdiv(count, BLOCK), n)](
            boxes,
            best,
            kept,
            chosen,
            proposals.boxes,
            proposals.scores,
            proposals.valid.view(torch.uint8),
            everything,
            count,
            block=BLOCK,
            num_warps=4,
        )
    return proposals


def _in_step(rows: list[Tensor]) -> tuple[list[Tensor], int]:
    """Return rows (N, S_l, 4), and how many numbers lie from one to the next in all levels."""
    pitch = rows[0].stride(1)
    if all(x.stride() == (x.shape[1] * pitch, pitch, 1) for x in rows):
        return rows, pitch
    return [x.contiguous() for x in rows], 4


@triton.jit(do_not_specialize=['size'])
def _score_keys_kernel(scores, mask, keys, size, masked: tl.constexpr, block: tl.constexpr):
    """Make keys of (N, size) scores; what is no number, or not in the mask, comes last."""
    index = tl.program_id(0) * block + tl.arange(0, block)
    place = tl.program_id(1).to(tl.int64) * size + index
    score = tl.load(scores + place, mask=index < size, other=0.0).to(tl.float32)
    usable = score == score
    if masked:
        usable = usable & (tl.load(mask + place, mask=index < size, other=0) != 0)
    key = rank_key(tl.where(usable, score, float('-inf')), index)
    tl.store(keys + place, key, mask=index < size)


@triton.jit(
    do_not_specialize=[
        *('end_1', 'end_2', 'end_3', 'end_4', 'end_5', 'candidates'),
        *('weight_x', 'weight_y', 'weight_w', 'weight_h', 'height', 'width', 'clamp', 'min_side'),
    ]
)
def _candidates_kernel(
    scores,
    anchors,
    moves_1,
    moves_2,
    moves_3,
    moves_4,
    moves_5,
    index_1,
    index_2,
    index_3,
    index_4,
    index_5,
    boxes,
    best,
    valid,
    end_1,
    end_2,
    end_3,
    end_4,
    end_5,
    candidates,
    weight_x,
    weight_y,
    weight_w,
    weight_h,
    height,
    width,
    clamp,
    min_side,
    levels: tl.constexpr,
    pitch: tl.constexpr,
    clamp_shrinking: tl.constexpr,
    inclusive: tl.constexpr,
    block: tl.constexpr,
):
    """Decode, clip and check the candidates of one level; slots that it does not fill hold 0."""
    level = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    moves = tl.where(level > 0, moves_2, moves_1)
    moves = tl.where(level > 1, moves_3, moves)
    moves = tl.where(level > 2, moves_4, moves)
    moves = tl.where(level > 3, moves_5, moves)
    places = tl.where(level > 0, index_2, index_1)
    places = tl.where(level > 1, index_3, places)
    places = tl.where(level > 2, index_4, places)
    places = tl.where(level > 3, index_5, places)
    start = tl.where(level > 0, end_1, 0)
    start = tl.where(level > 1, end_2, start)
    start = tl.where(level > 2, end_3, start)
    start = tl.where(level > 3, end_4, start)
    end = tl.where(level > 0, end_2, end_1)
    end = tl.where(level > 1, end_3, end)
    end = tl.where(level > 2, end_4, end)
    end = tl.where(level > 3, end_5, end)
    size = end - start
    count = tl.minimum(candidates, size)
    slot = tl.program_id(0) * block + tl.arange(0, block)
    there = slot < count
    index = tl.load(places + image * count + slot, mask=there, other=0)
    # The last level's end is that of all.
    score = tl.load(scores + image * end_5 + start + index, mask=there, other=0.0).to(tl.float32)
    left, top, right, bottom, finite = decode_box(
        moves + (image * size + index) * pitch,
        anchors + (start + index) * 4,
        there,
        weight_x,
        weight_y,
        weight_w,
        weight_h,
        width,
        height,
        clamp,
        clamp_shrinking,
    )
    side = tl.minimum(right - left, bottom - top)
    large = side >= min_side if inclusive else side > min_side
    usable = there & finite & large & (tl.abs(score) < float('inf'))
    target = (image * levels + level) * candidates + slot
    inside = slot < candidates
    store_box(boxes + target * 4, left, top, right, bottom, inside)
    tl.store(best + target, score, mask=inside)
    tl.store(valid + target, usable.to(tl.uint8), mask=inside)


@triton.jit(do_not_specialize=['candidates', 'count'])
def _take_kernel(
    boxes,
    best,
    kept,
    chosen,
    proposals,
    scores,
    valid,
    candidates,
    count,
    block: tl.constexpr,
):
    """Gather the proposals of one image."""
    image = tl.program_id(1).to(tl.int64)
    slot = tl.program_id(0) * block + tl.arange(0, block)
    there = slot < count
    target = image * count + slot
    index = image * candidates + tl.load(chosen + target, mask=there, other=0)
    stays = tl.load(kept + index, mask=there, other=0) != 0
    score = tl.load(best + index, mask=there, other=0.0)
    tl.store(scores + target, tl.where(stays, score, float('-inf')), mask=there)
    tl.store(valid + target, stays.to(tl.uint8), mask=there)
    box = boxes + index * 4
    store_box(
        proposals + target * 4,
        tl.load(box, mask=there, other=0.0),
        tl.load(box + 1, mask=there, other=0.0),
        tl.load(box + 2, mask=there, other=0.0),
        tl.load(box + 3, mask=there, other=0.0),
        there,
    )
