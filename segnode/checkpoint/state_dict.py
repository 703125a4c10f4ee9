# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Checking that weights are complete, of the right shapes, and numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from segnode.checkpoint.message import one_line
from segnode.checkpoint.other_configs import REMEDY
from segnode.errors import CheckpointError

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Which names give an architecture away, by the first rule that one matches.
_SIGNS: Final = tuple(
    (re.compile(pattern), architecture)
    for pattern, architecture in (
        (r'blobs', 'a Detectron1 checkpoint'),
        (
            r'backbone\.fpn\.inner_blocks\.0\.1\.|roi_heads\.mask_head\.0\.1\.',
            "torchvision's maskrcnn_resnet50_fpn_v2 (--model maskrcnn_resnet50_fpn_v2 takes it)",
        ),
        (
            r'roi_heads\.(mask_point_head|mask_coarse_head|mask_head\.(point|coarse)_head)\.',
            'a PointRend model',
        ),
        (r'roi_heads\.keypoint_(head|predictor)\.', 'a Keypoint R-CNN'),
        (r'roi_heads\.(densepose_|decoder\.)', 'a DensePose model'),
        (r'roi_heads\.box_(head|predictor)\.0\.(fc|conv|cls|bbox)\w*\.', 'a Cascade R-CNN'),
        (r'roi_heads\.res5\.', 'a C4 model (no FPN)'),
        (r'roi_head\.bbox_head\.0\.', 'a Cascade R-CNN of MMDetection'),
        (r'neck\.lateral_convs\.|rpn_head\.rpn_|roi_head\.', 'an MMDetection checkpoint'),
        (r'bbox_head\.', 'a one-stage detector of MMDetection'),
        (r'head\.(mask_pred|mask_subnet)', 'a TensorMask model'),
        (r'head\.classification_head\.module_list\.', "torchvision's SSD"),
        (r'head\.regression_head\.bbox_ctrness\.', "torchvision's FCOS"),
        (r'head\.ctrness\.', 'an FCOS'),
        (r'head\.(cls_|classification_head\.)', 'a RetinaNet'),
        (r'proposal_generator\.fcos_head\.|controller\.|basis_module\.', 'an AdelaiDet model'),
        (r'proposal_generator\.centernet_head\.', 'a CenterNet2 model'),
        (r'ins_embed_head\.', 'a Panoptic-DeepLab model'),
        (r'sem_seg_head\.(pixel_decoder|predictor)\.', 'a MaskFormer or Mask2Former'),
        (r'sem_seg_head\.', 'a panoptic or semantic segmentation model'),
        (r'(detr\.)?(transformer\.|class_embed\.|query_embed\.|bbox_attention\.)', 'a DETR'),
        (
            r'(backbone\.)?(bottom_up\.)?(net\.)?patch_embed\.',
            'a model with a transformer backbone',
        ),
        (r'\d+\.(conv|bn|cv\d|m|dfl|proto)\.', 'a YOLO'),
        (r'image_encoder\.|mask_decoder\.', 'a Segment Anything model'),
        (r'.*\.conv2(_|\.conv_)offset\.', 'a model with deformable convolutions'),
        (
            r'backbone\.body\.',
            'a torchvision checkpoint (--model maskrcnn_resnet50_fpn takes one)',
        ),
        (
            r'roi_heads\.box_head\.fc6\.',
            "torchvision's maskrcnn_resnet50_fpn (--model maskrcnn_resnet50_fpn takes it)",
        ),
        (r'backbone\.bottom_up\.', 'a Detectron2 checkpoint (--model takes its config)'),
    )
)
_HEADS: Final = (
    *('proposal_generator.', 'rpn.', 'roi_heads.', 'head.', 'sem_seg_head.'),
    *('neck.', 'rpn_head.', 'roi_head.', 'bbox_head.', 'mask_head.', 'ins_embed_head.'),
    *('transformer.', 'class_embed.', 'query_embed.', 'detr.'),
)
_BACKBONES: Final = ('stem.', 'res2.', 'conv1.', 'layer1.', 'backbone.', 'bottom_up.')
_EXPECTED: Final = 'a Mask R-CNN with FPN as the model says'
_BACKBONE: Final = (
    'a backbone alone, without RPN and RoI heads: weights to train from; '
    'name those of the trained model'
)


