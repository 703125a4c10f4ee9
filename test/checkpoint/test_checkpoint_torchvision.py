# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""torchvision's checkpoints, against torchvision's own modules."""

from __future__ import annotations

import copy
import dataclasses
import functools
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from segnode.checkpoint import PRESETS, NativeModel, load_model
from segnode.checkpoint.class_names import SPARSE_NAMES, category_ids
from segnode.checkpoint.download import Checksum
from segnode.checkpoint.torchvision import (
    ARCHITECTURE,
    ARCHITECTURE_V2,
    fit_weights,
    to_torchvision,
)
from segnode.config import Config
from segnode.errors import CheckpointError
from segnode.model.architecture import Architecture
from segnode.model.mask_rcnn import build_mask_rcnn

NAME, NAME_V2 = 'maskrcnn_resnet50_fpn', 'maskrcnn_resnet50_fpn_v2'
FOREGROUND = 3
PATH = Path('weights.pth')


@pytest.fixture(scope='module')
def theirs() -> nn.Module:
    return build(NAME)


@pytest.fixture(scope='module')
def theirs_v2() -> nn.Module:
    return build(NAME_V2)


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = getattr(torchvision.models.detection, name)(
        weights=None, weights_backbone=None, num_classes=FOREGROUND + 1
    ).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.2, 1.0)
    return model


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename to what torchvision wrote up to 0.12."""
    renamed = {}
    for name, tensor in state.items():
        old = name.replace('rpn.head.conv.0.0.', 'rpn.head.conv.')
        for block in ('inner_blocks', 'layer_blocks'):
            for index in range(4):
                old = old.replace(f'{block}.{index}.0.', f'{block}.{index}.')
        for index in range(4):
            old = old.replace(f'mask_head.{index}.0.', f'mask_head.mask_fcn{index + 1}.')
        renamed[old] = tensor
    return renamed


@pytest.mark.parametrize(
    ('fixture', 'of'), [('theirs', ARCHITECTURE), ('theirs_v2', ARCHITECTURE_V2)]
)
@torch.no_grad()
def test_every_module_answers_as_torchvisions(
    fixture: str, of: Architecture, request: pytest.FixtureRequest
) -> None:
    theirs = request.getfixturevalue(fixture)
    architecture, state = fit_weights(theirs.state_dict(), PATH, architecture=of, published=False)
    assert architecture == dataclasses.replace(of, num_classes=FOREGROUND)
    # In float64 the sums round to nothing, which differs by processor: what is left is the
    # rounding of batch normalisation that was folded into float32.
    ours = build_mask_rcnn(architecture, state).double()
    theirs = copy.deepcopy(theirs).double()
    close = functools.partial(torch.testing.assert_close, atol=1e-5, rtol=1.3e-6)
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    expected = list(theirs.backbone(images).values())
    found = ours.backbone(images)
    for a, b in zip(found, expected, strict=True):
        # Of more than fifty layers.
        close(a, b, atol=1e-5 * max(float(b.std()), 1))

    logits, deltas = ours.proposal_generator.rpn_head.maps(expected)
    their_logits, their_deltas = theirs.rpn.head(expected)
    close(logits, their_logits)
    close(deltas, their_deltas)

    pooled = torch.randn(5, 256, 7, 7, dtype=torch.float64)
    heads = theirs.roi_heads
    their_scores, their_boxes = heads.box_predictor(heads.box_head(pooled))
    scores, boxes = ours.roi_heads.box_predictor(ours.roi_heads.box_head(pooled))
    close(scores, torch.roll(their_scores, -1, 1))
    close(boxes, their_boxes[:, 4:])

    pooled = torch.randn(2, 256, 14, 14, dtype=torch.float64)
    masks = heads.mask_predictor(heads.mask_head(pooled))
    close(ours.roi_heads.mask_head(pooled), masks[:, 1:])


def test_names_of_both_ages(theirs: nn.Module) -> None:
    state = theirs.state_dict()
    old = old_names(state)
    assert 'roi_heads.mask_head.mask_fcn1.weight' in old
    assert 'rpn.head.conv.weight' in old
    _, expected = fit_weights(state, PATH, published=False)
    _, found = fit_weights(old, PATH, published=False)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_architecture_is_torchvisions(theirs: nn.Module) -> None:
    a, heads = ARCHITECTURE, theirs.roi_heads
    transform, rpn = theirs.transform, theirs.rpn
    assert a.pixel_mean == pytest.approx([255 * v for v in transform.image_mean])
    assert a.pixel_std == pytest.approx([255 * v for v in transform.image_std])
    assert (a.short_side, a.long_side) == (transform.min_size[0], transform.max_size)
    assert a.size_divisibility == transform.size_divisible
    assert a.anchor_sizes == rpn.anchor_generator.sizes
    assert a.anchor_ratios == rpn.anchor_generator.aspect_ratios
    assert a.rpn_pre_nms_topk == rpn.pre_nms_top_n()
    assert a.rpn_post_nms_topk == rpn.post_nms_top_n()
    assert a.rpn_nms_threshold == rpn.nms_thresh
    assert a.rpn_min_size == rpn.min_size
    assert a.rpn_bbox_weights == rpn.box_coder.weights
    assert a.box_bbox_weights == heads.box_coder.weights
    assert (a.score_threshold, a.nms_threshold) == (heads.score_thresh, heads.nms_thresh)
    assert a.max_instances == heads.detections_per_img
    assert (a.box_pooler.resolution,) * 2 == heads.box_roi_pool.output_size
    assert (a.mask_pooler.resolution,) * 2 == heads.mask_roi_pool.output_size
    assert a.box_pooler.sampling_ratio == heads.box_roi_pool.sampling_ratio
    assert a.mask_pooler.sampling_ratio == heads.mask_roi_pool.sampling_ratio


def test_loaded_by_preset_name(
    theirs: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'tuned.pth'
    torch.save({'model': theirs.state_dict(), 'epoch': 3}, path)
    names = ('cone', 'ball', 'box')
    notes: list[str] = []
    model = load_model(Config(model=NAME, weights=str(path), class_names=names), notes.append)
    assert isinstance(model, NativeModel)
    assert notes == [], 'batch norms that were trained have the usual epsilon'
    assert (model.class_names, model.category_ids, model.licence) == (names, None, '')
    assert (model.name, model.architecture.norm_eps) == (NAME, 1e-5)
    # The published file's batch norms have an epsilon of 0; it is known by its checksum.
    preset = dataclasses.replace(
        PRESETS[NAME], checksum=Checksum('sha256', model.weights_sha256[:8])
    )
    monkeypatch.setitem(PRESETS, NAME, preset)
    published = load_model(Config(model=NAME, weights=str(path)))
    assert isinstance(published, NativeModel)
    assert published.architecture.norm_eps == 0.0
    assert published.class_names == ('class_0', 'class_1', 'class_2')
    assert published.licence == preset.licence


def test_epsilon_of_a_fine_tuned_model_is_a_guess_and_said(
    theirs: nn.Module, tmp_path: Path
) -> None:
    """Frozen batch norms, as a fine-tuned model has them, count no batches."""
    frozen = {k: v for k, v in theirs.state_dict().items() if not k.endswith('batches_tracked')}
    path = tmp_path / 'frozen.pth'
    torch.save(frozen, path)
    notes: list[str] = []
    model = load_model(Config(model=NAME, weights=str(path)), notes.append)
    assert isinstance(model, NativeModel)
    assert model.architecture.norm_eps == 1e-5
    assert sum('set norm_eps to 0 (--norm-eps 0)' in note for note in notes) == 1
    notes.clear()
    model = load_model(Config(model=NAME, weights=str(path), norm_eps=0.0), notes.append)
    assert isinstance(model, NativeModel)
    assert model.architecture.norm_eps == 0.0
    assert not any('norm_eps' in note for note in notes)


@torch.no_grad()
def test_epsilon_of_zero_answers_as_torchvisions(theirs: nn.Module) -> None:
    """A fine-tuned model keeps the epsilon that torchvision overwrites in its published one."""
    state = theirs.state_dict()
    state['backbone.body.bn1.running_var'] = torch.full((64,), 1e-5)
    architecture, ours = fit_weights(state, PATH, published=False, norm_eps=0.0)
    bn = nn.BatchNorm2d(64, eps=0.0).eval()
    names = ('weight', 'bias', 'running_mean', 'running_var')
    bn.load_state_dict({name: state[f'backbone.body.bn1.{name}'] for name in names}, strict=False)
    images = torch.randn(1, 3, 64, 64)
    expected = theirs.backbone.body.maxpool(bn(theirs.backbone.body.conv1(images)).relu())
    found = build_mask_rcnn(architecture, ours).backbone.bottom_up.stem(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2)


def test_coco_classes_are_torchvisions(tmp_path: Path) -> None:
    categories = torchvision.models.detection.MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta[
        'categories'
    ]
    assert list(SPARSE_NAMES) == categories[1:]
    assert category_ids(SPARSE_NAMES) == tuple(range(1, 91))


@pytest.mark.parametrize(
    ('change', 'part'),
    [
        ({'backbone.body.conv1.weight': None}, 'such as backbone.body.conv1.weight'),
        ({'rpn.head.cls_logits.bias': torch.zeros(5)}, 'shape (3,), found (5,)'),
        (
            {'roi_heads.mask_predictor.mask_fcn_logits.bias': torch.zeros(9)},
            'is the number of classes right?',
        ),
        ({'backbone.fpn.inner_blocks.0.1.weight': torch.zeros(256)}, 'maskrcnn_resnet50_fpn_v2'),
        ({'roi_heads.keypoint_head.0.weight': torch.zeros(1)}, 'a Keypoint R-CNN'),
    ],
)
def test_other_checkpoint_is_refused(
    theirs: nn.Module, change: dict[str, Tensor | None], part: str
) -> None:
    state = {k: v for k, v in {**theirs.state_dict(), **change}.items() if v is not None}
    with pytest.raises(CheckpointError) as caught:
        fit_weights(state, PATH, published=False)
    assert part in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ('state', 'part'),
    [
        ({'backbone.body.conv1.weight': 1, 'roi_heads.box_head.fc6.weight': 1}, 'without masks'),
        ({'conv1.weight': 1, 'layer1.0.conv1.weight': 1}, 'a backbone alone'),
        (
            {'backbone.bottom_up.stem.conv1.weight': 1, 'roi_heads.mask_head.deconv.bias': 1},
            'a Detectron2 checkpoint',
        ),
    ],
)
def test_other_architecture_is_named(state: dict[str, int], part: str) -> None:
    tensors = {name: torch.zeros(1) for name in state}
    with pytest.raises(CheckpointError, match=part):
        fit_weights(tensors, PATH, published=False)


def test_the_second_version_goes_there_and_back(theirs_v2: nn.Module) -> None:
    theirs = theirs_v2.state_dict()
    assert len(theirs) == 432
    architecture, state = fit_weights(theirs, PATH, architecture=ARCHITECTURE_V2, published=False)
    written = to_torchvision(state, architecture.norm_eps)
    counted = {name: t for name, t in theirs.items() if not name.endswith('batches_tracked')}
    assert {k: v.shape for k, v in written.items()} == {k: v.shape for k, v in counted.items()}
    again, back = fit_weights(written, PATH, architecture=ARCHITECTURE_V2, published=False)
    assert again == architecture
    assert list(back) == list(state)
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize('published', [False, True])
def test_the_second_version_has_the_usual_epsilon(published: bool, theirs_v2: nn.Module) -> None:
    notes: list[str] = []
    frozen = {k: v for k, v in theirs_v2.state_dict().items() if not k.endswith('tracked')}
    architecture, _ = fit_weights(
        frozen, PATH, architecture=ARCHITECTURE_V2, published=published, report=notes.append
    )
    assert architecture.norm_eps == 1e-5
    assert notes == []


def test_the_second_version_by_its_preset(theirs_v2: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / 'tuned.pth'
    torch.save(theirs_v2.state_dict(), path)
    model = load_model(Config(model=NAME_V2, weights=str(path)))
    assert isinstance(model, NativeModel)
    assert model.architecture == dataclasses.replace(ARCHITECTURE_V2, num_classes=FOREGROUND)
    with pytest.raises(CheckpointError, match=r'\(--model maskrcnn_resnet50_fpn_v2 takes it\)'):
        load_model(Config(model=NAME, weights=str(path)))


def test_the_first_version_is_not_the_second(theirs: nn.Module) -> None:
    with pytest.raises(CheckpointError, match=r'\(--model maskrcnn_resnet50_fpn takes it\)'):
        fit_weights(theirs.state_dict(), PATH, architecture=ARCHITECTURE_V2, published=False)
