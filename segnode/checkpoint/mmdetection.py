# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""MMDetection's weights under the names of this package's network, and back.

Its names are the same in 2.x and 3.x. The background is the last class in both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from torch import Tensor

from segnode.checkpoint.folded_norms import fold, unfolded_shapes
from segnode.checkpoint.state_dict import fit_state_dict
from segnode.model.architecture import MMDETECTION, Architecture, Norm, Pooler
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
    layers = [
        layer
        for name in shapes
        if (layer := name.removesuffix('.bias')) != name
        and f'{layer}.norm.weight' not in shapes
        and _their_name(f'{layer}.norm.weight', architecture) in tensors
    ]
    theirs = {
        name: (_their_name(name, architecture), shape)
        for name, shape in unfolded_shapes(shapes, layers).items()
    }
    fitted = fit_state_dict(tensors, dict(theirs.values()), path, architecture.norm_eps)
    state = {name: fitted[their_name] for name, (their_name, _) in theirs.items()}
    fold(state, layers, architecture.norm_eps)
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
    rules: tuple[_Rule, ...] = _AS_THEY_ARE
    norm: Norm = ''
    if not name.startswith('backbone.bottom_up.'):
        rules = _OTHERS
        norms = (
            ('backbone.', architecture.fpn_norm),
            ('roi_heads.box_head.', architecture.box_norm),
            ('roi_heads.mask_head.', architecture.mask_norm),
        )
        norm = next((norm for part, norm in norms if name.startswith(part)), '')
    elif isinstance(backbone, ResNetSpec):
        rules, norm = _RESNET, backbone.norm
    elif isinstance(backbone, ResNeStSpec):
        rules, norm = _RESNEST, 'BN'
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name.replace('NORM', 'gn' if norm == 'GN' else 'bn')
