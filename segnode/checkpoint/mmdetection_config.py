# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""MMDetection's configs, of 2.x and 3.x, as an architecture.

Every key of a part that decides the answer is honoured, known not to matter, or refused by name.
What a key does where it is not given, its classes say (``mmdet/models``).
"""

from __future__ import annotations

from typing import Any, Final, Literal

from segnode.checkpoint.config_part import REQUIRED, ConfigPart
from segnode.checkpoint.mmdetection_backbones import NORM_EPS, read_backbone, read_norm
from segnode.checkpoint.mmdetection_input import read_input
from segnode.config import MOST_INSTANCES
from segnode.model.architecture import MMDETECTION, Architecture, Pooler

_MOST_CLASSES: Final = 65_535
_LEVELS: Final = 5
_STRIDES: Final = (4, 8, 16, 32, 64)
# From this RoI's side on the second level is pooled from; twice as large, the third.
_FINEST_SCALE: Final = 56
# Boxes above which MMDetection suppresses class by class.
_SPLIT: Final = 10_000
_MOST_ANCHORS: Final = 64


def read_architecture(config: dict[str, Any], source: str) -> Architecture:
    """Return what a config's values describe.

    Args:
        config: from ``python_config``.
        source: names it in messages.

    Raises:
        ConfigError: a key asks for another architecture, is not known, or has no usable value.
    """
    whole = ConfigPart(config, '', source)
    model = whole.part('model', 'the model of a config of MMDetection')
    model.kind("'MaskRCNN'", 'MaskRCNN')
    model.ignore('train_cfg')
    given = read_input(whole, model)
    neck, rpn, roi = model.part('neck'), model.part('rpn_head'), model.part('roi_head')
    roi.kind("'StandardRoIHead'", 'StandardRoIHead')
    # Building a detector writes these of the model into its heads; a text taken then has them.
    roi.ignore('train_cfg', 'test_cfg', 'pretrained')
    rpn.ignore('train_cfg', 'test_cfg')
    roi.only('shared_head', None, hint='C4 models, without FPN, are not run')
    channels, fpn_norm = _neck(neck)
    box, mask = roi.part('bbox_head'), roi.part('mask_head')
    # Without one of its own the mask head would share the box head's.
    box_pooler = _pooler(roi.part('bbox_roi_extractor'))
    mask_pooler = _pooler(roi.part('mask_roi_extractor'))
    roi.end()
    # Before 2.8 both stood beside the model.
    test = (model if model.has('test_cfg') else whole).part('test_cfg')
    model.ignore('test_cfg')
    test.ignore('rpn_proposal')
    first, second = test.part('rpn'), test.part('rcnn')
    test.end()
    parts: dict[str, Any] = {
        **_rpn(rpn, channels),
        **_box_head(box, box_pooler.resolution),
        **_proposals(first),
        **_detections(second),
    }
    parts |= _mask_head(mask, channels, parts['num_classes'])
    backbone = read_backbone(model.part('backbone'))
    model.end()
    return Architecture(
        semantics=MMDETECTION,
        backbone=backbone,
        norm_eps=NORM_EPS,
        fpn_channels=channels,
        fpn_norm=fpn_norm,
        box_pooler=box_pooler,
        mask_pooler=mask_pooler,
        **parts,
        **given._asdict(),
    )


def _neck(part: ConfigPart) -> tuple[int, Literal['', 'GN']]:
    """Return channels and norm of the FPN."""
    part.kind("'FPN'", 'FPN')
    part.ignore('in_channels', 'relu_before_extra_convs', 'extra_convs_on_inputs')
    part.only('num_outs', REQUIRED, _LEVELS)
    part.only('start_level', 0)
    part.only('end_level', -1, 3)
    part.only('add_extra_convs', False)
    part.only('no_norm_on_lateral', False)
    part.only('conv_cfg', None)
    part.only('act_cfg', None)
    part.only('upsample_cfg', {'mode': 'nearest'})
    channels = part.integer('out_channels', REQUIRED, 1, 65536)
    norm = read_norm(part, '', channels)
    part.end()
    return channels, _group(norm)


def _rpn(part: ConfigPart, channels: int) -> dict[str, Any]:
    part.kind("'RPNHead'", 'RPNHead')
    part.ignore('in_channels', 'loss_bbox', 'reg_decoded_bbox')
    part.only('num_classes', 1)
    if part.has('loss_cls'):
        loss = part.part('loss_cls')
        loss.only('use_sigmoid', REQUIRED, True)
    hidden = part.integer('feat_channels', 256, 1, 65536)
    convs = part.integer('num_convs', 1, 1, 64)
    anchors = part.part('anchor_generator')
    deltas = _deltas(part, (1.0, 1.0, 1.0, 1.0))
    part.ignore('loss_cls')
    part.end()
    return {
        **_anchors(anchors),
        'rpn_conv_dims': (-1 if hidden == channels else hidden,) * convs,
        'rpn_bbox_weights': deltas,
    }


def _anchors(part: ConfigPart) -> dict[str, Any]:
    part.kind("'AnchorGenerator'", 'AnchorGenerator')
    part.ignore('use_box_type')
    part.only('strides', REQUIRED, _STRIDES, tuple((stride, stride) for stride in _STRIDES))
    part.only('scale_major', True)
    part.only('centers', None)
    for key in ('octave_base_scale', 'scales_per_octave'):
        part.only(key, None, hint='write the scales themselves')
    offset = part.number('center_offset', 0.0, 0, 0.999)
    scales = part.numbers('scales', REQUIRED, positive=True)
    ratios = part.numbers('ratios', REQUIRED, positive=True)
    if len(scales) * len(ratios) > _MOST_ANCHORS:
        raise part.error('scales', f'at most {_MOST_ANCHORS} anchors a place, with all ratios')
    bases = (
        part.numbers('base_sizes', None, _LEVELS, positive=True)
        if part.has('base_sizes')
        else tuple(map(float, _STRIDES))
    )
    part.ignore('base_sizes')
    part.end()
    return {
        'anchor_sizes': tuple(tuple(base * scale for scale in scales) for base in bases),
        'anchor_ratios': (ratios,) * _LEVELS,
        'anchor_offset': offset,
    }


def _deltas(part: ConfigPart, stds: tuple[float, ...]) -> tuple[float, ...]:
    """Return Detectron2's weights of the deltas, the reciprocals of MMDetection's stds."""
    if part.has('bbox_coder'):
        coder = part.part('bbox_coder')
        coder.kind("'DeltaXYWHBBoxCoder'", 'DeltaXYWHBBoxCoder')
        coder.ignore('ctr_clamp', 'use_box_type')
        coder.only('add_ctr_clamp', False)
        coder.only('clip_border', True)
        if any(coder.numbers('target_means', (0.0,) * 4, 4)):
            raise coder.error('target_means', '4 zeros')
        stds = coder.numbers('target_stds', (1.0,) * 4, 4, positive=True)
        coder.end()
    part.ignore('bbox_coder')
    return tuple(1 / std for std in stds)


def _pooler(part: ConfigPart) -> Pooler:
    part.kind("'SingleRoIExtractor'", 'SingleRoIExtractor')
    part.ignore('out_channels')
    part.only('finest_scale', _FINEST_SCALE)
    part.only('featmap_strides', REQUIRED, _STRIDES[:-1])
    layer = part.part('roi_layer')
    layer.kind("'RoIAlign'", 'RoIAlign')
    layer.ignore('use_torchvision')
    layer.only('pool_mode', 'avg')
    # Early versions call both differently.
    size = 'out_size' if layer.has('out_size') else 'output_size'
    ratio = 'sample_num' if layer.has('sample_num') else 'sampling_ratio'
    pooler = Pooler(
        resolution=layer.square(size, REQUIRED),
        sampling_ratio=layer.integer(ratio, 0, 0, 64),
        aligned=layer.flag('aligned', True),
        levels='mmdetection',
    )
    layer.end()
    part.end()
    return pooler


def _box_head(part: ConfigPart, resolution: int) -> dict[str, Any]:
    kinds = {'Shared2FCBBoxHead': (0, 2), 'Shared4Conv1FCBBoxHead': (4, 1)}
    kind = part.kind(
        "'Shared2FCBBoxHead', 'Shared4Conv1FCBBoxHead' or 'ConvFCBBoxHead'",
        *(*kinds, 'ConvFCBBoxHead'),
    )
    part.ignore('in_channels', 'loss_bbox', 'reg_decoded_bbox')
    for key in ('num_cls_convs', 'num_cls_fcs', 'num_reg_convs', 'num_reg_fcs'):
        part.only(key, 0, hint='convolutions and layers for classes or boxes alone are not run')
    part.only('with_avg_pool', False)
    part.only('with_cls', True)
    part.only('with_reg', True)
    part.only('conv_cfg', None)
    part.only('predict_box_type', 'hbox')
    part.only('cls_predictor_cfg', {'type': 'Linear'})
    part.only('reg_predictor_cfg', {'type': 'Linear'})
    if part.square('roi_feat_size', 7) != resolution:
        raise part.error('roi_feat_size', f'{resolution}, as bbox_roi_extractor pools')
    if part.has('loss_cls'):
        loss = part.part('loss_cls')
        loss.kind("'CrossEntropyLoss'", 'CrossEntropyLoss')
        loss.only('use_sigmoid', False)
    part.ignore('loss_cls')
    if kind in kinds:
        convs, layers = kinds[kind]
    else:
        convs = part.integer('num_shared_convs', 0, 0, 64)
        layers = part.integer('num_shared_fcs', 0, 1, 64)
    width = part.integer('conv_out_channels', 256, 1, 65536)
    norm = read_norm(part, '', *[width] * convs)
    head = {
        'box_conv_dims': (width,) * convs,
        'box_norm': _group(norm) if convs else '',
        'box_fc_dims': (part.integer('fc_out_channels', 1024, 1, 65536),) * layers,
        'box_cls_agnostic': part.flag('reg_class_agnostic', False),
        'box_bbox_weights': _deltas(part, (0.1, 0.1, 0.2, 0.2)),
        'num_classes': part.integer('num_classes', 80, 1, _MOST_CLASSES),
    }
    part.end()
    return head


def _mask_head(part: ConfigPart, channels: int, classes: int) -> dict[str, Any]:
    part.kind("'FCNMaskHead'", 'FCNMaskHead')
    part.ignore('in_channels', 'roi_feat_size', 'loss_mask')
    part.only('conv_kernel_size', 3)
    part.only('conv_cfg', None)
    part.only('predictor_cfg', {'type': 'Conv'})
    part.only('upsample_cfg', {'type': 'deconv', 'scale_factor': 2})
    convs = part.integer('num_convs', 4, 0, 64)
    width = part.integer('conv_out_channels', 256, 1, 65536)
    if not convs and width != channels:
        raise part.error('conv_out_channels', f'{channels}, as the FPN has, where num_convs is 0')
    norm = read_norm(part, '', *[width] * convs)
    agnostic = part.flag('class_agnostic', False)
    if not agnostic and part.integer('num_classes', 80, 1, _MOST_CLASSES) != classes:
        raise part.error('num_classes', f'{classes}, as bbox_head has')
    part.ignore('num_classes')
    part.end()
    return {
        'mask_conv_dims': (width,) * convs,
        'mask_norm': _group(norm) if convs else '',
        'mask_cls_agnostic': agnostic,
    }


def _proposals(part: ConfigPart) -> dict[str, Any]:
    part.only('nms_across_levels', False)
    # Of 2.x before 2.4, which had a limit a level that later versions ignore.
    part.ignore('nms_post')
    most = 'max_num' if part.has('max_num') else 'max_per_img'
    part.ignore('max_num', 'max_per_img')
    if part.has('nms'):
        threshold = _nms(part.part('nms'))
        part.ignore('nms_thr')
    else:
        threshold = part.number('nms_thr', REQUIRED, 0, 1)
    found = {
        'rpn_pre_nms_topk': part.integer('nms_pre', REQUIRED, 1, 100_000),
        'rpn_post_nms_topk': part.integer(most, REQUIRED, 1, 100_000),
        'rpn_nms_threshold': threshold,
        # Below 0 nothing is dropped, as no side is.
        'rpn_min_size': max(part.number('min_bbox_size', -1, -1e6, 1e6), -1.0),
    }
    part.end()
    return found


def _detections(part: ConfigPart) -> dict[str, Any]:
    most = part.value('max_per_img', expected='a number of detections')
    if type(most) is not int or most == 0 or not -1 <= most <= MOST_INSTANCES:
        raise part.error('max_per_img', f'an integer from 1 to {MOST_INSTANCES}, or -1 for all')
    found = {
        'score_threshold': part.number('score_thr', REQUIRED, 0, 1),
        'nms_threshold': _nms(part.part('nms')),
        'max_instances': most if most > 0 else MOST_INSTANCES,
        'mask_threshold': part.number('mask_thr_binary', REQUIRED, 0, 1),
    }
    part.end()
    return found


def _nms(part: ConfigPart) -> float:
    """Return the IoU from which the plain suppression drops a box."""
    part.kind("'nms'", 'nms', default='nms')
    part.only('class_agnostic', False)
    part.only('split_thr', _SPLIT)
    part.only('offset', 0)
    part.only('max_num', -1)
    part.only('score_threshold', 0, 0.0)
    key = 'iou_thr' if part.has('iou_thr') else 'iou_threshold'
    threshold = part.number(key, REQUIRED, 0, 1)
    part.end()
    return threshold


def _group(norm: str) -> Literal['', 'GN']:
    """Return the norm that stays: batch norms are folded on loading."""
    return 'GN' if norm == 'GN' else ''
