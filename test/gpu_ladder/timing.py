# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Milliseconds and memory: checks that they are sound, then whole frames and their stages."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gpu_ladder import limits
from gpu_ladder.engines import DTYPES, JOINED, Climb, Image
from gpu_ladder.options import shape_name
from gpu_ladder.outcome import Result, judged
from segnode.cli import stage_summary
from segnode.engine import Engine, Segmentation
from segnode.model.boxes import top_k_of_parts

# Candidates of a level.
CANDIDATES = 1000


def check_stage_times(climb: Climb) -> Result:
    """No stage takes less than nothing, and all of them no longer than the frame."""
    engine, images = climb.engine(limits.TIMED), climb.images(limits.COMPARED)
    time_frames(engine, images, len(images))
    timed = time_frames(engine, images, 8 * len(images))
    sums = [(sum(answer.stage_ms.values()), ms) for answer, ms in timed]
    figures = {
        'shortest_ms': min(min(answer.stage_ms.values()) for answer, _ in timed),
        'beyond_frame_ms': max(stages - ms for stages, ms in sums),
        'share_of_frame': float(np.median([stages / ms for stages, ms in sums])),
        'stages': list(timed[-1][0].stage_ms),
    }
    # Half a microsecond is what an event resolves, for each of them.
    return judged(figures, least={'shortest_ms': 0.0}, most={'beyond_frame_ms': 0.05})


def check_memory(climb: Climb) -> Result:
    """Memory in use stays as it is over hundreds of frames."""
    engine, images = climb.engine(limits.TIMED), climb.images(limits.COMPARED)
    time_frames(engine, images, 2 * len(images))
    seen = [memory(engine)]
    for _ in range(3):
        time_frames(engine, images, limits.FRAMES // 3)
        seen.append(memory(engine))
    in_use, reserved = ([each[name] / 2**20 for each in seen] for name in ('in_use', 'reserved'))
    figures = {
        'in_use_mb': in_use,
        'reserved_mb': reserved,
        'grown_mb': max(in_use) - in_use[0],
        # The allocator may still split its blocks once; it must not go on to.
        'reserved_grown_mb': reserved[-1] - reserved[1],
    }
    return judged(figures, most={'grown_mb': 0.5, 'reserved_grown_mb': 2})


def check_selection_times(climb: Climb) -> Result:
    """Milliseconds to choose the RPN's candidates at 800x1344, by top-k and by Triton's kernels.

    Each is replayed where the rung has graphs. Nothing is judged but that they run.
    """
    sizes = [3 * 200 * 336 // 4**level for level in range(5)]
    generator = torch.Generator().manual_seed(0)
    ways: dict[str, Callable[[], object]] = {}
    for name in ('fp16', 'fp32'):
        rows = [torch.randn((1, size, JOINED), generator=generator) for size in sizes]
        logits = [x.to(climb.device, DTYPES[name])[..., 4] for x in rows]
        ways[f'top_k_{name}_ms'] = partial(_top_k, logits)
        if climb.operators().description.startswith('Triton'):
            ways[f'radix_select_{name}_ms'] = partial(_radix_select, logits)
    return judged({name: _each_ms(climb, way) for name, way in ways.items()})


def _top_k(logits: list[Tensor]) -> list[Tensor]:
    scores = torch.cat(logits, 1).float()
    return top_k_of_parts(scores, [x.shape[1] for x in logits], CANDIDATES)


def _radix_select(logits: list[Tensor]) -> Tensor:
    from segnode.kernels.triton.proposals import level_keys
    from segnode.kernels.triton.radix_select import select

    return select(level_keys(logits, CANDIDATES))


def _each_ms(climb: Climb, way: Callable[[], object]) -> float:
    """Return milliseconds of one of many runs in a row."""
    way()
    if not climb.on_gpu:
        start = time.perf_counter()
        way()
        return (time.perf_counter() - start) * 1e3
    replay: Callable[[], object] = way
    if climb.rung.graphs:
        torch.cuda.synchronize(climb.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            way()
        replay = graph.replay
    start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start_event.record()
    for _ in range(limits.ROUNDS):
        replay()
    end_event.record()
    end_event.synchronize()
    return start_event.elapsed_time(end_event) / limits.ROUNDS


def time_shape(climb: Climb, shape: tuple[int, int]) -> Result:
    """Milliseconds of whole frames on the host, and of their stages on the device."""
    engine, frames = climb.engine(limits.TIMED, shape), climb.reference.frames[shape]
    if climb.on_gpu:
        torch.cuda.reset_peak_memory_stats(climb.device)
    time_frames(engine, frames, min(limits.WARM_UP, limits.ROUNDS))
    timed = time_frames(engine, frames, limits.ROUNDS)
    figures = {
        'shape': shape_name(shape),
        'model': climb.options.timed or 'embedded',
        'precision': engine.precision,
        'execution': engine.execution(),
        'detections': len(timed[-1][0].detections),
        'rounds': limits.ROUNDS,
        'frame_ms': stage_summary([{'frame': ms} for _, ms in timed])['frame'],
        'stages_ms': stage_summary([answer.stage_ms for answer, _ in timed]),
        'memory': memory(engine),
        'label_image': engine.execution().get('label_image', ''),
    }
    return judged(figures)


def time_frames(
    engine: Engine, images: list[Image], rounds: int
) -> list[tuple[Segmentation, float]]:
    """Return answers to frames in turn, each with its milliseconds on the host."""
    timed = []
    for number in range(rounds):
        start = time.perf_counter()
        (answer,) = engine.segment([images[number % len(images)]])
        timed.append((answer, (time.perf_counter() - start) * 1e3))
    return timed


def memory(engine: Engine) -> dict[str, int]:
    """Return bytes on the device that are in use, were at most, and are kept by the allocator."""
    reserved = 0
    if engine.device.type == 'cuda':
        torch.cuda.synchronize(engine.device)
        reserved = torch.cuda.memory_reserved(engine.device)
    return {**engine.memory(), 'reserved': reserved}
