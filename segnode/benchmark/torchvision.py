# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""torchvision's Mask R-CNN with segnode's weights, used as its documentation does.

It comes in the two forms of ``detectron2.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segnode.benchmark.contenders import Answer, Case
from segnode.benchmark.planted import PlantedDetections
from segnode.benchmark.references import (
    format_name,
    half_precision,
    halve,
    merge_masks,
    on_device,
)
from segnode.checkpoint.torchvision import to_torchvision
from segnode.engine.settings import InferenceSettings
from segnode.errors import ConfigError
from segnode.image import Image
from segnode.model.architecture import Architecture
from segnode.model.backbone_specs import ResNetSpec

# Layers per stage of the ResNets that torchvision builds.
_BOTTLENECK_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_BASIC_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
DIFFERENCES = (
    'same weights, but RoIAlign with 2 samples a bin, not aligned; anchors rounded; masks pasted '
    'with a border: its answers differ and were not asserted equal'
)


class Torchvision:
    """torchvision's ``MaskRCNN``, called as its documentation does."""

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
            ConfigError: torchvision has no such network.
        """
        self._model = torchvision_model(architecture, settings)
        self._model.load_state_dict(to_torchvision(state_dict, architecture.norm_eps))
        self._model.eval().to(device)
        self.name = 'torchvision-best' if best else 'torchvision'
        self.precision = 'fp32'
        self._device = device
        self._color = architecture.color
        self._best = best
        if best:
            dtype = half_precision(device)
            self.precision = format_name(dtype)
            model = self._model
            heads = model.roi_heads
            # Its RoIAlign wants features and boxes of one format.
            halve(model.backbone, dtype, torch.float32, compiled)
            halve(model.rpn.head, dtype, torch.float32, compiled)
            halve(heads.box_head, dtype, dtype, compiled)
            halve(heads.box_predictor, dtype, torch.float32, compiled=False)
            halve(heads.mask_head, dtype, dtype, compiled)
            halve(heads.mask_predictor, dtype, torch.float32, compiled)

    def prepare(self, case: Case) -> None:
        """Set the network's input to the frames' size, and plant."""
        self._model.transform.min_size = (min(case.image_hw),)
        self._model.transform.max_size = max(case.image_hw)
        heads = self._model.roi_heads
        heads.__dict__.pop('postprocess_detections', None)
        if case.planted is not None:
            heads.postprocess_detections = self._planted(
                heads.postprocess_detections, case.planted
            )

    @torch.no_grad()
    def run(self, frames: Sequence[Image]) -> list[Answer]:
        """Answer frames of one size."""
        found = self._model([self._input(frame) for frame in frames])
        return [
            Answer(
                each['boxes'].cpu().numpy(),
                each['scores'].cpu().numpy(),
                each['labels'].cpu().numpy() - 1,
                merge_masks(each['masks'][:, 0] > 0.5),
            )
            for each in found
        ]

    def _input(self, frame: Image) -> Tensor:
        pixels = frame.pixels if self._color == frame.order.upper() else frame.pixels[:, :, ::-1]
        image = torch.from_numpy(np.ascontiguousarray(pixels))
        if self._best:
            return image.to(self._device).permute(2, 0, 1).float() / 255
        return (image.permute(2, 0, 1).contiguous().float() / 255).to(self._device)

    def _planted(
        self, postprocess: Callable[..., Any], planted: PlantedDetections
    ) -> Callable[..., Any]:
        boxes, scores, class_ids = on_device(planted, self._device)
        labels = class_ids + 1

        def replaced(*args: Any) -> Any:
            images = len(postprocess(*args)[0])
            return [boxes] * images, [scores] * images, [labels] * images

        return replaced


def torchvision_model(architecture: Architecture, settings: InferenceSettings) -> Any:
    """Build torchvision's Mask R-CNN of an architecture, without weights.

    The strides, colours and pixel statistics of a Detectron2 network are set as its weights
    expect them; RoIAlign, the rounding of anchors and the paste are torchvision's own.

    Raises:
        ConfigError: torchvision cannot build it.
    """
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.detection.faster_rcnn import (
        FastRCNNConvFCHead,
        FastRCNNPredictor,
        TwoMLPHead,
    )
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.models.detection.rpn import RPNHead
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
    from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

    a = architecture
    spec = _require_torchvision(a)
    block = BasicBlock if spec.depth in _BASIC_DEPTHS else Bottleneck
    layers = {**_BASIC_DEPTHS, **_BOTTLENECK_DEPTHS}[spec.depth]
    resnet = ResNet(
        block,
        list(layers),
        groups=spec.num_groups,
        width_per_group=spec.width_per_group,
        norm_layer=FrozenBatchNorm2d,
    )
    for name in ('layer2', 'layer3', 'layer4'):
        first = resnet.get_submodule(name)[0]
        if spec.stride_in_1x1 and isinstance(first, Bottleneck):
            first.conv1.stride, first.conv2.stride = (2, 2), (1, 1)
    widths = [spec.res2_out_channels * 2**level for level in range(4)]
    # Its second version has norms in FPN and heads, which do nothing here: ours are folded.
    second = bool(a.box_conv_dims)
    norm = FrozenBatchNorm2d if second else None
    backbone = BackboneWithFPN(
        resnet,
        {f'layer{i + 1}': str(i) for i in range(4)},
        widths,
        a.fpn_channels,
        norm_layer=norm,
    )
    hidden, side = a.box_fc_dims[0], a.box_pooler.resolution
    box_head = (
        FastRCNNConvFCHead(
            (a.fpn_channels, side, side), [*a.box_conv_dims], [hidden], norm_layer=norm
        )
        if second
        else TwoMLPHead(a.fpn_channels * side**2, hidden)
    )
    anchors = AnchorGenerator(a.anchor_sizes, a.anchor_ratios)
    names = [str(level) for level in range(4)]
    mask_channels = a.mask_conv_dims[-1]
    model = MaskRCNN(
        backbone,
        image_mean=[value / 255 for value in a.pixel_mean],
        image_std=[value / 255 for value in a.pixel_std],
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(
            a.fpn_channels,
            anchors.num_anchors_per_location()[0],
            conv_depth=len(a.rpn_conv_dims),
        ),
        rpn_pre_nms_top_n_test=a.rpn_pre_nms_topk,
        rpn_post_nms_top_n_test=settings.proposals,
        rpn_nms_thresh=a.rpn_nms_threshold,
        box_roi_pool=MultiScaleRoIAlign(names, side, 2),
        box_head=box_head,
        box_predictor=FastRCNNPredictor(hidden, a.num_classes + 1),
        box_score_thresh=settings.score_threshold,
        box_nms_thresh=settings.nms_threshold,
        box_detections_per_img=settings.max_instances,
        bbox_reg_weights=a.box_bbox_weights,
        mask_roi_pool=MultiScaleRoIAlign(names, a.mask_pooler.resolution, 2),
        mask_head=MaskRCNNHeads(a.fpn_channels, a.mask_conv_dims, 1, norm_layer=norm),
        mask_predictor=MaskRCNNPredictor(mask_channels, mask_channels, a.num_classes + 1),
    )
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = a.norm_eps
    return model


def _require_torchvision(a: Architecture) -> ResNetSpec:
    spec = a.backbone
    if not isinstance(spec, ResNetSpec):
        raise ConfigError('torchvision cannot build this network: it needs a ResNet')
    expansion = 1 if spec.depth in _BASIC_DEPTHS else 4
    wanted = {
        'a ResNet-18, -34, -50, -101 or -152': spec.depth
        in {**_BASIC_DEPTHS, **_BOTTLENECK_DEPTHS},
        'ResNet widths of 64': spec.stem_out_channels == 64
        and spec.res2_out_channels == 64 * expansion,
        'batch norms, in the ResNet alone': (spec.norm, a.fpn_norm, a.box_norm, a.mask_norm)
        == ('BN', '', '', ''),
        'maps that are summed': a.fpn_fuse == 'sum',
        'an RPN as wide as the maps': {*a.rpn_conv_dims} <= {-1, a.fpn_channels},
        'RPN weights of 1': a.rpn_bbox_weights == (1.0, 1.0, 1.0, 1.0),
        'a box head of two equal layers, or of four convolutions and one': len(a.box_fc_dims)
        == (1 if a.box_conv_dims else 2)
        and len(set(a.box_fc_dims)) == 1
        and len(a.box_conv_dims) in (0, 4),
        'one box and one mask a class': not (a.box_cls_agnostic or a.mask_cls_agnostic),
        'equal mask layers': len(set(a.mask_conv_dims)) == 1,
        'padding to multiples of 32': a.size_divisibility == 32,
    }
    lacking = [what for what, holds in wanted.items() if not holds]
    if lacking:
        raise ConfigError(f'torchvision cannot build this network: it needs {", ".join(lacking)}')
    return spec
