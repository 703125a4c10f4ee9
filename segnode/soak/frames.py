# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The images that the soak's cameras send, whole ones and broken ones, without importing ROS.

Every frame says what has to become of it: an answer of the image's size, or a drop as `decode`.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from segnode.demo.scene import DEMO_SEEDS, Scene

Transport = Literal['raw', 'compressed']
Pixels = npt.NDArray[np.uint8]

ORDINARY = 'frame'
SCENE_STEP = 25
"""Frames of the scene between two pictures of the soak, so that they differ."""
PICTURES = 4
# Of a camera's picture to the first camera's: different sizes side by side.
SCALES = (1.0, 0.75, 0.5)
LARGEST_SIDE = 2**31
BOMB_SIDE = 60_000
# JPEG has 16 bits for a side.
JPEG_BOMB_SIDE = 65_500


@dataclass(frozen=True, slots=True)
class Frame:
    """One image message without its header.

    Attributes:
        kind: `frame` for a whole one, else the name of its fault.
        type: `raw`, `compressed`, or `serialized` for bytes that go out in place of a message.
        data: of the message.
        fields: the message's other fields.
        answer_hw: height and width of its answer; None where it has to be dropped as `decode`.
    """

    kind: str
    type: str
    data: bytes
    fields: dict[str, Any] = field(default_factory=dict)
    answer_hw: tuple[int, int] | None = None


def pictures(seed: int, image_hw: tuple[int, int]) -> list[Pixels]:
    """Render pictures of a scene that no training has seen, (H, W, 3) uint8 BGR each."""
    scene = Scene(DEMO_SEEDS[seed % len(DEMO_SEEDS)], image_hw)
    return [np.asarray(scene.frame(i * SCENE_STEP).image, np.uint8) for i in range(PICTURES)]


