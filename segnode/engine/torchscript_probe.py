# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Finding out what an exported program takes and answers, by running it.

What a program tells of itself comes first: the type of its argument, the names and shapes of what
it holds. Then it is run on pictures of two sizes, and its outputs are told apart by type, shape
and range. What neither shows is assumed, and said to be.

Shapes: N instances, M side of a mask, H and W of the input.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from segnode.checkpoint.message import one_line
from segnode.checkpoint.model import (
    ExportedInput,
    ExportedOutput,
    Labels,
    Layout,
    Masks,
    ModelDescription,
)
from segnode.checkpoint.torchscript import ENGINES
from segnode.engine.torchscript import exported_input
from segnode.engine.torchscript_program import call_program, load_program
from segnode.errors import CheckpointError, ConfigError, ProgramError
from segnode.image import Image
from segnode.kernels.preprocess import resized_hw

# By the type that a program declares; what declares none of them is tried with all.
_LAYOUTS: Final[dict[str, tuple[Layout, ...]]] = {
    'Tensor': ('chw', 'nchw'),
    'List[Tensor]': ('list_of_chw',),
    'Tuple[Tensor]': ('list_of_chw',),
    'List[Dict[str, Tensor]]': ('list_of_dict',),
    'Tuple[Dict[str, Tensor]]': ('list_of_dict',),
}
_ALL_LAYOUTS: Final[tuple[Layout, ...]] = ('list_of_chw', 'chw', 'nchw', 'list_of_dict')
# Two sizes: what stays the same on both does not depend on the input's.
_PROBE_HW: Final = ((256, 320), (352, 288))
_NAMES: Final = {
    'boxes': ('pred_boxes', 'boxes', 'bboxes'),
    'scores': ('scores',),
    'labels': ('pred_classes', 'labels', 'classes'),
    'masks': ('pred_masks', 'masks'),
}
_IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CAFFE_RGB: Final = (123.675, 116.28, 103.53)
_CONFIDENT: Final = 0.5
_ASSUMED: Final = 'assumed: check'
_DEEPEST: Final = 4


@dataclass(frozen=True, slots=True)
class Probed:
    """What was found out.

    Attributes:
        description: of the program.
        remarks: by field of the description, how it is known.
        tried: a line for each thing that was tried, with what came of it.
    """

    description: ModelDescription
    remarks: dict[str, str]
    tried: list[str]


@dataclass(frozen=True, slots=True)
class _Family:
    """What the names inside a program give away.

    Attributes:
        name: detectron2, torchvision, or empty.
        input: what it takes, as far as the family tells.
        classes: number of foreground classes, 0 where it is not told.
        why: how it is known.
    """

    name: str
    input: ExportedInput
    classes: int
    why: str


@dataclass(frozen=True, slots=True)
class _Outputs:
    """Where the outputs lie, and what kind of mask they hold."""

    where: ExportedOutput
    masks: Masks


def probe_program(
    path: Path,
    *,
    weights: str,
    pictures: Sequence[Image] = (),
    class_names: tuple[str, ...] = (),
    labels: Labels | None = None,
    device: torch.device | None = None,
) -> Probed:
    """Run a program until it is known how to talk to it.

    Args:
        path: the TorchScript file; its code runs.
        weights: how the description names it.
        pictures: of what the model was trained for; they show colour order and scale where the
            program does not tell them.
        class_names: of its classes.
        labels: what a label stands for, where the user knows.
        device: where to run it; None is the CPU.

    Raises:
        CheckpointError: it is no TorchScript program, fails on every input, or answers nothing
            that is recognised.
        ConfigError: the names are too few or too many, or what a label stands for cannot be told.
    """
    device = device or torch.device('cpu')
    tried: list[str] = []
    program, engine = _load(path, device, tried)
    family = _family(program)
    if family.name:
        tried.append(f'made of {family.name}: {family.why}')
    layout, found = _find_layout(program, family, path, device, tried)
    given = dataclasses.replace(family.input, layout=layout)
    remarks = {'input.layout': 'this is what it ran with'}
    if family.name:
        remarks['input.color'] = family.why
    if family.name == 'torchvision':
        remarks['input.scale'] = 'the program normalises 0 to 1 by itself'
    else:
        given, remark = _by_pictures(program, family, given, found, pictures, path, device, tried)
        remarks['input.scale'] = remark
    remarks['input.short_side'] = (
        'the program resizes by itself'
        if not given.short_side
        else f"{_ASSUMED}; Detectron2's default"
    )
    remarks['masks'] = (
        'whole masks of the input' if found.masks == 'pasted' else 'to be pasted into the boxes'
    )
    labels, classes, remarks['labels'] = _labels(family, class_names, labels)
    if not family.name and found.masks == 'crops':
        remarks['paste'] = _ASSUMED
    description = ModelDescription(
        weights=weights,
        quantized_engine=engine,
        input=given,
        output=found.where,
        labels=labels,
        class_names=() if labels == 'coco_category_id' else class_names,
        classes=classes,
        masks=found.masks,
        paste='torchvision' if family.name == 'torchvision' else 'detectron2',
    )
    return Probed(description, {k: v for k, v in remarks.items() if v}, tried)


