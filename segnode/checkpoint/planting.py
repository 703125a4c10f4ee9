# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Weights for a network without a checkpoint: random, but calibrated to behave like trained ones.

Plainly random weights give no detections or a hundred on one spot, and overflow half precision.
Here every batch norm takes its statistics from real pixels, every other layer is centred and
rescaled to a fixed spread (Mishkin & Matas, 2016, "All you need is a good init"), and the
background class is biased so that a fixed share of the proposals scores above one half: a few
dozen detections remain after NMS, their scores well apart. A reference implementation and segnode
can so be compared on equal and plausible numbers. Nothing about accuracy follows from them.

Shapes: R RoIs, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnode.kernels.plain.nms import nms
from segnode.kernels.plain.roi_align import roi_align
from segnode.model.anchors import make_anchors
from segnode.model.architecture import Architecture
from segnode.model.backbone import convnext, resnest
from segnode.model.backbone.layers import MLP, LayerNorm
from segnode.model.backbone.resnet import BasicBlock, BottleneckBlock
from segnode.model.backbone.swin import WindowAttention
from segnode.model.conv import Conv
from segnode.model.mask_rcnn import MaskRCNN
from segnode.model.rpn import select_proposals

# Spread of the outputs of the layers that decide scores, boxes and masks; 1 for all others.
SPREAD = {
    'objectness_logits': 3.0,
    'anchor_deltas': 0.15,
    'cls_score': 3.0,
    'bbox_pred': 0.5,
    'predictor': 4.0,
}
# Masks are centred here, so that an instance covers most of its box, as real ones do.
MASK_LOGIT = 5.0
# Share of the proposals that score above one half in some class.
CONFIDENT_SHARE = 0.025
# Weight of a residual block's last norm, spread of its last layer. At 1 what float32 rounds grows
# twentyfold from res2 to res5 of a random ResNet, and two implementations end 0.02 px and 0.001 of
# score apart.
RESIDUAL_WEIGHT = 0.1
# RoIs that calibrate the mask head; the box head takes all proposals.
MASK_ROIS = 32


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
        narrow = _prepare_blocks(model)
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d) and module.training:
            # Averages over what passes, in place of an exponential mean.
            module.momentum = None
        elif isinstance(module, nn.Linear | nn.ConvTranspose2d) or (
            isinstance(module, Conv) and module.norm is None
        ):
            spread = SPREAD.get(name.rpartition('.')[2], 1.0)
            spread = RESIDUAL_WEIGHT if module in narrow else spread
            hooks.append(module.register_forward_hook(_standardise_once(spread)))
    _calibrate(model, images)
    for hook in hooks:
        hook.remove()
    state = model.state_dict()
    return {k: v.clone() for k, v in state.items() if not k.endswith('num_batches_tracked')}


def _prepare_blocks(model: MaskRCNN) -> set[nn.Module]:
    """Weaken residual branches, and make what no layer's statistics set differ by channel.

    Returns:
        The layers whose spread is to weaken their branch.
    """
    narrow: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, BasicBlock | BottleneckBlock | resnest.Block):
            last = module.conv2 if isinstance(module, BasicBlock) else module.conv3
            nn.init.constant_(last.get_parameter('norm.weight'), RESIDUAL_WEIGHT)
        elif isinstance(module, resnest.SplitAttention):
            # A few images' means give a channel no statistics, and one image's none at all.
            norm = module.fc1.norm
            assert norm is not None
            norm.eval().register_forward_pre_hook(_share_statistics_once())
            _vary(norm)
        elif isinstance(module, LayerNorm):
            _vary(module)
        elif isinstance(module, convnext.Block):
            nn.init.uniform_(module.gamma, 0.5 * RESIDUAL_WEIGHT, 1.5 * RESIDUAL_WEIGHT)
        elif isinstance(module, WindowAttention):
            nn.init.normal_(module.relative_position_bias_table)
            narrow.add(module.proj)
        elif isinstance(module, MLP):
            narrow.add(module.layers[1])
    return narrow


def _vary(norm: nn.Module) -> None:
    nn.init.uniform_(norm.get_parameter('weight'), 0.5, 1.5)
    nn.init.normal_(norm.get_parameter('bias'), std=0.1)


def _share_statistics_once() -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """Return a hook that gives all channels of a batch norm the same statistics, once."""
    done = False

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal done
        if not done:
            done = True
            variance, mean = torch.var_mean(inputs[0])
            module.get_buffer('running_mean').fill_(mean)
            module.get_buffer('running_var').fill_(variance)

    return hook


def _standardise_once(
    spread: float,
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
    """Return a hook that centres each channel and rescales its module at the first call.

    What counts is the output before a ReLU; a residual is not expected. Channels are the last
    dimension of a fully connected layer's output and the second one of others. All are centred by
    one mean where an image has but one value each; none is without a bias.
    """
    done = False

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        nonlocal done
        if done:
            return None
        done = True
        raw = output
        if relu := isinstance(module, Conv) and module.relu:
            raw = nn.Conv2d.forward(module, *inputs)
        dim = -1 if isinstance(module, nn.Linear) else 1
        channels = raw.movedim(dim, 0).flatten(1)
        pooled = raw.shape[2:] == (1, 1)
        mean = channels.mean().expand(len(channels)) if pooled else channels.mean(1)
        bias = module._parameters.get('bias')
        if bias is None:
            mean = torch.zeros_like(mean)
        scale = spread / (channels - mean[:, None]).std().clamp(min=1e-6)
        module.get_parameter('weight').mul_(scale)
        if bias is not None:
            bias.copy_((bias - mean) * scale)
        standard = ((raw.movedim(dim, -1) - mean) * scale).movedim(-1, dim)
        return F.relu(standard) if relu else standard

    return hook


def _calibrate(model: MaskRCNN, images: Tensor) -> None:
    """Run all layers once, hooks doing their work, and set the biases that choose."""
    architecture, heads = model.architecture, model.roi_heads
    parts = model.parts(lambda _: None)
    features, logits, deltas = parts.trunk(images)
    image_hw = (images.shape[-2], images.shape[-1])
    proposals = select_proposals(
        logits,
        deltas,
        make_anchors(architecture, architecture.feature_hw(image_hw), images.device),
        image_hw,
        architecture,
        architecture.rpn_post_nms_topk,
        nms,
    )
    image_index, slot = proposals.valid.nonzero(as_tuple=True)
    boxes = proposals.boxes[image_index, slot]
    scores, _ = parts.box_heads[0](
        roi_align(features, boxes, image_index, architecture.box_pooler)
    )
    heads.box_predictor.cls_score.bias[-1] += _background_bias(scores)
    few = slice(MASK_ROIS)
    parts.mask_head(roi_align(features, boxes[few], image_index[few], architecture.mask_pooler))
    heads.mask_head.predictor.get_parameter('bias').add_(MASK_LOGIT)


def _background_bias(logits: Tensor) -> Tensor:
    """Return what to add to the last of (R, K + 1) logits so that the wanted share is confident.

    The best class scores above one half where its odds against all others and the background
    exceed 1; solved for the background's bias an RoI, the share is a quantile of it.
    """
    foreground = logits[:, :-1].double()
    best = foreground.max(1, keepdim=True)
    others = (foreground - best.values).exp().sum(1) - 1
    # exp(background + bias - best) = 1 - others, where others leave room for one half at all.
    room = (1 - others).clamp(min=1e-9).log()
    bias = best.values[:, 0] + room - logits[:, -1]
    return bias.quantile(1 - CONFIDENT_SHARE).to(logits.dtype)
