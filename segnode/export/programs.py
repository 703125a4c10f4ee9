# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Traced parts in the format of another engine.

Layers carry the names of the network's own modules in every format, so that what is kept in
float32, or printed, can be named.
"""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
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
        layers = {name.partition('#')[0] for name in part.layers.values()}
        stored = {tensor.name for tensor in model.graph.initializer}
        seen: dict[str, int] = {}
        for node in model.graph.node:
            if node.op_type not in _ONNX_MULTIPLY or node.input[1] not in stored:
                continue
            # Weights of a product are transposed beforehand, under a name of their own, and equal
            # ones of two layers are stored once.
            layer = _module_of(node)
            layer = layer if layer in layers else node.input[1].removesuffix('.weight')
            if layer in layers:
                count = seen.get(layer, 0)
                seen[layer] = count + 1
                node.name = f'{layer}#{count}' if count else layer
        return model

    def layers(self, model: Any) -> list[str]:
        return [node.name for node in model.graph.node if node.op_type in _ONNX_MULTIPLY]

    def save(self, model: Any, path: Path) -> list[Path]:
        path = path.with_suffix('.onnx')
        self._onnx.save_model(without_sources(model), str(path))
        return [path]


_ONNX_MULTIPLY = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')


def _module_of(node: Any) -> str:
    """Return which module the exporter says that a node came from."""
    said = {each.key: each.value for each in node.metadata_props}
    try:
        # From the outermost module to the call.
        scopes = ast.literal_eval(said['pkg.torch.onnx.name_scopes'])
        return str(scopes[-2])
    except (KeyError, ValueError, SyntaxError, TypeError, IndexError):
        return ''


def without_sources(model: Any) -> Any:
    """Remove from an ONNX model what the exporter noted of its source code, and return it."""
    graphs = [model.graph]
    for graph in graphs:
        noted = (graph.node, graph.input, graph.output, graph.value_info, graph.initializer)
        for each in (graph, *itertools.chain(*noted)):
            each.ClearField('metadata_props')
            each.ClearField('doc_string')
        for attribute in itertools.chain(*(node.attribute for node in graph.node)):
            graphs += [*([attribute.g] if attribute.HasField('g') else []), *attribute.graphs]
    return model


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
