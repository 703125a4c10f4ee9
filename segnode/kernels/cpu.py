# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The steps around the network on a CPU, from ``cpu.c``.

``setup.py`` builds it where a C compiler is at hand. Without it, or with ``SEGNODE_NATIVE=0``,
the callers run what they are made of otherwise: Pillow, OpenCV, torchvision and NumPy.

Shapes: H, W of an image, N images, R RoIs, C channels, S side of pooled features, D instances,
M side of a mask.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segnode.errors import OutOfMemoryError
from segnode.kernels.resampling import Blend, PreprocessPlan, ResampleTable
from segnode.model.architecture import Paste, Pooler
from segnode.model.pooler import assign_levels, index_images

# Of cpu.c.
INTERFACE = 2

_POINTER, _LONG, _INT = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
_RULES = ('detectron2', 'torchvision')
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    'segnode_resample_columns': (
        *(_POINTER, _LONG, _LONG, _LONG, _POINTER, _POINTER, _LONG, _LONG, _POINTER, _INT),
    ),
    'segnode_planes': (
        *(_POINTER, _LONG, _POINTER, _POINTER, _LONG, _LONG, _LONG, _POINTER, _INT),
        *(_LONG, _LONG, _POINTER, _INT),
    ),
    'segnode_blend': (
        *(_POINTER, _LONG, _LONG, _POINTER, _POINTER, _POINTER, _POINTER, _LONG, _LONG, _POINTER),
        *(_INT, _LONG, _LONG, _POINTER, _INT),
    ),
    'segnode_roi_align': (
        *(_POINTER, _POINTER, _POINTER, _POINTER, _LONG, _INT, _POINTER, _POINTER, _POINTER),
        *(_LONG, _LONG, _LONG, _INT, _POINTER, _INT),
    ),
    'segnode_paste_extents': (
        *(_POINTER, _LONG, _LONG, _LONG, _LONG, ctypes.c_double, _INT, _POINTER),
    ),
    'segnode_paste_masks': (
        *(_POINTER, _POINTER, _LONG, _LONG, _LONG, _LONG, ctypes.c_double, _INT),
        *(_POINTER, _POINTER, _POINTER, _INT),
    ),
    'segnode_paint_labels': (_POINTER, _POINTER, _LONG, _LONG, _LONG, _POINTER, _INT),
}


def cpu_kernels() -> CpuKernels | None:
    """Return the compiled kernels, or None where they are not built or not wanted."""
    found = load_cpu_kernels()
    return found if isinstance(found, CpuKernels) else None


@functools.cache
def load_cpu_kernels() -> CpuKernels | str:
    """Load the compiled kernels, once; return them, or why there are none, for people."""
    if os.environ.get('SEGNODE_NATIVE') == '0':
        return 'SEGNODE_NATIVE is 0'
    spec = importlib.util.find_spec('segnode.kernels._cpu')
    if spec is None or spec.origin is None:
        return 'not built'
    try:
        library = ctypes.CDLL(spec.origin)
        built = int(library.segnode_interface())
    except (OSError, AttributeError) as error:
        return f'cannot be loaded ({error})'
    if built != INTERFACE:
        return f'built for interface {built}, expected {INTERFACE}'
    return CpuKernels(library)


class Taps(NamedTuple):
    """How one dimension is resampled: every tap lies within the source.

    Attributes:
        first: (out,) int32, the source pixel of each target pixel's first tap.
        weights: (out, T) int32, of 22 fractional bits.
    """

    first: npt.NDArray[np.int32]
    weights: npt.NDArray[np.int32]

    @classmethod
    def of(cls, table: ResampleTable) -> Taps:
        """Return a table whose taps reach beyond the source with those moved into it."""
        first, weights = table.taps[0].numpy(), table.weights.numpy().T
        over = np.maximum(first + weights.shape[1] - table.source, 0)
        tap = np.arange(weights.shape[1]) - over[:, None]
        moved = np.where(tap >= 0, np.take_along_axis(weights, tap.clip(0), 1), 0)
        return cls((first - over).astype(np.int32), np.ascontiguousarray(moved, np.int32))


class Passes(NamedTuple):
    """How Pillow resizes, where it resizes the width first.

    Attributes:
        rows: of one tap where the height stays.
        columns: None where the width stays.
    """

    rows: Taps
    columns: Taps | None


@dataclass(frozen=True, slots=True)
class CpuPlan:
    """Everything between a frame of one size and the network's input that no frame changes.

    Attributes:
        image_hw: size of the frame.
        size_hw: the network's input before padding.
        padded_hw: the network's input.
        tables: Pillow's or OpenCV's.
    """

    image_hw: tuple[int, int]
    size_hw: tuple[int, int]
    padded_hw: tuple[int, int]
    tables: Passes | Blend


