# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The program of an exported (TorchScript) model, and what its answer is checked for.

A TorchScript file is a program. It is run because the user named it, and only then; it is run as
it is: nothing in it is switched or changed, as exports differ in what they allow.

Shapes: N instances, M side of a mask, H and W of the input.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision  # noqa: F401 - registers the operators that exported models call
from torch import Tensor

from segnode.checkpoint.coco_classes import COCO_CATEGORY_IDS
from segnode.checkpoint.message import one_line
from segnode.checkpoint.model import Layout, ModelDescription, TorchScriptModel
from segnode.errors import CheckpointError, OutOfMemoryError, ProgramError, is_out_of_memory

# What rounding may add to a probability.
_SLACK = 1e-3
# Pixels by which rounding may swap the corners of a box.
_SLACK_PX = 0.5
# How far a box may reach beyond the image, as a share of its sides: objects that are cut off.
_BEYOND = 0.5
# The largest crop that is never asked whether it is a whole mask.
_LARGEST_CROP = 56


class ExportedAnswer(NamedTuple):
    """What a program found in one image, in its own order, without padding.

    Attributes:
        boxes: (N, 4) float32 xyxy, pixels of the input.
        scores: (N,) float32.
        class_ids: (N,) int64, from 0.
        masks: (N, M, M) probabilities, or (N, H, W) where the program pastes; of any type.
    """

    boxes: Tensor
    scores: Tensor
    class_ids: Tensor
    masks: Tensor


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
    program = load_program(model.weights_path, device or torch.device('cpu'))
    return TorchScriptRunner(model, program)


def load_program(path: Path, device: torch.device) -> Any:
    """Return the program of a TorchScript file.

    Raises:
        CheckpointError: the file is none, or has no ``forward``.
        OutOfMemoryError: the device has no room for it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', FutureWarning)  # torch.jit is deprecated, and works
            program = torch.jit.load(str(path), map_location=device)
    except (RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(f'{path}: {device} has no room for the program') from None
        raise CheckpointError(
            f'{path}: expected a TorchScript program, found {_reason(error)}'
        ) from None
    if not hasattr(program, 'forward'):
        raise CheckpointError(f'{path}: expected a program with a method forward, found none')
    return program


@torch.inference_mode()
def call_program(program: Any, image: Tensor, layout: Layout, path: Path) -> object:
    """Run a program on one image.

    Args:
        program: from ``load_program``.
        image: (3, H, W) float32.
        layout: how the program takes it.
        path: of the program, for the message.

    Raises:
        ProgramError: it fails.
        torch.cuda.OutOfMemoryError: there is not enough memory for it.
    """
    given: Any = image
    if layout == 'nchw':
        given = image[None]
    elif layout != 'chw':
        one = {'image': image} if layout == 'list_of_dict' else image
        given = (one,) if takes_tuple(program) else [one]
    try:
        return program(given)
    except (RuntimeError, torch.jit.Error) as error:
        # The interpreter hides the type of the error that it passes on.
        if is_out_of_memory(error):
            raise torch.cuda.OutOfMemoryError(_reason(error)) from None
        raise ProgramError(f'{path}: the program failed: {_reason(error)}') from None


def takes_tuple(program: Any) -> bool:
    """Tell whether a program takes a tuple in place of a list, as Detectron2's scripted ones."""
    arguments = program.forward.schema.arguments[1:]
    return bool(arguments) and arguments[0].type.kind() == 'TupleType'


