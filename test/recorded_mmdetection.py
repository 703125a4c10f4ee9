# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Small cases that MMDetection has answered, and what makes their weights and pictures again.

A file holds a config's text, what its weights are made from, and the answer. Weights and pictures
themselves are drawn from the raw stream of a bit generator, which NumPy keeps as it is, by
arithmetic alone: every machine has the same.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from matching import Found
from torch import Tensor

from segnode.image import Image

FOLDER = Path(__file__).parent / 'engine' / 'mmdetection_recorded'
# Of the last norm in a residual block; see `segnode.checkpoint.planting`.
RESIDUAL_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Recorded:
    """A case.

    Attributes:
        config_text: as MMDetection writes it into a checkpoint.
        shapes: of the weights, under MMDetection's names.
        last_layers: those that decide scores, boxes and masks, as the recording spread them.
        image: the picture.
        network_input: the CRC-32 of the normalised input's float32 values, padding included.
        answer: MMDetection's.
    """

    config_text: str
    shapes: dict[str, tuple[int, ...]]
    last_layers: dict[str, npt.NDArray[np.float32]]
    image: Image
    network_input: int
    answer: Found

    def state_dict(self) -> dict[str, Tensor]:
        """Return all weights."""
        return {
            name: torch.from_numpy(self.last_layers.get(name, drawn_weight(name, shape)))
            for name, shape in self.shapes.items()
        }


def uniform(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return numbers from -1 to 1 that follow from a name."""
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    # 53 of the 64 bits, the most that a float64 holds.
    return ((raw >> np.uint64(11)) * 2.0**-52 - 1).reshape(shape)


def drawn_weight(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return a tensor that keeps the spread of what passes about as it is."""
    layer, _, kind = name.rpartition('.')
    drawn = uniform(name, shape)
    if kind in ('running_var', 'gamma') or (kind == 'weight' and len(shape) == 1):
        residual = kind == 'gamma' or layer.endswith('.bn3')
        drawn = (1 + drawn / 4) * (RESIDUAL_WEIGHT if residual else 1)
    elif kind == 'weight':
        # A transposed convolution has its inputs first, and one of its pixels for each output.
        fan_in = shape[0] if layer.endswith('upsample') else np.prod(shape[1:])
        drawn *= np.sqrt(6 / fan_in)
    elif kind in ('bias', 'running_mean'):
        drawn /= 8
    return drawn.astype(np.float32)


def drawn_image(seed: int, image_hw: tuple[int, int]) -> Image:
    """Return a picture of coloured rectangles, large and small, under a little noise."""
    height, width = image_hw
    raw = np.random.PCG64(seed)
    pixels = np.full((height, width, 3), 128, dtype=np.int64)
    for k in range(60):
        top, left, down, across, *colour = (
            int(word >> np.uint64(32)) for word in raw.random_raw(7)
        )
        side = max(height, width) // (2 + k // 6)
        y, x = top % height, left % width
        pixels[y : y + 4 + down % side, x : x + 4 + across % side] = [c % 256 for c in colour]
    noise = (raw.random_raw(pixels.size) >> np.uint64(59)).astype(np.int64).reshape(pixels.shape)
    return Image((pixels + noise - 16).clip(0, 255).astype(np.uint8), 'bgr')


def write_recorded(
    path: Path,
    config_text: str,
    shapes: Mapping[str, tuple[int, ...]],
    last_layers: Mapping[str, npt.NDArray[np.float32]],
    image: tuple[int, int, int],
    network_input: Tensor,
    answer: Found,
) -> None:
    """Write a case; ``image`` is a seed, height and width."""
    np.savez_compressed(
        path,
        config_text=np.frombuffer(config_text.encode(), np.uint8),
        shapes=np.frombuffer(json.dumps(shapes).encode(), np.uint8),
        image=image,
        network_input=checksum(network_input),
        boxes=answer.boxes,
        scores=answer.scores,
        class_ids=answer.class_ids.astype(np.uint8),
        masks=np.packbits(answer.masks),
        **{f'layer {name}': tensor for name, tensor in last_layers.items()},
    )


def read_recorded(name: str) -> Recorded:
    """Return a case by the name of its file."""
    with np.load(FOLDER / f'{name}.npz', allow_pickle=False) as stored:
        seed, height, width = map(int, stored['image'])
        count = len(stored['scores'])
        masks = np.unpackbits(stored['masks'], count=count * height * width)
        return Recorded(
            bytes(stored['config_text']).decode(),
            {k: tuple(shape) for k, shape in json.loads(bytes(stored['shapes'])).items()},
            {k.removeprefix('layer '): stored[k] for k in stored.files if k.startswith('layer ')},
            drawn_image(seed, (height, width)),
            int(stored['network_input']),
            Found(
                stored['boxes'],
                stored['scores'],
                stored['class_ids'].astype(np.int64),
                masks.reshape(count, height, width).astype(np.bool_),
            ),
        )


def checksum(network_input: Tensor) -> int:
    """Return the CRC-32 of a float32 tensor."""
    # A negative zero is equal to zero, and would not be here.
    return zlib.crc32((network_input + 0.0).numpy().tobytes())
