# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The program of an exported (TorchScript) model, and what its answer is checked for.

A TorchScript file is a program. It is run because the user named it, and only then.

Shapes: N instances, M side of a mask.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torchvision  # noqa: F401 - registers the operators that exported models call
from torch import Tensor

from segnode.checkpoint.coco_classes import COCO_CATEGORY_IDS
from segnode.checkpoint.message import one_line
from segnode.checkpoint.model import TorchScriptModel
from segnode.errors import CheckpointError, is_out_of_memory


def load_torchscript(
    model: TorchScriptModel, device: torch.device | None = None
) -> TorchScriptRunner:
    """Load the exported program; from here on its code runs.

    It sets ``torch.backends.quantized.engine`` for the process where the description names one.

    Args:
        model: from ``load_model``.
        device: where to run it; None is the CPU.

    Raises:
        CheckpointError: the file is no TorchScript program, or needs a quantized engine that this
            PyTorch does not have.
    """
    engine = model.description.quantized_engine
    if engine:
        supported = torch.backends.quantized.supported_engines
        if engine not in supported:
            raise CheckpointError(
                f'{model.weights_path}: expected the quantized engine {engine}, '
                f'found only {", ".join(supported)} in this PyTorch'
            )
        torch.backends.quantized.engine = engine
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', FutureWarning)  # torch.jit is deprecated, and works
            program = torch.jit.load(
                str(model.weights_path), map_location=device or torch.device('cpu')
            )
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f'{model.weights_path}: expected a TorchScript program, found {_reason(error)}'
        ) from None
    return TorchScriptRunner(model, program.eval())


class TorchScriptRunner:
    """An exported Mask R-CNN, ready to run."""

    def __init__(self, model: TorchScriptModel, program: Any) -> None:
        """Take a program that ``load_torchscript`` loaded."""
        self._model = model
        self._program = program
        if model.description.labels == 'coco_category_id':
            table = torch.full((max(COCO_CATEGORY_IDS) + 1,), -1, dtype=torch.int64)
            table[list(COCO_CATEGORY_IDS)] = torch.arange(len(COCO_CATEGORY_IDS))
        else:
            table = torch.arange(len(model.class_names))
        self._class_of_label = table

    @torch.inference_mode()
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run the network on one resized and normalised image.

        It synchronises with the device.

        Args:
            image: (3, H, W) float32 in the description's colour order and scale.

        Returns:
            boxes (N, 4) float32 xyxy in pixels of ``image``, scores (N,) float32, class_ids (N,)
            int64 from 0, masks (N, M, M) float32 probabilities; in the program's own order.

        Raises:
            CheckpointError: the program fails, or its output is not what the description says.
        """
        try:
            answer = self._program([image])
        except (RuntimeError, torch.jit.Error) as error:
            # The interpreter hides the type of the error that it passes on.
            if is_out_of_memory(error):
                raise torch.OutOfMemoryError(_reason(error)) from None
            raise CheckpointError(
                f'{self._model.weights_path}: the program failed: {_reason(error)}'
            ) from None
        where = self._model.description.output
        for index in where.select:
            if not isinstance(answer, list | tuple) or not -len(answer) <= index < len(answer):
                raise self._error(f'an item {index} by select {list(where.select)}', answer)
            answer = answer[index]
        boxes = self._output(answer, where.boxes, (-1, 4))
        n = len(boxes)
        scores = self._output(answer, where.scores, (n,))
        labels = self._output(answer, where.labels, (n,))
        masks = self._output(answer, where.masks, (n, 1, -1, -1))
        if masks.shape[2] != masks.shape[3]:
            raise self._error(f'square masks as {where.masks!r}', masks)
        return boxes.float(), scores.float(), self._class_ids(labels), masks[:, 0].float()

    def _output(self, answer: object, key: str, shape: tuple[int, ...]) -> Tensor:
        """Return one output after checking its shape; -1 stands for any size."""
        expected = ', '.join('?' if size < 0 else str(size) for size in shape)
        if not isinstance(answer, Mapping) or key not in answer:
            raise self._error(f'a dictionary with {key!r}', answer)
        value = answer[key]
        if (
            not isinstance(value, Tensor)
            or value.dim() != len(shape)
            or any(s >= 0 and s != found for s, found in zip(shape, value.shape, strict=True))
        ):
            raise self._error(f'{key!r} of shape ({expected})', value)
        return value

    def _class_ids(self, labels: Tensor) -> Tensor:
        table = self._class_of_label.to(labels.device)
        labels = labels.long()
        known = (labels >= 0) & (labels < len(table))
        class_ids = table[labels.clamp(0, len(table) - 1)]
        if not bool((known & (class_ids >= 0)).all()):
            raise self._error(f'labels as {self._model.description.labels}', labels)
        return class_ids

    def _error(self, expected: str, found: object) -> CheckpointError:
        if isinstance(found, Tensor):
            shown = f'a tensor of shape {tuple(found.shape)}'
            if found.dim() == 1 and not found.is_floating_point():
                shown = f'{found.tolist()[:8]}'
        elif isinstance(found, Mapping):
            shown = f'the keys {", ".join(map(str, found))}'
        else:
            shown = type(found).__name__
        return CheckpointError(
            f'{self._model.weights_path}: the description expects {expected}, found {shown}'
        )


def _reason(error: BaseException) -> str:
    """Return the last line of an interpreter's error, which names the fault."""
    lines = str(error).strip().splitlines()
    return one_line(lines[-1] if lines else error)
