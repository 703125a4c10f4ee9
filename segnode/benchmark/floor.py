# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The least time that a network can take on a device whose peak is known.

Every layer takes the larger of two times: its operations at the device's dense peak in half
precision, and one reading of its input and weights and one writing of its output at the peak of
the memory ("Roofline", Williams et al., 2009). Biases, residuals and activations are free, as is
everything between the layers: resize, top-k, NMS, RoIAlign and paste.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segnode.model.architecture import Architecture
from segnode.model.mask_rcnn import MaskRCNN

BYTES = 2


@dataclass(frozen=True, slots=True)
class Peak:
    """What a device can do at best.

    Attributes:
        name: part of the device's name as PyTorch gives it.
        tflops: dense, half precision, accumulated in float32.
        gb_s: of the device's memory.
        processors: number of streaming multiprocessors where the name does not tell, else 0.
    """

    name: str
    tflops: float
    gb_s: float
    processors: int = 0


# The makers' data sheets; the first one that fits counts. A Jetson calls itself "Orin" only.
PEAKS = (
    Peak('H200', 989, 4800),
    Peak('H100 PCIe', 756, 2000),
    Peak('H100', 989, 3350),
    Peak('A100-SXM4-40GB', 312, 1555),
    Peak('A100-PCIE-40GB', 312, 1555),
    Peak('A100', 312, 1935),
    Peak('RTX 3060 Laptop', 26, 336),
    Peak('Orin', 42.5, 204.8, processors=16),
    Peak('Orin', 16.7, 102, processors=8),
)


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer costs: operations (two a multiplication with addition) and bytes moved."""

    part: str
    flop: int
    bytes: int


def known_peak(name: str, processors: int) -> Peak | None:
    """Return the peak of a device by its name and number of multiprocessors, None if unknown."""
    for peak in PEAKS:
        if peak.name in name and peak.processors in (0, processors):
            return peak
    return None


def device_peak(device: torch.device) -> Peak | None:
    """Return the peak of a device, None where it is not known."""
    if device.type != 'cuda':
        return None
    properties = torch.cuda.get_device_properties(device)
    return known_peak(properties.name, properties.multi_processor_count)


def count_layers(
    architecture: Architecture,
    network_hw: tuple[int, int],
    *,
    images: int,
    proposals: int,
    masks: int,
) -> list[Layer]:
    """Return the cost of every layer, by shapes alone.

    Args:
        architecture: of the network.
        network_hw: the network's input before padding.
        images: in one forward.
        proposals: of each image, all run through the box head.
        masks: of each image.
    """
    with torch.device('meta'):
        model = MaskRCNN(architecture)
    layers: list[Layer] = []

    def watch(part: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            weight = module.get_parameter('weight')
            # A deconvolution spreads its input over the weights, the others gather to an output.
            spread = isinstance(module, nn.ConvTranspose2d)
            each = inputs[0].numel() if spread else output.numel()
            moved = inputs[0].numel() + weight.numel() + output.numel()
            layers.append(Layer(part, 2 * each * weight[0].numel(), BYTES * moved))

        return hook

    heads, rpn_head = model.roi_heads, model.proposal_generator.rpn_head
    parts = {
        'backbone': model.backbone,
        'rpn': rpn_head,
        'box_head': nn.ModuleList((heads.box_head, heads.box_predictor)),
        'mask_head': heads.mask_head,
    }
    for part, modules in parts.items():
        for module in modules.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                module.register_forward_hook(watch(part))
    step = architecture.size_divisibility
    height, width = (side + -side % step for side in network_hw)
    channels = architecture.fpn_channels

    def pooled(rois: int, side: int) -> Tensor:
        return torch.empty((images * rois, channels, side, side), device='meta')

    dense = model.parts(lambda _: None)
    dense.trunk(torch.empty((images, 3, height, width), device='meta'))
    for box_head in dense.box_heads:
        box_head(pooled(proposals, architecture.box_pooler.resolution))
    if masks:
        dense.mask_head(pooled(masks, architecture.mask_pooler.resolution))
    return layers


def floor_ms(layers: list[Layer], peak: Peak) -> float:
    """Return the milliseconds that the layers take at least."""
    return sum(
        max(layer.flop / (peak.tflops * 1e9), layer.bytes / (peak.gb_s * 1e6)) for layer in layers
    )
