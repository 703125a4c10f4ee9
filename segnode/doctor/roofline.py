# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The least time that the chosen network can take on this device, and what to lower first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from segnode.benchmark.floor import Peak, floor_ms
from segnode.doctor.finding import Finding
from segnode.engine.settings import InferenceSettings
from segnode.hardware.board import Board, Clock
from segnode.kernels.preprocess import resized_hw
from segnode.model.architecture import Architecture
from segnode.model.costs import Costs, count_costs

# A camera's usual frame, and a scene's usual number of instances.
IMAGE_HW = (720, 1280)
INSTANCES = 20
# Below it a camera of 10 Hz loses frames, whatever is done around the network.
SLOWEST_MS = 100.0
_FEW_PROPOSALS = 300
_SHORTER = 0.75
# The network's input is a multiple of it.
_LEAST_SIDE = 32
_MIB = 2**20


def board_peak(board: Board) -> Peak | None:
    """Return what a board can do at the clocks that its power mode allows, None if unknown."""
    if board.module is None:
        return None
    gpu = _most(board.gpu, board.module.gpu_mhz)
    memory = _most(board.memory, board.module.memory_mhz)
    return Peak(board.module.name, board.module.tflops(gpu), board.module.gb_s(memory))


def _most(clock: Clock | None, published_mhz: float) -> float:
    """Return the highest that it is known to reach, MHz; idle it may be far below."""
    if clock is None:
        return published_mhz
    return clock.most or max(clock.now, published_mhz)


@dataclass(frozen=True, slots=True)
class Roofline:
    """A network's least time on a device, in half precision.

    Attributes:
        network_hw: its input before padding.
        costs: of the network.
        ms: its least time.
        lowered: what can be lowered, with the least time then; what helps most comes first.
    """

    network_hw: tuple[int, int]
    costs: Costs
    ms: float
    lowered: tuple[tuple[str, float], ...]

    @property
    def needed_mib(self) -> float:
        """Weights and activations."""
        return (self.costs.weight_bytes + self.costs.activation_bytes) / _MIB


def roofline(architecture: Architecture, settings: InferenceSettings, peak: Peak) -> Roofline:
    """Return it for a camera's usual frame."""

    def cost(short_side: int, proposals: int) -> tuple[tuple[int, int], Costs, float]:
        resize = architecture.semantics.resize
        long_side = settings.long_side * short_side // max(settings.short_side, 1)
        network_hw = resized_hw(IMAGE_HW, short_side, long_side, resize)
        masks = min(INSTANCES, settings.max_instances)
        costs = count_costs(architecture, network_hw, proposals=proposals, masks=masks)
        return network_hw, costs, floor_ms(costs.layers, peak)

    # A short side of 0 keeps the frame as it is.
    short_side, proposals = settings.short_side or min(IMAGE_HW), settings.proposals
    network_hw, costs, least_ms = cost(settings.short_side, proposals)
    lower = round(short_side * _SHORTER / _LEAST_SIDE) * _LEAST_SIDE
    options: dict[str, float] = {}
    if _LEAST_SIDE <= lower < short_side:
        options[f'resolution.short_side to {lower}'] = cost(lower, proposals)[2]
    if proposals > _FEW_PROPOSALS:
        few = cost(settings.short_side, _FEW_PROPOSALS)[2]
        options[f'proposals to {_FEW_PROPOSALS}'] = few
    lowered = tuple(sorted(options.items(), key=lambda option: option[1]))
    return Roofline(network_hw, costs, least_ms, lowered)


def roofline_finding(found: Roofline, peak: Peak) -> Iterator[Finding]:
    """Yield what it allows, and what to lower first."""
    first = ', then '.join(f'{what} ({ms:.1f} ms)' for what, ms in found.lowered)
    height, width = found.network_hw
    text = (
        f'{peak.name} ({peak.tflops:.1f} TFLOPS in FP16, {peak.gb_s:.0f} GB/s): no less than '
        f'{found.ms:.1f} ms a frame for a network input of {height}x{width} with '
        f'{INSTANCES} masks; real times are some times that'
    )
    if found.ms > SLOWEST_MS:
        lower = f'lower {first}, or ' if first else ''
        yield Finding('warn', 'roofline', text, f'{lower}take a smaller backbone')
    else:
        lower = f'; what to lower first: {first}' if first else ''
        yield Finding('ok', 'roofline', f'{text}{lower}')
