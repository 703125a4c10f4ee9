# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Two parts on their own: a camera frame to the network's input, and masks to one label image.

Shapes: D masks, M side of a mask, H and W of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from segnode.benchmark.contenders import LEAST_AGREEMENT
from segnode.benchmark.measure import Spread, paired_ratio, time_rounds
from segnode.benchmark.oracle import import_detectron2
from segnode.benchmark.planted import PlantedDetections, named_architecture, render_frames
from segnode.benchmark.references import merge_masks
from segnode.benchmark.request import Request
from segnode.benchmark.rows import PartRow
from segnode.config import Config
from segnode.engine.null import blob_masks
from segnode.errors import ConfigError, MeasurementError
from segnode.kernels.mask_crops import label_image, paste_masks
from segnode.kernels.preprocess import preprocess, resized_hw
from segnode.model.architecture import Architecture

FRAME_HW = (1080, 1920)
SHORT_SIDES = (480, 800)
LONG_SIDE = 1333
PASTE_HW = ((480, 640), (1080, 1920))
PASTE_COUNTS = (20, 100)
THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Part:
    """One part in one setting.

    Attributes:
        name: ``preprocess`` or ``paste``.
        image_hw: the camera frame, or the label image.
        count: frames or masks.
        network_hw: what a frame is resized to, None for a paste.
        calls: by contender, segnode first.
        check: raises MeasurementError where the contenders' answers differ.
    """

    name: str
    image_hw: tuple[int, int]
    count: int
    network_hw: tuple[int, int] | None
    calls: dict[str, Callable[[], Any]]
    check: Callable[[], None]


def measure_parts(
    config: Config, request: Request, device: torch.device, rounds: int, warm_up: int
) -> list[PartRow]:
    """Time every part of the network that a configuration names.

    Raises:
        ConfigError: it has none of these, or a reference has no such parts.
        MeasurementError: contenders differ.
    """
    architecture = named_architecture(config)
    if architecture.semantics.family != 'detectron2':
        raise ConfigError(
            f"--parts: expected a model of Detectron2's family, found {config.model}"
        )
    others = [name for name in request.references if name != 'detectron2']
    if others and not request.shapes:
        raise ConfigError(f'--parts: expected --against detectron2, found {", ".join(others)}')
    against = 'detectron2' in request.references
    return [
        _measure_part(part, rounds, warm_up)
        for part in parts(architecture, device, detectron2=against)
    ]


def _measure_part(part: Part, rounds: int, warm_up: int) -> PartRow:
    part.check()
    calls = [_each_round(call) for call in part.calls.values()]
    time_rounds(calls, iter(range(warm_up)))
    label = f'{part.name} {part.count}'
    bar = tqdm(range(rounds), desc=label, unit='round', disable=None, leave=False)
    times = time_rounds(calls, iter(bar))
    return PartRow(
        name=part.name,
        shape='x'.join(map(str, part.image_hw)),
        count=part.count,
        ms=Spread.of(times[:, 0]),
        against={
            name: (Spread.of(times[:, index]), paired_ratio(times[:, index], times[:, 0]))
            for index, name in enumerate(part.calls)
            if index > 0
        },
        network_input='x'.join(map(str, part.network_hw)) if part.network_hw else None,
    )


def _each_round(call: Callable[[], object]) -> Callable[[int], object]:
    return lambda _: call()


def parts(architecture: Architecture, device: torch.device, *, detectron2: bool) -> Iterator[Part]:
    """Yield the parts of a network of the Detectron2 family.

    Args:
        architecture: gives colour order, mean, deviation and padding.
        device: where they run.
        detectron2: time Detectron2's own as well; ConfigError where it is not there.
    """
    if detectron2:
        import_detectron2()
    for short_side in SHORT_SIDES:
        yield _preprocess_part(architecture, device, short_side, detectron2)
    for image_hw in PASTE_HW:
        for count in PASTE_COUNTS:
            yield _paste_part(image_hw, count, device, detectron2)


