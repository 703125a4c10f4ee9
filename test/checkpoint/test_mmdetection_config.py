# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""MMDetection's configs as architectures: a key is honoured, known not to matter, or refused."""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import Any

import pytest
from narrow_mmdetection import ARCHITECTURE, CONFIG, CONFIG_2

from segnode.checkpoint.mmdetection_config import read_architecture
from segnode.checkpoint.python_config import parse_python_config
from segnode.errors import ConfigError
from segnode.model.architecture import Architecture, Pooler
from segnode.model.backbone_specs import ConvNeXtSpec, ResNeStSpec, ResNetSpec, SwinSpec

THIRD = parse_python_config(CONFIG, 'config')
SECOND = parse_python_config(CONFIG_2, 'config')
PIPELINE = 'test_dataloader.dataset.pipeline'
BOX, MASK = 'model.roi_head.bbox_head', 'model.roi_head.mask_head'


def changed(key: str, value: Any, config: dict[str, Any] = THIRD) -> dict[str, Any]:
    """Return a config with one key set, or left out where the value is ``...``."""
    config = copy.deepcopy(config)
    owner: Any = config
    *parents, last = (int(part) if part.isdigit() else part for part in key.split('.'))
    for parent in parents:
        owner = owner[parent]
    if value is ...:
        del owner[last]
    else:
        owner[last] = value
    return config


def read(key: str, value: Any, config: dict[str, Any] = THIRD) -> Architecture:
    return read_architecture(changed(key, value, config), 'config')


def test_both_versions_say_the_same() -> None:
    assert read_architecture(THIRD, 'config') == ARCHITECTURE
    assert read_architecture(SECOND, 'config') == ARCHITECTURE


def test_the_test_settings_of_old_configs_stand_beside_the_model() -> None:
    old = copy.deepcopy(SECOND)
    for key in ('train_cfg', 'test_cfg'):
        old[key] = old['model'].pop(key)
    old['test_cfg']['rpn'] = {
        'nms_across_levels': False,
        'nms_pre': 500,
        'nms_post': 1000,
        'max_num': 300,
        'nms_thr': 0.6,
        'min_bbox_size': 2,
    }
    old['test_cfg']['rcnn']['nms'] = {'type': 'nms', 'iou_thr': 0.4}
    for head in ('bbox', 'mask'):
        layer = old['model']['roi_head'][f'{head}_roi_extractor']['roi_layer']
        layer['out_size'], layer['sample_num'] = layer.pop('output_size'), 2
        del layer['sampling_ratio']
    assert read_architecture(old, 'config') == dataclasses.replace(
        ARCHITECTURE,
        rpn_pre_nms_topk=500,
        rpn_post_nms_topk=300,
        rpn_nms_threshold=0.6,
        rpn_min_size=2.0,
        nms_threshold=0.4,
        box_pooler=Pooler(resolution=7, sampling_ratio=2, levels='mmdetection'),
        mask_pooler=Pooler(resolution=14, sampling_ratio=2, levels='mmdetection'),
    )


