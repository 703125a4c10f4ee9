# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A whole Mask R-CNN as one ONNX of standard operators, of fixed shapes.

It is the network's own code, traced, with the two steps of ``operators`` that stand for
NonMaxSuppression and RoiAlign, and become these.

Shapes: H and W of the network's input before padding, D detections, M side of a mask, B sets of K
boxes, R RoIs, C classes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnode import __version__
from segnode.checkpoint import NativeModel
from segnode.config import Config
from segnode.engine import Engine
from segnode.engine.settings import own_settings, resolve_settings
from segnode.errors import ConfigError, MeasurementError
from segnode.export.folder import WHOLE, staged
from segnode.export.operators import register_steps, translations
from segnode.export.programs import quiet, without_sources
from segnode.image import Image
from segnode.kernels.preprocess import resized_hw
from segnode.model.anchors import make_anchors
from segnode.model.architecture import Pooler
from segnode.model.box_head import Limits, select_detections
from segnode.model.mask_rcnn import FrameSizes, build_mask_rcnn
from segnode.model.pooler import assign_levels, index_images
from segnode.model.rpn import select_proposals
from segnode.model.steps import Steps
from segnode.torch_features import check_export

OUTPUTS: Final = ('boxes', 'scores', 'class_ids', 'masks')
# Pairs of proposal and class that NMS takes, the best by score.
CANDIDATES: Final = 1000
# What the whole and the native network may differ by.
BOX_PX: Final = 0.02
SCORE: Final = 2e-4
MASK: Final = 2e-3


