# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The dense parts of a network as ``torch.export`` programs, by name.

Shapes: N images, R RoIs, L levels, A anchors a location, C channels or classes, S side of what is
pooled, M side of a mask, F numbers of an RoI.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from segnode.errors import ConfigError, first_line
from segnode.model.architecture import Architecture, Pooler
from segnode.model.backbone_specs import SwinSpec
from segnode.model.mask_rcnn import MaskRCNN

# Rows of what heads are traced with; 0 and 1 would be taken for fixed.
_ROIS: Final = 4
# Of a padded input, in units of what its sides are multiples of.
_TRACED_HW: Final = (5, 7)
_MOST: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class PartProgram:
    """One part, traced.

    Attributes:
        name: ``trunk``, ``box_head.0`` or ``mask_head``.
        network_hw: H and W of the padded input that it is bound to, None for any.
        program: float32, of one input: images (1, H, W, 3) or pooled RoIs (R, S, S, C).
        module: what was traced.
        outputs: names, in order.
        layers: names of the convolutions and products, by the name that OpenVINO gives a call.
    """

    name: str
    network_hw: tuple[int, int] | None
    program: torch.export.ExportedProgram
    module: nn.Module
    outputs: tuple[str, ...]
    layers: Mapping[str, str]

    @property
    def file_stem(self) -> str:
        """Name of its file without a suffix."""
        size = '' if self.network_hw is None else '_{}x{}'.format(*self.network_hw)
        return self.name.replace('.', '_') + size


class _Trunk(nn.Module):
    """Backbone, pyramid and RPN, channels last on both sides."""

    def __init__(self, model: MaskRCNN) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.rpn_head = model.proposal_generator.rpn_head

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map (1, H, W, 3) to L maps (1, h, w, C), L of (1, h, w, A) and L of (1, h, w, 4 A)."""
        features = self.backbone(images.permute(0, 3, 1, 2))
        logits, deltas = self.rpn_head.maps(features)
        return tuple(x.permute(0, 2, 3, 1) for x in (*features, *logits, *deltas))


class _BoxHead(nn.Module):
    """Box head and predictor."""

    def __init__(self, head: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.box_head = head
        self.box_predictor = predictor

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Map (R, S, S, C) to logits (R, C + 1) and deltas (R, 4 or 4 C)."""
        logits, deltas = self.box_predictor(self.box_head(pooled.permute(0, 3, 1, 2)))
        return logits, deltas


class _MaskHead(nn.Module):
    """Mask head."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.mask_head = head

    def forward(self, pooled: Tensor) -> Tensor:
        """Map (R, S, S, C) to logits (R, C or 1, M, M)."""
        logits: Tensor = self.mask_head(pooled.permute(0, 3, 1, 2))
        return logits


def trace_parts(
    model: MaskRCNN,
    shapes: Sequence[tuple[int, int]],
    report: Callable[[str], None],
) -> list[PartProgram]:
    """Trace every part.

    Args:
        model: float32, batch norms folded; its box head is set to channels_last here.
        shapes: H and W of the padded inputs, empty for any.
        report: is told what is traced.

    Raises:
        ConfigError: the network cannot be traced for inputs of any size.
    """
    architecture, heads = model.architecture, model.roi_heads
    heads.box_head.expect_channels_last()
    levels = range(len(architecture.strides))
    names = tuple(f'{kind}.{n}' for kind in ('features', 'logits', 'deltas') for n in levels)
    parts = [
        _trace_trunk(_Trunk(model).eval(), architecture, hw, names, report)
        for hw in _sizes(shapes)
    ]
    channels = architecture.fpn_channels

    def head(name: str, module: nn.Module, pooler: Pooler, outputs: tuple[str, ...]) -> None:
        report(f'tracing {name}')
        side = pooler.resolution
        example = torch.zeros((_ROIS, side, side, channels))
        rows = ({0: torch.export.Dim('rois', min=1, max=65536)},)
        program = _trace(module.eval(), example, rows)
        parts.append(_part(name, None, program, module, outputs))

    box = _BoxHead(heads.box_head, heads.box_predictor)
    head('box_head.0', box, architecture.box_pooler, ('logits', 'deltas'))
    head('mask_head', _MaskHead(heads.mask_head), architecture.mask_pooler, ('logits',))
    return parts


def _sizes(shapes: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int] | None]:
    return shapes or [None]


def _trace_trunk(
    module: nn.Module,
    architecture: Architecture,
    network_hw: tuple[int, int] | None,
    outputs: tuple[str, ...],
    report: Callable[[str], None],
) -> PartProgram:
    if network_hw is None and isinstance(architecture.backbone, SwinSpec):
        raise ConfigError(
            '--shapes: expected sizes of image for a Swin Transformer, whose windows depend on '
            'them, found none'
        )
    if network_hw is not None:
        report('tracing the trunk for {}x{}'.format(*network_hw))
        program = _trace(module, torch.zeros((1, *network_hw, 3)), None)
        return _part('trunk', network_hw, program, module, outputs)
    report('tracing the trunk for any size')
    unit = max(architecture.size_divisibility, 32)
    example = torch.zeros((1, *(unit * n for n in _TRACED_HW), 3))
    sides = {
        dim: unit * torch.export.Dim(name, min=1, max=_MOST)
        for dim, name in ((1, 'rows'), (2, 'columns'))
    }
    try:
        program = _trace(module, example, (sides,))
    except Exception as error:  # noqa: BLE001 - tracing raises what the traced code does
        raise ConfigError(
            f'--shapes: expected sizes of image for this backbone, which cannot be exported for '
            f'any ({first_line(error)[:120]}); found none'
        ) from None
    return _part('trunk', None, program, module, outputs)


def _trace(
    module: nn.Module, example: Tensor, sides: tuple[dict[int, Any], ...] | None
) -> torch.export.ExportedProgram:
    # Dynamo, which PyTorch took until 2.6 unless told otherwise, does not know all of the code.
    return torch.export.export(module, (example,), dynamic_shapes=sides, strict=False)


def _part(
    name: str,
    network_hw: tuple[int, int] | None,
    program: torch.export.ExportedProgram,
    module: nn.Module,
    outputs: tuple[str, ...],
) -> PartProgram:
    return PartProgram(
        name=name,
        network_hw=network_hw,
        program=program,
        module=module,
        outputs=outputs,
        layers=_layers(program),
    )


def _layers(program: torch.export.ExportedProgram) -> dict[str, str]:
    """Return what has weights and multiplies, by the names that OpenVINO gives the calls.

    A layer that is called once a level is named ``layer``, ``layer#1`` and so on.
    """
    stored: dict[str, Any] = {**program.graph_signature.inputs_to_parameters}
    calls: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    names = {}
    for node in program.graph.nodes:
        kind = _LAYERS.get(node.target) if node.op == 'call_function' else None
        if kind is None:
            continue
        call = f'{kind}_{calls[kind]}' if calls[kind] else kind
        calls[kind] += 1
        weight = stored.get(getattr(node.args[1], 'name', ''))
        if weight is not None:
            layer = weight.removesuffix('.weight')
            names[call] = f'{layer}#{seen[layer]}' if seen[layer] else layer
            seen[layer] += 1
    return names


_LAYERS: Final = {
    torch.ops.aten.conv2d.default: 'convolution',
    torch.ops.aten.conv_transpose2d.input: 'convolution',
    torch.ops.aten.linear.default: 'linear',
}
