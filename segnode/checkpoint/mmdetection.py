# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""MMDetection's weights under the names of this package's network, and back.

Its names are the same in 2.x and 3.x. The background is the last class in both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import torch
from torch import Tensor

from segnode.checkpoint.state_dict import fit_state_dict
from segnode.model.architecture import MMDETECTION, Architecture, Pooler
from segnode.model.backbone_specs import ResNeStSpec, ResNetSpec
from segnode.model.mask_rcnn import expected_state_dict

# configs/_base_/models/mask-rcnn_r50_fpn.py and what its classes do where it is silent.
ARCHITECTURE: Final = Architecture(
    semantics=MMDETECTION,
    backbone=ResNetSpec(stride_in_1x1=False),
    box_pooler=Pooler(resolution=7, levels='mmdetection'),
    mask_pooler=Pooler(resolution=14, levels='mmdetection'),
    color='RGB',
    pixel_mean=(123.675, 116.28, 103.53),
    pixel_std=(58.395, 57.12, 57.375),
)

_Rule: TypeAlias = tuple[str, str | Callable[[re.Match[str]], str]]

# From our names to MMDetection's, by the first rule of the family that fits a name's beginning;
# NORM stands for bn or gn, as the norm is.
_BLOCK: Final[_Rule] = (
    r'backbone\.bottom_up\.res(\d)\.(\d+)\.',
    lambda match: f'backbone.layer{int(match[1]) - 1}.{match[2]}.',
)
_RESNET: Final[tuple[_Rule, ...]] = (
    (r'^backbone\.bottom_up\.stem\.', 'backbone.'),
    _BLOCK,
    (r'\.conv(\d)\.norm\.', r'.NORM\1.'),
    (r'\.shortcut\.norm\.', '.downsample.1.'),
    (r'\.shortcut\.', '.downsample.0.'),
)
_RESNEST: Final[tuple[_Rule, ...]] = (
    # A sequence of convolution, norm and ReLU, three times.
    (
        r'^backbone\.bottom_up\.stem\.conv(\d)\.(norm\.)?',
        lambda match: f'backbone.stem.{3 * (int(match[1]) - 1) + (match[2] is not None)}.',
    ),
    _BLOCK,
    (r'\.conv2\.conv\.norm\.', '.conv2.bn0.'),
    (r'\.conv2\.fc1\.norm\.', '.conv2.bn1.'),
    (r'\.conv(\d)\.norm\.', r'.bn\1.'),
    # The pooling that strides stands before both.
    (r'\.shortcut\.norm\.', '.downsample.2.'),
    (r'\.shortcut\.', '.downsample.1.'),
)
_AS_THEY_ARE: Final[tuple[_Rule, ...]] = ((r'^backbone\.bottom_up\.', 'backbone.'),)


def _counted(prefix: str, first: int, tail: str) -> Callable[[re.Match[str]], str]:
    """Return what puts a layer's number, counted from 0 in place of ``first``, behind a prefix."""
    return lambda match: f'{prefix}.{int(match[1]) - first}{tail}'


def _conv_rules(ours: str, theirs: str, first: int) -> tuple[_Rule, _Rule]:
    """Return the rules of convolutions that MMDetection joins with the norm behind them."""
    return (
        (rf'^{ours}(\d+)\.norm\.', _counted(theirs, first, '.NORM.')),
        (rf'^{ours}(\d+)\.', _counted(theirs, first, '.conv.')),
    )