def _load(path: Path, device: torch.device, tried: list[str]) -> tuple[Any, str]:
    """Load a program, a quantized one with the engine that takes it."""
    program = load_program(path, device)
    if 'quantized::' not in str(program.inlined_graph):
        return program, ''
    # Which engine packed the weights stands nowhere; another one may fail, or answer nonsense.
    supported = [e for e in torch.backends.quantized.supported_engines if e in ENGINES]
    for engine in sorted(supported, key=lambda name: name != 'qnnpack'):
        torch.backends.quantized.engine = engine
        try:
            program = load_program(path, device)
        except CheckpointError as error:
            tried.append(f'quantized engine {engine}: {one_line(error)}')
            continue
        tried.append(f'quantized engine {engine}: loads')
        return program, engine
    raise CheckpointError(
        f'{path}: expected a program for one of {", ".join(supported)}, found none that loads it'
    )


def _family(program: Any) -> _Family:
    """Tell the library that a program came from by the names of what it holds."""
    held: dict[str, Tensor] = dict(
        itertools.chain(program.named_parameters(), program.named_buffers())
    )
    scores = [t for name, t in held.items() if name.endswith('cls_score.bias')]
    classes = len(scores[0]) - 1 if scores else 0
    means = [t for name, t in held.items() if name.endswith('pixel_mean') and t.numel() == 3]
    plain = ExportedInput(
        layout='list_of_chw',
        color='rgb',
        scale=1.0,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        short_side=800,
        long_side=1333,
    )
    if means:
        mean = [round(v, 2) for v in means[0].flatten().tolist()]
        rgb = mean[0] > mean[2]
        shown = ', '.join(f'{v:g}' for v in mean)
        why = f'its pixel_mean is {shown}'
        color = dataclasses.replace(plain, color='rgb' if rgb else 'bgr')
        return _Family('detectron2', color, classes, why)
    if any(name.startswith('backbone.body.') for name in held) and hasattr(program, 'transform'):
        inside = dataclasses.replace(plain, scale=1 / 255, short_side=0, long_side=65536)
        return _Family('torchvision', inside, classes, 'its layers have their names')
    return _Family('', dataclasses.replace(plain, scale=1 / 255), classes, '')


def _find_layout(
    program: Any, family: _Family, path: Path, device: torch.device, tried: list[str]
) -> tuple[Layout, _Outputs]:
    """Return the first way of handing over an image that is answered on both sizes."""
    arguments = [a for a in program.forward.schema.arguments[1:] if not a.has_default_value()]
    declared = ', '.join(str(a.type.annotation_str) for a in arguments)
    tried.append(f'it declares ({declared})')
    if len(arguments) > 1:
        raise CheckpointError(
            f'{path}: expected a program of one argument, the image, found ({declared})'
        )
    reasons = []
    for layout in _LAYOUTS.get(declared, _ALL_LAYOUTS):
        given = dataclasses.replace(family.input, layout=layout)
        try:
            found = [
                _recognise(
                    call_program(program, _probe(size_hw, given, device), layout, path),
                    size_hw,
                    path,
                )
                for size_hw in _PROBE_HW
            ]
            if found[0].where != found[1].where:
                raise CheckpointError(f'{path}: its outputs lie elsewhere on another picture')
        except CheckpointError as error:
            reasons.append(f'{layout}: {one_line(str(error).removeprefix(f"{path}: "), 300)}')
            tried.append(reasons[-1])
            continue
        tried.append(f'{layout}: answered on two sizes')
        return layout, found[0]
    raise CheckpointError(f'{path}: no way of handing over an image worked: {"; ".join(reasons)}')


