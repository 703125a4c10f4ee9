# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a loaded model consists of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from segnode.model.architecture import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeModel:
    """A Mask R-CNN that segnode runs itself.

    Attributes:
        architecture: the network.
        state_dict: every tensor of ``MaskRCNN(architecture)``, float32, finite; Detectron2's names
            and class order (background last).
        class_names: one for each foreground class.
        category_ids: COCO's category ids where the classes are COCO's, else None.
        name: preset or file name, for people.
        weights_path: the file that the weights came from.
        weights_sha256: hexadecimal digest of that file.
        licence: of the weights, empty where it is not known.
    """

    architecture: Architecture
    state_dict: dict[str, Tensor]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...] | None
    name: str
    weights_path: Path
    weights_sha256: str
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedInput:
    """What an exported network takes.

    Attributes:
        layout: ``list_of_chw``: a list with one (3, H, W) float32 tensor.
        color: order of the channels.
        scale: factor on pixel values of 0..255; ``mean`` and ``std`` apply after it.
        mean: by channel, subtracted.
        std: by channel, divided by.
        short_side: of the resized image, pixels.
        long_side: upper bound, pixels.
    """

    layout: Literal['list_of_chw']
    color: Literal['bgr', 'rgb']
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    short_side: int
    long_side: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedOutput:
    """Where an exported network's answer lies.

    Attributes:
        select: indices, one after the other, that lead to the dictionary of outputs.
        boxes: its key of (N, 4) float, xyxy, resized pixels.
        scores: its key of (N,) float.
        labels: its key of (N,) integers.
        masks: its key of (N, 1, M, M) float probabilities.
    """

    select: tuple[int, ...]
    boxes: str
    scores: str
    labels: str
    masks: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """What an exported model's file does not say itself; see ``torchscript.read_description``.

    Attributes:
        weights: the TorchScript file, relative to the description.
        quantized_engine: ``torch.backends.quantized.engine``, empty to leave it.
        input: what the network takes.
        output: what it answers.
        labels: ``coco_category_id``: label values are COCO's sparse ids; ``index``: 0-based
            positions among the class names.
        paste: whose mask paste the model was scored with.
    """

    weights: str
    quantized_engine: str
    input: ExportedInput
    output: ExportedOutput
    labels: Literal['coco_category_id', 'index']
    paste: Literal['detectron2', 'torchvision']


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchScriptModel:
    """An exported Mask R-CNN, not yet loaded: loading it would run its code.

    Attributes:
        description: how to talk to it.
        class_names: one for each class.
        category_ids: COCO's category ids where the classes are COCO's, else None.
        name: file name of the program, for people.
        weights_path: the TorchScript file.
        weights_sha256: hexadecimal digest of that file.
    """

    description: ModelDescription
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...] | None
    name: str
    weights_path: Path
    weights_sha256: str
