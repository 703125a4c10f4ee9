# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What runs a model, behind one interface; the engine asks no further what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from segnode.checkpoint import ExportedModel, Model, NullModel, TorchScriptModel
from segnode.config import Config
from segnode.engine.answers import Instances, Labelled
from segnode.engine.dynamic import DynamicBackend
from segnode.engine.network import NativeNetwork
from segnode.engine.null import NullBackend
from segnode.engine.settings import InferenceSettings
from segnode.engine.timing import StageClock
from segnode.engine.torchscript import TorchScriptBackend
from segnode.engine.torchscript_program import load_torchscript
from segnode.errors import ConfigError
from segnode.image import Image, Lend
from segnode.kernels.cpu import load_cpu_kernels
from segnode.model.architecture import Paste
from segnode.model.box_head import BoxDetections
from segnode.model.precision import choose_precision
from segnode.torch_features import missing_features


class Backend(Protocol):
    """A model on its device.

    Attributes:
        device: where it runs.
        precision: number format of the network.
        paste: whose mask paste belongs to it.
        gives_raw_masks: whether its masks lie in their boxes, and not in the image.
        lend: lends the memory from which frames are uploaded; None where there is no such.
    """

    device: torch.device
    precision: str
    paste: Paste
    gives_raw_masks: bool
    lend: Lend | None

    def defaults(self) -> InferenceSettings:
        """Return the settings of the model's own config."""
        ...

    def resized_hw(
        self, image_hw: tuple[int, int], settings: InferenceSettings
    ) -> tuple[int, int]:
        """Return the network's input size for an image, before padding."""
        ...

    def check(self, settings: InferenceSettings) -> None:
        """Raise ConfigError where a setting has no meaning for this model."""
        ...

    def label(
        self,
        images: Sequence[Image],
        settings: InferenceSettings,
        clock: StageClock,
        *,
        raw_masks: bool,
    ) -> list[Labelled]:
        """Return detections and label image of each of several images of one size.

        ``raw_masks`` asks for the network's own masks as well.
        """
        ...

    def run(
        self, images: Sequence[Image], settings: InferenceSettings, clock: StageClock
    ) -> list[Instances]:
        """Return detections and mask probabilities of each of several images of one size."""
        ...

    def replace_detections(self, replace: Callable[[BoxDetections], BoxDetections] | None) -> None:
        """Have ``replace`` answer in place of the box head; None ends it.

        Raises:
            ConfigError: there is no box head to get at.
        """
        ...

    def prepare(self, settings: InferenceSettings) -> None:
        """Build what the sizes in use need under other settings, beside running frames."""
        ...

    def reserve(self, paths: int) -> None:
        """Keep what is built for so many image sizes, resolutions and numbers of frames."""
        ...

    def clear(self) -> None:
        """Give memory back that can be had again."""
        ...

    def describe(self) -> dict[str, str]:
        """Return how frames are run on a GPU, for people."""
        ...


def open_backend(
    model: Model,
    config: Config,
    device: torch.device,
    report: Callable[[str], None],
    *,
    static: bool,
) -> Backend:
    """Put a model on a device.

    Args:
        model: what was loaded.
        config: gives precision, and whether the device was chosen.
        device: where it is wanted.
        report: is told in a line what is being done.
        static: run the fixed shapes of a stop-free device on any device.

    Raises:
        CheckpointError: an exported program cannot be loaded.
        ConfigError: the precision does not fit the model, or its engine is not installed.
    """
    if isinstance(model, NullModel):
        _load_cpu_kernels(report)
        return NullBackend(model)
    if isinstance(model, TorchScriptModel):
        if config.precision != 'auto':
            raise ConfigError(
                'precision: expected auto, as an exported model has its own number format '
                f'inside, found {config.precision}'
            )
        if config.device == 'auto' and model.description.quantized_engine:
            device = torch.device('cpu')  # PyTorch's quantized kernels are CPU only
        runner = load_torchscript(model, device)
        if norms := runner.training_norms():
            report(
                f'{norms} batch norms of the program were exported in training mode, and follow '
                'each image; export it after model.eval()'
            )
        return TorchScriptBackend(model, runner, device)
    if isinstance(model, ExportedModel):
        # Here, as it imports the library of another engine.
        from segnode.engine.exported import open_exported

        _load_cpu_kernels(report)
        return open_exported(model, report)
    if config.precision == 'int8':
        raise ConfigError(
            f'precision: expected auto, fp16, bf16 or fp32 for model {model.name!r}, found int8; '
            'make a folder for it by `segnode export --precision int8`'
        )
    for feature in missing_features('cuda' if device.type == 'cuda' else 'cpu'):
        report(feature.line())
    precision = choose_precision(config.precision, device)
    network = NativeNetwork(model.architecture, model.state_dict, device, precision)
    if network.float32_layers:
        report(
            f'{len(network.float32_layers)} layers stay in fp32, as their numbers do not '
            f'fit in {precision}: {", ".join(network.float32_layers)}'
        )
    if device.type == 'cpu':
        _load_cpu_kernels(report)
    if not static and device.type != 'cuda':
        return DynamicBackend(network)
    # Here, as a CPU that runs the dynamic path needs neither.
    from segnode.engine.static import StaticBackend
    from segnode.kernels.operators import select_operators

    return StaticBackend(network, select_operators(device), report)


def _load_cpu_kernels(report: Callable[[str], None]) -> None:
    if isinstance(reason := load_cpu_kernels(), str):
        report(f'no compiled CPU kernels ({reason}): resize, RoIAlign and paste are slow')
