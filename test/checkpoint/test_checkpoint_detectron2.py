# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Detectron2's configs: every key is honoured, refused by name, or known not to matter."""

from __future__ import annotations

import dataclasses
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from narrow_checkpoint import ARCHITECTURE, CONFIG, random_state, write_checkpoint

from segnode.checkpoint import NativeModel, load_model
from segnode.checkpoint.detectron2 import fit_weights
from segnode.checkpoint.detectron2_config import DEFAULTS, IGNORED, config_keys, read_config
from segnode.checkpoint.presets import PRESETS
from segnode.config import Config
from segnode.errors import SegnodeError
from segnode.model.architecture import TORCHVISION, Architecture, Pooler
from segnode.model.backbone_specs import ResNetSpec, SwinSpec
from segnode.model.mask_rcnn import expected_state_dict

# Keys of releases after 0.6, which is the oracle.
LATER = {'MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE'}
BASE = Architecture()


def zoo_folder(detectron2: ModuleType) -> Path:
    assert detectron2.__file__
    return Path(detectron2.__file__).parent / 'model_zoo' / 'configs'


def flatten(content: dict[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from flatten(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', value


def as_lists(value: Any) -> Any:
    return [as_lists(v) for v in value] if isinstance(value, list | tuple) else value


def ignored(key: str) -> bool:
    return any(key.startswith(known) if known.endswith('.') else key == known for known in IGNORED)


def write(folder: Path, changes: dict[str, Any], over: str = CONFIG) -> Path:
    content = yaml.safe_load(over)
    for key, value in changes.items():
        *sections, last = key.split('.')
        section = content
        for part in sections:
            section = section.setdefault(part, {})
        section[last] = value
    path = folder / 'config.yaml'
    path.write_text(yaml.safe_dump(content))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(SegnodeError) as caught:
        read_config(path)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 500
    return message


def test_every_key_of_detectron2_is_known_with_its_default(detectron2: ModuleType) -> None:
    from detectron2.config import get_cfg

    theirs = {key: as_lists(value) for key, value in flatten(get_cfg())}
    ours = {key: value for key, value in DEFAULTS.items() if key not in LATER}
    assert ours == {key: theirs[key] for key in ours}
    assert [key for key in theirs if key not in ours and not ignored(key)] == []
    assert [key for key in DEFAULTS if ignored(key)] == []


def values_of(cfg: Any) -> dict[str, Any]:
    """Return the keys of a config node that change the answer."""
    return {
        key: as_lists(value)
        for key, value in flatten(cfg)
        if not ignored(key) and key != 'MODEL.WEIGHTS'
    }


def merged(keys: dict[str, Any]) -> dict[str, Any]:
    """Return what Detectron2, which checks their types, makes of keys over its defaults."""
    from detectron2.config import get_cfg

    cfg = get_cfg()
    for key, value in keys.items():
        if key not in LATER:
            cfg.merge_from_list([key, value])
    return values_of(cfg)


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        *(
            (f'COCO-InstanceSegmentation/{k}', v.architecture)
            for k, v in PRESETS.items()
            if v.checksum.algorithm == 'md5'
        ),
        ('COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x_giou', BASE),
        (
            'Detectron1-Comparisons/mask_rcnn_R_50_FPN_noaug_1x',
            dataclasses.replace(
                BASE,
                box_pooler=Pooler(resolution=7, sampling_ratio=2, aligned=False),
                mask_pooler=Pooler(resolution=14, sampling_ratio=2, aligned=False),
            ),
        ),
        (
            'Cityscapes/mask_rcnn_R_50_FPN',
            dataclasses.replace(BASE, num_classes=8, short_side=1024, long_side=2048),
        ),
        (
            'LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x',
            dataclasses.replace(BASE, num_classes=1203, score_threshold=1e-4, max_instances=300),
        ),
        (
            'Misc/mask_rcnn_R_50_FPN_1x_cls_agnostic',
            dataclasses.replace(BASE, box_cls_agnostic=True, mask_cls_agnostic=True),
        ),
    ],
)
def test_zoo_config(detectron2: ModuleType, name: str, expected: Architecture) -> None:
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    path = zoo_folder(detectron2) / f'{name}.yaml'
    found = read_config(path)
    assert found.architecture == expected
    assert found.normed == ()
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    assert values_of(cfg) == merged(config_keys(expected))
    cfg.MODEL.DEVICE = 'meta'
    with torch.device('meta'):
        theirs = build_model(cfg).state_dict()
    shapes = {k: v.shape for k, v in theirs.items() if not k.endswith('num_batches_tracked')}
    assert expected_state_dict(expected) == shapes


@pytest.mark.parametrize('name', ['3x_gn', '3x_syncbn'])
def test_zoo_config_with_norms(detectron2: ModuleType, name: str) -> None:
    from detectron2.config import get_cfg

    from segnode.benchmark.detectron2 import detectron2_config

    path = zoo_folder(detectron2) / 'Misc' / f'mask_rcnn_R_50_FPN_{name}.yaml'
    try:
        found = read_config(path)
    except SegnodeError as error:
        pytest.fail(f'refused: {error}')
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    groups = name == '3x_gn'
    assert len(found.normed) == (0 if groups else 3)
    assert found.architecture.backbone.norm == ('GN' if groups else 'BN')
    if groups:
        assert values_of(cfg) == merged(config_keys(found.architecture))
        cfg = detectron2_config(found.architecture, torch.device('meta'))
        shapes = shapes_of_detectron2(cfg)
        assert expected_state_dict(found.architecture) == shapes


def shapes_of_detectron2(cfg: Any) -> dict[str, torch.Size]:
    from detectron2.modeling import build_model

    with torch.device('meta'):
        state = build_model(cfg).state_dict()
    return {k: v.shape for k, v in state.items() if not k.endswith('num_batches_tracked')}


@pytest.mark.parametrize(
    ('name', 'key'),
    [
        ('COCO-Detection/faster_rcnn_R_50_FPN_3x', 'MODEL.MASK_ON: expected True'),
        ('COCO-Detection/fast_rcnn_R_50_FPN_1x', 'MODEL.LOAD_PROPOSALS'),
        ('COCO-Detection/retinanet_R_50_FPN_3x', 'the tag python/object/apply:eval'),
        ('COCO-Detection/rpn_R_50_FPN_1x', 'MODEL.META_ARCHITECTURE'),
        ('COCO-InstanceSegmentation/mask_rcnn_R_50_C4_3x', 'MODEL.BACKBONE.NAME'),
        ('COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_3x', 'MODEL.BACKBONE.NAME'),
        ('COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x', 'MODEL.MASK_ON'),
        ('COCO-PanopticSegmentation/panoptic_fpn_R_50_3x', 'MODEL.META_ARCHITECTURE'),
        (
            'Misc/cascade_mask_rcnn_R_50_FPN_3x',
            "MODEL.ROI_HEADS.NAME: expected 'StandardROIHeads'",
        ),
        ('Misc/mask_rcnn_R_50_FPN_3x_dconv_c3-c5', 'MODEL.RESNETS.DEFORM_ON_PER_STAGE'),
        ('Misc/panoptic_fpn_R_101_dconv_cascade_gn_3x', 'MODEL.META_ARCHITECTURE'),
        ('Misc/semantic_R_50_FPN_1x', 'MODEL.META_ARCHITECTURE'),
    ],
)
def test_zoo_config_of_another_architecture(detectron2: ModuleType, name: str, key: str) -> None:
    assert key in refusal(zoo_folder(detectron2) / f'{name}.yaml')


# What every Detectron2 model has alike, so that no key tells it.
UNTOLD = {'semantics', 'norm_eps', 'strides', 'size_divisibility', 'mask_threshold'}


def random_architecture(seed: int) -> Architecture:
    """Return an architecture that differs from the default in all that keys can tell."""
    rng = random.Random(seed)
    deep, levels, anchors = rng.random() < 0.5, rng.choice((1, 5)), rng.randint(1, 3)

    def numbers(count: int, low: float = 0.1, high: float = 100.0) -> tuple[Any, ...]:
        return tuple(round(rng.uniform(low, high), 3) for _ in range(count))

    def level_numbers(high: float) -> tuple[tuple[float, ...], ...]:
        return tuple(numbers(anchors, 0.1, high) for _ in range(levels)) * (5 // levels)

    def pooler() -> Pooler:
        return Pooler(
            resolution=rng.choice((5, 6, 9)), sampling_ratio=rng.randint(1, 4), aligned=False
        )

    norms = ('GN',) * 3 if rng.random() < 0.5 else ('', '', '')
    fpn_channels = 32 if norms[0] else rng.choice((8, 24))
    return Architecture(
        backbone=ResNetSpec(
            depth=rng.choice((101, 152) if deep else (18, 34)),
            num_groups=2 if deep else 1,
            width_per_group=16 if norms[0] else rng.choice((4, 8)),
            stem_out_channels=32 if norms[0] else rng.choice((8, 16)),
            res2_out_channels=32 if deep else 64,
            stride_in_1x1=False,
            norm='GN' if norms[0] else 'BN',
        ),
        fpn_norm=norms[0],
        fpn_channels=fpn_channels,
        fpn_fuse='avg',
        anchor_sizes=level_numbers(500.0),
        anchor_ratios=level_numbers(3.0),
        anchor_offset=rng.choice((0.25, 0.5)),
        rpn_conv_dims=rng.choice(((8,), (-1, 12), (-1, -1, 16))),
        rpn_bbox_weights=numbers(4),
        rpn_pre_nms_topk=rng.randint(1, 900),
        rpn_post_nms_topk=rng.randint(1, 900),
        rpn_nms_threshold=rng.choice((0.0, 0.65, 1.0)),
        rpn_min_size=rng.choice((1.0, 2.5)),
        box_pooler=pooler(),
        box_conv_dims=(32 if norms[1] else rng.choice((16, 32)),) * rng.randint(1, 3),
        box_norm=norms[1],
        box_fc_dims=(rng.choice((16, 32)),) * rng.choice((0, 1, 3)),
        box_cls_agnostic=True,
        box_bbox_weights=numbers(4),
        mask_pooler=pooler(),
        mask_conv_dims=(32 if norms[2] else rng.choice((16, 32)),) * rng.choice((0, 1, 3)),
        mask_norm=norms[2],
        mask_cls_agnostic=True,
        num_classes=rng.choice((1, 3)),
        score_threshold=rng.choice((0.0, 0.3, 1.0)),
        nms_threshold=rng.choice((0.0, 0.3, 1.0)),
        max_instances=rng.randint(1, 99),
        color='RGB',
        pixel_mean=numbers(3),
        pixel_std=numbers(3),
        short_side=rng.choice((0, 321)),
        long_side=rng.randint(400, 500),
    )


@pytest.mark.parametrize('seed', range(20))
def test_keys_are_read_as_the_architecture_that_they_are_of(tmp_path: Path, seed: int) -> None:
    architecture = random_architecture(seed)
    keys = config_keys(architecture)
    assert list(keys) == [key for key in DEFAULTS if key != 'MODEL.WEIGHTS']
    assert read_config(write(tmp_path, keys, over='{}')).architecture == architecture


def test_architectures_of_the_round_trip_differ_in_every_field() -> None:
    fields = {field.name for field in dataclasses.fields(Architecture)}
    found = [random_architecture(seed) for seed in range(20)]
    constant = {
        name for name in fields if all(getattr(a, name) == getattr(BASE, name) for a in found)
    }
    assert constant == UNTOLD


@pytest.mark.parametrize('seed', range(4))
def test_keys_build_the_network_in_detectron2(detectron2: ModuleType, seed: int) -> None:
    from detectron2.modeling import build_model

    from segnode.benchmark.detectron2 import detectron2_config

    architecture = random_architecture(seed)
    with torch.device('meta'):
        theirs = build_model(detectron2_config(architecture, torch.device('meta'))).state_dict()
    shapes = {k: v.shape for k, v in theirs.items() if not k.endswith('num_batches_tracked')}
    assert expected_state_dict(architecture) == shapes


@pytest.mark.parametrize(
    ('changes', 'part'),
    [
        ({'backbone': SwinSpec()}, 'whose backbone they cannot'),
        ({'semantics': TORCHVISION}, 'whose semantics they cannot'),
        ({'norm_eps': 0.0}, 'whose norm_eps they cannot'),
        ({'box_fc_dims': (16, 8)}, 'whose box_fc_dims they cannot'),
        ({'box_conv_dims': (8, 16), 'mask_conv_dims': (8, 4)}, 'box_conv_dims, mask_conv_dims'),
        ({'mask_pooler': Pooler(resolution=14, levels='torchvision')}, 'whose mask_pooler they'),
        ({'anchor_offset': 1.5}, r'ANCHOR_GENERATOR\.OFFSET: expected a number from 0 to 1'),
    ],
)
def test_architecture_without_keys_is_refused(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(SegnodeError, match=part):
        config_keys(dataclasses.replace(BASE, **changes))


def narrow_cfg(**changes: Any) -> Any:
    """Return Detectron2's own config node of the narrow model, for the CPU."""
    from detectron2.config import CfgNode, get_cfg

    cfg = get_cfg()
    cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(CONFIG)))
    cfg.MODEL.DEVICE = 'cpu'
    for key, value in changes.items():
        cfg.merge_from_list([key.replace('__', '.'), value])
    return cfg


@pytest.mark.parametrize('depth', [18, 50, 101])
def test_whole_model_from_dump_and_weights(
    detectron2: ModuleType, tmp_path: Path, depth: int
) -> None:
    from detectron2.modeling import build_model

    cfg = narrow_cfg(MODEL__RESNETS__DEPTH=depth, MODEL__RPN__CONV_DIMS=[-1, 6])
    if depth < 50:
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    theirs = build_model(cfg)
    torch.save({'model': theirs.state_dict(), 'iteration': 3}, tmp_path / 'model.pth')
    (tmp_path / 'cfg.yaml').write_text(cfg.dump())
    model = load_model(Config(model=str(tmp_path / 'cfg.yaml')))
    assert isinstance(model, NativeModel)
    expected = theirs.state_dict()
    assert list(model.state_dict) == list(expected_state_dict(model.architecture))
    assert set(model.state_dict) == set(expected)
    for name, tensor in model.state_dict.items():
        assert torch.equal(tensor, expected[name]), name
    assert model.architecture == dataclasses.replace(
        ARCHITECTURE,
        backbone=dataclasses.replace(
            ARCHITECTURE.backbone, depth=depth, res2_out_channels=64 if depth < 50 else 16
        ),
        rpn_conv_dims=(-1, 6),
    )


def test_batch_norms_of_fpn_and_heads_are_folded(detectron2: ModuleType, tmp_path: Path) -> None:
    from detectron2.modeling import build_model

    keys = ('FPN__NORM', 'ROI_BOX_HEAD__NORM', 'ROI_MASK_HEAD__NORM', 'RESNETS__NORM')
    cfg = narrow_cfg(MODEL__ROI_BOX_HEAD__NUM_CONV=2, **{f'MODEL__{key}': 'BN' for key in keys})
    torch.manual_seed(0)
    theirs = build_model(cfg).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                torch.nn.init.uniform_(tensor, 0.1, 2.0)
    (tmp_path / 'cfg.yaml').write_text(cfg.dump())
    config = read_config(tmp_path / 'cfg.yaml')
    path = tmp_path / 'x.pth'
    state = fit_weights(theirs.state_dict(), config.architecture, config.normed, path)
    layers = {
        'backbone.fpn_lateral3': (theirs.backbone.fpn_lateral3, 32, 0),
        'backbone.fpn_output5': (theirs.backbone.fpn_output5, 8, 1),
        'roi_heads.box_head.conv2': (theirs.roi_heads.box_head.conv2, 256, 1),
        'roi_heads.mask_head.mask_fcn4': (theirs.roi_heads.mask_head.mask_fcn4, 8, 1),
    }
    assert len(state) == len(expected_state_dict(config.architecture))
    for name, (layer, channels, padding) in layers.items():
        # In float64, as processors round the sums of float32 differently.
        x = torch.randn(2, channels, 5, 6, dtype=torch.float64)
        weight, bias = state[f'{name}.weight'].double(), state[f'{name}.bias'].double()
        ours = torch.nn.functional.conv2d(x, weight, bias, padding=padding)
        if layer.activation is not None:
            ours = ours.relu()
        torch.testing.assert_close(ours, layer.double()(x), atol=1e-5, rtol=1e-5)


def test_python_tags_of_plain_data_are_read(tmp_path: Path) -> None:
    path = tmp_path / 'config.yaml'
    text = CONFIG.replace('[[32], [64], [128], [256], [512]]', '!!python/tuple [[16], [8]]')
    path.write_text(text)
    assert 'SIZES: expected 1 or 5' in refusal(path)
    tagged = '!!python/tuple [!!python/tuple [16, !!python/float "32"]]'
    path.write_text(text.replace('!!python/tuple [[16], [8]]', tagged))
    assert read_config(path).architecture.anchor_sizes == ((16.0, 32.0),) * 5


STRIDE_IN_3X3 = dataclasses.replace(ARCHITECTURE.backbone, stride_in_1x1=False)


@pytest.mark.parametrize(
    ('key', 'value', 'field', 'expected'),
    [
        # Texts that spell a literal are one, as in Detectron2's own configs.
        ('MODEL.PIXEL_STD', '(57.375, 57.120, 58.395)', 'pixel_std', (57.375, 57.12, 58.395)),
        ('MODEL.RPN.NMS_THRESH', '5e-1', 'rpn_nms_threshold', 0.5),
        ('MODEL.RPN.NMS_THRESH', 1, 'rpn_nms_threshold', 1.0),
        ('MODEL.PROPOSAL_GENERATOR.MIN_SIZE', 4, 'rpn_min_size', 4.0),
        ('MODEL.RPN.BBOX_REG_WEIGHTS', [2, 2, 1, 1], 'rpn_bbox_weights', (2.0, 2.0, 1.0, 1.0)),
        ('MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS', [1, 1, 1, 1], 'box_bbox_weights', (1.0,) * 4),
        (
            *('MODEL.ROI_BOX_HEAD.POOLER_TYPE', 'ROIAlign'),
            *('box_pooler', Pooler(resolution=7, aligned=False)),
        ),
        (
            *('MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO', 2),
            *('box_pooler', Pooler(resolution=7, sampling_ratio=2)),
        ),
        ('MODEL.ROI_BOX_HEAD.NUM_CONV', 2, 'box_conv_dims', (256, 256)),
        (
            *('MODEL.ROI_MASK_HEAD.POOLER_TYPE', 'ROIAlign'),
            *('mask_pooler', Pooler(resolution=14, aligned=False)),
        ),
        ('MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION', 7, 'mask_pooler', Pooler(resolution=7)),
        ('MODEL.ROI_MASK_HEAD.NUM_CONV', 0, 'mask_conv_dims', ()),
        ('MODEL.ANCHOR_GENERATOR.SIZES', [32, 64], 'anchor_sizes', ((32.0, 64.0),) * 5),
        ('MODEL.ANCHOR_GENERATOR.OFFSET', 0.5, 'anchor_offset', 0.5),
        ('MODEL.FPN.FUSE_TYPE', 'avg', 'fpn_fuse', 'avg'),
        ('MODEL.RESNETS.STRIDE_IN_1X1', False, 'backbone', STRIDE_IN_3X3),
        ('INPUT.FORMAT', 'RGB', 'color', 'RGB'),
        ('INPUT.MIN_SIZE_TEST', 0, 'short_side', 0),
        ('TEST.DETECTIONS_PER_IMAGE', 5, 'max_instances', 5),
        # These do not change the answer.
        ('MODEL.RPN.POSITIVE_FRACTION', 0.1, 'fpn_channels', 8),
        ('SOLVER.MADE_UP', 1, 'fpn_channels', 8),
        ('DATASETS.TRAIN', '("mine",)', 'fpn_channels', 8),
        ('OUTPUT_DIR', '/nowhere', 'fpn_channels', 8),
    ],
)
def test_key_is_honoured(tmp_path: Path, key: str, value: Any, field: str, expected: Any) -> None:
    found = read_config(write(tmp_path, {key: value})).architecture
    assert found == dataclasses.replace(ARCHITECTURE, **{field: expected})


@pytest.mark.parametrize(
    ('key', 'value', 'part'),
    [
        ('VERSION', 1, 'expected 2, found 1'),
        ('MODEL.META_ARCHITECTURE', 'RetinaNet', "expected 'GeneralizedRCNN'"),
        ('MODEL.BACKBONE.NAME', 'build_resnet_backbone', "'build_resnet_fpn_backbone'"),
        ('MODEL.MASK_ON', False, 'expected True'),
        ('MODEL.MASK_ON', 1, 'FPN), found 1'),
        ('MODEL.KEYPOINT_ON', True, 'expected False'),
        ('MODEL.LOAD_PROPOSALS', True, 'expected False'),
        ('MODEL.PIXEL_MEAN', [1, 2], 'expected 3 numbers'),
        ('MODEL.PIXEL_MEAN', [1, 2, float('nan')], 'expected 3 numbers'),
        ('MODEL.PIXEL_STD', [1, 0, 1], 'expected 3 positive numbers'),
        ('MODEL.RESNETS.DEPTH', 42, 'expected one of 18, 34, 50, 101, 152, found 42'),
        ('MODEL.RESNETS.DEPTH', -50, 'found -50'),
        ('MODEL.RESNETS.DEPTH', '50 layers', "found '50 layers'"),
        ('MODEL.RESNETS.DEPTH', 18, 'MODEL.RESNETS.RES2_OUT_CHANNELS: expected 64, found 16'),
        ('MODEL.RESNETS.NORM', 'GN', "found 'GN'"),
        ('MODEL.RESNETS.NORM', '', "found ''"),
        ('MODEL.RESNETS.RES5_DILATION', 2, 'expected 1'),
        ('MODEL.RESNETS.DEFORM_ON_PER_STAGE', [False, True, True, True], 'found [False, True'),
        ('MODEL.RESNETS.OUT_FEATURES', ['res4', 'res5'], "expected ['res2', 'res3'"),
        ('MODEL.RESNETS.WIDTH_PER_GROUP', 10**9, 'expected an integer from 1'),
        ('MODEL.FPN.IN_FEATURES', ['res3'], "expected ['res2'"),
        ('MODEL.FPN.NORM', 'GN', "found 'GN'"),
        ('MODEL.FPN.FUSE_TYPE', 'max', "'sum', 'avg'"),
        ('MODEL.FPN.OUT_CHANNELS', 8.5, 'expected an integer'),
        ('MODEL.ANCHOR_GENERATOR.NAME', 'RotatedAnchorGenerator', "'DefaultAnchorGenerator'"),
        ('MODEL.ANCHOR_GENERATOR.SIZES', [[1], [2]], 'expected 1 or 5'),
        ('MODEL.ANCHOR_GENERATOR.SIZES', [[1], [2], [3], [4], [5, 6]], 'equally long'),
        ('MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS', [[0.5, -1]], 'positive'),
        ('MODEL.ANCHOR_GENERATOR.OFFSET', 1.0, 'expected less than 1'),
        ('MODEL.PROPOSAL_GENERATOR.NAME', 'RRPN', "expected 'RPN'"),
        ('MODEL.RPN.HEAD_NAME', 'MyHead', "expected 'StandardRPNHead'"),
        ('MODEL.RPN.IN_FEATURES', ['p3'], "expected ['p2'"),
        ('MODEL.RPN.CONV_DIMS', [], 'numbers of channels'),
        ('MODEL.RPN.CONV_DIMS', [0], 'numbers of channels'),
        ('MODEL.RPN.NMS_THRESH', 1.5, 'expected a number from 0 to 1'),
        ('MODEL.RPN.PRE_NMS_TOPK_TEST', 0, 'expected an integer from 1'),
        ('MODEL.ROI_HEADS.NAME', 'CascadeROIHeads', "expected 'StandardROIHeads'"),
        ('MODEL.ROI_HEADS.IN_FEATURES', ['p2'], "expected ['p2', 'p3'"),
        ('MODEL.ROI_HEADS.NUM_CLASSES', 0, 'expected an integer from 1'),
        ('MODEL.ROI_HEADS.SCORE_THRESH_TEST', True, 'expected a number'),
        ('MODEL.ROI_BOX_HEAD.NAME', 'MyHead', "expected 'FastRCNNConvFCHead'"),
        ('MODEL.ROI_BOX_HEAD.NUM_FC', 0, 'expected an integer from 1'),
        ('MODEL.ROI_BOX_HEAD.POOLER_TYPE', 'ROIPool', "'ROIAlignV2', 'ROIAlign'"),
        ('MODEL.ROI_BOX_HEAD.NORM', 'LN', "found 'LN'"),
        ('MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS', [1, 1, 1], 'expected 4 positive numbers'),
        ('MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE', True, 'expected False'),
        ('MODEL.ROI_MASK_HEAD.NAME', 'PointRendMaskHead', "'MaskRCNNConvUpsampleHead'"),
        ('MODEL.ROI_MASK_HEAD.POOLER_TYPE', '', "'ROIAlignV2', 'ROIAlign'"),
        ('MODEL.ROI_MASK_HEAD.NUM_CONV', 10**9, 'expected an integer from 0 to 64'),
        ('INPUT.FORMAT', 'L', "'BGR', 'RGB'"),
        ('INPUT.MIN_SIZE_TEST', [800], 'expected an integer'),
        ('TEST.AUG.ENABLED', 1, 'expected one of True, False'),
        ('TEST.DETECTIONS_PER_IMAGE', 0, 'expected an integer from 1 to 65535, or -1 for all'),
        ('TEST.DETECTIONS_PER_IMAGE', 65536, 'expected an integer from 1 to 65535'),
        ('MODEL.WEIGHTS', 3, 'expected a text'),
        ('MODEL.RESNETS', 50, 'expected keys under it, found 50'),
        ('MODEL.RPN.NMS_TRESH', 0.5, 'did you mean MODEL.RPN.NMS_THRESH?'),
        ('MODEL.POINT_HEAD.NUM_CLASSES', 3, 'MODEL.POINT_HEAD: expected a key of Detectron2'),
        ('MODEL.WEIGHT', 'x.pth', 'did you mean MODEL.WEIGHTS?'),
        ('MODEL.RPN.A\nB', 1, 'expected a key of Detectron2'),
        ('MY_OPTION', 1, 'MY_OPTION: expected a key of Detectron2'),
    ],
)
def test_key_is_refused_by_name(tmp_path: Path, key: str, value: Any, part: str) -> None:
    message = refusal(write(tmp_path, {key: value}))
    assert message.startswith(f'{tmp_path}/config.yaml: ')
    assert part in message
    assert key.split('\n')[0] in message or key.startswith(('MODEL.RESNETS.DEPTH', 'MODEL.POINT'))


def test_flow_style_is_no_safetensors(tmp_path: Path) -> None:
    # Its ninth byte is the one that a safetensors file has there.
    (tmp_path / 'config.yaml').write_text('MODEL:  {MASK_ON: false}')
    with pytest.raises(SegnodeError, match=r'MODEL\.MASK_ON: expected True'):
        load_model(Config(model=str(tmp_path / 'config.yaml')))


def test_absent_keys_take_detectron2s_defaults(tmp_path: Path) -> None:
    path = tmp_path / 'config.yaml'
    path.write_text(CONFIG.replace(', PRE_NMS_TOPK_TEST: 1000', ''))
    assert read_config(path).architecture.rpn_pre_nms_topk == 6000
    path.write_text('MODEL: {MASK_ON: true}\n')
    assert "found 'build_resnet_backbone' (Detectron2's default)" in refusal(path)


def test_base_chain(tmp_path: Path) -> None:
    (tmp_path / 'base').mkdir()
    (tmp_path / 'base' / 'root.yaml').write_text(CONFIG)
    middle = tmp_path / 'base' / 'middle.yaml'
    middle.write_text('_BASE_: root.yaml\nMODEL: {FPN: {FUSE_TYPE: avg}, RPN: {NMS_THRESH: 0.6}}')
    leaf = tmp_path / 'leaf.yaml'
    leaf.write_text('_BASE_: base/middle.yaml\nMODEL: {RPN: {NMS_THRESH: 0.4}}')
    found = read_config(leaf)
    assert found.architecture == dataclasses.replace(
        ARCHITECTURE, fpn_fuse='avg', rpn_nms_threshold=0.4
    )
    assert found.weights_folder == tmp_path / 'base'
    leaf.write_text('_BASE_: [base/middle.yaml]\n')
    assert read_config(leaf).architecture.rpn_nms_threshold == 0.6
    # A fault is reported in the file that has it.
    middle.write_text('_BASE_: root.yaml\nMODEL: {FPN: {FUSE_TYPE: max}}')
    assert refusal(leaf).startswith(f'{tmp_path}/base/middle.yaml: MODEL.FPN.FUSE_TYPE')


@pytest.mark.parametrize(
    ('bases', 'part'),
    [
        ({'a': 'a.yaml'}, 'found one that is its own base'),
        ({'a': './sub/../a.yaml', 'sub/x': ''}, 'found one that is its own base'),
        ({'a': 'b.yaml', 'b': 'c.yaml', 'c': 'a.yaml'}, 'found one that is its own base'),
        ({'a': 'none.yaml'}, 'none.yaml: expected a Detectron2 config, found no such file'),
        ({'a': '.'}, 'found a folder'),
        ({'a': 'https://example.org/b.yaml'}, '_BASE_: expected a file'),
        ({'a': 3}, '_BASE_: expected the name of a config, found 3'),
        ({f'c{i}': f'c{i + 1}.yaml' for i in range(100)} | {'a': 'c0.yaml'}, 'its own base'),
    ],
)
def test_bad_base_is_refused(tmp_path: Path, bases: dict[str, Any], part: str) -> None:
    for name, base in bases.items():
        path = tmp_path / f'{name}.yaml'
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({'_BASE_': base}))
    assert part in refusal(tmp_path / 'a.yaml')


