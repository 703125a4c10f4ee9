# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Programs run by ONNX Runtime, on the processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import onnxruntime
import torch

from segnode.checkpoint.exported import ExportedPart
from segnode.errors import CheckpointError, ProgramError, first_line, is_out_of_memory

if TYPE_CHECKING:
    from segnode.engine.exported import Array, Shape

_PROVIDERS: Final = ['CPUExecutionProvider']
_ERRORS_ONLY: Final = 3
# Its own types are made at run time; all but these derive from RuntimeError or ValueError.
_FAILURES: Final = (
    RuntimeError,
    ValueError,
    onnxruntime.capi.onnxruntime_pybind11_state.Fail,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf,
    onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented,
    onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException,
)


class ONNXRuntime:
    """The engine, set up for one folder."""

    def __init__(self, report: Callable[[str], None]) -> None:
        """``report`` is told the engine's version."""
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = torch.get_num_threads()
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = _ERRORS_ONLY
        report(f'ONNX Runtime {onnxruntime.__version__} on the processor')

    def open(self, part: ExportedPart) -> ONNXRuntimeProgram:
        """Load a part.

        Raises:
            CheckpointError: ONNX Runtime does not take it.
        """
        try:
            session = onnxruntime.InferenceSession(
                str(part.path), self._options, providers=_PROVIDERS
            )
        except _FAILURES as error:
            raise CheckpointError(
                f'{part.path}: ONNX Runtime {onnxruntime.__version__} does not take it '
                f'({first_line(error)[:200]}); export the model again on this machine'
            ) from None
        return ONNXRuntimeProgram(session, part)


class ONNXRuntimeProgram:
    """See ``segnode.engine.exported.Program``."""

    def __init__(self, session: Any, part: ExportedPart) -> None:
        """Take a session of one input."""
        self._session, self._path = session, part.path
        inputs = session.get_inputs()
        self._input = inputs[0].name if inputs else ''
        self.takes = _shape(inputs[0]) if len(inputs) == 1 else ()
        self.gives = tuple(_shape(each) for each in session.get_outputs())

    def reserve(self, sizes: int) -> None:
        """Nothing is built for sizes."""

    def clear(self) -> None:
        """Nothing is held between frames."""

    def __call__(self, x: Array) -> Sequence[Array]:
        """Map an input to the outputs, which are the caller's."""
        try:
            outputs: list[Array] = self._session.run(None, {self._input: x})
        except _FAILURES as error:
            if is_out_of_memory(error):
                raise MemoryError(first_line(error)) from None
            raise ProgramError(f'{self._path}: {first_line(error)[:200]}') from None
        return outputs


def _shape(port: Any) -> Shape:
    return tuple(side if isinstance(side, int) else None for side in port.shape)
