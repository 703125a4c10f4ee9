# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""All that the ladder touches inside of segnode: engines, operators, the network by stages.

Where a module of segnode moves, this is the one to mend: beside it the ladder knows only
``segnode.cli``, ``config``, ``errors`` and ``engine``.
"""

# ruff: noqa: F401 - much is handed on

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch import Tensor

from gpu_ladder import limits
from gpu_ladder.outcome import SkipCheck
from gpu_ladder.rungs import Rung
from segnode import __version__
from segnode.benchmark.planted import (
    PlantedDetections,
    named_architecture,
    plant_model,
    render_frames,
)
from segnode.checkpoint import NativeModel, load_model
from segnode.config import Config
from segnode.demo.scene import CLASS_NAMES, VALIDATION_SEEDS, Scene, SceneFrame
from segnode.engine import Engine, timing
from segnode.engine.device import select_device
from segnode.engine.network import NativeNetwork
from segnode.engine.speculation import Speculation
from segnode.engine.timing import device_milliseconds, fastest
from segnode.hardware.machine import describe_machine
from segnode.image import Image
from segnode.kernels.operators import Operators, plain_operators, select_operators
from segnode.kernels.preprocess import preprocess
from segnode.kernels.resampling import prepare_preprocess
from segnode.model.anchors import make_anchors
from segnode.model.architecture import SEMANTICS, Architecture, Pooler
from segnode.model.box_head import BoxDetections, Limits
from segnode.model.mask_head import mask_probabilities
from segnode.model.precision import DTYPES, exact_float32
from segnode.model.rpn import JOINED, Proposals

if TYPE_CHECKING:
    from gpu_ladder.options import Options
    from gpu_ladder.reference import Reference

SEEDS = VALIDATION_SEEDS[200:400]
# Every operator in plain PyTorch, which the others are held against.
TWINS = plain_operators('the reference')
# How the operators pool.
POOLER = Pooler(resolution=7)
IMPORT_DETECTRON2 = 'from segnode.benchmark.oracle import import_detectron2 as f; f()'


def judged_config(options: Options, device: str, precision: str) -> Config:
    """Return how the trained model is run."""
    config = Config(model=options.trained, device=device, precision=precision)
    return config.replace({'filter.score_threshold': limits.JUDGED_AT})


@contextlib.contextmanager
def score_threshold(engine: Engine, threshold: float) -> Iterator[None]:
    """Have an engine find what reaches another score."""
    before = engine.config
    engine.configure(before.replace({'filter.score_threshold': threshold}))
    try:
        yield
    finally:
        engine.configure(before)


def speculating(wanted: bool) -> contextlib.AbstractContextManager[Any]:
    """Have label images begun before the packet for every frame, or for none."""
    return mock.patch.object(Speculation, 'wanted', return_value=wanted)


def planted_engine(
    options: Options, shape: tuple[int, int], device: str, precision: str, **more: Any
) -> Engine:
    """Return an engine of planted weights whose network takes frames of a shape as they are."""
    sides = {'resolution.short_side': min(shape), 'resolution.long_side': max(shape)}
    config = Config(model=options.timed, device=device, precision=precision).replace(sides)
    engine = Engine(config, **more)
    count = min(limits.DETECTIONS, engine.settings.max_instances)
    planted = PlantedDetections(count, shape, len(engine.class_names))
    engine.replace_detections(planted.replace)
    return engine


def stage_inputs(network: NativeNetwork, image: Image, boxes: Tensor) -> dict[str, Any]:
    """Return what every stage of a network on the CPU gets of an image and of boxes in it."""
    architecture = network.architecture
    x = preprocess(image, (image.height, image.width), architecture)[None]
    index = torch.zeros(len(boxes), dtype=torch.int64)
    poolers = {'boxes': architecture.box_pooler, 'masks': architecture.mask_pooler}
    with torch.inference_mode():
        dense = network.model.parts(lambda _: None)
        features = [f.contiguous() for f in dense.trunk(x).features]
        pooled = {n: TWINS.roi_align(features, boxes, index, p) for n, p in poolers.items()}
    class_ids = torch.arange(len(boxes)) % architecture.num_classes
    return {'image': x, 'features': features, 'class_ids': class_ids, **pooled}


def run_stages(network: NativeNetwork, inputs: Mapping[str, Any]) -> dict[str, list[Tensor]]:
    """Run every stage of a network on its own input."""

    def placed(x: Tensor) -> Tensor:
        return x.to(network.device, network.dtype, memory_format=torch.channels_last)

    with torch.inference_mode():
        dense = network.model.parts(lambda _: None)
        rpn_head = network.model.proposal_generator.rpn_head
        logits, deltas = rpn_head([placed(x) for x in inputs['features']])
        scores, boxes = dense.box_heads[0](placed(inputs['boxes']))
        class_ids = inputs['class_ids'].to(network.device)
        masks = mask_probabilities(dense.mask_head(placed(inputs['masks'])), class_ids)
        return {
            'backbone': dense.trunk(placed(inputs['image'])).features,
            'rpn_logits': logits,
            'rpn_deltas': deltas,
            'box_logits': [scores],
            'box_deltas': [boxes],
            'mask_probabilities': [masks],
        }


class Climb:
    """One rung under test: where it runs, what it is held against, what its engines said."""

    def __init__(self, rung: Rung, options: Options, reference: Reference) -> None:
        self.rung = rung
        self.options = options
        self.device = select_device(options.device)
        self.reference = reference
        self.said: list[str] = []
        self._engines: dict[tuple[str, tuple[int, int] | None], Engine] = {}

    @property
    def on_gpu(self) -> bool:
        return self.device.type == 'cuda'

    @property
    def has_graphs(self) -> bool:
        return timing.is_asynchronous(self.device)

    def engine(self, precision: str, shape: tuple[int, int] | None = None) -> Engine:
        """Return an engine of the trained model, or the planted one of a shape; built once."""
        nvidia = self.on_gpu and not torch.version.hip
        if precision == 'bf16' and nvidia and torch.cuda.get_device_capability(self.device) < (8,):
            raise SkipCheck('bfloat16 needs compute capability 8.0')
        key = (precision, shape)
        if key not in self._engines:
            if any(kept != shape for _, kept in self._engines):
                self.forget()
            self._engines[key] = self._build(precision, shape)
        return self._engines[key]

    def network(self, precision: str) -> NativeNetwork:
        network = self.engine(precision)._backend.network
        assert isinstance(network, NativeNetwork)
        return network

    def operators(self) -> Operators:
        """Return the steps around the network that the engine takes here."""
        return select_operators(self.device)

    def images(self, count: int) -> list[Image]:
        """Return the first scenes as the engine takes them."""
        return [Image(scene.image, 'bgr') for scene in self.reference.scenes[:count]]

    def forget(self) -> None:
        """Drop all engines and their memory."""
        self._engines.clear()
        gc.collect()
        if self.on_gpu:
            with contextlib.suppress(RuntimeError):
                torch.cuda.empty_cache()

    def alive(self) -> bool:
        """Return whether the device still computes: a fault ends that for the whole process."""
        try:
            return float(torch.ones(8, device=self.device).sum()) == 8
        except RuntimeError:
            return False

    def _build(self, precision: str, shape: tuple[int, int] | None) -> Engine:
        device = str(self.device)
        more: dict[str, Any] = {'report': self._report, 'static': True}
        if shape is None:
            config = judged_config(self.options, device, precision)
            return Engine(config, model=self.reference.model, **more)
        planted = self.reference.planted
        return planted_engine(self.options, shape, device, precision, model=planted, **more)

    def _report(self, line: str) -> None:
        if line not in self.said:
            self.said.append(line)