def _of_aliases(key: str, collection: str) -> bytes:
    """A few lines that would become 10^9 values."""
    lines = ['a0: &a0 {k: v}']
    for level in range(1, 10):
        of = collection.format(', '.join([f'*a{level - 1}'] * 10))
        lines.append(f'a{level}: &a{level} {of}')
    return '\n'.join([*lines, f'{key}: *a9']).encode()


@pytest.mark.parametrize(
    ('content', 'part'),
    [
        (b'', 'found an empty file'),
        (b'MODEL: {RESNETS: [', 'broken YAML'),
        (b'MODEL:\n\tMASK_ON: true\n', 'broken YAML'),
        (b'a: *b', 'broken YAML'),
        (b'\x00\xff\xfe', 'broken YAML'),
        (b'[' * 600, 'broken YAML'),
        (b'a: 1' + b':1' * 60_000, 'a value of 120001 letters without quotes'),
        (b'# nothing\n', 'without keys and values'),
        (b'- 1\n- 2\n', 'without keys and values'),
        (b'just text', 'without keys and values'),
        (b'1: 2\n', 'without keys and values'),
        (b'? [1]\n: 2\n', 'unhashable key'),
        (b'a: !!timestamp x', 'broken YAML'),
        (b'a: 2024-99-99', 'broken YAML'),
        (_of_aliases('_BASE_', '[{}]'), 'aliases that make more than'),
        (_of_aliases('MODEL', '{{<<: [{}]}}'), 'aliases that make more than'),
        (b'MODEL: &a {MODEL: *a}', 'aliases that make more than'),
        (b'x' * (2 << 20), 'more than 256 KiB'),
        (
            b'SOLVER: !!python/object/apply:eval ["1"]',
            'tag python/object/apply:eval, which is never',
        ),
        (b'SOLVER: !!python/object:os.PathLike {}', 'tag python/object:os.PathLike'),
        (b'SOLVER: !!python/name:os.system', 'tag python/name:os.system'),
        (b'SOLVER: !!python/module:os', 'tag python/module:os'),
        (b'SOLVER: !mine {}', 'the tag !mine'),
    ],
)
def test_bad_yaml_is_refused(tmp_path: Path, content: bytes, part: str) -> None:
    (tmp_path / 'config.yaml').write_bytes(content)
    assert part in refusal(tmp_path / 'config.yaml')


