# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The whole network against torchvision's, of both versions, on planted weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from matching import Found, assert_same_instances
from pictures import photograph, rendered
from seeds import fresh_seeds
from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2

from segnode.checkpoint.planting import plant_weights
from segnode.checkpoint.torchvision import ARCHITECTURE, ARCHITECTURE_V2, fit_weights
from segnode.checkpoint.torchvision import to_torchvision as to_torchvision_v2
from segnode.config import Config
from segnode.engine import Engine
from segnode.image import Image
from segnode.kernels.preprocess import preprocess, resized_hw
from segnode.model.mask_rcnn import expected_state_dict

SHORT_SIDE, LONG_SIDE = 256, 400
THRESHOLD = 0.5
# Of the second version, whose box head is expensive: fewer score above one half.
PROPOSALS, THRESHOLD_V2 = 200, 0.2


def build_torchvision() -> nn.Module:
    return maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        min_size=SHORT_SIDE,
        max_size=LONG_SIDE,
        box_score_thresh=THRESHOLD,
    ).eval()


def to_torchvision(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Invert ``fit_weights``: number torchvision's tensors and see where each one goes."""
    names = [name for name in model.state_dict() if not name.endswith('num_batches_tracked')]
    numbered = {
        name: torch.full_like(model.state_dict()[name], index) for index, name in enumerate(names)
    }
    _, placed = fit_weights(numbered, Path('numbered.pth'), published=False)
    converted = {}
    for name, tensor in state.items():
        theirs = names[int(placed[name].flatten()[0])]
        if 'cls_score' in theirs:
            tensor = tensor.roll(1, dims=0)
        missing = len(numbered[theirs]) - len(tensor)
        converted[theirs] = torch.cat((tensor.new_zeros((missing, *tensor.shape[1:])), tensor))
    assert sorted(converted) == sorted(names)
    return converted


def plant(image: Image, model: nn.Module) -> dict[str, Tensor]:
    """Plant weights on an image, under torchvision's names."""
    network_hw = resized_hw((image.height, image.width), SHORT_SIDE, LONG_SIDE, 'torchvision')
    x = preprocess(image, network_hw, ARCHITECTURE)
    return to_torchvision(plant_weights(ARCHITECTURE, x[None], seed=0), model)


def found_by_torchvision(model: nn.Module, image: Image) -> Found:
    rgb = image.pixels if image.order == 'rgb' else image.pixels[..., ::-1]
    x = torch.from_numpy(rgb.transpose(2, 0, 1).copy()).float() / 255
    with torch.inference_mode():
        (answer,) = model([x])
    count = len(answer['scores'])
    assert 5 <= count <= 50, f'planted for 5 to 50 instances, found {count}'
    return Found(
        answer['boxes'].numpy(),
        answer['scores'].numpy(),
        answer['labels'].numpy() - 1,
        (answer['masks'][:, 0] > 0.5).numpy(),
    )


def assert_parity(image: Image, folder: Path, *, static: bool = False) -> None:
    model = build_torchvision()
    state = plant(image, model)
    model.load_state_dict(state, strict=False)
    weights = folder / 'weights.pth'
    torch.save(state, weights)
    config = Config(
        model='maskrcnn_resnet50_fpn', weights=str(weights), device='cpu', precision='fp32'
    ).replace(
        {
            'resolution.short_side': SHORT_SIDE,
            'resolution.long_side': LONG_SIDE,
            'filter.score_threshold': THRESHOLD,
        }
    )
    engine = Engine(config, static=static)
    weights.unlink()
    expected = found_by_torchvision(model, image)
    (prediction,) = engine.predict([image])
    assert_same_instances(Found.of_prediction(prediction), expected, THRESHOLD)
    (segmentation,) = engine.segment([image])
    labels = np.zeros_like(segmentation.label_image)
    for k in range(len(expected.scores) - 1, -1, -1):
        labels[expected.masks[k]] = k + 1
    assert (segmentation.label_image != labels).mean() < 1e-4


@pytest.mark.parametrize(
    ('image_hw', 'static'),
    [
        pytest.param((480, 640), False, id='shrunk'),
        pytest.param((170, 231), True, id='enlarged, static'),
        pytest.param((333, 250), False, id='portrait'),
    ],
)
def test_rendered_pictures(tmp_path: Path, image_hw: tuple[int, int], static: bool) -> None:
    assert_parity(rendered(7, image_hw), tmp_path, static=static)


@torch.no_grad()
def test_the_second_version(tmp_path: Path) -> None:
    (seed,) = fresh_seeds(1)
    image = rendered(seed % 100, (200, 250))
    architecture = dataclasses.replace(ARCHITECTURE_V2, rpn_post_nms_topk=PROPOSALS)
    x = preprocess(image, (192, 240), ARCHITECTURE)
    padded = nn.functional.pad(x, (0, -x.shape[-1] % 32, 0, -x.shape[-2] % 32))
    state = random_norms(to_torchvision_v2(plant_weights(architecture, padded[None], seed)), seed)
    model = maskrcnn_resnet50_fpn_v2(
        weights=None,
        weights_backbone=None,
        min_size=192,
        max_size=400,
        rpn_post_nms_top_n_test=PROPOSALS,
        box_score_thresh=THRESHOLD_V2,
    ).eval()
    lacking = model.load_state_dict(state, strict=False)
    assert all(name.endswith('num_batches_tracked') for name in lacking.missing_keys)
    assert lacking.unexpected_keys == []
    weights = tmp_path / 'weights.pth'
    torch.save(state, weights)
    config = Config(
        model='maskrcnn_resnet50_fpn_v2', weights=str(weights), device='cpu', precision='fp32'
    ).replace(
        {
            'resolution.short_side': 192,
            'resolution.long_side': 400,
            'filter.score_threshold': THRESHOLD_V2,
            'proposals': PROPOSALS,
        }
    )
    expected = found_by_torchvision(model, image)
    (prediction,) = Engine(config).predict([image])
    assert_same_instances(Found.of_prediction(prediction), expected, THRESHOLD_V2)


def random_norms(state: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Give norms that do nothing random numbers, and their convolutions what undoes them."""
    generator = torch.Generator().manual_seed(seed)
    changed = dict(state)
    for name in state:
        if not name.endswith('.1.running_var') or 'downsample' in name:
            continue
        norm = name.removesuffix('.running_var')
        conv = norm.removesuffix('1') + '0.weight'
        count = len(state[name])
        gamma, variance, mean = (
            torch.rand(count, generator=generator, dtype=torch.float64) + 0.5 for _ in range(3)
        )
        scale = gamma / (variance + 1e-5).sqrt()
        changed[conv] = (state[conv] / scale[:, None, None, None]).float()
        changed[f'{norm}.weight'] = gamma.float()
        changed[f'{norm}.running_var'] = variance.float()
        changed[f'{norm}.running_mean'] = mean.float()
        changed[f'{norm}.bias'] = (state[f'{norm}.bias'] + mean * scale).float()
    return changed


def test_photograph_bound_by_its_long_side(tmp_path: Path, shared: Path) -> None:
    assert_parity(photograph(shared, 7), tmp_path)


def test_architecture_is_torchvisions() -> None:
    """What decides an answer beside the weights."""
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    rpn, heads, a = model.rpn, model.roi_heads, ARCHITECTURE
    assert (rpn.pre_nms_top_n(), rpn.post_nms_top_n()) == (2000, 2000)
    rpn.eval()
    assert rpn.pre_nms_top_n() == a.rpn_pre_nms_topk
    assert rpn.post_nms_top_n() == a.rpn_post_nms_topk
    assert (rpn.nms_thresh, rpn.min_size) == (a.rpn_nms_threshold, a.rpn_min_size)
    assert rpn.anchor_generator.sizes == a.anchor_sizes
    assert rpn.anchor_generator.aspect_ratios == a.anchor_ratios
    assert rpn.box_coder.weights == a.rpn_bbox_weights
    assert heads.box_coder.weights == a.box_bbox_weights
    assert heads.box_roi_pool.sampling_ratio == a.box_pooler.sampling_ratio
    assert heads.mask_roi_pool.sampling_ratio == a.mask_pooler.sampling_ratio
    assert heads.box_roi_pool.output_size == (a.box_pooler.resolution,) * 2
    assert heads.mask_roi_pool.output_size == (a.mask_pooler.resolution,) * 2
    assert heads.score_thresh == a.score_threshold
    assert heads.nms_thresh == a.nms_threshold
    assert heads.detections_per_img == a.max_instances
    assert model.transform.min_size == (a.short_side,)
    assert model.transform.max_size == a.long_side
    assert model.transform.size_divisible == a.size_divisibility
    expected = [value * 255 for value in model.transform.image_mean + model.transform.image_std]
    np.testing.assert_allclose(a.pixel_mean + a.pixel_std, expected, rtol=1e-7)
    ours = sum(shape.numel() for shape in expected_state_dict(a).values())
    theirs = sum(
        tensor.numel()
        for name, tensor in model.state_dict().items()
        if not name.endswith('num_batches_tracked')
    )
    # There the background has a box and a mask as well.
    assert theirs - ours == 4 * (1024 + 1) + (256 + 1)
