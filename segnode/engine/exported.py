# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The dense parts of an exported folder, as the network's own path runs them.

What decides the answer (selection, NMS, RoIAlign, paste, filters) is the same code as for a native
model; an engine gets convolutions and products alone. Programs take and give maps as (N, H, W, C),
which is how RoIAlign reads them and what it writes, so that nothing is reordered between.

Shapes: N images, R RoIs, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segnode.checkpoint.exported import BACKENDS, MANIFEST, ExportedModel, ExportedPart, Format
from segnode.checkpoint.message import one_line
from segnode.engine.dynamic import DynamicBackend
from segnode.engine.network import NativeNetwork
from segnode.engine.settings import InferenceSettings
from segnode.errors import CheckpointError, ConfigError
from segnode.model.architecture import Architecture
from segnode.model.steps import Mark, Parts, Trunk

Array: TypeAlias = npt.NDArray[np.float32]
# A side that is None may be any.
Shape: TypeAlias = tuple[int | None, ...]

# Parts of a Mask R-CNN besides its trunk.
_HEADS: Final = ('box_head.0', 'mask_head')
# What building a network of numbers that do not go together raises.
_MISFIT: Final = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)


class Program(Protocol):
    """One part, loaded by its engine.

    Attributes:
        takes: shape of its input; empty where it has not one of a fixed number of sides.
        gives: shapes of its outputs.
        quantised: whether any of it is in INT8.
    """

    @property
    def takes(self) -> Shape: ...  # noqa: D102

    @property
    def gives(self) -> tuple[Shape, ...]: ...  # noqa: D102

    @property
    def quantised(self) -> bool: ...  # noqa: D102

    def reserve(self, sizes: int) -> None:
        """Keep what is built for so many sizes of input."""
        ...

    def clear(self) -> None:
        """Give memory back that can be had again."""
        ...

    def __call__(self, x: Array) -> Sequence[Array]:
        """Map an input to the outputs, in the engine's memory: valid until the next call.

        Raises:
            MemoryError: the engine has none left.
            ProgramError: it failed otherwise.
        """
        ...


def open_exported(model: ExportedModel, report: Callable[[str], None]) -> ExportedBackend:
    """Load the programs of an exported folder into their engine.

    Args:
        model: what was read of the folder.
        report: is told in a line what runs it.

    Raises:
        CheckpointError: the parts are not those of the architecture, or the engine refuses one.
        ConfigError: the engine is not installed.
        OutOfMemoryError: there is no room for them.
    """
    _check_parts(model)
    load = select_engine(model.format, model.precision, report)
    programs: list[Program] = []
    for part in model.parts:
        programs.append(load(part))
        _check_shapes(part, programs[-1], model.architecture)
    _check_precision(model, programs)
    parts = _ExportedParts(model, programs)
    cpu = torch.device('cpu')
    try:
        network = NativeNetwork(
            model.architecture, {}, cpu, model.precision, programs=parts.for_a_frame
        )
    except _MISFIT as error:
        raise CheckpointError(
            f'{model.weights_path / MANIFEST}: expected an architecture that there is, found one '
            f'that cannot be built ({one_line(error)}); export the model again'
        ) from None
    return ExportedBackend(network, model, programs)


class ExportedBackend(DynamicBackend):
    """The path of a CPU, over programs."""

    def __init__(
        self, network: NativeNetwork, model: ExportedModel, programs: Sequence[Program]
    ) -> None:
        """Take a network over programs, and these."""
        super().__init__(network)
        self._model, self._programs = model, programs

    def check(self, settings: InferenceSettings) -> None:
        """Raise ConfigError for sides with which no image makes an input of the folder's sizes."""
        a, shapes = self._model.architecture, self._model.shapes
        sides = (settings.short_side, settings.long_side)
        if shapes and not any(_can_be_made(hw, *sides, a.size_divisibility) for hw in shapes):
            sizes = ', '.join(f'{h}x{w}' for h, w in shapes)
            raise ConfigError(
                f'resolution: expected sides that make a network input of {sizes}, for which '
                f'{self._model.weights_path} was exported, as short_side {a.short_side} and '
                f'long_side {a.long_side} do, found {sides[0]} and {sides[1]}; export the model '
                'again for others'
            )

    def reserve(self, paths: int) -> None:
        """Keep so many sizes compiled."""
        for program in self._programs:
            program.reserve(paths)

    def clear(self) -> None:
        """Drop what is held between frames, which is had again when it is wanted."""
        for program in self._programs:
            program.clear()


