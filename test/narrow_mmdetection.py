# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A Mask R-CNN of MMDetection small enough to be written to disk in every test."""

from __future__ import annotations

from segnode.model.architecture import MMDETECTION, Architecture, Pooler
from segnode.model.backbone_specs import ResNetSpec

# As 3.x dumps it: one assignment a key, all of them whole.
MODEL = """
model = dict(
    backbone=dict(
        base_channels=8, depth=18, frozen_stages=1,
        init_cfg=dict(checkpoint='open-mmlab://detectron2/resnet18', type='Pretrained'),
        norm_cfg=dict(requires_grad=True, type='BN'), norm_eval=True, num_stages=4,
        out_indices=(0, 1, 2, 3,), style='pytorch', type='ResNet'),
    data_preprocessor=dict(
        bgr_to_rgb=True, mean=[123.675, 116.28, 103.53], pad_mask=True, pad_size_divisor=32,
        std=[58.395, 57.12, 57.375], type='DetDataPreprocessor'),
    neck=dict(in_channels=[8, 16, 32, 64], num_outs=5, out_channels=16, type='FPN'),
    roi_head=dict(
        bbox_head=dict(
            bbox_coder=dict(
                target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2],
                type='DeltaXYWHBBoxCoder'),
            fc_out_channels=24, in_channels=16,
            loss_bbox=dict(loss_weight=1.0, type='L1Loss'),
            loss_cls=dict(loss_weight=1.0, type='CrossEntropyLoss', use_sigmoid=False),
            num_classes=3, reg_class_agnostic=False, roi_feat_size=7, type='Shared2FCBBoxHead'),
        bbox_roi_extractor=dict(
            featmap_strides=[4, 8, 16, 32], out_channels=16,
            roi_layer=dict(output_size=7, sampling_ratio=0, type='RoIAlign'),
            type='SingleRoIExtractor'),
        mask_head=dict(
            conv_out_channels=16, in_channels=16,
            loss_mask=dict(loss_weight=1.0, type='CrossEntropyLoss', use_mask=True),
            num_classes=3, num_convs=2, type='FCNMaskHead'),
        mask_roi_extractor=dict(
            featmap_strides=[4, 8, 16, 32], out_channels=16,
            roi_layer=dict(output_size=14, sampling_ratio=0, type='RoIAlign'),
            type='SingleRoIExtractor'),
        type='StandardRoIHead'),
    rpn_head=dict(
        anchor_generator=dict(
            ratios=[0.5, 1.0, 2.0], scales=[8], strides=[4, 8, 16, 32, 64],
            type='AnchorGenerator'),
        bbox_coder=dict(
            target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[1.0, 1.0, 1.0, 1.0],
            type='DeltaXYWHBBoxCoder'),
        feat_channels=16, in_channels=16,
        loss_bbox=dict(loss_weight=1.0, type='L1Loss'),
        loss_cls=dict(loss_weight=1.0, type='CrossEntropyLoss', use_sigmoid=True),
        type='RPNHead'),
    test_cfg=dict(
        rcnn=dict(
            mask_thr_binary=0.5, max_per_img=100,
            nms=dict(iou_threshold=0.5, type='nms'), score_thr=0.05),
        rpn=dict(
            max_per_img=1000, min_bbox_size=0,
            nms=dict(iou_threshold=0.7, type='nms'), nms_pre=1000)),
    train_cfg=dict(rcnn=dict(pos_weight=-1), rpn=dict(allowed_border=-1)),
    type='MaskRCNN')
"""
CONFIG = f"""
backend_args = None
default_scope = 'mmdet'
load_from = None
{MODEL}
test_cfg = dict(type='TestLoop')
test_dataloader = dict(
    batch_size=1,
    dataset=dict(
        backend_args=None, data_prefix=dict(img='val2017/'),
        pipeline=[
            dict(backend_args=None, type='LoadImageFromFile'),
            dict(keep_ratio=True, scale=(640, 320,), type='Resize'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(meta_keys=('img_id', 'ori_shape', 'scale_factor',), type='PackDetInputs'),
        ],
        test_mode=True, type='CocoDataset'),
    num_workers=2)
work_dir = './work_dirs/narrow'
"""
# As 2.x writes it: the pipeline has what the data preprocessor has in 3.x.
CONFIG_2 = (
    MODEL.replace(
        """    data_preprocessor=dict(
        bgr_to_rgb=True, mean=[123.675, 116.28, 103.53], pad_mask=True, pad_size_divisor=32,
        std=[58.395, 57.12, 57.375], type='DetDataPreprocessor'),
""",
        '',
    )
    + """
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiScaleFlipAug', img_scale=(640, 320), flip=False,
        transforms=[
            dict(type='Resize', keep_ratio=True),
            dict(type='RandomFlip'),
            dict(type='Normalize', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                 to_rgb=True),
            dict(type='Pad', size_divisor=32),
            dict(type='ImageToTensor', keys=['img']),
            dict(type='Collect', keys=['img'])
        ])
]
data = dict(
    samples_per_gpu=2, train=dict(type='CocoDataset'),
    test=dict(type='CocoDataset', pipeline=test_pipeline))
"""
)
ARCHITECTURE = Architecture(
    semantics=MMDETECTION,
    backbone=ResNetSpec(
        depth=18,
        width_per_group=8,
        stem_out_channels=8,
        res2_out_channels=8,
        stride_in_1x1=False,
    ),
    fpn_channels=16,
    box_pooler=Pooler(resolution=7, levels='mmdetection'),
    box_fc_dims=(24, 24),
    mask_pooler=Pooler(resolution=14, levels='mmdetection'),
    mask_conv_dims=(16, 16),
    num_classes=3,
    color='RGB',
    pixel_mean=(123.675, 116.28, 103.53),
    pixel_std=(58.395, 57.12, 57.375),
    short_side=320,
    long_side=640,
)
