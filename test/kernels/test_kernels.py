# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The Triton kernels against their twins, and the twins against the references.

Without a GPU the kernels run under Triton's interpreter, which must be chosen before Triton is
imported: in a process of its own, which is this file run as a script. On a GPU the same
comparisons run natively.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from kernel_softmax import kernel_softmax
from random_boxes import EMPTY_BOXES, clustered_boxes, random_boxes
from seeds import fresh_seeds
from torch import Tensor, inf, nan
from torchvision.models.detection.roi_heads import paste_masks_in_image

from segnode.image import Image
from segnode.kernels.mask_crops import label_image, paste_mask
from segnode.kernels.operators import select_operators
from segnode.kernels.plain.choose import choose_static
from segnode.kernels.plain.nms import largest_float32, nms_static
from segnode.kernels.plain.paste import paste_labels_static, sampling_weights
from segnode.kernels.plain.preprocess import preprocess_static
from segnode.kernels.plain.roi_align import roi_align_static
from segnode.kernels.plain.selection import select_detections_static, select_proposals_static
from segnode.kernels.preprocess import preprocess as preprocess_on_cpu
from segnode.kernels.resampling import prepare_preprocess
from segnode.model.anchors import make_anchors
from segnode.model.architecture import SEMANTICS, Architecture, Pooler
from segnode.model.box_head import BoxDetections, Limits
from segnode.model.boxes import top_k_of_parts
from segnode.model.maps import add_enlarged as add_enlarged_plainly
from segnode.model.pooler import assign_levels
from segnode.model.rpn import Proposals, anchor_rows

CPU = torch.device('cpu')
FAMILIES = ('detectron2', 'torchvision')
# Whose resizes there are. But for torchvision's, which is of floats, they are exact.
RESIZES = (*FAMILIES, 'mmdetection')
# Keys of a program of the selections under the interpreter: more than one of it, of the largest.
BLOCK = 512
# A value this close to the threshold may fall on either side by rounding.
ROUNDING = 2e-5
# Frame and network input: enlarged, shrunk, kept, one side kept, single pixels, portrait far
# beyond 2:1 (where recent Pillows resize the height first), and both ways at once.
SIZES = [
    ((9, 13), (20, 31)),
    ((31, 40), (13, 17)),
    ((12, 15), (12, 15)),
    ((7, 12), (7, 30)),
    ((20, 9), (11, 9)),
    ((1, 1), (5, 3)),
    ((1, 40), (3, 1)),
    ((60, 8), (13, 5)),
    ((40, 9), (18, 21)),
]


def random_frames(generator: torch.Generator, count: int, image_hw: tuple[int, int]) -> Tensor:
    return torch.randint(0, 256, (count, *image_hw, 3), generator=generator, dtype=torch.uint8)


