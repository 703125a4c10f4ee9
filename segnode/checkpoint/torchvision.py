# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""torchvision's Mask R-CNN checkpoints under Detectron2's names and class order.

``maskrcnn_resnet50_fpn`` is the first version, ``maskrcnn_resnet50_fpn_v2`` the second: batch
norms in FPN and heads, and more convolutions in these.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from segnode.checkpoint.folded_norms import fold, unfold, unfolded_shapes
from segnode.checkpoint.state_dict import fit_state_dict
from segnode.model.architecture import TORCHVISION, Architecture, Pooler
from segnode.model.backbone_specs import ResNetSpec
from segnode.model.mask_rcnn import expected_state_dict

# torchvision/models/detection/mask_rcnn.py and faster_rcnn.py; pixels in 0..255 here, 0..1 there.
ARCHITECTURE: Final = Architecture(
    semantics=TORCHVISION,
    backbone=ResNetSpec(stride_in_1x1=False),
    rpn_min_size=1e-3,
    box_pooler=Pooler(resolution=7, sampling_ratio=2, aligned=False, levels='torchvision'),
    mask_pooler=Pooler(resolution=14, sampling_ratio=2, aligned=False, levels='torchvision'),
    num_classes=90,
    color='RGB',
    pixel_mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
    pixel_std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
)
ARCHITECTURE_V2: Final = dataclasses.replace(
    ARCHITECTURE,
    rpn_conv_dims=(-1, -1),
    box_conv_dims=(256, 256, 256, 256),
    box_fc_dims=(1024,),
)
# Where the second version has batch norms beside the backbone's.
_NORMED_V2: Final = (
    'backbone.fpn_',
    'roi_heads.box_head.conv',
    'roi_heads.mask_head.mask_fcn',
)

# From the names of torchvision up to 0.12 to those of later versions.
_OLD_NAMES: Final = (
    (
        r'^backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(weight|bias)$',
        r'backbone.fpn.\1_blocks.\2.0.\3',
    ),
    (r'^rpn\.head\.conv\.(weight|bias)$', r'rpn.head.conv.0.0.\1'),
    (
        r'^roi_heads\.mask_head\.mask_fcn(\d)\.',
        lambda match: f'roi_heads.mask_head.{int(match[1]) - 1}.0.',
    ),
)
# From Detectron2's names to torchvision's; of a norm that is folded, the last rule makes one.
_NAMES: Final = (
    (r'^backbone\.bottom_up\.stem\.', 'backbone.body.'),
    (
        r'^backbone\.bottom_up\.res(\d)\.(\d+)\.',
        lambda match: f'backbone.body.layer{int(match[1]) - 1}.{match[2]}.',
    ),
    (r'\.conv(\d)\.norm\.', r'.bn\1.'),
    (r'\.shortcut\.norm\.', '.downsample.1.'),
    (r'\.shortcut\.', '.downsample.0.'),
    (
        r'^backbone\.fpn_lateral(\d)\.',
        lambda match: f'backbone.fpn.inner_blocks.{int(match[1]) - 2}.0.',
    ),
    (
        r'^backbone\.fpn_output(\d)\.',
        lambda match: f'backbone.fpn.layer_blocks.{int(match[1]) - 2}.0.',
    ),
    (r'^proposal_generator\.rpn_head\.conv\.conv(\d)\.', r'rpn.head.conv.\1.0.'),
    (r'^proposal_generator\.rpn_head\.conv\.', 'rpn.head.conv.0.0.'),
    (r'^proposal_generator\.rpn_head\.objectness_logits\.', 'rpn.head.cls_logits.'),
    (r'^proposal_generator\.rpn_head\.anchor_deltas\.', 'rpn.head.bbox_pred.'),
    (r'^roi_heads\.box_head\.fc1\.', 'roi_heads.box_head.fc6.'),
    (r'^roi_heads\.box_head\.fc2\.', 'roi_heads.box_head.fc7.'),
    (
        r'^roi_heads\.mask_head\.mask_fcn(\d)\.',
        lambda match: f'roi_heads.mask_head.{int(match[1]) - 1}.0.',
    ),
    (r'^roi_heads\.mask_head\.deconv\.', 'roi_heads.mask_predictor.conv5_mask.'),
    (r'^roi_heads\.mask_head\.predictor\.', 'roi_heads.mask_predictor.mask_fcn_logits.'),
    (r'\.0\.norm\.', '.1.'),
)
# Before those: the second version's box head is a sequence, with two layers between these.
_NAMES_V2: Final = (
    (
        r'^roi_heads\.box_head\.conv(\d)\.',
        lambda match: f'roi_heads.box_head.{int(match[1]) - 1}.0.',
    ),
    (r'^roi_heads\.box_head\.fc1\.', 'roi_heads.box_head.5.'),
)
# Rows of torchvision's background, class 0, that Detectron2 does not have.
_BACKGROUND_ROWS: Final = {
    'roi_heads.box_predictor.bbox_pred': 4,
    'roi_heads.mask_head.predictor': 1,
}
_MOST_CLASSES: Final = 65_535
# Of the batch norms of all but the published weights.
UNPUBLISHED_EPS: Final = 1e-5


