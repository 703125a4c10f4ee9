# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a network costs, by shapes alone: operations, traffic and memory, without weights.

The dense parts run once on PyTorch's ``meta`` device, where tensors have shapes and no numbers,
and every operator that they come down to is watched.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from segnode.model.architecture import Architecture
from segnode.model.mask_rcnn import MaskRCNN
from segnode.model.precision import Layer as HalvedLayer

# What published figures count: all that the RPN keeps, and as many masks as a frame may have.
PROPOSALS: Final = 1000
MASKS: Final = 100
_HALF: Final = 2


@dataclass(frozen=True, slots=True)
class Layer:
    """One matrix product or convolution.

    Attributes:
        part: backbone (with the FPN), rpn, box_head or mask_head.
        flop: operations, two a multiplication with addition.
        bytes: input, weights and output in half precision, each once.
    """

    part: str
    flop: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Costs:
    """What one forward costs.

    Attributes:
        layers: in the order in which they run.
        parameters: trained numbers, as the file has them.
        weight_bytes: of the weights with norms folded, convolutions and fully connected layers in
            half precision, the rest in float32.
        activation_bytes: most that the tensors between layers hold at one time, in those formats.
    """

    layers: list[Layer]
    parameters: int
    weight_bytes: int
    activation_bytes: int

    def gflop(self, *parts: str) -> float:
        """Return the operations of some parts, or of all, in 10^9."""
        chosen = (layer.flop for layer in self.layers if not parts or layer.part in parts)
        return sum(chosen) / 1e9


class _Watch(TorchDispatchMode):
    """Sees every operator below autograd, its shapes, and how long the results live.

    Attributes:
        part: what runs.
        layers: so far.
        peak: most bytes that results held at one time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.part = ''
        self.layers: list[Layer] = []
        self.peak = 0
        self._live = 0
        self._known: weakref.WeakKeyDictionary[torch.UntypedStorage, int] = (
            weakref.WeakKeyDictionary()
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self._allocate(out)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            tensors = [x for x in tree_leaves((args, out)) if isinstance(x, Tensor)]
            # Biases are free: they are added where the result is written.
            moved = sum(x.numel() for x in tensors if x.ndim > 1)
            flop = int(formula(*args, **kwargs, out_val=out))
            self.layers.append(Layer(self.part, flop, _HALF * moved))
        return out

    def _allocate(self, out: Any) -> None:
        for tensor in tree_leaves(out):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage in self._known:
                continue
            size = storage.nbytes()
            self._known[storage] = size
            self._live += size
            self.peak = max(self.peak, self._live)
            weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self._live -= size


@torch.no_grad()
def count_costs(
    architecture: Architecture,
    network_hw: tuple[int, int],
    *,
    images: int = 1,
    proposals: int = PROPOSALS,
    masks: int = MASKS,
) -> Costs:
    """Return what the dense parts cost.

    Memory is that of an eager run on its way from layer to layer. What it leaves out: workspaces
    of convolutions, the device's context, what a captured graph keeps, the steps between the dense
    parts (resize, top-k, NMS, paste) and rounding by the allocator. What it may overstate: results
    that a fused kernel never writes, such as attention's.

    Args:
        architecture: of the network.
        network_hw: the network's input before padding.
        images: in one forward.
        proposals: of each image, all run through the box head.
        masks: of each image.
    """
    model, parameters = _halved(architecture)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    step, channels = architecture.size_divisibility, architecture.fpn_channels
    height, width = (side + -side % step for side in network_hw)

    def pooled(rois: int, side: int) -> Tensor:
        shape = (images * rois, channels, side, side)
        return torch.empty(shape, dtype=torch.float16, device='meta')

    watch = _Watch()

    def mark(stage: str) -> None:
        # The trunk says where the backbone ends; what follows in it is the RPN.
        watch.part = 'rpn'

    dense = model.parts(mark)
    with watch:
        watch.part = 'backbone'
        found = dense.trunk(torch.empty((images, 3, height, width), device='meta'))
        watch.part = 'box_head'
        for box_head in dense.box_heads:
            box_head(pooled(proposals, architecture.box_pooler.resolution))
        watch.part = 'mask_head'
        # The maps outlive the heads: both pool from them.
        features = found.features
        del found
        if masks:
            dense.mask_head(pooled(masks, architecture.mask_pooler.resolution))
        del features
    return Costs(watch.layers, parameters, weights, watch.peak)


# Made once for several sizes.
@lru_cache(maxsize=1)
def _halved(architecture: Architecture) -> tuple[MaskRCNN, int]:
    """Return the network as it runs in half precision, and how many numbers were trained."""
    with torch.device('meta'):
        model = MaskRCNN(architecture).eval()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    model.fold_norms()
    for module in model.modules():
        if isinstance(module, HalvedLayer):
            module.to(torch.float16)
    return model, parameters
