# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The number format of the network, and the layers that cannot have it.

Coordinates, scores, softmax and NMS are float32 in every format; what is converted are the
convolutions and the fully connected layers, with the attention between them. Layer norms, and what
passes from block to block of a Swin Transformer or a ConvNeXt, are float32 too, as under autocast.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn

# Layers that give scores and box deltas. With bfloat16's 8 bits overlapping candidates tie, and
# NMS keeps another one than float32 would; in float32 these layers cost next to nothing.
RANKING_LAYERS = ('objectness_logits', 'anchor_deltas', 'cls_score', 'bbox_pred')

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}


Layer: TypeAlias = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return the format for a ``precision`` setting.

    ``auto`` is fp16 on a GPU with fast half precision (compute capability 7 and up, or ROCm),
    bf16 on a processor with bfloat16 instructions, and fp32 elsewhere. FP16 is never chosen on a
    CPU: what Arm's FP16 instructions give was never measured here.
    """
    if wanted != 'auto':
        return wanted
    if device.type == 'cuda':
        modern = torch.version.hip or torch.cuda.get_device_capability(device) >= (7, 0)
        return 'fp16' if modern else 'fp32'
    return 'bf16' if has_bfloat16_instructions() else 'fp32'


def has_bfloat16_instructions() -> bool:
    """Return whether PyTorch multiplies bfloat16 by instructions of this processor.

    On x86-64 these are AVX-512 BF16 or AMX. On an Arm it is the extension BF16, of Armv8.6 and
    later: no Jetson up to Orin has it. In a PyTorch without oneDNN, as boards' builds may be,
    bfloat16 runs in plain loops.
    """
    if platform.machine() in ('aarch64', 'arm64'):
        return bool(_capabilities() & _ARM_BFLOAT16) and torch.backends.mkldnn.is_available()
    try:
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    except AttributeError:
        return False


# AT_HWCAP2 of <elf.h>, and HWCAP2_BF16 of Linux's arch/arm64/include/uapi/asm/hwcap.h.
_SECOND_CAPABILITIES, _ARM_BFLOAT16 = 26, 1 << 14


def _capabilities() -> int:
    """Return the second word of what the kernel says that this processor can, 0 if nothing."""
    try:
        ask = ctypes.CDLL(None).getauxval
    except (OSError, AttributeError):
        return 0
    ask.argtypes, ask.restype = [ctypes.c_ulong], ctypes.c_ulong
    return int(ask(_SECOND_CAPABILITIES))


@contextmanager
def exact_float32() -> Iterator[None]:
    """Keep TF32 out of float32, which is on for convolutions by default."""
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cublas.allow_tf32
    cudnn.allow_tf32 = cublas.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, cublas.allow_tf32 = before


def convert_layers(
    model: nn.Module, dtype: torch.dtype, run: Callable[[], object]
) -> tuple[str, ...]:
    """Convert the layers to ``dtype``, but those whose numbers do not fit in it.

    In bfloat16 the ranking layers stay float32. Any other layer does where its weights or its
    output are not finite in ``dtype``. As such a layer can hand its successor more than fits, the
    check is repeated until all agree.

    What lies between two layers, such as attention and sums, computes in the format of the one
    before. Where a layer in float32 is handed numbers that are not finite, the nearest one before
    it that is not in float32 stays so as well.

    Args:
        model: float32, batch norms folded.
        dtype: what to convert to.
        run: runs the model once on realistic input, so that every layer is passed.

    Returns:
        Names of the layers that stay float32 because their numbers, or those that are made of
        them, do not fit.
    """
    layers: dict[str, Layer] = {
        name: module for name, module in model.named_modules() if isinstance(module, Layer)
    }
    stored = {
        (name, key): parameter.detach().clone()
        for name, layer in layers.items()
        for key, parameter in layer.named_parameters(recurse=False)
    }

    def convert(name: str, to: torch.dtype) -> None:
        # From the stored float32, as a value that was rounded once cannot come back.
        for key, parameter in layers[name].named_parameters(recurse=False):
            parameter.data = stored[name, key].to(to)

    kept: list[str] = []
    narrow: set[str] = set()

    def keep(name: str) -> None:
        convert(name, torch.float32)
        narrow.discard(name)
        kept.append(name)

    for name in layers if dtype != torch.float32 else ():
        if dtype == torch.bfloat16 and name.endswith(RANKING_LAYERS):
            continue
        if torch.isfinite(stored[name, 'weight'].to(dtype)).all():
            convert(name, dtype)
            narrow.add(name)
        else:
            kept.append(name)
    # Layers that float32 alone does not make finite, known once any layer is not.
    never: set[str] | None = None
    while narrow:
        finite = _finite_outputs(layers, run)
        broken = [name for name in finite if not finite[name] and name not in (never or ())]
        if not broken:
            break
        if never is None:
            for name in narrow:
                convert(name, torch.float32)
            outputs = _finite_outputs(layers, run)
            never = {name for name in outputs if not outputs[name]}
            for name in sorted(never & narrow, key=list(layers).index):
                keep(name)
            for name in narrow:
                convert(name, dtype)
            continue
        # Only the first one: what follows it was fed infinities.
        passed = list(finite)
        before = passed[: passed.index(broken[0]) + 1]
        nearest = next((name for name in reversed(before) if name in narrow), None)
        if nearest is None:
            break  # All that led there is float32 already.
        keep(nearest)
    return tuple(kept)


def _finite_outputs(layers: dict[str, Layer], run: Callable[[], object]) -> dict[str, bool]:
    """Return whether all that each layer gave is finite, in the order in which they ran."""
    found: dict[str, bool] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            found[name] = found.get(name, True) and bool(torch.isfinite(output).all())

        return hook

    hooks = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return found
