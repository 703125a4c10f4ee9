# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Pasted masks against both references, and the label image."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from random_boxes import EMPTY_BOXES, random_boxes
from seeds import fresh_seeds
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image as torchvision_paste

from segnode.kernels.mask_crops import MaskCrop, label_image, paste_masks, whole_mask
from segnode.kernels.plain.paste import paste_labels_static
from segnode.model.architecture import Paste

pytestmark = pytest.mark.usefixtures('steps')

IMAGE_HW = (121, 160)
THRESHOLDS = [0.3, 0.5, 0.7]
# A value this close to the threshold may fall on either side by rounding.
ROUNDING = 2e-5


def odd_boxes() -> Tensor:
    """Return boxes that are tiny, huge, partly outside, very wide or very tall."""
    boxes = [
        (80.2, 60.1, 80.25, 60.15),
        (80.4, 60.4, 80.6, 60.6),
        (0, 0, 160, 121),
        (-3, -3, 163, 124),
        (-150.5, -90.2, 300.1, 280.7),
        (-40, 20, 12.5, 60),
        (150.3, 100, 190, 140),
        (0, 60, 160, 60.4),
        (0, 59.2, 160, 61.1),
        (80.1, 0, 80.9, 121),
        (159.2, 120.1, 160, 121),
    ]
    return torch.tensor(boxes, dtype=torch.float32)


def random_masks(generator: torch.Generator, count: int, cells: int) -> Tensor:
    """Return (count, cells, cells) probabilities: noise, blobs, and plain ones."""
    noise = torch.rand((count, cells, cells), generator=generator)
    coarse = torch.rand((count, 1, 5, 5), generator=generator)
    blobs = torch.nn.functional.interpolate(coarse, size=(cells, cells), mode='bilinear')[:, 0]
    kind = torch.arange(count) % 3
    masks = torch.where((kind == 0)[:, None, None], noise, blobs)
    return masks.masked_fill((kind == 2)[:, None, None], 1.0)


def assert_same_mask(crop: MaskCrop, soft: Tensor, threshold: float, at_it: bool) -> None:
    """Compare with the reference's values, which are set above or ``at_it`` the threshold."""
    values = soft.numpy()
    expected = values >= threshold if at_it else values > threshold
    ours = whole_mask(crop, IMAGE_HW)
    decided = np.abs(values - threshold) > ROUNDING
    # All of a mask of ones lies exactly at 1, and zeros off the mask exactly at 0.
    assert decided.mean() > 0.9
    np.testing.assert_array_equal(ours[decided], expected[decided])
    assert crop.area == np.count_nonzero(ours)


@pytest.mark.parametrize('threshold', THRESHOLDS)
@pytest.mark.parametrize('cells', [28, 14])
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_paste_is_detectron2s(
    detectron2: ModuleType, seed: int, cells: int, threshold: float
) -> None:
    """Compared with its GPU branch; the CPU's cuts off what is a pixel beyond the box."""
    from detectron2.layers.mask_ops import _do_paste_mask

    generator = torch.Generator().manual_seed(seed)
    boxes = torch.cat((odd_boxes(), random_boxes(generator, 60, IMAGE_HW)))
    masks = random_masks(generator, len(boxes), cells)
    soft, _ = _do_paste_mask(masks[:, None], boxes, *IMAGE_HW, skip_empty=False)
    crops = paste_masks(masks.numpy(), boxes.numpy(), IMAGE_HW, threshold, 'detectron2')
    for crop, values in zip(crops, soft, strict=True):
        assert_same_mask(crop, values, threshold, at_it=True)


