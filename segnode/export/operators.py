# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The two steps of a whole network that PyTorch has no exportable form of, and their ONNX.

Shapes: B sets of K boxes, N images, R RoIs, C channels or classes, S side of what is pooled.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from segnode.kernels.plain.nms import nms


@cache
def register_steps() -> None:
    """Make the two steps operators of PyTorch, which not every release can."""

    @torch.library.custom_op('segnode::nms_by_class', mutates_args=())
    def nms_by_class(boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:
        """Map (B, K, 4) boxes and (B, C, K) bool, of which class each is, to (B, K) bool."""
        classes = valid.to(torch.int8).argmax(1)
        return nms(boxes, valid.any(1), threshold, classes)

    @nms_by_class.register_fake
    def _(boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:
        return boxes.new_empty((valid.shape[0], valid.shape[2]), dtype=torch.bool)

    @torch.library.custom_op('segnode::roi_align', mutates_args=())
    def roi_align(
        feature: Tensor,
        boxes: Tensor,
        image_index: Tensor,
        scale: float,
        resolution: int,
        sampling_ratio: int,
        aligned: bool,
    ) -> Tensor:
        """Pool (R, 4) boxes of one map (N, C, h, w) to (R, C, S, S)."""
        rois = torch.cat((image_index[:, None].float(), boxes), dim=1)
        ratio = sampling_ratio or -1
        pooled: Tensor = torchvision_roi_align(feature, rois, resolution, scale, ratio, aligned)
        return pooled

    @roi_align.register_fake
    def _(
        feature: Tensor,
        boxes: Tensor,
        image_index: Tensor,
        scale: float,
        resolution: int,
        sampling_ratio: int,
        aligned: bool,
    ) -> Tensor:
        return feature.new_empty((boxes.shape[0], feature.shape[1], resolution, resolution))


def translations() -> dict[Any, Callable[..., Any]]:
    """Return how the two steps are said in ONNX."""
    import onnx
    from onnxscript import opset18 as op

    def nms_by_class(boxes: Any, valid: Any, threshold: float) -> Any:
        """Ranks for scores, as the boxes are in order; the mask from the indices that stay."""
        shape = op.Shape(valid)
        most = op.Gather(shape, op.Constant(value_ints=[2]))
        count = op.Squeeze(most)
        ranks = op.Cast(
            op.Range(count, op.Constant(value_int=0), op.Constant(value_int=-1)),
            to=onnx.TensorProto.FLOAT,
        )
        scores = op.Where(valid, ranks, op.Constant(value_float=0.0))
        chosen = op.NonMaxSuppression(
            boxes,
            scores,
            most,
            op.Constant(value_floats=[threshold]),
            op.Constant(value_floats=[0.5]),
        )
        places = op.Gather(chosen, op.Constant(value_ints=[0, 2]), axis=1)
        rows = op.Gather(shape, op.Constant(value_ints=[0, 2]))
        nothing = op.Expand(op.Constant(value_int=0), rows)
        ones = op.Expand(
            op.Constant(value_int=1), op.Gather(op.Shape(places), op.Constant(value_ints=[0]))
        )
        return op.Cast(op.ScatterND(nothing, places, ones), to=onnx.TensorProto.BOOL)

    def roi_align(
        feature: Any,
        boxes: Any,
        image_index: Any,
        scale: float,
        resolution: int,
        sampling_ratio: int,
        aligned: bool,
    ) -> Any:
        return op.RoiAlign(
            feature,
            boxes,
            image_index,
            coordinate_transformation_mode='half_pixel' if aligned else 'output_half_pixel',
            mode='avg',
            output_height=resolution,
            output_width=resolution,
            sampling_ratio=sampling_ratio,
            spatial_scale=scale,
        )

    return {
        torch.ops.segnode.nms_by_class.default: nms_by_class,
        torch.ops.segnode.roi_align.default: roi_align,
    }