def _can_be_made(padded_hw: tuple[int, int], short: int, long: int, unit: int) -> bool:
    """Return whether an image of some size makes a padded input; a short side of 0 keeps any."""
    low, high = sorted(padded_hw)
    # torchvision rounds a side down, which may give a pixel less.
    shorts, longs = ({x + -x % unit for x in (side - 1, side)} for side in (short, long))
    of_short = low in shorts and high <= max(longs)
    return not short or of_short or (high in longs and low <= max(shorts))


def select_engine(
    form: Format, precision: str, report: Callable[[str], None]
) -> Callable[[ExportedPart], Program]:
    """Return what loads a part into the engine of a format.

    Raises:
        ConfigError: the engine is not installed.
    """
    backend = BACKENDS[form]
    try:
        if form == 'openvino':
            from segnode.engine.openvino_program import OpenVINO

            return OpenVINO(precision, report).open
        from segnode.engine.onnxruntime_program import ONNXRuntime

        return ONNXRuntime(report).open
    except ImportError as error:
        raise ConfigError(
            f'backend {backend}: expected the Python package {backend}, which cannot '
            f'be imported here ({error}); `pip install {backend}`, or install segnode with '
            f'its extra [{backend}]'
        ) from None


def _check_parts(model: ExportedModel) -> None:
    """Make sure that every part is there once, a trunk for each of the sizes, and no other.

    Raises:
        CheckpointError: it is otherwise.
    """
    found = [(part.name, part.network_hw) for part in model.parts]
    if unknown := [name for name, _ in found if name not in ('trunk', *_HEADS)]:
        raise CheckpointError(
            f'{model.weights_path}: part {one_line(unknown[0])} is not of this version; export '
            'the model again'
        )
    trunks = {('trunk', hw) for hw in model.shapes or (None,)}
    expected = trunks | {(name, None) for name in _HEADS}
    if set(found) != expected or len(found) > len(expected):
        names = (f'{name} {hw[0]}x{hw[1]}' if hw else name for name, hw in found)
        sizes = ', '.join(f'{h}x{w}' for h, w in model.shapes) or 'any size'
        raise CheckpointError(
            f'{model.weights_path}: expected the parts trunk, box_head.0 and mask_head, each '
            f'once, for {sizes}, found {one_line(", ".join(names) or "none")}; export the model '
            'again'
        )


def _check_precision(model: ExportedModel, programs: Iterable[Program]) -> None:
    """Make sure that programs are in INT8 exactly where the manifest says so.

    Raises:
        CheckpointError: they are not.
    """
    quantised = any(program.quantised for program in programs)
    if quantised != (model.precision == 'int8'):
        found = 'those of int8' if quantised else 'none that is quantised'
        raise CheckpointError(
            f'{model.weights_path}: expected programs of {model.precision}, as the manifest says, '
            f'found {found}; export the model again'
        )


def _check_shapes(part: ExportedPart, program: Program, a: Architecture) -> None:
    """Make sure that a program is one of the architecture, as far as shapes tell.

    Raises:
        CheckpointError: it is not.
    """
    takes, gives = _expected_shapes(part, a)
    found, expected = (program.takes, *program.gives), (takes, *gives)
    if len(found) == len(expected) and all(map(_fits, found, expected)):
        return
    raise CheckpointError(
        f"{part.path}: expected the {part.name} of the manifest's architecture, with input and "
        f'outputs {_shown(expected)}, found {_shown(found)}; export the model again'
    )


def _expected_shapes(part: ExportedPart, a: Architecture) -> tuple[Shape, tuple[Shape, ...]]:
    channels = a.fpn_channels
    if part.name == 'mask_head':
        side, masks = a.mask_pooler.resolution, 1 if a.mask_cls_agnostic else a.num_classes
        return (None, side, side, channels), ((None, masks, a.mask_side, a.mask_side),)
    if part.name != 'trunk':
        side, boxes = a.box_pooler.resolution, 1 if a.box_cls_agnostic else a.num_classes
        return (None, side, side, channels), ((None, a.num_classes + 1), (None, 4 * boxes))
    hw = part.network_hw or (None, None)
    sides: list[tuple[int | None, int | None]] = [(None, None)] * len(a.strides)
    if part.network_hw:
        sides = list(a.feature_hw(part.network_hw))
    anchors = [len(s) * len(r) for s, r in zip(a.anchor_sizes, a.anchor_ratios, strict=True)]
    widths = [[channels] * len(anchors), anchors, [4 * count for count in anchors]]
    return (1, *hw, 3), tuple(
        (1, *side, width) for kind in widths for side, width in zip(sides, kind, strict=True)
    )


