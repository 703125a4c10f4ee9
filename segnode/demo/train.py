# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Trains the embedded model on rendered scenes: ``python -m segnode.demo.train --out DIR``.

Everything is from scratch and from this package: the frames come from ``segnode.demo.scene``, the
layers from ``segnode.model``, the losses are Detectron2's. The result is a Detectron2 config and
a safetensors file in half precision, read like any other Detectron2 model.

B images, H and W height and width.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from tqdm import tqdm

from segnode.checkpoint.detectron2_config import DEFAULTS, config_keys
from segnode.config import Config, Filter
from segnode.demo.losses import mask_rcnn_losses
from segnode.demo.scene import (
    CLASS_NAMES,
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    Scene,
    coco_annotations,
)
from segnode.demo.training_data import FramePool
from segnode.engine import Engine
from segnode.errors import ConfigError
from segnode.evaluation.annotations import Annotations
from segnode.evaluation.metrics import average_precision, coco_results, label_image_rles
from segnode.image import Image
from segnode.model.architecture import Architecture
from segnode.model.backbone_specs import ResNetSpec
from segnode.model.conv import Conv
from segnode.model.mask_rcnn import MaskRCNN
from segnode.output_files import make_own_folder

MODEL_NAME = 'mask_rcnn_demo'

ARCHITECTURE = Architecture(
    backbone=ResNetSpec(depth=50, width_per_group=16, res2_out_channels=64, stride_in_1x1=False),
    fpn_channels=64,
    box_fc_dims=(256, 256),
    mask_conv_dims=(64, 64, 64, 64),
    num_classes=len(CLASS_NAMES),
    rpn_pre_nms_topk=500,
    rpn_post_nms_topk=200,
    score_threshold=0.05,
    pixel_mean=(110.0, 110.0, 110.0),
    pixel_std=(55.0, 55.0, 55.0),
    short_side=480,
    long_side=640,
)

# Images, height and width of a step and RoIs an image: about the same work each. Small crops
# show many scenes, whole frames show big objects as they are met in use.
BATCH_SHAPES = ((8, 256, 320, 64), (4, 352, 480, 96), (2, 480, 640, 128))
BATCH_SHARES = (0.35, 0.35, 0.30)

BASE_RATE = 1e-3
WEIGHT_DECAY = 0.02
WARM_UP_STEPS = 200
EMA_DECAY = 0.998
CLIP_NORM = 5.0


def detectron2_config(architecture: Architecture) -> dict[str, Any]:
    """The config of a model of this shape: what differs from Detectron2's defaults."""
    keys: dict[str, Any] = {
        'VERSION': 2,
        'MODEL.WEIGHTS': f'{MODEL_NAME}.safetensors',
        'INPUT.MASK_FORMAT': 'bitmask',
    }
    for key, value in config_keys(architecture).items():
        if value != DEFAULTS[key]:
            keys[key] = value
    nested: dict[str, Any] = {}
    for key, value in keys.items():
        *sections, name = key.split('.')
        section = nested
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    return nested


def initialise(model: MaskRCNN) -> None:
    """He's initialisation; residual branches and predictors begin near zero."""
    for name, module in model.named_modules():
        if isinstance(module, Conv | nn.ConvTranspose2d | nn.Linear):
            if isinstance(module, nn.Linear) or 'fpn' in name:
                nn.init.kaiming_uniform_(module.weight, a=1)
            else:
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if name.endswith('conv3') and isinstance(module, Conv) and module.norm is not None:
            nn.init.zeros_(module.norm.weight)
    heads, rpn = model.roi_heads, model.proposal_generator.rpn_head
    for module, spread in (
        (rpn.objectness_logits, 0.01),
        (rpn.anchor_deltas, 0.01),
        (heads.box_predictor.cls_score, 0.01),
        (heads.box_predictor.bbox_pred, 0.001),
        (heads.mask_head.predictor, 0.001),
    ):
        nn.init.normal_(module.weight, std=spread)


