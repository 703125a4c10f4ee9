# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Detectron2's own model and predictor for one of our architectures.

Import it inside of tests that ask for the ``detectron2`` fixture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segnode.benchmark.detectron2 import detectron2_config
from segnode.image import Image
from segnode.model.architecture import Architecture


def config_of(architecture: Architecture) -> Any:
    """Return Detectron2's config (``CfgNode``) of an architecture, for the CPU."""
    return detectron2_config(architecture, torch.device('cpu'))


def predict(
    architecture: Architecture, state_dict: Mapping[str, Tensor], images: list[Image]
) -> list[Any]:
    """Return Detectron2's ``Instances`` of each image, by the steps of its predictor."""
    from detectron2.data.transforms import ResizeShortestEdge
    from detectron2.modeling import build_model

    cfg = config_of(architecture)
    model = build_model(cfg).eval()
    model.load_state_dict(state_dict)
    resize = ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
    answers = []
    for image in images:
        pixels = bgr(image)
        x = resize.get_transform(pixels).apply_image(pixels).astype('float32').transpose(2, 0, 1)
        request = {'image': torch.as_tensor(x), 'height': image.height, 'width': image.width}
        with torch.inference_mode():
            answers.append(model([request])[0]['instances'])
    return answers


def bgr(image: Image) -> np.ndarray:
    """Return an image's pixels as Detectron2's ``read_image`` would, in BGR."""
    return np.ascontiguousarray(image.pixels if image.order == 'bgr' else image.pixels[..., ::-1])
