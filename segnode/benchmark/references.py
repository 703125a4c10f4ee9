# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the references share: masks merged into a label image, and layers at their best.

Shapes: D detections, H and W of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segnode.benchmark.planted import PlantedDetections
from segnode.model.precision import has_bfloat16_instructions


def merge_masks(masks: Tensor) -> npt.NDArray[np.uint16]:
    """Merge (D, H, W) bool masks, highest score first, into a label image on the host."""
    if len(masks) == 0:
        return np.zeros(masks.shape[1:], dtype=np.uint16)
    if masks.is_cuda:
        first = masks.view(torch.uint8).argmax(0) + 1
        return _to_host((first * masks.any(0)).to(torch.int16))
    # Painting is faster than a reduction on a processor.
    labels = torch.zeros(masks.shape[1:], dtype=torch.int16)
    for k in range(len(masks) - 1, -1, -1):
        labels.masked_fill_(masks[k], k + 1)
    return _to_host(labels)


def _to_host(labels: Tensor) -> npt.NDArray[np.uint16]:
    array: npt.NDArray[np.uint16] = labels.cpu().numpy().view(np.uint16)
    return array


def half_precision(device: torch.device) -> torch.dtype:
    """Return the format of a reference at its best."""
    if device.type == 'cuda':
        return torch.float16
    return torch.bfloat16 if has_bfloat16_instructions() else torch.float32


def halve(module: nn.Module, dtype: torch.dtype, out: torch.dtype, compiled: bool) -> nn.Module:
    """Run a module in another format and channels_last memory, and compile it.

    What goes in is converted to ``dtype``, what comes out to ``out``; where compiled, both are
    part of what is compiled.
    """
    module.to(dtype)
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    module.register_forward_pre_hook(lambda _, args: _convert(args, dtype, last=True))
    module.register_forward_hook(lambda _, args, result: _convert(result, out, last=False))
    if compiled:
        module.compile()
    return module


def _convert(value: Any, dtype: torch.dtype, *, last: bool) -> Any:
    if isinstance(value, Tensor):
        if last and value.ndim == 4:
            return value.to(dtype, memory_format=torch.channels_last)
        return value.to(dtype)
    if isinstance(value, Mapping):
        return {name: _convert(each, dtype, last=last) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_convert(each, dtype, last=last) for each in value)
    return value


def on_device(planted: PlantedDetections, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes, scores and class indices of planted detections as tensors."""
    boxes, scores, class_ids = (
        torch.from_numpy(values).to(device)
        for values in (planted.boxes, planted.scores, planted.class_ids)
    )
    return boxes, scores, class_ids


def format_name(dtype: torch.dtype) -> str:
    """Return the name that segnode gives a number format."""
    return {torch.float16: 'fp16', torch.bfloat16: 'bf16'}.get(dtype, 'fp32')
