# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Trains the embedded model on rendered scenes: ``python -m segnode.demo.train --out DIR``.

Everything is from scratch and from this package: the frames come from `segnode.demo.scene`, the
layers from `segnode.model`, the losses are Detectron2's. The result is a Detectron2 config and a
safetensors file in half precision, read like any other Detectron2 model.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from segnode.demo.losses import mask_rcnn_losses
from segnode.demo.scene import CLASS_NAMES, TRAIN_SEEDS
from segnode.demo.training_data import FramePool
from segnode.model.architecture import Architecture
from segnode.model.backbone import Conv
from segnode.model.mask_rcnn import MaskRCNN

MODEL_NAME = 'mask_rcnn_demo'

ARCHITECTURE = Architecture(
    depth=50,
    width_per_group=16,
    res2_out_channels=64,
    stride_in_1x1=False,
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
    """The config of a model of this shape, in Detectron2's keys."""
    return {
        'VERSION': 2,
        'INPUT': {
            'FORMAT': architecture.color,
            'MASK_FORMAT': 'bitmask',
            'MIN_SIZE_TEST': architecture.short_side,
            'MAX_SIZE_TEST': architecture.long_side,
        },
        'MODEL': {
            'META_ARCHITECTURE': 'GeneralizedRCNN',
            'WEIGHTS': f'{MODEL_NAME}.safetensors',
            'MASK_ON': True,
            'PIXEL_MEAN': list(architecture.pixel_mean),
            'PIXEL_STD': list(architecture.pixel_std),
            'BACKBONE': {'NAME': 'build_resnet_fpn_backbone'},
            'RESNETS': {
                'DEPTH': architecture.depth,
                'NUM_GROUPS': architecture.num_groups,
                'WIDTH_PER_GROUP': architecture.width_per_group,
                'STEM_OUT_CHANNELS': architecture.stem_out_channels,
                'RES2_OUT_CHANNELS': architecture.res2_out_channels,
                'STRIDE_IN_1X1': architecture.stride_in_1x1,
                'OUT_FEATURES': ['res2', 'res3', 'res4', 'res5'],
            },
            'FPN': {
                'IN_FEATURES': ['res2', 'res3', 'res4', 'res5'],
                'OUT_CHANNELS': architecture.fpn_channels,
            },
            'ANCHOR_GENERATOR': {
                'SIZES': [list(sizes) for sizes in architecture.anchor_sizes],
                'ASPECT_RATIOS': [list(architecture.anchor_ratios[0])],
            },
            'PROPOSAL_GENERATOR': {'NAME': 'RPN'},
            'RPN': {
                'IN_FEATURES': ['p2', 'p3', 'p4', 'p5', 'p6'],
                'PRE_NMS_TOPK_TEST': architecture.rpn_pre_nms_topk,
                'POST_NMS_TOPK_TEST': architecture.rpn_post_nms_topk,
            },
            'ROI_HEADS': {
                'NAME': 'StandardROIHeads',
                'IN_FEATURES': ['p2', 'p3', 'p4', 'p5'],
                'NUM_CLASSES': architecture.num_classes,
                'SCORE_THRESH_TEST': architecture.score_threshold,
            },
            'ROI_BOX_HEAD': {
                'NAME': 'FastRCNNConvFCHead',
                'NUM_FC': len(architecture.box_fc_dims),
                'FC_DIM': architecture.box_fc_dims[0],
                'POOLER_RESOLUTION': architecture.box_pooler_resolution,
            },
            'ROI_MASK_HEAD': {
                'NAME': 'MaskRCNNConvUpsampleHead',
                'NUM_CONV': len(architecture.mask_conv_dims),
                'CONV_DIM': architecture.mask_conv_dims[0],
                'POOLER_RESOLUTION': architecture.mask_pooler_resolution,
            },
        },
    }


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
    images = images.contiguous(memory_format=torch.channels_last)
    return (images.float() - mean) / std


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
def measure_norms(model: MaskRCNN, pool: FramePool, seed: int, batches: int = 12) -> None:
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


class Trainer:
    """Weights, optimiser and random state: all that a run needs to be resumed."""

    def __init__(
        self, architecture: Architecture, steps: int, seed: int, minutes: float = math.inf
    ) -> None:
        self.minutes = minutes
        self.minutes_before = 0.0
        self.began = time.monotonic()
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.steps = steps
        self.step = 0
        self.model = MaskRCNN(architecture)
        initialise(self.model)
        # With bfloat16 this halves the time of a step on a CPU that has matrix instructions.
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

    def progress(self) -> float:
        """Share of the run that is done, by steps or by time, whichever is further."""
        minutes = self.minutes_before + (time.monotonic() - self.began) / 60
        return min(1.0, max(self.step / self.steps, minutes / self.minutes))

    def learning_rate(self) -> float:
        """Linear warm-up, then half a cosine to zero."""
        warm_up = min(1.0, (self.step + 1) / WARM_UP_STEPS)
        return BASE_RATE * warm_up * 0.5 * (1 + math.cos(math.pi * self.progress()))

    def advance(self, pool: FramePool) -> dict[str, float]:
        """One step; returns the losses by name."""
        count, height, width, rois = BATCH_SHAPES[self.rng.choice(3, p=BATCH_SHARES)]
        images, targets = pool.sample(self.rng, count, (height, width))
        batch = normalise(images, self.model.architecture)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            losses = mask_rcnn_losses(self.model, batch, targets, rois)
        self.optimiser.zero_grad(set_to_none=True)
        losses.total().backward()
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
            'minutes': self.minutes_before + (time.monotonic() - self.began) / 60,
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
        self.model.load_state_dict(state['model'])
        self.averaged.load_state_dict(state['averaged'])
        self.optimiser.load_state_dict(state['optimiser'])
        torch.set_rng_state(state['torch_rng'])
        self.rng.bit_generator.state = json.loads(state['numpy_rng'])


def train(
    out: Path,
    *,
    steps: int,
    scenes: int,
    seed: int,
    minutes: float = math.inf,
    resume: bool = False,
    save_every: int = 400,
) -> Path:
    """Trains, and returns the folder of the finished model.

    Args:
        out: Folder for frames, log, checkpoint and model.
        steps: Optimiser steps of the whole run; a resumed run needs the same.
        scenes: Scenes to render, three frames each.
        seed: Of weights, crops and samples. Threads sum in no fixed order, so two runs come out
            alike, not equal.
        minutes: Ends the run, and its learning rate, earlier than `steps`.
        resume: Continue from the checkpoint in `out`.
        save_every: Steps between checkpoints, each with the model so far.
    """
    pool = FramePool.render(out / 'pool', TRAIN_SEEDS[:scenes])
    trainer = Trainer(ARCHITECTURE, steps, seed, minutes)
    checkpoint = out / 'checkpoint.pt'
    if resume:
        trainer.load(checkpoint)
    bar = tqdm(initial=trainer.step, total=steps, unit='step', mininterval=5)
    with (out / 'log.jsonl').open('a') as log, bar:
        while trainer.progress() < 1:
            losses = trainer.advance(pool)
            if not all(map(math.isfinite, losses.values())):
                raise FloatingPointError(f'step {trainer.step}: losses {losses}')
            log.write(json.dumps({'step': trainer.step, **losses}) + '\n')
            bar.update()
            if trainer.step % save_every == 0 or trainer.progress() == 1:
                log.flush()
                trainer.save(checkpoint)
                finished = copy.deepcopy(trainer.averaged)
                measure_norms(finished, pool, seed)
                export(finished, out / 'model')
    return out / 'model'


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog='python -m segnode.demo.train', description=__doc__)
    parser.add_argument('--out', type=Path, required=True, help='folder for everything written')
    parser.add_argument('--steps', type=int, default=7000)
    parser.add_argument('--minutes', type=float, default=math.inf, help='end sooner')
    parser.add_argument('--scenes', type=int, default=1600, help='scenes to render')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--resume', action='store_true', help='go on from the checkpoint in --out')
    parser.add_argument('--save-every', type=int, default=400, help='steps between checkpoints')
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    folder = train(
        options.out,
        steps=options.steps,
        scenes=options.scenes,
        seed=options.seed,
        minutes=options.minutes,
        resume=options.resume,
        save_every=options.save_every,
    )
    sys.stdout.write(f'model: {folder}\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
