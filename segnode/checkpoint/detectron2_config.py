# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Detectron2's configs without Detectron2: from a file to an architecture, and back to its keys.

A config is a YAML file that lays its keys over those of its ``_BASE_`` and those over
Detectron2's defaults (``detectron2/config/defaults.py``). Every key that changes the answer is
honoured or refused by name; keys that only matter in training are known and ignored.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from segnode.checkpoint.message import one_line
from segnode.checkpoint.other_configs import (
    check_language,
    check_library,
    describe_key,
    describe_value,
)
from segnode.checkpoint.yaml_file import read_yaml
from segnode.config import MOST_INSTANCES, user_path
from segnode.errors import CheckpointError, ConfigError
from segnode.model.architecture import DETECTRON2, Architecture, Pooler
from segnode.model.backbone.resnet import BLOCKS_PER_STAGE
from segnode.model.backbone_specs import ResNetSpec
from segnode.model.conv import GROUPS

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

# Of the norms in every Detectron2 model; no key tells it.
NORM_EPS: Final = 1e-5

_LEVELS: Final = 5
_LONGEST_CHAIN: Final = 32
_BATCH_NORMS: Final = ('FrozenBN', 'BN', 'SyncBN', 'nnSyncBN', 'naiveSyncBN', 'naiveSyncBN_N')
_ALIGNED: Final = {'ROIAlignV2': True, 'ROIAlign': False}
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


def read_config(path: Path, report: Callable[[str], None] = lambda _: None) -> Detectron2Config:
    """Read a Detectron2 config, its ``_BASE_`` chain first.

    Args:
        path: the config.
        report: is told of a key that asks for what is not done, as Detectron2's own predictor
            does not do it.

    Raises:
        CheckpointError: a file is missing, no YAML, asks for code to be run, or is its own base.
        ConfigError: a key is unknown, has no usable value, or asks for another architecture.
    """
    keys = _Keys(path, _merge(path, ()))
    keys.choice('VERSION', DEFAULTS['VERSION'])
    for key, required in _REQUIRED.items():
        keys.require(key, required)
    if keys.flag('TEST.AUG.ENABLED'):
        report(
            f'{keys.source("TEST.AUG.ENABLED")}: TEST.AUG.ENABLED: ignored, as by '
            "Detectron2's DefaultPredictor; every image is looked at once"
        )
    return Detectron2Config(
        architecture=_architecture(keys),
        weights=keys.text('MODEL.WEIGHTS'),
        weights_folder=keys.source('MODEL.WEIGHTS').parent,
        normed=tuple(prefix for key, prefix in _NORMED.items() if keys.value(key) in _BATCH_NORMS),
    )


def config_keys(architecture: Architecture) -> dict[str, Any]:
    """Return every key that an architecture is read from, by dotted name.

    The inverse of ``read_config``: all of ``DEFAULTS`` but MODEL.WEIGHTS, in their order; new
    lists, numbers and texts.

    Raises:
        ConfigError: no value of the keys tells this architecture.
    """
    if not isinstance(architecture.backbone, ResNetSpec):
        raise ConfigError(
            "expected an architecture that Detectron2's keys can tell, found one whose backbone "
            'they cannot'
        )
    keys = copy.deepcopy(DEFAULTS | _REQUIRED | _values_of(architecture))
    del keys['MODEL.WEIGHTS']
    path = Path('(architecture)')
    found = _architecture(_Keys(path, {key: (value, path) for key, value in keys.items()}))
    fields = (field.name for field in dataclasses.fields(Architecture))
    if lost := [name for name in fields if getattr(found, name) != getattr(architecture, name)]:
        raise ConfigError(
            "expected an architecture that Detectron2's keys can tell, found one whose "
            f'{", ".join(lost)} they cannot'
        )
    return keys