@pytest.mark.parametrize(
    ('key', 'value', 'field', 'found'),
    [
        ('model.data_preprocessor.bgr_to_rgb', False, 'color', 'BGR'),
        ('model.data_preprocessor.mean', [1, 2.5, 3], 'pixel_mean', (1.0, 2.5, 3.0)),
        ('model.data_preprocessor.std', (1, 1, 2), 'pixel_std', (1.0, 1.0, 2.0)),
        ('model.data_preprocessor.pad_size_divisor', 64, 'size_divisibility', 64),
        (f'{PIPELINE}.1.scale', (800, 1333), 'long_side', 1333),
        (f'{PIPELINE}.1.scale', [1333, 800], 'short_side', 800),
        ('model.neck.norm_cfg', {'type': 'SyncBN', 'requires_grad': True}, 'fpn_norm', ''),
        ('model.rpn_head.feat_channels', 8, 'rpn_conv_dims', (8,)),
        ('model.rpn_head.num_convs', 2, 'rpn_conv_dims', (-1, -1)),
        ('model.rpn_head.bbox_coder.target_stds', [0.5] * 4, 'rpn_bbox_weights', (2.0,) * 4),
        (
            *('model.rpn_head.anchor_generator.scales', [2, 4]),
            *('anchor_sizes', tuple((2.0 * s, 4.0 * s) for s in (4, 8, 16, 32, 64))),
        ),
        (
            *('model.rpn_head.anchor_generator.base_sizes', [1, 2, 3, 4, 5]),
            *('anchor_sizes', ((8.0,), (16.0,), (24.0,), (32.0,), (40.0,))),
        ),
        ('model.rpn_head.anchor_generator.ratios', [1.0], 'anchor_ratios', ((1.0,),) * 5),
        ('model.rpn_head.anchor_generator.center_offset', 0.5, 'anchor_offset', 0.5),
        (f'{BOX}.type', 'Shared4Conv1FCBBoxHead', 'box_conv_dims', (256,) * 4),
        (f'{BOX}.type', 'mmdet.Shared4Conv1FCBBoxHead', 'box_fc_dims', (24,)),
        (f'{BOX}.reg_class_agnostic', True, 'box_cls_agnostic', True),
        (f'{BOX}.bbox_coder.target_stds', [0.05] * 4, 'box_bbox_weights', (20.0,) * 4),
        (f'{BOX}.bbox_coder', ..., 'box_bbox_weights', (10.0, 10.0, 5.0, 5.0)),
        (f'{MASK}.num_convs', 4, 'mask_conv_dims', (16,) * 4),
        (f'{MASK}.class_agnostic', True, 'mask_cls_agnostic', True),
        ('model.test_cfg.rpn.nms_pre', 7, 'rpn_pre_nms_topk', 7),
        ('model.test_cfg.rpn.max_per_img', 9, 'rpn_post_nms_topk', 9),
        ('model.test_cfg.rpn.nms.iou_threshold', 0.25, 'rpn_nms_threshold', 0.25),
        ('model.test_cfg.rpn.min_bbox_size', 3, 'rpn_min_size', 3.0),
        ('model.test_cfg.rcnn.score_thr', 0.2, 'score_threshold', 0.2),
        ('model.test_cfg.rcnn.nms.iou_threshold', 0.3, 'nms_threshold', 0.3),
        ('model.test_cfg.rcnn.max_per_img', 12, 'max_instances', 12),
        ('model.test_cfg.rcnn.mask_thr_binary', 0.4, 'mask_threshold', 0.4),
    ],
)
def test_a_key_is_honoured(key: str, value: Any, field: str, found: Any) -> None:
    architecture = read(key, value)
    assert getattr(architecture, field) == found
    others = {each.name for each in dataclasses.fields(Architecture)} - {field}
    if field not in ('box_conv_dims', 'box_fc_dims', 'long_side', 'short_side'):
        assert all(getattr(architecture, n) == getattr(ARCHITECTURE, n) for n in others)


CONVNEXT = {
    'type': 'mmpretrain.ConvNeXt',
    'out_indices': [0, 1, 2, 3],
    'gap_before_final_norm': False,
}


def backbone(**keys: Any) -> Any:
    return read('model.backbone', keys).backbone