@pytest.mark.parametrize('tag', ['apply:os.system', 'new:os.system', 'apply:subprocess.call'])
@pytest.mark.parametrize('key', ['SOLVER', 'MODEL', 'OUTPUT_DIR'])
def test_yaml_never_runs_code(tmp_path: Path, tag: str, key: str) -> None:
    canary = tmp_path / 'canary'
    (tmp_path / 'config.yaml').write_text(f'{key}: !!python/object/{tag} ["touch {canary}"]\n')
    assert 'which is never built in line 1' in refusal(tmp_path / 'config.yaml')
    assert not canary.exists()


def test_weights_stand_beside_the_config_or_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    config = write_checkpoint(tmp_path)
    assert load_model(Config(model=str(config))).weights_path == tmp_path / 'model.pth'
    (tmp_path / 'model.pth').rename(tmp_path / 'elsewhere' / 'model.pth')
    found = load_model(Config(model=str(config))).weights_path
    assert found.samefile(tmp_path / 'elsewhere' / 'model.pth')
    (tmp_path / 'elsewhere' / 'model.pth').unlink()
    with pytest.raises(SegnodeError, match=r'model\.pth: expected weights, found no such file'):
        load_model(Config(model=str(config)))


@pytest.mark.parametrize(
    ('weights', 'part'),
    [
        ('', 'found none; name the weights with --weights'),
        ('detectron2://ImageNetPretrained/MSRA/R-50.pkl', 'name the trained weights'),
        ('https://example.org/model.pth', 'name the trained weights'),
    ],
)
def test_config_has_nothing_fetched(tmp_path: Path, weights: str, part: str) -> None:
    config = write(tmp_path, {'MODEL.WEIGHTS': weights})
    with pytest.raises(SegnodeError, match=part):
        load_model(Config(model=str(config)))


