# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Climbs a ladder on a GPU: plain operators, Triton, graphs, both; each rung checked, then timed.

Behind ``make gpu``. Every rung runs in a process of its own, as one kernel that reads beyond its
memory makes the device unusable for all that its process does afterwards. A JSON file has what
was found after every check. It needs neither ROS nor pytest nor pycocotools.

Shapes: N images, D detections, G annotated instances, H and W of an image.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import functools
import gc
import importlib.metadata
import importlib.util
import json
import math
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args
from unittest import mock

CHECKOUT = Path(__file__).resolve().parents[1]
# The checkout that this file lies in comes before an installed segnode.
sys.path[:0] = [str(CHECKOUT)]

try:
    import numpy as np
    import numpy.typing as npt
    import torch
    from random_boxes import clustered_boxes, random_boxes
    from torch import Tensor, nn
    from tqdm import tqdm

    import segnode
    import segnode.engine.timing
    from segnode.benchmark.machine import describe_machine
    from segnode.benchmark.planted import (
        PlantedDetections,
        named_architecture,
        plant_model,
        render_frames,
    )
    from segnode.checkpoint import NativeModel, load_model
    from segnode.cli import Parser, check_writable, note, say, stage_summary, table
    from segnode.config import Config
    from segnode.demo.scene import CLASS_NAMES, VALIDATION_SEEDS, Scene, SceneFrame
    from segnode.engine import Detections, Engine, Prediction, Segmentation
    from segnode.engine.device import select_device
    from segnode.engine.network import NativeNetwork
    from segnode.errors import ConfigError, SegnodeError
    from segnode.image import Image
    from segnode.kernels.operators import Operators, select_operators
    from segnode.kernels.plain.nms import largest_float32, nms_static
    from segnode.kernels.plain.paste import paste_labels_static
    from segnode.kernels.plain.preprocess import preprocess_static
    from segnode.kernels.plain.roi_align import roi_align_static
    from segnode.kernels.preprocess import preprocess
    from segnode.kernels.resampling import prepare_preprocess
    from segnode.model.architecture import Pooler
    from segnode.model.mask_head import mask_probabilities
    from segnode.model.precision import DTYPES
except ImportError as missing:
    sys.stderr.write(
        f'gpu_ladder: error: {missing.name or "a module"} cannot be imported ({missing}) by '
        f'{sys.executable}; install it, or name another Python: make gpu GPU_PYTHON=...\n'
    )
    raise SystemExit(1) from None

JSON = CHECKOUT / 'test' / 'benchmark_results' / 'gpu.json'
STEPS = ('ladder', 'tests', 'benchmark')
SWITCHES = ('SEGNODE_TRITON', 'SEGNODE_GRAPHS')
CHILD = '--child'

# What the answers of two devices may differ by in float32; pairs further apart are others.
EXACT_PX, EXACT_SCORE, EXACT_LABELS = 0.05, 1e-3, 0.999
# The same where scores are so low that rounding picks among them.
LOW_SCORE, LOW_MATCHED = 0.05, 0.95
# What half precision may: of average precision, and of a detection's partner.
AP_APART, HALF_MATCHED = 0.01, 0.95
HALF_PX, HALF_SCORE, HALF_IOU = 0.5, 0.01, 0.98
PLANTED_LABELS = 0.99
# Mean and greatest deviation of a stage, in standard deviations of what float32 gives.
DEVIATION = {'fp32': (1e-4, 2e-3), 'fp16': (5e-3, 0.05), 'bf16': (3e-2, 0.3)}
# The same of pooled features, which are rounded once.
POOLED = {'fp32': (1e-5, 1e-3), 'fp16': (1e-3, 0.01), 'bf16': (8e-3, 0.08)}
HALF = ('fp16', 'bf16')
TIMED = 'fp16'
DETECTIONS = 20
# From few to as many instances as there can be, so that every capacity of the mask head runs.
THRESHOLDS = (0.9, 0.5, 0.05, 0.01, 0.0)
JUDGED_AT = 0.5
COMPARED = 4
SEEDS = VALIDATION_SEEDS[200:400]
WARM_UP = 20
# Bytes and number of the blocks that leave NaN behind: 250 MB of all sizes that a frame asks for.
POISON = ((2**9, 64), (2**12, 64), (2**16, 64), (2**19, 32), (2**21, 16), (2**23, 8), (2**25, 4))

# Seconds until a rung's process has begun, between two of its checks, and for the whole rung.
START_S, BETWEEN_S, RUNG_S = 120.0, 30.0, 300.0
# Seconds that the tests may take, and a case of the benchmark; and what is worth beginning.
TESTS_S, BENCHMARK_S = 300.0, 240.0
LEAST_TESTS_S, LEAST_BENCHMARK_S = 30.0, 45.0
# Processes that a rung may lose before the rest of it is left out.
LOSSES = 3
TAIL = 30

Status: TypeAlias = Literal['passed', 'failed', 'skipped']
Send: TypeAlias = Callable[[dict[str, Any]], None]

_EPILOG = """\
examples:
  make gpu                                        # everything, by .venv's Python or python3
  python3 test/gpu_ladder.py --steps ladder       # without pytest and the benchmark
  python3 test/gpu_ladder.py --rungs plain,triton --checks fp32,kernel --steps ladder
  python3 test/gpu_ladder.py --minutes 60         # time for every case of the benchmark

what it does:
  It climbs from what can hardly go wrong to what is fastest, each rung in a process of its own:

    plain           SEGNODE_TRITON=0 SEGNODE_GRAPHS=0
    triton          SEGNODE_GRAPHS=0
    graphs          SEGNODE_TRITON=0
    triton-graphs   the engine as it comes

  On each it first compares answers with fp32 on the CPU: every operator alone, the network stage
  by stage from equal inputs, whole frames in fp32 without TF32, then fp16 and bf16 by average
  precision. It fills free memory with NaN before every layer, to see whether anything is read
  before it is written, and watches stage times and memory. Then it times whole frames and stages.
  What fails is written down, and the next check and the next rung are tried all the same. A check
  that hangs is ended after its budget, and the process begun anew behind it.

  After the ladder come `pytest -m gpu`, where there is a pytest, and the benchmark, on the highest
  rung that passed, case by case, the most telling first; cases that do not fit into --minutes are
  left out. Where Detectron2 cannot be imported it runs against torchvision alone.

what it leaves:
  FILE of --json, written anew after every check, and FILE's name with _benchmark beside it. A file
  that exists is never overwritten: gpu.json becomes gpu-2.json.

exit code: 0 everything passed, 1 something failed or did not fit into the time, 2 wrong use.
Cases of the benchmark that did not fit, and what this machine cannot do, count as neither.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is to be climbed, and how thoroughly.

    Attributes:
        device: of the engines under test.
        minutes: for everything.
        steps: some of ``STEPS``.
        rungs: some of ``RUNGS``, by name.
        checks: parts of the names of the checks to run; empty for all.
        scenes: how many the average precision is taken over.
        image_hw: of the rendered scenes.
        frames: over which memory has to stay as it is.
        rounds: timed frames of each shape.
        shapes: H and W that are timed.
        trained: model that is judged, empty for the embedded one.
        timed: architecture that is timed.
        in_process: run the rungs in this process.
    """

    device: str
    minutes: float
    steps: tuple[str, ...]
    rungs: tuple[str, ...]
    checks: tuple[str, ...]
    scenes: int
    image_hw: tuple[int, int]
    frames: int
    rounds: int
    shapes: tuple[tuple[int, int], ...]
    trained: str
    timed: str
    in_process: bool


@dataclass(frozen=True, slots=True)
class Rung:
    """A way to run the engine."""

    name: str
    triton: bool
    graphs: bool

    @property
    def environment(self) -> dict[str, str]:
        """Return the switches that take the engine there."""
        wanted = dict(zip(SWITCHES, (self.triton, self.graphs), strict=True))
        return {name: '0' for name, on in wanted.items() if not on}


RUNGS = {
    rung.name: rung
    for rung in (
        Rung('plain', triton=False, graphs=False),
        Rung('triton', triton=True, graphs=False),
        Rung('graphs', triton=False, graphs=True),
        Rung('triton-graphs', triton=True, graphs=True),
    )
}


@contextmanager
def switched(rung: Rung) -> Iterator[None]:
    """Set the switches, which the engine reads when it is built, to those of a rung."""
    with mock.patch.dict(os.environ):
        for name in SWITCHES:
            os.environ.pop(name, None)
        os.environ.update(rung.environment)
        yield


@contextmanager
def plain_float32() -> Iterator[None]:
    """Keep TF32 out of float32, which is on for convolutions by default."""
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cublas.allow_tf32
    cudnn.allow_tf32 = cublas.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, cublas.allow_tf32 = before


# Comparing


class SkipCheck(Exception):  # noqa: N818 - no error
    """A check does not apply here; its text says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check found.

    Attributes:
        figures: ready for JSON.
        limits: what figures must be, as text, by their name.
        problem: in what they are not, empty where all are.
    """

    figures: dict[str, Any]
    limits: dict[str, str] = field(default_factory=dict)
    problem: str = ''


def judged(
    figures: dict[str, Any],
    *,
    least: Mapping[str, float] | None = None,
    most: Mapping[str, float] | None = None,
    remark: str = '',
) -> Outcome:
    """Hold figures against their limits; one that is not a number is beyond any."""
    limits, problems = {}, []
    for sign, bounds in (('>=', least or {}), ('<=', most or {})):
        for name, bound in bounds.items():
            limits[name] = f'{sign} {bound:g}'
            value = float(figures[name])
            if not (value >= bound if sign == '>=' else value <= bound):
                problems.append(f'{name}: expected {sign} {bound:g}, found {value:g}')
    problem = '; '.join(problems)
    return Outcome(figures, limits, f'{problem} ({remark})' if problem and remark else problem)


