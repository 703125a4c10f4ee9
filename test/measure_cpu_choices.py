# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Measures what each choice of the CPU path is worth: R50-FPN, 480x640, 20 planted detections.

Every alternative takes turns with the engine as it is, in one process, and the figures are medians
of paired ratios. ``python test/measure_cpu_choices.py`` writes benchmark_results/cpu_choices.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

import segnode.engine.network
from segnode.benchmark.measure import Spread, paired_ratio, time_rounds
from segnode.benchmark.planted import PlantedDetections, plant_model, render_frames
from segnode.config import Config
from segnode.engine import Engine
from segnode.engine.dynamic import DynamicBackend
from segnode.engine.network import NativeNetwork
from segnode.hardware.machine import describe_machine
from segnode.kernels.cpu import load_cpu_kernels
from segnode.model.precision import choose_precision

RESULTS = Path(__file__).resolve().parent / 'benchmark_results' / 'cpu_choices.json'
IMAGE_HW = (480, 640)
DETECTIONS = 20
WARM_UP = 3
CONFIG = Config(model='mask_rcnn_R_50_FPN_3x', device='cpu').replace(
    {'resolution.short_side': min(IMAGE_HW), 'resolution.long_side': max(IMAGE_HW)}
)


@contextmanager
def without_compiled_kernels() -> Iterator[None]:
    with mock.patch.dict(os.environ, SEGNODE_NATIVE='0'):
        load_cpu_kernels.cache_clear()
        yield
    load_cpu_kernels.cache_clear()


def without_fusion() -> Any:
    return mock.patch.object(segnode.engine.network, 'fuse_convolutions', return_value='none')


def as_is(engine: Engine) -> Engine:
    return engine


def native(engine: Engine) -> NativeNetwork:
    assert isinstance(engine._backend, DynamicBackend)
    return engine._backend.network


def in_planes(engine: Engine) -> Engine:
    """Keep the maps in NCHW."""
    model = native(engine).model
    model.to(memory_format=torch.contiguous_format)
    model.backbone.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    return engine


def compiled(engine: Engine) -> Engine:
    """Let TorchInductor compile backbone and heads, weights frozen."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    model = native(engine).model
    model.backbone = torch.compile(model.backbone)
    model.proposal_generator.rpn_head = torch.compile(model.proposal_generator.rpn_head)
    model.roi_heads.box_head = torch.compile(model.roi_heads.box_head)
    model.roi_heads.mask_head = torch.compile(model.roi_heads.mask_head)
    return engine


def alternatives(precision: str) -> dict[str, Callable[[], Engine]]:
    """Return how to build each of them, the engine as it is first."""
    model = plant_model(CONFIG)
    config = CONFIG.replace({'precision': precision})
    planted = PlantedDetections(DETECTIONS, IMAGE_HW, model.architecture.num_classes)

    def build(**changes: str) -> Engine:
        engine = Engine(config.replace(changes), model=model)
        engine.replace_detections(planted.replace)
        return engine

    def within(change: Callable[[], Any], then: Callable[[Engine], Engine] = as_is) -> Engine:
        with change():
            return then(build())

    built: dict[str, Callable[[], Engine]] = {
        'as it is': build,
        'no compiled kernels': lambda: within(without_compiled_kernels),
        'no fused convolutions': lambda: within(without_fusion),
        'no fused convolutions, NCHW': lambda: within(without_fusion, in_planes),
        'torch.compile in place of fused convolutions': lambda: within(without_fusion, compiled),
    }
    if precision != 'fp32':
        built['fp32'] = lambda: build(precision='fp32')
    return built


def time_threads(call: Callable[[int], object], rounds: int) -> npt.NDArray[np.float64]:
    """Return (rounds, 2) milliseconds with all threads and with one.

    A call after the number has changed is left out: what was prepared for the other is gone.
    """
    threads = torch.get_num_threads()
    times_ms = np.empty((rounds, 2))
    for number in range(rounds):
        for column, count in enumerate((threads, 1)):
            torch.set_num_threads(count)
            call(number)
            times_ms[number, column] = time_rounds([call], iter([number]))[0, 0]
    torch.set_num_threads(threads)
    return times_ms


def measure(precision: str, rounds: int) -> dict[str, Any]:
    frames = render_frames(IMAGE_HW)
    engines, start_up_s = {}, {}
    for name, build in tqdm(alternatives(precision).items(), precision, disable=None):
        start = time.perf_counter()
        engines[name] = build()
        with torch.inference_mode():
            engines[name].segment([frames[0]])
        start_up_s[name] = time.perf_counter() - start
    calls: dict[str, Callable[[int], object]] = {
        name: lambda number, engine=engine: engine.segment([frames[number % len(frames)]])
        for name, engine in engines.items()
    }
    every = list(calls.values())
    time_rounds(every, iter(range(WARM_UP)))
    bar = tqdm(range(rounds), precision, unit='round', disable=None)
    times_ms = time_rounds(every, iter(bar))
    threads_ms = time_threads(calls['as it is'], rounds)
    times_ms = np.hstack((times_ms, threads_ms[:, 1:] / threads_ms[:, :1] * times_ms[:, :1]))
    names = [*calls, 'one thread']
    return {
        name: {
            'ms': asdict(Spread.of(times_ms[:, index])),
            'times_as_it_is': asdict(paired_ratio(times_ms[:, index], times_ms[:, 0])),
            'start_up_s': start_up_s.get(name),
        }
        for index, name in enumerate(names)
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--json', type=Path, default=RESULTS)
    options = parser.parse_args()
    cpu = torch.device('cpu')
    best = choose_precision('auto', cpu)
    results = {
        'machine': describe_machine(cpu),
        'protocol': f'{options.rounds} rounds after {WARM_UP} of warm-up, all in turn; '
        f'R50-FPN, {IMAGE_HW[0]}x{IMAGE_HW[1]}, {DETECTIONS} planted detections',
        **{name: measure(name, options.rounds) for name in dict.fromkeys((best, 'fp32'))},
    }
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(results, indent=2) + '\n')
    for precision in dict.fromkeys((best, 'fp32')):
        for name, row in results[precision].items():
            ratio, ms = row['times_as_it_is'], row['ms']['p50']
            sys.stdout.write(
                f'{precision}  {name:<46}{ms:8.0f} ms  x{ratio["p50"]:.2f} '
                f'({ratio["p5"]:.2f} - {ratio["p95"]:.2f})\n'
            )
    return 0


if __name__ == '__main__':
    sys.exit(main())