def _merge(path: Path, chain: tuple[Path, ...]) -> dict[str, tuple[Any, Path]]:
    """Return value and file of every key of a config and its bases, by dotted name."""
    resolved = path.resolve()
    if resolved in chain or len(chain) == _LONGEST_CHAIN:
        raise CheckpointError(
            f'{path}: expected another config as _BASE_, found one that is its own base'
        )
    check_language(path)
    content = read_yaml(path, 'a Detectron2 config')
    check_library(content, path)
    base = content.pop('_BASE_', [])
    bases = [base] if isinstance(base, str) else base
    if not isinstance(bases, list) or not all(isinstance(name, str) for name in bases):
        raise ConfigError(f'{path}: _BASE_: expected the name of a config, found {base!r}')
    merged: dict[str, tuple[Any, Path]] = {}
    for name in bases:
        if '://' in name:
            raise ConfigError(f'{path}: _BASE_: expected a file, found {one_line(name)}')
        merged.update(_merge(path.parent / user_path(name), (*chain, resolved)))
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
            found = describe_key(key) or _like(key)
            raise ConfigError(
                f'{path}: {one_line(key)}: expected a key of Detectron2, found {found}'
            )


_KNOWN: Final = (*DEFAULTS, *IGNORED)
_PREFIXES: Final = tuple(
    dict.fromkeys(
        '.'.join(parts[:length])
        for parts in (known.rstrip('.').split('.') for known in _KNOWN)
        for length in range(1, len(parts) + 1)
    )
)
# Of letters that two names share before one can be the other misspelt.
_ALIKE: Final = 0.8


def _like(key: str) -> str:
    near = max(_PREFIXES, key=lambda known: _likeness(key, known))
    if _likeness(key, near) < _ALIKE:
        return 'an unknown one'
    return f'one that is not known here; did you mean {near}?'


def _likeness(key: str, known: str) -> float:
    """Return how alike the least alike parts of two dotted names are, 0 to 1."""
    parts, theirs = key.upper().split('.'), known.split('.')
    if len(parts) != len(theirs):
        return 0.0
    pairs = zip(parts, theirs, strict=True)
    return min(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)


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
            error = self.error(key, f'{required!r} (Mask R-CNN with ResNet and FPN)')
            meaning = describe_value(value)
            raise ConfigError(f'{error}: {meaning}') if meaning else error

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


def _pooler(keys: _Keys, head: str) -> Pooler:
    return Pooler(
        resolution=keys.integer(f'{head}.POOLER_RESOLUTION', 1, 256),
        sampling_ratio=keys.integer(f'{head}.POOLER_SAMPLING_RATIO', 0, 64),
        aligned=_ALIGNED[keys.choice(f'{head}.POOLER_TYPE', *_ALIGNED)],
    )


def _group_norm(keys: _Keys, section: str, *channels: int) -> Literal['', 'GN']:
    """Return the norm of a section's convolutions; batch norms are folded into them."""
    key = f'{section}.NORM'
    if keys.choice(key, '', *_BATCH_NORMS, 'GN') != 'GN':
        return ''
    if odd := [count for count in channels if count % GROUPS]:
        raise keys.error(key, f"a norm for {odd[0]} channels ('GN' takes multiples of {GROUPS})")
    return 'GN'


def _backbone_norm(keys: _Keys) -> Literal['BN', 'GN']:
    """Return the norm of the ResNet, without which it would have no biases either."""
    keys.choice('MODEL.RESNETS.NORM', *_BATCH_NORMS, 'GN')
    section = 'MODEL.RESNETS'
    widths = [
        keys.value(f'{section}.STEM_OUT_CHANNELS'),
        keys.value(f'{section}.RES2_OUT_CHANNELS'),
    ]
    if keys.value(f'{section}.DEPTH') >= 50:
        groups = keys.value(f'{section}.NUM_GROUPS')
        widths.append(groups * keys.value(f'{section}.WIDTH_PER_GROUP'))
    return _group_norm(keys, section, *widths) or 'BN'


