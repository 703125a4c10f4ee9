# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Which implementation of the steps around the network a device gets.

Shapes: N images, R RoIs, C channels, D instances, M side of a mask, S side of pooled features.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from dataclasses import dataclass
from traceback import walk_tb
from typing import Literal, Protocol

import torch
from torch import Tensor

from segnode.kernels.resampling import PreprocessPlan
from segnode.kernels.static_paste import paste_labels_static
from segnode.kernels.static_preprocess import preprocess_static
from segnode.model.nms import nms_static
from segnode.model.roi_align import multilevel_roi_align_static
from segnode.paste import Paste

# The oldest NVIDIA GPUs that Triton compiles for.
OLDEST_CAPABILITY = (7, 0)


class NMS(Protocol):
    """See ``segnode.model.nms.nms_static``."""

    def __call__(
        self, boxes: Tensor, valid: Tensor, threshold: float | Tensor, groups: Tensor | None = None
    ) -> Tensor:
        """Map (..., K, 4) boxes, highest score first, to (..., K) bool, those that stay."""
        ...


class RoIAlign(Protocol):
    """See ``segnode.model.roi_align.multilevel_roi_align_static``."""

    def __call__(
        self,
        features: list[Tensor],
        boxes: Tensor,
        image_index: Tensor,
        *,
        resolution: int,
        sampling_ratio: int,
        aligned: bool,
        family: Literal['detectron2', 'torchvision'],
    ) -> Tensor:
        """Map p2 to p5 and (R, 4) boxes to (R, C, S, S), channels_last."""
        ...


class PasteLabels(Protocol):
    """See ``segnode.kernels.static_paste.paste_labels_static``."""

    def __call__(
        self,
        probabilities: Tensor,
        boxes: Tensor,
        keep: Tensor,
        image_hw: tuple[int, int],
        *,
        threshold: Tensor,
        min_area: Tensor,
        max_area: Tensor,
        paste: Paste,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map (N, D, M, M) to labels (N, H, W), areas (N, D) and which stay (N, D)."""
        ...


class Preprocess(Protocol):
    """See ``segnode.kernels.static_preprocess.preprocess_static``."""

    def __call__(
        self,
        frames: Tensor,
        plan: PreprocessPlan,
        mean: Tensor,
        std: Tensor,
        swap: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        """Map (N, H, W, 3) uint8 to the network's input (N, 3, H', W'), channels_last."""
        ...


@dataclass(frozen=True, slots=True)
class Operators:
    """The steps around the network, none of which synchronises with the host.

    Attributes:
        description: what they are and, where it is not Triton, why, for people.
        nms: greedy non-maximum suppression.
        roi_align: pooling over the levels of a pyramid.
        paste_labels: masks into one label image, with their areas.
        preprocess: frames to the network's input.
    """

    description: str
    nms: NMS
    roi_align: RoIAlign
    paste_labels: PasteLabels
    preprocess: Preprocess


def select_operators(device: torch.device) -> Operators:
    """Return the Triton kernels where they run, else their twins in plain PyTorch.

    On a GPU it runs the smallest kernel once: Triton may be installed and yet unable to compile
    for want of a C compiler or of Python's headers. ``SEGNODE_TRITON=0`` refuses Triton.
    """
    reason = _obstacle(device)
    if reason is not None:
        return plain_operators(reason)
    import triton

    from segnode.kernels.nms import nms
    from segnode.kernels.paste import paste_labels
    from segnode.kernels.preprocess import preprocess
    from segnode.kernels.roi_align import roi_align

    return Operators(
        description=f'Triton {triton.__version__}',
        nms=nms,
        roi_align=roi_align,
        paste_labels=paste_labels,
        preprocess=preprocess,
    )


def plain_operators(reason: str) -> Operators:
    """Return the twins in plain PyTorch, and why it is they."""
    return Operators(
        description=f'PyTorch ({reason})',
        nms=nms_static,
        roi_align=multilevel_roi_align_static,
        paste_labels=paste_labels_static,
        preprocess=preprocess_static,
    )


def is_kernel_failure(operators: Operators, error: Exception) -> bool:
    """Return whether it was Triton, of which there may be some in ``operators``, that failed.

    Each kernel is compiled for the formats and sizes that it meets, so that one can fail where
    another ran: want of shared memory, an assembler that does not know the device, a driver that
    refuses the code.
    """
    if operators.nms is nms_static:
        return False
    if isinstance(error, _triton_errors()) or 'Triton Error' in str(error):
        return True
    # Its compiler and its driver raise RuntimeError, too.
    modules = (frame.f_globals.get('__name__', '') for frame, _ in walk_tb(error.__traceback__))
    return isinstance(error, RuntimeError) and any(m.startswith('triton.') for m in modules)


def _triton_errors() -> tuple[type[Exception], ...]:
    """Return what compiling a kernel may raise."""
    from triton.errors import TritonError

    return (TritonError, ImportError, OSError, subprocess.SubprocessError)


def _obstacle(device: torch.device) -> str | None:
    """Return why Triton is of no use on a device, or None."""
    if device.type != 'cuda':
        return f'no kernels for device {device.type}'
    if os.environ.get('SEGNODE_TRITON') == '0':
        return 'SEGNODE_TRITON is 0'
    if importlib.util.find_spec('triton') is None:
        return 'Triton is not installed'
    if torch.version.hip is None:
        capability = torch.cuda.get_device_capability(device)
        if capability < OLDEST_CAPABILITY:
            return 'compute capability {}.{}, Triton needs {}.{}'.format(
                *capability, *OLDEST_CAPABILITY
            )
    try:
        failures: tuple[type[Exception], ...] = (*_triton_errors(), RuntimeError)
    except ImportError as error:
        return f'Triton cannot be imported: {error}'
    try:
        from segnode.kernels.nms import nms

        boxes = torch.zeros((1, 4), device=device)
        nms(boxes, torch.ones(1, dtype=torch.bool, device=device), 0.5)
    except failures as error:
        line = (str(error) or type(error).__name__).splitlines()[0]
        return f'Triton cannot compile: {line}'
    return None
