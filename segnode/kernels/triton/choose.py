# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The filter of detections, their order and the packet for the host, in one Triton kernel.

Shapes: N images, D detections.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from segnode.kernels.plain.choose import FIELDS, HEADER, Choice
from segnode.model.architecture import Semantics
from segnode.model.box_head import BoxDetections
from segnode.model.mask_filter import ROUNDING


def choose(
    detections: BoxDetections,
    network_hw: tuple[int, int],
    image_hw: tuple[int, int],
    *,
    min_mask_area: Tensor,
    cells: int,
    mask_threshold: Tensor,
    semantics: Semantics,
) -> Choice:
    """As ``segnode.kernels.plain.choose.choose_static``, its twin."""
    n, d = detections.valid.shape
    device = detections.boxes.device
    choice = Choice(
        torch.empty((n, d, 4), device=device),
        torch.empty((n, d, 4), device=device),
        torch.empty((n, d), dtype=torch.int64, device=device),
        torch.empty((n, d), dtype=torch.bool, device=device),
        torch.empty((n, HEADER + d * FIELDS), device=device),
    )
    capacity = triton.next_power_of_2(max(d, 1))
    with torch.cuda.device_of(detections.boxes):
        _choose_kernel[(n,)](
            detections.boxes.contiguous(),
            detections.scores.contiguous(),
            detections.class_ids.contiguous(),
            detections.valid.contiguous().view(torch.uint8),
            detections.filtered_class,
            detections.overflow.view(torch.uint8),
            min_mask_area,
            mask_threshold,
            *choice[:3],
            choice.keep.view(torch.uint8),
            choice.packet,
            d,
            *image_hw,
            *(image / network for image, network in zip(image_hw, network_hw, strict=True)),
            cells=cells,
            clip=semantics.clip_detections,
            # Detectron2's paste reaches beyond a box only below a threshold of 0.5.
            exact=semantics.paste == 'detectron2',
            rounding=ROUNDING,
            capacity=capacity,
            header=HEADER,
            fields=FIELDS,
            num_warps=min(max(capacity // 32, 1), 8),
            # A fused multiply-add rounds once where the twin rounds twice.
            enable_fp_fusion=False,
        )
    return choice


@triton.jit(do_not_specialize=['detections', 'height', 'width', 'scale_y', 'scale_x'])
def _choose_kernel(
    boxes,
    scores,
    class_ids,
    valid,
    filtered_class,
    overflow,
    min_mask_area,
    mask_threshold,
    network_boxes,
    image_boxes,
    chosen_class_ids,
    keep,
    packet,
    detections,
    height,
    width,
    scale_y,
    scale_x,
    cells: tl.constexpr,
    clip: tl.constexpr,
    exact: tl.constexpr,
    rounding: tl.constexpr,
    capacity: tl.constexpr,
    header: tl.constexpr,
    fields: tl.constexpr,
):
    """Choose and lay out the detections of one image."""
    image = tl.program_id(0)
    index = tl.arange(0, capacity)
    there = index < detections
    row = image * detections + index
    x0 = tl.load(boxes + row * 4, mask=there, other=0.0)
    y0 = tl.load(boxes + row * 4 + 1, mask=there, other=0.0)
    x1 = tl.load(boxes + row * 4 + 2, mask=there, other=0.0)
    y1 = tl.load(boxes + row * 4 + 3, mask=there, other=0.0)
    score = tl.load(scores + row, mask=there, other=0.0)
    class_id = tl.load(class_ids + row, mask=there, other=0)
    detected = tl.load(valid + row, mask=there, other=0) != 0

    left = x0 * scale_x
    top = y0 * scale_y
    right = x1 * scale_x
    bottom = y1 * scale_y
    wanted = detected
    if clip:
        left = tl.minimum(tl.maximum(left, 0.0), width)
        top = tl.minimum(tl.maximum(top, 0.0), height)
        right = tl.minimum(tl.maximum(right, 0.0), width)
        bottom = tl.minimum(tl.maximum(bottom, 0.0), height)
        wanted = wanted & (right > left) & (bottom > top)
    beyond = tl.where(tl.load(mask_threshold) < 0.5, 1.0, rounding) if exact else 1.0
    columns = _pixels(left, right, width, beyond, cells)
    rows = _pixels(top, bottom, height, beyond, cells)
    kept = wanted & ((columns * rows).to(tl.int64) >= tl.load(min_mask_area))

    total = tl.sum(kept.to(tl.int32), axis=0)
    ahead = tl.cumsum(kept.to(tl.int32), axis=0)
    # Those that are kept come first, and either in the order in which they are.
    place = tl.where(kept, ahead - 1, total + index - ahead)
    target = image * detections + place
    tl.store(network_boxes + target * 4, x0, mask=there)
    tl.store(network_boxes + target * 4 + 1, y0, mask=there)
    tl.store(network_boxes + target * 4 + 2, x1, mask=there)
    tl.store(network_boxes + target * 4 + 3, y1, mask=there)
    tl.store(image_boxes + target * 4, left, mask=there)
    tl.store(image_boxes + target * 4 + 1, top, mask=there)
    tl.store(image_boxes + target * 4 + 2, right, mask=there)
    tl.store(image_boxes + target * 4 + 3, bottom, mask=there)
    tl.store(chosen_class_ids + target, class_id, mask=there)
    tl.store(keep + target, kept.to(tl.uint8), mask=there)

    packet += image * (header + detections * fields)
    tl.store(packet, total.to(tl.float32))
    tl.store(packet + 1, tl.sum(detected.to(tl.int32), axis=0).to(tl.float32))
    tl.store(packet + 2, tl.load(filtered_class + image).to(tl.float32))
    dropped = tl.sum((wanted & (kept == 0)).to(tl.int32), axis=0)
    tl.store(packet + 3, dropped.to(tl.float32))
    tl.store(packet + 4, tl.load(overflow + image).to(tl.float32))
    field = packet + header + place * fields
    tl.store(field, left, mask=there)
    tl.store(field + 1, top, mask=there)
    tl.store(field + 2, right, mask=there)
    tl.store(field + 3, bottom, mask=there)
    tl.store(field + 4, score, mask=there)
    tl.store(field + 5, class_id.to(tl.float32), mask=there)


@triton.jit
def _pixels(low, high, size, beyond, cells: tl.constexpr):
    """Return the most pixels of an axis that a mask can have, see ``pixel_bound``."""
    margin = (tl.div_rn(high - low, tl.zeros_like(high) + cells) + 1.0) * beyond
    first = tl.maximum(tl.ceil(low - margin - 0.5), 0.0)
    end = tl.minimum(tl.floor(high + margin + 0.5), size)
    return tl.maximum(end - first, 0.0)