def _most_instances(keys: _Keys) -> int:
    """Return how many detections are kept; a negative number keeps all that can be labelled."""
    key = 'TEST.DETECTIONS_PER_IMAGE'
    value = keys.value(key)
    if type(value) is not int or value == 0 or value > MOST_INSTANCES:
        raise keys.error(key, f'an integer from 1 to {MOST_INSTANCES}, or -1 for all')
    return value if value > 0 else MOST_INSTANCES


def _architecture(keys: _Keys) -> Architecture:
    """Translate the keys, all of them checked."""
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
    return Architecture(
        semantics=DETECTRON2,
        backbone=ResNetSpec(
            depth=depth,
            num_groups=keys.integer('MODEL.RESNETS.NUM_GROUPS', 1, 4096),
            width_per_group=keys.integer('MODEL.RESNETS.WIDTH_PER_GROUP', 1, 4096),
            stem_out_channels=keys.integer('MODEL.RESNETS.STEM_OUT_CHANNELS', 1, 4096),
            res2_out_channels=keys.integer('MODEL.RESNETS.RES2_OUT_CHANNELS', 1, 4096),
            stride_in_1x1=keys.flag('MODEL.RESNETS.STRIDE_IN_1X1'),
            norm=_backbone_norm(keys),
        ),
        norm_eps=NORM_EPS,
        fpn_channels=fpn_channels,
        fpn_norm=_group_norm(keys, 'MODEL.FPN', fpn_channels),
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
        box_pooler=_pooler(keys, box),
        box_conv_dims=(keys.integer(f'{box}.CONV_DIM', 1, 65536),) * box_convs,
        box_norm=_group_norm(keys, box, *[keys.value(f'{box}.CONV_DIM')] * box_convs),
        box_fc_dims=(keys.integer(f'{box}.FC_DIM', 1, 65536),) * box_fcs,
        box_cls_agnostic=keys.flag(f'{box}.CLS_AGNOSTIC_BBOX_REG'),
        box_bbox_weights=(box_weights[0], box_weights[1], box_weights[2], box_weights[3]),
        mask_pooler=_pooler(keys, mask),
        mask_conv_dims=(mask_dim,) * mask_convs,
        mask_norm=_group_norm(keys, mask, *[mask_dim] * mask_convs),
        mask_cls_agnostic=keys.flag(f'{mask}.CLS_AGNOSTIC_MASK'),
        num_classes=keys.integer('MODEL.ROI_HEADS.NUM_CLASSES', 1, 65_535),
        score_threshold=keys.number('MODEL.ROI_HEADS.SCORE_THRESH_TEST', 0, 1),
        nms_threshold=keys.number('MODEL.ROI_HEADS.NMS_THRESH_TEST', 0, 1),
        max_instances=_most_instances(keys),
        color=keys.choice('INPUT.FORMAT', 'BGR', 'RGB'),
        pixel_mean=(mean[0], mean[1], mean[2]),
        pixel_std=(std[0], std[1], std[2]),
        short_side=keys.integer('INPUT.MIN_SIZE_TEST', 0, 65536),
        long_side=keys.integer('INPUT.MAX_SIZE_TEST', 1, 65536),
    )


