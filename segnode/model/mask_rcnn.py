# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The network: its modules under Detectron2's names, and the stages that a frame passes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from segnode.model.architecture import Architecture
from segnode.model.backbone import Conv
from segnode.model.box_head import BoxHead, BoxPredictor
from segnode.model.fpn import FPN
from segnode.model.mask_head import MaskHead
from segnode.model.rpn import RPNHead


class ProposalGenerator(nn.Module):
    """Holds the RPN's head under Detectron2's name."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.rpn_head = RPNHead(architecture)


class RoIHeads(nn.Module):
    """Holds box head, box predictor and mask head under Detectron2's names."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.box_head = BoxHead(architecture)
        self.box_predictor = BoxPredictor(architecture, self.box_head.out_features)
        self.mask_head = MaskHead(architecture)


class MaskRCNN(nn.Module):
    """All layers of a Mask R-CNN; ``state_dict`` has Detectron2's names and shapes."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = FPN(architecture)
        self.proposal_generator = ProposalGenerator(architecture)
        self.roi_heads = RoIHeads(architecture)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = architecture.norm_eps

    def fold_norms(self) -> None:
        """Fold every batch norm into its convolution."""
        for module in self.modules():
            if isinstance(module, Conv):
                module.fold_norm()


def expected_state_dict(architecture: Architecture) -> dict[str, torch.Size]:
    """Return name and shape of every tensor that the weights must hold."""
    with torch.device('meta'):
        state = MaskRCNN(architecture).state_dict()
    return {k: v.shape for k, v in state.items() if not k.endswith('num_batches_tracked')}


def build_mask_rcnn(architecture: Architecture, state_dict: Mapping[str, Tensor]) -> MaskRCNN:
    """Return the network with its weights, batch norms folded, ready for inference.

    Args:
        architecture: what to build.
        state_dict: complete and of the shapes of ``expected_state_dict``, float32.
    """
    with torch.device('meta'):
        model = MaskRCNN(architecture)
    counters = {
        name: torch.zeros((), dtype=torch.long)
        for name in model.state_dict()
        if name.endswith('num_batches_tracked')
    }
    weights = {name: tensor.clone() for name, tensor in state_dict.items()}
    model.load_state_dict({**counters, **weights}, assign=True)
    model.requires_grad_(requires_grad=False)
    model.fold_norms()
    return model.eval()
