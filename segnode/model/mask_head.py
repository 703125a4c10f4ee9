# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Mask head (Detectron2's ``MaskRCNNConvUpsampleHead``).

Shapes: R RoIs, C channels, K classes (1 if class-agnostic), M side of the mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnode.model.architecture import Architecture
from segnode.model.conv import Conv


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
        self.deconv = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        masks = 1 if architecture.mask_cls_agnostic else architecture.num_classes
        self.predictor = Conv(channels, masks, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map pooled features (R, C, S, S) to logits (R, K, 2 S, 2 S)."""
        for name in self.convs:
            x = self.get_submodule(name)(x)
        x = F.relu(self.deconv(x.to(self.deconv.weight.dtype)))
        logits: Tensor = self.predictor(x)
        return logits


def mask_probabilities(logits: Tensor, class_ids: Tensor) -> Tensor:
    """Take each RoI's own class (``mask_rcnn_inference``).

    Args:
        logits: (R, K, M, M), any float dtype.
        class_ids: (R,) int64.

    Returns:
        (R, M, M) float32 probabilities.
    """
    if logits.shape[1] > 1:
        side = logits.shape[-1]
        logits = logits.gather(1, class_ids[:, None, None, None].expand(-1, 1, side, side))
    return torch.sigmoid(logits[:, 0].float())
