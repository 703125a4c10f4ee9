# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Checks of what the rung is made of: its kernels, its graphs, and every operator alone."""

from __future__ import annotations

import importlib.util
from dataclasses import astuple
from typing import Any
from unittest import mock

import numpy as np
import torch
from kernel_softmax import kernel_softmax
from random_boxes import clustered_boxes, random_boxes
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from gpu_ladder import limits
from gpu_ladder.engines import (
    DTYPES,
    JOINED,
    POOLER,
    SEMANTICS,
    TWINS,
    Architecture,
    BoxDetections,
    Climb,
    Limits,
    Proposals,
    exact_float32,
    make_anchors,
    prepare_preprocess,
)
from gpu_ladder.outcome import Result, SkipCheck, judged
from gpu_ladder.precision import deviation

# Network input that proposals and detections are chosen in.
SELECTED_HW = (240, 320)


def check_operators(climb: Climb) -> Result:
    """Triton's kernels are chosen where the rung is to have them."""
    wanted = 'Triton' if climb.rung.triton and climb.on_gpu else 'PyTorch'
    if wanted == 'Triton' and importlib.util.find_spec('triton') is None:
        raise SkipCheck('Triton is not installed')
    found = climb.operators().description
    figures = {'operators': found, 'as_wanted': int(found.startswith(wanted))}
    return judged(figures, least={'as_wanted': 1}, remark=f'{wanted}, found {found}')


def check_graphs(climb: Climb) -> Result:
    """Graphs are launched on a rung that has them, and on no other."""
    if climb.rung.graphs and not climb.has_graphs:
        raise SkipCheck(f'no graphs on device {climb.device}')
    with exact_float32():
        engine, images = climb.engine('fp32'), climb.images(1)
        engine.segment(images)
        replay = torch.cuda.CUDAGraph.replay
        with mock.patch.object(torch.cuda.CUDAGraph, 'replay', autospec=True) as counted:
            counted.side_effect = replay
            engine.segment(images)
    figures = {'graph_launches': counted.call_count}
    if climb.rung.graphs:
        refused = '; '.join(line for line in climb.said if 'graph' in line)
        return judged(figures, least={'graph_launches': 1}, remark=refused)
    return judged(figures, most={'graph_launches': 0})


def check_preprocess(climb: Climb) -> Result:
    """Frames become the network's input, enlarged and shrunk."""
    architecture = climb.reference.model.architecture
    frames = torch.from_numpy(np.stack([image.pixels for image in climb.images(2)]))
    image_hw = (frames.shape[1], frames.shape[2])
    mean, std = torch.tensor(architecture.pixel_mean), torch.tensor(architecture.pixel_std)
    figures = {'fp32': 0.0, limits.TIMED: 0.0, 'beyond': 0}
    for scale in (0.7, 1.0, 1.4):
        size_hw = (round(image_hw[0] * scale), round(image_hw[1] * scale))
        plans = [
            prepare_preprocess(image_hw, size_hw, device, resize=architecture.semantics.resize)
            for device in (torch.device('cpu'), climb.device)
        ]
        expected = TWINS.preprocess(frames, plans[0], mean, std, True, torch.float32)
        placed = [x.to(climb.device) for x in (frames, mean, std)]
        for name in ('fp32', limits.TIMED):
            found = climb.operators().preprocess(
                placed[0], plans[1], placed[1], placed[2], True, DTYPES[name]
            )
            apart = float((found.float().cpu() - expected).abs().max())
            figures[name] = max(figures[name], apart)
        for channels in (4, 8):  # With zeros beside the colours.
            given = (placed[0], plans[1], placed[1], placed[2], True, DTYPES[limits.TIMED])
            wide = climb.operators().preprocess(*given, channels)
            beyond = nn.functional.pad(found, (0, 0, 0, 0, 0, channels - 3))
            figures['beyond'] = max(figures['beyond'], different(beyond, wide))
    most = {name: limits.PIXELS[name] for name in ('fp32', limits.TIMED)}
    return judged(figures, most={**most, 'beyond': 0})


def check_nms(climb: Climb) -> Result:
    """The very boxes stay."""
    figures = {}
    for name, sets, count, grouped in (('levels', 5, 500, False), ('classes', 2, 1000, True)):
        generator = torch.Generator().manual_seed(count)
        boxes = torch.stack([clustered_boxes(generator, count, (480, 640)) for _ in range(sets)])
        valid = torch.rand((sets, count), generator=generator) < 0.8
        groups = torch.randint(5, (sets, count), generator=generator) if grouped else None
        expected, found = both(climb, 'nms', boxes, valid, torch.tensor(0.5), groups)
        figures[name] = int((found.cpu() != expected).sum())
    return judged(figures, most=dict.fromkeys(figures, 0))


