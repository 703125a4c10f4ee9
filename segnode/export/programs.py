# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Traced parts in the format of another engine.

Layers carry the names of the network's own modules in every format, so that what is kept in
float32, or printed, can be named.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from segnode.checkpoint.exported import Format
from segnode.errors import ConfigError
from segnode.export.parts import PartProgram


class Writer(Protocol):
    """One format.

    Attributes:
        versions: of the libraries that make it.
    """

    versions: dict[str, str]

    def convert(self, part: PartProgram) -> Any:
        """Return a part in the library's own class."""
        ...

    def layers(self, model: Any) -> list[str]:
        """Return the names of a converted part's layers."""
        ...

    def save(self, model: Any, path: Path) -> list[Path]:
        """Write a converted part; return its files, the one to open first."""
        ...


def select_writer(form: Format) -> Writer:
    """Return what writes a format.

    Raises:
        ConfigError: a library is not installed.
    """
    packages = {'openvino': 'openvino', 'onnx': 'onnx onnxscript'}[form]
    try:
        return _OpenVINOWriter() if form == 'openvino' else _ONNXWriter()
    except ImportError as error:
        raise ConfigError(
            f'--format {form}: expected the Python packages {packages}, which cannot be imported '
            f'here ({error}); `pip install {packages}`, or install segnode with its extra [export]'
        ) from None


class _OpenVINOWriter:
    """OpenVINO's intermediate representation: an .xml of the graph and a .bin of the numbers."""

    def __init__(self) -> None:
        from segnode.engine.openvino_library import ov

        self._ov = ov
        self.versions = {'openvino': ov.__version__}

    def convert(self, part: PartProgram) -> Any:
        with quiet():
            model = self._ov.convert_model(part.program)
        for op in model.get_ordered_ops():
            call, _, _ = op.get_friendly_name().partition('/')
            if op.get_type_name() in _MULTIPLY and call in part.layers:
                op.set_friendly_name(part.layers[call])
        for output, name in zip(model.outputs, part.outputs, strict=True):
            output.get_tensor().set_names({name})
        # The converter leaves every side open.
        example = part.program.example_inputs[0][0]
        rows, *sides = example.shape
        fixed = [rows, *sides] if part.network_hw else [1, -1, -1, sides[-1]]
        model.reshape(fixed if part.name == 'trunk' else [-1, *sides])
        return model

    def layers(self, model: Any) -> list[str]:
        return [
            op.get_friendly_name()
            for op in model.get_ordered_ops()
            if op.get_type_name() in _MULTIPLY
        ]

    def save(self, model: Any, path: Path) -> list[Path]:
        path = path.with_suffix('.xml')
        self._ov.save_model(model, path, compress_to_fp16=False)
        return [path, path.with_suffix('.bin')]


_MULTIPLY = (
    'Convolution', 'GroupConvolution', 'ConvolutionBackpropData', 'MatMul',
)  # fmt: skip


class _ONNXWriter:
    """ONNX of the standard operators."""

    def __init__(self) -> None:
        import onnx
        import onnxscript

        self._onnx = onnx
        self.versions = {'onnx': onnx.__version__, 'onnxscript': onnxscript.__version__}

    def convert(self, part: PartProgram) -> Any:
        import torch

        with quiet():
            converted = torch.onnx.export(
                part.program, dynamo=True, verbose=False, output_names=list(part.outputs)
            )
        assert converted is not None
        model = converted.model_proto
        weights = set(part.layers.values())
        seen: dict[str, int] = {}
        for node in model.graph.node:
            layer = node.input[1].removesuffix('.weight') if len(node.input) > 1 else ''
            if layer in weights:
                count = seen.get(layer, 0)
                seen[layer] = count + 1
                node.name = f'{layer}#{count}' if count else layer
        return model

    def layers(self, model: Any) -> list[str]:
        kinds = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
        return [node.name for node in model.graph.node if node.op_type in kinds]

    def save(self, model: Any, path: Path) -> list[Path]:
        path = path.with_suffix('.onnx')
        self._onnx.save_model(model, str(path))
        return [path]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what converters print and warn of to themselves."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)