@pytest.mark.parametrize('threshold', [0.5, 0.7])
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_paste_is_what_detectron2_does_on_a_cpu(
    detectron2: ModuleType, seed: int, threshold: float
) -> None:
    from detectron2.layers.mask_ops import paste_masks_in_image
    from detectron2.structures import Boxes

    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(generator, 60, IMAGE_HW)
    # With an edge on the centres of pixels, rounding decides on a whole row of them.
    on_centres = (boxes - boxes.floor() - 0.5).abs() < 1e-3
    boxes = torch.where(on_centres, boxes + 0.01, boxes)
    masks = random_masks(generator, 60, 28)
    expected = paste_masks_in_image(masks, Boxes(boxes), IMAGE_HW, threshold)
    crops = paste_masks(masks.numpy(), boxes.numpy(), IMAGE_HW, threshold, 'detectron2')
    for crop, theirs in zip(crops, expected, strict=True):
        different = np.count_nonzero(whole_mask(crop, IMAGE_HW) != theirs.numpy())
        assert different <= 1 + 1e-3 * theirs.sum()


@pytest.mark.parametrize('threshold', THRESHOLDS)
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_paste_is_torchvisions(seed: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.cat((odd_boxes(), random_boxes(generator, 60, IMAGE_HW)))
    masks = random_masks(generator, len(boxes), 28)
    soft = torchvision_paste(masks[:, None], boxes, IMAGE_HW)[:, 0]
    crops = paste_masks(masks.numpy(), boxes.numpy(), IMAGE_HW, threshold, 'torchvision')
    for crop, values in zip(crops, soft, strict=True):
        assert_same_mask(crop, values, threshold, at_it=False)


@pytest.mark.parametrize('paste', ['detectron2', 'torchvision'])
@pytest.mark.parametrize('box', [(300, 20, 320, 40), (20, -80, 40, -60)])
def test_a_box_outside_the_image_has_no_pixels(paste: str, box: tuple[int, ...]) -> None:
    ones = np.ones((1, 28, 28), np.float32)
    (crop,) = paste_masks(ones, np.float32([box]), IMAGE_HW, 0.5, paste)
    assert crop.area == 0
    assert not whole_mask(crop, IMAGE_HW).any()
    assert not label_image([crop], IMAGE_HW).any()


@pytest.mark.parametrize('threshold', THRESHOLDS)
@pytest.mark.parametrize('paste', ['detectron2', 'torchvision'])
def test_an_empty_box_has_no_pixels(paste: Paste, threshold: float) -> None:
    """Whether it lies on pixels' centres, their edges or the image's, amid or beyond it."""
    ones = np.ones((len(EMPTY_BOXES), 28, 28), np.float32)
    crops = paste_masks(ones, EMPTY_BOXES, IMAGE_HW, threshold, paste)
    assert [crop.area for crop in crops] == [0] * len(EMPTY_BOXES)
    assert not label_image(crops, IMAGE_HW).any()
    labels, areas = paste_labels_static(
        torch.from_numpy(ones)[None],
        torch.from_numpy(EMPTY_BOXES)[None],
        torch.ones((1, len(ones)), dtype=torch.bool),
        IMAGE_HW,
        threshold=torch.tensor(threshold),
        min_area=torch.tensor(0),
        max_area=torch.tensor(2**40),
        paste=paste,
    )
    assert not areas.any()
    assert not labels.numpy().any()


def test_the_first_mask_wins_where_masks_overlap() -> None:
    ones = np.ones((4, 28, 28), np.float32)
    boxes = np.float32(
        [[10, 10, 50, 50], [30, 30, 70, 70], [35, 35, 45, 45], [-60, -60, 220, 180]]
    )
    crops = paste_masks(ones, boxes, IMAGE_HW, 0.5, 'detectron2')
    labels = label_image(crops, IMAGE_HW)
    expected = np.zeros(IMAGE_HW, dtype=np.uint16)
    for k in range(len(crops) - 1, -1, -1):
        expected[whole_mask(crops[k], IMAGE_HW)] = k + 1
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.uint16
    # The third is covered by the first and second; it owns no pixel and keeps its number.
    assert np.unique(labels).tolist() == [1, 2, 4]
    assert crops[2].area == 100


def test_no_masks_make_an_empty_label_image() -> None:
    none = np.zeros((0, 28, 28), np.float32)
    crops = paste_masks(none, np.zeros((0, 4), np.float32), IMAGE_HW, 0.5, 'detectron2')
    labels = label_image(crops, IMAGE_HW)
    assert labels.shape == IMAGE_HW
    assert not labels.any()
