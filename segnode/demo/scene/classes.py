# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The five classes: how the solids of an object of each are drawn at random.

Textures are (128, 128, 3); `Solid` says which half belongs where.
"""

from __future__ import annotations

import cv2
import numpy as np

from segnode.demo.scene.arrays import FloatArray
from segnode.demo.scene.solids import Solid
from segnode.demo.scene.textures import as_image, random_colour, smooth_noise

CLASS_NAMES = ('cone', 'ball', 'box', 'barrel', 'pallet')


def sample_solids(rng: np.random.Generator, class_id: int) -> tuple[Solid, ...]:
    """The solids of a new object of a class, standing on the floor."""
    return _SAMPLERS[class_id](rng)


def _cone(rng: np.random.Generator) -> tuple[Solid, ...]:
    height, foot = rng.uniform(0.45, 0.85), rng.uniform(0.15, 0.22)
    tip = foot * rng.uniform(0.12, 0.25)
    body = (
        random_colour(rng, (5, 25), (0.8, 1), (0.8, 1)) if rng.random() < 0.6 else _any_colour(rng)
    )
    texture = _plain(rng, body)
    band = np.array([235, 235, 235], np.float32) * (rng.random() < 0.8)
    top, width = int(rng.integers(8, 20)), int(rng.integers(8, 16))
    texture[top : top + width] = band
    if rng.random() < 0.6:
        texture[top + 2 * width - 2 : top + 3 * width - 4] = band
    texture[64:] *= 0.5
    base = _plain(rng, body if rng.random() < 0.5 else np.full(3, 40, np.float32))
    k = (foot - tip) / height
    plate = foot * rng.uniform(1.15, 1.35)
    return (
        Solid(texture=as_image(base), half_xy=(plate, plate), height=0.04),
        Solid(
            texture=as_image(texture),
            half_xy=(foot, foot),
            height=height,
            bottom=0.04,
            profile=(foot * foot, -2 * foot * k, k * k),
            shininess=rng.uniform(0, 0.2),
        ),
    )


def _ball(rng: np.random.Generator) -> tuple[Solid, ...]:
    radius = rng.uniform(0.16, 0.32)
    texture = _plain(rng, _any_colour(rng), 0.03)
    columns, rows = np.arange(128)[None, :], np.arange(128)[:, None]
    kind = rng.choice(['plain', 'segments', 'belt', 'spots'])
    if kind == 'segments':
        slices = 128 // int(rng.choice([4, 8]))
        texture[:, (columns[0] // slices) % 2 == 0] = _any_colour(rng)
    elif kind == 'belt':
        texture[(rows[:, 0] > 50) & (rows[:, 0] < 78)] = _any_colour(rng)
    elif kind == 'spots':
        dark = _any_colour(rng) * 0.3
        for row in (24, 64, 104):
            for column in range(8 + row % 16, 128, 32 if row == 64 else 42):
                axes = (6 if row == 64 else 10, 7)
                cv2.ellipse(texture, (column, row), axes, 0, 0, 360, dark.tolist(), -1)
    return (
        Solid(
            texture=as_image(texture),
            half_xy=(radius, radius),
            height=2 * radius,
            profile=(0.0, 2 * radius, -1.0),
            shininess=rng.uniform(0.1, 0.7),
        ),
    )


def _box(rng: np.random.Generator) -> tuple[Solid, ...]:
    kind = rng.choice(['carton', 'crate', 'plastic'])
    if kind == 'carton':
        texture = _plain(rng, random_colour(rng, (22, 36), (0.3, 0.55), (0.55, 0.8)))
        tape = random_colour(rng, (25, 40), (0.1, 0.4), (0.6, 0.9))
        texture[:, 56:72] = tape
        left, top = rng.integers(4, 90), rng.integers(6, 36)
        texture[top : top + 18, left : left + 30] = 225
        texture[top + 4 : top + 14 : 3, left + 4 : left + 24] = 60
    elif kind == 'crate':
        texture = _plain(rng, random_colour(rng, (20, 36), (0.35, 0.65), (0.4, 0.75)), 0.08)
        frame = texture * 0.75
        texture[np.arange(128) % 16 < 2] *= 0.5
        for start in (0, 64):
            texture[start : start + 8], texture[start + 56 : start + 64] = frame[:8], frame[:8]
        texture[:, :10], texture[:, -10:] = frame[:, :10], frame[:, -10:]
    else:
        texture = _plain(rng, _any_colour(rng), 0.02)
        texture[6:12] *= 0.7
        texture[22:46, 40:88] *= rng.uniform(0.5, 1.3)
        texture[70:122, 8:120] *= 0.75
    return (
        Solid(
            texture=as_image(texture),
            half_xy=(rng.uniform(0.18, 0.36), rng.uniform(0.18, 0.36)),
            height=rng.uniform(0.32, 0.7),
        ),
    )


def _barrel(rng: np.random.Generator) -> tuple[Solid, ...]:
    radius, height = rng.uniform(0.2, 0.3), rng.uniform(0.6, 0.95)
    wooden = rng.random() < 0.35
    if wooden:
        texture = _plain(rng, random_colour(rng, (15, 32), (0.4, 0.7), (0.35, 0.65)))
        texture[:, np.arange(128) % 8 == 0] *= 0.6
        hoops = [4, 18, 42, 56]
        bulge = rng.uniform(0.05, 0.09)
    else:
        texture = _plain(rng, _any_colour(rng), 0.04)
        if rng.random() < 0.5:
            texture[24:40] = _any_colour(rng)
        hoops = [0, 20, 40, 59]
        bulge = 0.0
    for row in hoops:
        texture[row : row + 4] *= 0.6 if wooden else 0.7
        texture[row + 1 : row + 2] *= 1.3
    texture[64:] *= 0.85
    texture[64 + 54 :] *= 0.6
    cv2.circle(texture, (100, 100), 6, (30.0, 30.0, 30.0), -1)
    swell = bulge / (height / 2) ** 2
    return (
        Solid(
            texture=as_image(texture),
            half_xy=(radius, radius),
            height=height,
            profile=(radius**2 - bulge * 0.25, swell * 0.25 * height, -swell * 0.25),
            shininess=0.0 if wooden else rng.uniform(0.1, 0.4),
        ),
    )


def _pallet(rng: np.random.Generator) -> tuple[Solid, ...]:
    wood = random_colour(rng, (22, 40), (0.15, 0.5), (0.55, 0.85))
    if rng.random() < 0.2:
        wood = random_colour(rng, (200, 230), (0.5, 0.8), (0.4, 0.8))
    texture = _plain(rng, wood, 0.07)
    layers = int(rng.integers(1, 3))
    columns = np.arange(128)
    rows = np.arange(64)
    for layer in range(layers):  # decks of boards, and dark openings between three blocks
        inside = (rows * layers // 64 == layer) & ((rows * layers % 64) > 16)
        inside &= (rows * layers % 64) < 54
        openings = (np.abs(columns - 38) < 21) | (np.abs(columns - 90) < 21)
        texture[:64][np.ix_(inside, openings)] *= 0.22
    texture[64:][np.arange(64) % 9 < 2] *= 0.25
    scale = rng.uniform(0.75, 1.0)
    return (
        Solid(
            texture=as_image(texture),
            half_xy=(0.6 * scale, 0.4 * scale),
            height=0.15 * scale * layers + 0.02,
        ),
    )


def _plain(rng: np.random.Generator, colour: FloatArray, wear: float = 0.05) -> FloatArray:
    """(128, 128, 3) float32 texture of one colour."""
    return np.asarray(colour * (1 + wear * smooth_noise(rng, (128, 128), (32, 32))[..., None]))


def _any_colour(rng: np.random.Generator) -> FloatArray:
    return random_colour(rng, (0, 360), (0.3, 0.95), (0.35, 0.95))


_SAMPLERS = (_cone, _ball, _box, _barrel, _pallet)
