# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The box head's selection in Triton kernels, softmax included.

Shapes: N images, P proposals, C classes, K candidates, D detections.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from segnode.kernels.plain.selection import select_detections_static
from segnode.kernels.triton.boxes import decode_box, on_device, store_box
from segnode.kernels.triton.nms import nms
from segnode.kernels.triton.radix_select import (
    RANKED,
    Selection,
    count_first_digit,
    ordered,
    prepare,
    rank_among,
    score_of,
    select,
    unpack,
)
from segnode.model.architecture import Architecture
from segnode.model.box_head import BoxDetections, Limits
from segnode.model.boxes import SCALE_CLAMP
from segnode.model.rpn import Proposals

# Candidates that one program looks at in one go.
ROWS = 1024
# Numbers of a program that makes probabilities, of whole proposals.
PAIRS = 2048


def select_detections(
    logits: Tensor,
    deltas: Tensor,
    proposals: Proposals,
    image_hw: tuple[int, int],
    architecture: Architecture,
    limits: Limits,
) -> BoxDetections:
    """As ``segnode.kernels.plain.selection.select_detections_static``, its twin.

    Nothing, and what has no bound, is left to that. Probabilities round otherwise than those of
    PyTorch's softmax; what is chosen of them, and in which order, is the same.
    """
    n, p, classes = logits.shape[0], logits.shape[1], logits.shape[2] - 1
    if limits.candidates is None or logits.numel() == 0:
        return select_detections_static(logits, deltas, proposals, image_hw, architecture, limits)
    device = logits.device
    k = min(limits.candidates, p * classes)
    boxes = torch.empty((n, k, 4), device=device)
    scores = torch.empty((n, k), device=device)
    class_ids = torch.empty((n, k), dtype=torch.int64, device=device)
    valid = torch.empty((n, k), dtype=torch.bool, device=device)
    with torch.cuda.device_of(logits):
        selection = probability_keys(logits, proposals.valid, limits.score_threshold, k)
        _pairs_kernel[(triton.cdiv(k, RANKED), n)](
            select(selection),
            deltas.contiguous(),
            proposals.boxes.contiguous(),
            boxes,
            scores,
            class_ids,
            valid.view(torch.uint8),
            p,
            k,
            *architecture.box_bbox_weights,
            *(float(side) for side in image_hw),
            SCALE_CLAMP,
            float(architecture.semantics.least_detection_side),
            classes=classes,
            agnostic=deltas.shape[-1] == 4,
            clamp_shrinking=architecture.semantics.clamp_shrinking,
            block=RANKED,
            num_warps=4,
            # A fused multiply-add rounds once where the twin rounds twice.
            enable_fp_fusion=False,
        )
        kept = nms(boxes, valid, limits.nms_threshold, class_ids)
        count = min(limits.capacity, k)
        found = BoxDetections(
            torch.empty((n, count, 4), device=device),
            torch.empty((n, count), device=device),
            torch.empty((n, count), dtype=torch.int64, device=device),
            torch.empty((n, count), dtype=torch.bool, device=device),
            torch.empty(n, dtype=torch.int64, device=device),
            torch.empty(n, dtype=torch.bool, device=device),
        )
        _detections_kernel[(n,)](
            boxes,
            scores,
            class_ids,
            kept.view(torch.uint8),
            limits.allowed.view(torch.uint8),
            on_device(limits.max_instances, boxes, torch.int64),
            selection.spare,
            found.boxes,
            found.scores,
            found.class_ids,
            found.valid.view(torch.uint8),
            found.filtered_class,
            found.overflow.view(torch.uint8),
            k,
            count,
            selection.spare.stride(0),
            block=ROWS,
            num_warps=8,
        )
    return found


