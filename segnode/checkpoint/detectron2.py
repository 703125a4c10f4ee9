# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Detectron2's configs and checkpoints, read without Detectron2.

A config is a YAML file that lays its keys over those of its ``_BASE_`` and those over
Detectron2's defaults (``detectron2/config/defaults.py``). Every key that changes the answer is
honoured or refused by name; keys that only matter in training are known and ignored.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from segnode.checkpoint.message import one_line
from segnode.checkpoint.state_dict import fit_state_dict
from segnode.checkpoint.yaml_file import read_yaml
from segnode.errors import CheckpointError, ConfigError
from segnode.model.architecture import Architecture
from segnode.model.backbone import BLOCKS_PER_STAGE
from segnode.model.mask_rcnn import expected_state_dict

# Every key that changes the answer, with Detectron2's default.
DEFAULTS: Final[dict[str, Any]] = {
    'VERSION': 2,
    'MODEL.META_ARCHITECTURE': 'GeneralizedRCNN',
    'MODEL.LOAD_PROPOSALS': False,
    'MODEL.MASK_ON': False,
    'MODEL.KEYPOINT_ON': False,
    'MODEL.WEIGHTS': '',
    'MODEL.PIXEL_MEAN': [103.53, 116.28, 123.675],
    'MODEL.PIXEL_STD': [1.0, 1.0, 1.0],
    'MODEL.BACKBONE.NAME': 'build_resnet_backbone',
    'MODEL.RESNETS.DEPTH': 50,
    'MODEL.RESNETS.OUT_FEATURES': ['res4'],
    'MODEL.RESNETS.NUM_GROUPS': 1,
    'MODEL.RESNETS.NORM': 'FrozenBN',
    'MODEL.RESNETS.WIDTH_PER_GROUP': 64,
    'MODEL.RESNETS.STRIDE_IN_1X1': True,
    'MODEL.RESNETS.RES5_DILATION': 1,
    'MODEL.RESNETS.RES2_OUT_CHANNELS': 256,
    'MODEL.RESNETS.STEM_OUT_CHANNELS': 64,
    'MODEL.RESNETS.DEFORM_ON_PER_STAGE': [False, False, False, False],
    'MODEL.FPN.IN_FEATURES': [],
    'MODEL.FPN.OUT_CHANNELS': 256,
    'MODEL.FPN.NORM': '',
    'MODEL.FPN.FUSE_TYPE': 'sum',
    'MODEL.PROPOSAL_GENERATOR.NAME': 'RPN',
    'MODEL.PROPOSAL_GENERATOR.MIN_SIZE': 0,
    'MODEL.ANCHOR_GENERATOR.NAME': 'DefaultAnchorGenerator',
    'MODEL.ANCHOR_GENERATOR.SIZES': [[32, 64, 128, 256, 512]],
    'MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS': [[0.5, 1.0, 2.0]],
    'MODEL.ANCHOR_GENERATOR.OFFSET': 0.0,
    'MODEL.RPN.HEAD_NAME': 'StandardRPNHead',
    'MODEL.RPN.IN_FEATURES': ['res4'],
    'MODEL.RPN.CONV_DIMS': [-1],
    'MODEL.RPN.BBOX_REG_WEIGHTS': [1.0, 1.0, 1.0, 1.0],
    'MODEL.RPN.PRE_NMS_TOPK_TEST': 6000,
    'MODEL.RPN.POST_NMS_TOPK_TEST': 1000,
    'MODEL.RPN.NMS_THRESH': 0.7,
    'MODEL.ROI_HEADS.NAME': 'Res5ROIHeads',
    'MODEL.ROI_HEADS.NUM_CLASSES': 80,
    'MODEL.ROI_HEADS.IN_FEATURES': ['res4'],
    'MODEL.ROI_HEADS.SCORE_THRESH_TEST': 0.05,
    'MODEL.ROI_HEADS.NMS_THRESH_TEST': 0.5,
    'MODEL.ROI_BOX_HEAD.NAME': '',
    'MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS': [10.0, 10.0, 5.0, 5.0],
    'MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION': 14,
    'MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO': 0,
    'MODEL.ROI_BOX_HEAD.POOLER_TYPE': 'ROIAlignV2',
    'MODEL.ROI_BOX_HEAD.NUM_FC': 0,
    'MODEL.ROI_BOX_HEAD.FC_DIM': 1024,
    'MODEL.ROI_BOX_HEAD.NUM_CONV': 0,
    'MODEL.ROI_BOX_HEAD.CONV_DIM': 256,
    'MODEL.ROI_BOX_HEAD.NORM': '',
    'MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG': False,
    'MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE': False,
    'MODEL.ROI_MASK_HEAD.NAME': 'MaskRCNNConvUpsampleHead',
    'MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION': 14,
    'MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO': 0,
    'MODEL.ROI_MASK_HEAD.POOLER_TYPE': 'ROIAlignV2',
    'MODEL.ROI_MASK_HEAD.NUM_CONV': 0,
    'MODEL.ROI_MASK_HEAD.CONV_DIM': 256,
    'MODEL.ROI_MASK_HEAD.NORM': '',
    'MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK': False,
    'INPUT.FORMAT': 'BGR',
    'INPUT.MIN_SIZE_TEST': 800,
    'INPUT.MAX_SIZE_TEST': 1333,
    'TEST.DETECTIONS_PER_IMAGE': 100,
    'TEST.AUG.ENABLED': False,
}

