# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Programs run by OpenVINO, on the processor."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from segnode.checkpoint.exported import ExportedPart
from segnode.engine.openvino_library import binding, core, ov
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

# Sizes of a network input that stay compiled; a robot's cameras and resolutions are few.
MOST_SIZES: Final = 4
_FAILURES: Final = failures_of(binding)
_XML: Final = b'<?xml'
_QUANTISED: Final = 'FakeQuantize'


class OpenVINO:
    """The engine, set up for one folder."""

    def __init__(self, precision: str, report: Callable[[str], None]) -> None:
        """Take the precision of the programs; ``report`` is told the engine's version."""
        self._core = core()
        self._settings = {
            # What is not quantised stays float32 in an INT8 program, as the layers that rank do.
            'INFERENCE_PRECISION_HINT': 'bf16' if precision == 'bf16' else 'f32',
            'INFERENCE_NUM_THREADS': torch.get_num_threads(),
            'NUM_STREAMS': 1,
            'ENABLE_CPU_PINNING': False,
        }
        report(f'OpenVINO {ov.__version__.partition("-")[0]} on the processor')

    def open(self, part: ExportedPart) -> OpenVINOProgram:
        """Load a part.

        Raises:
            CheckpointError: OpenVINO does not take it.
            OutOfMemoryError: there is no room for it.
        """
        # It goes by the content: a program of another format may have its numbers in any file.
        with part.path.open('rb') as stream:
            if stream.read(len(_XML)) != _XML:
                raise CheckpointError(
                    f"{part.path}: expected OpenVINO's own format, found another; export the "
                    'model again'
                )
        try:
            model = self._core.read_model(*part.files)
        except _FAILURES as error:
            raise _refused(part.path, error) from None
        return OpenVINOProgram(self._compile, model, part)

    def _compile(self, model: Any) -> Any:
        return self._core.compile_model(model, 'CPU', self._settings).create_infer_request()


class OpenVINOProgram:
    """See ``segnode.engine.exported.Program``."""

    def __init__(
        self, compile_model: Callable[[Any], Any], model: Any, part: ExportedPart
    ) -> None:
        """Take a model that is not yet compiled; one with any number of rows is at once."""
        self._compile, self._model, self._path = compile_model, model, part.path
        self.most_sizes = MOST_SIZES
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._outputs = len(model.outputs)
        self.takes = _shape(model.inputs[0]) if len(model.inputs) == 1 else ()
        self.gives = tuple(_shape(each) for each in model.outputs)
        self.quantised = any(op.get_type_name() == _QUANTISED for op in model.get_ops())
        self._any_rows = None
        # A head takes any number of RoIs of one size, and is as fast as for a fixed number. A
        # trunk is compiled for each size of image, as it would not be.
        if part.name != 'trunk':
            try:
                self._any_rows = self._compile(model)
            except _FAILURES as error:
                raise _refused(part.path, error) from None

    def __call__(self, x: Array) -> Sequence[Array]:
        """Map an input to the outputs, in the engine's memory: valid until the next call."""
        try:
            request = self._any_rows or self._request(x.shape)
            request.set_input_tensor(ov.Tensor(x, shared_memory=True))
            request.infer()
            return [request.get_output_tensor(n).data for n in range(self._outputs)]
        except _FAILURES as error:
            if is_out_of_memory(error):
                raise MemoryError(first_line(error)) from None
            raise ProgramError(f'{self._path}: {_cause(error)}') from None

    def reserve(self, sizes: int) -> None:
        """Keep so many sizes compiled, and the usual number at least."""
        self.most_sizes = max(sizes, MOST_SIZES)

    def clear(self) -> None:
        """Drop what is compiled for single sizes."""
        self._requests.clear()

    def _request(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._requests:
            fixed = self._model.clone()
            fixed.reshape(list(shape))
            while len(self._requests) >= self.most_sizes:
                self._requests.popitem(last=False)
            self._requests[shape] = self._compile(fixed)
        self._requests.move_to_end(shape)
        return self._requests[shape]


def _shape(port: Any) -> Shape:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return ()
    return tuple(None if side.is_dynamic else side.get_length() for side in shape)


def _refused(path: Path, error: Exception) -> CheckpointError | OutOfMemoryError:
    if is_out_of_memory(error):
        return OutOfMemoryError(f'{path}: cpu has no room for the program')
    return CheckpointError(
        f'{path}: OpenVINO {ov.__version__.partition("-")[0]} does not take it ({_cause(error)}); '
        'export the model again on this machine'
    )


def _cause(error: Exception) -> str:
    """Return what an OpenVINO error says, without where in its sources it was raised."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(('Exception from', 'Check '))]
    return (told or [first_line(error)])[0][:200]