def test_weights_of_another_depth_are_refused(tmp_path: Path) -> None:
    deep = random_state(
        dataclasses.replace(
            ARCHITECTURE, backbone=dataclasses.replace(ARCHITECTURE.backbone, depth=101)
        )
    )
    (tmp_path / 'deep.pkl').write_bytes(
        pickle.dumps({'model': {k: v.numpy() for k, v in deep.items()}})
    )
    config = write_checkpoint(tmp_path)
    with pytest.raises(SegnodeError, match=r'such as backbone\.bottom_up\.res4\.6\.conv1\.weight'):
        load_model(Config(model=str(config), weights=str(tmp_path / 'deep.pkl')))


def test_class_names(tmp_path: Path) -> None:
    config = str(write_checkpoint(tmp_path))
    names = tmp_path / 'names.txt'
    names.write_text('cone\n\n  ball \nbox\n')
    given = load_model(Config(model=config, class_names=('a', 'b', 'c')))
    assert given.class_names == ('a', 'b', 'c')
    read = load_model(Config(model=config, class_names=(str(names),)))
    assert read.class_names == ('cone', 'ball', 'box')
    for bad in (('a', 'b'), ('a',), ('a', 'b', ' ')):
        with pytest.raises(SegnodeError, match='class_names: expected'):
            load_model(Config(model=config, class_names=bad))
    names.write_text('cone\n')
    with pytest.raises(SegnodeError, match=r'names\.txt: expected 3 names'):
        load_model(Config(model=config, class_names=(str(names),)))
    names.write_bytes(b'\xff\xfe\x00')
    with pytest.raises(SegnodeError, match=r'names\.txt: expected class names as UTF-8'):
        load_model(Config(model=config, class_names=(str(names),)))


