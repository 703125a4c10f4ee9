# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Programs run by ONNX Runtime, on the processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state

from segnode.checkpoint.exported import ExportedPart
from segnode.errors import (
    CheckpointError,
    OutOfMemoryError,
    ProgramError,
    failures_of,
    first_line,
    is_out_of_memory,
)

if TYPE_CHECKING:
    from segnode.engine.exported import Array, Shape

_PROVIDERS: Final = ['CPUExecutionProvider']
# Errors are raised, too, with the same text.
_FATAL_ONLY: Final = 4
_FAILURES: Final = failures_of(onnxruntime_pybind11_state)
# The key under which a tensor has the file of its numbers, with its length as protobuf writes it.
_OTHER_FILE: Final = b'\x08location'
_QUANTISED: Final = b'DequantizeLinear'


class ONNXRuntime:
    """The engine, set up for one folder."""

    def __init__(self, report: Callable[[str], None]) -> None:
        """``report`` is told the engine's version."""
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = torch.get_num_threads()
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = _FATAL_ONLY
        report(f'ONNX Runtime {onnxruntime.__version__} on the processor')

    def open(self, part: ExportedPart) -> ONNXRuntimeProgram:
        """Load a part.

        Raises:
            CheckpointError: ONNX Runtime does not take it.
            OutOfMemoryError: there is no room for it.
        """
        try:
            content = part.path.read_bytes()
            if _OTHER_FILE in content:
                raise CheckpointError(
                    f'{part.path}: expected a program with its numbers in it, found one that '
                    'reads them from another file, which nothing vouches for; export the model '
                    'again'
                )
            session = onnxruntime.InferenceSession(content, self._options, providers=_PROVIDERS)
        except _FAILURES as error:
            if is_out_of_memory(error):
                raise OutOfMemoryError(f'{part.path}: cpu has no room for the program') from None
            raise CheckpointError(
                f'{part.path}: ONNX Runtime {onnxruntime.__version__} does not take it '
                f'({first_line(error)[:200]}); export the model again on this machine'
            ) from None
        return ONNXRuntimeProgram(session, part, quantised=_QUANTISED in content)


class ONNXRuntimeProgram:
    """See ``segnode.engine.exported.Program``."""

    def __init__(self, session: Any, part: ExportedPart, *, quantised: bool) -> None:
        """Take a session of one input."""
        self._session, self._path, self.quantised = session, part.path, quantised
        self._gives_back = False
        inputs = session.get_inputs()
        self._input = inputs[0].name if inputs else ''
        self.takes = _shape(inputs[0]) if len(inputs) == 1 else ()
        self.gives = tuple(_shape(each) for each in session.get_outputs())

    def reserve(self, sizes: int) -> None:
        """Nothing is built for sizes."""

    def clear(self) -> None:
        """Give back with the next run what the session's arena then holds unused.

        It keeps the most that a run took, and has no other way to let it go; without an arena,
        or with this in every run, a frame takes some 5 % longer.
        """
        self._gives_back = True

    def __call__(self, x: Array) -> Sequence[Array]:
        """Map an input to the outputs, which are the caller's."""
        try:
            options = _giving_back() if self._gives_back else None
            outputs: list[Array] = self._session.run(None, {self._input: x}, options)
            self._gives_back = False
        except _FAILURES as error:
            if is_out_of_memory(error):
                raise MemoryError(first_line(error)) from None
            raise ProgramError(f'{self._path}: {first_line(error)[:200]}') from None
        return outputs


def _giving_back() -> Any:
    options = onnxruntime.RunOptions()
    options.log_severity_level = _FATAL_ONLY
    options.add_run_config_entry('memory.enable_memory_arena_shrinkage', 'cpu:0')
    return options


def _shape(port: Any) -> Shape:
    return tuple(side if isinstance(side, int) else None for side in port.shape)
