# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Detections drawn over their image, for people.

Shape letters: H, W image, D detections.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageDraw

from segnode.image import Image
from segnode.live.labels import class_labels, label_font

if TYPE_CHECKING:
    from segnode.engine import Detections

GOLDEN_RATIO = 0.618034


def draw_overlay(
    image: Image,
    detections: Detections,
    label_image: npt.NDArray[np.uint16],
    class_names: Sequence[str],
) -> npt.NDArray[np.uint8]:
    """Blend masks into the image, with their contours, boxes, class names and scores.

    Args:
        image: the image that was segmented, (H, W).
        detections: D detections; k stands in the label image as k + 1.
        label_image: (H, W) uint16, 0 is background.
        class_names: name of each class index. A name that no font of this machine can draw is
            its number (`labels.undrawable` tells, and looks for the fonts before the first frame).

    Returns:
        (H, W, 3) uint8, BGR.
    """
    bgr = image.pixels if image.order == 'bgr' else image.pixels[..., ::-1]
    colours = instance_colours(detections.class_ids)
    tint = np.vstack([np.zeros((1, 3), np.uint8), colours])[label_image]
    labelled = label_image > 0
    canvas = np.where(labelled[..., None], bgr // 2 + tint // 2, bgr)
    contour = _contour(label_image) & labelled
    canvas[contour] = tint[contour]

    # Pillow draws on three channels and never asks what they mean: BGR stays BGR.
    picture = PillowImage.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    short_side = min(canvas.shape[:2])
    font_size, width = max(11, short_side // 40), max(1, short_side // 300)
    labels = class_labels(tuple(class_names))
    for index in reversed(range(len(detections.scores))):
        x0, y0, x1, y1 = (float(v) for v in detections.boxes_xyxy[index])
        colour = tuple(int(v) for v in colours[index])
        draw.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=colour, width=width)
        label = labels[int(detections.class_ids[index])]
        font = label_font(font_size, label.font_file)
        text = f'{label.text} {float(detections.scores[index]):.2f}'
        _, _, right, bottom = draw.textbbox((0, 0), text, font=font)
        anchor = (x0, max(0.0, y0 - bottom - 2))
        draw.rectangle((*anchor, anchor[0] + right + 3, anchor[1] + bottom + 2), fill=colour)
        draw.text((anchor[0] + 2, anchor[1]), text, fill=text_colour(colour), font=font)
    return np.asarray(picture)


def instance_colours(class_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Return (D, 3) uint8 colours: the hue tells the class, the brightness neighbours apart."""
    colours = [
        colorsys.hsv_to_rgb(GOLDEN_RATIO * int(c) % 1.0, 0.85, 1.0 - 0.15 * (k % 4))
        for k, c in enumerate(class_ids)
    ]
    return (np.array(colours, np.float64).reshape(-1, 3) * 255).astype(np.uint8)


def _contour(label_image: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """Return (H, W) bool: pixels with a neighbour above, below, left or right of another label."""
    contour = np.zeros(label_image.shape, np.bool_)
    rows = label_image[1:] != label_image[:-1]
    columns = label_image[:, 1:] != label_image[:, :-1]
    contour[1:] |= rows
    contour[:-1] |= rows
    contour[:, 1:] |= columns
    contour[:, :-1] |= columns
    return contour


def text_colour(background_bgr: tuple[int, ...]) -> tuple[int, int, int]:
    """Return black or white, whichever is readable (luma of ITU-R BT.601)."""
    blue, green, red = background_bgr
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else (255, 255, 255)
