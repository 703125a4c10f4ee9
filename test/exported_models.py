# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Exported (TorchScript) Mask R-CNNs as people have them, made with the libraries' own exporters.

Detectron2's take a test that asks for the ``detectron2`` fixture.
"""

from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class TwoBoxes(nn.Module):
    """Takes a batch and answers five numbers, the last of them the image's size."""

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        assert images.dim() == 4
        boxes = torch.tensor([[1.0, 2.0, 30.0, 40.0], [5.0, 6.0, 70.0, 80.0]])
        scores = torch.tensor([0.5, 0.4]) * images.mean() / (images.mean() + 1)
        size = torch.tensor([images.shape[2], images.shape[3]])
        labels, masks = torch.tensor([0, 1]), torch.ones(2, 1, 14, 14)
        return [boxes, size, labels, masks, scores], scores


def save(program: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.save(program, path)
    return path


def script(model: nn.Module, path: Path) -> Path:
    """Write ``torch.jit.script(model)``."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return save(torch.jit.script(model), path)


def trace_detectron2(model: Any, path: Path) -> Path:
    """Write what ``tools/deploy/export_model.py --export-method tracing`` does.

    Args:
        model: a ``GeneralizedRCNN`` in evaluation mode.
        path: to write.
    """
    _import_exporters()
    from detectron2.export.flatten import TracingAdapter

    def inference(model: Any, inputs: list[dict[str, Tensor]]) -> list[dict[str, Any]]:
        return [{'instances': model.inference(inputs, do_postprocess=False)[0]}]

    example = torch.randint(0, 256, (3, 240, 320), generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        adapter = TracingAdapter(model, [{'image': example.float()}], inference)
        return save(torch.jit.trace(adapter, (example.float(),), check_trace=False), path)


def script_detectron2(model: Any, path: Path) -> Path:
    """Write what ``tools/deploy/export_model.py --export-method scripting`` does."""
    _import_exporters()
    from detectron2.export.torchscript import scripting_with_instances
    from detectron2.structures import Boxes

    class Adapter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.eval()

        def forward(self, inputs: tuple[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
            instances = self.model.inference(inputs, do_postprocess=False)
            return [i.get_fields() for i in instances]

    fields = {
        'proposal_boxes': Boxes,
        'objectness_logits': Tensor,
        'pred_boxes': Boxes,
        'scores': Tensor,
        'pred_classes': Tensor,
        'pred_masks': Tensor,
    }
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return save(scripting_with_instances(Adapter(), fields), path)


def _import_exporters() -> None:
    """Stand in for the package's own import, which asks for Caffe2."""
    import detectron2

    if 'detectron2.export' not in sys.modules:
        package = types.ModuleType('detectron2.export')
        package.__path__ = [f'{detectron2.__path__[0]}/export']
        sys.modules['detectron2.export'] = package