def check_select_proposals(climb: Climb) -> Result:
    """The very anchors are chosen, in their order, ties too."""
    figures: dict[str, float] = {}
    for number, (family, semantics) in enumerate(SEMANTICS.items()):
        generator = torch.Generator().manual_seed(3)
        architecture = Architecture(semantics=semantics, rpn_pre_nms_topk=500)
        sizes = [(-(-SELECTED_HW[0] // s), -(-SELECTED_HW[1] // s)) for s in architecture.strides]
        counts = [3 * height * width for height, width in sizes]
        anchors = make_anchors(architecture, sizes, climb.device)
        # Of one layer's rows; scores of few values, of which most are tied.
        rows = [torch.randn((2, count, JOINED), generator=generator) for count in counts]
        rows = [(x * 4).round().div(4).half().to(climb.device) for x in rows]
        logits, deltas = [x[..., 4] for x in rows], [x[..., :4] for x in rows]
        if number % 2:  # Of two layers.
            logits, deltas = ([x.contiguous() for x in each] for each in (logits, deltas))
        inputs = (logits, deltas, anchors, SELECTED_HW, architecture, 300)
        note(figures, family, *of_both(climb, 'select_proposals', inputs))
    return judged(figures, most=dict.fromkeys(figures, 0))


def check_select_detections(climb: Climb) -> Result:
    """The very proposals and classes are chosen, in their order, ties too.

    The twin chooses from the probabilities of the kernel, if there is one.
    """
    figures: dict[str, float] = {}
    for family, semantics in SEMANTICS.items():
        generator, classes, count = torch.Generator().manual_seed(4), 80, 300
        architecture = Architecture(semantics=semantics, num_classes=classes)
        boxes = [clustered_boxes(generator, count, SELECTED_HW) for _ in range(2)]
        valid = torch.arange(count).expand(2, -1) < count - 9
        proposals = (torch.stack(boxes), torch.zeros((2, count)), valid)
        logits = (torch.randn((2, count, classes + 1), generator=generator) * 2).round()
        deltas = torch.randn((2, count, 4 * classes), generator=generator)
        placed = [x.half().to(climb.device) for x in (logits, deltas)]
        bounds = Limits(
            proposals=count,
            capacity=100,
            candidates=1000,
            score_threshold=torch.tensor(0.02, device=climb.device),
            nms_threshold=torch.tensor(0.5, device=climb.device),
            allowed=(torch.arange(classes) % 7 != 0).to(climb.device),
            max_instances=torch.tensor(90, device=climb.device),
        )
        boxes_found = Proposals(*(x.to(climb.device) for x in proposals))
        inputs = (*placed, boxes_found, SELECTED_HW, architecture, bounds)
        by_kernel = climb.operators().description.startswith('Triton')
        softmax = kernel_softmax if by_kernel else Tensor.softmax
        with mock.patch.object(Tensor, 'softmax', softmax):
            note(figures, family, *of_both(climb, 'select_detections', inputs))
    return judged(figures, most=dict.fromkeys(figures, 0))


def check_choose(climb: Climb) -> Result:
    """The same detections get a mask, in their order, and the host is told the same of them."""
    figures: dict[str, float] = {}
    for family, semantics in SEMANTICS.items():
        for count in (1, 100, 300):
            generator = torch.Generator().manual_seed(count)
            boxes = [random_boxes(generator, count, SELECTED_HW) for _ in range(2)]
            scores = torch.rand((2, count), generator=generator).sort(descending=True)[0]
            valid = torch.arange(count).expand(2, -1) < torch.tensor([[count], [count // 2]])
            found = (
                torch.stack(boxes),
                scores,
                torch.randint(80, (2, count), generator=generator),
                valid,
                torch.tensor([0, 3]),
                torch.tensor([False, True]),
            )
            detections = BoxDetections(*(x.to(climb.device) for x in found))
            bounds = {
                'min_mask_area': torch.tensor(200, device=climb.device),
                'mask_threshold': torch.tensor(0.5, device=climb.device),
                'cells': 28,
                'semantics': semantics,
            }
            inputs = (detections, SELECTED_HW, (1080, 1440))
            note(figures, f'{family} {count}', *of_both(climb, 'choose', inputs, **bounds))
    return judged(figures, most=dict.fromkeys(figures, 0))


def check_max_pool(climb: Climb) -> Result:
    """The largest of each window, to the last bit; no number stays none, zero keeps its sign."""
    figures: dict[str, float] = {}
    for name in ('fp32', *limits.HALF):
        # The stem's, and that of the pyramid's last level.
        for shape, window in (((2, 64, 121, 161), (3, 2, 1)), ((2, 256, 25, 42), (1, 2, 0))):
            x = odd_map(shape, DTYPES[name]).to(climb.device)
            expected, found = of_both(climb, 'max_pool', (x, *window))
            figures[f'{name} {window[0]}'] = different(expected, found)
    return judged(figures, most=dict.fromkeys(figures, 0))


def check_add_enlarged(climb: Climb) -> Result:
    """The sum of a map and a coarser one, to the last bit."""
    figures: dict[str, float] = {}
    for name in ('fp32', *limits.HALF):
        x, small = (
            odd_map((2, 256, *hw), DTYPES[name]).to(climb.device) for hw in ((50, 84), (25, 42))
        )
        figures[name] = different(*of_both(climb, 'add_enlarged', (x, small)))
    return judged(figures, most=dict.fromkeys(figures, 0))


def odd_map(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return numbers with ties, zeros of both signs, infinities and NaN, in channels_last."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(shape, generator=generator).mul(4).round().div(4)
    for value in (-0.0, np.inf, -np.inf, np.nan):
        x[torch.rand(shape, generator=generator) < 0.02] = value
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def different(expected: Tensor, found: Tensor) -> int:
    """Return how many numbers have other bits; one NaN is like another."""
    if expected.dtype != found.dtype or expected.shape != found.shape:
        return max(expected.numel(), found.numel())
    bits = torch.int32 if expected.dtype == torch.float32 else torch.int16
    ours, theirs = (x.contiguous().nan_to_num(0.5, np.inf, -np.inf) for x in (found, expected))
    apart = (ours.view(bits) != theirs.view(bits)) | (found.isnan() != expected.isnan())
    return int(apart.sum())


def check_roi_align(climb: Climb) -> Result:
    """Features are pooled over all levels, from both images of a batch."""
    hw, generator = (480, 640), torch.Generator().manual_seed(1)
    sizes = [(2, 64, hw[0] // stride, hw[1] // stride) for stride in (4, 8, 16, 32)]
    maps = [torch.randn(size, generator=generator) for size in sizes]
    boxes = random_boxes(generator, 200, hw)
    index = torch.arange(len(boxes)) % 2
    figures, most = {}, {}
    for name in ('fp32', *limits.HALF):
        rounded = [x.to(DTYPES[name]).contiguous(memory_format=torch.channels_last) for x in maps]
        # As exact heads say of which image each is, and as a frame's are, as many of each.
        pairs = [both(climb, 'roi_align', rounded, boxes, i, POOLER) for i in (index, None)]
        expected, found = (list(each) for each in zip(*pairs, strict=True))
        figures[f'{name}_mean'], figures[f'{name}_max'] = deviation(expected, found)
        most[f'{name}_mean'], most[f'{name}_max'] = limits.POOLED[name]
    return judged(figures, most=most)


def check_paste(climb: Climb) -> Result:
    """Masks become label images, areas and the choice of what stays."""
    count, generator = 20, torch.Generator().manual_seed(2)
    boxes = torch.stack([random_boxes(generator, count, limits.SCENE_HW) for _ in range(2)])
    coarse = torch.rand((2 * count, 1, 5, 5), generator=generator)
    masks = nn.functional.interpolate(coarse, size=(28, 28), mode='bilinear')
    masks, keep = masks.view(2, count, 28, 28), torch.rand((2, count), generator=generator) < 0.8
    bounds = {
        'threshold': torch.tensor(0.5),
        'min_area': torch.tensor(50),
        'max_area': torch.tensor(2**40),
    }
    inputs = (masks, boxes, keep, limits.SCENE_HW)
    expected, found = both(climb, 'paste_labels', *inputs, paste='detectron2', **bounds)
    (labels, areas), placed = (x.numpy() for x in expected), [x.cpu().numpy() for x in found]
    figures = {
        'labels': float((placed[0] == labels).mean()),
        'area_px': int(np.abs(placed[1] - areas).max()),
        'stay': int(((placed[1] < 0) != (areas < 0)).sum()),
    }
    # Rounding may decide a pixel on a mask's edge.
    return judged(figures, least={'labels': limits.EXACT_LABELS}, most={'area_px': 9, 'stay': 0})


def of_both(climb: Climb, name: str, inputs: tuple[Any, ...], **options: Any) -> tuple[Any, Any]:
    """Return what an operator's twin makes of inputs, and the operator, both on the device.

    Another device's exponential may tie what is apart here.

    Raises:
        SkipCheck: they are one and the same.
    """
    if climb.on_gpu and not climb.rung.triton:
        raise SkipCheck('the operators of this rung are the twins')
    twin, operator = (getattr(each, name) for each in (TWINS, climb.operators()))
    return twin(*inputs, **options), operator(*inputs, **options)


def note(figures: dict[str, float], case: str, expected: Any, found: Any) -> None:
    """Add how many numbers of a choice are other ones: boxes and scores beyond rounding."""
    tuples = (x if isinstance(x, tuple) else astuple(x) for x in (expected, found))
    apart = 0
    for ours, theirs in zip(*tuples, strict=True):
        same = ours.dtype == theirs.dtype and ours.shape == theirs.shape
        close = torch.isclose(ours, theirs, rtol=1e-5, atol=1e-4) if same else same
        apart += int((~close).sum()) if same else 1
    figures[case] = apart


def both(climb: Climb, name: str, *inputs: Any, **options: Any) -> tuple[Any, Any]:
    """Return what an operator's twin makes of inputs on the CPU, and the operator on the device.

    The twin gets floating numbers of half precision as float32.
    """

    def widened(x: Tensor) -> Tensor:
        return x.float() if x.is_floating_point() else x

    given = (inputs, options)
    args, kwargs = tree_map_only(Tensor, widened, given)
    expected = getattr(TWINS, name)(*args, **kwargs)
    args, kwargs = tree_map_only(Tensor, lambda x: x.to(climb.device), given)
    return expected, getattr(climb.operators(), name)(*args, **kwargs)
