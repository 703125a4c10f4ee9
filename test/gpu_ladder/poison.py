# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""NaN in all free memory: whatever is read before it is written shows up in the answer."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpu_ladder import limits
from gpu_ladder.answers import compare, worst
from gpu_ladder.engines import Climb
from gpu_ladder.outcome import Result, SkipCheck, judged
from segnode.engine import Detections, Segmentation


def check_poison(climb: Climb, precision: str) -> Result:
    """NaN in all free memory, before a frame and before each of its layers, changes no bit."""
    if climb.rung.graphs:
        raise SkipCheck('a graph has its memory to itself')
    engine, images = climb.engine(precision), climb.images(1)
    first, again = engine.segment(images)[0], engine.segment(images)[0]
    streams: list[Any] = []
    nan_in: list[str] = []

    def before(module: nn.Module, inputs: Any) -> None:
        if climb.on_gpu and not streams:
            # Free memory belongs to the stream that it was used on.
            streams.append(torch.cuda.current_stream(climb.device))
        fill_free_memory(climb.device)

    def behind(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if not torch.isfinite(output).all():
            nan_in.append(names[module])

    modules = climb.network(precision).model.named_modules()
    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    names = {each: name for name, each in modules if isinstance(each, layers)}
    hooks = [each.register_forward_pre_hook(before) for each in names]
    hooks += [each.register_forward_hook(behind) for each in names]
    try:
        poisoned = []
        for _ in range(2):
            with torch.cuda.stream(streams[0]) if streams else nullcontext():
                fill_free_memory(climb.device)
            poisoned += engine.segment(images)
    finally:
        for hook in hooks:
            hook.remove()
    figures = {
        'repeats': int(identical(first, again)),
        'same': int(all(identical(first, answer) for answer in poisoned)),
        'layers_with_nan': len(nan_in),
        **worst([compare(first, answer, engine) for answer in poisoned]),
    }
    remark = f'first in {nan_in[0]}' if nan_in else ''
    least, most = {'repeats': 1, 'same': 1}, {'layers_with_nan': 0}
    return judged(figures, least=least, most=most, remark=remark)


def fill_free_memory(device: torch.device) -> None:
    """Leave NaN in what PyTorch's allocator hands out next on the current stream."""
    blocks = [
        torch.full((size // 2,), math.nan, dtype=torch.float16, device=device)
        for size, count in limits.POISON
        for _ in range(count)
    ]
    blocks.clear()


def identical(a: Segmentation, b: Segmentation) -> bool:
    """Return whether two answers are the same, bit for bit."""
    arrays = (
        (x.label_image, *(getattr(x.detections, name) for name in Detections.__slots__))
        for x in (a, b)
    )
    return all(np.array_equal(one, other) for one, other in zip(*arrays, strict=True))
