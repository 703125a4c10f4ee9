# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What every rung is compared with: the answers of float32 on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from random_boxes import random_boxes
from torch import Tensor
from tqdm import tqdm

from gpu_ladder import engines, limits
from gpu_ladder.engines import Image, NativeModel, NativeNetwork, Scene, SceneFrame
from gpu_ladder.options import Options
from segnode.config import Config
from segnode.engine import Engine, Prediction, Segmentation
from segnode.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """All that a rung is asked, and what it should say."""

    model: NativeModel
    scenes: list[SceneFrame]
    # To each scene, with label images and with whole masks.
    answers: list[Segmentation]
    predicted: list[Prediction]
    # By score threshold, answers to the first scenes.
    compared: dict[float, list[Segmentation]]
    # Frames that are resized, with their answers.
    sizes: list[tuple[Image, Segmentation]]
    stage_inputs: dict[str, Any]
    stage_outputs: dict[str, list[Tensor]]
    # What is timed, frames by shape, and the answer to the first of each.
    planted: NativeModel
    frames: dict[tuple[int, int], list[Image]]
    shaped: dict[tuple[int, int], Segmentation]


@engines.exact_float32()
def prepare(options: Options) -> Reference:
    """Render, plant, and let the CPU answer all that is asked of the device."""
    config = engines.judged_config(options, 'cpu', 'fp32')
    model = engines.load_model(config)
    if not isinstance(model, NativeModel):
        raise ConfigError(f'--trained: expected a native model, found {options.trained}')
    engine = Engine(config, model=model)
    scenes, answers, predicted = [], [], []
    seeds = engines.SEEDS[: options.scenes]
    for seed in tqdm(seeds, desc='reference', unit='scene', disable=None, leave=False):
        scenes.append(Scene(seed, limits.SCENE_HW).frame(3))
        image = Image(scenes[-1].image, 'bgr')
        answers += engine.segment([image])
        predicted += engine.predict([image])
    images = [Image(scene.image, 'bgr') for scene in scenes]
    compared: dict[float, list[Segmentation]] = {}
    for threshold in limits.THRESHOLDS:
        with engines.score_threshold(engine, threshold):
            compared[threshold] = [engine.segment([i])[0] for i in images[: limits.COMPARED]]
    sizes = [tuple(round(side * scale) for side in limits.SCENE_HW) for scale in (0.75, 1.3)]
    small, large = (Scene(engines.SEEDS[0], size).frame(5).image for size in sizes)
    resized = [Image(small, 'bgr'), Image(large[..., ::-1].copy(), 'rgb')]
    network = NativeNetwork(model.architecture, model.state_dict, torch.device('cpu'), 'fp32')
    found = torch.from_numpy(scenes[0].boxes_xyxy)
    drawn = random_boxes(torch.Generator().manual_seed(0), 60, limits.SCENE_HW)
    inputs = engines.stage_inputs(network, images[0], torch.cat((found, drawn)))
    planted = engines.plant_model(Config(model=options.timed))
    frames = {shape: engines.render_frames(shape) for shape in options.shapes}
    shaped = {}
    for shape in options.shapes:
        slow = engines.planted_engine(options, shape, 'cpu', 'fp32', static=False, model=planted)
        shaped[shape] = slow.segment(frames[shape][:1])[0]
    return Reference(
        model=model,
        scenes=scenes,
        answers=answers,
        compared=compared,
        predicted=predicted,
        sizes=[(image, engine.segment([image])[0]) for image in resized],
        stage_inputs=inputs,
        stage_outputs=engines.run_stages(network, inputs),
        planted=planted,
        frames=frames,
        shaped=shaped,
    )