def test_test_time_augmentation_is_ignored_as_by_the_default_predictor(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    path = write(tmp_path, {'TEST.AUG.ENABLED': True, 'TEST.AUG.MIN_SIZES': [400, 500]})
    notes: list[str] = []
    try:
        names = ('cone', 'ball', 'box')
        model = load_model(Config(model=str(path), class_names=names), notes.append)
    except SegnodeError as error:
        pytest.fail(f'refused: {error}')
    assert isinstance(model, NativeModel)
    assert model.architecture == ARCHITECTURE
    (note,) = notes
    assert note.startswith(f'{path}: TEST.AUG.ENABLED: ignored')


@pytest.mark.parametrize(('given', 'kept'), [(300, 300), (65_535, 65_535), (-1, 65_535)])
def test_as_many_detections_as_a_label_image_can_tell(
    tmp_path: Path, given: int, kept: int
) -> None:
    path = write(tmp_path, {'TEST.DETECTIONS_PER_IMAGE': given})
    try:
        found = read_config(path)
    except SegnodeError as error:
        pytest.fail(f'refused: {error}')
    assert found.architecture.max_instances == kept


LAZY = """
from detectron2.config import LazyCall as L
from ..common.models.mask_rcnn_fpn import model
import os; os.system('touch {canary}')
model.backbone.bottom_up.freeze_at = 0
"""
MMDETECTION = """
_base_ = './mask_rcnn_r50_fpn_1x_coco.py'
model = dict(backbone=dict(depth=101))
import os; os.system('touch {canary}')
"""


@pytest.mark.parametrize(
    ('name', 'text', 'part'),
    [
        ('mask_rcnn.py', LAZY, 'found a LazyConfig of Detectron2, and Python is never run'),
        ('model.py', 'print(1)', 'found a Python program, and Python is never run'),
        (
            'config.yaml',
            'model:\n  _target_: detectron2.modeling.meta_arch.rcnn.GeneralizedRCNN\n',
            'found a LazyConfig (_target_)',
        ),
        (
            'config.yaml',
            'dataloader: {}\noptimizer:\n  _target_: torch.optim.SGD\nmodel: {a: 1}\n',
            'found a LazyConfig (_target_)',
        ),
    ],
)
def test_config_that_would_have_to_be_run_is_named(
    tmp_path: Path, name: str, text: str, part: str
) -> None:
    canary = tmp_path / 'canary'
    (tmp_path / name).write_text(text.replace('{canary}', str(canary)))
    with pytest.raises(SegnodeError) as caught:
        load_model(Config(model=str(tmp_path / name)))
    message = str(caught.value)
    assert part in message
    assert 'TorchScript' in message
    assert len(message) < 500
    assert not canary.exists()


def test_a_config_of_mmdetection_is_no_base(tmp_path: Path) -> None:
    canary = tmp_path / 'canary'
    (tmp_path / 'mask_rcnn.py').write_text(MMDETECTION.replace('{canary}', str(canary)))
    (tmp_path / 'config.yaml').write_text('_BASE_: mask_rcnn.py\n')
    with pytest.raises(SegnodeError, match='found a config of MMDetection, and Python is never'):
        load_model(Config(model=str(tmp_path / 'config.yaml')))
    with pytest.raises(SegnodeError, match=r'_base_: expected a Python config, found no such fil'):
        load_model(Config(model=str(tmp_path / 'mask_rcnn.py')))
    assert not canary.exists()


@pytest.mark.parametrize(
    ('key', 'part'),
    [
        ('MODEL.POINT_HEAD.NUM_CLASSES', 'one of PointRend'),
        ('MODEL.ROI_MASK_HEAD.POINT_HEAD_ON', 'one of PointRend'),
        ('MODEL.TENSOR_MASK.NUM_CLASSES', 'one of TensorMask'),
        ('MODEL.PANOPTIC_DEEPLAB.STUFF_AREA', 'one of Panoptic-DeepLab'),
        ('MODEL.RESNETS.STEM_TYPE', 'one of DeepLab'),
        ('MODEL.ROI_DENSEPOSE_HEAD.NAME', 'one of DensePose'),
        ('MODEL.TRIDENT.NUM_BRANCH', 'one of TridentNet'),
        ('MODEL.VIT.DEPTH', 'one of ViTDet'),
        ('MODEL.MVIT.DEPTH', 'one of MViT'),
        ('MODEL.SWIN.EMBED_DIM', 'one of a Swin Transformer'),
        ('MODEL.SWINT.EMBED_DIM', 'one of a Swin Transformer'),
        ('MODEL.CENTERNET.NUM_CLASSES', 'one of CenterNet'),
        ('MODEL.FCOS.NUM_CLASSES', 'one of FCOS (AdelaiDet)'),
        ('MODEL.BLENDMASK.ATTN_SIZE', 'one of BlendMask (AdelaiDet)'),
        ('MODEL.CONDINST.MAX_PROPOSALS', 'one of CondInst (AdelaiDet)'),
        ('MODEL.MASK_FORMER.NHEADS', 'one of MaskFormer or Mask2Former'),
        ('INPUT.POINT_SUP', 'set MODEL.ROI_MASK_HEAD.NAME to MaskRCNNConvUpsampleHead'),
    ],
)
def test_key_of_another_project_is_named(tmp_path: Path, key: str, part: str) -> None:
    message = refusal(write(tmp_path, {key: 1}))
    assert part in message
    assert 'did you mean' not in message


@pytest.mark.parametrize(
    ('key', 'value', 'part'),
    [
        ('MODEL.PROPOSAL_GENERATOR.NAME', 'RRPN', ': rotated boxes'),
        ('MODEL.ROI_HEADS.NAME', 'CascadeROIHeads', ': a Cascade R-CNN'),
        ('MODEL.ROI_MASK_HEAD.NAME', 'PointRendMaskHead', ': PointRend'),
        ('MODEL.META_ARCHITECTURE', 'CondInst', ': CondInst (AdelaiDet)'),
        ('MODEL.BACKBONE.NAME', 'build_trident_resnet_backbone', ': TridentNet'),
        ('MODEL.ROI_MASK_HEAD.NAME', 'MaskRCNNConvUpsamplePointSupHead', ': PointSup, which runs'),
    ],
)
def test_value_of_another_project_is_named(
    tmp_path: Path, key: str, value: str, part: str
) -> None:
    assert part in refusal(write(tmp_path, {key: value}))


@pytest.mark.parametrize(
    ('key', 'meant'),
    [
        ('MODEL.RESNET.DEPTH', 'MODEL.RESNETS'),
        ('MODEL.RESNETS.DEPHT', 'MODEL.RESNETS.DEPTH'),
        ('MODEL.ROI_HEADS.SCORE_TRESH_TEST', 'MODEL.ROI_HEADS.SCORE_THRESH_TEST'),
        ('model.WEIGHTS', 'MODEL'),
        ('TEST.DETECTION_PER_IMAGE', 'TEST.DETECTIONS_PER_IMAGE'),
        ('MODEL.ROI_BOX_HEAD.DROPOUT', ''),
        ('MODEL.ATTENTION', ''),
        ('MODEL.MASK_LOSS', ''),
        ('MODEL.RPN.NUM_LAYERS', ''),
        ('MYPROJECT', ''),
    ],
)
def test_only_a_misspelt_key_gets_a_guess(tmp_path: Path, key: str, meant: str) -> None:
    message = refusal(write(tmp_path, {key: 1}))
    expected = f'did you mean {meant}?' if meant else 'found an unknown one'
    assert message.endswith(expected)


@pytest.mark.parametrize(
    ('changes', 'part'),
    [
        ({'MODEL.RESNETS.NORM': 'GN'}, "expected a norm for 8 channels ('GN' takes multiples"),
        ({'MODEL.FPN.NORM': 'GN'}, 'MODEL.FPN.NORM: expected a norm for 8 channels'),
        ({'MODEL.ROI_MASK_HEAD.NORM': 'GN'}, 'MODEL.ROI_MASK_HEAD.NORM: expected a norm for 8'),
        ({'MODEL.ROI_BOX_HEAD.NORM': 'LN'}, "MODEL.ROI_BOX_HEAD.NORM: expected one of ''"),
        ({'MODEL.RESNETS.NORM': ''}, "MODEL.RESNETS.NORM: expected one of 'FrozenBN'"),
    ],
)
def test_norm_that_cannot_be_is_refused(
    tmp_path: Path, changes: dict[str, Any], part: str
) -> None:
    assert part in refusal(write(tmp_path, changes))


@pytest.mark.parametrize('eps', [-1.0, 0.0, 1e-3])
def test_epsilon_of_the_norms(tmp_path: Path, eps: float) -> None:
    config = write_checkpoint(tmp_path)
    model = load_model(Config(model=str(config), norm_eps=eps))
    assert isinstance(model, NativeModel)
    assert model.architecture.norm_eps == (1e-5 if eps < 0 else eps)