def random_pyramid(
    generator: torch.Generator, images: int, channels: int, image_hw: tuple[int, int]
) -> list[Tensor]:
    """Return p2 to p6, channels_last."""
    return [
        torch.randn(
            (images, channels, -(-image_hw[0] // stride), -(-image_hw[1] // stride)),
            generator=generator,
        ).contiguous(memory_format=torch.channels_last)
        for stride in (4, 8, 16, 32, 64)
    ]


def random_instances(
    generator: torch.Generator, images: int, count: int, image_hw: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return mask probabilities, boxes (some across the border) and which to keep."""
    boxes = torch.stack([random_boxes(generator, count, image_hw) for _ in range(images)])
    height, width = image_hw
    odd = [
        (0, 0, width, height),
        (-3.2, -4.1, width + 2.5, height / 2),
        (width / 2, 3, width / 2 + 0.3, height - 1.5),
        (2, 5.4, width, 5.9),
    ]
    for index, box in enumerate(odd[: count // 2]):
        boxes[-1, -1 - index] = torch.tensor(box)
    coarse = torch.rand((images * count, 1, 5, 5), generator=generator)
    masks = torch.nn.functional.interpolate(coarse, size=(28, 28), mode='bilinear')
    keep = torch.rand((images, count), generator=generator) < 0.8
    return masks.view(images, count, 28, 28), boxes, keep


def area_limits(areas: list[int]) -> tuple[int, int]:
    """Return limits that drop some of the smallest and of the largest where there are many.

    Each lies midway in the wider of two gaps, where no pixel decides.
    """
    ordered = sorted({0, *areas})
    if len(ordered) < 6:
        return ordered[-1] // 2, ordered[-1] * 2 + 1
    gaps = list(pairwise(ordered))
    low, high = (max(pair, key=lambda gap: gap[1] - gap[0]) for pair in (gaps[1:3], gaps[-2:]))
    return sum(low) // 2, sum(high) // 2


def check_nms(device: torch.device, generator: torch.Generator, large: bool) -> None:
    from segnode.kernels.triton.nms import nms

    for count in (0, 1, 64, 65, 1000, 1500, 6000) if large else (0, 1, 64, 65, 150):
        sets = 5 if count == 1000 else 2
        boxes = torch.stack([clustered_boxes(generator, count, (480, 640)) for _ in range(sets)])
        valid = torch.rand((sets, count), generator=generator) < 0.8
        groups = torch.randint(3, (sets, count), generator=generator)
        for threshold in (0.3, 0.7):
            scalar = torch.tensor(largest_float32(threshold), device=device)
            for chosen in (None, groups):
                expected = nms_static(boxes, valid, threshold, chosen)
                there = None if chosen is None else chosen.to(device)
                for value in (threshold, scalar):
                    keep = nms(boxes.to(device), valid.to(device), value, there)
                    assert torch.equal(keep.cpu(), expected), (count, threshold)
    # More leading dimensions, nothing valid, one box again and again, empty boxes, and an
    # overlap that equals the threshold.
    boxes, valid = boxes[:2, :70].to(device), torch.ones((2, 70), dtype=torch.bool, device=device)
    keep = nms(boxes.view(2, 1, 70, 4), valid.view(2, 1, 70), 0.5)
    assert torch.equal(keep.view(2, 70), nms_static(boxes, valid, 0.5))
    assert not nms(boxes, torch.zeros_like(valid), 0.5).any()
    same = torch.tensor([10.0, 20.0, 50.0, 70.0], device=device).expand(1, 70, 4)
    assert nms(same, valid[:1], 0.5).nonzero().tolist() == [[0, 0]]
    assert nms(same, valid[:1], 1.0).all()
    assert nms(torch.zeros_like(same), valid[:1], 0.5).all()
    tied = torch.tensor([[[0.0, 0.0, 10.0, 1.0], [0.0, 0.0, 3.0, 1.0]]])
    expected = nms_static(tied, valid[:1, :2].cpu(), 0.3)
    assert torch.equal(nms(tied.to(device), valid[:1, :2], 0.3).cpu(), expected)


def check_roi_align(device: torch.device, generator: torch.Generator, large: bool) -> None:
    from segnode.kernels.triton.roi_align import level_areas, roi_align

    # Levels: of any box, and a rounding error on either side of a border.
    sides = torch.tensor([112.0, 224.0, 448.0])
    near = (sides**2).view(torch.int32)[:, None] + torch.arange(-40, 41, dtype=torch.int32)
    areas = torch.cat((near.flatten().view(torch.float32), torch.rand(500) * 3e5, torch.zeros(1)))
    for family in FAMILIES:
        ones, zeros = torch.ones_like(areas), torch.zeros_like(areas)
        pooler = Pooler(resolution=7, levels=family)
        expected = assign_levels(torch.stack((zeros, zeros, areas, ones), dim=1), pooler)
        borders = torch.tensor(level_areas(pooler))
        assert torch.equal((areas[:, None] >= borders).sum(1), expected)

    image_hw = (608, 800) if large else (64, 480)
    height, width = image_hw
    extreme = [
        (0, 0, width, height),
        (0, 30, width, 33.5),
        (40, 0, 42, height),
        (17.2, 30.1, 17.3, 30.2),
        (width - 1, height - 1, width, height),
        (0, 0, 0, 0),
    ]
    for family, sampling_ratio, aligned in (('detectron2', 0, True), ('torchvision', 2, False)):
        cases = [(torch.float32, 3, 5), (torch.float16 if aligned else torch.bfloat16, 2, 16)]
        if large:
            cases = [(torch.float32, 7, 256), (torch.float16, 14, 256), (torch.bfloat16, 7, 60)]
        for dtype, resolution, channels in cases:
            features = random_pyramid(generator, 2, channels, image_hw)
            features = [x.to(device, dtype) for x in features]
            boxes = random_boxes(generator, 300 if large else 2, image_hw)
            pooler = Pooler(
                resolution=resolution,
                sampling_ratio=sampling_ratio,
                aligned=aligned,
                levels=family,
            )
            border = (0, 0, level_areas(pooler)[0] / 64, 64)
            boxes = torch.cat((boxes, torch.tensor([*extreme, border]))).to(device)
            index = torch.randint(2, (len(boxes),), generator=generator).to(device)
            pooled = roi_align(features, boxes, index, pooler)
            expected = roi_align_static(features, boxes, index, pooler)
            assert pooled.dtype == dtype
            assert pooled.is_contiguous(memory_format=torch.channels_last)
            # A unit in the last place of what is stored; in float32 a sum's rounding.
            unit = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
            torch.testing.assert_close(
                pooled.float(), expected.float(), rtol=unit, atol=1e-5 if unit < 1e-4 else 1e-3
            )
            assert roi_align(features, boxes[:0], index[:0], pooler).shape[0] == 0
    # A map that is not channels_last, and an index of 32 bits.
    plain = [x.contiguous() for x in features]
    assert torch.equal(roi_align(plain, boxes, index.int(), pooler), pooled)
    # Without an index, as many of either image.
    half = len(boxes) // 2
    boxes, index = boxes[: 2 * half], torch.arange(2, device=device).repeat_interleave(half)
    found, expected = (roi_align(features, boxes, i, pooler) for i in (None, index))
    assert torch.equal(found, expected)
    expected = roi_align_static(features, boxes, index, pooler)
    assert torch.equal(roi_align_static(features, boxes, None, pooler), expected)


def check_paste(device: torch.device, generator: torch.Generator, large: bool) -> None:
    from segnode.kernels.triton.paste import paste_labels

    image_hw = (240, 320) if large else (20, 45)
    for family in FAMILIES:
        cases = [(5, 0.5), (1, 0.3), (0, 0.5)]
        for count, threshold in [(100, 0.5), (300, 0.3), *cases] if large else cases:
            masks, boxes, keep = random_instances(generator, 2, count, image_hw)
            compare_paste(paste_labels, device, image_hw, family, threshold, masks, boxes, keep)
        # An empty box has no pixels.
        boxes = torch.from_numpy(EMPTY_BOXES)[None].to(device)
        masks = torch.ones((1, boxes.shape[1], 28, 28), device=device)
        keep = torch.ones(boxes.shape[:2], dtype=torch.bool, device=device)
        no_limits = limits(device, 0.3, 0, 2**40)
        labels, areas = paste_labels(masks, boxes, keep, image_hw, **no_limits, paste=family)
        assert not areas.any()
        assert not labels.cpu().numpy().any()
    # Full: every instance covers the whole image, and the first that stays has all of it.
    masks = torch.ones((1, 3, 28, 28), device=device)
    whole = torch.tensor([-9.0, -9.0, image_hw[1] + 9.0, image_hw[0] + 9.0], device=device)
    keep = torch.tensor([[False, True, True]], device=device)
    no_limits = limits(device, 0.5, 0, 2**40)
    inputs = (masks, whole.expand(1, 3, 4), keep, image_hw)
    labels, areas = paste_labels(*inputs, **no_limits, paste='detectron2')
    assert (labels.cpu().numpy() == 1).all()
    assert areas.tolist() == [[-1, *[image_hw[0] * image_hw[1]] * 2]]


def limits(device: torch.device, threshold: float, low: int, high: int) -> dict[str, Tensor]:
    return {
        'threshold': torch.tensor(threshold, device=device),
        'min_area': torch.tensor(low, device=device),
        'max_area': torch.tensor(high, device=device),
    }


def compare_paste(
    paste_labels: Callable[..., tuple[Tensor, Tensor]],
    device: torch.device,
    image_hw: tuple[int, int],
    family: Any,
    threshold: float,
    masks: Tensor,
    boxes: Tensor,
    keep: Tensor,
) -> None:
    """Compare with the twin but for pixels that rounding decides."""
    rows = sampling_weights(*boxes.double()[..., None, 1::2].unbind(-1), image_hw[0], 28, family)
    columns = sampling_weights(*boxes.double()[..., None, ::2].unbind(-1), image_hw[1], 28, family)
    values = rows @ masks.double() @ columns.mT
    undecided = ((values - threshold).abs() < ROUNDING) & keep[..., None, None]
    assert undecided.numel() == 0 or undecided.double().mean() < 0.01
    covered = (values > threshold) & keep[..., None, None]
    sizes = [int(size) for size in covered.sum((-2, -1))[keep]]
    limit = limits(CPU, threshold, *area_limits(sizes))
    expected = paste_labels_static(masks, boxes, keep, image_hw, **limit, paste=family)
    moved = {name: value.to(device) for name, value in limit.items()}
    inputs = (masks.to(device), boxes.to(device), keep.to(device))
    labels, areas = paste_labels(*inputs, image_hw, **moved, paste=family)
    assert labels.dtype == torch.uint16
    assert ((areas.cpu() - expected[1]).abs() <= undecided.sum((-2, -1))).all()
    assert torch.equal(areas.cpu() < 0, expected[1] < 0)
    differs = labels.cpu().numpy() != expected[0].numpy()
    assert not (differs & ~undecided.any(1).numpy()).any()


def check_preprocess(device: torch.device, generator: torch.Generator, large: bool) -> None:
    from segnode.kernels.triton.preprocess import preprocess

    sizes = SIZES if not large else [*SIZES, ((1080, 1920), (480, 853)), ((480, 640), (800, 1067))]
    mean, std = torch.rand(3, generator=generator) * 99, torch.rand(3, generator=generator) + 50
    for number, (image_hw, size_hw) in enumerate(sizes):
        frames = random_frames(generator, 1 + number % 2, image_hw)
        swap, dtype = number % 3 == 0, torch.float16 if number % 4 == 1 else torch.float32
        for resize in RESIZES:
            expected = preprocess_static(
                frames, prepare_preprocess(image_hw, size_hw, CPU, resize=resize),
                mean, std, swap, dtype,
            )  # fmt: skip
            plan = prepare_preprocess(image_hw, size_hw, device, resize=resize)
            given = (frames.to(device), plan, mean.to(device), std.to(device), swap, dtype)
            x = preprocess(*given)
            assert x.dtype == dtype
            assert x.is_contiguous(memory_format=torch.channels_last)
            if resize != 'torchvision':
                assert torch.equal(x.cpu(), expected), (image_hw, size_hw)
            else:
                torch.testing.assert_close(x.cpu(), expected, rtol=1e-3, atol=1e-3)
            if number % 3 == 1:  # With channels of zeros beside the colours.
                channels = (4, 8, 5)[number // 3 % 3]
                wide = preprocess(*given, channels)
                assert wide.dtype == dtype
                assert wide.shape == (len(x), channels, *x.shape[2:])
                assert wide.is_contiguous(memory_format=torch.channels_last)
                assert torch.equal(wide[:, :3], x), (image_hw, size_hw, channels)
                assert not wide[:, 3:].any()


def random_map(generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return few different values, so that many tie, with zeros of both signs, infinities, NaN."""
    values = torch.tensor([0.0, -0.0, 0.0, -0.0, -2.5, 1.0, 3.25, inf, -inf, nan])
    return values[torch.randint(len(values), shape, generator=generator)].to(dtype)


def same_bits(found: Tensor, expected: Tensor) -> bool:
    """Return whether all numbers are the same, zeros with their sign; any NaN is like another."""
    ours, theirs = (x.cpu().contiguous() for x in (found, expected))
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return False
    bits = torch.int32 if ours.dtype == torch.float32 else torch.int16
    numbers = ~torch.isnan(theirs)
    there = torch.equal(torch.isnan(ours), ~numbers)
    return there and torch.equal(ours[numbers].view(bits), theirs[numbers].view(bits))


def check_max_pool(device: torch.device, generator: torch.Generator, large: bool) -> None:
    from segnode.kernels.triton.maps import max_pool

    # The stem's and the pyramid's last level; others of any geometry.
    shapes = [(1, 64, 400, 672), (2, 256, 25, 42)] if large else []
    shapes += [(2, 64, 9, 13), (1, 5, 8, 10), (3, 130, 3, 2), (1, 1, 1, 1), (2, 3, 2, 7)]
    windows = [(3, 2, 1), (1, 2, 0), (2, 2, 0), (4, 3, 2)]
    for number, shape in enumerate(shapes):
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            x = random_map(generator, shape, dtype).to(device)
            if number % 2 == 0:
                x = x.contiguous(memory_format=torch.channels_last)
            for kernel, stride, padding in windows if dtype == torch.float16 else windows[:1]:
                if min(shape[2:]) + 2 * padding < kernel:
                    continue
                # In the same format: PyTorch's own on either device takes the first of equals.
                expected = F.max_pool2d(x.cpu(), kernel, stride, padding)
                found = max_pool(x, kernel, stride, padding)
                assert same_bits(found, expected), (shape, dtype, kernel, stride, padding)
                assert found.is_contiguous(memory_format=torch.channels_last)
    nothing = torch.full((1, 8, 4, 4), -inf, device=device)
    assert (max_pool(nothing, 3, 2, 1) == -inf).all()


def check_add_enlarged(device: torch.device, generator: torch.Generator, large: bool) -> None:
    from segnode.kernels.triton.maps import add_enlarged

    shapes = [(1, 256, 100, 168)] if large else []
    shapes += [(2, 256, 3, 5), (3, 5, 4, 1), (1, 130, 1, 1), (2, 1, 7, 3)]
    formats = (torch.float16, torch.bfloat16, torch.float32)
    for number, (n, channels, h, w) in enumerate(shapes):
        # A neighbour may have had to stay in float32.
        for fine, coarse in [*zip(formats, formats, strict=True), formats[::2], formats[:0:-1]]:
            x = torch.randn((n, channels, 2 * h, 2 * w), generator=generator).to(fine)
            odd = random_map(generator, x.shape, fine)
            x = torch.where(torch.rand(x.shape, generator=generator) < 0.2, odd, x)
            small = torch.randn((n, channels, h, w), generator=generator).to(coarse)
            small[:, 0] = random_map(generator, (n, h, w), coarse)
            layout = torch.channels_last if number % 2 == 0 else torch.contiguous_format
            x, small = (each.to(memory_format=layout) for each in (x, small))
            expected = x + F.interpolate(small, scale_factor=2.0, mode='nearest')
            assert same_bits(add_enlarged_plainly(x, small), expected)
            found = add_enlarged(x.to(device), small.to(device))
            if device.type == 'cpu' and expected.dtype == torch.bfloat16:
                # The interpreter cuts off what a device rounds.
                torch.testing.assert_close(found, expected, rtol=8e-3, atol=0, equal_nan=True)
            else:
                assert same_bits(found, expected), (tuple(x.shape), fine, coarse)
            assert found.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match='does not fit'):
        add_enlarged(x[:, :, 1:].to(device), small.to(device))


def check_choose(device: torch.device, generator: torch.Generator, large: bool) -> None:
    from segnode.kernels.triton.choose import choose

    cases = [
        (0, 0.0, 50),
        (1, 1.0, 0),
        (100, 1.0, 0),
        (60, 1.0, 10**9),
        (7, 0.0, 0),
        (100, 0.8, 50),
    ]
    for (count, share, min_area), family in itertools.product(cases, SEMANTICS):
        for threshold in (0.3, 0.5):
            found = random_detections(generator, 2, count, share)
            scalars = {
                'min_mask_area': torch.tensor(min_area),
                'mask_threshold': torch.tensor(threshold),
            }
            sizes, how = ((240, 320), (97, 131)), {'cells': 28, 'semantics': SEMANTICS[family]}
            expected = choose_static(found, *sizes, **scalars, **how)
            moved = {name: value.to(device) for name, value in scalars.items()}
            there = BoxDetections(*(x.to(device) for x in dataclasses.astuple(found)))
            placed = choose(there, *sizes, **moved, **how)
            for ours, theirs in zip(placed, expected, strict=True):
                assert ours.dtype == theirs.dtype
                assert torch.equal(ours.cpu(), theirs), (count, share, min_area, family, threshold)
    # Boxes of 21 x 21 pixels' centres, but for a few roundings.
    found = random_detections(generator, 2, 100, 1.0)
    corner = torch.randint(200, (2, 100, 2), generator=generator) + 0.5
    exact = torch.cat((corner, corner + 20), dim=-1)
    ulps = torch.randint(-3, 4, exact.shape, generator=generator, dtype=torch.int32)
    found = dataclasses.replace(found, boxes=(exact.view(torch.int32) + ulps).view(torch.float32))
    there = BoxDetections(*(x.to(device) for x in dataclasses.astuple(found)))
    for min_area, threshold in itertools.product((441, 442), (0.5, 0.7)):
        scalars = {
            'min_mask_area': torch.tensor(min_area),
            'mask_threshold': torch.tensor(threshold),
        }
        moved = {name: value.to(device) for name, value in scalars.items()}
        how = {'cells': 28, 'semantics': SEMANTICS['detectron2']}
        expected = choose_static(found, (240, 320), (240, 320), **scalars, **how)
        placed = choose(there, (240, 320), (240, 320), **moved, **how)
        for ours, theirs in zip(placed, expected, strict=True):
            assert torch.equal(ours.cpu(), theirs), (min_area, threshold)
        assert (placed.keep == (min_area == 441)).all()


def random_detections(
    generator: torch.Generator, images: int, count: int, share: float
) -> BoxDetections:
    """Return detections of which a ``share`` is valid, some of them empty or across a border."""
    boxes = [random_boxes(generator, count, (240, 320)) for _ in range(images)]
    boxes = torch.stack(boxes) - torch.tensor([3.0, 2.0, 0.0, 0.0])
    boxes[:, ::7, 2:] = boxes[:, ::7, :2]
    valid = torch.arange(count).expand(images, -1) < share * count
    return BoxDetections(
        boxes=boxes,
        scores=torch.rand((images, count), generator=generator).sort(1, descending=True)[0],
        class_ids=torch.randint(80, (images, count), generator=generator),
        valid=valid,
        filtered_class=torch.randint(9, (images,), generator=generator),
        overflow=torch.rand(images, generator=generator) < 0.5,
    )


@contextlib.contextmanager
def small_blocks(large: bool) -> Iterator[None]:
    """Make several blocks of the few boxes that the interpreter gets through."""
    from segnode.kernels.triton import detections, proposals, radix_select

    with pytest.MonkeyPatch.context() as patch:
        if not large:
            for module in (proposals, radix_select):
                patch.setattr(module, 'BLOCK', BLOCK)
            patch.setattr(proposals, 'MERGED', 128)
            patch.setattr(detections, 'ROWS', 64)
            patch.setattr(detections, 'PAIRS', 256)
        yield


@contextlib.contextmanager
def interpreters_exponential(device: torch.device) -> Iterator[None]:
    """Have the twin take the interpreter's, which is NumPy's, where that runs the kernels.

    PyTorch's differs in the last bit of every third number, which decides where two boxes overlap
    by almost the threshold.
    """
    with pytest.MonkeyPatch.context() as patch:
        if device.type == 'cpu':
            patch.setattr(torch, 'exp', lambda x: torch.from_numpy(np.exp(x.numpy())))
        yield


def stretch(deltas: Tensor, large: bool) -> None:
    """Move sides (..., 4) far beyond both bounds.

    Where there are many, no other exponential than 1 is left: some of them overlap by almost the
    threshold, and its rounding, which is the device's, would decide.
    """
    deltas[..., 2:] = (deltas[..., 2:].round() if large else deltas[..., 2:]) * 24


def check_radix_select(device: torch.device, generator: torch.Generator, large: bool) -> None:
    """The very keys are chosen, of equal ones the first, whatever there is of them."""
    from segnode.kernels.triton.proposals import level_keys
    from segnode.kernels.triton.radix_select import select

    def falls(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    scale = 100 if large else 1
    # Levels end on a block, next to it, within the first, and all fit into one.
    sizes = [x * scale for x in (2 * BLOCK, BLOCK + 1, BLOCK - 1, 7, 1)]
    cases: list[tuple[list[Tensor], int]] = [
        # All apart; few values, of which many equal the last one; all the same.
        ([falls(1, size) for size in sizes], 300),
        ([(falls(3, size) * 2).round().half() for size in sizes[:3]], 300),
        ([torch.full((1, size), -1.5).bfloat16() for size in sizes[:2]], BLOCK + 1),
        # Both zeros and what is no number, and less of others than is wanted.
        ([falls(2, size) * 0 for size in sizes[1:3]], 200),
        # One of them, and all.
        ([falls(2, size).half() for size in sizes[:2]], 1),
        ([falls(1, 70)], 70),
    ]
    for x in cases[3][0]:
        x[:, ::5], x[:, 3::7], x[:, 4::9] = nan, -inf, inf
        x[0, 100:] = nan
    for levels, k in cases:
        with small_blocks(large):
            selection = level_keys([x.to(device) for x in levels], k)
            chosen = select(selection).cpu().numpy()
        scores = torch.cat(levels, 1).float().nan_to_num(nan=-inf, posinf=inf, neginf=-inf)
        parts = top_k_of_parts(scores, [x.shape[1] for x in levels], k)
        for part, expected in enumerate(parts):
            # The lower half of a number is the index, negated.
            ranked = -np.sort(-chosen[:, part, : expected.shape[1]], axis=1)
            assert np.array_equal(-ranked & 0xFFFFFFFF, expected.numpy()), (part, k)


def check_select_proposals(device: torch.device, generator: torch.Generator, large: bool) -> None:
    from segnode.kernels.triton.proposals import select_proposals

    sizes = [(12, 17), (6, 9), (3, 5), (2, 3), (1, 2)]
    image_hw, most = (48, 66), 150
    if large:
        sizes = [(120, 160), (60, 80), (30, 40), (15, 20), (8, 10)]
        image_hw, most = (480, 640), 1000
    for number, family in enumerate(SEMANTICS):
        architecture = Architecture(
            semantics=SEMANTICS[family],
            rpn_pre_nms_topk=1000 if large else (20, 70, 130)[number],
            rpn_min_size=(0.0, 5.0)[number % 2],
            rpn_bbox_weights=(1.0, 2.0, 1.5, 1.0),
        )
        anchors = make_anchors(architecture, sizes, CPU).to(device)
        formats = ((3.0, torch.float16), (0.0, torch.float32))
        for spread, dtype in formats if large or number == 0 else formats[number - 1 : number]:
            logits = [torch.randn((2, 3, *hw), generator=generator) * spread for hw in sizes]
            # Ties, over the sign of zero as well, and what is no number.
            logits = [(x * 2).round().to(dtype) / 2 for x in logits]
            deltas = [torch.randn((2, 12, *hw), generator=generator) for hw in sizes]
            if large or spread == 0:
                for x in deltas:
                    stretch(x.unflatten(1, (3, 4)).movedim(2, -1), large)
            deltas = [x.to(dtype) for x in deltas]
            logits[0][0, 0, :2], logits[1][1, 2, 3], deltas[0][0, :, 5] = nan, inf, nan
            deltas[1][0, 2::4, 1], deltas[1][1, 3::4, 2] = inf, -inf
            inputs = (image_hw, architecture, most)
            # As they come of maps, and as one layer gives them: each of a row of more.
            placed = [[x.to(device) for x in rows] for rows in anchor_rows(logits, deltas)]
            if number % 2:
                wider = [
                    torch.cat((x, y[..., None], x[..., :3]), -1)
                    for y, x in zip(*placed, strict=True)
                ]
                placed = [[x[..., 4] for x in wider], [x[..., :4] for x in wider]]
            with interpreters_exponential(device):
                expected = select_proposals_static(*placed, anchors, *inputs)
            with small_blocks(large):
                found = select_proposals(*placed, anchors, *inputs)
            compare_selection(found, expected)
    # No level, or none of the candidates, is a number.
    nothing = [x * nan for x in placed[0]]
    assert not select_proposals(nothing, placed[1], anchors, *inputs).valid.any()
    few = (placed[0][:2], placed[1][:2], anchors)
    with interpreters_exponential(device):
        expected = select_proposals_static(*few, *inputs)
    compare_selection(select_proposals(*few, *inputs), expected)


def check_select_detections(device: torch.device, generator: torch.Generator, large: bool) -> None:
    from segnode.kernels.triton.detections import select_detections

    # Classes, proposals, candidates, capacity, least score, whether sides are stretched.
    cases: list[tuple[int, int, int, int, float, bool]] = [
        (7, 37, 60, 100, 0.3, False),
        (7, 200, 150, 100, 0.05, False),
        (7, 70, 150, 140, 0.05, True),
        (7, 5, 9, 3, 0.5, False),
        (7, 1, 9, 9, 0.99, False),
        (7, 0, 9, 9, 0.1, False),
        (1, 40, 30, 100, 0.1, False),
        (1203, 2, 50, 100, 0.002, False),
    ]
    if large:
        cases += [(80, 1000, candidates, 1000, 0.01, True) for candidates in (1000, 3000) * 3]
    image_hw = (240, 320)
    for number, (classes, count, candidates, capacity, threshold, stretched) in enumerate(cases):
        many = count == 1000
        architecture = Architecture(
            num_classes=classes,
            semantics=SEMANTICS[list(SEMANTICS)[number % 3]],
            # By a power of two, what a device makes of a division is the same.
            box_bbox_weights=(8.0, 16.0, 4.0, 4.0) if many else (10.0, 10.0, 5.0, 5.0),
        )
        boxes = torch.stack([clustered_boxes(generator, count, image_hw) for _ in range(2)])
        logits = (torch.randn((2, count, classes + 1), generator=generator) * 2).round()
        columns = 4 if number % 2 else 4 * classes
        deltas = torch.randn((2, count, columns), generator=generator)
        if stretched:
            stretch(deltas.unflatten(-1, (-1, 4)), many)
        if count > 9:
            logits[0, 1], deltas[0, 2], deltas[1, 3] = nan, inf, nan
            deltas[0, 4:8, 2::4] = -inf
        dtype = (torch.float32, torch.float16, torch.bfloat16)[number % 3]
        valid = torch.arange(count).expand(2, -1) < max(count * 0.9, 1)
        predicted = [x.to(device) for x in (logits.to(dtype), deltas.to(dtype))]
        proposals = Proposals(*(x.to(device) for x in (boxes, torch.zeros(valid.shape), valid)))
        scalars = {
            'score_threshold': torch.tensor(threshold, device=device),
            'nms_threshold': torch.tensor(0.5, device=device),
            'max_instances': torch.tensor(capacity // 2 + 1, device=device),
        }
        if number == 1:
            scalars = {name: value.item() for name, value in scalars.items()}
        limits = Limits(
            **scalars,
            allowed=(torch.arange(classes) != 2).to(device),
            proposals=count,
            capacity=capacity,
            candidates=candidates,
        )
        inputs = (*predicted, proposals, image_hw, architecture, limits)
        with small_blocks(large):
            found = select_detections(*inputs)
        # Of equal scores, another softmax may make different ones.
        with interpreters_exponential(device), pytest.MonkeyPatch.context() as patch:
            if count:
                patch.setattr(Tensor, 'softmax', kernel_softmax)
            expected = select_detections_static(*inputs)
        compare_selection(found, expected)


def compare_selection(found: Any, expected: Any) -> None:
    """Compare all that is chosen, ties and order too; a GPU's exponential of a box may round."""
    for name in (field.name for field in dataclasses.fields(expected)):
        ours, theirs = getattr(found, name).cpu(), getattr(expected, name).cpu()
        assert ours.dtype == theirs.dtype
        if name == 'boxes' and found.boxes.is_cuda:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-3)
        elif name == 'scores':
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
        else:
            assert torch.equal(ours, theirs), name


CHECKS: dict[str, Callable[[torch.device, torch.Generator, bool], None]] = {
    'nms': check_nms,
    'roi_align': check_roi_align,
    'paste': check_paste,
    'preprocess': check_preprocess,
    'choose': check_choose,
    'max_pool': check_max_pool,
    'add_enlarged': check_add_enlarged,
    'radix_select': check_radix_select,
    'select_proposals': check_select_proposals,
    'select_detections': check_select_detections,
}


@functools.cache
def interpreted(seed: int) -> dict[str, str]:
    """Run all comparisons under the interpreter; return the traceback of each that fails.

    They share a process: its start takes as long as a comparison.
    """
    done = subprocess.run(
        [sys.executable, __file__, str(seed)],
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    assert list(found) == list(CHECKS)
    return found


def run_all(seed: int) -> dict[str, str]:
    failures = dict.fromkeys(CHECKS, '')
    for name, check in CHECKS.items():
        try:
            check(CPU, torch.Generator().manual_seed(seed), False)
        except Exception:  # noqa: BLE001 - what it says is the finding
            failures[name] = traceback.format_exc()
    return failures


needs_triton = pytest.mark.skipif(
    importlib.util.find_spec('triton') is None, reason='this PyTorch comes without Triton'
)


@needs_triton
@pytest.mark.parametrize('seed', fresh_seeds(1))
@pytest.mark.parametrize('name', CHECKS)
def test_the_interpreted_kernel_is_its_twin(name: str, seed: int) -> None:
    # The interpreter of Triton 3.1, of PyTorch 2.5, wants each length to be a constant.
    pytest.importorskip('triton', minversion='3.2')
    failure = interpreted(seed)[name]
    assert not failure, failure


@pytest.mark.gpu
@pytest.mark.parametrize('seed', fresh_seeds(1))
@pytest.mark.parametrize('name', CHECKS)
def test_the_kernel_is_its_twin(name: str, seed: int) -> None:
    CHECKS[name](torch.device('cuda'), torch.Generator().manual_seed(seed), True)


@pytest.mark.gpu
@pytest.mark.parametrize('triton', ['0', '1'])
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_a_captured_operator_follows_its_inputs(
    monkeypatch: pytest.MonkeyPatch, seed: int, triton: str
) -> None:
    """One graph of all: new frames, boxes and filter values need no new capture."""
    monkeypatch.setenv('SEGNODE_TRITON', triton)
    device, generator = torch.device('cuda'), torch.Generator().manual_seed(seed)
    operators = select_operators(device)
    assert operators.description.startswith('PyTorch' if triton == '0' else 'Triton')
    image_hw, network_hw = (240, 320), (192, 256)
    plan = prepare_preprocess(image_hw, network_hw, device)
    three = torch.full((3,), 50.0, device=device)
    index = torch.zeros(300, dtype=torch.int64, device=device)
    classes = 7
    sizes = [(48, 64), (24, 32), (12, 16), (6, 8), (3, 4)]
    architecture = Architecture(num_classes=classes, rpn_pre_nms_topk=200)
    anchors = make_anchors(architecture, sizes, device)

    def fresh_predictions() -> list[Tensor]:
        """Return limits, what the box head says, and the RPN's logits and deltas by level."""
        scalars = torch.rand(3, generator=generator)
        return [
            scalars[0] * 0.2 + 0.05,
            scalars[1] * 0.3 + 0.4,
            scalars[2] * 0.3 + 0.4,
            *torch.randint(5, 60, (2,), generator=generator),
            torch.rand(classes, generator=generator) < 0.7,
            torch.randn((1, 100, classes + 1), generator=generator).half() * 2,
            torch.randn((1, 100, classes * 4), generator=generator).half(),
            *(torch.randn((1, 3, *hw), generator=generator).half() for hw in sizes),
            *(torch.randn((1, 12, *hw), generator=generator).half() for hw in sizes),
        ]

    def select(inputs: list[Tensor]) -> list[Tensor]:
        least, overlap, threshold, most, area, allowed, logits, deltas, *maps = inputs
        levels = maps[: len(sizes)], maps[len(sizes) :]
        rows = anchor_rows(*levels)
        proposals = operators.select_proposals(*rows, anchors, network_hw, architecture, 100)
        limits = Limits(
            proposals=100,
            capacity=50,
            candidates=300,
            score_threshold=least,
            nms_threshold=overlap,
            allowed=allowed,
            max_instances=most,
        )
        detections = operators.select_detections(
            logits, deltas, proposals, network_hw, architecture, limits
        )
        choice = operators.choose(
            detections, network_hw, image_hw,
            min_mask_area=area, cells=28, mask_threshold=threshold,
            semantics=architecture.semantics,
        )  # fmt: skip
        parts = [
            getattr(each, field.name)
            for each in (proposals, detections)
            for field in dataclasses.fields(each)
        ]
        return [*parts, *choice]

    def fresh_inputs() -> list[Tensor]:
        masks, boxes, keep = random_instances(generator, 1, 16, image_hw)
        candidates = clustered_boxes(generator, 300, image_hw)
        maps = [x.half() for x in random_pyramid(generator, 1, 64, image_hw)]
        low = int(torch.randint(1, 500, (), generator=generator))
        threshold = torch.rand((), generator=generator) * 0.5 + 0.2
        values = limits(CPU, float(threshold), low, low + 9000).values()
        frames = random_frames(generator, 1, image_hw)
        inputs = (frames, candidates, masks, boxes, keep, *values, *maps, *fresh_predictions())
        return [x.to(device) for x in inputs]

    def run(inputs: list[Tensor]) -> list[Tensor]:
        frames, candidates, masks, boxes, keep, threshold, low, high, *others = inputs
        maps, predictions = others[:5], others[5:]
        x = operators.preprocess(frames, plan, three, three, True, torch.float16, 4)
        largest = operators.max_pool(maps[0], 3, 2, 1)
        maps[0] = operators.add_enlarged(maps[0], maps[1])
        kept = operators.nms(candidates, torch.ones_like(candidates[:, 0]) > 0, threshold)
        pooled = operators.roi_align(maps, candidates, index, Pooler(resolution=7))
        pasted = operators.paste_labels(
            masks, boxes, keep, image_hw,
            threshold=threshold, min_area=low, max_area=high, paste='detectron2',
        )  # fmt: skip
        return [x, largest, kept, pooled, *pasted, *select(predictions)]

    buffers = fresh_inputs()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run(buffers)
        run(buffers)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answers = run(buffers)
    for _ in range(3):
        inputs = fresh_inputs()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode('error')
        try:
            expected = run(inputs)
        finally:
            torch.cuda.set_sync_debug_mode('default')
        for buffer, value in zip(buffers, inputs, strict=True):
            buffer.copy_(value)
        graph.replay()
        for answer, value in zip(answers, expected, strict=True):
            assert np.array_equal(answer.cpu().numpy(), value.cpu().numpy())


def test_a_cpu_gets_the_twins() -> None:
    operators = select_operators(CPU)
    assert operators.description == 'PyTorch (no kernels for device cpu)'
    assert operators.nms is nms_static


@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_the_resize_is_pillows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = [(int(h), int(w)) for h, w in rng.integers(1, 120, (120, 2))]
    cases = [*SIZES, *zip(sizes[::2], sizes[1::2], strict=True), ((270, 480), (120, 213))]
    nothing, one = torch.zeros(3), torch.ones(3)
    for image_hw, size_hw in cases:
        frames = rng.integers(0, 256, (2, *image_hw, 3), dtype=np.uint8)
        plan = prepare_preprocess(image_hw, size_hw, CPU)
        x = preprocess_static(torch.from_numpy(frames), plan, nothing, one, False, torch.float32)
        height, width = size_hw
        ours = x[..., :height, :width].permute(0, 2, 3, 1).numpy()
        for frame, resized in zip(frames, ours, strict=True):
            pillow = PIL.Image.fromarray(frame).resize((width, height), PIL.Image.BILINEAR)
            assert np.array_equal(resized, np.asarray(pillow)), (image_hw, size_hw)
        assert not x[..., height:, :].any()
        assert not x[..., width:].any()


@pytest.mark.parametrize('order', ['bgr', 'rgb'])
@pytest.mark.parametrize('family', RESIZES)
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_the_static_input_is_the_plain_one(seed: int, family: Any, order: Any) -> None:
    architecture = Architecture(semantics=SEMANTICS[family], pixel_std=(57.375, 57.12, 58.395))
    mean, std = torch.tensor(architecture.pixel_mean), torch.tensor(architecture.pixel_std)
    generator = torch.Generator().manual_seed(seed)
    for image_hw, size_hw in SIZES:
        frames = random_frames(generator, 2, image_hw)
        plan = prepare_preprocess(image_hw, size_hw, CPU, resize=family)
        swap = order.upper() != architecture.color
        x = preprocess_static(frames, plan, mean, std, swap, torch.float32)
        for ours, pixels in zip(x, frames.numpy(), strict=True):
            expected = preprocess_on_cpu(Image(pixels, order), size_hw, architecture)
            torch.testing.assert_close(ours, expected, rtol=0, atol=2e-5)
            if family != 'torchvision':
                assert torch.equal(ours, expected)


@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.7])
@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_static_labels_are_the_pasted_masks(seed: int, family: Any, threshold: float) -> None:
    """Against masks pasted one by one and painted on the host."""

    def one_by_one(
        masks: Tensor, boxes: Tensor, keep: Tensor, image_hw: tuple[int, int],
        *, threshold: Tensor, min_area: Tensor, max_area: Tensor, paste: Any,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        areas, labels = torch.zeros(keep.shape, dtype=torch.int64), []
        for n in range(len(masks)):
            crops = [
                paste_mask(mask.numpy(), box.numpy(), image_hw, float(threshold), paste)
                for mask, box in zip(masks[n], boxes[n], strict=True)
            ]
            areas[n] = torch.tensor([crop.area for crop in crops]) * keep[n]
            stays = keep[n] & (areas[n] >= min_area) & (areas[n] <= max_area)
            chosen = [crop for crop, stay in zip(crops, stays.tolist(), strict=True) if stay]
            labels.append(torch.from_numpy(label_image(chosen, image_hw)))
        stay = keep & (areas >= min_area) & (areas <= max_area)
        return torch.stack(labels), torch.where(stay, areas, -1)

    generator = torch.Generator().manual_seed(seed)
    for count in (1, 2, 20):
        masks, boxes, keep = random_instances(generator, 2, count, (61, 93))
        compare_paste(one_by_one, CPU, (61, 93), family, threshold, masks, boxes, keep)


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_static_areas_are_the_references(detectron2: ModuleType, seed: int, family: Any) -> None:
    from detectron2.layers.mask_ops import paste_masks_in_image as detectron2_paste

    generator = torch.Generator().manual_seed(seed)
    image_hw = (61, 93)
    masks, boxes, keep = random_instances(generator, 1, 20, image_hw)
    no_limits = limits(CPU, 0.5, 0, 2**40)
    labels, areas = paste_labels_static(
        masks, boxes, torch.ones_like(keep), image_hw, **no_limits, paste=family
    )
    if family == 'detectron2':
        whole = detectron2_paste(masks[0], boxes[0], image_hw, threshold=0.5)
    else:
        whole = paste_masks_in_image(masks[0, :, None], boxes[0], image_hw)[:, 0] > 0.5
    # Rounding may decide a pixel of a mask's edge.
    assert (areas >= 0).all()  # all of them stay
    assert ((areas[0] - whole.sum((-2, -1))).abs() <= 1).all()
    painted = (whole * torch.arange(20, 0, -1)[:, None, None]).amax(0)
    expected = torch.where(painted > 0, 21 - painted, 0)
    assert (labels[0].int() != expected).sum() <= 2


def test_static_labels_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    masks, boxes, keep = random_instances(generator, 2, 9, (40, 50))
    inputs = (masks, boxes, keep, (40, 50))
    options: dict[str, Any] = {**limits(CPU, 0.5, 20, 900), 'paste': 'detectron2'}
    whole = paste_labels_static(*inputs, **options)
    monkeypatch.setattr('segnode.kernels.plain.paste.CHUNK_PIXELS', 2 * 40 * 50 * 2)
    for part, expected in zip(paste_labels_static(*inputs, **options), whole, strict=True):
        assert np.array_equal(part.numpy(), expected.numpy())
    assert {False, True} == set((whole[1] < 0).flatten().tolist())


if __name__ == '__main__':
    sys.stdout.write(json.dumps(run_all(int(sys.argv[1]))))
