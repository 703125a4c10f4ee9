# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The box head's selection in Triton kernels around PyTorch's softmax and top-k.

Shapes: N images, P proposals, C classes, K candidates, D detections.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from segnode.kernels.plain.selection import select_detections_static
from segnode.kernels.triton.boxes import BLOCK, decode_box, on_device, rank_key, store_box
from segnode.kernels.triton.nms import nms
from segnode.model.architecture import Architecture
from segnode.model.box_head import BoxDetections, Limits
from segnode.model.boxes import SCALE_CLAMP
from segnode.model.rpn import Proposals

# Candidates that one program looks at in one go.
ROWS = 1024


def select_detections(
    logits: Tensor,
    deltas: Tensor,
    proposals: Proposals,
    image_hw: tuple[int, int],
    architecture: Architecture,
    limits: Limits,
) -> BoxDetections:
    """As ``segnode.kernels.plain.selection.select_detections_static``, its twin.

    Nothing, and what has no bound, is left to that.
    """
    n, p, classes = logits.shape[0], logits.shape[1], logits.shape[2] - 1
    if limits.candidates is None or logits.numel() == 0:
        return select_detections_static(logits, deltas, proposals, image_hw, architecture, limits)
    device, pairs = logits.device, p * classes
    k = min(limits.candidates, pairs)
    probabilities = logits.softmax(-1, dtype=torch.float32)
    usable = (
        probabilities.contiguous(),
        proposals.valid.contiguous().view(torch.uint8),
        on_device(limits.score_threshold, probabilities, torch.float32),
    )
    keys = torch.empty((n, pairs), dtype=torch.int64, device=device)
    total = torch.zeros(n, dtype=torch.int64, device=device)
    boxes = torch.empty((n, k, 4), device=device)
    scores = torch.empty((n, k), device=device)
    class_ids = torch.empty((n, k), dtype=torch.int64, device=device)
    valid = torch.empty((n, k), dtype=torch.bool, device=device)
    with torch.cuda.device_of(probabilities):
        _pair_keys_kernel[(triton.cdiv(pairs, ROWS), n)](
            *usable, keys, total, p, classes=classes, block=ROWS, num_warps=4
        )
        chosen = torch.topk(keys, k, dim=1).indices
        _pairs_kernel[(triton.cdiv(k, BLOCK), n)](
            *usable,
            chosen,
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
            block=BLOCK,
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
            on_device(limits.max_instances, total, torch.int64),
            total,
            found.boxes,
            found.scores,
            found.class_ids,
            found.valid.view(torch.uint8),
            found.filtered_class,
            found.overflow.view(torch.uint8),
            k,
            count,
            block=ROWS,
            num_warps=8,
        )
    return found


@triton.jit(do_not_specialize=['proposals'])
def _pair_keys_kernel(
    probabilities,
    proposed,
    threshold,
    keys,
    total,
    proposals,
    classes: tl.constexpr,
    block: tl.constexpr,
):
    """Make the key of every (proposal, class) of one image, and count those that may be one."""
    image = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * block + tl.arange(0, block)
    there = index < proposals * classes
    score, usable = _score(
        probabilities, proposed, threshold, image * proposals, index, there, classes
    )
    tl.store(keys + image * proposals * classes + index, rank_key(score, index), mask=there)
    tl.atomic_add(total + image, tl.sum(usable.to(tl.int64), axis=0))


@triton.jit
def _score(probabilities, proposed, threshold, first, index, there, classes: tl.constexpr):
    """Return probabilities, -inf where they may not be a detection, and which may."""
    proposal = first + index // classes
    # The background, behind the classes, is none.
    place = probabilities + proposal * (classes + 1) + index % classes
    score = tl.load(place, mask=there, other=0.0)
    usable = there & (score > tl.load(threshold))
    usable = usable & (tl.load(proposed + proposal, mask=there, other=0) != 0)
    return tl.where(usable, score, float('-inf')), usable


@triton.jit(
    do_not_specialize=[
        *('proposals', 'candidates', 'weight_x', 'weight_y', 'weight_w', 'weight_h'),
        *('height', 'width', 'clamp', 'least_side'),
    ]
)
def _pairs_kernel(
    probabilities,
    proposed,
    threshold,
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
    """Decode, clip and check candidates of one image."""
    image = tl.program_id(1).to(tl.int64)
    slot = tl.program_id(0) * block + tl.arange(0, block)
    there = slot < candidates
    target = image * candidates + slot
    index = tl.load(chosen + target, mask=there, other=0)
    first = image * proposals
    score, usable = _score(probabilities, proposed, threshold, first, index, there, classes)
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


@triton.jit(do_not_specialize=['candidates', 'count'])
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
    lacking = (tl.load(total + image) > candidates) & (detected < most)
    tl.store(overflow + image, lacking.to(tl.uint8))


@triton.jit
def _passes(kept, allowed, class_ids, first, index, candidates):
    """Return which candidates NMS kept, which of them are of a wanted class, and the class."""
    there = index < candidates
    class_id = tl.load(class_ids + first + index, mask=there, other=0)
    survives = tl.load(kept + first + index, mask=there, other=0) != 0
    return survives, survives & (tl.load(allowed + class_id) != 0), class_id