# The one value of a key that this node can run.
_REQUIRED: Final[dict[str, Any]] = {
    'MODEL.META_ARCHITECTURE': 'GeneralizedRCNN',
    'MODEL.LOAD_PROPOSALS': False,
    'MODEL.MASK_ON': True,
    'MODEL.KEYPOINT_ON': False,
    'MODEL.BACKBONE.NAME': 'build_resnet_fpn_backbone',
    'MODEL.RESNETS.OUT_FEATURES': ['res2', 'res3', 'res4', 'res5'],
    'MODEL.RESNETS.RES5_DILATION': 1,
    'MODEL.RESNETS.DEFORM_ON_PER_STAGE': [False, False, False, False],
    'MODEL.FPN.IN_FEATURES': ['res2', 'res3', 'res4', 'res5'],
    'MODEL.PROPOSAL_GENERATOR.NAME': 'RPN',
    'MODEL.ANCHOR_GENERATOR.NAME': 'DefaultAnchorGenerator',
    'MODEL.RPN.HEAD_NAME': 'StandardRPNHead',
    'MODEL.RPN.IN_FEATURES': ['p2', 'p3', 'p4', 'p5', 'p6'],
    'MODEL.ROI_HEADS.NAME': 'StandardROIHeads',
    'MODEL.ROI_HEADS.IN_FEATURES': ['p2', 'p3', 'p4', 'p5'],
    'MODEL.ROI_BOX_HEAD.NAME': 'FastRCNNConvFCHead',
    'MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE': False,
    'MODEL.ROI_MASK_HEAD.NAME': 'MaskRCNNConvUpsampleHead',
    'TEST.AUG.ENABLED': False,
}

