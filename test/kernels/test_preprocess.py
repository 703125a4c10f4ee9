# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The network's input against Detectron2's and torchvision's, pixel by pixel."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from seeds import fresh_seeds
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from segnode.image import Image
from segnode.kernels.preprocess import preprocess, resize_pixels, resized_hw
from segnode.model.architecture import TORCHVISION, Architecture

X101 = Architecture(pixel_std=(57.375, 57.12, 58.395))
R50_TORCHVISION = Architecture(
    semantics=TORCHVISION,
    color='RGB',
    pixel_mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
    pixel_std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
)
# Image, short side and bound of the long side: at network size, shrunk, enlarged, portrait, bound
# by the long side, sides that are no multiple of 32, and a single pixel.
SIZES = [
    ((96, 128), 96, 1333),
    ((240, 321), 96, 1333),
    ((61, 83), 96, 1333),
    ((321, 200), 96, 160),
    ((50, 333), 96, 130),
    ((301, 299), 173, 1333),
    ((1, 1), 64, 100),
    ((3, 700), 64, 400),
]


def random_image(seed: int, image_hw: tuple[int, int]) -> Image:
    """Return noise in blocks of two scales, so that resizing meets edges and flat areas."""
    rng = np.random.default_rng(seed)
    height, width = image_hw
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    coarse = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    return Image(np.where(rng.random((height, width, 1)) < 0.2, pixels, coarse), 'rgb')


@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_resized_hw_is_detectron2s(detectron2: ModuleType, seed: int) -> None:
    from detectron2.data.transforms import ResizeShortestEdge

    rng = np.random.default_rng(seed)
    for _ in range(5000):
        height, width = (int(side) for side in rng.integers(1, 4000, 2))
        short, long = int(rng.integers(1, 1400)), int(rng.integers(1, 2000))
        expected = ResizeShortestEdge.get_output_shape(height, width, short, long)
        # The reference asks for empty images where the aspect ratio is extreme.
        expected = tuple(max(side, 1) for side in expected)
        assert resized_hw((height, width), short, long) == expected, (height, width, short, long)


@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_resized_hw_is_torchvisions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(1000):
        height, width = (int(side) for side in rng.integers(8, 120, 2))
        short, long = int(rng.integers(8, 100)), int(rng.integers(100, 200))
        transform = GeneralizedRCNNTransform(short, long, [0.0] * 3, [1.0] * 3)
        resized, _ = transform.resize(torch.zeros((3, height, width)).expand(3, -1, -1))
        expected = tuple(resized.shape[-2:])
        case = (height, width, short, long)
        assert resized_hw((height, width), short, long, 'torchvision') == expected, case


def test_a_short_side_of_zero_keeps_the_size() -> None:
    assert resized_hw((481, 77), 0, 100) == (481, 77)
    assert resized_hw((481, 77), 0, 100, 'torchvision') == (481, 77)


@pytest.mark.usefixtures('steps')
@pytest.mark.parametrize(('image_hw', 'short', 'long'), SIZES)
@pytest.mark.parametrize('architecture', [Architecture(), X101], ids=['caffe', 'x101'])
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_pixels_are_detectron2s(
    detectron2: ModuleType,
    seed: int,
    architecture: Architecture,
    image_hw: tuple[int, int],
    short: int,
    long: int,
) -> None:
    from detectron2.data.transforms import ResizeShortestEdge
    from detectron2.structures import ImageList

    image = random_image(seed, image_hw)
    bgr = np.ascontiguousarray(image.pixels[..., ::-1])
    resized = ResizeShortestEdge([short] * 2, long).get_transform(bgr).apply_image(bgr)
    x = torch.as_tensor(resized.astype('float32').transpose(2, 0, 1))
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (architecture.pixel_mean, architecture.pixel_std)
    )
    expected = ImageList.from_tensors([(x - mean) / std], 32).tensor[0]
    size_hw = resized_hw(image_hw, short, long)
    assert size_hw == resized.shape[:2]
    assert torch.equal(preprocess(image, size_hw, architecture), expected)
    assert torch.equal(preprocess(Image(bgr, 'bgr'), size_hw, architecture), expected)


@pytest.mark.parametrize(('image_hw', 'short', 'long'), SIZES[:-1])
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_pixels_are_torchvisions(
    seed: int, image_hw: tuple[int, int], short: int, long: int
) -> None:
    image = random_image(seed, image_hw)
    transform = GeneralizedRCNNTransform(
        short, long, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    ).eval()
    x = torch.from_numpy(image.pixels.transpose(2, 0, 1).copy()).float() / 255
    images, _ = transform([x])
    size_hw = resized_hw(image_hw, short, long, 'torchvision')
    assert size_hw == images.image_sizes[0]
    ours = preprocess(image, size_hw, R50_TORCHVISION)
    torch.testing.assert_close(ours, images.tensors[0], rtol=0, atol=2e-5)


@pytest.mark.usefixtures('steps')
def test_padding_is_zero_at_the_bottom_and_on_the_right() -> None:
    image = Image(np.full((33, 50, 3), 255, dtype=np.uint8), 'bgr')
    x = preprocess(image, (33, 50), Architecture(size_divisibility=64))
    assert x.shape == (3, 64, 64)
    assert (x[:, :33, :50] != 0).all()
    assert (x[:, 33:] == 0).all()
    assert (x[:, :, 50:] == 0).all()


@pytest.mark.usefixtures('steps')
def test_views_of_messages_are_taken_as_they_are() -> None:
    """Rows of a message may be padded and its memory read-only."""
    rng = np.random.default_rng(0)
    padded = rng.integers(0, 256, (40, 70, 3), dtype=np.uint8)
    view = padded[:, :50]
    view.flags.writeable = False
    plain = Image(view.copy(), 'bgr')
    for size_hw, family in (((40, 50), Architecture()), ((24, 30), Architecture())):
        ours = preprocess(Image(view, 'bgr'), size_hw, family)
        assert torch.equal(ours, preprocess(plain, size_hw, family))
    ours = preprocess(Image(view, 'bgr'), (24, 30), R50_TORCHVISION)
    assert torch.equal(ours, preprocess(plain, (24, 30), R50_TORCHVISION))


def test_resize_to_the_same_size_copies_nothing() -> None:
    pixels = np.zeros((10, 12, 3), dtype=np.uint8)
    assert resize_pixels(pixels, (10, 12)) is pixels
