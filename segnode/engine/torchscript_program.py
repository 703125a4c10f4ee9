# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The program of an exported (TorchScript) model, and what its answer is checked for.

A TorchScript file is a program. It is run because the user named it, and only then; it is run as
it is: nothing in it is switched or changed, as exports differ in what they allow.

Shapes: N instances, M side of a mask, H and W of the input.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision  # noqa: F401 - registers the operators that exported models call
from torch import Tensor

from segnode.checkpoint.coco_classes import COCO_CATEGORY_IDS
from segnode.checkpoint.message import one_line
from segnode.checkpoint.model import Layout, ModelDescription, TorchScriptModel
from segnode.errors import CheckpointError, ProgramError, is_out_of_memory

# What rounding may add to a probability.
_SLACK = 1e-3
# How far a box may reach beyond the image, as a share of its sides: boxes that nobody clipped.
_BEYOND = 0.1


class ExportedAnswer(NamedTuple):
    """What a program found in one image, in its own order.

    Attributes:
        boxes: (N, 4) float32 xyxy, pixels of the input.
        scores: (N,) float32.
        class_ids: (N,) int64, from 0.
        masks: (N, M, M) float32 probabilities, or (N, H, W) float32 where the program pastes.
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
        CheckpointError: the file is none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', FutureWarning)  # torch.jit is deprecated, and works
            return torch.jit.load(str(path), map_location=device)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f'{path}: expected a TorchScript program, found {_reason(error)}'
        ) from None


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
        torch.OutOfMemoryError: there is not enough memory for it.
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
            raise torch.OutOfMemoryError(_reason(error)) from None
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

    @torch.inference_mode()
    def forward(self, image: Tensor) -> ExportedAnswer:
        """Run the network on one resized and normalised image.

        It synchronises with the device.

        Args:
            image: (3, H, W) float32 in the description's colour order and scale.

        Raises:
            ProgramError: the program fails.
            CheckpointError: its output is not what the description says.
        """
        where = self._description.output
        answer = call_program(self._program, image, self._description.input.layout, self._path)
        for step in where.select:
            answer = self._item(answer, step, f' by select {list(where.select)}')
        boxes = self._output(answer, where.boxes, (-1, 4)).float()
        n = len(boxes)
        scores = self._output(answer, where.scores, (n,)).float()
        labels = self._output(answer, where.labels, (n,))
        masks = self._output(answer, where.masks, (n, 1, -1, -1), (n, -1, -1))
        masks = masks.flatten(0, -3).float()
        image_hw = (image.shape[-2], image.shape[-1])
        self._check_masks(masks, image_hw)
        self._check_range(where.scores, scores, 'scores')
        self._check_range(where.masks, masks, 'masks')
        self._check_boxes(boxes, image_hw)
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

    def _output(self, answer: object, step: int | str, *shapes: tuple[int, ...]) -> Tensor:
        """Return one output after checking its shape; -1 stands for any size."""
        value = self._item(answer, step, '')
        if not isinstance(value, Tensor) or not any(_fits(value, shape) for shape in shapes):
            expected = ' or '.join(
                f'({", ".join("?" if size < 0 else str(size) for size in shape)})'
                for shape in shapes
            )
            raise self._error(f'{step!r} of shape {expected}', value)
        return value

    def _check_masks(self, masks: Tensor, image_hw: tuple[int, int]) -> None:
        """Refuse crops that are no crops, and whole masks of another size."""
        name, found_hw = self._description.output.masks, (masks.shape[1], masks.shape[2])
        if self._description.masks == 'pasted':
            if found_hw != image_hw:
                raise self._error(f"masks of the input's size {image_hw} as {name!r}", masks)
        elif found_hw == image_hw and len(masks):
            raise self._error(f'crops as {name!r} (whole masks are `masks: pasted`)', masks)
        elif found_hw[0] != found_hw[1]:
            hint = ' (whole masks are `masks: pasted`)'
            raise self._error(f'square masks as {name!r}{hint}', masks)

    def _check_range(self, step: int | str, values: Tensor, what: str) -> None:
        if not values.numel():
            return
        low, high = (float(v) for v in torch.aminmax(values))
        if not (low >= -_SLACK and high <= 1 + _SLACK):
            raise CheckpointError(
                f'{self._path}: the description expects {what} from 0 to 1 as {step!r}, found '
                f'{low:.4g} to {high:.4g}; export it with its sigmoid or softmax, or point the '
                'description at another output'
            )

    def _check_boxes(self, boxes: Tensor, image_hw: tuple[int, int]) -> None:
        """Refuse boxes that are not corners in pixels of the input; NaN is filtered later."""
        boxes = boxes[torch.isfinite(boxes).all(-1)]
        if not len(boxes):
            return
        sides = boxes.new_tensor([image_hw[1], image_hw[0]])
        beyond = ((boxes[:, 2:] - sides).clamp(min=0) + (-boxes[:, :2]).clamp(min=0)) / sides
        reversed_corners = bool((boxes[:, 2:] < boxes[:, :2]).any())
        # One box of a pixel may lie in the corner; several with an area do not.
        tiny = len(boxes) > 1 and bool((boxes[:, 2:] > boxes[:, :2]).all())
        tiny = tiny and min(image_hw) > 2 and float(boxes.abs().max()) <= 1
        if reversed_corners or tiny or float(beyond.max()) > _BEYOND:
            low, high = (float(v) for v in torch.aminmax(boxes))
            hint = '; they look relative to the image' if tiny else ''
            hint = '; is that (x, y, width, height)?' if reversed_corners else hint
            raise CheckpointError(
                f'{self._path}: the description expects boxes (x0, y0, x1, y1) in pixels of the '
                f'{image_hw[1]} x {image_hw[0]} input as {self._description.output.boxes!r}, '
                f'found {low:.4g} to {high:.4g}{hint}'
            )

    def _class_ids(self, labels: Tensor) -> Tensor:
        table = self._class_of_label.to(labels.device)
        labels = labels.long()
        known = (labels >= 0) & (labels < len(table))
        class_ids = table[labels.clamp(0, len(table) - 1)]
        if not bool((known & (class_ids >= 0)).all()):
            unknown = labels[~(known & (class_ids >= 0))].unique()
            first, last = int((table >= 0).nonzero()[0]), len(table) - 1
            raise self._error(f'labels as {self._description.labels} ({first} to {last})', unknown)
        return class_ids

    def _error(self, expected: str, found: object) -> CheckpointError:
        if isinstance(found, Tensor):
            shown = f'a tensor of shape {tuple(found.shape)}'
            if found.dim() == 1 and not found.is_floating_point():
                shown = f'{found.tolist()[:8]}'
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


def _fits(value: Tensor, shape: tuple[int, ...]) -> bool:
    return value.dim() == len(shape) and all(
        size < 0 or size == found for size, found in zip(shape, value.shape, strict=True)
    )


def _reason(error: BaseException) -> str:
    """Return the last line of an interpreter's error, which names the fault."""
    lines = str(error).strip().splitlines()
    return one_line(lines[-1] if lines else error)