def _preprocess_part(
    architecture: Architecture, device: torch.device, short_side: int, detectron2: bool
) -> Part:
    (frame,) = render_frames(FRAME_HW, 1)
    size_hw = resized_hw(FRAME_HW, short_side, LONG_SIDE)

    def on_cpu() -> Tensor:
        return preprocess(frame, size_hw, architecture)

    ours: Callable[[], Tensor] = on_cpu
    if device.type == 'cuda':
        from segnode.kernels.operators import select_operators
        from segnode.kernels.resampling import prepare_preprocess

        operators = select_operators(device)
        plan = prepare_preprocess(
            FRAME_HW, size_hw, device, size_divisibility=architecture.size_divisibility
        )
        mean, std = (
            torch.tensor(values, device=device)
            for values in (architecture.pixel_mean, architecture.pixel_std)
        )
        swap = architecture.color != 'BGR'
        pinned = torch.from_numpy(frame.pixels)[None].pin_memory()

        def on_gpu() -> Tensor:
            uploaded = pinned.to(device, non_blocking=True)
            x = operators.preprocess(uploaded, plan, mean, std, swap, torch.float32)
            torch.cuda.synchronize(device)
            return x[0]

        ours = on_gpu
    calls: dict[str, Callable[[], Tensor]] = {'segnode': ours}
    if detectron2:
        calls['detectron2'] = _detectron2_preprocess(
            frame.pixels, short_side, architecture, device
        )

    def check() -> None:
        answers = [call() for call in calls.values()]
        if not all(torch.equal(answers[0], answer) for answer in answers[1:]):
            raise MeasurementError(
                f'preprocess at {short_side}: segnode and Detectron2 differ; nothing was timed'
            )

    return Part('preprocess', FRAME_HW, 1, size_hw, calls, check)


def _detectron2_preprocess(
    pixels: npt.NDArray[np.uint8],
    short_side: int,
    architecture: Architecture,
    device: torch.device,
) -> Callable[[], Tensor]:
    """Return what ``DefaultPredictor`` and ``preprocess_image`` do with a BGR frame."""
    from detectron2.data.transforms import ResizeShortestEdge
    from detectron2.structures import ImageList

    augmentation = ResizeShortestEdge([short_side, short_side], LONG_SIDE)
    mean = torch.tensor(architecture.pixel_mean).view(-1, 1, 1).to(device)
    std = torch.tensor(architecture.pixel_std).view(-1, 1, 1).to(device)

    def call() -> Tensor:
        original = pixels if architecture.color == 'BGR' else pixels[:, :, ::-1]
        image = augmentation.get_transform(original).apply_image(original)
        x = torch.as_tensor(image.astype('float32').transpose(2, 0, 1)).to(device)
        batch = ImageList.from_tensors([(x - mean) / std], architecture.size_divisibility)
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        tensor: Tensor = batch.tensor[0]
        return tensor

    return call


def _paste_part(
    image_hw: tuple[int, int], count: int, device: torch.device, detectron2: bool
) -> Part:
    boxes = PlantedDetections(count, image_hw, 1).boxes
    probabilities = blob_masks(count)
    on_device = torch.from_numpy(probabilities).to(device), torch.from_numpy(boxes).to(device)

    def on_cpu() -> npt.NDArray[np.uint16]:
        crops = paste_masks(probabilities, boxes, image_hw, THRESHOLD, 'detectron2')
        return label_image(crops, image_hw)

    ours: Callable[[], npt.NDArray[np.uint16]] = on_cpu
    if device.type == 'cuda':
        from segnode.kernels.operators import select_operators

        operators = select_operators(device)
        keep = torch.ones((1, count), dtype=torch.bool, device=device)
        limits = {
            'threshold': torch.tensor(THRESHOLD, device=device),
            'min_area': torch.tensor(0, device=device),
            'max_area': torch.tensor(2**62, device=device),
        }

        def on_gpu() -> npt.NDArray[np.uint16]:
            labels, _ = operators.paste_labels(
                on_device[0][None],
                on_device[1][None],
                keep,
                image_hw,
                paste='detectron2',
                **limits,
            )
            array: npt.NDArray[np.uint16] = labels[0].cpu().numpy()
            return array

        ours = on_gpu
    calls: dict[str, Callable[[], npt.NDArray[np.uint16]]] = {'segnode': ours}
    if detectron2:
        from detectron2.layers.mask_ops import paste_masks_in_image

        calls['detectron2'] = lambda: merge_masks(
            paste_masks_in_image(*on_device, image_hw, THRESHOLD)
        )

    def check() -> None:
        answers = [call() for call in calls.values()]
        for answer in answers[1:]:
            share = float(np.mean(answers[0] == answer))
            if share < LEAST_AGREEMENT:
                raise MeasurementError(
                    f'paste of {count} masks: expected {LEAST_AGREEMENT} of the pixels to have '
                    f'one label, found {share:.4f}; nothing was timed'
                )

    return Part('paste', image_hw, count, None, calls, check)
