# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Measuring: contenders in turn, ratios in pairs, and what a profiler counts in one frame."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from segnode.percentiles import percentiles

_SPAN = 'segnode.benchmark.frame'
# Calls of the CUDA and HIP runtimes as a profiler names them, without the vendor's prefix.
_LAUNCHES = ('LaunchKernel', 'ModuleLaunchKernel', 'ExtModuleLaunchKernel')
_SYNCHRONISATIONS = ('StreamSynchronize', 'DeviceSynchronize', 'EventSynchronize', 'Memcpy')


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and tails of a series."""

    p50: float
    p5: float
    p95: float

    @classmethod
    def of(cls, values: npt.NDArray[np.float64]) -> Spread:
        """Return the spread of a series that is not empty."""
        return cls(*percentiles(values.tolist(), 50, 5, 95))

    def json(self, name: str) -> dict[str, float]:
        """Return it as ``name_p50`` and so on."""
        return {f'{name}_p50': self.p50, f'{name}_p5': self.p5, f'{name}_p95': self.p95}


def paired_ratio(
    reference_ms: npt.NDArray[np.float64], ours_ms: npt.NDArray[np.float64]
) -> Spread:
    """Return how many times longer the reference took, round by round."""
    return Spread.of(reference_ms / ours_ms)


def time_rounds(
    calls: Sequence[Callable[[int], object]], rounds: Iterator[int]
) -> npt.NDArray[np.float64]:
    """Time callables in turn.

    Every round calls each of them once, with the round's number; who goes first changes from
    round to round. A call has ended when it returns: its result is on the host.

    Returns:
        (rounds, callables) float64 milliseconds.
    """
    gc.collect()
    times = []
    for number in rounds:
        row = [0.0] * len(calls)
        for turn in range(len(calls)):
            index = (number + turn) % len(calls)
            start = time.perf_counter()
            calls[index](number)
            row[index] = (time.perf_counter() - start) * 1e3
        times.append(row)
    return np.array(times)


def count_calls(call: Callable[[], object], device: torch.device) -> dict[str, int]:
    """Run a frame under PyTorch's profiler and count what the host did.

    Returns:
        On a CPU ``operators``: PyTorch operators, those inside of others not counted. On a GPU
        ``launches`` of single kernels, ``graph_launches``, ``synchronisations`` (the host waits)
        and ``copies`` to and from the host; empty where the profiler cannot see them.
    """
    cuda = device.type == 'cuda'
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    with profile(activities=activities) as trace, record_function(_SPAN):
        call()
    events = [event for event in trace.events() if event.device_type.name == 'CPU']
    span = next(event for event in events if event.name == _SPAN)
    inside = [
        event
        for event in events
        if span.time_range.start <= event.time_range.start <= span.time_range.end
    ]
    if not cuda:
        return {'operators': sum(_is_operator(e) and not _within_operator(e) for e in inside)}
    names = [
        event.name.removeprefix('cuda').removeprefix('cu').removeprefix('hip') for event in inside
    ]
    counts = {
        'launches': sum(name.startswith(_LAUNCHES) for name in names),
        'graph_launches': names.count('GraphLaunch'),
        'synchronisations': sum(name in _SYNCHRONISATIONS for name in names),
        'copies': sum(name.startswith('Memcpy') for name in names),
    }
    return counts if any(counts.values()) else {}


def _is_operator(event: torch.autograd.profiler_util.FunctionEvent) -> bool:
    return '::' in event.name


def _within_operator(event: torch.autograd.profiler_util.FunctionEvent) -> bool:
    parent = event.cpu_parent
    while parent is not None:
        if _is_operator(parent):
            return True
        parent = parent.cpu_parent
    return False
