# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The RPN's selection in Triton kernels.

Shapes: N images, L levels, S_l anchors of a level, S of all levels, K candidates a level, P
proposals.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from segnode.kernels.plain.selection import select_proposals_static
from segnode.kernels.triton.boxes import decode_box, store_box
from segnode.kernels.triton.nms import nms_and_count
from segnode.kernels.triton.radix_select import (
    BLOCK,
    MOST_PARTS,
    RANKED,
    Selection,
    count_first_digit,
    ordered,
    part_of,
    prepare,
    rank_among,
    score_of,
    select,
    unpack,
)
from segnode.model.architecture import Architecture
from segnode.model.boxes import SCALE_CLAMP
from segnode.model.rpn import Proposals

# Candidates that a program merges.
MERGED = 256


def select_proposals(
    logits: list[Tensor],
    deltas: list[Tensor],
    anchors: Tensor,
    image_hw: tuple[int, int],
    architecture: Architecture,
    post_nms_topk: int,
) -> Proposals:
    """As ``segnode.kernels.plain.selection.select_proposals_static``, its twin.

    What has more levels, logits or deltas of several formats, or logits beyond float32, is left to
    that.
    """
    formats = max(len({x.dtype for x in rows}) for rows in (logits, deltas))
    if len(logits) > MOST_PARTS or formats > 1 or logits[0].dtype == torch.float64:
        return select_proposals_static(
            logits, deltas, anchors, image_hw, architecture, post_nms_topk
        )
    n, levels, candidates = len(logits[0]), len(logits), architecture.rpn_pre_nms_topk
    if architecture.semantics.rank_probabilities:
        logits = [torch.sigmoid(x.float().contiguous()) for x in logits]
    device, everything = anchors.device, levels * candidates
    boxes = torch.empty((n, levels, candidates, 4), device=device)
    best = torch.empty((n, levels, candidates), device=device)
    valid = torch.empty((n, levels, candidates), dtype=torch.bool, device=device)
    count = min(post_nms_topk, everything)
    proposals = Proposals(
        torch.empty((n, count, 4), device=device),
        torch.empty((n, count), device=device),
        torch.empty((n, count), dtype=torch.bool, device=device),
    )
    moves, pitch = _in_step(deltas)
    with torch.cuda.device_of(anchors):
        selection = level_keys(logits, candidates)
        _candidates_kernel[(triton.cdiv(candidates, RANKED), levels, n)](
            select(selection),
            anchors,
            *_filled(moves),
            boxes,
            best,
            valid.view(torch.uint8),
            *selection.ends,
            candidates,
            *architecture.rpn_bbox_weights,
            *(float(side) for side in image_hw),
            SCALE_CLAMP,
            architecture.rpn_min_size,
            bits=selection.bits,
            dtype=getattr(tl, str(logits[0].dtype).removeprefix('torch.')),
            pitch=pitch,
            clamp_shrinking=architecture.semantics.clamp_shrinking,
            inclusive=architecture.semantics.inclusive_sides,
            block=RANKED,
            num_warps=4,
            # A fused multiply-add rounds once where the twin rounds twice.
            enable_fp_fusion=False,
        )
        keep, staying = nms_and_count(boxes, valid, architecture.rpn_nms_threshold)
        _merge_kernel[(triton.cdiv(candidates, MERGED), levels, n)](
            boxes,
            best,
            keep.view(torch.uint8),
            staying,
            proposals.boxes,
            proposals.scores,
            proposals.valid.view(torch.uint8),
            candidates,
            count,
            levels=levels,
            halvings=candidates.bit_length(),
            block=MERGED,
            num_warps=4,
        )
    return proposals


def level_keys(logits: list[Tensor], k: int) -> Selection:
    """Return the keys of the scores (N, S_l) of levels, each of whose K best is to be selected."""
    scores, pitch = _in_step([x[..., None] for x in logits])
    n, sizes = len(logits[0]), [x.shape[1] for x in logits]
    selection = prepare(n, sizes, k, logits[0].dtype, logits[0].device)
    _level_keys_kernel[selection.grid](
        *_filled(scores),
        selection.keys,
        selection.counts,
        *selection.ends,
        pitch=pitch,
        bits=selection.bits,
        block=BLOCK,
        num_warps=8,
    )
    return selection


def _filled(levels: list[Tensor]) -> list[Tensor]:
    """Return as many levels as the kernels take, the last one again and again."""
    return levels + levels[-1:] * (MOST_PARTS - len(levels))


def _in_step(rows: list[Tensor]) -> tuple[list[Tensor], int]:
    """Return rows (N, S_l, X), and how many numbers lie from one to the next in all levels."""
    pitch = rows[0].stride(1)
    if all(x.stride() == (x.shape[1] * pitch, pitch, 1) for x in rows):
        return rows, pitch
    return [x.contiguous() for x in rows], rows[0].shape[2]


