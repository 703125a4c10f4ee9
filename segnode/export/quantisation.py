# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""INT8 by NNCF: post-training, weights a channel each, ranges from a user's own pictures.

Shapes: N images, R RoIs, S side of what is pooled, C channels.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnode.checkpoint import NativeModel
from segnode.checkpoint.exported import Format
from segnode.engine.dynamic import DynamicBackend
from segnode.engine.network import NativeNetwork
from segnode.engine.settings import InferenceSettings
from segnode.engine.timing import StageClock
from segnode.errors import ConfigError
from segnode.export.parts import PartProgram
from segnode.export.programs import quiet
from segnode.image import Image
from segnode.kernels.preprocess import preprocess
from segnode.model.precision import RANKING_LAYERS
from segnode.model.steps import Mark, Parts, Trunk

# RoIs of a picture that are kept for the heads' ranges: hundreds of megabytes are enough.
BOX_ROIS: Final = 48
MASK_ROIS: Final = 12
_BITS: Final = 8

Array = npt.NDArray[np.float32]


@dataclass(slots=True)
class Samples:
    """What the parts were given, channels last.

    Attributes:
        pictures: images (1, H, W, 3) for the trunk are made of these when they are wanted.
        pooled: by part, (R, S, S, C) float32 a picture.
    """

    pictures: Sequence[Image]
    pooled: dict[str, list[Array]] = field(default_factory=dict)


def gather_samples(
    model: NativeModel,
    settings: InferenceSettings,
    pictures: Sequence[Image],
    progress: Callable[[Iterable[Image]], Iterable[Image]],
) -> Samples:
    """Run the native network in float32 on pictures, and keep what its heads are given.

    Args:
        model: to run.
        settings: its own; the best few detections get a mask, however low their score.
        pictures: to run on.
        progress: goes through pictures and shows it.
    """
    cpu, samples = torch.device('cpu'), Samples(pictures)
    native = NativeNetwork(model.architecture, model.state_dict, cpu)
    parts = native.model.parts(lambda _: None)

    def keep(name: str, pooled: Tensor, most: int) -> None:
        if len(pooled):
            places = torch.linspace(0, len(pooled) - 1, min(most, len(pooled))).long()
            rows = pooled[places].permute(0, 2, 3, 1).contiguous().numpy()
            samples.pooled.setdefault(name, []).append(rows)

    def watched(stage: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        def box_head(pooled: Tensor) -> tuple[Tensor, Tensor]:
            keep(f'box_head.{stage}', pooled, BOX_ROIS)
            return parts.box_heads[stage](pooled)

        return box_head

    def mask_head(pooled: Tensor) -> Tensor:
        keep('mask_head', pooled, MASK_ROIS)
        return parts.mask_head(pooled)

    boxes = tuple(watched(stage) for stage in range(len(parts.box_heads)))

    def programs(_: Mark) -> Parts:
        return Parts(_plain(parts.trunk), boxes, mask_head)

    watching = NativeNetwork(model.architecture, {}, cpu, programs=programs)
    backend = DynamicBackend(watching)
    for picture in progress(pictures):
        backend.run([picture], settings, StageClock())
    return samples


def _plain(trunk: Callable[[Tensor], Trunk]) -> Callable[[Tensor], Trunk]:
    return trunk


def trunk_input(picture: Image, model: NativeModel, size_hw: tuple[int, int]) -> Array:
    """Return what the trunk is given for a picture: (1, H, W, 3) float32."""
    x = preprocess(picture, size_hw, model.architecture)[None]
    array: Array = x.permute(0, 2, 3, 1).contiguous().numpy()
    return array


def ranking_layers(layers: Iterable[str]) -> list[str]:
    """Return those that give scores and box deltas: they cost nothing, and rank in float32."""
    return [name for name in layers if name.partition('#')[0].endswith(RANKING_LAYERS)]


def load_nncf() -> Any:
    """Return the library that quantises.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with quiet():
            # Its telemetry is OpenVINO's, and needs stopping even for ONNX.
            sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
            import nncf
    except ImportError as error:
        raise ConfigError(
            f'--precision int8: expected the Python package nncf, which cannot be imported here '
            f'({error}); `pip install nncf`, or install segnode with its extra [export]'
        ) from None
    return nncf


def quantise(
    form: Format,
    converted: Any,
    data: Sequence[Any],
    make_input: Callable[[Any], Array],
    kept: Sequence[str],
) -> Any:
    """Return a converted part in INT8.

    Args:
        form: of the part.
        converted: float32, as a writer gave it.
        data: what ``make_input`` makes inputs of.
        make_input: gives one input of the part.
        kept: names of the layers that stay float32.
    """
    nncf = load_nncf()
    name = converted.graph.input[0].name if form == 'onnx' else ''
    dataset = nncf.Dataset(
        data, lambda item: {name: make_input(item)} if form == 'onnx' else make_input(item)
    )
    with quiet():
        nncf.set_log_level(40)
        return nncf.quantize(
            copy.deepcopy(converted) if form == 'onnx' else converted.clone(),
            dataset,
            subset_size=len(data),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            ignored_scope=nncf.IgnoredScope(names=list(kept), validate=False),
        )


@torch.inference_mode()
def noise_by_layer(part: PartProgram, inputs: Iterable[Array]) -> dict[str, float]:
    """Return how much rounding to 8 bits disturbs each layer's output, relative to its size.

    Weights are rounded a channel each, inputs as a whole, as in INT8.

    Args:
        part: its module, float32.
        inputs: a few of the part's inputs.
    """
    noise: dict[str, list[float]] = {}
    modules: Mapping[str, nn.Module] = dict(part.module.named_modules())
    wanted = {name.partition('#')[0] for name in part.layers.values()}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...], _: Any) -> None:
            x, weight = arguments[0].float(), module.get_parameter('weight')
            channel = 1 if isinstance(module, nn.ConvTranspose2d) else 0
            exact = _apply(module, x, weight)
            rounded = _apply(module, _rounded(x, None), _rounded(weight, channel))
            error = (rounded - exact).square().sum() / exact.square().sum().clamp(min=1e-12)
            noise.setdefault(name, []).append(float(error))

        return hook

    hooks = [modules[name].register_forward_hook(watch(name)) for name in sorted(wanted)]
    try:
        for x in inputs:
            part.module(torch.from_numpy(x))
    finally:
        for each in hooks:
            each.remove()
    return {name: float(np.mean(values)) for name, values in noise.items()}


def _apply(module: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    if isinstance(module, nn.Linear):
        return F.linear(x, weight)
    if isinstance(module, nn.ConvTranspose2d):
        return F.conv_transpose2d(x, weight, None, module.stride, module.padding)  # type: ignore[arg-type]
    assert isinstance(module, nn.Conv2d)
    return F.conv2d(x, weight, None, module.stride, module.padding, module.dilation, module.groups)


def _rounded(x: Tensor, channel: int | None) -> Tensor:
    """Return what is left of numbers that 8 bits hold, symmetric, one scale (a channel)."""
    dims = [dim for dim in range(x.ndim) if channel is None or dim != channel]
    largest = x.abs().amax(dims, keepdim=True).clamp(min=1e-12)
    levels = 2**_BITS - 1 if channel is None and bool((x >= 0).all()) else 2 ** (_BITS - 1) - 1
    step = largest / levels
    return (x / step).round() * step