def camera_pictures(rendered: list[Pixels], camera: int) -> list[Pixels]:
    """Return the pictures of the camera of that number, in its own size."""
    scale = SCALES[camera % len(SCALES)]
    # Even, as chroma of half the size has to fit.
    height, width = (max(4, round(side * scale) // 2 * 2) for side in rendered[0].shape[:2])
    return [
        np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        for picture in rendered
    ]


def deck(shown: list[Pixels], transport: Transport, faults: bool) -> list[Frame]:
    """Return all frames of a camera: its pictures, and each fault on one of them."""
    whole = [_raw(p) if transport == 'raw' else _jpeg(p) for p in shown]
    if not faults:
        return whole
    broken = _raw_faults(shown) if transport == 'raw' else _compressed_faults(shown)
    return [*whole, *broken]


def write_deck(path: Path, frames: list[Frame]) -> None:
    """Write frames so that a camera's process can read them, as arrays and plain JSON."""
    described = [{'type': frame.type, 'fields': frame.fields} for frame in frames]
    arrays: dict[str, Any] = {
        f'data_{i}': np.frombuffer(frame.data, np.uint8) for i, frame in enumerate(frames)
    }
    with path.open('wb') as file:
        np.savez(file, frames=np.array(json.dumps(described)), **arrays)


def _raw(pixels: Pixels, kind: str = ORDINARY, encoding: str = 'bgr8', **changed: Any) -> Frame:
    """Return pixels, (H, W) or (H, W, C) as `encoding` has them; `changed` fields break it."""
    height, width = pixels.shape[:2]
    data = changed.pop('data', pixels.tobytes())
    answer_hw = changed.pop('answer_hw', (height, width))
    fields = {
        'height': height,
        'width': width,
        'encoding': encoding,
        'is_bigendian': 0,
        'step': len(pixels.tobytes()) // height,
    }
    return Frame(kind, 'raw', data, fields | changed, answer_hw)


def _raw_faults(shown: list[Pixels]) -> Iterator[Frame]:
    pixels = shown[0]
    height, width = pixels.shape[:2]
    data = pixels.tobytes()
    depth = np.full((height, width), 1500, np.uint16)

    def dropped(kind: str, encoding: str = 'bgr8', **changed: Any) -> Frame:
        return _raw(pixels, kind, encoding, answer_hw=None, **changed)

    yield dropped('wrong_step', step=width * 3 - 1)
    yield dropped('wrong_step', step=0)
    yield dropped('wrong_step', step=2**32 - 1)
    yield dropped('short_data', data=data[:-1])
    yield dropped('short_data', data=b'')
    yield dropped('absurd_size', height=LARGEST_SIDE, width=LARGEST_SIDE)
    yield dropped('absurd_size', width=LARGEST_SIDE, step=2**32 - 1)
    yield dropped('zero_size', height=0, width=0, step=0)
    yield dropped('zero_size', width=0)
    yield dropped('unknown_encoding', 'quux8')
    yield dropped('unknown_encoding', '')
    yield dropped('unknown_encoding', 'bgr8\n' * 1000)
    yield dropped('depth_image', '32FC1', data=depth.astype(np.float32).tobytes(), step=width * 4)
    yield dropped('depth_image', '16UC1', data=depth.tobytes(), step=width * 2)
    yield from _no_messages()
    yield _raw(pixels, 'over_long_data', data=data + bytes(4096))
    yield _raw(np.ascontiguousarray(pixels[: height // 2, : width // 2]), 'size_change')
    yield _raw(np.ascontiguousarray(pixels[1:, 3:]), 'size_change')
    yield _raw(np.ascontiguousarray(pixels[:1, :1]), 'tiny_image')
    yield _raw(np.ascontiguousarray(pixels[:3, :]), 'tiny_image')
    padded = np.ascontiguousarray(np.pad(pixels, ((0, 0), (0, 5), (0, 0))))
    yield _raw(pixels, 'row_padding', data=padded.tobytes(), step=(width + 5) * 3)
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)
    yield _raw(np.ascontiguousarray(pixels[:, :, ::-1]), 'encoding_change', 'rgb8')
    yield _raw(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2BGRA)), 'encoding_change', 'bgra8')
    yield _raw(grey, 'encoding_change', 'mono8')
    yield _raw(grey, 'encoding_change', 'bayer_rggb8')
    yield _raw(grey, 'encoding_change', 'mono16', data=(grey.astype('<u2') << 8).tobytes(),
               step=width * 2)  # fmt: skip
    yuyv = np.stack([grey, np.full_like(grey, 128)], axis=2)
    yield _raw(yuyv, 'encoding_change', 'yuyv')
    nv12 = grey.tobytes() + bytes([128]) * (height * width // 2)
    yield _raw(grey, 'encoding_change', 'nv12', data=nv12)


def _compressed_faults(shown: list[Pixels]) -> Iterator[Frame]:
    pixels = shown[0]
    height, width = pixels.shape[:2]
    jpeg, png = _jpeg(pixels), _png(pixels)
    rng = np.random.default_rng(0)

    def dropped(kind: str, data: bytes, name: str = 'bgr8; jpeg compressed bgr8') -> Frame:
        return Frame(kind, 'compressed', data, {'format': name})

    noise = rng.integers(0, 256, 20_000, np.uint8).tobytes()
    yield dropped('garbage_file', noise)
    yield dropped('garbage_file', b'\xff\xd8\xff\xe0' + noise)
    yield dropped('garbage_file', b'')
    yield dropped('truncated_jpeg', jpeg.data[: len(jpeg.data) // 2])
    yield dropped('truncated_jpeg', jpeg.data[:-2])
    yield dropped('truncated_png', png.data[: len(png.data) // 2], 'bgr8; png compressed bgr8')
    yield dropped('truncated_png', png.data[:20], 'bgr8; png compressed bgr8')
    yield dropped('png_bomb', png_bomb(BOMB_SIDE), 'bgr8; png compressed bgr8')
    yield dropped('jpeg_bomb', jpeg_bomb(jpeg.data, JPEG_BOMB_SIDE))
    yield dropped('depth_image', png.data, '16UC1; compressedDepth png')
    yield dropped('depth_image', png.data, '32FC1; compressedDepth png')
    yield from _no_messages()
    yield _jpeg(pixels[: height // 2, : width // 2], 'size_change')
    yield _jpeg(pixels[1:, 3:], 'size_change')
    yield _jpeg(pixels[:1, :1], 'tiny_image')
    yield _png(pixels, 'encoding_change')
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)
    yield _jpeg(grey, 'encoding_change')
    yield _png(grey, 'encoding_change')


def _no_messages() -> Iterator[Frame]:
    # A CDR header (little endian), then what cannot be an image message: nothing, and a text
    # that is said to be 4 GB long.
    yield Frame('broken_message', 'serialized', b'\x00\x01\x00\x00')
    yield Frame('broken_message', 'serialized', b'\x00\x01\x00\x00' + bytes(8) + b'\xff' * 64)


def _jpeg(pixels: Pixels, kind: str = ORDINARY) -> Frame:
    return _file(pixels, kind, '.jpg', 'bgr8; jpeg compressed bgr8')


def _png(pixels: Pixels, kind: str = ORDINARY) -> Frame:
    return _file(pixels, kind, '.png', 'bgr8; png compressed bgr8')


def _file(pixels: Pixels, kind: str, extension: str, name: str) -> Frame:
    _, encoded = cv2.imencode(extension, pixels)
    height, width = pixels.shape[:2]
    return Frame(kind, 'compressed', encoded.tobytes(), {'format': name}, (height, width))


def png_bomb(side: int) -> bytes:
    """Return a small, whole PNG that claims to be `side` pixels wide and high."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', check)

    header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1_000_000), 9)
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        chunk(name, data) for name, data in ((b'IHDR', header), (b'IDAT', body), (b'IEND', b''))
    )


def jpeg_bomb(file: bytes, side: int) -> bytes:
    """Return a JPEG that claims to be `side` pixels wide and high, and is as long as it was."""
    frame_header = file.index(b'\xff\xc0')
    claimed = struct.pack('>HH', side, side)
    return file[: frame_header + 5] + claimed + file[frame_header + 9 :]
