# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a loaded model consists of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

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
class NullModel:
    """No network: fixed instances stand for its answer, and a wait for its work.

    Attributes:
        class_names: one for each class.
        category_ids: None, as the classes are nobody's.
        name: ``null``, or ``null:MS`` as the user wrote it.
        weights_path: says that there are none, where people look for a file.
        weights_sha256: says the same.
        wait_ms: milliseconds a frame that a network would take on a device of its own.
    """

    class_names: tuple[str, ...]
    category_ids: None
    name: str
    weights_path: Path
    weights_sha256: str
    wait_ms: float


# How an exported network takes its one image, a (3, H, W) float32 tensor: in a list, as it is,
# with a batch dimension, or in a list of one dictionary under ``image``.
Layout: TypeAlias = Literal['list_of_chw', 'chw', 'nchw', 'list_of_dict']
# What a label stands for: one of COCO's sparse ids, or the position of its name, from 0 or from 1.
Labels: TypeAlias = Literal['coco_category_id', 'index', 'index_from_1']
# What a mask is: M x M probabilities to be pasted into its box, or the whole input's mask.
Masks: TypeAlias = Literal['crops', 'pasted']


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedInput:
    """What an exported network takes.

    Attributes:
        layout: how the image is handed over.
        color: order of the channels.
        scale: factor on pixel values of 0..255; ``mean`` and ``std`` apply after it.
        mean: by channel, subtracted.
        std: by channel, divided by.
        short_side: of the resized image, pixels; 0 leaves the size to the program.
        long_side: upper bound, pixels; without a meaning where ``short_side`` is 0.
    """

    layout: Layout
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
        select: keys and indices, one after the other, that lead to the outputs.
        boxes: key or number of (N, 4) float, xyxy, pixels of the input.
        scores: of (N,) float, 0 to 1.
        labels: of (N,) integers.
        masks: of (N, 1, M, M) or (N, M, M) float, 0 to 1; pasted, (N, 1, H, W) or (N, H, W), float
            or bool.
    """

    select: tuple[int | str, ...]
    boxes: int | str
    scores: int | str
    labels: int | str
    masks: int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """What an exported model's file does not say itself; see ``torchscript.read_description``.

    Attributes:
        weights: the TorchScript file, relative to the description.
        quantized_engine: ``torch.backends.quantized.engine``, empty to leave it.
        input: what the network takes.
        output: what it answers.
        labels: what a label stands for.
        class_names: of the classes that labels count; empty where the description has none.
        classes: their number, 0 where only the names tell it.
        masks: what a mask is.
        paste: whose paste belongs to the model: how crops are pasted, and whether the threshold
            itself sets a pixel.
    """

    weights: str
    quantized_engine: str
    input: ExportedInput
    output: ExportedOutput
    labels: Labels
    class_names: tuple[str, ...]
    classes: int
    masks: Masks
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