def _probe(size_hw: tuple[int, int], given: ExportedInput, device: torch.device) -> Tensor:
    """Return noise over coarse blocks: a network finds more in it than in noise alone."""
    generator = np.random.default_rng(size_hw[0])
    blocks = generator.integers(0, 200, (-(-size_hw[0] // 32), -(-size_hw[1] // 32), 3))
    pixels = blocks.repeat(32, 0).repeat(32, 1)[: size_hw[0], : size_hw[1]]
    pixels = pixels + generator.integers(0, 56, (*size_hw, 3))
    return exported_input(Image(pixels.astype(np.uint8), 'rgb'), size_hw, given).to(device)


def _recognise(answer: object, image_hw: tuple[int, int], path: Path) -> _Outputs:
    """Tell boxes, scores, labels and masks apart.

    Raises:
        CheckpointError: one of them is not there, or there are several of a kind.
    """
    tensors = dict(_flatten(answer, ()))
    for select in dict.fromkeys(place[:-1] for place in tensors):
        group = {p[-1]: t for p, t in tensors.items() if p[:-1] == select}
        places = {what: _candidates(what, group, image_hw) for what in _NAMES}
        if not all(places.values()):
            continue
        chosen = {what: _one_of(what, keys, path) for what, keys in places.items()}
        masks = group[chosen['masks']]
        size_hw = (masks.shape[-2], masks.shape[-1])
        low, high = (
            (float(v) for v in torch.aminmax(masks.float())) if masks.numel() else (0.0, 1.0)
        )
        if not -1e-3 <= low <= high <= 1 + 1e-3:
            raise CheckpointError(
                f'{path}: expected masks from 0 to 1, found {low:.4g} to {high:.4g} in '
                f'{chosen["masks"]!r}: export it with the sigmoid of its mask head'
            )
        if size_hw != image_hw and size_hw[0] != size_hw[1]:
            raise CheckpointError(
                f'{path}: expected square masks, or masks of the input, found {size_hw}'
            )
        return _Outputs(
            ExportedOutput(select=select, **chosen), 'pasted' if size_hw == image_hw else 'crops'
        )
    shown = ', '.join(
        f'{"/".join(map(str, place)) or "answer"} {str(t.dtype).removeprefix("torch.")} '
        f'{tuple(t.shape)}'
        for place, t in list(tensors.items())[:12]
    )
    raise CheckpointError(
        f'{path}: expected boxes (N, 4), scores (N), labels (N) and masks (N, 1, M, M) side by '
        f'side, found {shown or type(answer).__name__}'
    )


def _flatten(
    answer: object, place: tuple[int | str, ...]
) -> Iterator[tuple[tuple[int | str, ...], Tensor]]:
    """Yield every tensor of nested lists, tuples and dictionaries, and where it lies."""
    if isinstance(answer, Tensor):
        if place:
            yield place, answer
    elif len(place) < _DEEPEST:
        items: list[tuple[Any, object]] = []
        if isinstance(answer, Mapping):
            items = [(key, value) for key, value in answer.items() if isinstance(key, str)]
        elif isinstance(answer, list | tuple):
            items = list(enumerate(answer))
        for key, value in items:
            yield from _flatten(value, (*place, key))


def _candidates(
    what: str, group: Mapping[int | str, Tensor], image_hw: tuple[int, int]
) -> list[int | str]:
    """Return the keys of a group whose tensors can be ``what``, those with its names alone."""
    boxes = [k for k, t in group.items() if t.is_floating_point() and t.dim() == 2]
    boxes = [k for k in boxes if group[k].shape[1] == 4]
    if not boxes:
        return []
    named = [k for k in boxes if k in _NAMES['boxes']] or boxes
    n = len(group[named[0]])
    keys: list[int | str] = []
    for key, tensor in group.items():
        if tensor.dim() == 0 or len(tensor) != n:
            continue
        is_size = tensor.dim() == 1 and tuple(tensor.tolist()) == image_hw
        shape_fits = {
            'boxes': key in named,
            'scores': tensor.dim() == 1 and tensor.is_floating_point(),
            'labels': tensor.dim() == 1 and not tensor.is_floating_point() and not is_size,
            'masks': tensor.dim() == 3 or (tensor.dim() == 4 and tensor.shape[1] == 1),
        }
        if shape_fits[what]:
            keys.append(key)
    return [k for k in keys if k in _NAMES[what]] or keys


def _one_of(what: str, keys: Sequence[int | str], path: Path) -> int | str:
    if len(keys) > 1:
        raise CheckpointError(
            f'{path}: expected one output that can be {what}, found {len(keys)}: '
            f'{", ".join(map(str, keys))}; write the description by hand (README, "TorchScript")'
        )
    return keys[0]


def _by_pictures(
    program: Any,
    family: _Family,
    given: ExportedInput,
    found: _Outputs,
    pictures: Sequence[Image],
    path: Path,
    device: torch.device,
    tried: list[str],
) -> tuple[ExportedInput, str]:
    """Return the input with which the most is found in pictures, and how it is known.

    What counts is the sum of the scores above one half.
    """
    if not pictures:
        return given, f'{_ASSUMED}; --image shows it'
    sums = []
    for name, candidate in _inputs(family, given).items():
        total = sum(
            _confidence(program, candidate, found, each, path, device) for each in pictures
        )
        tried.append(f'{name}: {total:.1f} in scores above one half')
        sums.append((total, name, candidate))
    sums.sort(key=lambda entry: -entry[0])
    (best, _, chosen), (second, other, _) = sums[:2]
    if best == 0:
        return given, f'{_ASSUMED}; nothing was found in the pictures either way'
    return chosen, f'most is found so: {best:.1f}, next {second:.1f} ({other})'


def _inputs(family: _Family, given: ExportedInput) -> dict[str, ExportedInput]:
    """Return what may be tried, by name; a program that normalises tells its colours."""
    changes: dict[str, dict[str, Any]] = {
        '0 to 255': {'scale': 1.0},
        '0 to 1': {'scale': 1 / 255},
    }
    if family.name:
        return {k: dataclasses.replace(given, **change) for k, change in changes.items()}
    inputs = {}
    for color in ('rgb', 'bgr'):
        mean, std, centre = (
            each if color == 'rgb' else each[::-1] for each in (*_IMAGENET, _CAFFE_RGB)
        )
        normed = changes | {
            '0 to 1, normalised': {'scale': 1 / 255, 'mean': mean, 'std': std},
            '0 to 255, centred': {'scale': 1.0, 'mean': centre},
        }
        for name, change in normed.items():
            inputs[f'{color}, {name}'] = dataclasses.replace(given, color=color, **change)
    return inputs


def _confidence(
    program: Any,
    given: ExportedInput,
    found: _Outputs,
    picture: Image,
    path: Path,
    device: torch.device,
) -> float:
    size_hw = resized_hw((picture.height, picture.width), given.short_side, given.long_side)
    x = exported_input(picture, size_hw, given).to(device)
    try:
        answer: Any = call_program(program, x, given.layout, path)
    except ProgramError:
        return 0.0
    for step in (*found.where.select, found.where.scores):
        answer = answer[step]
    return float(answer[answer > _CONFIDENT].sum())


def _labels(
    family: _Family, class_names: tuple[str, ...], labels: Labels | None
) -> tuple[Labels, int, str]:
    """Return what a label stands for, the number of classes and how they are known."""
    if labels == 'coco_category_id':
        return labels, 0, ''
    classes = family.classes or len(class_names)
    if not classes:
        raise ConfigError(
            'expected to find the number of classes in the program, found none: give '
            '--class-names, or --labels coco_category_id for a model of COCO'
        )
    if class_names and len(class_names) != classes:
        raise ConfigError(
            f'--class-names: expected {classes} names, as the program has so many classes, '
            f'found {len(class_names)}'
        )
    if labels is not None:
        return labels, classes, ''
    if family.name == 'torchvision':
        coco = '; of COCO: coco_category_id' if classes == 90 else ''
        return 'index_from_1', classes, f'0 is the background{coco}'
    return 'index', classes, 'as Detectron2 counts' if family.name else f'{_ASSUMED}, from 0'