def _fits(found: Shape, expected: Shape) -> bool:
    return len(found) == len(expected) and all(
        None in pair or pair[0] == pair[1] for pair in zip(found, expected, strict=True)
    )


def _shown(shapes: Sequence[Shape]) -> str:
    texts = ('x'.join('?' if side is None else str(side) for side in s) for s in shapes)
    return ', '.join(texts)[:200]


class _ExportedParts:
    """The programs of one model, with the parts' own signatures."""

    def __init__(self, model: ExportedModel, programs: Sequence[Program]) -> None:
        """Take a program for each of the model's parts."""
        loaded = list(zip(model.parts, programs, strict=True))
        heads = {part.name: program for part, program in loaded}
        self._model = model
        self._trunks = {
            part.network_hw: program for part, program in loaded if part.name == 'trunk'
        }
        self._boxes = (self._box_head(heads['box_head.0']),)
        self._masks = heads['mask_head']

    def for_a_frame(self, mark: Mark) -> Parts:
        """Return the parts; the trunk is one program, so that ``backbone`` has all its time."""

        def trunk(x: Tensor) -> Trunk:
            found = self._trunk(x)
            mark('backbone')
            return found

        return Parts(trunk, self._boxes, self._mask_head)

    def _trunk(self, x: Tensor) -> Trunk:
        """Map (N, 3, H, W) to maps; those of one image are the engine's own memory."""
        run = self._trunk_for((x.shape[-2], x.shape[-1]))
        images = _channels_last(x)
        outputs: list[Tensor] = []
        for n in range(len(images)):
            found = run(images[n : n + 1])
            if len(images) == 1:
                outputs = [torch.from_numpy(each) for each in found]
                break
            if not outputs:
                outputs = [torch.empty((len(images), *each.shape[1:])) for each in found]
            for whole, each in zip(outputs, found, strict=True):
                whole[n] = torch.from_numpy(each[0])
        self._check_maps((x.shape[-2], x.shape[-1]), outputs)
        levels = len(self._model.architecture.strides)
        maps, logits, deltas = (outputs[i * levels : (i + 1) * levels] for i in range(3))
        return Trunk(
            [each.permute(0, 3, 1, 2) for each in maps],
            [each.flatten(1) for each in logits],
            [each.reshape(len(each), -1, 4) for each in deltas],
        )

    def _check_maps(self, network_hw: tuple[int, int], maps: Sequence[Tensor]) -> None:
        """Raise CheckpointError for maps of other sizes, as a program for any tells none."""
        found = [(each.shape[1], each.shape[2]) for each in maps]
        expected = self._model.architecture.feature_hw(network_hw)
        if found != 3 * expected:
            raise CheckpointError(
                f"{self._model.weights_path}: expected maps of the manifest's strides, "
                f'{_shown(expected)}, found {_shown(list(dict.fromkeys(found)))}; export the '
                'model again'
            )

    def _trunk_for(self, network_hw: tuple[int, int]) -> Program:
        found = self._trunks.get(network_hw, self._trunks.get(None))
        if found is None:
            sizes = ', '.join(f'{h}x{w}' for h, w in self._model.shapes)
            raise ConfigError(
                f'resolution: expected an image that makes a network input of {sizes}, for which '
                f'{self._model.weights_path} was exported, found {network_hw[0]}x{network_hw[1]}; '
                'export the model again with --shapes of this image'
            )
        return found

    def _box_head(self, run: Program) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        def box_head(pooled: Tensor) -> tuple[Tensor, Tensor]:
            # Engines differ in what they make of no rows: one is run, and dropped.
            some = pooled if len(pooled) else pooled.new_zeros((1, *pooled.shape[1:]))
            scores, deltas = (torch.from_numpy(each) for each in run(_channels_last(some)))
            return scores[: len(pooled)], deltas[: len(pooled)]

        return box_head

    def _mask_head(self, pooled: Tensor) -> Tensor:
        (logits,) = self._masks(_channels_last(pooled))
        return torch.from_numpy(logits)


def _channels_last(x: Tensor) -> Array:
    """Return (N, C, H, W) float32 as (N, H, W, C), without a copy where it lies so."""
    array: Array = x.float().permute(0, 2, 3, 1).contiguous().numpy()
    return array
