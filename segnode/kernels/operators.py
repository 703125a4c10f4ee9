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
from functools import partial
from traceback import walk_tb
from typing import Protocol

import torch
from torch import Tensor

from segnode.errors import first_line
from segnode.kernels.cpu import cpu_kernels
from segnode.kernels.plain.choose import Choice, choose_static
from segnode.kernels.plain.nms import nms, nms_static
from segnode.kernels.plain.paste import paste_labels_static
from segnode.kernels.plain.preprocess import preprocess_static
from segnode.kernels.plain.roi_align import roi_align, roi_align_static
from segnode.kernels.plain.selection import select_detections_static, select_proposals_static
from segnode.kernels.resampling import PreprocessPlan
from segnode.model.architecture import Paste, Semantics
from segnode.model.box_head import BoxDetections, select_detections
from segnode.model.maps import AddEnlarged, MaxPool, add_enlarged, max_pool
from segnode.model.nms import NMS
from segnode.model.rpn import select_proposals
from segnode.model.steps import RoIAlign, SelectDetections, SelectProposals

# The oldest NVIDIA GPUs that Triton compiles for.
OLDEST_CAPABILITY = (7, 0)


class PasteLabels(Protocol):
    """See ``segnode.kernels.plain.paste.paste_labels_static``."""

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
    ) -> tuple[Tensor, Tensor]:
        """Map (N, D, M, M) to labels (N, H, W) and areas (N, D), -1 of what does not stay."""
        ...


class Choose(Protocol):
    """See ``segnode.kernels.plain.choose.choose_static``."""

    def __call__(
        self,
        detections: BoxDetections,
        network_hw: tuple[int, int],
        image_hw: tuple[int, int],
        *,
        min_mask_area: Tensor,
        cells: int,
        mask_threshold: Tensor,
        semantics: Semantics,
    ) -> Choice:
        """Move (N, D) detections that get a mask to the front, and lay them out for the host."""
        ...


class Preprocess(Protocol):
    """See ``segnode.kernels.plain.preprocess.preprocess_static``."""

    def __call__(
        self,
        frames: Tensor,
        plan: PreprocessPlan,
        mean: Tensor,
        std: Tensor,
        swap: bool,
        dtype: torch.dtype,
        channels: int = 3,
    ) -> Tensor:
        """Map (N, H, W, 3) uint8 to the network's input (N, C, H', W'), channels_last."""
        ...


@dataclass(frozen=True, slots=True)
class Operators:
    """The steps around the network, one row of them for every way to run it.

    The dynamic path takes the selections and RoIAlign from its row, and preprocesses and pastes
    image by image (``segnode.kernels.preprocess``, ``segnode.kernels.mask_crops``).

    Attributes:
        description: what they are and, where it is not Triton, why, for people.
        nms: greedy non-maximum suppression.
        select_proposals: the choice among anchors.
        select_detections: the choice among proposals and classes.
        roi_align: pooling over the levels of a pyramid.
        paste_labels: masks into one label image, with their areas.
        preprocess: frames to the network's input.
        choose: which detections get a mask.
        max_pool: pooling in the trunk.
        add_enlarged: the sums of the trunk's pyramid.
    """

    description: str
    nms: NMS
    select_proposals: SelectProposals
    select_detections: SelectDetections
    roi_align: RoIAlign
    paste_labels: PasteLabels
    preprocess: Preprocess
    choose: Choose
    max_pool: MaxPool
    add_enlarged: AddEnlarged


def exact_operators(device: torch.device) -> Operators:
    """Return the operators that work on exactly what is there, which suits a CPU.

    NMS and RoIAlign may synchronise with the host. On a CPU RoIAlign is compiled where it was
    built.
    """
    kernels = cpu_kernels() if device.type == 'cpu' else None
    return Operators(
        description='PyTorch' if kernels is None else 'compiled for CPUs',
        nms=nms,
        select_proposals=partial(select_proposals, nms=nms),
        select_detections=partial(select_detections, nms=nms),
        roi_align=roi_align if kernels is None else kernels.pool,
        paste_labels=paste_labels_static,
        preprocess=preprocess_static,
        choose=choose_static,
        max_pool=max_pool,
        add_enlarged=add_enlarged,
    )


def select_operators(device: torch.device) -> Operators:
    """Return the Triton kernels where they run, else their twins in plain PyTorch.

    None of them synchronises with the host. On a GPU it runs the smallest kernel once: Triton may
    be installed and yet unable to compile for want of a C compiler or of Python's headers.
    ``SEGNODE_TRITON=0`` refuses Triton.
    """
    reason = _obstacle(device)
    if reason is not None:
        return plain_operators(reason)
    return triton_operators()


def triton_operators() -> Operators:
    """Return the Triton kernels, where Triton is installed."""
    import triton

    from segnode.kernels.triton.choose import choose
    from segnode.kernels.triton.detections import select_detections
    from segnode.kernels.triton.maps import add_enlarged, max_pool
    from segnode.kernels.triton.nms import nms
    from segnode.kernels.triton.paste import paste_labels
    from segnode.kernels.triton.preprocess import preprocess
    from segnode.kernels.triton.proposals import select_proposals
    from segnode.kernels.triton.roi_align import roi_align

    return Operators(
        description=f'Triton {triton.__version__}',
        nms=nms,
        select_proposals=select_proposals,
        select_detections=select_detections,
        roi_align=roi_align,
        paste_labels=paste_labels,
        preprocess=preprocess,
        choose=choose,
        max_pool=max_pool,
        add_enlarged=add_enlarged,
    )


def plain_operators(reason: str) -> Operators:
    """Return the twins in plain PyTorch, and why it is they."""
    return Operators(
        description=f'PyTorch ({reason})',
        nms=nms_static,
        select_proposals=select_proposals_static,
        select_detections=select_detections_static,
        roi_align=roi_align_static,
        paste_labels=paste_labels_static,
        preprocess=preprocess_static,
        choose=choose_static,
        max_pool=max_pool,
        add_enlarged=add_enlarged,
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
        from segnode.kernels.triton.nms import nms

        boxes = torch.zeros((1, 4), device=device)
        nms(boxes, torch.ones(1, dtype=torch.bool, device=device), 0.5)
    except failures as error:
        return f'Triton cannot compile: {first_line(error)}'
    return None
