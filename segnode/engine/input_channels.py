# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""How many channels a network's input has on a GPU: a picture's three, or zeros beside them.

Tensor cores take the channels of a pixel in half precision by four or eight. Of another number a
library makes that at every call, or has slower kernels. Preprocessing writes more for it. What
this device does faster is measured, once for a network: its paths share the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from segnode.engine.graphs import as_for_a_capture
from segnode.engine.network import NativeNetwork
from segnode.engine.timing import device_milliseconds, fastest, is_asynchronous
from segnode.model.conv import Conv
from segnode.model.fusion import fuse_convolution, whole_sums

# The first is taken as it is unless another is faster.
CHANNELS = (3, 4, 8)


def choose_input(
    network: NativeNetwork, preprocess: Callable[[int], Tensor], *, captured: bool
) -> None:
    """Give a network in half precision on a GPU the input that is fastest, if none was chosen yet.

    It waits for the device: a few rounds, see ``fastest``, and what a library needs to find its
    kernels.

    Args:
        network: what reads the input; nothing may run it meanwhile.
        preprocess: makes the input of so many channels, at the size that is timed.
        captured: kernels are chosen as for a capture.

    Raises:
        Exception: whatever the input of three channels raises; nothing is chosen then.
    """
    conv = network.model.first_conv
    if network.input_choice or not is_asynchronous(network.device):
        return
    if conv.weight.dtype == torch.float32:
        return
    with as_for_a_capture() if captured else whole_sums():
        candidates = {count: _candidate(conv, preprocess, count) for count in CHANNELS}
        # What fails as it is would fail in a frame: who builds may have other operators for it.
        candidates[conv.in_channels]()
        chosen, medians = fastest(candidates, device_milliseconds)
    if chosen != conv.in_channels:
        conv.widen_input(chosen)
        fuse_convolution(conv)
    timed = ', '.join(f'{count}: {ms:.3f} ms' for count, ms in medians.items())
    # Once and for all: graphs that are captured from here on hold the address of the weights.
    network.input_choice = f'{chosen} channels ({timed or "none could be timed"})'


def _candidate(
    conv: Conv, preprocess: Callable[[int], Tensor], channels: int
) -> Callable[[], object]:
    """Return what launches all that hangs on the number of channels."""
    if channels != conv.in_channels:
        conv = copy.deepcopy(conv)
        conv.widen_input(channels)
        fuse_convolution(conv)
    return lambda: conv(preprocess(channels))