class WholeMaskRCNN(nn.Module):
    """From pixels to detections and masks, all of fixed shapes."""

    def __init__(
        self, model: NativeModel, network_hw: tuple[int, int], classes: frozenset[int]
    ) -> None:
        """Take a model, the size of its input before padding, and the classes to keep."""
        super().__init__()
        register_steps()
        a = model.architecture
        self.model = build_mask_rcnn(a, model.state_dict)
        self.network_hw = network_hw
        unit = a.size_divisibility
        self.padding = (0, -network_hw[1] % unit, 0, -network_hw[0] % unit)
        padded = (network_hw[0] + self.padding[3], network_hw[1] + self.padding[1])
        anchors = make_anchors(a, a.feature_hw(padded), torch.device('cpu'))
        self.register_buffer('anchors', anchors)
        for name in ('pixel_mean', 'pixel_std'):
            self.register_buffer(name, torch.tensor(getattr(a, name)).view(3, 1, 1))
        allowed = [n in classes for n in range(a.num_classes)]
        self.register_buffer('allowed', torch.tensor(allowed))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Find instances in (H, W, 3) uint8, channels in the order of the network.

        Returns:
            (D, 4) float32 xyxy in these pixels; (D,) float32, highest first and 0 where there is
            none; (D,) int64; (D, M, M) float32 probabilities, each in its box.
        """
        a = self.model.architecture
        mean, std = self.get_buffer('pixel_mean'), self.get_buffer('pixel_std')
        x = (pixels.permute(2, 0, 1).float() - mean) / std
        x = F.pad(x, self.padding)[None]
        limits = Limits(
            proposals=a.rpn_post_nms_topk,
            capacity=a.max_instances,
            candidates=CANDIDATES,
            score_threshold=a.score_threshold,
            nms_threshold=a.nms_threshold,
            allowed=self.get_buffer('allowed'),
            max_instances=a.max_instances,
        )
        steps = Steps(
            parts=self.model.parts(_nobody),
            select_proposals=partial(select_proposals, nms=self._nms),
            select_detections=partial(select_detections, nms=self._nms),
            roi_align=_pool,
            mark=_nobody,
        )
        anchors = self.get_buffer('anchors')
        sizes = FrameSizes(self.network_hw, self.network_hw)
        found = self.model.detect(x, anchors, sizes, limits, steps)
        filtered = self.model.filter(found.detections, sizes, limits)
        class_ids = found.detections.class_ids[0]
        index = torch.zeros_like(class_ids)
        masks = self.model.masks(
            found.features, found.detections.boxes[0], index, class_ids, steps
        )
        keep = filtered.keep[0]
        return filtered.boxes[0], found.detections.scores[0] * keep, class_ids, masks

    def _nms(
        self, boxes: Tensor, valid: Tensor, threshold: float | Tensor, groups: Tensor | None = None
    ) -> Tensor:
        shape = valid.shape
        boxes, valid = boxes.reshape(-1, shape[-1], 4), valid.reshape(-1, shape[-1])
        of_class = valid[:, None]
        if groups is not None:
            classes = torch.arange(self.model.architecture.num_classes)[:, None]
            of_class = of_class & (groups.reshape(-1, 1, shape[-1]) == classes)
        kept: Tensor = torch.ops.segnode.nms_by_class(boxes, of_class, float(threshold))
        return kept.reshape(shape)


def _nobody(_: str) -> None:
    pass


def _pool(
    features: list[Tensor], boxes: Tensor, image_index: Tensor | None, pooler: Pooler
) -> Tensor:
    """Pool every RoI from its own level; on the others it is empty, and costs one sample."""
    levels = assign_levels(boxes, pooler)
    image_index = index_images(image_index, len(features[0]), boxes)
    pooled: list[Tensor] = []
    for level, (feature, stride) in enumerate(zip(features, pooler.strides, strict=False)):
        own = (levels == level)[:, None]
        here = torch.ops.segnode.roi_align(
            feature,
            torch.where(own, boxes, 0.0),
            image_index,
            1.0 / stride,
            pooler.resolution,
            pooler.sampling_ratio,
            pooler.aligned,
        )
        pooled.append(torch.where(own[..., None, None], here, 0.0))
    return torch.stack(pooled).sum(0)


def export_whole(
    config: Config,
    model: NativeModel,
    image_hw: tuple[int, int],
    output: Path,
    check: Sequence[Image],
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Write one ONNX file, and check it in ONNX Runtime.

    Args:
        config: sides of the network's input, and thresholds, which the program keeps.
        model: what to export.
        image_hw: H and W of the images, which give the network's input.
        output: the folder.
        check: pictures, which are compared with the native network in the input's size.
        report: is told in a line what is done.

    Returns:
        What was written and measured, ready for JSON.

    Raises:
        ConfigError: a library is not installed, PyTorch is too old, or a setting has no meaning
            for one program.
        MeasurementError: the answers differ; nothing is written.
    """
    model, classes, network_hw = _settled(model, config, image_hw)
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - the exporter asks for it
    except ImportError as error:
        raise ConfigError(
            '--whole: expected the Python packages onnx, onnxscript and onnxruntime, which cannot '
            f'be imported here ({error}); install segnode with its extras [export,onnxruntime]'
        ) from None
    check_export('--whole')
    module = WholeMaskRCNN(model, network_hw, classes).eval()
    report('tracing the network for {}x{}'.format(*network_hw))
    example = torch.zeros((*network_hw, 3), dtype=torch.uint8)
    with quiet(), torch.no_grad():
        program = torch.export.export(module, (example,))
        converted = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            custom_translation_table=translations(),
            input_names=['pixels'],
            output_names=list(OUTPUTS),
        )
    assert converted is not None
    proto = without_sources(converted.model_proto)
    foreign = {node.domain for node in proto.graph.node} - {'', 'ai.onnx'}
    if foreign:
        raise MeasurementError(f'{output}: expected standard operators, found those of {foreign}')
    with staged(output) as place:
        onnx.helper.set_model_props(proto, _properties(model, classes, network_hw))
        onnx.save_model(proto, str(place / WHOLE))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # What goes wrong comes as an exception.
        session = onnxruntime.InferenceSession(
            str(place / WHOLE), options, providers=['CPUExecutionProvider']
        )
        agreement = _compare(config, model, session, network_hw, check)
    return {
        'output': str(output),
        'format': 'onnx',
        'precision': 'fp32',
        'model': model.name,
        'weights_sha256': model.weights_sha256,
        'parts': [WHOLE],
        'shapes': [list(network_hw)],
        'channels': model.architecture.color,
        'bytes': (output / WHOLE).stat().st_size,
        'calibration': None,
        'float32_layers': [],
        'agreement': agreement,
        'whole': True,
    }


