# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Checking that weights are complete, of the right shapes, and numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from segnode.checkpoint.message import one_line
from segnode.errors import CheckpointError

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Which names give an architecture away; the first rule whose prefix is found decides.
_SIGNS = (
    ('blobs', 'a Detectron1 checkpoint'),
    ('backbone.fpn.inner_blocks.0.1.', "torchvision's maskrcnn_resnet50_fpn_v2"),
    ('backbone.body.', 'a torchvision checkpoint (--model maskrcnn_resnet50_fpn takes one)'),
    ('head.cls_', 'a RetinaNet'),
    ('head.classification_head.', 'a RetinaNet'),
    ('sem_seg_head.', 'a panoptic or semantic segmentation model'),
    ('roi_heads.keypoint_head.', 'a Keypoint R-CNN'),
    ('roi_heads.box_head.0.', 'a Cascade R-CNN'),
    ('roi_heads.box_predictor.0.', 'a Cascade R-CNN'),
    ('roi_heads.res5.', 'a C4 model (no FPN)'),
    ('roi_heads.mask_point_head.', 'a PointRend model'),
    ('roi_heads.mask_coarse_head.', 'a PointRend model'),
    ('backbone.bottom_up.', 'a Detectron2 checkpoint (--model takes its config)'),
)
_HEADS = ('proposal_generator.', 'rpn.', 'roi_heads.', 'head.', 'sem_seg_head.')
_BACKBONES = ('stem.', 'res2.', 'conv1.', 'layer1.', 'backbone.', 'bottom_up.')


def is_surplus(name: str) -> bool:
    """Tell whether a tensor is one that checkpoints carry beside the weights."""
    return (
        name.startswith('pixel_') or 'cell_anchors' in name or name.endswith('num_batches_tracked')
    )


def fit_state_dict(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], path: Path
) -> dict[str, Tensor]:
    """Return exactly the expected tensors as contiguous float32.

    Args:
        tensors: what the file holds.
        expected: shape of every tensor by name.
        path: the file, for the message.

    Raises:
        CheckpointError: another architecture, a tensor missing or too many, a wrong shape or
            dtype, a value that is not finite, a negative variance.
    """
    names = [name for name in tensors if not is_surplus(name)]
    missing = [name for name in expected if name not in tensors]
    surplus = [name for name in names if name not in expected]
    if missing or surplus:
        raise CheckpointError(f'{path}: expected {_mismatch(names, missing, surplus, expected)}')
    return {name: _float32(name, tensors[name], shape, path) for name, shape in expected.items()}


def _mismatch(
    names: Sequence[str], missing: Sequence[str], surplus: Sequence[str], expected: Iterable[str]
) -> str:
    """Say in what the names differ from the expected ones."""
    found = ''
    for prefix, architecture in _SIGNS:
        if not any(name.startswith(prefix) for name in expected) and any(
            name.startswith(prefix) for name in names
        ):
            found = found or architecture
    if not any(name.startswith(_HEADS) for name in names):
        if any(name.startswith(_BACKBONES) for name in names):
            found = 'a backbone alone, without RPN and RoI heads: weights to train from'
    elif not any('.mask_' in name for name in names):
        found = found or 'a detector without masks, such as Faster R-CNN'
    if found:
        return f'a Mask R-CNN with FPN as the model says, found {found}'
    parts = []
    if missing:
        parts.append(f'{len(missing)} missing, such as {missing[0]}')
    if surplus:
        parts.append(
            f'{len(surplus)} that the model has no place for, such as {one_line(surplus[0])}'
        )
    return f'the tensors of the model, found {" and ".join(parts)}'


def _float32(name: str, tensor: Tensor, shape: Sequence[int], path: Path) -> Tensor:
    """Check one tensor before it is converted: a hostile one may claim any size."""
    if tuple(tensor.shape) != tuple(shape):
        raise CheckpointError(
            f'{path}: {name}: expected shape {tuple(shape)}, found {tuple(tensor.shape)}'
            + ('; is the number of classes right?' if _by_class(name) else '')
        )
    if tensor.dtype not in _FLOATS or tensor.layout != torch.strided or tensor.is_meta:
        raise CheckpointError(
            f'{path}: {name}: expected a dense float tensor, found {tensor.dtype}, {tensor.layout}'
        )
    converted = tensor.detach().to(torch.float32).contiguous()
    if not bool(torch.isfinite(converted).all()):
        raise CheckpointError(f'{path}: {name}: expected finite numbers, found NaN or infinity')
    if name.endswith('running_var') and bool((converted < 0).any()):
        raise CheckpointError(f'{path}: {name}: expected variances, found a negative number')
    return converted


def _by_class(name: str) -> bool:
    return (
        '.box_predictor.' in name or 'mask_head.predictor.' in name or '.mask_predictor.' in name
    )
