# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Pillow's and OpenCV's bilinear resizes as tables of integers, made once for a pair of sizes.

Pillow resizes uint8 in two passes, one an axis, each rounded to uint8. Its triangle filter is as
wide as a source pixel when enlarging and as a target pixel when shrinking; the weights are
integers of 22 fractional bits. Source: ``precompute_coeffs``, ``normalize_coeffs_8bpc`` and
``ImagingResampleInner`` in Pillow's ``Resample.c``.

OpenCV blends two by two neighbours whatever the scale, by weights of 11 fractional bits: along a
row first, and four bits fewer of that go into the blend of two rows. Source: ``resize`` in
OpenCV's ``resize.cpp``, ``INTER_LINEAR`` of uint8.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, get_args

import numpy as np
import PIL
import torch
from torch import Tensor

from segnode.model.architecture import Rule

PRECISION_BITS = 22

# Of OpenCV: fractional bits of a weight, and those that the blends of columns, of each of two
# rows, and of their sum drop. They add up to both axes' weights.
WEIGHT_BITS = 11
COLUMN_SHIFT, ROW_SHIFT, SUM_SHIFT = 4, 16, 2

# Channels of a frame.
COLOURS = 3

# Dimensions of frames (N, H, W, 3).
ROWS, COLUMNS = 1, 2

# From this release on Pillow resizes the height first where it shrinks much more than the width.
_HEIGHT_FIRST = int(PIL.__version__.split('.')[0]) >= 13


@dataclass(frozen=True, slots=True)
class ResampleTable:
    """How one dimension is resampled, T taps a pixel.

    Attributes:
        dim: ROWS or COLUMNS.
        source: extent of the source in pixels.
        taps: (T, out) int32, the source pixel of each tap, the last one for those beyond it.
        weights: (T, out) int32, 0 beyond the last tap and beyond the source.
    """

    dim: int
    source: int
    taps: Tensor
    weights: Tensor


class BlendTable(NamedTuple):
    """How OpenCV resamples one dimension, two neighbours a pixel.

    Attributes:
        neighbours: (2, out) int32, within the source; both may be the same pixel.
        weights: (2, out) int32, of ``WEIGHT_BITS`` fractional bits.
    """

    neighbours: Tensor
    weights: Tensor


class Blend(NamedTuple):
    """How OpenCV resamples both dimensions."""

    rows: BlendTable
    columns: BlendTable


@dataclass(frozen=True, slots=True)
class PreprocessPlan:
    """Everything between frames of one size and the network's input that no frame changes.

    Attributes:
        image_hw: size of the frames.
        size_hw: the network's input before padding.
        padded_hw: the network's input.
        resize: by whose rule.
        passes: Pillow's before the last, each into uint8.
        last: Pillow's over ROWS, of one tap where nothing is left to resize.
        blend: OpenCV's; None where nothing is to be resized, which ``last`` copies. With neither
            it is torchvision's resize, which needs no table.
    """

    image_hw: tuple[int, int]
    size_hw: tuple[int, int]
    padded_hw: tuple[int, int]
    resize: Rule
    passes: tuple[ResampleTable, ...] = ()
    last: ResampleTable | None = None
    blend: Blend | None = None


def prepare_preprocess(
    image_hw: tuple[int, int],
    size_hw: tuple[int, int],
    device: torch.device,
    *,
    resize: Rule = 'detectron2',
    size_divisibility: int = 32,
) -> PreprocessPlan:
    """Build the plan of one pair of sizes; it uploads the tables.

    Args:
        image_hw: size of the frames.
        size_hw: from ``segnode.kernels.preprocess.resized_hw``.
        device: of the tables.
        resize: by whose rule.
        size_divisibility: the network's input is padded to a multiple of it.

    Raises:
        ValueError: nobody's rule.
    """
    (height, width), (new_h, new_w) = image_hw, size_hw
    padded_hw = (new_h + -new_h % size_divisibility, new_w + -new_w % size_divisibility)
    plan = PreprocessPlan(image_hw, size_hw, padded_hw, resize)
    if resize == 'torchvision':
        return plan
    if resize == 'mmdetection' and image_hw == size_hw:
        # One tap of Pillow's is a copy, as OpenCV makes one.
        return replace(plan, last=resample_table(ROWS, height, new_h, device))
    if resize == 'mmdetection':
        blend = Blend(
            blend_table(ROWS, height, new_h, device),
            blend_table(COLUMNS, width, new_w, device),
        )
        return replace(plan, blend=blend)
    if resize != 'detectron2':
        raise unknown_rule(resize)
    rows = resample_table(ROWS, height, new_h, device)
    if width == new_w:
        return replace(plan, last=rows)
    columns = resample_table(COLUMNS, width, new_w, device)
    if _HEIGHT_FIRST and height - new_h > max(2 * (width - new_w), 0):
        nothing = resample_table(ROWS, new_h, new_h, device)
        return replace(plan, passes=(rows, columns), last=nothing)
    return replace(plan, passes=(columns,), last=rows)


def unknown_rule(resize: str) -> ValueError:
    """Return the error of a resize that nobody has written yet."""
    return ValueError(f'expected the resize of one of {get_args(Rule)}, found {resize!r}')


def resample_table(dim: int, source: int, target: int, device: torch.device) -> ResampleTable:
    """Build the table of one dimension, ``source`` pixels to ``target`` pixels."""
    scale = source / target
    support = max(scale, 1.0)
    center = (np.arange(target) + 0.5) * scale
    first = (center - support + 0.5).astype(np.int64).clip(min=0)
    last = (center + support + 0.5).astype(np.int64).clip(max=source)
    taps = int((last - first).max())
    weights = np.empty((taps, target))
    # In Pillow's own order: a sum in another order could differ in its last bit.
    total = np.zeros(target)
    for tap in range(taps):
        position = (first + tap - center + 0.5) * (1.0 / support)
        weights[tap] = np.where(first + tap < last, (1.0 - np.abs(position)).clip(min=0.0), 0.0)
        total += weights[tap]
    fixed = np.floor(weights / total * 2**PRECISION_BITS + 0.5).astype(np.int32)
    # The last taps weigh nothing where a size is kept, and often elsewhere.
    taps = int(np.flatnonzero(fixed.any(1))[-1]) + 1
    pixels = (first + np.arange(taps)[:, None]).clip(max=source - 1)
    return ResampleTable(
        dim,
        source,
        torch.from_numpy(pixels.astype(np.int32)).to(device),
        torch.from_numpy(fixed[:taps]).to(device),
    )


def blend_table(dim: int, source: int, target: int, device: torch.device) -> BlendTable:
    """Build OpenCV's table of one dimension, ``source`` pixels to ``target`` pixels."""
    # Its own order: the quotient's quotient can differ from source / target in the last bit.
    scale = 1.0 / (target / source)
    position = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(position)
    share = position - first
    if dim == COLUMNS:
        # Beyond the outermost pixels rows are blended with themselves, columns are not blended.
        share[(first < 0) | (first >= source - 1)] = 0.0
    neighbours = (first + np.array([[0], [1]])).astype(np.int32).clip(0, source - 1)
    weights = np.rint(np.stack((1 - share, share)) * np.float32(2**WEIGHT_BITS))
    return BlendTable(
        torch.from_numpy(neighbours).to(device),
        torch.from_numpy(weights.astype(np.int32)).to(device),
    )