# Keys, and sections where they end in a dot, that a Mask R-CNN's answer does not depend on.
IGNORED: Final = (
    'CUDNN_BENCHMARK',
    'DATALOADER.',
    'DATASETS.',
    'FLOAT32_PRECISION',
    'GLOBAL.',
    'INPUT.CROP.',
    'INPUT.MASK_FORMAT',
    'INPUT.MAX_SIZE_TRAIN',
    'INPUT.MIN_SIZE_TRAIN',
    'INPUT.MIN_SIZE_TRAIN_SAMPLING',
    'INPUT.RANDOM_FLIP',
    'MODEL.ANCHOR_GENERATOR.ANGLES',
    'MODEL.BACKBONE.FREEZE_AT',
    'MODEL.DEVICE',
    'MODEL.PANOPTIC_FPN.',
    'MODEL.RESNETS.DEFORM_MODULATED',
    'MODEL.RESNETS.DEFORM_NUM_GROUPS',
    'MODEL.RETINANET.',
    'MODEL.ROI_BOX_CASCADE_HEAD.',
    'MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE',
    'MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT',
    'MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER',
    'MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES',
    'MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA',
    'MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES',
    'MODEL.ROI_BOX_HEAD.USE_FED_LOSS',
    'MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE',
    'MODEL.ROI_HEADS.IOU_LABELS',
    'MODEL.ROI_HEADS.IOU_THRESHOLDS',
    'MODEL.ROI_HEADS.POSITIVE_FRACTION',
    'MODEL.ROI_HEADS.PROPOSAL_APPEND_GT',
    'MODEL.ROI_KEYPOINT_HEAD.',
    'MODEL.RPN.BATCH_SIZE_PER_IMAGE',
    'MODEL.RPN.BBOX_REG_LOSS_TYPE',
    'MODEL.RPN.BBOX_REG_LOSS_WEIGHT',
    'MODEL.RPN.BOUNDARY_THRESH',
    'MODEL.RPN.IOU_LABELS',
    'MODEL.RPN.IOU_THRESHOLDS',
    'MODEL.RPN.LOSS_WEIGHT',
    'MODEL.RPN.POSITIVE_FRACTION',
    'MODEL.RPN.POST_NMS_TOPK_TRAIN',
    'MODEL.RPN.PRE_NMS_TOPK_TRAIN',
    'MODEL.RPN.SMOOTH_L1_BETA',
    'MODEL.SEM_SEG_HEAD.',
    'OUTPUT_DIR',
    'SEED',
    'SOLVER.',
    'TEST.AUG.FLIP',
    'TEST.AUG.MAX_SIZE',
    'TEST.AUG.MIN_SIZES',
    'TEST.EVAL_PERIOD',
    'TEST.EXPECTED_RESULTS',
    'TEST.KEYPOINT_OKS_SIGMAS',
    'TEST.PRECISE_BN.',
    'VIS_PERIOD',
)