def _values_of(architecture: Architecture) -> dict[str, Any]:
    """Return the keys that ``_architecture`` translates, with the values it takes."""
    a, resnet = architecture, architecture.backbone
    assert isinstance(resnet, ResNetSpec)
    box, mask = 'MODEL.ROI_BOX_HEAD', 'MODEL.ROI_MASK_HEAD'
    # Its default is an int, and Detectron2 merges nothing else over it from a file.
    min_size = int(a.rpn_min_size) if a.rpn_min_size % 1 == 0 else a.rpn_min_size
    keys: dict[str, Any] = {
        'MODEL.PIXEL_MEAN': list(a.pixel_mean),
        'MODEL.PIXEL_STD': list(a.pixel_std),
        'MODEL.RESNETS.DEPTH': resnet.depth,
        'MODEL.RESNETS.NUM_GROUPS': resnet.num_groups,
        'MODEL.RESNETS.NORM': 'GN' if resnet.norm == 'GN' else 'FrozenBN',
        'MODEL.RESNETS.WIDTH_PER_GROUP': resnet.width_per_group,
        'MODEL.RESNETS.STRIDE_IN_1X1': resnet.stride_in_1x1,
        'MODEL.RESNETS.RES2_OUT_CHANNELS': resnet.res2_out_channels,
        'MODEL.RESNETS.STEM_OUT_CHANNELS': resnet.stem_out_channels,
        'MODEL.FPN.OUT_CHANNELS': a.fpn_channels,
        'MODEL.FPN.NORM': a.fpn_norm,
        'MODEL.FPN.FUSE_TYPE': a.fpn_fuse,
        'MODEL.PROPOSAL_GENERATOR.MIN_SIZE': min_size,
        'MODEL.ANCHOR_GENERATOR.SIZES': _level_lists(a.anchor_sizes),
        'MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS': _level_lists(a.anchor_ratios),
        'MODEL.ANCHOR_GENERATOR.OFFSET': a.anchor_offset,
        'MODEL.RPN.CONV_DIMS': list(a.rpn_conv_dims),
        'MODEL.RPN.BBOX_REG_WEIGHTS': list(a.rpn_bbox_weights),
        'MODEL.RPN.PRE_NMS_TOPK_TEST': a.rpn_pre_nms_topk,
        'MODEL.RPN.POST_NMS_TOPK_TEST': a.rpn_post_nms_topk,
        'MODEL.RPN.NMS_THRESH': a.rpn_nms_threshold,
        'MODEL.ROI_HEADS.NUM_CLASSES': a.num_classes,
        'MODEL.ROI_HEADS.SCORE_THRESH_TEST': a.score_threshold,
        'MODEL.ROI_HEADS.NMS_THRESH_TEST': a.nms_threshold,
        f'{box}.BBOX_REG_WEIGHTS': list(a.box_bbox_weights),
        f'{box}.NUM_FC': len(a.box_fc_dims),
        f'{box}.NUM_CONV': len(a.box_conv_dims),
        f'{box}.NORM': a.box_norm,
        f'{box}.CLS_AGNOSTIC_BBOX_REG': a.box_cls_agnostic,
        f'{mask}.NUM_CONV': len(a.mask_conv_dims),
        # Without convolutions it is the deconvolution's, which keeps the FPN's.
        f'{mask}.CONV_DIM': a.mask_conv_dims[0] if a.mask_conv_dims else a.fpn_channels,
        f'{mask}.NORM': a.mask_norm,
        f'{mask}.CLS_AGNOSTIC_MASK': a.mask_cls_agnostic,
        'INPUT.FORMAT': a.color,
        'INPUT.MIN_SIZE_TEST': a.short_side,
        'INPUT.MAX_SIZE_TEST': a.long_side,
        'TEST.DETECTIONS_PER_IMAGE': a.max_instances,
    }
    # One width serves all layers of a kind; where there are none, the default may stay.
    if a.box_fc_dims:
        keys[f'{box}.FC_DIM'] = a.box_fc_dims[0]
    if a.box_conv_dims:
        keys[f'{box}.CONV_DIM'] = a.box_conv_dims[0]
    for head, pooler in ((box, a.box_pooler), (mask, a.mask_pooler)):
        keys[f'{head}.POOLER_RESOLUTION'] = pooler.resolution
        keys[f'{head}.POOLER_SAMPLING_RATIO'] = pooler.sampling_ratio
        keys[f'{head}.POOLER_TYPE'] = next(
            name for name, aligned in _ALIGNED.items() if aligned == pooler.aligned
        )
    return keys


def _level_lists(levels: tuple[tuple[float, ...], ...]) -> list[list[float]]:
    """Return a list a level, or the one that serves all."""
    return [list(level) for level in (levels[:1] if len(set(levels)) == 1 else levels)]