@triton.jit(do_not_specialize=['end_1', 'end_2', 'end_3', 'end_4', 'end_5'])
def _level_keys_kernel(
    scores_1,
    scores_2,
    scores_3,
    scores_4,
    scores_5,
    keys,
    counts,
    end_1,
    end_2,
    end_3,
    end_4,
    end_5,
    pitch: tl.constexpr,
    bits: tl.constexpr,
    block: tl.constexpr,
):
    """Make keys of the scores of one level and image, and count their first digit."""
    level = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    start, size = part_of(level, end_1, end_2, end_3, end_4, end_5)
    index = tl.program_id(0) * block + tl.arange(0, block)
    if tl.program_id(0) * block < size:
        scores = tl.where(level > 0, scores_2, scores_1)
        scores = tl.where(level > 1, scores_3, scores)
        scores = tl.where(level > 2, scores_4, scores)
        scores = tl.where(level > 3, scores_5, scores)
        there = index < size
        score = tl.load(scores + (image * size + index) * pitch, mask=there, other=0.0)
        key = ordered(score, bits)
        tl.store(keys + image * end_5 + start + index, key, mask=there)
        count_first_digit(counts, image * tl.num_programs(1) + level, key, there, bits, block)


@triton.jit(
    do_not_specialize=[
        *('end_1', 'end_2', 'end_3', 'end_4', 'end_5', 'candidates'),
        *('weight_x', 'weight_y', 'weight_w', 'weight_h', 'height', 'width', 'clamp', 'min_side'),
    ]
)
def _candidates_kernel(
    chosen,
    anchors,
    moves_1,
    moves_2,
    moves_3,
    moves_4,
    moves_5,
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
    bits: tl.constexpr,
    dtype: tl.constexpr,
    pitch: tl.constexpr,
    clamp_shrinking: tl.constexpr,
    inclusive: tl.constexpr,
    block: tl.constexpr,
):
    """Sort candidates of one level, decode, clip and check them.

    Of slots that a level does not fill the boxes are 0 and the scores -inf.
    """
    level = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    moves = tl.where(level > 0, moves_2, moves_1)
    moves = tl.where(level > 1, moves_3, moves)
    moves = tl.where(level > 2, moves_4, moves)
    moves = tl.where(level > 3, moves_5, moves)
    start, size = part_of(level, end_1, end_2, end_3, end_4, end_5)
    count = tl.minimum(candidates, size)
    slot = tl.program_id(0) * block + tl.arange(0, block)
    there = slot < count
    first = (image * tl.num_programs(1) + level) * candidates
    packed = tl.load(chosen + first + slot, mask=there, other=0)
    place = tl.where(there, rank_among(packed, chosen + first, count, block), slot)
    key, index = unpack(packed)
    score = tl.where(there, score_of(key, bits, dtype), float('-inf'))
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
    target = first + place
    inside = slot < candidates
    store_box(boxes + target * 4, left, top, right, bottom, inside)
    tl.store(best + target, score, mask=inside)
    tl.store(valid + target, usable.to(tl.uint8), mask=inside)


@triton.jit(do_not_specialize=['candidates', 'count'])
def _merge_kernel(
    boxes,
    best,
    kept,
    staying,
    proposals,
    scores,
    valid,
    candidates,
    count,
    levels: tl.constexpr,
    halvings: tl.constexpr,
    block: tl.constexpr,
):
    """Move what NMS kept of one level to its rank among that of all; what it did not comes last.

    How many are ahead of it in another level is found by halving, as scores fall in each.
    """
    level = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    slot = tl.program_id(0) * block + tl.arange(0, block)
    there = slot < candidates
    everything = image * levels * candidates
    index = level * candidates + slot
    source = everything + index
    stays = tl.load(kept + source, mask=there, other=0) != 0
    score = tl.load(best + source, mask=there, other=0.0)
    # Those of its own level, with itself; of all levels; and of those in front of its own.
    own = tl.load(staying + source, mask=there, other=0)
    rank = own - 1
    total = 0
    passed = 0
    for other in tl.static_range(levels):
        first = everything + other * candidates
        all_of_it = tl.load(staying + first + candidates - 1)
        total += all_of_it
        passed += tl.where(other < level, all_of_it, 0)
        # Of equal scores the earlier level's comes first.
        searched = stays & (level != other)
        ahead = tl.zeros([block], tl.int32)
        for step in tl.static_range(halvings):
            more = ahead + (1 << (halvings - 1 - step))
            open_still = searched & (more <= candidates)
            rival = tl.load(best + first + more - 1, mask=open_still, other=float('-inf'))
            beaten = (rival > score) | ((rival == score) & (other < level))
            ahead = tl.where(open_still & beaten, more, ahead)
        rank += tl.load(staying + first + ahead - 1, mask=ahead > 0, other=0)
    rank = tl.where(stays, rank, total + index - passed - own)
    stored = there & (rank < count)
    target = image * count + rank
    tl.store(scores + target, tl.where(stays, score, float('-inf')), mask=stored)
    tl.store(valid + target, stays.to(tl.uint8), mask=stored)
    box = boxes + source * 4
    store_box(
        proposals + target * 4,
        tl.load(box, mask=stored, other=0.0),
        tl.load(box + 1, mask=stored, other=0.0),
        tl.load(box + 2, mask=stored, other=0.0),
        tl.load(box + 3, mask=stored, other=0.0),
        stored,
    )