_LEVELS: Final = 5
_LONGEST_CHAIN: Final = 32
_BATCH_NORMS: Final = ('FrozenBN', 'BN', 'SyncBN', 'nnSyncBN', 'naiveSyncBN', 'naiveSyncBN_N')
_BATCH_NORM_EPS: Final = 1e-5
_NORM_TENSORS: Final = ('weight', 'bias', 'running_mean', 'running_var')
# The layers that a NORM key puts batch norms behind; the backbone's are the network's own.
_NORMED: Final = {
    'MODEL.FPN.NORM': 'backbone.fpn_',
    'MODEL.ROI_BOX_HEAD.NORM': 'roi_heads.box_head.conv',
    'MODEL.ROI_MASK_HEAD.NORM': 'roi_heads.mask_head.mask_fcn',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Detectron2Config:
    """What a Detectron2 config says.

    Attributes:
        architecture: the model.
        weights: MODEL.WEIGHTS as it stands, empty for none.
        weights_folder: folder of the file that names the weights.
        normed: prefixes of layers outside the backbone whose batch norm is folded on loading.
    """

    architecture: Architecture
    weights: str
    weights_folder: Path
    normed: tuple[str, ...]


def read_config(path: Path) -> Detectron2Config:
    """Read a Detectron2 config, its ``_BASE_`` chain first.

    Raises:
        CheckpointError: a file is missing, no YAML, asks for code to be run, or is its own base.
        ConfigError: a key is unknown, has no usable value, or asks for another architecture.
    """
    keys = _Keys(path, _merge(path, ()))
    keys.choice('VERSION', DEFAULTS['VERSION'])
    for key, required in _REQUIRED.items():
        keys.require(key, required)
    return Detectron2Config(
        architecture=_architecture(keys),
        weights=keys.text('MODEL.WEIGHTS'),
        weights_folder=keys.source('MODEL.WEIGHTS').parent,
        normed=tuple(
            prefix for key, prefix in _NORMED.items() if keys.choice(key, '', *_BATCH_NORMS)
        ),
    )


def fit_weights(
    tensors: Mapping[str, Tensor],
    architecture: Architecture,
    normed: tuple[str, ...],
    path: Path,
) -> dict[str, Tensor]:
    """Return the state dict of ``MaskRCNN(architecture)``, checked and in float32.

    Args:
        tensors: what the file holds.
        architecture: the network.
        normed: from ``Detectron2Config``.
        path: the file, for the message.

    Raises:
        CheckpointError: the tensors are not those of the architecture.
    """
    expected: dict[str, Sequence[int]] = dict(expected_state_dict(architecture))
    layers = [
        name.removesuffix('.bias')
        for name in expected
        if name.startswith(normed) and name.endswith('.bias')
    ]
    for layer in layers:
        shape = expected.pop(f'{layer}.bias')
        expected.update({f'{layer}.norm.{name}': shape for name in _NORM_TENSORS})
    state = fit_state_dict(tensors, expected, path)
    for layer in layers:
        gamma, beta, mean, variance = (
            state.pop(f'{layer}.norm.{name}').double() for name in _NORM_TENSORS
        )
        scale = gamma * torch.rsqrt(variance + _BATCH_NORM_EPS)
        weight = state[f'{layer}.weight'].double() * scale[:, None, None, None]
        state[f'{layer}.weight'] = weight.float()
        state[f'{layer}.bias'] = (beta - mean * scale).float()
    return state


def _merge(path: Path, chain: tuple[Path, ...]) -> dict[str, tuple[Any, Path]]:
    """Return value and file of every key of a config and its bases, by dotted name."""
    resolved = path.resolve()
    if resolved in chain or len(chain) == _LONGEST_CHAIN:
        raise CheckpointError(
            f'{path}: expected another config as _BASE_, found one that is its own base'
        )
    content = read_yaml(path, 'a Detectron2 config')
    base = content.pop('_BASE_', [])
    bases = [base] if isinstance(base, str) else base
    if not isinstance(bases, list) or not all(isinstance(name, str) for name in bases):
        raise ConfigError(f'{path}: _BASE_: expected the name of a config, found {base!r}')
    merged: dict[str, tuple[Any, Path]] = {}
    for name in bases:
        if '://' in name:
            raise ConfigError(f'{path}: _BASE_: expected a file, found {one_line(name)}')
        merged.update(_merge(path.parent / Path(name).expanduser(), (*chain, resolved)))
    _flatten(content, '', path, merged)
    return merged


def _flatten(
    content: Mapping[str, Any], prefix: str, path: Path, merged: dict[str, tuple[Any, Path]]
) -> None:
    """Lay the known keys of one file over ``merged``; refuse the unknown ones."""
    for name, value in content.items():
        key = f'{prefix}{name}'
        if key in IGNORED or f'{key}.' in IGNORED:
            continue
        if key in DEFAULTS:
            merged[key] = (_literal(value), path)
        elif any(known.startswith(f'{key}.') for known in _KNOWN):
            if not isinstance(value, dict):
                raise ConfigError(f'{path}: {key}: expected keys under it, found {value!r:.60}')
            _flatten(value, f'{key}.', path, merged)
        else:
            raise ConfigError(
                f'{path}: {one_line(key)}: expected a key of Detectron2, found {_like(key)}'
            )


_KNOWN: Final = (*DEFAULTS, *IGNORED)


def _like(key: str) -> str:
    names = [known.rstrip('.') for known in _KNOWN]
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    return f'one that is not known here; did you mean {near[0]}?' if near else 'an unknown one'


def _literal(value: Any) -> Any:
    """Read a text such as ``(1, 2)`` as the literal it spells, as Detectron2 does."""
    if isinstance(value, str) and len(value) < 1000:
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return value
    return list(value) if isinstance(value, tuple) else value


class _Keys:
    """The keys of one config, checked as they are taken."""

    def __init__(self, path: Path, given: Mapping[str, tuple[Any, Path]]) -> None:
        self._path = path
        self._given = given

    def source(self, key: str) -> Path:
        """Return the file that sets a key."""
        return self._given[key][1] if key in self._given else self._path

    def value(self, key: str) -> Any:
        return self._given[key][0] if key in self._given else DEFAULTS[key]

    def error(self, key: str, expected: str) -> ConfigError:
        found = repr(self.value(key))
        if len(found) > 80:
            found = f'{found[:77]}...'
        default = '' if key in self._given else " (Detectron2's default)"
        return ConfigError(
            f'{self.source(key)}: {key}: expected {expected}, found {found}{default}'
        )

    def require(self, key: str, required: Any) -> None:
        value = self.value(key)
        if value != required or type(value) is not type(required):
            raise self.error(key, f'{required!r} (Mask R-CNN with ResNet and FPN)')

    def text(self, key: str) -> str:
        value = self.value(key)
        if not isinstance(value, str):
            raise self.error(key, 'a text')
        return value

    def choice(self, key: str, *choices: Any) -> Any:
        value = self.value(key)
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            one_of = 'one of ' if len(choices) > 1 else ''
            raise self.error(key, one_of + ', '.join(map(repr, choices)))
        return value

    def flag(self, key: str) -> bool:
        return bool(self.choice(key, True, False))

    def integer(self, key: str, low: int, high: int) -> int:
        value = self.value(key)
        if type(value) is not int or not low <= value <= high:
            raise self.error(key, f'an integer from {low} to {high}')
        return value

    def number(self, key: str, low: float, high: float) -> float:
        value = self.value(key)
        if not _is_number(value) or not low <= value <= high:
            raise self.error(key, f'a number from {low:g} to {high:g}')
        return float(value)

    def numbers(self, key: str, count: int, *, positive: bool = False) -> tuple[float, ...]:
        value = self.value(key)
        if (
            not isinstance(value, list)
            or len(value) != count
            or not all(_is_number(v) and (v > 0 or not positive) for v in value)
        ):
            raise self.error(key, f'{count} {"positive " if positive else ""}numbers')
        return tuple(float(v) for v in value)

    def levels(self, key: str) -> tuple[tuple[float, ...], ...]:
        """Return numbers by pyramid level; one list serves all (``_broadcast_params``)."""
        value = self.value(key)
        lists = value if isinstance(value, list) else []
        if lists and all(_is_number(v) for v in lists):
            lists = [lists]
        lists = [list(row) for row in lists if isinstance(row, list | tuple)]
        if len(lists) == 1:
            lists = lists * _LEVELS
        if (
            len(lists) != _LEVELS
            or len({len(row) for row in lists}) != 1
            or not all(row and all(_is_number(v) and v > 0 for v in row) for row in lists)
        ):
            raise self.error(key, f'1 or {_LEVELS} equally long lists of positive numbers')
        return tuple(tuple(float(v) for v in row) for row in lists)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9  # type: ignore[arg-type]


def _architecture(keys: _Keys) -> Architecture:
    """Translate the keys, all of them checked."""
    keys.choice('MODEL.RESNETS.NORM', *_BATCH_NORMS)
    depth = keys.choice('MODEL.RESNETS.DEPTH', *BLOCKS_PER_STAGE)
    if depth < 50:
        keys.choice('MODEL.RESNETS.RES2_OUT_CHANNELS', 64)  # as Detectron2 demands
        keys.choice('MODEL.RESNETS.NUM_GROUPS', 1)
    fpn_channels = keys.integer('MODEL.FPN.OUT_CHANNELS', 1, 65536)
    box, mask = 'MODEL.ROI_BOX_HEAD', 'MODEL.ROI_MASK_HEAD'
    box_convs = keys.integer(f'{box}.NUM_CONV', 0, 64)
    box_fcs = keys.integer(f'{box}.NUM_FC', 0 if box_convs else 1, 64)
    mask_convs = keys.integer(f'{mask}.NUM_CONV', 0, 64)
    mask_dim = keys.integer(f'{mask}.CONV_DIM', 1, 65536)
    if not mask_convs and mask_dim != fpn_channels:
        raise keys.error(f'{mask}.CONV_DIM', 'MODEL.FPN.OUT_CHANNELS where NUM_CONV is 0')
    rpn_convs = keys.value('MODEL.RPN.CONV_DIMS')
    if (
        not isinstance(rpn_convs, list)
        or not 1 <= len(rpn_convs) <= 64
        or not all(type(dim) is int and (dim == -1 or 1 <= dim <= 65536) for dim in rpn_convs)
    ):
        raise keys.error('MODEL.RPN.CONV_DIMS', 'numbers of channels, -1 for those of the FPN')
    offset = keys.number('MODEL.ANCHOR_GENERATOR.OFFSET', 0, 1)
    if offset == 1:
        raise keys.error('MODEL.ANCHOR_GENERATOR.OFFSET', 'less than 1')
    rpn_weights = keys.numbers('MODEL.RPN.BBOX_REG_WEIGHTS', 4, positive=True)
    box_weights = keys.numbers(f'{box}.BBOX_REG_WEIGHTS', 4, positive=True)
    mean = keys.numbers('MODEL.PIXEL_MEAN', 3)
    std = keys.numbers('MODEL.PIXEL_STD', 3, positive=True)
    aligned = {'ROIAlignV2': True, 'ROIAlign': False}
    return Architecture(
        family='detectron2',
        depth=depth,
        num_groups=keys.integer('MODEL.RESNETS.NUM_GROUPS', 1, 4096),
        width_per_group=keys.integer('MODEL.RESNETS.WIDTH_PER_GROUP', 1, 4096),
        stem_out_channels=keys.integer('MODEL.RESNETS.STEM_OUT_CHANNELS', 1, 4096),
        res2_out_channels=keys.integer('MODEL.RESNETS.RES2_OUT_CHANNELS', 1, 4096),
        stride_in_1x1=keys.flag('MODEL.RESNETS.STRIDE_IN_1X1'),
        norm_eps=_BATCH_NORM_EPS,
        fpn_channels=fpn_channels,
        fpn_fuse=keys.choice('MODEL.FPN.FUSE_TYPE', 'sum', 'avg'),
        anchor_sizes=keys.levels('MODEL.ANCHOR_GENERATOR.SIZES'),
        anchor_ratios=keys.levels('MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS'),
        anchor_offset=offset,
        rpn_conv_dims=tuple(rpn_convs),
        rpn_bbox_weights=(rpn_weights[0], rpn_weights[1], rpn_weights[2], rpn_weights[3]),
        rpn_pre_nms_topk=keys.integer('MODEL.RPN.PRE_NMS_TOPK_TEST', 1, 100_000),
        rpn_post_nms_topk=keys.integer('MODEL.RPN.POST_NMS_TOPK_TEST', 1, 100_000),
        rpn_nms_threshold=keys.number('MODEL.RPN.NMS_THRESH', 0, 1),
        rpn_min_size=keys.number('MODEL.PROPOSAL_GENERATOR.MIN_SIZE', 0, 1e6),
        box_pooler_resolution=keys.integer(f'{box}.POOLER_RESOLUTION', 1, 256),
        box_sampling_ratio=keys.integer(f'{box}.POOLER_SAMPLING_RATIO', 0, 64),
        box_aligned=aligned[keys.choice(f'{box}.POOLER_TYPE', *aligned)],
        box_conv_dims=(keys.integer(f'{box}.CONV_DIM', 1, 65536),) * box_convs,
        box_fc_dims=(keys.integer(f'{box}.FC_DIM', 1, 65536),) * box_fcs,
        box_cls_agnostic=keys.flag(f'{box}.CLS_AGNOSTIC_BBOX_REG'),
        box_bbox_weights=(box_weights[0], box_weights[1], box_weights[2], box_weights[3]),
        mask_pooler_resolution=keys.integer(f'{mask}.POOLER_RESOLUTION', 1, 256),
        mask_sampling_ratio=keys.integer(f'{mask}.POOLER_SAMPLING_RATIO', 0, 64),
        mask_aligned=aligned[keys.choice(f'{mask}.POOLER_TYPE', *aligned)],
        mask_conv_dims=(mask_dim,) * mask_convs,
        mask_cls_agnostic=keys.flag(f'{mask}.CLS_AGNOSTIC_MASK'),
        num_classes=keys.integer('MODEL.ROI_HEADS.NUM_CLASSES', 1, 65_535),
        score_threshold=keys.number('MODEL.ROI_HEADS.SCORE_THRESH_TEST', 0, 1),
        nms_threshold=keys.number('MODEL.ROI_HEADS.NMS_THRESH_TEST', 0, 1),
        max_instances=keys.integer('TEST.DETECTIONS_PER_IMAGE', 1, 1000),
        color=keys.choice('INPUT.FORMAT', 'BGR', 'RGB'),
        pixel_mean=(mean[0], mean[1], mean[2]),
        pixel_std=(std[0], std[1], std[2]),
        short_side=keys.integer('INPUT.MIN_SIZE_TEST', 0, 65536),
        long_side=keys.integer('INPUT.MAX_SIZE_TEST', 1, 65536),
    )
