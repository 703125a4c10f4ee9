# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Milliseconds of the several ways to do one step of the trunk, at the sizes of a real frame.

What is told here: whether a kernel is faster than what PyTorch has for it, and whether the
pyramid's sum is worth its six dimensions where there is no kernel.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from gpu_ladder import limits
from gpu_ladder.engines import DTYPES, TWINS, Climb, device_milliseconds, fastest
from gpu_ladder.options import shape_name
from gpu_ladder.outcome import Result, judged

# Channels of the stem's map and of the pyramid's, in the networks that are timed by default.
STEM, PYRAMID = 64, 256
Ways = dict[str, Callable[[], object]]


def time_ways(climb: Climb, shape: tuple[int, int]) -> Result:
    """Every way of every step at a frame's size, in turns; all that can be wrong is no number."""
    dtype = DTYPES[limits.TIMED] if climb.on_gpu else torch.float32
    height, width = (-(-side // 32) * 32 for side in shape)

    def random_map(channels: int, stride: int) -> Tensor:
        size = (1, channels, height // stride, width // stride)
        made = torch.randn(size, device=climb.device).to(dtype)
        return made.contiguous(memory_format=torch.channels_last)

    stem = random_map(STEM, 2)
    maps = [random_map(PYRAMID, stride) for stride in (4, 8, 16, 32)]
    operators, ways = climb.operators(), dict[str, Ways]()
    ways['max_pool'] = {'torch': lambda: TWINS.max_pool(stem, 3, 2, 1)}
    ways['add_enlarged'] = {
        'upsampled': partial(_add_all, _add_upsampled, maps),
        'six dimensions': partial(_add_all, TWINS.add_enlarged, maps),
    }
    if operators.max_pool is not TWINS.max_pool:
        ways['max_pool']['kernel'] = lambda: operators.max_pool(stem, 3, 2, 1)
        ways['add_enlarged']['kernel'] = partial(_add_all, operators.add_enlarged, maps)
    clock = device_milliseconds if climb.on_gpu else _host_milliseconds
    found = {step: fastest(each, clock)[1] for step, each in ways.items()}
    missing = [(s, way) for s, each in ways.items() for way in each if way not in found[s]]
    figures = {'shape': shape_name(shape), 'ways_ms': found, 'failed': len(missing)}
    return judged(figures, most={'failed': 0}, remark=', '.join(map(' '.join, missing)))


def _add_all(add: Callable[[Tensor, Tensor], Tensor], maps: list[Tensor]) -> None:
    """Go down the pyramid, finest map first in ``maps``."""
    for fine, coarse in itertools.pairwise(maps):
        add(fine, coarse)


def _add_upsampled(x: Tensor, small: Tensor) -> Tensor:
    return x + nn.functional.interpolate(small, scale_factor=2.0, mode='nearest')


def _host_milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3
