# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Detectron2 with segnode's weights, used as its own users would.

It comes in two forms: as it is, in float32; and at its best, in half precision with channels_last
memory and compiled layers. Its masks are merged into one label image where they are, which is
what whoever needs one has to do.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segnode.benchmark.contenders import Answer, Case
from segnode.benchmark.oracle import import_detectron2
from segnode.benchmark.planted import PlantedDetections
from segnode.benchmark.references import (
    format_name,
    half_precision,
    halve,
    merge_masks,
    on_device,
)
from segnode.checkpoint.detectron2_config import config_keys
from segnode.engine.settings import InferenceSettings
from segnode.errors import ConfigError
from segnode.image import Image
from segnode.model.architecture import Architecture


class Detectron2:
    """Detectron2's ``GeneralizedRCNN``, called as its ``DefaultPredictor`` calls it."""

    def __init__(
        self,
        architecture: Architecture,
        state_dict: Mapping[str, Tensor],
        settings: InferenceSettings,
        device: torch.device,
        *,
        best: bool,
        compiled: bool = True,
    ) -> None:
        """Build the model.

        Raises:
            ConfigError: Detectron2 is not there, or cannot build this network.
        """
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            import_detectron2()
            from detectron2.modeling import build_model

            config = detectron2_config(architecture, device)
            config.MODEL.RPN.POST_NMS_TOPK_TEST = settings.proposals
            config.MODEL.ROI_HEADS.SCORE_THRESH_TEST = settings.score_threshold
            config.MODEL.ROI_HEADS.NMS_THRESH_TEST = settings.nms_threshold
            config.TEST.DETECTIONS_PER_IMAGE = settings.max_instances
            try:
                self._model = build_model(config).eval()
            except (AssertionError, KeyError, ValueError) as error:
                raise ConfigError(f'Detectron2 cannot build this network: {error}') from None
        missing, _ = self._model.load_state_dict(dict(state_dict), strict=False)
        learned = [name for name in missing if not name.startswith(('pixel_', 'anchor'))]
        if [name for name in learned if 'cell_anchors' not in name]:
            raise ConfigError(f'Detectron2 names other weights: {", ".join(learned[:3])}')
        self.name = 'detectron2-best' if best else 'detectron2'
        self.precision = 'fp32'
        self._device = device
        self._color = architecture.color
        self._best = best
        self._resize: Any = None
        if best:
            dtype = half_precision(device)
            self.precision = format_name(dtype)
            model = self._model
            # Its RoIAlign takes half precision on a GPU, and none on a CPU.
            pooled = dtype if device.type == 'cuda' else torch.float32
            halve(model.backbone, dtype, pooled, compiled)
            halve(model.proposal_generator.rpn_head, dtype, torch.float32, compiled)
            halve(model.roi_heads.box_head, dtype, dtype, compiled)
            halve(model.roi_heads.box_predictor, dtype, torch.float32, compiled=False)
            # The head itself also unpacks detections; its layers are what can be compiled.
            head = model.roi_heads.mask_head
            # Past nn.Module's own, which would make them a layer of the head as well.
            head.__dict__['layers'] = halve(_Layers(head), dtype, torch.float32, compiled)

    def prepare(self, case: Case) -> None:
        """Set the network's input to the frames' size, and plant."""
        from detectron2.data import transforms

        short, long = min(case.image_hw), max(case.image_hw)
        self._resize = transforms.ResizeShortestEdge([short, short], long)
        predictor = self._model.roi_heads.box_predictor
        predictor.__dict__.pop('inference', None)
        if case.planted is not None:
            predictor.inference = self._planted(predictor.inference, case.planted)

    @torch.no_grad()
    def run(self, frames: Sequence[Image]) -> list[Answer]:
        """Answer frames of one size."""
        found = self._model([self._input(frame) for frame in frames])
        return [self._answer(each['instances']) for each in found]

    def _input(self, frame: Image) -> dict[str, Any]:
        pixels = frame.pixels if self._color == frame.order.upper() else frame.pixels[:, :, ::-1]
        resized = self._resize.get_transform(pixels).apply_image(pixels)
        if self._best:
            # A quarter of the bytes to upload; the device makes them float.
            image = torch.from_numpy(np.ascontiguousarray(resized)).to(self._device)
            image = image.permute(2, 0, 1)
        else:
            image = torch.as_tensor(resized.astype('float32').transpose(2, 0, 1))
        return {'image': image, 'height': frame.height, 'width': frame.width}

    def _answer(self, found: Any) -> Answer:
        return Answer(
            found.pred_boxes.tensor.cpu().numpy(),
            found.scores.cpu().numpy(),
            found.pred_classes.cpu().numpy(),
            merge_masks(found.pred_masks),
        )

    def _planted(
        self, inference: Callable[..., Any], planted: PlantedDetections
    ) -> Callable[..., Any]:
        from detectron2.structures import Boxes, Instances

        boxes, scores, class_ids = on_device(planted, self._device)

        def replaced(predictions: Any, proposals: Any) -> Any:
            found, kept = inference(predictions, proposals)
            # Boxes are scaled in place afterwards.
            return [
                Instances(
                    each.image_size,
                    pred_boxes=Boxes(boxes.clone()),
                    scores=scores,
                    pred_classes=class_ids,
                )
                for each in found
            ], kept

        return replaced


class _Layers(nn.Module):
    """The layers of Detectron2's mask head alone."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.sequence = nn.Sequential(*head)

    def forward(self, x: Tensor) -> Tensor:
        """Map pooled features to logits."""
        logits: Tensor = self.sequence(x)
        return logits


def detectron2_config(architecture: Architecture, device: torch.device) -> Any:
    """Return Detectron2's config (``CfgNode``) of an architecture.

    Raises:
        ConfigError: Detectron2 has no such network.
    """
    from detectron2.config import get_cfg

    cfg = get_cfg()
    for key, value in (config_keys(architecture) | {'MODEL.DEVICE': str(device)}).items():
        *sections, name = key.split('.')
        # Set, not merged, as merging refuses keys of later releases and MIN_SIZE as a float.
        functools.reduce(getattr, sections, cfg)[name] = value
    return cfg