def normalise(images: Tensor, architecture: Architecture) -> Tensor:
    """(B, 3, H, W) float32 of uint8 images."""
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (architecture.pixel_mean, architecture.pixel_std)
    )
    return (images.contiguous(memory_format=torch.channels_last).float() - mean) / std


@torch.no_grad()
def average(averaged: nn.Module, model: nn.Module, step: int) -> None:
    """Moves `averaged` towards `model`, faster in the first steps."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    for mine, theirs in zip(
        averaged.state_dict().values(), model.state_dict().values(), strict=True
    ):
        if mine.dtype.is_floating_point:
            mine.lerp_(theirs, 1 - decay)


@torch.no_grad()
def measure_norms(model: MaskRCNN, pool: FramePool, seed: int, batches: int) -> None:
    """Replaces the running statistics by the mean over whole frames."""
    rng = np.random.default_rng(seed)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    for _ in range(batches):
        images, _ = pool.sample(rng, 4, (480, 640))
        model.backbone(normalise(images, model.architecture))
    for norm in norms:
        norm.momentum = 0.1
    model.eval()


def export(model: MaskRCNN, folder: Path) -> None:
    """Writes config and weights, in half precision, as the node reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().half().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.endswith('num_batches_tracked')
    }
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise FloatingPointError('weights leave the range of half precision')
    save_file(
        weights,
        folder / f'{MODEL_NAME}.safetensors',
        metadata={'class_names': json.dumps(CLASS_NAMES), 'license': 'Apache-2.0'},
    )
    header = (
        '# SPDX-License-Identifier: Apache-2.0\n'
        '# Copyright 2026 The segnode authors\n'
        '# Written by segnode.demo.train.\n'
    )
    text = yaml.safe_dump(detectron2_config(model.architecture), sort_keys=False)
    (folder / f'{MODEL_NAME}.yaml').write_text(header + text)


def score(config: Path, seeds: Sequence[int]) -> tuple[float, float]:
    """Box and mask AP (IoU 0.50:0.95) on one frame of each scene.

    As the node publishes them: scores of 0.5 and more, overlaps resolved in one label image.
    """
    engine = Engine(Config(model=str(config), device='cpu', filter=Filter(score_threshold=0.5)))
    frames = [Scene(seed).frame(31) for seed in seeds]
    results: list[dict[str, Any]] = []
    for image_id, frame in enumerate(frames):
        found = engine.segment([Image(frame.image, 'bgr')])[0]
        results += coco_results(
            found.detections,
            label_image_rles(found.label_image, len(found.detections)),
            image={'image_id': image_id, 'file_name': ''},
            class_names=engine.class_names,
            category_ids=range(len(engine.class_names)),
        )
    truth = Annotations.from_coco(coco_annotations(frames))
    box, mask = (
        average_precision(truth, results, kind, range(len(frames))).ap or 0.0
        for kind in ('bbox', 'segm')
    )
    return box, mask