@pytest.mark.parametrize(
    ('keys', 'spec'),
    [
        ({'type': 'ResNet', 'depth': 50}, ResNetSpec(stride_in_1x1=False)),
        ({'type': 'ResNet', 'depth': 50, 'style': 'caffe'}, ResNetSpec()),
        (
            {'type': 'ResNet', 'depth': 34, 'style': 'caffe'},
            ResNetSpec(depth=34, res2_out_channels=64, stride_in_1x1=False),
        ),
        (
            {
                'type': 'ResNet',
                'depth': 101,
                'norm_cfg': {'type': 'GN', 'num_groups': 32, 'requires_grad': True},
            },
            ResNetSpec(depth=101, stride_in_1x1=False, norm='GN'),
        ),
        (
            {'type': 'ResNeXt', 'depth': 101, 'groups': 32, 'base_width': 8},
            ResNetSpec(depth=101, num_groups=32, width_per_group=8, stride_in_1x1=False),
        ),
        (
            {'type': 'ResNeXt', 'depth': 101, 'groups': 64},
            ResNetSpec(depth=101, num_groups=64, width_per_group=4, stride_in_1x1=False),
        ),
        ({'type': 'ResNeSt', 'depth': 50, 'stem_channels': 64}, ResNeStSpec()),
        (
            {'type': 'mmdet.ResNeSt', 'depth': 101, 'stem_channels': 128, 'radix': 4},
            ResNeStSpec(depth=101, stem_channels=64, radix=4),
        ),
        ({'type': 'SwinTransformer', 'drop_path_rate': 0.2}, SwinSpec()),
        (
            {
                'type': 'SwinTransformer',
                'embed_dims': 128,
                'depths': [2, 2, 18, 2],
                'num_heads': (4, 8, 16, 32),
                'window_size': 12,
                'qkv_bias': False,
                'pretrain_img_size': 384,
            },
            SwinSpec(
                depths=(2, 2, 18, 2),
                heads=(4, 8, 16, 32),
                channels=128,
                window=12,
                qkv_bias=False,
            ),
        ),
        (
            {
                'type': 'mmpretrain.ConvNeXt',
                'out_indices': [0, 1, 2, 3],
                'layer_scale_init_value': 1.0,
                'gap_before_final_norm': False,
            },
            ConvNeXtSpec(),
        ),
        (
            {
                'type': 'mmcls.ConvNeXt',
                'arch': 'base',
                'out_indices': (0, 1, 2, 3),
                'gap_before_final_norm': False,
            },
            ConvNeXtSpec(depths=(3, 3, 27, 3), channels=(128, 256, 512, 1024)),
        ),
    ],
)
def test_backbones(keys: dict[str, Any], spec: object) -> None:
    assert backbone(**keys) == spec


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('model.type', 'CascadeRCNN'),
        ('model.type', 'MaskScoringRCNN'),
        ('model.type', 'myproj.MaskRCNN'),
        ('model.unknown', 1),
        ('model.backbone.type', 'mmseg.ResNet'),
        ('model.backbone.type', 'mmdetection.ResNet'),
        ('model.backbone.type', 'mmpretrainer.ConvNeXt'),
        ('model.test_cfg.rpn.nms.type', 'mine.nms'),
        ('model.backbone', {'type': 'SwinTransformer', 'depths': [2, 2, 2147483647, 2]}),
        ('model.backbone', {'type': 'SwinTransformer', 'embed_dims': 4096}),
        ('model.backbone', {'type': 'ResNeSt', 'depth': 50, 'base_channels': 4096}),
        (
            'model.backbone',
            CONVNEXT | {'arch': {'depths': [3, 3, 65, 3], 'channels': [8, 8, 8, 8]}},
        ),
        (
            'model.backbone',
            CONVNEXT | {'arch': {'depths': [3, 3, 9, 3], 'channels': [8, 8, 8, 2**31 - 1]}},
        ),
        ('model.rpn_head.anchor_generator.scales', [8.0] * 30),
        ('model.rpn_head.bbox_coder.target_stds', [1e-320] * 4),
        ('model.data_preprocessor.std', [1e-9, 1, 1]),
        ('model.test_cfg.rcnn.max_per_img', -5),
        ('model.neck', ...),
        ('model.neck.type', 'PAFPN'),
        ('model.neck.num_outs', 6),
        ('model.neck.start_level', 1),
        ('model.neck.add_extra_convs', 'on_input'),
        ('model.neck.act_cfg', {'type': 'ReLU'}),
        ('model.neck.upsample_cfg', {'mode': 'bilinear'}),
        ('model.neck.norm_cfg', {'type': 'GN', 'num_groups': 16}),
        ('model.neck.norm_cfg', {'type': 'IN'}),
        ('model.neck.norm_cfg', {'type': 'BN', 'eps': 1e-3}),
        ('model.backbone.depth', 19),
        ('model.backbone.type', 'ResNetV1d'),
        ('model.backbone.type', 'mmpretrain.ResNet'),
        ('model.backbone.type', 'RegNet'),
        ('model.backbone.dcn', {'type': 'DCN', 'deform_groups': 1}),
        ('model.backbone.plugins', [{'cfg': {'type': 'ContextBlock'}}]),
        ('model.backbone.deep_stem', True),
        ('model.backbone.avg_down', True),
        ('model.backbone.conv_cfg', {'type': 'ConvWS'}),
        ('model.backbone.style', 'tensorflow'),
        ('model.backbone.strides', (1, 2, 2, 1)),
        ('model.backbone.dilations', (1, 1, 1, 2)),
        ('model.backbone.out_indices', (0, 1, 2)),
        ('model.backbone.groups', 2),
        ('model.rpn_head.type', 'GARPNHead'),
        ('model.rpn_head.loss_cls.use_sigmoid', False),
        ('model.rpn_head.loss_cls.use_sigmoid', ...),
        ('model.rpn_head.anchor_generator.type', 'LegacyAnchorGenerator'),
        ('model.rpn_head.anchor_generator.strides', [4, 8, 16, 32]),
        ('model.rpn_head.anchor_generator.scale_major', False),
        ('model.rpn_head.anchor_generator.octave_base_scale', 4),
        ('model.rpn_head.bbox_coder.type', 'LegacyDeltaXYWHBBoxCoder'),
        ('model.rpn_head.bbox_coder.target_means', [0.1, 0, 0, 0]),
        ('model.rpn_head.bbox_coder.clip_border', False),
        ('model.rpn_head.bbox_coder.add_ctr_clamp', True),
        ('model.roi_head.type', 'PointRendRoIHead'),
        ('model.roi_head.shared_head', {'type': 'ResLayer'}),
        ('model.roi_head.mask_iou_head', {'type': 'MaskIoUHead'}),
        ('model.roi_head.semantic_head', {'type': 'FusedSemanticHead'}),
        ('model.roi_head.mask_roi_extractor', ...),
        ('model.roi_head.bbox_roi_extractor.type', 'GenericRoIExtractor'),
        ('model.roi_head.bbox_roi_extractor.finest_scale', 28),
        ('model.roi_head.bbox_roi_extractor.roi_layer.type', 'DeformRoIPoolPack'),
        ('model.roi_head.bbox_roi_extractor.roi_layer.pool_mode', 'max'),
        ('model.roi_head.bbox_roi_extractor.roi_layer.output_size', [7, 8]),
        (BOX, [{'type': 'Shared2FCBBoxHead'}]),
        (f'{BOX}.type', 'DoubleConvFCBBoxHead'),
        (f'{BOX}.roi_feat_size', 14),
        (f'{BOX}.with_avg_pool', True),
        (f'{BOX}.num_cls_fcs', 1),
        (f'{BOX}.cls_predictor_cfg', {'type': 'NormedLinear'}),
        (f'{BOX}.loss_cls.type', 'SeesawLoss'),
        (f'{BOX}.loss_cls.use_sigmoid', True),
        (f'{BOX}.num_classes', 0),
        (f'{MASK}.type', 'HTCMaskHead'),
        (f'{MASK}.num_classes', 80),
        (f'{MASK}.upsample_cfg', {'type': 'carafe', 'scale_factor': 2}),
        (f'{MASK}.predictor_cfg', {'type': 'NormedConv2d'}),
        (f'{MASK}.conv_kernel_size', 1),
        ('model.test_cfg.rcnn.nms.type', 'soft_nms'),
        ('model.test_cfg.rcnn.nms.class_agnostic', True),
        ('model.test_cfg.rcnn.nms.split_thr', 100),
        ('model.test_cfg.rcnn.max_per_img', 10**9),
        ('model.test_cfg.rcnn.mask_thr_binary', -1),
        ('model.test_cfg.rcnn.unknown', 1),
        ('model.test_cfg.rpn.nms_across_levels', True),
        ('model.test_cfg.rpn.nms_pre', 0),
        ('model.data_preprocessor.type', 'BatchFixedSizePad'),
        ('model.data_preprocessor.mean', ...),
        ('model.data_preprocessor.std', [0, 1, 1]),
        ('model.data_preprocessor.pad_value', 114),
        ('model.data_preprocessor.pad_size_divisor', 1),
        ('model.data_preprocessor.pad_size_divisor', 65536),
        (f'{PIPELINE}.0.to_float32', True),
        (f'{PIPELINE}.1.type', 'FixScaleResize'),
        (f'{PIPELINE}.1.type', 'albu.Resize'),
        (f'{PIPELINE}.1.keep_ratio', False),
        (f'{PIPELINE}.1.keep_ratio', ...),
        (f'{PIPELINE}.1.interpolation', 'area'),
        (f'{PIPELINE}.1.backend', 'pillow'),
        (f'{PIPELINE}.1.scale', [(1333, 800), (1333, 640)]),
        (f'{PIPELINE}.2.type', 'TestTimeAug'),
        (f'{PIPELINE}.2.type', 'Resize'),
        (f'{PIPELINE}.2.type', 'LoadImageFromFile'),
        (f'{PIPELINE}.1.scale', (65536, 65536)),
        (f'{PIPELINE}.2', {'type': 'RandomFlip', 'prob': 1.0}),
        (f'{PIPELINE}.2', {'type': 'Pad', 'size_divisor': 64}),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(key: str, value: Any) -> None:
    refused = key.removeprefix(f'{PIPELINE}.') if 'pipeline' in key else key
    with pytest.raises(ConfigError) as caught:
        read(key, value)
    message = str(caught.value)
    named = re.search(r'^config: ([\w.\[\]]+): expected .+, found .+', message)
    assert named, message
    # By the key itself, or by the part that has another type.
    name = re.sub(r'\[(\d+)\]', r'.\1', named[1])
    assert refused.rpartition('.')[0] in name or name.startswith(refused), message
    assert len(message) < 400


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('test_pipeline.1.flip', True),
        ('test_pipeline.1.img_scale', [(1333, 800), (800, 480)]),
        ('test_pipeline.1.scale_factor', 1.5),
        ('test_pipeline.1.transforms.0.keep_ratio', False),
        ('test_pipeline.1.transforms.2.std', [0, 1, 1]),
        ('test_pipeline.1.transforms.3.size_divisor', 1),
        ('test_pipeline.1.transforms.3.pad_val', 114),
        ('test_pipeline.1.transforms.4.type', 'Albu'),
    ],
)
def test_pipelines_of_2_that_are_refused(key: str, value: Any) -> None:
    config = changed(key, value, SECOND)
    config['data']['test']['pipeline'] = config['test_pipeline']
    with pytest.raises(ConfigError, match=r'^config: .*transforms|^config: .*pipeline'):
        read_architecture(config, 'config')