class TorchScriptRunner:
    """An exported Mask R-CNN, ready to run."""

    def __init__(self, model: TorchScriptModel, program: Any) -> None:
        """Take a program that ``load_program`` loaded."""
        self._path = model.weights_path
        self._description = model.description
        self._program = program
        self._class_of_label = _class_of_label(model.description, len(model.class_names))

    def training_norms(self) -> int:
        """Return how many batch norms the program was exported with in training mode."""
        return sum(
            bool(getattr(module, 'training', False))
            for module in self._program.modules()
            if any(name == 'running_mean' for name, _ in module.named_buffers(recurse=False))
        )

    @torch.inference_mode()
    def forward(self, image: Tensor, score_threshold: float = 0.0) -> ExportedAnswer:
        """Run the network on one resized and normalised image.

        Rows that pad an answer (no score, no area, no number) are left out before anything else
        in them is looked at. It synchronises with the device.

        Args:
            image: (3, H, W) float32 in the description's colour order and scale.
            score_threshold: a score has to exceed it.

        Raises:
            ProgramError: the program fails.
            CheckpointError: its output is not what the description says.
        """
        where = self._description.output
        image_hw = (image.shape[-2], image.shape[-1])
        answer = call_program(self._program, image, self._description.input.layout, self._path)
        for step in where.select:
            if isinstance(answer, list | tuple) and not answer:
                return _nothing(image)
            answer = self._item(answer, step, f' by select {list(where.select)}')
        scores = self._output(answer, where.scores, image.device, (-1,))
        if not len(scores):
            return _nothing(image)
        n = len(scores)
        boxes = self._output(answer, where.boxes, image.device, (n, 4)).float()
        labels = self._output(answer, where.labels, image.device, (n,))
        masks = self._output(answer, where.masks, image.device, (n, 1, -1, -1), (n, -1, -1))
        scores = self._checked_scores(scores)
        found = torch.isfinite(boxes).all(-1) & (scores > max(score_threshold, 0.0))
        self._check_corners(boxes[found], image_hw)
        found &= (boxes[:, 2:] > boxes[:, :2]).all(-1)
        boxes, scores, labels, masks = boxes[found], scores[found], labels[found], masks[found]
        self._check_boxes(boxes, image_hw)
        masks = masks.flatten(0, -3)
        self._check_masks(masks, image_hw)
        return ExportedAnswer(boxes, scores, self._class_ids(labels), masks)

    def _item(self, container: object, step: int | str, how: str) -> object:
        """Return what lies under a key or number."""
        if isinstance(step, str):
            if not isinstance(container, Mapping) or step not in container:
                raise self._error(f'a dictionary with {step!r}{how}', container)
            return container[step]
        if isinstance(container, list | tuple) and -len(container) <= step < len(container):
            return container[step]
        raise self._error(f'an item {step}{how}', container)

    def _output(
        self, answer: object, step: int | str, device: torch.device, *shapes: tuple[int, ...]
    ) -> Tensor:
        """Return one output as a plain tensor of one of the shapes; -1 stands for any size."""
        value = self._item(answer, step, '')
        if isinstance(value, Tensor):
            value = plain(value)
            if value is not None and self._description.input.layout == 'nchw':
                value = without_batch(value, shapes)
        if not isinstance(value, Tensor) or not any(_fits(value, shape) for shape in shapes):
            expected = ' or '.join(
                f'({", ".join("?" if size < 0 else str(size) for size in shape)})'
                for shape in shapes
            )
            raise self._error(f'{step!r} of shape {expected}', self._item(answer, step, ''))
        return value.to(device)

    def _checked_scores(self, scores: Tensor) -> Tensor:
        """Refuse scores that are no probabilities; -1 may pad."""
        step = self._description.output.scores
        if not scores.is_floating_point():
            raise self._error(f'scores, which are fractions, as {step!r}', scores)
        scores = scores.float()
        low, high = (float(v) for v in torch.aminmax(scores))
        padded = bool((scores == -1).all())
        if math.isnan(high) or high > 1 + _SLACK or (high < 0 and not padded):
            raise self._range_error('scores', step, low, high)
        return scores

    def _check_masks(self, masks: Tensor, image_hw: tuple[int, int]) -> None:
        """Refuse crops that are no crops, whole masks of another size, and what is no mask."""
        step = self._description.output.masks
        height, width = masks.shape[1], masks.shape[2]
        if not len(masks):
            return
        if self._description.masks == 'pasted':
            if (height, width) != image_hw:
                raise self._error(f"masks of the input's size {image_hw} as {step!r}", masks)
        elif height != width or not 0 < height <= max(_LARGEST_CROP, max(image_hw) // 2):
            raise self._error(f'square crops as {step!r} (whole masks are `masks: pasted`)', masks)
        if masks.dtype != torch.bool:
            low, high = (float(v) for v in torch.aminmax(masks))
            if not (low >= -_SLACK and high <= 1 + _SLACK):
                raise self._range_error('masks', step, low, high)

    def _range_error(self, what: str, step: int | str, low: float, high: float) -> CheckpointError:
        return CheckpointError(
            f'{self._path}: the description expects {what} from 0 to 1 as {step!r}, found '
            f'{low:.4g} to {high:.4g}; let the program end in a sigmoid, a softmax or a division '
            'by 255, or point the description at another output'
        )

    def _check_corners(self, boxes: Tensor, image_hw: tuple[int, int]) -> None:
        if bool((boxes[:, 2:] < boxes[:, :2] - _SLACK_PX).any()):
            raise self._box_error(boxes, image_hw, '; is that (x, y, width, height)?')

    def _check_boxes(self, boxes: Tensor, image_hw: tuple[int, int]) -> None:
        """Refuse boxes that are not in pixels of the input."""
        if not len(boxes):
            return
        # One box of a pixel may lie in the corner; several do not.
        if len(boxes) > 1 and min(image_hw) > 2 and float(boxes.abs().max()) <= 1:
            raise self._box_error(boxes, image_hw, '; they look relative to the image')
        sides = boxes.new_tensor([image_hw[1], image_hw[0]])
        beyond = torch.maximum(boxes[:, 2:] - sides, -boxes[:, :2]) / sides
        if float(beyond.max()) > _BEYOND:
            raise self._box_error(boxes, image_hw, '')

    def _box_error(self, boxes: Tensor, image_hw: tuple[int, int], hint: str) -> CheckpointError:
        low, high = (float(v) for v in torch.aminmax(boxes))
        return CheckpointError(
            f'{self._path}: the description expects boxes (x0, y0, x1, y1) in pixels of the '
            f'{image_hw[1]} x {image_hw[0]} input as {self._description.output.boxes!r}, '
            f'found {low:.4g} to {high:.4g}{hint}'
        )

    def _class_ids(self, labels: Tensor) -> Tensor:
        table = self._class_of_label.to(labels.device)
        whole = labels.long()
        known = (whole >= 0) & (whole < len(table))
        class_ids = table[whole.clamp(0, len(table) - 1)]
        wrong = ~(known & (class_ids >= 0)) | (whole != labels)
        if bool(wrong.any()):
            first, last = int((table >= 0).nonzero()[0]), len(table) - 1
            raise self._error(
                f'labels as {self._description.labels} ({first} to {last})',
                labels[wrong].unique(),
            )
        return class_ids

    def _error(self, expected: str, found: object) -> CheckpointError:
        if isinstance(found, Tensor):
            shown = f'a tensor of shape {tuple(found.shape)}'
            if found.dim() == 1 and len(found):
                shown = f'{found.tolist()[:8]} ({str(found.dtype).removeprefix("torch.")})'
            elif found.layout != torch.strided or found.is_meta or found.is_complex():
                shown += f' ({found.layout}, {found.dtype}, on {found.device})'
        elif isinstance(found, Mapping):
            shown = f'the keys {", ".join(map(str, found))}'
        elif isinstance(found, list | tuple):
            shown = f'a {type(found).__name__} of {len(found)}'
        else:
            shown = type(found).__name__
        return CheckpointError(f'{self._path}: the description expects {expected}, found {shown}')


def _class_of_label(description: ModelDescription, classes: int) -> Tensor:
    """Return the class of every label, (L,) int64, -1 where there is none."""
    if description.labels == 'coco_category_id':
        table = torch.full((max(COCO_CATEGORY_IDS) + 1,), -1, dtype=torch.int64)
        table[list(COCO_CATEGORY_IDS)] = torch.arange(len(COCO_CATEGORY_IDS))
        return table
    if description.labels == 'index_from_1':
        return torch.arange(-1, classes)
    return torch.arange(classes)


def _nothing(image: Tensor) -> ExportedAnswer:
    """Return the answer of a program that found nothing, whatever its shapes are then."""
    return ExportedAnswer(
        image.new_zeros((0, 4)),
        image.new_zeros(0),
        torch.zeros(0, dtype=torch.int64, device=image.device),
        image.new_zeros((0, *image.shape[-2:])),
    )


def plain(value: Tensor) -> Tensor | None:
    """Return a tensor as dense numbers, None where it cannot be had so."""
    if value.is_quantized:
        return value.dequantize()
    odd = value.layout != torch.strided or value.is_meta or value.is_complex()
    return None if odd else value


def without_batch(value: Tensor, shapes: Sequence[tuple[int, ...]]) -> Tensor:
    """Return a tensor without its leading dimension of one, where only so it has the shape."""
    if not any(_fits(value, shape) for shape in shapes) and value.dim() and len(value) == 1:
        return value[0]
    return value


def _fits(value: Tensor, shape: tuple[int, ...]) -> bool:
    return value.dim() == len(shape) and all(
        size < 0 or size == found for size, found in zip(shape, value.shape, strict=True)
    )


def _reason(error: BaseException) -> str:
    """Return the end of an interpreter's error from where it names the fault, in one line."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    for start in range(len(lines) - 1, -1, -1):
        if re.match(r'[\w.]+(Error|Exception|Interrupt|Iteration)?: ?', lines[start]):
            return one_line(' '.join(lines[start:]))
    return one_line(lines[-1] if lines else error)