class Trainer:
    """Weights, optimiser and random state: all that a run needs to be resumed.

    Several processes hold the same weights and optimiser; each makes the gradient of crops of its
    own, and their mean is what all of them follow.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        steps: int,
        seed: int,
        minutes: float = math.inf,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """Makes new weights; see `train`."""
        self.minutes = minutes
        self.minutes_before = 0.0
        self.began = time.monotonic()
        torch.manual_seed(seed)
        self.seed, self.rank, self.processes = seed, rank, processes
        self.rng = np.random.default_rng((seed, rank))
        self.steps = steps
        self.step = 0
        self.progress = 0.0
        self.model = MaskRCNN(architecture)
        initialise(self.model)
        # With bfloat16 this about halves the time of a step on a CPU that has matrix instructions.
        self.model.train().to(memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(self.model).eval().requires_grad_(requires_grad=False)
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [
                {'params': matrices, 'weight_decay': WEIGHT_DECAY},
                {'params': vectors, 'weight_decay': 0.0},
            ],
            lr=BASE_RATE,
        )

    def spent(self) -> float:
        """Minutes of the run so far."""
        return self.minutes_before + (time.monotonic() - self.began) / 60

    def _progress(self, step: int) -> float:
        """Share of the run that is done, by steps or by time, whichever is further."""
        return min(1.0, max(step / self.steps, self.spent() / self.minutes))

    def learning_rate(self) -> float:
        """Linear warm-up, then half a cosine to zero."""
        warm_up = min(1.0, (self.step + 1) / WARM_UP_STEPS)
        return BASE_RATE * warm_up * 0.5 * (1 + math.cos(math.pi * self.progress))

    def _synchronise(self) -> None:
        """Averages the gradients and takes the clock of the first process."""
        progress = self._progress(self.step + 1)
        if self.processes == 1:
            self.progress = progress
            return
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        clock = torch.tensor([progress if self.rank == 0 else 0.0])
        shared = torch.cat([*(gradient.flatten() for gradient in gradients), clock])
        distributed.all_reduce(shared)
        parts = shared[:-1].split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape) / self.processes)
        self.progress = float(shared[-1])

    def advance(self, pool: FramePool) -> dict[str, float]:
        """One step; returns the losses by name."""
        count, height, width, rois = BATCH_SHAPES[self.rng.choice(3, p=BATCH_SHARES)]
        images, targets = pool.sample(self.rng, count, (height, width))
        batch = normalise(images, self.model.architecture)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            losses = mask_rcnn_losses(self.model, batch, targets, rois)
        self.optimiser.zero_grad(set_to_none=True)
        losses.total().backward()
        self._synchronise()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        for group in self.optimiser.param_groups:
            group['lr'] = self.learning_rate()
        self.optimiser.step()
        average(self.averaged, self.model, self.step)
        self.step += 1
        return {
            name: float(getattr(losses, name).detach())
            for name in ('objectness', 'anchor_box', 'class_score', 'box', 'mask')
        }

    def save(self, path: Path) -> None:
        """Writes the state of the run, in whole or not at all."""
        state = {
            'step': self.step,
            'minutes': self.spent(),
            'model': self.model.state_dict(),
            'averaged': self.averaged.state_dict(),
            'optimiser': self.optimiser.state_dict(),
            'torch_rng': torch.get_rng_state(),
            'numpy_rng': json.dumps(self.rng.bit_generator.state),
        }
        torch.save(state, path.with_suffix('.part'))
        path.with_suffix('.part').replace(path)

    def load(self, path: Path) -> None:
        """Continues from what `save` wrote."""
        state = torch.load(path, weights_only=True)
        self.step = state['step']
        self.minutes_before = state['minutes']
        self.progress = self._progress(self.step)
        self.model.load_state_dict(state['model'])
        self.averaged.load_state_dict(state['averaged'])
        self.optimiser.load_state_dict(state['optimiser'])
        if self.rank == 0:
            torch.set_rng_state(state['torch_rng'])
            self.rng.bit_generator.state = json.loads(state['numpy_rng'])
        else:
            torch.manual_seed(self.seed + self.rank + self.step)
            self.rng = np.random.default_rng((self.seed, self.rank, self.step))


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a training run is.

    Attributes:
        out: folder for frames, log, checkpoint and model.
        steps: optimiser steps of the whole run; a resumed run needs the same.
        scenes: scenes to render, three frames each.
        seed: of weights, crops and samples. Threads sum in no fixed order, so two runs come out
            alike, not equal.
        processes: each of one thread and with a batch of its own; on a machine that others use
            as well they wait for each other less often than threads do.
        minutes: ends the run, and its learning rate, earlier than `steps`.
        resume: continue from the checkpoint in `out`.
        save_every: steps between checkpoints, each with the model so far and its score.
        norm_batches: of four whole frames, over which a saved model's batch norms are measured.
        validation_scenes: a frame of each is scored.
    """

    out: Path
    steps: int = 7000
    scenes: int = 1600
    seed: int = 0
    processes: int = 2
    minutes: float = math.inf
    resume: bool = False
    save_every: int = 400
    norm_batches: int = 12
    validation_scenes: int = 16