NORMALIZE: dict[str, Any] = {'type': 'Normalize', 'mean': [1, 2, 3], 'std': [4, 5, 6]}
RESIZE = {'type': 'Resize', 'img_scale': (640, 320)}
PAD = {'type': 'Pad', 'size_divisor': 32}
LOAD = {'type': 'LoadImageFromFile'}
FLIP = {'type': 'RandomFlip', 'flip_ratio': 0.5}
INNER = {'type': 'Resize', 'keep_ratio': True}


def augmented(*steps: dict[str, Any]) -> dict[str, Any]:
    return {'type': 'MultiScaleFlipAug', 'img_scale': (640, 320), 'transforms': list(steps)}


@pytest.mark.parametrize(
    ('steps', 'part'),
    [
        ([LOAD, NORMALIZE, RESIZE, PAD], '[2].type'),
        ([LOAD, PAD, RESIZE, NORMALIZE], '[2].type'),
        ([LOAD, RESIZE, PAD, NORMALIZE], '[3].type'),
        ([RESIZE, LOAD, NORMALIZE, PAD], '[1].type'),
        ([LOAD, RESIZE, NORMALIZE, NORMALIZE, PAD], '[3].type'),
        ([LOAD, RESIZE, INNER, NORMALIZE, PAD], '[2].type'),
        ([LOAD, RESIZE, NORMALIZE, PAD, PAD], '[4].type'),
        ([LOAD, RESIZE, NORMALIZE, {'type': 'ImageToTensor'}, PAD], '[4].type'),
        ([LOAD, RESIZE, FLIP, NORMALIZE, PAD], '[2].flip_ratio'),
        ([LOAD, augmented(NORMALIZE, INNER, PAD)], '[1].transforms[1].type'),
        ([LOAD, augmented(INNER, NORMALIZE, NORMALIZE, PAD)], '[1].transforms[2].type'),
        ([LOAD, augmented(INNER, INNER, NORMALIZE, PAD)], '[1].transforms[1].type'),
        ([LOAD, augmented(INNER, NORMALIZE, PAD), FLIP], '[2].type'),
        ([LOAD, augmented(INNER, NORMALIZE), PAD], '[2].type'),
        ([LOAD, augmented(augmented(INNER, NORMALIZE, PAD))], '[1].transforms[0].type'),
        ([LOAD, augmented(NORMALIZE, PAD)], 'data: expected'),
        ([LOAD, RESIZE, PAD], 'a pipeline with Normalize'),
        ([LOAD, INNER, NORMALIZE, PAD], 'data: expected'),
    ],
)
def test_steps_of_2_in_another_order_are_refused(steps: list[Any], part: str) -> None:
    config = changed('data.test.pipeline', steps, SECOND)
    with pytest.raises(ConfigError, match=re.escape(part)):
        read_architecture(config, 'config')


