# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Mask head (Detectron2's ``MaskRCNNConvUpsampleHead``).

Shapes: R RoIs, C channels, K classes (1 if class-agnostic), S side of what is pooled, M side of
the mask, twice that.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnode.model.architecture import Architecture
from segnode.model.conv import Conv

# Side of the deconvolution's kernel, and its stride.
TWO = 2


class MaskHead(nn.Module):
    """3x3 convolutions, a 2x2 deconvolution and a 1x1 predictor."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels = architecture.fpn_channels
        self.convs: list[str] = []
        for index, dim in enumerate(architecture.mask_conv_dims, start=1):
            conv = Conv(channels, dim, 3, norm=architecture.mask_norm, relu=True)
            self.add_module(f'mask_fcn{index}', conv)
            self.convs.append(f'mask_fcn{index}')
            channels = dim
        self.deconv = nn.ConvTranspose2d(channels, channels, TWO, stride=TWO)
        self.joined: Conv | None = None
        masks = 1 if architecture.mask_cls_agnostic else architecture.num_classes
        self.predictor = Conv(channels, masks, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map pooled features (R, C, S, S) to logits (R, K, M, M).

        Once joined they are (R, K, S, 2, S, 2), which read in order has the same pixels.
        """
        for name in self.convs:
            x = self.get_submodule(name)(x)
        logits: Tensor
        if self.joined is None:
            x = F.relu(self.deconv(x.to(self.deconv.weight.dtype)))
            logits = self.predictor(x)
            return logits
        rois, _, side, _ = x.shape
        shape = (rois, side**2, TWO**2, self.joined.out_channels // TWO**2)
        pixels = self.joined(x).permute(0, 2, 3, 1).reshape(shape)
        logits = self.predictor(pixels.permute(0, 3, 1, 2))
        return logits.view(*logits.shape[:2], side, side, TWO, TWO).transpose(3, 4)

    @torch.no_grad()
    def join_deconv(self) -> None:
        """Make one convolution of the deconvolution and its ReLU.

        Kernels of a deconvolution as wide as its stride do not overlap: each pixel gives two by
        two, and the predictor looks at each of these alone, wherever it lies.
        """
        deconv = self.deconv
        with torch.device('meta'):
            joined = Conv(deconv.in_channels, TWO**2 * deconv.out_channels, 1, relu=True)
        weight = deconv.weight.permute(2, 3, 1, 0).reshape(joined.weight.shape)
        joined.weight = nn.Parameter(weight, requires_grad=False)
        assert deconv.bias is not None
        joined.bias = nn.Parameter(deconv.bias.repeat(TWO**2), requires_grad=False)
        self.joined = joined
        del self.deconv


def mask_probabilities(logits: Tensor, class_ids: Tensor) -> Tensor:
    """Take each RoI's own class (``mask_rcnn_inference``).

    Args:
        logits: (R, K, M, M) or (R, K, S, 2, S, 2), any float dtype.
        class_ids: (R,) int64.

    Returns:
        (R, M, M) float32 probabilities.
    """
    side = math.isqrt(math.prod(logits.shape[2:]))
    if logits.shape[1] > 1:
        of_class = class_ids.view(-1, *[1] * (logits.dim() - 1))
        logits = logits.gather(1, of_class.expand(-1, 1, *logits.shape[2:]))
    return torch.sigmoid(logits[:, 0].float()).reshape(len(logits), side, side)
