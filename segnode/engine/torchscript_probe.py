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
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from segnode.checkpoint.coco_classes import COCO_CLASS_NAMES
from segnode.checkpoint.message import one_line
from segnode.checkpoint.model import (
    ExportedInput,
    ExportedOutput,
    Labels,
    Layout,
    Masks,
    ModelDescription,
    TorchScriptModel,
)
from segnode.checkpoint.torchscript import ENGINES
from segnode.engine.torchscript import exported_input
from segnode.engine.torchscript_program import (
    TorchScriptRunner,
    call_program,
    load_program,
    plain,
)
from segnode.errors import CheckpointError, ConfigError, OutOfMemoryError, is_out_of_memory
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
# How much more has to be found for a choice.
_CLEARLY: Final = 1.2
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
    """Where the outputs lie, what kind of mask they hold, and which labels came."""

    where: ExportedOutput
    masks: Masks
    labels: frozenset[int]


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
        OutOfMemoryError: the device has no room for it.
    """
    device = device or torch.device('cpu')
    tried: list[str] = []
    try:
        return _probe_program(path, weights, pictures, class_names, labels, device, tried)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    raise OutOfMemoryError(
        f'{path}: {device} ran out of memory while the program was tried; take another --device, '
        'or smaller pictures'
    )


def _probe_program(
    path: Path,
    weights: str,
    pictures: Sequence[Image],
    class_names: tuple[str, ...],
    labels: Labels | None,
    device: torch.device,
    tried: list[str],
) -> Probed:
    remarks: dict[str, str] = {}
    program, engine, remarks['quantized_engine'] = _load(path, device, tried)
    family = _family(program)
    if family.name:
        tried.append(f'made of {family.name}: {family.why}')
    layout, found = _find_layout(program, family, path, device, tried)
    given = dataclasses.replace(family.input, layout=layout)
    labels, classes, remarks['labels'] = _labels(family, class_names, labels, found.labels)
    torchvision = family.name == 'torchvision' or (not family.name and found.masks == 'pasted')
    description = ModelDescription(
        weights=weights,
        quantized_engine=engine,
        input=given,
        output=found.where,
        labels=labels,
        class_names=class_names,
        classes=classes,
        masks=found.masks,
        paste='torchvision' if torchvision else 'detectron2',
    )
    runner = _runner(program, description, path)
    for size_hw in _PROBE_HW:
        runner.forward(_probe(size_hw, given, device))
    if family.name == 'torchvision':
        remarks['input.scale'] = 'the program normalises 0 to 1 by itself'
    else:
        given, scale, color = _by_pictures(runner, family, given, pictures, device, tried)
        remarks |= {'input.scale': scale, 'input.color': family.why or color}
        remarks['input.mean'] = '' if family.name else scale
    remarks['input.layout'] = 'this is what it ran with'
    remarks['input.short_side'] = (
        'the program resizes by itself'
        if not given.short_side
        else f"{_ASSUMED}; Detectron2's default"
    )
    remarks['masks'] = (
        'whole masks of the input' if found.masks == 'pasted' else 'to be pasted into the boxes'
    )
    remarks['paste'] = '' if family.name else _ASSUMED
    return Probed(
        dataclasses.replace(description, input=given),
        {field: remark for field, remark in remarks.items() if remark},
        tried,
    )


def _runner(program: Any, description: ModelDescription, path: Path) -> TorchScriptRunner:
    """Return what checks an answer against a description."""
    sparse = description.labels == 'coco_category_id'
    names = description.class_names or tuple(map(str, range(description.classes)))
    model = TorchScriptModel(
        description=description,
        class_names=COCO_CLASS_NAMES if sparse else names,
        category_ids=None,
        name=path.stem,
        weights_path=path,
        weights_sha256='',
    )
    return TorchScriptRunner(model, program)


def _load(path: Path, device: torch.device, tried: list[str]) -> tuple[Any, str, str]:
    """Load a program, a quantized one with an engine that takes it, and say how that is known."""
    program = load_program(path, device)
    if 'quantized::' not in str(program.inlined_graph):
        return program, '', ''
    # Which engine packed the weights stands nowhere; another one may fail, or answer nonsense.
    supported = [e for e in torch.backends.quantized.supported_engines if e in ENGINES]
    loading = []
    for engine in sorted(supported, key=lambda name: name != 'qnnpack'):
        torch.backends.quantized.engine = engine
        try:
            load_program(path, device)
        except CheckpointError as error:
            tried.append(f'quantized engine {engine}: {one_line(error)}')
            continue
        tried.append(f'quantized engine {engine}: loads')
        loading.append(engine)
    if not loading:
        raise CheckpointError(
            f'{path}: expected a program for one of {", ".join(supported)}, found none that '
            'loads it'
        )
    torch.backends.quantized.engine = loading[0]
    others = ', '.join(loading[1:])
    remark = f'{_ASSUMED}; {others} load it, too' if others else 'no other loads it'
    return load_program(path, device), loading[0], remark


def _family(program: Any) -> _Family:
    """Tell the library that a program came from by the names of what it holds."""
    held: dict[str, Tensor] = dict(
        itertools.chain(program.named_parameters(), program.named_buffers())
    )
    scores = [t for name, t in held.items() if name.endswith('cls_score.bias') and t.dim() == 1]
    classes = max(len(scores[0]) - 1, 0) if scores else 0
    plain = ExportedInput(
        layout='list_of_chw',
        color='rgb',
        scale=1.0,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        short_side=800,
        long_side=1333,
    )
    if any('backbone.body.' in name for name in held):
        inside = dataclasses.replace(plain, scale=1 / 255, short_side=0, long_side=65536)
        return _Family('torchvision', inside, classes, 'its layers have their names')
    means = [t for name, t in held.items() if name.endswith('pixel_mean') and t.numel() == 3]
    mean = [round(v, 3) for v in means[0].flatten().tolist()] if means else [0.0]
    if len(set(mean)) > 1 and all(map(math.isfinite, mean)):
        inside = dataclasses.replace(
            plain,
            color='rgb' if mean[0] > mean[2] else 'bgr',
            scale=1.0 if max(mean) > 1 else 1 / 255,
        )
        shown = ', '.join(f'{v:g}' for v in mean)
        return _Family('detectron2', inside, classes, f'its pixel_mean is {shown}')
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
    reasons: dict[str, list[str]] = {}
    for layout in _LAYOUTS.get(declared, _ALL_LAYOUTS):
        given = dataclasses.replace(family.input, layout=layout)
        try:
            found = [
                _recognise(
                    call_program(program, _probe(size_hw, given, device), layout, path),
                    layout,
                    size_hw,
                    path,
                )
                for size_hw in _PROBE_HW
            ]
            if (found[0].where, found[0].masks) != (found[1].where, found[1].masks):
                raise CheckpointError(
                    f'{path}: its outputs lie elsewhere, or are others, on another picture'
                )
        except CheckpointError as error:
            reason = one_line(str(error).removeprefix(f'{path}: '), 300)
            reasons.setdefault(reason, []).append(layout)
            tried.append(f'{layout}: {reason}')
            continue
        tried.append(f'{layout}: answered on two sizes')
        labels = frozenset.union(*(each.labels for each in found))
        return layout, dataclasses.replace(found[0], labels=labels)
    shown = '; '.join(f'{", ".join(layouts)}: {reason}' for reason, layouts in reasons.items())
    raise CheckpointError(
        f'{path}: no way of handing over an image worked: {shown}; one that was traced for one '
        'size, or answers otherwise, is described by hand (README, "TorchScript")'
    )


def _probe(size_hw: tuple[int, int], given: ExportedInput, device: torch.device) -> Tensor:
    """Return noise over coarse blocks: a network finds more in it than in noise alone."""
    generator = np.random.default_rng(size_hw[0])
    blocks = generator.integers(0, 200, (-(-size_hw[0] // 32), -(-size_hw[1] // 32), 3))
    pixels = blocks.repeat(32, 0).repeat(32, 1)[: size_hw[0], : size_hw[1]]
    pixels = pixels + generator.integers(0, 56, (*size_hw, 3))
    return exported_input(Image(pixels.astype(np.uint8), 'rgb'), size_hw, given).to(device)


def _recognise(answer: object, layout: Layout, image_hw: tuple[int, int], path: Path) -> _Outputs:
    """Tell boxes, scores, labels and masks apart.

    Raises:
        CheckpointError: one of them is not there, or there are several of a kind.
    """
    tensors = dict(_flatten(answer, ()))
    if layout == 'nchw' and any(t.dim() == 3 and t.shape[::2] == (1, 4) for t in tensors.values()):
        tensors = {place: t[0] for place, t in tensors.items() if t.dim() and len(t) == 1}
    for select in dict.fromkeys(place[:-1] for place in tensors):
        group = {p[-1]: t for p, t in tensors.items() if p[:-1] == select}
        places = {what: _candidates(what, group, image_hw) for what in _NAMES}
        if not all(places.values()):
            continue
        chosen = {what: _one_of(what, keys, path) for what, keys in places.items()}
        masks, labels = group[chosen['masks']], group[chosen['labels']]
        return _Outputs(
            ExportedOutput(select=select, **chosen),
            'pasted' if masks.shape[-2:] == image_hw else 'crops',
            frozenset(labels.long().tolist()),
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
        number = plain(answer)
        if place and number is not None:
            yield place, number
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
            'labels': tensor.dim() == 1 and not is_size and _is_whole(key, tensor),
            'masks': tensor.dim() == 3 or (tensor.dim() == 4 and tensor.shape[1] == 1),
        }
        if shape_fits[what]:
            keys.append(key)
    return [k for k in keys if k in _NAMES[what]] or keys


def _is_whole(key: int | str, tensor: Tensor) -> bool:
    """Tell whether numbers can be labels: integers, or what is called labels and has only such."""
    if not tensor.is_floating_point():
        return True
    return key in _NAMES['labels'] and bool((tensor == tensor.round()).all())


def _one_of(what: str, keys: Sequence[int | str], path: Path) -> int | str:
    if len(keys) > 1:
        raise CheckpointError(
            f'{path}: expected one output that can be {what}, found {len(keys)}: '
            f'{", ".join(map(str, keys))}; write the description by hand (README, "TorchScript")'
        )
    return keys[0]


def _by_pictures(
    runner: TorchScriptRunner,
    family: _Family,
    given: ExportedInput,
    pictures: Sequence[Image],
    device: torch.device,
    tried: list[str],
) -> tuple[ExportedInput, str, str]:
    """Return an input, and how its scale and its colour order are known.

    It is the one with which the most is found in pictures, by the sum of the scores above one
    half; where that is not clear, ``given``.
    """
    if not pictures:
        return given, f'{_ASSUMED}; --image shows it', f'{_ASSUMED}; --image shows it'
    sums = []
    for name, candidate in _inputs(family, given).items():
        total = sum(_confidence(runner, candidate, each, device) for each in pictures)
        tried.append(f'{name}: {total:.1f} in scores above one half')
        sums.append((total, candidate))
    best, chosen = max(sums, key=lambda entry: entry[0])
    scales = [total for total, each in sums if _numbers(each) != _numbers(chosen)]
    swapped = [
        total
        for total, each in sums
        if _numbers(each) == _numbers(chosen) and each.color != chosen.color
    ]
    unclear = f'{_ASSUMED}; the pictures do not show it'
    if best <= _CLEARLY * max(scales):
        return given, unclear, unclear
    scale = f'most is found so: {best:.1f}, else {max(scales):.1f}'
    color = f'most is found so: {best:.1f}, else {max(swapped, default=0.0):.1f}'
    return chosen, scale, color if best > _CLEARLY * max(swapped, default=0.0) else unclear


def _numbers(given: ExportedInput) -> tuple[float, ...]:
    """Return scale and normalisation, whatever the order of colours."""
    return (given.scale, *sorted(given.mean), *sorted(given.std))


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
    runner: TorchScriptRunner, given: ExportedInput, picture: Image, device: torch.device
) -> float:
    size_hw = resized_hw((picture.height, picture.width), given.short_side, given.long_side)
    try:
        found = runner.forward(exported_input(picture, size_hw, given).to(device), _CONFIDENT)
    except CheckpointError:
        return 0.0
    return float(found.scores.sum())


def _labels(
    family: _Family,
    class_names: tuple[str, ...],
    labels: Labels | None,
    seen: frozenset[int],
) -> tuple[Labels, int, str]:
    """Return what a label stands for, the number of classes and how they are known.

    Args:
        family: may tell both.
        class_names: of the user.
        labels: of the user.
        seen: labels that the program answered with.
    """
    if labels == 'coco_category_id':
        if class_names:
            raise ConfigError(
                '--class-names: expected none beside --labels coco_category_id, which has '
                f"COCO's, found {len(class_names)}"
            )
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
    if family.name:
        return 'index', classes, f'as {family.name} counts'
    if 0 in seen:
        return 'index', classes, 'it answered 0'
    if classes in seen:
        return 'index_from_1', classes, f'it answered {classes}'
    raise ConfigError(
        'expected labels that show whether the first class is 0 or 1, found '
        f'{sorted(seen)[:8] or "none"}: give --labels index or --labels index_from_1'
    )
