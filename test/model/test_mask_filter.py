# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Which detections get a mask."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from random_boxes import random_boxes
from seeds import fresh_seeds

from segnode.kernels.mask_crops import paste_mask
from segnode.model.architecture import DETECTRON2, SEMANTICS
from segnode.model.mask_filter import filter_detections, pixel_bound

NETWORK_HW, IMAGE_HW = (256, 341), (97, 130)
OPTIONS = {'cells': 28, 'mask_threshold': 0.5}


@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_boxes_scale_and_empty_ones_go_as_in_detectron2(detectron2: ModuleType, seed: int) -> None:
    from detectron2.modeling.postprocessing import detector_postprocess
    from detectron2.structures import Boxes, Instances

    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(generator, 200, NETWORK_HW)
    boxes[::7, 2] = boxes[::7, 0]
    boxes[1::7, 3] = boxes[1::7, 1]
    found = Instances(NETWORK_HW, pred_boxes=Boxes(boxes.clone()), order=torch.arange(200))
    expected = detector_postprocess(found, *IMAGE_HW)
    valid = torch.ones((1, 200), dtype=torch.bool)
    filtered = filter_detections(
        boxes[None], valid, NETWORK_HW, IMAGE_HW, min_mask_area=0, semantics=DETECTRON2, **OPTIONS
    )
    assert torch.equal(filtered.keep[0].nonzero().squeeze(1), expected.order)
    assert 0 < len(expected) < 200
    torch.testing.assert_close(
        filtered.boxes[filtered.keep], expected.pred_boxes.tensor, rtol=0, atol=1e-5
    )
    assert filtered.filtered_area.tolist() == [0]


def test_small_boxes_and_invalid_ones_get_no_mask() -> None:
    boxes = torch.tensor([[10.0, 10, 30, 30], [10, 10, 12, 12], [50, 50, 60, 60], [0, 0, 9, 9]])
    valid = torch.tensor([[True, True, False, True], [False] * 4])
    filtered = filter_detections(
        boxes.expand(2, 4, 4),
        valid,
        (100, 100),
        (100, 100),
        min_mask_area=82,
        semantics=DETECTRON2,
        **OPTIONS,
    )
    assert filtered.keep.tolist() == [[True, False, False, False], [False] * 4]
    assert filtered.filtered_area.tolist() == [2, 0]


@pytest.mark.parametrize('paste', ['detectron2', 'torchvision'])
@pytest.mark.parametrize('threshold', [0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_no_mask_is_larger_than_its_bound(seed: int, threshold: float, paste: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    large = random_boxes(generator, 300, IMAGE_HW)
    corner = torch.rand((700, 2), generator=generator) * torch.tensor(IMAGE_HW[::-1])
    side = torch.rand((700, 2), generator=generator) * 4 + 0.01
    small = torch.cat((corner, corner + side), dim=1)
    small[:, 2::2].clamp_(max=IMAGE_HW[1])
    small[:, 3::2].clamp_(max=IMAGE_HW[0])
    boxes = torch.cat((large, small[(small[:, 2:] > small[:, :2]).all(1)]))
    bounds = pixel_bound(boxes, IMAGE_HW, 28, threshold, SEMANTICS[paste])
    ones = torch.ones((28, 28)).numpy()
    areas = torch.tensor(
        [paste_mask(ones, box.numpy(), IMAGE_HW, threshold, paste).area for box in boxes]
    )
    assert (areas <= bounds).all(), boxes[areas > bounds]
    # Nor is it wide of the mark, else it would filter nothing.
    assert bounds.sum() <= 1.5 * areas.sum()


@pytest.mark.parametrize('image_hw', [(97, 130), (480, 640), (2160, 3840)])
@pytest.mark.parametrize('threshold', [0.5, 0.7])
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_rounding_adds_no_pixel_beyond_the_bound(
    seed: int, threshold: float, image_hw: tuple[int, int]
) -> None:
    """Of boxes with edges beside pixels' centres, by a few roundings."""
    generator = torch.Generator().manual_seed(seed)
    extent = torch.tensor(image_hw[::-1])
    low = (torch.rand((300, 2), generator=generator) * (extent - 40)).floor() + 0.5
    side = torch.exp(torch.rand((300, 2), generator=generator) * (extent - low - 1).log()).ceil()
    exact = torch.cat((low, torch.minimum(low + side, extent - 0.5)), dim=1)
    ulps = torch.randint(-4, 5, exact.shape, generator=generator)
    boxes = (exact.view(torch.int32) + ulps.int()).view(torch.float32)
    # One that was drawn by chance: rounding sees a row in it that lies above it.
    drawn = torch.tensor(
        [[74.8603515625, 0.5000000596046448, 91.5000228881836, 66.50001525878906]]
    )
    boxes = torch.cat((boxes, drawn))
    bounds = pixel_bound(boxes, image_hw, 28, threshold, DETECTRON2)
    ones = torch.ones((28, 28)).numpy()
    areas = torch.tensor(
        [paste_mask(ones, box.numpy(), image_hw, threshold, 'detectron2').area for box in boxes]
    )
    assert (areas <= bounds).all(), boxes[areas > bounds]
    # Nor does it count what is further away than rounding reaches.
    inside = exact + torch.tensor([1e-2, 1e-2, -1e-2, -1e-2])
    centres = (exact[:, 2:] - exact[:, :2] - 1).prod(1)
    assert torch.equal(pixel_bound(inside, image_hw, 28, threshold, DETECTRON2), centres.long())


@pytest.mark.parametrize(
    ('box', 'pixels'),
    [
        ((10.0, 10.0, 40.1, 40.1), 900),
        ((10.5, 10.5, 40.5, 40.5), 961),
        ((-5.0, -5.0, 2.0, 3.0), 6),
        ((10.6, 10.6, 11.4, 11.4), 0),
        ((200.0, 10.0, 220.0, 20.0), 0),
    ],
)
def test_the_bound_counts_pixel_centres_in_the_image(box: tuple[float, ...], pixels: int) -> None:
    assert pixel_bound(torch.tensor(box), IMAGE_HW, 28, 0.5, DETECTRON2) == pixels