@pytest.mark.parametrize(
    'steps',
    [
        [LOAD, RESIZE, NORMALIZE, PAD],
        [LOAD, RESIZE, FLIP | {'flip_ratio': 0.0}, NORMALIZE, PAD, {'type': 'ImageToTensor'}],
        [LOAD, augmented(INNER, FLIP, NORMALIZE, PAD), {'type': 'Collect'}],
        [LOAD, {'type': 'LoadAnnotations'}, augmented(INNER, NORMALIZE, PAD)],
    ],
)
def test_steps_of_2_in_order(steps: list[Any]) -> None:
    found = read_architecture(changed('data.test.pipeline', steps, SECOND), 'config')
    expected = {'pixel_mean': (1.0, 2.0, 3.0), 'pixel_std': (4.0, 5.0, 6.0)}
    assert found == dataclasses.replace(ARCHITECTURE, **expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('anything', object()),
        ('optim_wrapper', {'type': 'x'}),
        ('model.train_cfg', 5),
        ('model.init_cfg', {'type': 'Pretrained'}),
        ('model.backbone.frozen_stages', 4),
        ('model.backbone.with_cp', True),
        (f'{BOX}.loss_bbox', {'type': 'GIoULoss'}),
        (f'{BOX}.reg_decoded_bbox', True),
        (f'{MASK}.loss_mask', {'type': 'DiceLoss'}),
        ('model.data_preprocessor.batch_augments', [{'type': 'BatchFixedSizePad'}]),
        ('model.roi_head.test_cfg', {'score_thr': 0.9}),
        ('model.roi_head.train_cfg', None),
        ('model.roi_head.pretrained', None),
        ('model.rpn_head.test_cfg', {'nms_pre': 7}),
        ('model.rpn_head.train_cfg', None),
        ('model.test_cfg.rpn.nms.type', ...),
        ('model.test_cfg.rcnn.nms.type', ...),
        ('model.type', 'mmdet.models.detectors.mask_rcnn.MaskRCNN'),
        (f'{PIPELINE}.0.type', 'mmcv.LoadImageFromFile'),
        ('model.backbone.norm_cfg.type', 'mmengine.BN'),
    ],
)
def test_what_does_not_matter_is_ignored(key: str, value: Any) -> None:
    assert read(key, value) == ARCHITECTURE


