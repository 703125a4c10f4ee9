# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""From an image to the network's input, exactly as the checkpoint's family does it.

Detectron2 resizes uint8 pixels with Pillow's antialiased bilinear filter and then normalises;
torchvision normalises first and resizes float pixels without antialiasing; MMDetection resizes
uint8 pixels with OpenCV's bilinear filter, which does not antialias, and then normalises.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
import torch.nn.functional as F
from torch import Tensor

from segnode.image import Image
from segnode.kernels.cpu import CpuPlan, cpu_kernels, cpu_plan
from segnode.kernels.resampling import prepare_preprocess, unknown_rule
from segnode.model.architecture import Architecture, Rule


def resized_hw(
    image_hw: tuple[int, int],
    short_side: int,
    long_side: int,
    resize: Rule = 'detectron2',
) -> tuple[int, int]:
    """Return height and width of the network input before padding.

    Sources: Detectron2's ``ResizeShortestEdge.get_output_shape`` (rounds half up, in two steps),
    torchvision's ``_resize_image_and_masks`` (rounds down) and mmcv's ``rescale_size`` (rounds
    half up). A ``short_side`` of 0 keeps the size.

    Raises:
        ValueError: nobody's rule.
    """
    height, width = image_hw
    if short_side == 0:
        return height, width
    if resize in ('torchvision', 'mmdetection'):
        scale = min(short_side / min(image_hw), long_side / max(image_hw))
        half = 0.5 if resize == 'mmdetection' else 0.0
        return max(int(height * scale + half), 1), max(int(width * scale + half), 1)
    if resize != 'detectron2':
        raise unknown_rule(resize)
    scale = short_side / min(image_hw)
    new_h, new_w = (short_side, scale * width) if height < width else (scale * height, short_side)
    if max(new_h, new_w) > long_side:
        scale = long_side / max(new_h, new_w)
        new_h, new_w = new_h * scale, new_w * scale
    return max(int(new_h + 0.5), 1), max(int(new_w + 0.5), 1)


def resize_pixels(pixels: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) uint8 by Pillow's two-pass fixed-point bilinear filter."""
    if pixels.shape[:2] == size_hw:
        return pixels
    resized = PIL.Image.fromarray(np.ascontiguousarray(pixels)).resize(
        (size_hw[1], size_hw[0]), PIL.Image.Resampling.BILINEAR
    )
    return np.asarray(resized)


def preprocess(image: Image, size_hw: tuple[int, int], architecture: Architecture) -> Tensor:
    """Return the padded, normalised network input of one image.

    Args:
        image: any size.
        size_hw: from ``resized_hw``.
        architecture: gives colour order, mean, deviation, resize and padding.

    Returns:
        (3, H', W') float32 on the CPU, H' and W' multiples of ``size_divisibility``; the padding
        is zero, at the bottom and on the right.
    """
    swap = image.order.upper() != architecture.color
    kernels = cpu_kernels()
    if kernels is not None:
        image_hw = (image.height, image.width)
        plan = _cpu_plan(
            image_hw, size_hw, architecture.semantics.resize, architecture.size_divisibility
        )
        if plan is not None:
            values = _pixel_values(architecture.pixel_mean, architecture.pixel_std, swap)
            return kernels.preprocess(image.pixels, plan, values, swap)
    mean = torch.tensor(architecture.pixel_mean).view(3, 1, 1)
    std = torch.tensor(architecture.pixel_std).view(3, 1, 1)
    resize = architecture.semantics.resize
    pixels = _resize(image.pixels, size_hw, resize)
    # torch cannot wrap negative strides or read-only memory; the copy is planar already.
    planar = np.ascontiguousarray((pixels[..., ::-1] if swap else pixels).transpose(2, 0, 1))
    x = torch.from_numpy(planar if planar.flags.writeable else planar.copy())
    normalised = (x.float() - mean) / std
    if resize == 'torchvision' and image.pixels.shape[:2] != size_hw:
        normalised = F.interpolate(
            normalised[None], size=size_hw, mode='bilinear', align_corners=False
        )[0]
    step = architecture.size_divisibility
    return F.pad(normalised, (0, -size_hw[1] % step, 0, -size_hw[0] % step))


def _resize(pixels: np.ndarray, size_hw: tuple[int, int], resize: Rule) -> np.ndarray:
    """Resize (H, W, 3) uint8 where the rule does so before it normalises."""
    if resize == 'torchvision':
        return pixels
    if resize == 'mmdetection':
        return np.asarray(cv2.resize(np.ascontiguousarray(pixels), size_hw[::-1]))
    if resize != 'detectron2':
        raise unknown_rule(resize)
    return resize_pixels(pixels, size_hw)


@lru_cache(maxsize=8)
def _cpu_plan(
    image_hw: tuple[int, int],
    size_hw: tuple[int, int],
    resize: Rule,
    size_divisibility: int,
) -> CpuPlan | None:
    return cpu_plan(
        prepare_preprocess(
            image_hw,
            size_hw,
            torch.device('cpu'),
            resize=resize,
            size_divisibility=size_divisibility,
        )
    )


@lru_cache(maxsize=8)
def _pixel_values(
    mean: tuple[float, ...], std: tuple[float, ...], swap: bool
) -> npt.NDArray[np.float32]:
    """Return (3, 256) float32, what a pixel of each of the image's channels becomes."""
    value = torch.arange(256, dtype=torch.float32)
    planes = (value - torch.tensor(mean)[:, None]) / torch.tensor(std)[:, None]
    values: npt.NDArray[np.float32] = (planes.flip(0) if swap else planes).numpy()
    return values
