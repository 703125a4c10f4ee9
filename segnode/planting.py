# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Weights for a network without a checkpoint: random, but calibrated to behave like trained ones.

Plainly random weights give no detections or a hundred on one spot, and overflow half precision.
Here every batch norm takes its statistics from real pixels and every other layer is rescaled to
a fixed spread (Mishkin & Matas, 2016, "All you need is a good init"), so that a reference
implementation and segnode can be compared on equal and plausible numbers. Nothing about accuracy
follows from them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from segnode.model.anchors import make_anchors
from segnode.model.architecture import Architecture
from segnode.model.backbone import Conv
from segnode.model.mask_rcnn import MaskRCNN
from segnode.model.roi_align import assign_levels, multilevel_roi_align
from segnode.model.rpn import select_proposals

# Spread of the outputs of layers whose scale decides scores and boxes; 1 for all others.
SPREAD = {
    'objectness_logits': 3.0,
    'anchor_deltas': 0.3,
    'cls_score': 3.0,
    'bbox_pred': 1.0,
    'predictor': 4.0,
}
# Proposals that calibrate the heads.
CALIBRATION_ROIS = 128


@torch.no_grad()
def plant_weights(architecture: Architecture, images: Tensor, seed: int) -> dict[str, Tensor]:
    """Return a calibrated random state dict.

    Args:
        architecture: of the network.
        images: (N, 3, H, W) float32, preprocessed, sides multiples of 32.
        seed: of the random generator; the same seed gives the same weights on one version of
            PyTorch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MaskRCNN(architecture)
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            # Averages over what passes, in place of an exponential mean.
            module.momentum = None
            module.train()
        elif isinstance(module, nn.Linear | nn.ConvTranspose2d) or (
            isinstance(module, Conv) and module.norm is None
        ):
            spread = SPREAD.get(name.rpartition('.')[2], 1.0)
            hooks.append(module.register_forward_hook(_rescale_once(spread)))
    _forward(model, images)
    for hook in hooks:
        hook.remove()
    state = model.state_dict()
    return {k: v.clone() for k, v in state.items() if not k.endswith('num_batches_tracked')}


def _rescale_once(spread: float) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Return a hook that centres and rescales its module the first time that it runs."""
    seen: set[int] = set()

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if id(module) in seen:
            return output
        seen.add(id(module))
        scale = spread / output.std().clamp(min=1e-6)
        for parameter in module.parameters():
            parameter.mul_(scale)
        return output * scale

    return hook


def _forward(model: MaskRCNN, images: Tensor) -> None:
    architecture = model.architecture
    image_hw = (images.shape[-2], images.shape[-1])
    features = model.backbone(images)
    logits, deltas = model.proposal_generator.rpn_head(features)
    sizes = [(f.shape[-2], f.shape[-1]) for f in features]
    anchors = make_anchors(architecture, sizes, images.device)
    proposals = select_proposals(
        logits, deltas, anchors, image_hw, architecture, CALIBRATION_ROIS
    )
    boxes = proposals.boxes.reshape(-1, 4)
    image_index = torch.arange(len(images)).repeat_interleave(proposals.boxes.shape[1])
    levels = assign_levels(boxes, architecture.family)

    def pool(resolution: int, sampling_ratio: int, aligned: bool) -> Tensor:
        return multilevel_roi_align(
            features,
            boxes,
            image_index,
            levels,
            resolution=resolution,
            sampling_ratio=sampling_ratio,
            aligned=aligned,
        )

    a = architecture
    heads = model.roi_heads
    heads.box_predictor(
        heads.box_head(pool(a.box_pooler_resolution, a.box_sampling_ratio, a.box_aligned))
    )
    heads.mask_head(pool(a.mask_pooler_resolution, a.mask_sampling_ratio, a.mask_aligned))