def partners(a: Detections, b: Detections, pixels: float, score: float) -> npt.NDArray[np.int64]:
    """Return (D,) the index in ``b`` of each detection of ``a``, -1 where it has no partner."""
    found = np.full(len(a), -1)
    free = np.ones(len(b), dtype=np.bool_)
    for index in range(len(a)):
        apart = np.abs(a.boxes_xyxy[index] - b.boxes_xyxy).max(-1)
        fits = free & (apart <= pixels) & (np.abs(a.scores[index] - b.scores) <= score)
        fits &= b.class_ids == a.class_ids[index]
        if fits.any():
            found[index] = np.where(fits, apart, np.inf).argmin()
            free[found[index]] = False
    return found


def compare(expected: Segmentation, answer: Segmentation, engine: Engine) -> dict[str, float]:
    """Return how far an answer in float32 is from the expected one.

    Detections are matched as sets, as two near equal scores may come in either order, and labels
    are compared by the match. One whose score is within rounding of what decides whether it is in
    the answer at all may be missing.

    Returns:
        ``matched``: share of both sides' detections that have a partner; ``labels``: share of the
        pixels with the same one; ``box_px``, ``score``: greatest distance to what is nearest.
    """
    a, b = expected.detections, answer.detections
    pairs = partners(a, b, EXACT_PX, EXACT_SCORE)
    settings = engine.settings
    due = []
    for side, paired in ((a, pairs >= 0), (b, np.isin(np.arange(len(b)), pairs))):
        least = settings.score_threshold
        if len(side) == settings.max_instances:
            least = max(least, float(side.scores.min()))
        due.append(paired[side.scores > least + EXACT_SCORE])
    every = np.concatenate(due)
    number = np.full(len(b) + 1, -1)
    number[0] = 0
    number[pairs[pairs >= 0] + 1] = np.flatnonzero(pairs >= 0) + 1
    near = partners(a, b, math.inf, math.inf)
    there = near >= 0
    boxes = np.abs(a.boxes_xyxy[there] - b.boxes_xyxy[near[there]])
    scores = np.abs(a.scores[there] - b.scores[near[there]])
    return {
        'matched': float(every.mean()) if len(every) else 1.0,
        'labels': float((number[answer.label_image] == expected.label_image).mean()),
        'box_px': float(boxes.max(initial=0)),
        'score': float(scores.max(initial=0)),
    }