def train(run: Run) -> Path:
    """Trains, and returns the folder of the finished model."""
    FramePool.render(run.out / 'pool', TRAIN_SEEDS[: run.scenes], run.processes)
    (run.out / 'rendezvous').unlink(missing_ok=True)
    if run.processes == 1:
        threads = torch.get_num_threads()
        try:
            _train_process(0, run)
        finally:
            torch.set_num_threads(threads)
    else:
        spawn(_train_process, (run,), nprocs=run.processes)
    return run.out / 'model'


def _train_process(rank: int, run: Run) -> None:
    torch.set_num_threads(1)
    if run.processes > 1:
        distributed.init_process_group(
            'gloo',
            init_method=f'file://{(run.out / "rendezvous").resolve()}',
            rank=rank,
            world_size=run.processes,
        )
    pool = FramePool.render(run.out / 'pool', TRAIN_SEEDS[: run.scenes])
    trainer = Trainer(
        ARCHITECTURE,
        steps=run.steps,
        seed=run.seed,
        minutes=run.minutes,
        rank=rank,
        processes=run.processes,
    )
    checkpoint = run.out / 'checkpoint.pt'
    if run.resume:
        trainer.load(checkpoint)
    bar = tqdm(initial=trainer.step, total=run.steps, unit='step', mininterval=5, disable=rank > 0)
    with (run.out / f'log{rank}.jsonl').open('a') as log, bar:
        while trainer.progress < 1:
            losses = trainer.advance(pool)
            if not all(map(math.isfinite, losses.values())):
                raise FloatingPointError(f'step {trainer.step}: losses {losses}')
            log.write(json.dumps({'step': trainer.step, **losses}) + '\n')
            bar.update()
            due = trainer.step % run.save_every == 0 or trainer.progress == 1
            if due and rank == 0:
                log.flush()
                trainer.save(checkpoint)
                finished = copy.deepcopy(trainer.averaged)
                measure_norms(finished, pool, run.seed, run.norm_batches)
                export(finished, run.out / 'model')
                box_ap, mask_ap = score(
                    run.out / 'model' / f'{MODEL_NAME}.yaml',
                    VALIDATION_SEEDS[: run.validation_scenes],
                )
                bar.write(
                    f'step {trainer.step}, {trainer.spent():.0f} min: '
                    f'box_ap={box_ap:.3f} mask_ap={mask_ap:.3f}'
                )


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='python -m segnode.demo.train', description='Trains the embedded model.'
    )
    parser.add_argument('--out', type=Path, required=True, help='folder for everything written')
    parser.add_argument('--steps', type=int, default=Run.steps)
    parser.add_argument('--minutes', type=float, default=Run.minutes, help='end sooner')
    parser.add_argument('--scenes', type=int, default=Run.scenes, help='scenes to render')
    parser.add_argument('--seed', type=int, default=Run.seed)
    parser.add_argument('--processes', type=int, default=Run.processes)
    parser.add_argument('--resume', action='store_true', help='go on from the checkpoint in --out')
    parser.add_argument(
        '--save-every', type=int, default=Run.save_every, help='steps between checkpoints'
    )
    run = Run(**vars(parser.parse_args(arguments)))
    if min(run.steps, run.scenes, run.processes, run.save_every) < 1 or run.minutes <= 0:
        parser.error('steps, scenes, processes, save-every and minutes must be positive')
    if run.resume and not (run.out / 'checkpoint.pt').is_file():
        parser.error(f'nothing to resume: {run.out / "checkpoint.pt"} is not there')
    try:
        make_own_folder(run.out, 'training')
    except ConfigError as error:
        parser.error(str(error))
    folder = train(run)
    sys.stdout.write(f'model: {folder}\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