def fit_weights(
    tensors: Mapping[str, Tensor],
    path: Path,
    *,
    architecture: Architecture = ARCHITECTURE,
    published: bool,
    norm_eps: float = -1.0,
    report: Callable[[str], None] = lambda _: None,
) -> tuple[Architecture, dict[str, Tensor]]:
    """Return the architecture and the state dict of ``MaskRCNN(architecture)``.

    Args:
        tensors: what the file holds, under torchvision's names of any version; the number of
            classes is free.
        path: the file, for the message.
        architecture: ``ARCHITECTURE`` or ``ARCHITECTURE_V2``.
        published: True for torchvision's own COCO weights; the batch norms of the first version's
            have an epsilon of 0 (``overwrite_eps`` in torchvision), all others' one of 1e-5.
        norm_eps: another epsilon, -1 for none.
        report: is told where the epsilon is a guess: batch norms that are frozen, which a model
            of the first version has that was fine-tuned, keep the epsilon of what it was
            fine-tuned from.

    Raises:
        CheckpointError: the tensors are not those of the architecture.
    """
    second = bool(architecture.box_conv_dims)
    tensors = {_rename(name, _OLD_NAMES): tensor for name, tensor in tensors.items()}
    logits = tensors.get('roi_heads.box_predictor.cls_score.bias')
    classes = ARCHITECTURE.num_classes
    if logits is not None:
        classes = min(max(logits.numel() - 1, 1), _MOST_CLASSES)
    if norm_eps < 0:
        norm_eps = 0.0 if published and not second else UNPUBLISHED_EPS
        # Batch norms that are trained count, and have this epsilon in torchvision.
        trained = any(name.endswith('.num_batches_tracked') for name in tensors)
        if not (published or trained or second):
            report(
                f'{path}: frozen batch norms taken with an epsilon of {norm_eps:g}; a model that '
                "was fine-tuned from torchvision's COCO weights has 0: set norm_eps to 0 "
                '(--norm-eps 0)'
            )
    architecture = dataclasses.replace(architecture, num_classes=classes, norm_eps=norm_eps)
    expected = expected_state_dict(architecture)
    layers = _normed(expected) if second else []
    shapes = unfolded_shapes(expected, layers)
    theirs = {
        _their_name(name, second): (shape[0] + _background(name), *shape[1:])
        for name, shape in shapes.items()
    }
    fitted = fit_state_dict(tensors, theirs, path, architecture.norm_eps)
    state = {name: fitted[_their_name(name, second)][_background(name) :] for name in shapes}
    fold(state, layers, architecture.norm_eps)
    for kind in ('weight', 'bias'):
        name = f'roi_heads.box_predictor.cls_score.{kind}'
        state[name] = state[name].roll(-1, dims=0)
    return architecture, {name: state[name] for name in expected}


def to_torchvision(
    state_dict: Mapping[str, Tensor], norm_eps: float = UNPUBLISHED_EPS
) -> dict[str, Tensor]:
    """Return a state dict of ``MaskRCNN(architecture)`` as torchvision names and orders it.

    The inverse of ``fit_weights``; rows that only torchvision's background has are zero. With
    convolutions in the box head it is one of the second version, whose folded norms do nothing.

    Args:
        state_dict: the network's.
        norm_eps: that torchvision's norms are to have.
    """
    second = 'roi_heads.box_head.conv1.weight' in state_dict
    theirs = {}
    for name, tensor in unfold(
        state_dict, _normed(state_dict) if second else (), norm_eps
    ).items():
        if name.startswith('roi_heads.box_predictor.cls_score.'):
            tensor = tensor.roll(1, dims=0)
        rows = tensor.new_zeros((_background(name), *tensor.shape[1:]))
        theirs[_their_name(name, second)] = torch.cat((rows, tensor))
    return theirs


def _normed(names: Iterable[str]) -> list[str]:
    """Return the layers whose batch norms, beside the backbone's, the second version has."""
    return [
        name.removesuffix('.bias')
        for name in names
        if name.startswith(_NORMED_V2) and name.endswith('.bias')
    ]


def _their_name(name: str, second: bool) -> str:
    return _rename(name, _NAMES_V2 + _NAMES if second else _NAMES)


def _background(name: str) -> int:
    return _BACKGROUND_ROWS.get(name.rpartition('.')[0], 0)


def _rename(name: str, rules: tuple[tuple[str, object], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)  # type: ignore[call-overload]
    return name