def cpu_plan(plan: PreprocessPlan) -> CpuPlan | None:
    """Return a plan for ``CpuKernels.preprocess``.

    It is None for torchvision's resize, and where Pillow resizes the height first.
    """
    tables: Passes | Blend
    if plan.blend is not None:
        tables = plan.blend
    elif plan.last is not None and len(plan.passes) < 2:
        columns = Taps.of(plan.passes[0]) if plan.passes else None
        tables = Passes(Taps.of(plan.last), columns)
    else:
        return None
    return CpuPlan(plan.image_hw, plan.size_hw, plan.padded_hw, tables)


class CpuKernels:
    """The functions of one loaded library; each uses as many threads as PyTorch does.

    None of them holds Python's lock while it computes.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, arguments in _SIGNATURES.items():
            getattr(library, name).argtypes = arguments
        library.segnode_roi_align.restype = _INT
        self._library = library

    def preprocess(
        self,
        pixels: npt.NDArray[np.uint8],
        plan: CpuPlan,
        values: npt.NDArray[np.float32],
        swap: bool,
    ) -> Tensor:
        """Resize as Pillow or OpenCV does, bit for bit, normalise, reorder and pad.

        Args:
            pixels: (H, W, 3) uint8; rows may be apart.
            plan: of its size.
            values: (3, 256) float32, what a pixel of each channel of ``pixels`` becomes.
            swap: the planes are in the reverse order of the channels.

        Returns:
            (3, H', W') float32.
        """
        threads = torch.get_num_threads()
        if pixels.shape != (*plan.image_hw, 3):
            raise ValueError(f'a plan for {plan.image_hw} was given pixels of {pixels.shape}')
        if pixels.strides[1:] != (3, 1):
            pixels = np.ascontiguousarray(pixels)
        planes = torch.empty((3, *plan.padded_hw))
        way_out = (
            *(*plan.size_hw, values.ctypes.data, swap),
            *(*plan.padded_hw, planes.data_ptr(), threads),
        )
        if isinstance(plan.tables, Blend):
            tables = (each.data_ptr() for table in plan.tables for each in table)
            self._library.segnode_blend(
                *(pixels.ctypes.data, pixels.strides[0], pixels.shape[1]), *tables, *way_out
            )
            return planes
        if plan.tables.columns is not None:
            first, weights = plan.tables.columns
            resized = np.empty((len(pixels), len(first), 3), np.uint8)
            self._library.segnode_resample_columns(
                *(pixels.ctypes.data, pixels.strides[0], pixels.shape[1], len(pixels)),
                *(first.ctypes.data, weights.ctypes.data, weights.shape[1], len(first)),
                *(resized.ctypes.data, threads),
            )
            pixels = resized
        first, weights = plan.tables.rows
        self._library.segnode_planes(
            *(pixels.ctypes.data, pixels.strides[0]),
            *(first.ctypes.data, weights.ctypes.data, weights.shape[1]),
            *way_out,
        )
        return planes

    def roi_align(
        self,
        features: Sequence[Tensor],
        scales: Sequence[float],
        boxes: Tensor,
        image_index: Tensor,
        levels: Tensor,
        *,
        resolution: int,
        sampling_ratio: int,
        aligned: bool,
    ) -> Tensor:
        """Pool every RoI from its own level, as torchvision's ``roi_align`` does.

        Args:
            features: a level (N, C, h, w), float32 or bfloat16, best in channels_last.
            scales: of each level, its pixels a network pixel.
            boxes: (R, 4) float32 xyxy, network pixels.
            image_index: (R,) int64, below N.
            levels: (R,) int64, an index into ``features``.
            resolution: S.
            sampling_ratio: samples a bin and side; 0 takes as many as pixels fit.
            aligned: half-pixel correction (ROIAlignV2).

        Returns:
            (R, C, S, S) in the dtype of the features, channels_last; computed in float32.

        Raises:
            OutOfMemoryError: there is no room for what is between.
            ValueError: other dtypes, or several.
        """
        dtypes = {f.dtype for f in features}
        if dtypes not in ({torch.float32}, {torch.bfloat16}):
            raise ValueError(f'expected features in float32 or in bfloat16, found {dtypes}')
        maps = [f.contiguous(memory_format=torch.channels_last) for f in features]
        channels, dtype = maps[0].shape[1], maps[0].dtype
        boxes, image_index, levels = (t.contiguous() for t in (boxes, image_index, levels))
        pooled = torch.empty(
            (len(boxes), channels, resolution, resolution),
            dtype=dtype,
            memory_format=torch.channels_last,
        )
        data = (ctypes.c_void_p * len(maps))(*(f.data_ptr() for f in maps))
        heights = (ctypes.c_int64 * len(maps))(*(f.shape[2] for f in maps))
        widths = (ctypes.c_int64 * len(maps))(*(f.shape[3] for f in maps))
        failed = self._library.segnode_roi_align(
            *(data, heights, widths, (ctypes.c_float * len(maps))(*scales), channels),
            *(dtype == torch.bfloat16, boxes.data_ptr(), image_index.data_ptr()),
            *(levels.data_ptr(), len(boxes), resolution, sampling_ratio, aligned),
            *(pooled.data_ptr(), torch.get_num_threads()),
        )
        if failed:
            raise OutOfMemoryError('no memory for the weights of RoIAlign')
        return pooled

    def pool(
        self, features: list[Tensor], boxes: Tensor, image_index: Tensor | None, pooler: Pooler
    ) -> Tensor:
        """Pool every RoI from the level that its size gives it, see ``model.steps.RoIAlign``."""
        return self.roi_align(
            features[: len(pooler.strides)],
            [1.0 / stride for stride in pooler.strides],
            boxes,
            index_images(image_index, len(features[0]), boxes),
            assign_levels(boxes, pooler),
            resolution=pooler.resolution,
            sampling_ratio=pooler.sampling_ratio,
            aligned=pooler.aligned,
        )

    def paste_masks(
        self,
        probabilities: npt.NDArray[np.float32],
        boxes_xyxy: npt.NDArray[np.float32],
        image_hw: tuple[int, int],
        threshold: float,
        paste: Paste,
    ) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.bool_]], npt.NDArray[np.int64]]:
        """Paste masks, each into a crop of its own.

        Args:
            probabilities: (D, M, M) float32.
            boxes_xyxy: (D, 4) float32, input pixels.
            image_hw: size of the input image.
            threshold: Detectron2 sets a pixel at this value, torchvision above it.
            paste: whose sampling to follow.

        Returns:
            (D, 4) int64 left, top, width and height of each crop; the crops, (h, w) bool; (D,)
            int64, how many pixels are set.

        Raises:
            OutOfMemoryError: there is no room for what is between.
            ValueError: not one box a mask.
        """
        probabilities = np.ascontiguousarray(probabilities, np.float32)
        boxes = np.ascontiguousarray(boxes_xyxy, np.float32)
        count, cells = probabilities.shape[:2]
        if boxes.shape != (count, 4):
            raise ValueError(f'expected boxes ({count}, 4) for the masks, found {boxes.shape}')
        extents = np.empty((count, 4), np.int64)
        areas = np.empty(count, np.int64)
        how = (*image_hw, threshold, _RULES.index(paste))
        self._library.segnode_paste_extents(
            boxes.ctypes.data, count, cells, *how, extents.ctypes.data
        )
        ends = np.cumsum(extents[:, 2] * extents[:, 3])
        flat = np.empty(int(ends[-1]) if count else 0, np.bool_)
        starts = ends - extents[:, 2] * extents[:, 3]
        pointers = flat.ctypes.data + starts
        self._library.segnode_paste_masks(
            *(probabilities.ctypes.data, boxes.ctypes.data, count, cells, *how),
            *(extents.ctypes.data, pointers.ctypes.data, areas.ctypes.data),
            torch.get_num_threads(),
        )
        if (areas < 0).any():
            raise OutOfMemoryError('no memory to paste a mask')
        crops = [
            flat[start:end].reshape(height, width)
            for start, end, (width, height) in zip(
                starts.tolist(), ends.tolist(), extents[:, 2:].tolist(), strict=True
            )
        ]
        return extents, crops, areas

    def paint_labels(
        self,
        extents: npt.NDArray[np.int64],
        crops: Sequence[npt.NDArray[np.bool_]],
        image_hw: tuple[int, int],
    ) -> npt.NDArray[np.uint16]:
        """Paint crops into one (H, W) uint16 image: k + 1 for crop k, the first one wins.

        Args:
            extents: (D, 4) int64 left, top, width and height, within the image.
            crops: D masks, (h, w) bool.
            image_hw: H and W.

        Raises:
            ValueError: a crop is not within the image, or not as large as its extent.
        """
        shapes = [list(crop.shape) for crop in crops]
        low, size = extents[:, :2], extents[:, 2:]
        outside = (low < 0) | (low + size > image_hw[::-1])
        if (outside.any(1) & (size > 0).all(1)).any() or size[:, ::-1].tolist() != shapes:
            raise ValueError(
                f'crops of {shapes} do not fit an image of {image_hw} at {extents.tolist()}'
            )
        crops = [np.ascontiguousarray(crop) for crop in crops]
        labels = np.empty(image_hw, np.uint16)
        pointers = np.array([crop.ctypes.data for crop in crops], np.uintp)
        self._library.segnode_paint_labels(
            *(extents.ctypes.data, pointers.ctypes.data, len(crops), *image_hw),
            *(labels.ctypes.data, torch.get_num_threads()),
        )
        return labels
