# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The least time that a network can take on a device whose peak is known.

Every layer takes the larger of two times: its operations at the device's dense peak in half
precision, and one reading of its input and weights and one writing of its output at the peak of
the memory ("Roofline", Williams et al., 2009). Biases, residuals and activations are free, as is
everything between the layers: resize, top-k, NMS, RoIAlign and paste.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from segnode.model.costs import Layer


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


def floor_ms(layers: list[Layer], peak: Peak) -> float:
    """Return the milliseconds that the layers take at least."""
    return sum(
        max(layer.flop / (peak.tflops * 1e9), layer.bytes / (peak.gb_s * 1e6)) for layer in layers
    )