def probability_keys(
    logits: Tensor, valid: Tensor, threshold: float | Tensor, k: int
) -> Selection:
    """Return the keys of class probabilities, from which the K best are to be selected.

    Args:
        logits: (N, P, C + 1), any float dtype, background last.
        valid: (N, P) bool, which proposals there are.
        threshold: what a probability must exceed; others are -inf.
        k: at most P * C.

    Returns:
        Keys (N, P * C) of float32, and as ``spare`` how many are above the threshold.
    """
    n, p, classes = logits.shape[0], logits.shape[1], logits.shape[2] - 1
    selection = prepare(n, [p * classes], k, torch.float32, logits.device)
    columns = triton.next_power_of_2(classes + 1)
    rows = max(PAIRS // columns, 1)
    _probability_keys_kernel[(triton.cdiv(p, rows), n)](
        logits.contiguous(),
        valid.contiguous().view(torch.uint8),
        on_device(threshold, logits, torch.float32),
        selection.keys,
        selection.counts,
        selection.spare,
        p,
        selection.spare.stride(0),
        classes=classes,
        rows=rows,
        columns=columns,
        num_warps=8,
    )
    return selection


@triton.jit(do_not_specialize=['proposals', 'pitch'])
def _probability_keys_kernel(
    logits,
    proposed,
    threshold,
    keys,
    counts,
    total,
    proposals,
    pitch,
    classes: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """Make the key of every class of some proposals of one image, and count those above."""
    image = tl.program_id(1).to(tl.int64)
    proposal = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.arange(0, columns)
    here = proposal < proposals
    row = image * proposals + proposal
    read = here[:, None] & (column < classes + 1)[None, :]
    place = logits + row[:, None] * (classes + 1) + column[None, :]
    logit = tl.load(place, mask=read, other=float('-inf')).to(tl.float32)
    # Rows beyond the last give no numbers, which are not used.
    share = tl.exp(logit - tl.max(logit, axis=1)[:, None])
    all_shares = tl.zeros_like(share) + tl.sum(share, axis=1)[:, None]
    probability = tl.div_rn(share, all_shares)

    # The background, behind the classes, is none.
    there = here[:, None] & (column < classes)[None, :]
    usable = there & (probability > tl.load(threshold))
    usable = usable & (tl.load(proposed + row, mask=here, other=0) != 0)[:, None]
    key = ordered(tl.where(usable, probability, float('-inf')), 32)
    target = row[:, None] * classes + column[None, :]
    tl.store(keys + target, key, mask=there)
    size: tl.constexpr = rows * columns
    flat_key = tl.reshape(key, [size])
    count_first_digit(counts, image, flat_key, tl.reshape(there, [size]), 32, size)
    above = tl.sum(tl.sum(usable.to(tl.int32), axis=1), axis=0)
    tl.atomic_add(total + image * pitch, above, sem='relaxed')


@triton.jit(
    do_not_specialize=[
        *('proposals', 'candidates', 'weight_x', 'weight_y', 'weight_w', 'weight_h'),
        *('height', 'width', 'clamp', 'least_side'),
    ]
)
def _pairs_kernel(
    chosen,
    moves,
    origins,
    boxes,
    scores,
    class_ids,
    valid,
    proposals,
    candidates,
    weight_x,
    weight_y,
    weight_w,
    weight_h,
    height,
    width,
    clamp,
    least_side,
    classes: tl.constexpr,
    agnostic: tl.constexpr,
    clamp_shrinking: tl.constexpr,
    block: tl.constexpr,
):
    """Sort candidates of one image, decode, clip and check them."""
    image = tl.program_id(1).to(tl.int64)
    slot = tl.program_id(0) * block + tl.arange(0, block)
    there = slot < candidates
    chosen += image * candidates
    packed = tl.load(chosen + slot, mask=there, other=0)
    target = image * candidates + rank_among(packed, chosen, candidates, block)
    key, index = unpack(packed)
    score = score_of(key, 32, tl.float32)
    usable = score > float('-inf')
    first = image * proposals
    proposal = first + index // classes
    row = proposal if agnostic else first * classes + index
    left, top, right, bottom, finite = decode_box(
        moves + row * 4,
        origins + proposal * 4,
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
    usable = usable & finite
    if least_side > 0:
        usable = usable & (tl.minimum(right - left, bottom - top) >= least_side)
    store_box(boxes + target * 4, left, top, right, bottom, there)
    tl.store(scores + target, score, mask=there)
    tl.store(class_ids + target, index % classes, mask=there)
    tl.store(valid + target, usable.to(tl.uint8), mask=there)


@triton.jit(do_not_specialize=['candidates', 'count', 'pitch'])
def _detections_kernel(
    boxes,
    scores,
    class_ids,
    kept,
    allowed,
    max_instances,
    total,
    found_boxes,
    found_scores,
    found_class_ids,
    valid,
    filtered_class,
    overflow,
    candidates,
    count,
    pitch,
    block: tl.constexpr,
):
    """Move the candidates of one image that stay to the front, in the order in which they are.

    It is that of their scores already.
    """
    image = tl.program_id(0).to(tl.int64)
    first = image * candidates
    survivors = 0
    passing = 0
    for start in range(0, candidates, block):
        index = start + tl.arange(0, block)
        survives, passes, _ = _passes(kept, allowed, class_ids, first, index, candidates)
        survivors += tl.sum(survives.to(tl.int32), axis=0)
        passing += tl.sum(passes.to(tl.int32), axis=0)

    most = tl.load(max_instances)
    before = 0
    for start in range(0, candidates, block):
        index = start + tl.arange(0, block)
        _, passes, class_id = _passes(kept, allowed, class_ids, first, index, candidates)
        ahead = before + tl.cumsum(passes.to(tl.int32), axis=0)
        place = tl.where(passes, ahead - 1, passing + index - ahead)
        stored = (index < candidates) & (place < count)
        stays = passes & (place < most)
        target = image * count + place
        box = boxes + (first + index) * 4
        store_box(
            found_boxes + target * 4,
            tl.load(box, mask=stored, other=0.0),
            tl.load(box + 1, mask=stored, other=0.0),
            tl.load(box + 2, mask=stored, other=0.0),
            tl.load(box + 3, mask=stored, other=0.0),
            stored,
        )
        score = tl.load(scores + first + index, mask=stored, other=0.0)
        tl.store(found_scores + target, tl.where(stays, score, 0.0), mask=stored)
        tl.store(found_class_ids + target, class_id, mask=stored)
        tl.store(valid + target, stays.to(tl.uint8), mask=stored)
        before += tl.sum(passes.to(tl.int32), axis=0)

    tl.store(filtered_class + image, survivors - passing)
    detected = tl.minimum(passing, count)
    lacking = (tl.load(total + image * pitch) > candidates) & (detected < most)
    tl.store(overflow + image, lacking.to(tl.uint8))


@triton.jit
def _passes(kept, allowed, class_ids, first, index, candidates):
    """Return which candidates NMS kept, which of them are of a wanted class, and the class."""
    there = index < candidates
    class_id = tl.load(class_ids + first + index, mask=there, other=0)
    survives = tl.load(kept + first + index, mask=there, other=0) != 0
    return survives, survives & (tl.load(allowed + class_id) != 0), class_id