def _settled(
    model: NativeModel, config: Config, image_hw: tuple[int, int]
) -> tuple[NativeModel, frozenset[int], tuple[int, int]]:
    """Return the model with what is set as its own, the classes to keep, and the input's size.

    Raises:
        ConfigError: something is set that the program cannot do.
    """
    found, unset = config.flat(), Config().flat()
    for key in ('filter.min_mask_area', 'filter.max_mask_area', 'mask_threshold'):
        if found[key] != unset[key]:
            raise ConfigError(
                f'{key}: expected it unset with --whole, whose masks are probabilities that are '
                f'yet to be pasted, found {found[key]}'
            )
    a = model.architecture
    wanted = resolve_settings(config, own_settings(a), model.class_names)
    network_hw = resized_hw(image_hw, wanted.short_side, wanted.long_side, a.semantics.resize)
    a = dataclasses.replace(
        a,
        # An image of the input's own size stays as it is.
        short_side=min(network_hw),
        long_side=max(network_hw),
        score_threshold=wanted.score_threshold,
        nms_threshold=wanted.nms_threshold,
        max_instances=wanted.max_instances,
        rpn_post_nms_topk=wanted.proposals,
    )
    return dataclasses.replace(model, architecture=a), wanted.classes, network_hw


def _properties(
    model: NativeModel, classes: frozenset[int], network_hw: tuple[int, int]
) -> dict[str, str]:
    """Return what a program's file says of it, all in JSON but plain text."""
    a = model.architecture
    said = {
        'model': model.name,
        'weights_sha256': model.weights_sha256,
        'licence': model.licence,
        'class_names': model.class_names,
        'classes': sorted(classes),
        'channels': a.color,
        'network_hw': network_hw,
        'score_threshold': a.score_threshold,
        'nms_threshold': a.nms_threshold,
        'max_instances': a.max_instances,
        'proposals': a.rpn_post_nms_topk,
        'segnode': __version__,
    }
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in said.items()
        if value != ''
    }


def _sized(image: Image, hw: tuple[int, int]) -> Image:
    """Return an image in another size; by which filter does not matter."""
    if (image.height, image.width) == hw:
        return image
    pixels = torch.from_numpy(np.ascontiguousarray(image.pixels)).permute(2, 0, 1)[None].float()
    sized = F.interpolate(pixels, hw, mode='bilinear', antialias=True)[0].permute(1, 2, 0)
    rounded = sized.round().clamp(0, 255).to(torch.uint8)
    return dataclasses.replace(image, pixels=rounded.contiguous().numpy())


def _compare(
    config: Config,
    model: NativeModel,
    session: Any,
    network_hw: tuple[int, int],
    check: Sequence[Image],
) -> dict[str, Any] | None:
    """Compare with the native network on frames of its input's size; None without any."""
    if not check:
        return None
    frames = [_sized(image, network_hw) for image in check]
    flat = {
        'backend': 'auto', 'precision': 'fp32', 'device': 'cpu',
        'resolution.short_side': 0, 'resolution.long_side': 0,
    }  # fmt: skip
    engine = Engine(config.replace(flat), model=model)
    order = 'bgr' if model.architecture.color == 'BGR' else 'rgb'
    boxes_px = score = mask = 0.0
    count = 0
    for frame in frames:
        (native,) = engine.segment([frame], raw_masks=True)
        pixels = frame.pixels if frame.order == order else frame.pixels[..., ::-1]
        found = dict(
            zip(OUTPUTS, session.run(None, {'pixels': np.ascontiguousarray(pixels)}), strict=True)
        )
        own = found['scores'] > 0
        ours = native.detections
        if own.sum() != len(ours) or not np.array_equal(found['class_ids'][own], ours.class_ids):
            raise MeasurementError(
                f'the whole network in ONNX Runtime differs from the native one: expected '
                f'{len(ours)} instances of the same classes, found {int(own.sum())}'
            )
        if not len(ours):
            continue
        count += len(ours)
        boxes_px = max(boxes_px, _apart(found['boxes'][own], ours.boxes_xyxy))
        score = max(score, _apart(found['scores'][own], ours.scores))
        assert native.raw_masks is not None
        # The native ones are rounded to 1/255.
        mask = max(
            mask, _apart(found['masks'][own], native.raw_masks / np.float32(255)) - 0.5 / 255
        )
    if boxes_px > BOX_PX or score > SCORE or mask > MASK:
        raise MeasurementError(
            f'the whole network in ONNX Runtime differs from the native one: boxes {boxes_px:.3g} '
            f'px, scores {score:.2g}, masks {mask:.2g} apart'
        )
    return {
        'pictures': len(frames),
        'instances_fp32': count,
        'instances': count,
        'matched': count,
        'box_px': boxes_px,
        'score': score,
        'mask_probability': max(mask, 0.0),
    }


def _apart(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    return float(np.abs(a - b).max())
