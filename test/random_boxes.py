# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Random boxes as a network yields them: all sizes, many overlaps, some at the borders."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Boxes without area: at pixels' centres and edges, at the image's, and with sides swapped.
EMPTY_BOXES = np.float32(
    [
        (10.5, 5, 10.5, 20),
        (5, 10.5, 20, 10.5),
        (10.5, 10.5, 10.5, 10.5),
        (10, 5, 10, 20),
        (5, 10, 20, 10),
        (0, 0, 0, 0),
        (0.5, 0.5, 0.5, 0.5),
        (160, 5, 160, 20),
        (5, 121, 20, 121),
        (200, 5, 200, 20),
        (20, 5, 10, 20),
    ]
)


def random_boxes(generator: torch.Generator, count: int, image_hw: tuple[int, int]) -> Tensor:
    """Return (count, 4) float32 xyxy boxes within an image, none of them empty."""
    height, width = image_hw
    extent = torch.tensor([width, height], dtype=torch.float32)
    centre = torch.rand((count, 2), generator=generator) * extent
    # From a pixel to the whole image and from very wide to very tall.
    side = torch.exp(torch.rand((count, 2), generator=generator) * extent.max().log())
    low = (centre - side / 2).clamp(min=0)
    high = torch.minimum(centre + side / 2, extent)
    return torch.cat((low, torch.maximum(high, low + 0.5).minimum(extent)), dim=1)


def clustered_boxes(generator: torch.Generator, count: int, image_hw: tuple[int, int]) -> Tensor:
    """Return (count, 4) float32 xyxy boxes of which many overlap by all degrees."""
    objects = random_boxes(generator, max(count // 12, 1), image_hw)
    chosen = objects[torch.randint(len(objects), (count,), generator=generator)]
    side = (chosen[:, 2:] - chosen[:, :2]).repeat(1, 2)
    moved = chosen + torch.randn((count, 4), generator=generator) * 0.15 * side
    low, high = moved[:, :2], moved[:, 2:]
    return torch.cat((torch.minimum(low, high), torch.maximum(low, high) + 0.1), dim=1)