def is_surplus(name: str) -> bool:
    """Tell whether a tensor is one that checkpoints carry beside the weights."""
    return (
        name.startswith('pixel_') or 'cell_anchors' in name or name.endswith('num_batches_tracked')
    )


def fit_state_dict(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Sequence[int]],
    path: Path,
    norm_eps: float,
) -> dict[str, Tensor]:
    """Return exactly the expected tensors as contiguous float32.

    Args:
        tensors: what the file holds.
        expected: shape of every tensor by name.
        path: the file, for the message.
        norm_eps: what is added to a variance before it divides.

    Raises:
        CheckpointError: another architecture, a tensor missing or too many, a wrong shape or
            dtype, a value that is not finite, a variance that cannot divide.
    """
    names = [name for name in tensors if not is_surplus(name)]
    missing = [name for name in expected if name not in tensors]
    surplus = [name for name in names if name not in expected]
    if missing or surplus:
        raise CheckpointError(f'{path}: expected {_mismatch(names, missing, surplus, expected)}')
    return {
        name: _float32(name, tensors[name], shape, path, norm_eps)
        for name, shape in expected.items()
    }


def _mismatch(
    names: Sequence[str], missing: Sequence[str], surplus: Sequence[str], expected: Iterable[str]
) -> str:
    """Say in what the names differ from the expected ones."""
    expected = list(expected)
    found = next(
        (
            architecture
            for sign, architecture in _SIGNS
            if any(map(sign.match, names)) and not any(map(sign.match, expected))
        ),
        '',
    )
    without_masks = not any('.mask_' in name for name in names)
    if without_masks and re.match(r"a torchvision|torchvision's mask|a Detectron2 ", found):
        found = ''
    if not any(name.startswith(_HEADS) for name in names):
        if any(name.startswith(_BACKBONES) for name in names):
            return f'{_EXPECTED}, found {_BACKBONE}'
    elif not found and without_masks:
        found = 'a detector without masks, such as Faster R-CNN'
    if found:
        remedy = '' if '--model' in found else f'; {REMEDY}'
        return f'{_EXPECTED}, found {found}{remedy}'
    statistics = ('running_mean', 'running_var')
    if not surplus and all(name.endswith(statistics) for name in missing):
        return (
            'batch norms as the config says, found norms without statistics, as group norms are: '
            f'is it NORM: GN? (such as {missing[0]})'
        )
    if not missing and all(name.endswith(statistics) for name in surplus):
        return (
            'group norms as the config says, found the statistics of batch norms: is it NORM: '
            f'FrozenBN or SyncBN? (such as {one_line(surplus[0])})'
        )
    parts = []
    if missing:
        parts.append(f'{len(missing)} missing, such as {missing[0]}')
    if surplus:
        parts.append(
            f'{len(surplus)} that the model has no place for, such as {one_line(surplus[0])}'
        )
    return f'the tensors of the model, found {" and ".join(parts)}'


def _float32(
    name: str, tensor: Tensor, shape: Sequence[int], path: Path, norm_eps: float
) -> Tensor:
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
    if name.endswith('running_var'):
        if bool((converted < 0).any()):
            raise CheckpointError(f'{path}: {name}: expected variances, found a negative number')
        if norm_eps == 0 and bool((converted == 0).any()):
            raise CheckpointError(
                f'{path}: {name}: expected variances above 0, as norm_eps is 0, found 0'
            )
    return converted


def _by_class(name: str) -> bool:
    return (
        '.box_predictor.' in name or 'mask_head.predictor.' in name or '.mask_predictor.' in name
    )