_OTHERS: Final[tuple[_Rule, ...]] = (
    *_conv_rules(r'backbone\.fpn_lateral', 'neck.lateral_convs', 2),
    *_conv_rules(r'backbone\.fpn_output', 'neck.fpn_convs', 2),
    *_conv_rules(r'proposal_generator\.rpn_head\.conv\.conv', 'rpn_head.rpn_conv', 0),
    (r'^proposal_generator\.rpn_head\.conv\.', 'rpn_head.rpn_conv.'),
    (r'^proposal_generator\.rpn_head\.objectness_logits\.', 'rpn_head.rpn_cls.'),
    (r'^proposal_generator\.rpn_head\.anchor_deltas\.', 'rpn_head.rpn_reg.'),
    *_conv_rules(r'roi_heads\.box_head\.conv', 'roi_head.bbox_head.shared_convs', 1),
    (r'^roi_heads\.box_head\.fc(\d+)\.', _counted('roi_head.bbox_head.shared_fcs', 1, '.')),
    (r'^roi_heads\.box_predictor\.cls_score\.', 'roi_head.bbox_head.fc_cls.'),
    (r'^roi_heads\.box_predictor\.bbox_pred\.', 'roi_head.bbox_head.fc_reg.'),
    *_conv_rules(r'roi_heads\.mask_head\.mask_fcn', 'roi_head.mask_head.convs', 1),
    (r'^roi_heads\.mask_head\.deconv\.', 'roi_head.mask_head.upsample.'),
    (r'^roi_heads\.mask_head\.predictor\.', 'roi_head.mask_head.conv_logits.'),
)
# Buffers and copies that stand beside the weights: Swin's indices, which the window gives; the
# averages of 2.x's EMA, which have no dots; and the preprocessor's numbers, which the config has.
_BESIDE: Final = re.compile(
    r'ema_|data_preprocessor\.|.*\.(relative_position_index|num_batches_tracked)$'
)
_NORM_TENSORS: Final = ('weight', 'bias', 'running_mean', 'running_var')


def fit_weights(
    tensors: Mapping[str, Tensor], architecture: Architecture, path: Path
) -> dict[str, Tensor]:
    """Return the state dict of ``MaskRCNN(architecture)``, checked and in float32.

    Batch norms behind the convolutions of FPN and heads are folded into them, wherever the file
    has some; those of the backbone stay.

    Args:
        tensors: what the file holds, under MMDetection's names.
        architecture: the network.
        path: the file, for messages.

    Raises:
        CheckpointError: the tensors are not those of the architecture.
    """
    tensors = {name: tensor for name, tensor in tensors.items() if not _BESIDE.match(name)}
    shapes = expected_state_dict(architecture)
    theirs = {name: _their_name(name, architecture) for name in shapes}
    expected: dict[str, Sequence[int]] = {theirs[name]: shape for name, shape in shapes.items()}
    normed = {
        name.removesuffix('.weight'): norm
        for name in shapes
        if (norm := _batch_norm(theirs[name])) and f'{norm}.weight' in tensors
    }
    for layer, norm in normed.items():
        shape = expected.pop(theirs[f'{layer}.bias'])
        expected.update({f'{norm}.{name}': shape for name in _NORM_TENSORS})
    fitted = fit_state_dict(tensors, expected, path, architecture.norm_eps)
    state = {ours: fitted[name] for ours, name in theirs.items() if name in fitted}
    for layer, norm in normed.items():
        gamma, beta, mean, variance = (fitted[f'{norm}.{name}'].double() for name in _NORM_TENSORS)
        scale = gamma * torch.rsqrt(variance + architecture.norm_eps)
        weight = state[f'{layer}.weight'].double() * scale[:, None, None, None]
        state[f'{layer}.weight'] = weight.float()
        state[f'{layer}.bias'] = (beta - mean * scale).float()
    return {name: state[name] for name in shapes}


def to_mmdetection(
    state_dict: Mapping[str, Tensor], architecture: Architecture
) -> dict[str, Tensor]:
    """Return a state dict of ``MaskRCNN(architecture)`` under MMDetection's names.

    The inverse of ``fit_weights``, apart from batch norms that it folded: their convolutions have
    biases.
    """
    return {_their_name(name, architecture): tensor for name, tensor in state_dict.items()}


def _their_name(name: str, architecture: Architecture) -> str:
    backbone = architecture.backbone
    norm = 'gn'
    rules = _OTHERS
    if name.startswith('backbone.bottom_up.'):
        rules = _AS_THEY_ARE
        if isinstance(backbone, ResNetSpec):
            rules, norm = _RESNET, 'gn' if backbone.norm == 'GN' else 'bn'
        elif isinstance(backbone, ResNeStSpec):
            rules = _RESNEST
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name.replace('NORM', norm)


def _batch_norm(name: str) -> str:
    """Return the name of the batch norm that may stand behind a convolution, '' for none."""
    joined = re.fullmatch(
        r'(neck\.\w+\.\d+|rpn_head\.rpn_conv\.\d+|roi_head\.\w+\.(?:shared_)?convs\.\d+)'
        r'\.conv\.weight',
        name,
    )
    return f'{joined[1]}.bn' if joined else ''