def test_an_unresolved_value_is_refused_where_it_decides() -> None:
    text = CONFIG.replace('depth=18', 'depth=int(x)').replace('load_from = None', 'x = f(1)')
    with pytest.raises(ConfigError) as caught:
        read_architecture(parse_python_config(text, 'a.py'), 'a.py')
    line = next(n for n, t in enumerate(text.splitlines(), 1) if 'depth=int' in t)
    assert 'model.backbone.depth: expected' in str(caught.value)
    assert f'found a call of int (line {line} of a.py), which is never run; give' in str(
        caught.value
    )
    text = CONFIG.replace("work_dir = './work_dirs/narrow'", 'work_dir = f(1)')
    assert read_architecture(parse_python_config(text, 'x'), 'x') == ARCHITECTURE


def test_heads_of_gn_and_bn() -> None:
    config = copy.deepcopy(THIRD)
    norm = {'type': 'GN', 'num_groups': 32, 'requires_grad': True}
    model = config['model']
    model['neck'] |= {'out_channels': 32, 'norm_cfg': norm}
    model['roi_head']['bbox_head'] |= {
        'type': 'Shared4Conv1FCBBoxHead',
        'conv_out_channels': 64,
        'norm_cfg': norm,
    }
    model['roi_head']['mask_head'] |= {'conv_out_channels': 32, 'norm_cfg': norm}
    found = read_architecture(config, 'x')
    assert (found.fpn_norm, found.box_norm, found.mask_norm) == ('GN', 'GN', 'GN')
    norm['type'] = 'SyncBN'
    del norm['num_groups']
    found = read_architecture(config, 'x')
    assert (found.fpn_norm, found.box_norm, found.mask_norm) == ('', '', '')
