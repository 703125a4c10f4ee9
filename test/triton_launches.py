# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the functions around the Triton kernels launch, recorded in place of being run.

No device is needed, and no memory: tensors may be fake ones of a GPU, or of the meta device. What
a launch is compiled from is in it, so that it can be compiled for any device afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from segnode.model.architecture import SEMANTICS, Pooler

TYPES = {
    torch.bool: 'i1',
    torch.uint8: 'u8',
    torch.int16: 'i16',
    torch.int32: 'i32',
    torch.int64: 'i64',
    torch.float16: 'fp16',
    torch.bfloat16: 'bf16',
    torch.float32: 'fp32',
}
# Those of any network that is launched here: both heads', in either family.
POOLERS = [
    Pooler(resolution=resolution, sampling_ratio=sampling_ratio, aligned=aligned, levels=levels)
    for resolution in (7, 14)
    for sampling_ratio in (0, 2)
    for aligned in (True, False)
    for levels in SEMANTICS
]
# Bytes that Triton takes pointers to be a multiple of where they are. What PyTorch allocates is.
ALIGNMENT = 16


class Launch(NamedTuple):
    """One launch, as a function wrote it.

    Attributes:
        kernel: the ``triton.JITFunction``.
        args: arguments by position.
        kwargs: arguments by name, and options of the compiler.
        grid: programs along up to three axes.
        device: which was made the current one for it, None where none was.
    """

    kernel: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    grid: tuple[int, ...]
    device: torch.device | None

    @property
    def arguments(self) -> dict[str, Any]:
        """Every argument of the kernel by its name."""
        names = self.kernel.arg_names
        named = {name: self.kwargs[name] for name in names if name in self.kwargs}
        return {**dict(zip(names, self.args, strict=False)), **named}

    @property
    def options(self) -> dict[str, Any]:
        """What is said to the compiler."""
        names = self.kernel.arg_names
        return {name: value for name, value in self.kwargs.items() if name not in names}


@dataclass(frozen=True, slots=True)
class Variant:
    """What the compiler is given for a launch.

    Attributes:
        kernel: the ``triton.JITFunction``.
        signature: type of each argument by its name.
        constants: value of each constant by its name.
        aligned: names of the pointers that are a multiple of ``ALIGNMENT``.
        options: of the compiler.
    """

    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    aligned: tuple[str, ...]
    options: dict[str, Any]

    def __str__(self) -> str:
        pointers = {kind for kind in self.signature.values() if kind.startswith('*')}
        kinds = ', '.join(sorted(pointers))
        values = {**self.constants, **self.options}
        chosen = ', '.join(f'{name}={value}' for name, value in values.items())
        return f'{self.kernel.__name__}({kinds}; {chosen})'

    def source(self) -> Any:
        """Return what ``triton.compile`` takes, along with ``options``."""
        from triton.compiler import ASTSource

        place = {name: (i,) for i, name in enumerate(self.kernel.arg_names)}
        constants = {place[name]: value for name, value in self.constants.items()}
        divisible = [['tt.divisibility', ALIGNMENT]]
        attributes = {place[name]: divisible for name in self.aligned}
        return ASTSource(self.kernel, dict(self.signature), constants, attributes)


def record_launches(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """Return a list that every launch is added to from here on; none is run.

    What kernels would have written stays as it was allocated. Switching to the device of fake
    tensors, which is not there, is written down.
    """
    from triton.runtime.jit import JITFunction

    from segnode.kernels.triton.roi_align import level_areas

    launches: list[Launch] = []
    current: list[torch.device] = []

    def record(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        device = current[-1] if current else None
        launches.append(Launch(self, args, kwargs, tuple(grid), device))

    @contextmanager
    def device_of(tensor: Tensor) -> Iterator[None]:
        current.append(tensor.device)
        yield
        current.pop()

    monkeypatch.setattr(JITFunction, 'run', record)
    monkeypatch.setattr(torch.cuda, 'device_of', device_of)
    # It computes, once, which fake tensors do not.
    with unset_fake_temporarily():
        for pooler in POOLERS:
            level_areas(pooler)
    return launches


def variant(launch: Launch) -> Variant:
    """Return what a launch is compiled from."""
    arguments = launch.arguments
    signature, constants, aligned = {}, {}, []
    for parameter in launch.kernel.params:
        name, value = parameter.name, arguments[parameter.name]
        if parameter.is_constexpr:
            signature[name], constants[name] = 'constexpr', value
        elif isinstance(value, Tensor):
            signature[name] = '*' + TYPES[value.dtype]
            if value.storage_offset() * value.element_size() % ALIGNMENT == 0:
                aligned.append(name)
        else:
            signature[name] = 'fp32' if isinstance(value, float) else 'i32'
    return Variant(launch.kernel, signature, constants, tuple(aligned), launch.options)


def variants(launches: Iterable[Launch]) -> list[Variant]:
    """Return each thing to compile once."""
    return list({repr(found): found for found in map(variant, launches)}.values())