def worst(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the least shares and the greatest distances of several comparisons."""
    return {
        name: (min if name in ('matched', 'labels') else max)(each[name] for each in found)
        for name in found[0]
    }


def exact(found: Sequence[dict[str, float]], **more: Any) -> Outcome:
    """Judge comparisons of float32 answers."""
    return judged({**worst(found), **more}, least={'matched': 1.0, 'labels': EXACT_LABELS})


def identical(a: Segmentation, b: Segmentation) -> bool:
    """Return whether two answers are the same, bit for bit."""
    arrays = (
        (x.label_image, *(getattr(x.detections, name) for name in Detections.__slots__))
        for x in (a, b)
    )
    return all(np.array_equal(one, other) for one, other in zip(*arrays, strict=True))


def overlaps(a: npt.NDArray[Any], a_count: int, b: npt.NDArray[Any], b_count: int) -> Any:
    """Return (A, B) float64 IoU of the instances of two label images of one size."""
    joint = np.bincount(
        a.astype(np.int64).ravel() * (b_count + 1) + b.astype(np.int64).ravel(),
        minlength=(a_count + 1) * (b_count + 1),
    ).reshape(a_count + 1, b_count + 1)
    shared = joint[1:, 1:]
    union = joint.sum(1)[1:, None] + joint.sum(0)[None, 1:] - shared
    return shared / np.maximum(union, 1)


def box_overlaps(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> Any:
    """Return (A, B) float64 IoU of boxes."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(min=0).prod(-1)
    areas = [(x[:, 2:] - x[:, :2]).prod(-1) for x in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12)


def average_precision(
    truth: Sequence[SceneFrame], answers: Sequence[Segmentation], kind: Literal['box', 'mask']
) -> float:
    """Return COCO's AP over IoU 0.50 to 0.95, masks as the label image has them.

    pycocotools' algorithm for at most 100 detections, without crowds and ranges of area.
    """
    thresholds = np.linspace(0.5, 0.95, 10)
    recalls = np.linspace(0, 1, 101)
    values = []
    for class_id in range(len(CLASS_NAMES)):
        scores, hits, annotated = [np.zeros(0)], [np.zeros((10, 0), np.bool_)], 0
        for frame, answer in zip(truth, answers, strict=True):
            found = answer.detections
            here, there = found.class_ids == class_id, frame.class_ids == class_id
            if kind == 'box':
                iou = box_overlaps(found.boxes_xyxy[here], frame.boxes_xyxy[there])
            else:
                whole = overlaps(
                    answer.label_image, len(found), frame.instance_map, len(frame.class_ids)
                )
                iou = whole[here][:, there]
            annotated += int(there.sum())
            scores.append(found.scores[here])
            hits.append(np.stack([_hits(iou, threshold) for threshold in thresholds]))
        if annotated == 0:
            continue
        order = np.argsort(-np.concatenate(scores), kind='stable')
        for true in np.concatenate(hits, 1)[:, order].cumsum(1):
            recall = true / annotated
            precision = true / (np.arange(len(true)) + 1)
            precision = np.maximum.accumulate(precision[::-1])[::-1]
            place = np.searchsorted(recall, recalls)
            values.append(np.append(precision, 0)[place].mean())
    return float(np.mean(values))


def _hits(iou: npt.NDArray[np.float64], threshold: float) -> npt.NDArray[np.bool_]:
    """Return which of D detections, highest score first, take one of G instances each."""
    hits = np.zeros(len(iou), dtype=np.bool_)
    free = np.ones(iou.shape[1], dtype=np.bool_)
    for index, row in enumerate(iou):
        row = np.where(free, row, -1)
        if row.max(initial=-1) >= min(threshold, 1 - 1e-10):
            # Among equals the last one, as there.
            free[len(row) - 1 - row[::-1].argmax()] = False
            hits[index] = True
    return hits


def matched_share(expected: Sequence[Prediction], answers: Sequence[Prediction]) -> float:
    """Return the share of expected instances whose class, box, score and mask came again."""
    matched = total = 0
    for one, other in zip(expected, answers, strict=True):
        a, b = one.detections, other.detections
        boxes = np.abs(a.boxes_xyxy[:, None] - b.boxes_xyxy[None]).max(-1)
        scores = np.abs(a.scores[:, None] - b.scores[None])
        fits = (boxes <= HALF_PX) & (scores <= HALF_SCORE)
        fits &= a.class_ids[:, None] == b.class_ids[None]
        for k, m in zip(*fits.nonzero(), strict=True):
            fits[k, m] = mask_iou(one.mask(int(k)), other.mask(int(m))) >= HALF_IOU
        matched += int(fits.any(1).sum())
        total += len(a)
    return matched / max(total, 1)


def mask_iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    """Return the IoU of two masks, 1 where both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def deviation(expected: Sequence[Tensor], found: Sequence[Tensor]) -> tuple[float, float]:
    """Return mean and greatest deviation in standard deviations, of the worst of several."""
    pairs = []
    for a, b in zip(expected, found, strict=True):
        apart = (a.float() - b.float().cpu()).abs() / a.float().std().clamp(min=1e-6)
        pairs.append((float(apart.mean()), float(apart.max())))
    # Of these maxima NaN is the greatest.
    mean, greatest = np.array(pairs).max(0)
    return float(mean), float(greatest)


# The reference: everything that a rung is compared with, by float32 on the CPU


def prepare(options: Options) -> dict[str, Any]:
    """Render, plant, and let the CPU answer all that is asked of the device."""
    config = judged_config(options, 'cpu', 'fp32')
    model = load_model(config)
    if not isinstance(model, NativeModel):
        raise ConfigError(f'--trained: expected a native model, found {options.trained}')
    jobs = tqdm(total=options.scenes + 5, desc='reference', unit='job', disable=None, leave=False)
    with jobs:
        scenes = []
        for seed in SEEDS[: options.scenes]:
            scenes.append(Scene(seed, options.image_hw).frame(3))
            jobs.update()
        images = [Image(scene.image, 'bgr') for scene in scenes]
        engine = Engine(config, model=model)
        answers = [engine.segment([image])[0] for image in images]
        jobs.update()
        compared: dict[float, list[Segmentation]] = {}
        for threshold in THRESHOLDS:
            engine.configure(config.replace({'filter.score_threshold': threshold}))
            compared[threshold] = [engine.segment([i])[0] for i in images[:COMPARED]]
        engine.configure(config)
        predicted = [engine.predict([image])[0] for image in images]
        jobs.update()
        sizes = []
        for scale, order in ((0.75, 'bgr'), (1.3, 'rgb')):
            height, width = (round(side * scale) for side in options.image_hw)
            pixels = Scene(SEEDS[0], (height, width)).frame(5).image
            image = Image(pixels if order == 'bgr' else pixels[..., ::-1].copy(), order)  # type: ignore[arg-type]
            sizes.append((image, engine.segment([image])[0]))
        stages = _stages(model, scenes[0])
        jobs.update()
        planted = plant_model(Config(model=options.timed))
        jobs.update()
        frames, shaped = {}, {}
        for shape in options.shapes:
            frames[shape] = render_frames(shape)
            slow = planted_engine(options, planted, shape, 'cpu', 'fp32', static=False)
            shaped[shape] = slow.segment([frames[shape][0]])[0]
        jobs.update()
    return {
        'model': model,
        'scenes': scenes,
        'answers': answers,
        'compared': compared,
        'predicted': predicted,
        'sizes': sizes,
        'stages': stages,
        'planted': planted,
        'frames': frames,
        'shaped': shaped,
    }


def judged_config(options: Options, device: str, precision: str) -> Config:
    """Return how the trained model is run."""
    config = Config(model=options.trained, device=device, precision=precision)
    return config.replace({'filter.score_threshold': JUDGED_AT})


def planted_engine(
    options: Options,
    model: NativeModel,
    shape: tuple[int, int],
    device: str,
    precision: str,
    *,
    static: bool,
    report: Callable[[str], None] | None = None,
) -> Engine:
    """Return an engine of planted weights whose network takes frames of a shape as they are."""
    config = Config(model=options.timed, device=device, precision=precision).replace(
        {'resolution.short_side': min(shape), 'resolution.long_side': max(shape)}
    )
    engine = Engine(config, report, static=static, model=model)
    count = min(DETECTIONS, engine.settings.max_instances)
    planted = PlantedDetections(count, shape, model.architecture.num_classes)
    engine.replace_detections(planted.replace)
    return engine


def _stages(model: NativeModel, scene: SceneFrame) -> dict[str, Any]:
    """Return inputs of every stage and what float32 on the CPU gives for them."""
    architecture = model.architecture
    network = NativeNetwork(architecture, model.state_dict, torch.device('cpu'), 'fp32')
    hw = (scene.image.shape[0], scene.image.shape[1])
    x = preprocess(Image(scene.image, 'bgr'), hw, architecture)[None]
    generator = torch.Generator().manual_seed(0)
    boxes = torch.from_numpy(scene.boxes_xyxy)
    boxes = torch.cat((boxes, random_boxes(generator, 60, hw)))
    class_ids = torch.arange(len(boxes)) % architecture.num_classes
    with torch.inference_mode():
        dense = network.model.parts(lambda _: None)
        features = [f.contiguous() for f in dense.trunk(x).features]
        index = torch.zeros(len(boxes), dtype=torch.int64)
        inputs = {
            'image': x,
            'features': features,
            'boxes': roi_align_static(features, boxes, index, architecture.box_pooler),
            'masks': roi_align_static(features, boxes, index, architecture.mask_pooler),
            'class_ids': class_ids,
        }
        return {'inputs': inputs, 'outputs': run_stages(network, inputs)}


def run_stages(network: NativeNetwork, inputs: Mapping[str, Any]) -> dict[str, list[Tensor]]:
    """Run every stage of a network on its own input."""

    def placed(x: Tensor) -> Tensor:
        return x.to(network.device, network.dtype, memory_format=torch.channels_last)

    with torch.inference_mode():
        dense = network.model.parts(lambda _: None)
        logits, deltas = network.model.proposal_generator.rpn_head(
            [placed(x) for x in inputs['features']]
        )
        scores, boxes = dense.box_heads[0](placed(inputs['boxes']))
        class_ids = inputs['class_ids'].to(network.device)
        return {
            'backbone': dense.trunk(placed(inputs['image'])).features,
            'rpn_logits': logits,
            'rpn_deltas': deltas,
            'box_logits': [scores],
            'box_deltas': [boxes],
            'mask_probabilities': [
                mask_probabilities(dense.mask_head(placed(inputs['masks'])), class_ids)
            ],
        }


# The checks


class Climb:
    """One rung under test.

    Attributes:
        rung: which.
        options: how.
        device: where.
        reference: of ``prepare``.
        send: takes what is found.
        said: what the engines reported.
    """

    def __init__(
        self, rung: Rung, options: Options, reference: Mapping[str, Any], send: Send
    ) -> None:
        self.rung = rung
        self.options = options
        self.device = select_device(options.device)
        self.reference = reference
        self.said: list[str] = []
        self.send = send
        self._engines: dict[tuple[str, tuple[int, int] | None], Engine] = {}

    def engine(self, precision: str, shape: tuple[int, int] | None = None) -> Engine:
        """Return an engine of the trained model, or the planted one of a shape; built once."""
        key = (precision, shape)
        if key not in self._engines:
            if any(kept != shape for _, kept in self._engines):
                self.forget()
            self._engines[key] = self._build(precision, shape)
        return self._engines[key]

    def network(self, precision: str) -> NativeNetwork:
        """Return the trained network inside of the engine."""
        network = self.engine(precision)._backend.network
        assert isinstance(network, NativeNetwork)
        return network

    def operators(self) -> Operators:
        """Return the steps around the network that the engine takes here."""
        return select_operators(self.device)

    def images(self, count: int) -> list[Image]:
        """Return the first scenes as the engine takes them."""
        return [Image(scene.image, 'bgr') for scene in self.reference['scenes'][:count]]

    def forget(self) -> None:
        """Drop all engines and their memory."""
        self._engines.clear()
        gc.collect()
        if self.device.type == 'cuda':
            with contextlib.suppress(RuntimeError):
                torch.cuda.empty_cache()

    def alive(self) -> bool:
        """Return whether the device still computes: a fault ends that for the whole process."""
        if self.device.type != 'cuda':
            return True
        try:
            return float(torch.ones(8, device=self.device).sum()) == 8
        except RuntimeError:
            return False

    def _build(self, precision: str, shape: tuple[int, int] | None) -> Engine:
        if shape is None:
            config = judged_config(self.options, str(self.device), precision)
            return Engine(config, self._report, static=True, model=self.reference['model'])
        return planted_engine(
            self.options,
            self.reference['planted'],
            shape,
            str(self.device),
            precision,
            static=True,
            report=self._report,
        )

    def _report(self, line: str) -> None:
        if line not in self.said:
            self.said.append(line)
            self.send({'said': line})


def check_operators(climb: Climb) -> Outcome:
    """Triton's kernels are chosen where the rung is to have them."""
    wanted = 'Triton' if climb.rung.triton and climb.device.type == 'cuda' else 'PyTorch'
    if wanted == 'Triton' and importlib.util.find_spec('triton') is None:
        raise SkipCheck('Triton is not installed')
    description = climb.operators().description
    climb.send({'operators': description})
    problem = ''
    if not description.startswith(wanted):
        problem = f'operators: expected those of {wanted}, found {description}'
    return Outcome({'operators': description}, {'operators': wanted}, problem)


def check_graphs(climb: Climb) -> Outcome:
    """Graphs are launched on a rung that has them, and on no other."""
    if climb.rung.graphs and not segnode.engine.timing.is_asynchronous(climb.device):
        raise SkipCheck(f'no graphs on device {climb.device}')
    with plain_float32():
        engine, images = climb.engine('fp32'), climb.images(1)
        engine.segment(images)
        launched = 0
        replay = torch.cuda.CUDAGraph.replay

        def counted(graph: Any) -> Any:
            nonlocal launched
            launched += 1
            return replay(graph)

        with mock.patch.object(torch.cuda.CUDAGraph, 'replay', counted):
            engine.segment(images)
    figures = {'graph_launches': launched, 'said': list(climb.said)}
    refused = [line for line in climb.said if 'graph' in line]
    if climb.rung.graphs:
        return judged(figures, least={'graph_launches': 1}, remark='; '.join(refused))
    return judged(figures, most={'graph_launches': 0})


def check_preprocess(climb: Climb) -> Outcome:
    """Frames become the network's input, enlarged and shrunk."""
    architecture = climb.reference['model'].architecture
    frames = torch.from_numpy(np.stack([image.pixels for image in climb.images(2)]))
    image_hw = (frames.shape[1], frames.shape[2])
    mean, std = torch.tensor(architecture.pixel_mean), torch.tensor(architecture.pixel_std)
    figures: dict[str, Any] = {}
    for scale in (0.7, 1.0, 1.4):
        size_hw = (round(image_hw[0] * scale), round(image_hw[1] * scale))
        resize = architecture.semantics.resize
        plans = [
            prepare_preprocess(image_hw, size_hw, device, resize=resize)
            for device in (torch.device('cpu'), climb.device)
        ]
        expected = preprocess_static(frames, plans[0], mean, std, True, torch.float32)
        for name in ('fp32', TIMED):
            found = climb.operators().preprocess(
                frames.to(climb.device),
                plans[1],
                mean.to(climb.device),
                std.to(climb.device),
                True,
                DTYPES[name],
            )
            apart = float((found.float().cpu() - expected).abs().max())
            figures[name] = max(figures.get(name, 0.0), apart)
    # A grey value is 1 / std; half precision rounds values of up to some 5.
    return judged(figures, most={'fp32': 1e-4, TIMED: 2e-2 if TIMED == 'bf16' else 5e-3})


def check_nms(climb: Climb) -> Outcome:
    """The very boxes stay."""
    figures = {}
    for name, sets, count, grouped in (('levels', 5, 500, False), ('classes', 2, 1000, True)):
        generator = torch.Generator().manual_seed(count)
        boxes = torch.stack([clustered_boxes(generator, count, (480, 640)) for _ in range(sets)])
        valid = torch.rand((sets, count), generator=generator) < 0.8
        groups = torch.randint(5, (sets, count), generator=generator) if grouped else None
        expected = nms_static(boxes, valid, 0.5, groups)
        threshold = torch.tensor(largest_float32(0.5), device=climb.device)
        found = climb.operators().nms(
            boxes.to(climb.device),
            valid.to(climb.device),
            threshold,
            None if groups is None else groups.to(climb.device),
        )
        figures[name] = int((found.cpu() != expected).sum())
    return judged(figures, most=dict.fromkeys(figures, 0))


def check_roi_align(climb: Climb) -> Outcome:
    """Features are pooled over all levels, from both images of a batch."""
    hw, channels = (480, 640), 64
    generator = torch.Generator().manual_seed(1)
    maps = [
        torch.randn((2, channels, hw[0] // stride, hw[1] // stride), generator=generator)
        for stride in (4, 8, 16, 32)
    ]
    boxes = random_boxes(generator, 200, hw)
    index = torch.arange(len(boxes)) % 2
    pooler = Pooler(resolution=7)
    figures: dict[str, Any] = {}
    most = {}
    for name in ('fp32', *HALF):
        rounded = [x.to(DTYPES[name]).contiguous(memory_format=torch.channels_last) for x in maps]
        exact_maps = [x.float() for x in rounded]
        expected = roi_align_static(exact_maps, boxes, index, pooler)
        found = climb.operators().roi_align(
            [x.to(climb.device) for x in rounded],
            boxes.to(climb.device),
            index.to(climb.device),
            pooler,
        )
        figures[f'{name}_mean'], figures[f'{name}_max'] = deviation([expected], [found])
        most[f'{name}_mean'], most[f'{name}_max'] = POOLED[name]
    return judged(figures, most=most)


def check_paste(climb: Climb) -> Outcome:
    """Masks become label images, areas and the choice of what stays."""
    hw, count, generator = climb.options.image_hw, 20, torch.Generator().manual_seed(2)
    boxes = torch.stack([random_boxes(generator, count, hw) for _ in range(2)])
    coarse = torch.rand((2 * count, 1, 5, 5), generator=generator)
    masks = nn.functional.interpolate(coarse, size=(28, 28), mode='bilinear')
    masks, keep = masks.view(2, count, 28, 28), torch.rand((2, count), generator=generator) < 0.8
    limits = {
        'threshold': torch.tensor(0.5),
        'min_area': torch.tensor(50),
        'max_area': torch.tensor(2**40),
    }
    expected = paste_labels_static(masks, boxes, keep, hw, **limits, paste='detectron2')
    found = climb.operators().paste_labels(
        masks.to(climb.device),
        boxes.to(climb.device),
        keep.to(climb.device),
        hw,
        paste='detectron2',
        **{name: value.to(climb.device) for name, value in limits.items()},
    )
    labels, areas, stay = (x.cpu().numpy() for x in found)
    figures = {
        'labels': float((labels == expected[0].numpy()).mean()),
        'area_px': int(np.abs(areas - expected[1].numpy()).max()),
        'stay': int((stay != expected[2].numpy()).sum()),
    }
    # Rounding may decide a pixel on a mask's edge.
    return judged(figures, least={'labels': EXACT_LABELS}, most={'area_px': 9, 'stay': 0})


def check_stages(climb: Climb, precision: str) -> Outcome:
    """Every stage of the network, from equal inputs."""
    _refuse_slow_bfloat16(climb, precision)
    prepared = climb.reference['stages']
    network = climb.network(precision)
    found = run_stages(network, prepared['inputs'])
    figures: dict[str, Any] = {'fusion': network.fusion, 'float32_layers': network.float32_layers}
    most = {}
    for name, expected in prepared['outputs'].items():
        pair = deviation(expected, found[name])
        for which, value, bound in zip(('mean', 'max'), pair, DEVIATION[precision], strict=True):
            figures[f'{name}_{which}'], most[f'{name}_{which}'] = value, bound
    return judged(figures, most=most)


def check_scenes(climb: Climb) -> Outcome:
    """Whole frames with few and with many instances, so that all capacities run."""
    engine = climb.engine('fp32')
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    counts = []
    try:
        for threshold, answers in climb.reference['compared'].items():
            engine.configure(engine.config.replace({'filter.score_threshold': threshold}))
            for image, expected in zip(climb.images(COMPARED), answers, strict=True):
                (answer,) = engine.segment([image])
                found[threshold < LOW_SCORE].append(compare(expected, answer, engine))
                counts.append(len(answer.detections))
    finally:
        engine.configure(engine.config.replace({'filter.score_threshold': JUDGED_AT}))
    low = {f'low_score_{name}': value for name, value in worst(found[True]).items()}
    figures = {**worst(found[False]), **low, 'instances': sorted(set(counts))}
    least = {'matched': 1.0, 'labels': EXACT_LABELS, 'low_score_matched': LOW_MATCHED}
    return judged(figures, least=least)


def check_sizes(climb: Climb) -> Outcome:
    """Frames that are resized, and in the other order of channels."""
    engine = climb.engine('fp32')
    return exact(
        [
            compare(expected, engine.segment([image])[0], engine)
            for image, expected in climb.reference['sizes']
        ]
    )


def check_batch(climb: Climb) -> Outcome:
    """Two frames at once."""
    engine = climb.engine('fp32')
    answers = engine.segment(climb.images(2))
    expected = climb.reference['answers'][: len(answers)]
    return exact([compare(a, b, engine) for a, b in zip(expected, answers, strict=True)])


def check_empty(climb: Climb) -> Outcome:
    """A frame in which nothing is found, between two that are full."""
    engine, images = climb.engine('fp32'), climb.images(1)
    engine.segment(images)
    try:
        engine.configure(engine.config.replace({'filter.score_threshold': 1.0}))
        (empty,) = engine.segment(images)
    finally:
        engine.configure(engine.config.replace({'filter.score_threshold': JUDGED_AT}))
    found = compare(climb.reference['answers'][0], engine.segment(images)[0], engine)
    figures = {
        **found,
        'found_in_empty': len(empty.detections),
        'painted_in_empty': int((empty.label_image != 0).sum()),
        'mask_stages_in_empty': sum(name in empty.stage_ms for name in ('mask_head', 'paste')),
    }
    none = dict.fromkeys((name for name in figures if name.endswith('empty')), 0.0)
    return judged(figures, least={'matched': 1.0, 'labels': EXACT_LABELS}, most=none)


def check_predict(climb: Climb) -> Outcome:
    """Whole masks by ``predict``, which pastes on the host."""
    engine = climb.engine('fp32')
    matched, ious = [], []
    expected = climb.reference['predicted'][:COMPARED]
    for image, one in zip(climb.images(len(expected)), expected, strict=True):
        (other,) = engine.predict([image])
        pairs = partners(one.detections, other.detections, EXACT_PX, EXACT_SCORE)
        equal = len(one.detections) == len(other.detections)
        matched.append(equal and bool((pairs >= 0).all()))
        for index, partner in enumerate(pairs):
            if partner >= 0:
                ious.append(mask_iou(one.mask(index), other.mask(int(partner))))
    figures = {'matched': float(np.mean(matched)), 'mask_iou': float(np.min(ious, initial=1.0))}
    return judged(figures, least={'matched': 1.0, 'mask_iou': 0.99})


def check_poison(climb: Climb, precision: str) -> Outcome:
    """NaN in all free memory, before a frame and before each of its layers, changes no bit."""
    _refuse_slow_bfloat16(climb, precision)
    if climb.rung.graphs:
        raise SkipCheck('a graph has its memory to itself')
    engine, images = climb.engine(precision), climb.images(1)
    first, again = engine.segment(images)[0], engine.segment(images)[0]
    streams: list[Any] = []
    nan_in: list[str] = []

    def before(module: nn.Module, inputs: Any) -> None:
        if climb.device.type == 'cuda' and not streams:
            # Free memory belongs to the stream that it was used on.
            streams.append(torch.cuda.current_stream(climb.device))
        fill_free_memory(climb.device)

    def behind(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if not torch.isfinite(output).all():
            nan_in.append(names[module])

    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    modules = climb.network(precision).model.named_modules()
    names: dict[nn.Module, str] = {
        each: name for name, each in modules if isinstance(each, layers)
    }
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
        for size, count in POISON
        for _ in range(count)
    ]
    blocks.clear()


def check_answers(climb: Climb, precision: str) -> Outcome:
    """Average precision, and how many instances come again, over all scenes."""
    _refuse_slow_bfloat16(climb, precision)
    engine, scenes = climb.engine(precision), climb.reference['scenes']
    images = climb.images(len(scenes))
    answers = [engine.segment([image])[0] for image in images]
    expected = climb.reference['answers']
    figures: dict[str, Any] = {'scenes': len(scenes)}
    for kind in ('box', 'mask'):
        figures[f'{kind}_ap'] = average_precision(scenes, answers, kind)
        figures[f'{kind}_ap_fp32'] = average_precision(scenes, expected, kind)
        apart = abs(figures[f'{kind}_ap'] - figures[f'{kind}_ap_fp32'])
        figures[f'{kind}_ap_apart'] = apart
    predicted = [engine.predict([image])[0] for image in images]
    figures['matched'] = matched_share(climb.reference['predicted'], predicted)
    most = {'box_ap_apart': AP_APART, 'mask_ap_apart': AP_APART}
    return judged(figures, least={'matched': HALF_MATCHED}, most=most)


def _refuse_slow_bfloat16(climb: Climb, precision: str) -> None:
    if precision != 'bf16' or climb.device.type != 'cuda' or torch.version.hip:
        return
    if torch.cuda.get_device_capability(climb.device) < (8, 0):
        raise SkipCheck('bfloat16 needs compute capability 8.0')


def check_stage_times(climb: Climb) -> Outcome:
    """No stage takes less than nothing, and all of them no longer than the frame."""
    engine = climb.engine(TIMED)
    images = climb.images(COMPARED)
    for image in images:
        engine.segment([image])
    timed = [timed_frame(engine, images[number % len(images)]) for number in range(8 * COMPARED)]
    sums = [(sum(answer.stage_ms.values()), ms) for answer, ms in timed]
    figures = {
        'shortest_ms': min(min(answer.stage_ms.values()) for answer, _ in timed),
        'beyond_frame_ms': max(stages - ms for stages, ms in sums),
        'share_of_frame': float(np.median([stages / ms for stages, ms in sums])),
        'stages': list(timed[-1][0].stage_ms),
    }
    # Half a microsecond is what an event resolves, for each of them.
    return judged(figures, least={'shortest_ms': 0.0}, most={'beyond_frame_ms': 0.05})


def timed_frame(engine: Engine, image: Image) -> tuple[Segmentation, float]:
    """Return the answer to a frame and its milliseconds on the host."""
    start = time.perf_counter()
    (answer,) = engine.segment([image])
    return answer, (time.perf_counter() - start) * 1e3


def check_memory(climb: Climb) -> Outcome:
    """Memory in use stays as it is over hundreds of frames."""
    engine = climb.engine(TIMED)
    images = climb.images(COMPARED)
    for image in images * 2:
        engine.segment([image])
    seen = [_memory(engine)]
    for part in range(3):
        for number in range(part, climb.options.frames, 3):
            engine.segment([images[number % len(images)]])
        seen.append(_memory(engine))
    figures: dict[str, Any] = {name: [each[name] for each in seen] for name in seen[0]}
    figures['grown_mb'] = max(figures['in_use']) / 2**20 - figures['in_use'][0] / 2**20
    reserved = figures['reserved']
    # The allocator may still split its blocks once; it must not go on to.
    figures['reserved_grown_mb'] = (reserved[-1] - reserved[1]) / 2**20
    return judged(figures, most={'grown_mb': 0.5, 'reserved_grown_mb': 2})


def _memory(engine: Engine) -> dict[str, int]:
    reserved = 0
    if engine.device.type == 'cuda':
        torch.cuda.synchronize(engine.device)
        reserved = torch.cuda.memory_reserved(engine.device)
    return {**engine.memory(), 'reserved': reserved}


def check_planted(climb: Climb, shape: tuple[int, int]) -> Outcome:
    """The masks of the timed network, in half precision, against the CPU's in float32."""
    engine = climb.engine(TIMED, shape)
    expected = climb.reference['shaped'][shape]
    (answer,) = engine.segment([climb.reference['frames'][shape][0]])
    if not answer.label_image.any():
        return Outcome({'labels': 0.0}, {'labels': 'any'}, 'labels: expected some, found none')
    found = compare(expected, answer, engine)
    return judged(dict(found), least={'matched': 1.0, 'labels': PLANTED_LABELS})


def time_shape(climb: Climb, shape: tuple[int, int]) -> Outcome:
    """Milliseconds of whole frames on the host, and of their stages on the device."""
    engine, frames = climb.engine(TIMED, shape), climb.reference['frames'][shape]
    if climb.device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(climb.device)
    rounds = climb.options.rounds
    for number in range(min(WARM_UP, rounds)):
        timed_frame(engine, frames[number % len(frames)])
    timed = [timed_frame(engine, frames[number % len(frames)]) for number in range(rounds)]
    return Outcome(
        {
            'shape': shape_name(shape),
            'model': climb.options.timed or 'embedded',
            'precision': engine.precision,
            'detections': len(timed[-1][0].detections),
            'rounds': rounds,
            'frame_ms': stage_summary([{'frame': ms} for _, ms in timed])['frame'],
            'stages_ms': stage_summary([answer.stage_ms for answer, _ in timed]),
            'memory': _memory(engine),
        }
    )


@dataclass(frozen=True, slots=True)
class Step:
    """A check or a timing of a rung.

    Attributes:
        name: for people.
        run: what it does.
        budget_s: seconds after which it is taken to hang.
        exact: TF32 is off while it runs.
        timing: it times.
    """

    name: str
    run: Callable[[Climb], Outcome]
    budget_s: float = 90.0
    exact: bool = False
    timing: bool = False


def steps_of(options: Options) -> list[Step]:
    """Return what is done on a rung, in order."""
    steps = [
        Step('operators', check_operators),
        Step('graphs', check_graphs),
        # A kernel is compiled when it first runs.
        Step('kernel preprocess', check_preprocess, exact=True),
        Step('kernel nms', check_nms, exact=True),
        Step('kernel roi_align', check_roi_align, exact=True),
        Step('kernel paste', check_paste, exact=True),
        Step('fp32 stages', functools.partial(check_stages, precision='fp32'), exact=True),
        Step('fp32 scenes', check_scenes, exact=True),
        Step('fp32 sizes', check_sizes, exact=True),
        Step('fp32 batch', check_batch, exact=True),
        Step('fp32 empty', check_empty, exact=True),
        Step('fp32 predict', check_predict, exact=True),
        Step('fp32 poison', functools.partial(check_poison, precision='fp32'), exact=True),
    ]
    for precision in HALF:
        for name, check in (
            ('stages', check_stages),
            ('AP', check_answers),
            ('poison', check_poison),
        ):
            run = functools.partial(check, precision=precision)
            steps.append(Step(f'{precision} {name}', run))
    steps += [Step('stage times', check_stage_times), Step('memory', check_memory)]
    for shape in options.shapes:
        name = shape_name(shape)
        steps += [
            Step(f'planted {name}', functools.partial(check_planted, shape=shape)),
            Step(f'time {name}', functools.partial(time_shape, shape=shape), timing=True),
        ]
    return [
        step
        for step in steps
        # What follows hangs on the first two, whatever was asked for.
        if not options.checks
        or step.name in ('operators', 'graphs')
        or any(part in step.name for part in options.checks)
    ]


def shape_name(shape: tuple[int, int]) -> str:
    """Return a shape as it stands on the command line."""
    return f'{shape[0]}x{shape[1]}'


# One rung, in whatever process


def climb_rung(
    rung: Rung,
    options: Options,
    reference: Mapping[str, Any],
    send: Send,
    *,
    first: int,
    deadline_s: float,
    expected_s: Mapping[str, float],
) -> None:
    """Run the steps of a rung from the ``first`` on, and send what becomes of each.

    Args:
        rung: which.
        options: how.
        reference: of ``prepare``.
        send: gets dictionaries with one of ``machine``, ``operators``, ``said``, ``begin``,
            ``result`` and ``lost``; after the last one the device is of no more use here.
        first: index of the step to begin with.
        deadline_s: on the monotonic clock; steps that end later are not begun.
        expected_s: seconds that each step took on another rung.
    """
    with switched(rung):
        climb = Climb(rung, options, reference, send)
        send({'machine': describe_machine(climb.device)})
        blocked = ''
        for step in steps_of(options)[first:]:
            left_s = deadline_s - time.monotonic()
            needed_s = expected_s.get(step.name, 1.0)
            if blocked:
                send({'result': skipped(step, blocked)})
                continue
            if left_s < needed_s:
                send({'result': skipped(step, no_time(left_s, needed_s), late=True)})
                continue
            send({'begin': step.name})
            result = run_step(step, climb)
            send({'result': result})
            # Without what makes it a rung of its own, it is the one below.
            if falls_back(result) and step.name in (
                *(['operators'] if rung.triton else []),
                *(['graphs'] if rung.graphs else []),
            ):
                blocked = f'see {step.name}'
            if result['status'] == 'failed':
                # Out of reach of the exception, whose frames hold what it happened to.
                climb.forget()
                if not climb.alive():
                    send({'lost': True})
                    return


def falls_back(result: Mapping[str, Any]) -> bool:
    """Return whether a check says that the engine runs, but not as the rung is to have it."""
    wrong: bool = result['status'] == 'failed' and result['error']['type'] == 'WrongAnswer'
    return wrong or result['status'] == 'skipped'


def run_step(step: Step, climb: Climb) -> dict[str, Any]:
    """Run a step and return what became of it, whatever it raises."""
    start = time.perf_counter()
    result: dict[str, Any] = {'name': step.name, 'timing': step.timing}
    try:
        with plain_float32() if step.exact else nullcontext():
            outcome = step.run(climb)
    except SkipCheck as reason:
        return skipped(step, str(reason))
    except Exception as error:  # noqa: BLE001 - what it says is the finding
        return {**result, **failure_of(error), 'seconds': time.perf_counter() - start}
    return {
        **result,
        **(failure('WrongAnswer', outcome.problem, []) if outcome.problem else passed()),
        'figures': outcome.figures,
        'limit': outcome.limits,
        'seconds': time.perf_counter() - start,
    }


def passed() -> dict[str, Any]:
    """Return what a step that passed has."""
    return {'status': 'passed', 'passed': True, 'error': None}


def failure(kind: str, text: str, trace: Sequence[str]) -> dict[str, Any]:
    """Return what a step that failed has."""
    line = text.strip().partition('\n')[0][:400]
    error = {'type': kind, 'line': line, 'traceback': list(trace[-TAIL:])}
    return {'status': 'failed', 'passed': False, 'error': error}


def failure_of(error: Exception) -> dict[str, Any]:
    """Return what a step that raised has."""
    lines = ''.join(traceback.format_exception(type(error), error, error.__traceback__))
    return failure(type(error).__name__, str(error), lines.splitlines())


def skipped(step: Step, reason: str, *, late: bool = False) -> dict[str, Any]:
    """Return what a step that was not run has."""
    return {
        'name': step.name,
        'timing': step.timing,
        'status': 'skipped',
        'passed': None,
        'reason': reason,
        'late': late,
        'error': None,
        'seconds': 0.0,
    }


def no_time(left_s: float, needed_s: float) -> str:
    """Return why something is not begun any more."""
    return f'no time: {max(left_s, 0):.0f} s are left, it needs {math.ceil(needed_s)} s'


def child(folder: str, rung: str, first: str, pipe: str, deadline_s: str) -> int:
    """Climb one rung for another process, which reads the results from a pipe."""
    # Whoever ends a check that hangs wants to know where.
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    given = torch.load(Path(folder) / 'reference.pt', weights_only=False)
    expected_s = json.loads((Path(folder) / 'seconds.json').read_text(encoding='utf-8'))
    with os.fdopen(int(pipe), 'w', encoding='utf-8') as out:

        def send(message: dict[str, Any]) -> None:
            out.write(json.dumps(plain(message)) + '\n')
            out.flush()

        climb_rung(
            RUNGS[rung],
            Options(**given['options']),
            given['reference'],
            send,
            first=int(first),
            deadline_s=float(deadline_s),
            expected_s=expected_s,
        )
    return 0


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: a number that is not finite becomes text."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float | str | None) else str(value)


# All rungs, and what comes after them


class Report:
    """The JSON file, written anew, in whole or not at all, whenever it has something new.

    Attributes:
        path: where it lies.
        data: what is in it.
    """

    def __init__(self, path: Path, options: Options) -> None:
        """Take the first free name like ``path``, and write a first report there."""
        self.path = free_name(path)
        self.data: dict[str, Any] = {
            'started': datetime.now(timezone.utc).isoformat(timespec='seconds'),
            'complete': False,
            'options': asdict(options),
            'machine': {},
            'versions': versions(),
            'rungs': [],
            'steps': [],
            'summary': {},
        }
        self.write()

    @property
    def benchmark_path(self) -> Path:
        """Where the benchmark's own figures go."""
        return benchmark_name(self.path)

    def write(self) -> None:
        """Replace the file."""
        write_whole(self.path, self.data)


def write_whole(path: Path, value: Any) -> None:
    """Write JSON so that whoever is interrupted leaves the old file or the new one."""
    part = path.with_name(path.name + '.part')
    part.write_text(json.dumps(plain(value), indent=1, allow_nan=False) + '\n', encoding='utf-8')
    part.replace(path)


def benchmark_name(path: Path) -> Path:
    """Return the file beside a report that has the benchmark's figures."""
    return path.with_name(f'{path.stem}_benchmark{path.suffix}')


def free_name(path: Path) -> Path:
    """Return ``path``, or the first numbered one like it of which neither file exists."""
    number, candidate = 1, path
    while candidate.exists() or benchmark_name(candidate).exists():
        number += 1
        candidate = path.with_name(f'{path.stem}-{number}{path.suffix}')
    return candidate


def versions() -> dict[str, str | None]:
    """Return the versions of what takes part, and the commit of the checkout."""
    found: dict[str, str | None] = {'segnode': segnode.__version__, 'commit': None}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ['git', '-C', str(CHECKOUT), 'rev-parse', 'HEAD'],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        found['commit'] = done.stdout.strip()
    for name in ('torchvision', 'triton', 'numpy', 'pillow', 'safetensors', 'pyyaml'):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    import cv2

    return {**found, 'torch': torch.__version__, 'opencv': cv2.__version__}


class Ladder:
    """A whole run."""

    def __init__(self, options: Options, report: Report, folder: Path) -> None:
        """Prepare a run.

        Args:
            options: what to do.
            report: gets what is found.
            folder: for files that nobody needs afterwards.
        """
        self._options = options
        self._report = report
        self._folder = folder
        self._end_s = time.monotonic() + options.minutes * 60
        self._steps = steps_of(options)
        self._seconds: dict[str, float] = {}
        self._bar: tqdm[Any] = tqdm(disable=True)

    def run(self) -> None:
        """Do everything that was asked for."""
        if 'ladder' in self._options.steps:
            self._climb_all()
        if 'tests' in self._options.steps:
            self._test()
        if 'benchmark' in self._options.steps:
            self._benchmark()

    def _climb_all(self) -> None:
        try:
            reference = self._prepare()
        except Exception as error:  # noqa: BLE001 - what it says is the finding
            self._report.data['error'] = failure_of(error)['error']
            self._report.write()
            return
        total = len(self._steps) * len(self._options.rungs)
        with tqdm(total=total, unit='check', disable=None, leave=False) as self._bar:
            for name in self._options.rungs:
                self._climb(RUNGS[name], reference)

    def _left_s(self) -> float:
        return self._end_s - time.monotonic()

    def _prepare(self) -> dict[str, Any]:
        """Compute the reference, and lay it where every rung's process finds it."""
        start = time.perf_counter()
        with plain_float32():
            reference = prepare(self._options)
        self._report.data['reference_seconds'] = time.perf_counter() - start
        if not self._options.in_process:
            given = {'options': asdict(self._options), 'reference': reference}
            torch.save(given, self._folder / 'reference.pt')
        return reference

    def _climb(self, rung: Rung, reference: Mapping[str, Any]) -> None:
        start_s = time.monotonic()
        entry: dict[str, Any] = {
            'name': rung.name,
            'environment': rung.environment,
            'operators': None,
            'status': 'unfinished',
            'seconds': 0.0,
            'checks': [],
            'timings': [],
            'said': [],
        }
        self._report.data['rungs'].append(entry)
        deadline_s = min(start_s + RUNG_S, self._end_s)
        try:
            if self._options.in_process:
                climb_rung(
                    rung,
                    self._options,
                    reference,
                    lambda message: self._take(message, entry),
                    first=0,
                    deadline_s=deadline_s,
                    expected_s=self._seconds,
                )
            else:
                self._climb_apart(rung, entry, deadline_s)
            entry['status'] = rung_status(entry)
        finally:
            entry['seconds'] = time.monotonic() - start_s
            self._report.write()

    def _climb_apart(self, rung: Rung, entry: dict[str, Any], deadline_s: float) -> None:
        """Climb in a process of its own, begun anew behind whatever it does not survive."""
        first = losses = 0
        while first < len(self._steps):
            left_s = deadline_s - time.monotonic()
            if losses == LOSSES or left_s < 1:
                gone = f'{losses} processes were lost'
                reason = gone if losses == LOSSES else no_time(left_s, 1.0)
                self._take({'result': skipped(self._steps[first], reason, late=True)}, entry)
                first += 1
                continue
            done = self._watch(rung, entry, first, deadline_s)
            losses += done < len(self._steps)
            first = done

    def _watch(self, rung: Rung, entry: dict[str, Any], first: int, deadline_s: float) -> int:
        """Watch one process; return the index of the first step that is still to do."""
        (self._folder / 'seconds.json').write_text(json.dumps(self._seconds), encoding='utf-8')
        log = self._folder / f'{rung.name}-{first}.log'
        read, write = os.pipe()
        numbers = (str(first), str(write), str(deadline_s))
        with log.open('wb') as output:
            process = subprocess.Popen(
                [sys.executable, __file__, CHILD, str(self._folder), rung.name, *numbers],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(write,),
                start_new_session=True,
            )
        os.close(write)
        at, buffer, limit_s, since_s, hangs = first, b'', START_S, time.monotonic(), False
        try:
            while True:
                until_s = min(since_s + limit_s, self._end_s)
                if not select.select([read], [], [], max(until_s - time.monotonic(), 0))[0]:
                    hangs = True
                    # It tells where it is, in its log.
                    with contextlib.suppress(ProcessLookupError):
                        process.send_signal(signal.SIGUSR1)
                    time.sleep(0.5)
                    break
                chunk = os.read(read, 2**16)
                if not chunk:
                    break
                *lines, buffer = (buffer + chunk).split(b'\n')
                for message in map(json.loads, lines):
                    self._take(message, entry)
                    if 'lost' in message:
                        return at
                    if 'begin' in message:
                        since_s, limit_s = time.monotonic(), self._steps[at].budget_s
                    elif 'result' in message or 'machine' in message:
                        since_s, limit_s = time.monotonic(), BETWEEN_S
                        at += 'result' in message
        finally:
            os.close(read)
            # One that has closed its end of the pipe is about to end by itself.
            ended = _end(process, 0.0 if hangs else 10.0)
        if at == len(self._steps):
            return at
        step, seconds, tail = self._steps[at], time.monotonic() - since_s, last_lines(log)
        if hangs and self._left_s() < 0:
            reason = f'no time: not done in the last {seconds:.0f} s'
            result = skipped(step, reason, late=True)
        else:
            line = f'no answer in {limit_s:.0f} s'
            if not hangs:
                line = ': '.join((f'the process ended with {ended}', *tail[-1:]))
            found = failure('Hanging' if hangs else 'ProcessLost', line, tail)
            result = {'name': step.name, 'timing': step.timing, **found, 'seconds': seconds}
        self._take({'result': result}, entry)
        return at + 1

    def _take(self, message: Mapping[str, Any], entry: dict[str, Any]) -> None:
        """Write down what a rung sends."""
        if 'machine' in message:
            self._report.data['machine'] = self._report.data['machine'] or message['machine']
        elif 'operators' in message:
            entry['operators'] = message['operators']
        elif 'said' in message:
            # A process that was begun anew says the same.
            entry['said'] = list(dict.fromkeys((*entry['said'], message['said'])))
        elif 'begin' in message:
            self._bar.set_description(f'{entry["name"]}: {message["begin"]}')
        elif 'result' in message:
            result = dict(message['result'])
            entry['timings' if result.pop('timing') else 'checks'].append(result)
            self._bar.update()
            if result['status'] == 'passed':
                self._seconds[result['name']] = result['seconds']
            elif result['status'] == 'failed':
                error = result['error']
                note(f'{entry["name"]}: {result["name"]}: {error["type"]}: {error["line"]}')
        self._report.write()

    def _test(self) -> None:
        command = [sys.executable, '-m', 'pytest', '-m', 'gpu', '-q', *gpu_test_files()]
        if importlib.util.find_spec('pytest') is None:
            self._add_step('pytest', command, status='skipped', reason='pytest is not installed')
        else:
            self._run('pytest', command, LEAST_TESTS_S, TESTS_S, {}, due=True)

    def _benchmark(self) -> None:
        """Run the benchmark case by case, and join what the cases leave."""
        missing, rung = self._missing_detectron2(), self._best()
        if missing:
            note(f'the benchmark runs against torchvision alone: {missing}')
        references = ['torchvision'] if missing else ['detectron2', 'torchvision']
        said: dict[str, Any] = {
            'json': None,
            'against': references,
            'without_detectron2': missing or None,
            'environment': rung.environment,
        }
        self._report.data['benchmark'] = said
        needed_s, joined = LEAST_BENCHMARK_S, dict[str, Any]()
        for name, arguments in benchmark_cases(self._options, references):
            figures = self._folder / 'case.json'
            step = self._run(
                f'benchmark {name}',
                [sys.executable, '-m', 'segnode', 'benchmark', *arguments],
                needed_s,
                BENCHMARK_S,
                rung.environment,
                unseen=['--json', str(figures)],
            )
            if step['status'] != 'passed':
                continue
            # The next case is of this kind.
            needed_s = step['seconds']
            case = json.loads(figures.read_text(encoding='utf-8'))
            joined = joined or {**case, 'rows': [], 'parts': []}
            for key in ('rows', 'parts'):
                joined[key] += case[key]
            write_whole(self._report.benchmark_path, joined)
            said['json'] = self._report.benchmark_path.name
            self._report.write()

    def _best(self) -> Rung:
        """Return the highest rung that passed, else the lowest one."""
        names = [e['name'] for e in self._report.data['rungs'] if e['status'] == 'passed']
        if not self._report.data['rungs']:
            return RUNGS['triton-graphs']
        return RUNGS[names[-1]] if names else RUNGS['plain']

    def _missing_detectron2(self) -> str:
        """Return why Detectron2 cannot be imported, empty where it can."""
        code = 'from segnode.benchmark.oracle import import_detectron2 as f; f()'
        command = [sys.executable, '-c', code]
        done = self._process(command, min(90.0, max(self._left_s(), 1.0)), {})
        return '' if done['exit_code'] == 0 else ''.join(done['last_lines'][-1:]) or 'it hangs'

    def _run(
        self,
        name: str,
        command: list[str],
        needed_s: float,
        budget_s: float,
        environment: dict[str, str],
        *,
        due: bool = False,
        unseen: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Run a command of the rest where it fits, and write down what becomes of it.

        Args:
            name: for people.
            command: what to run.
            needed_s: seconds for which it is worth beginning.
            budget_s: after which it is taken to hang.
            environment: what it gets beside this process's.
            due: that the time is over is a failure of the whole.
            unseen: arguments that are of use here only.
        """
        left_s = self._left_s()
        if left_s < needed_s:
            reason = no_time(left_s, needed_s)
            return self._add_step(name, command, status='skipped', reason=reason, late=due)
        done = self._process([*command, *unseen], min(budget_s, left_s), environment, name)
        if done['exit_code'] is None and left_s < budget_s:
            reason = f'no time: not done in the last {left_s:.0f} s'
            return self._add_step(name, command, status='skipped', reason=reason, late=due, **done)
        status = 'passed' if done['exit_code'] == 0 else 'failed'
        step = self._add_step(name, command, status=status, **done)
        if status == 'failed':
            note(f'{name}: {step_problem(step)}')
        return step

    def _process(
        self, command: list[str], limit_s: float, environment: dict[str, str], name: str = ''
    ) -> dict[str, Any]:
        """Run a command; ``exit_code`` is None where it took too long."""
        log = self._folder / 'step.log'
        start_s = time.monotonic()
        inherited = {key: value for key, value in os.environ.items() if key not in SWITCHES}
        with log.open('wb') as output:
            process = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                env={**inherited, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        bar = tqdm(
            total=round(limit_s), desc=name, unit='s', disable=None if name else True, leave=False
        )
        code: int | None = None
        try:
            with bar:
                while code is None and time.monotonic() - start_s < limit_s:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        code = process.wait(0.5)
                    bar.update(round(time.monotonic() - start_s) - bar.n)
        finally:
            _end(process)
        return {
            'exit_code': code,
            'limit_s': limit_s,
            'seconds': time.monotonic() - start_s,
            'last_lines': last_lines(log),
        }

    def _add_step(self, name: str, command: Sequence[str], **more: Any) -> dict[str, Any]:
        step = {'name': name, 'command': shlex.join(command), **more}
        self._report.data['steps'].append(step)
        self._report.write()
        return step


def _end(process: subprocess.Popen[bytes], patience_s: float = 0.0) -> str:
    """End a process with all that it started; return how it ended."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    return f'signal {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'


def last_lines(log: Path) -> list[str]:
    """Return the end of a log without empty lines and the steps of progress bars."""
    text = log.read_bytes().decode('utf-8', errors='replace')
    lines = (line.rstrip().rpartition('\r')[2] for line in text.split('\n'))
    return [line[:400] for line in lines if line][-TAIL:]


def gpu_test_files() -> list[str]:
    """Return the test files with tests for a GPU: others may import what is not there."""
    files = sorted((CHECKOUT / 'test').rglob('test_*.py'))
    marked = re.compile(r'^(pytestmark = |@)pytest\.mark\.gpu\b', re.MULTILINE)
    return [
        str(path.relative_to(CHECKOUT))
        for path in files
        if marked.search(path.read_text(encoding='utf-8'))
    ]


def benchmark_cases(
    options: Options, references: Sequence[str]
) -> Iterator[tuple[str, list[str]]]:
    """Yield name and arguments of every case, the most telling first."""
    shared = ['--device', options.device, '--model', options.timed]
    against = ['--against', ','.join(references)]
    cases = [(20, 1), (5, 1), (100, 1), (20, 4), (5, 4), (100, 4)]
    for number, (detections, batch) in enumerate(cases):
        for shape in map(shape_name, options.shapes):
            sizes = ['--shapes', shape, '--detections', str(detections), '--batch', str(batch)]
            name = f'{shape}, {detections} detections, batch {batch}'
            yield name, [*shared, '--plant', *sizes, *against]
        if number == 0:
            only = ['--against', 'detectron2'] if 'detectron2' in references else []
            yield 'parts', [*shared, '--parts', *only]


# What is said at the end


def results_of(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return checks and timings of a rung."""
    return [*entry['checks'], *entry['timings']]


def rung_status(entry: Mapping[str, Any]) -> Status | Literal['unfinished']:
    """Return what became of a rung; it is skipped where nothing of its own could be run."""
    found = results_of(entry)
    if any(result['status'] == 'failed' for result in found):
        return 'failed'
    if any(result.get('late') for result in found):
        return 'unfinished'
    by_name = {result['name']: result['status'] for result in found}
    if 'skipped' in (by_name.get('operators'), by_name.get('graphs')):
        return 'skipped'
    return 'passed'


def step_problem(step: Mapping[str, Any]) -> str:
    """Return in a line what became of a command that failed."""
    last = f': {step["last_lines"][-1]}' if step['last_lines'] else ''
    if step['exit_code'] is None:
        return f'not done in {step["limit_s"]:.0f} s{last}'
    return f'exit code {step["exit_code"]}{last}'


def summarise(data: dict[str, Any]) -> int:
    """Fill the summary of a report; return the exit code."""
    every = [result for entry in data['rungs'] for result in results_of(entry)]
    every += data['steps']
    counts = {name: sum(r['status'] == name for r in every) for name in get_args(Status)}
    unfinished = 'error' in data or data.get('interrupted') or any(r.get('late') for r in every)
    code = 1 if counts['failed'] or unfinished or not counts['passed'] else 0
    climbed = [entry['name'] for entry in data['rungs'] if entry['status'] == 'passed']
    data['summary'] = {
        **counts,
        'rungs': {entry['name']: entry['status'] for entry in data['rungs']},
        'highest_rung_passed': climbed[-1] if climbed else None,
        'look_at': list(advice(data)),
        'exit_code': 130 if data.get('interrupted') else code,
    }
    return int(data['summary']['exit_code'])


# What to try next, by the beginning of a check's name.
_NEXT = {
    'operators': 'python -m segnode doctor says what Triton lacks',
    'graphs': 'the capture is in segnode/graphs.py',
    'kernel preprocess': 'the kernel is in segnode/kernels/preprocess.py',
    'kernel nms': 'the kernel is in segnode/kernels/nms.py',
    'kernel roi_align': 'the kernel is in segnode/kernels/roi_align.py',
    'kernel paste': 'the kernel is in segnode/kernels/paste.py',
    'stage times': 'the marks are in segnode/timing.py',
    'memory': 'the buffers are in segnode/static_path.py',
    'planted': 'compare with fp16 stages and the kernels',
    'time': 'the checks before it say more',
}
# Checks that fail where the answers are wrong.
_ANSWERS = ('kernel', 'fp32', *HALF, 'planted')
_NEXT_BY_KIND = {
    'poison': 'something is read before it is written; segnode/model/fusion.py has fused layers',
    'stages': 'the first stage beyond its limit is where to look',
    'AP': 'compare with the stages of that precision',
}


def advice(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each failure, those of one rung with one error in one, and the slowest."""
    entries = {entry['name']: entry for entry in data['rungs']}
    if 'error' in data:
        yield f'{data["error"]["type"]}: {data["error"]["line"]}'
    if data.get('interrupted'):
        yield 'interrupted: here is what was done until then'
    for entry in entries.values():
        grouped: dict[str, list[dict[str, Any]]] = {}
        for result in results_of(entry):
            if result['status'] == 'failed':
                line = f'{result["error"]["type"]}: {result["error"]["line"]}'
                grouped.setdefault(line, []).append(result)
        for line, results in grouped.items():
            names = ', '.join(result['name'] for result in results)
            ways = _ways_on(entries, entry, results)
            yield f'{entry["name"]}: {names}: {line} -> {"; ".join(ways)}'
        late = [result for result in results_of(entry) if result.get('late')]
        if late:
            first = f'{len(late)} not run from {late[0]["name"]} on'
            yield f'{entry["name"]}: {first}: {late[0]["reason"]}'
        if entry['status'] == 'skipped':
            reasons = [r['reason'] for r in results_of(entry) if 'reason' in r]
            yield f'{entry["name"]}: left out: {reasons[0]}'
    for step in data['steps']:
        if step['status'] == 'failed':
            yield f'{step["name"]}: {step_problem(step)} -> {step["command"]}'
        elif step.get('late'):
            yield f'{step["name"]}: {step["reason"]} -> {step["command"]}'
    yield from _slowest(data)


def _ways_on(
    entries: Mapping[str, dict[str, Any]],
    entry: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Return what to try after checks of a rung that failed with one error."""
    rung, names = RUNGS[entry['name']], [result['name'] for result in results]
    ways = []
    # The nearest rung on which all of that passed: graphs are given up before Triton.
    for other in (RUNGS['triton'], RUNGS['graphs'], RUNGS['plain']):
        below = (other.triton <= rung.triton, other.graphs <= rung.graphs, other != rung)
        if not all(below) or other.name not in entries:
            continue
        status = {r['name']: r['status'] for r in results_of(entries[other.name])}
        own = {'operators': 'passed', 'graphs': 'passed'}
        if all(status.get(name, own.get(name)) == 'passed' for name in names):
            lost = set(other.environment) - set(rung.environment)
            ways.append(f'{" ".join(f"{name}=0" for name in sorted(lost))} works meanwhile')
            break
    else:
        good = {r['name'] for r in results_of(entry) if r['status'] == 'passed'}
        if all(name.startswith(HALF) for name in names) and 'fp32 scenes' in good:
            ways.append('precision fp32 works meanwhile')
        elif any(name.startswith(_ANSWERS) for name in names):
            ways.append('device cpu works meanwhile')
    kernels = [
        result['name'].removeprefix('kernel ')
        for result in entry['checks']
        if result['name'].startswith('kernel') and result['status'] == 'failed'
    ]
    if kernels and not names[0].startswith('kernel'):
        ways.append(f'alone, too, fails: {", ".join(kernels)}')
    for name in names[:1]:
        near = [text for start, text in _NEXT.items() if name.startswith(start)]
        ways += near[:1] or [t for end, t in _NEXT_BY_KIND.items() if name.endswith(end)][:1]
    return ways


def _slowest(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield where the time goes on the last rung that passed."""
    timed = [e for e in data['rungs'] if e['status'] == 'passed' and e['timings']]
    for timing in timed[-1]['timings'] if timed else []:
        if timing['status'] == 'passed':
            figures = timing['figures']
            name, ms = max(figures['stages_ms'].items(), key=lambda item: item[1]['p50'])
            yield (
                f'slowest at {figures["shape"]} on {timed[-1]["name"]}: {name} with '
                f'{ms["p50"]:.2f} of {figures["frame_ms"]["p50"]:.2f} ms'
            )


def print_report(data: Mapping[str, Any]) -> None:
    """Print checks by rung, milliseconds by rung, the rest, and what to look at."""
    entries = data['rungs']
    machine = data['machine']
    if machine:
        gpu = machine.get('gpu') or machine['processor']
        say(f'{machine["device"]} ({gpu}), torch {machine["torch"]}, triton {machine["triton"]}')
        say()
    if entries:
        names = list(dict.fromkeys(r['name'] for e in entries for r in results_of(e)))
        rows = [(name, *(_cell(entry, name) for entry in entries)) for name in names]
        whole = ('the rung', *(f'{e["status"]} {e["seconds"]:.0f} s' for e in entries))
        say(table(('check', *(entry['name'] for entry in entries)), [*rows, whole]))
        say()
    for shape in dict.fromkeys(
        t['figures']['shape'] for e in entries for t in e['timings'] if t['status'] == 'passed'
    ):
        say(f'{shape}, ms p50 (p95):')
        say(_timing_table(entries, shape))
        say()
    if data['steps']:
        rows = [
            (
                step['name'],
                step['status'].replace('failed', 'FAILED'),
                step['reason'] if 'reason' in step else f'{step["seconds"]:.0f} s',
            )
            for step in data['steps']
        ]
        say(table(('after the ladder', '', ''), rows))
        say()
    say('what to look at:')
    for line in data['summary']['look_at']:
        say(f'  {line}')
    if not data['summary']['look_at']:
        say('  nothing')


def _cell(entry: Mapping[str, Any], name: str) -> str:
    for result in results_of(entry):
        if result['name'] == name:
            took = '' if result['status'] == 'skipped' else f' {result["seconds"]:.1f} s'
            return f'{result["status"]}{took}'.replace('failed', 'FAILED')
    return '-'


def _timing_table(entries: Sequence[Mapping[str, Any]], shape: str) -> str:
    timed = {
        entry['name']: timing['figures']
        for entry in entries
        for timing in entry['timings']
        if timing['status'] == 'passed' and timing['figures']['shape'] == shape
    }
    stages = list(dict.fromkeys(name for f in timed.values() for name in f['stages_ms']))
    rows = [
        (
            stage,
            *(
                f'{f["stages_ms"][stage]["p50"]:.2f} ({f["stages_ms"][stage]["p95"]:.2f})'
                if stage in f['stages_ms']
                else '-'
                for f in timed.values()
            ),
        )
        for stage in stages
    ]
    frame = [f'{f["frame_ms"]["p50"]:.2f} ({f["frame_ms"]["p95"]:.2f})' for f in timed.values()]
    memory = [f'{f["memory"]["peak"] / 2**20:.0f}' for f in timed.values()]
    rows += [('whole frame', *frame), ('peak MB', *memory)]
    return table(('stage', *timed), rows)


# The command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; return 0, 1 where something failed, 2 on wrong use, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == [CHILD]:
        return child(*given[1:])
    try:
        options, path = parse(given)
        for model in (options.trained, options.timed):
            named_architecture(Config(model=model))
        # With its index, as asking which one is current would take memory on it.
        select_device('cuda:0' if options.device == 'cuda' else options.device)
        check_writable(path)
        report = Report(path, options)
    except SystemExit as stop:  # argparse leaves this way
        return stop.code if isinstance(stop.code, int) else 1
    except (SegnodeError, OSError) as error:
        sys.stderr.write(f'gpu_ladder: error: {" ".join(str(error).split())}\n')
        return 2 if isinstance(error, ConfigError) else 1
    note(f'writing {report.path} after every check')
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='segnode-gpu-') as folder, _ending_on_request():
        try:
            Ladder(options, report, Path(folder)).run()
        except KeyboardInterrupt:
            report.data['interrupted'] = True
        except (SegnodeError, OSError) as error:
            report.data['error'] = failure_of(error)['error']
    report.data['seconds'] = time.monotonic() - start
    code = summarise(report.data)
    report.data['complete'] = not report.data.get('interrupted') and 'error' not in report.data
    report.write()
    print_report(report.data)
    summary = report.data['summary']
    say()
    say(
        f'gpu: passed={summary["passed"]} failed={summary["failed"]} '
        f'skipped={summary["skipped"]} rung={summary["highest_rung_passed"]} json={report.path}'
    )
    return code


@contextmanager
def _ending_on_request() -> Iterator[None]:
    """Let a request to end (SIGTERM) do what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def parse(arguments: Sequence[str]) -> tuple[Options, Path]:
    """Return what the command line asks for, and the file to write.

    Raises:
        ConfigError: a value is out of range.
    """
    parser = Parser('gpu', '', '')
    parser.prog = 'gpu_ladder.py'
    parser.description = (
        'Check and time segnode on a GPU, from plain operators up to Triton and CUDA graphs, then '
        'run the tests for a GPU and the benchmark.'
    )
    parser.epilog = _EPILOG
    add = parser.add_argument
    add('--minutes', type=float, default=20.0, metavar='X', help='for everything (default 20)')
    add('--json', type=Path, default=JSON, metavar='FILE', help=f'default {_relative(JSON)}')
    add('--device', default='cuda', help='cuda or cuda:N; cpu tries this script itself')
    add('--steps', default=','.join(STEPS), metavar='A,B', help=f'some of {", ".join(STEPS)}')
    add('--rungs', default=','.join(RUNGS), metavar='A,B', help=f'some of {", ".join(RUNGS)}')
    add('--checks', default='', metavar='A,B', help='only those with one of these in their name')
    add('--scenes', type=int, default=24, metavar='N', help='judged by AP (default 24)')
    add('--size', default='480x640', metavar='HxW', help='of the scenes (default 480x640)')
    add('--frames', type=int, default=300, metavar='N', help='memory is watched over (300)')
    add('--rounds', type=int, default=200, metavar='N', help='frames timed (default 200)')
    add('--shapes', default='480x640,800x1344', metavar='HxW,...', help='timed (default both)')
    add('--trained', default='', metavar='MODEL', help='judged (default: the embedded model)')
    add(
        '--timed',
        default='mask_rcnn_R_50_FPN_3x',
        metavar='MODEL',
        help='architecture timed, with planted weights (default mask_rcnn_R_50_FPN_3x)',
    )
    add(
        '--in-process',
        action='store_true',
        help='run the rungs in this process: for a debugger; a fault of the device ends all',
    )
    given = parser.parse_args(arguments)
    _check_numbers(given)
    return (
        Options(
            device=given.device,
            minutes=given.minutes,
            steps=_some('--steps', given.steps, STEPS),
            rungs=_some('--rungs', given.rungs, tuple(RUNGS)),
            checks=tuple(filter(None, map(str.strip, given.checks.split(',')))),
            scenes=given.scenes,
            image_hw=_shape('--size', given.size),
            frames=given.frames,
            rounds=given.rounds,
            shapes=tuple(_shape('--shapes', text) for text in given.shapes.split(',')),
            trained=given.trained,
            timed=given.timed,
            in_process=given.in_process,
        ),
        given.json,
    )


def _check_numbers(given: argparse.Namespace) -> None:
    lowest = {'minutes': 0.1, 'scenes': COMPARED, 'frames': 3, 'rounds': 1}
    for name, least in lowest.items():
        value = getattr(given, name)
        if not least <= value < math.inf:
            raise ConfigError(f'--{name}: expected at least {least:g}, found {value:g}')
    if given.scenes > len(SEEDS):
        raise ConfigError(f'--scenes: expected at most {len(SEEDS)}, found {given.scenes}')


def _some(option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Return what of ``known`` is named, in its order."""
    named = [item.strip() for item in text.split(',')]
    for name in named:
        if name not in known:
            raise ConfigError(f'{option}: expected some of {", ".join(known)}, found {name!r}')
    return tuple(name for name in known if name in named)


def _shape(option: str, text: str) -> tuple[int, int]:
    found = re.fullmatch(r'(\d{2,4})x(\d{2,4})', text.strip())
    if found is None or not all(32 <= int(side) <= 4096 for side in found.groups()):
        raise ConfigError(f'{option}: expected HxW of 32 to 4096, as in 480x640, found {text!r}')
    return int(found[1]), int(found[2])


def _relative(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


if __name__ == '__main__':
    sys.exit(main())
