# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Exported (TorchScript) models: their description in YAML; nothing is run here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from segnode.checkpoint.message import one_line
from segnode.checkpoint.model import (
    ExportedInput,
    ExportedOutput,
    ModelDescription,
)
from segnode.checkpoint.yaml_file import read_yaml
from segnode.errors import ConfigError

_ENGINES: Final = ('fbgemm', 'x86', 'qnnpack', 'onednn')


def read_description(path: Path) -> ModelDescription:
    """Read a model description.

    Raises:
        CheckpointError: the file is missing or no YAML.
        ConfigError: a field is missing, unknown or has no usable value.
    """
    top = _Fields(path, '', read_yaml(path, 'a model description'))
    given = top.section('input')
    network_input = ExportedInput(
        layout=given.choice('layout', 'list_of_chw'),
        color=given.choice('color', 'bgr', 'rgb'),
        scale=given.numbers('scale', 1, positive=True)[0],
        mean=given.numbers('mean', 3),
        std=given.numbers('std', 3, positive=True),
        short_side=given.side('short_side'),
        long_side=given.side('long_side'),
    )
    given.finish()
    answer = top.section('output')
    network_output = ExportedOutput(
        select=answer.indices('select'),
        boxes=answer.text('boxes'),
        scores=answer.text('scores'),
        labels=answer.text('labels'),
        masks=answer.text('masks'),
    )
    answer.finish()
    top.choice('backend', 'torchscript')
    description = ModelDescription(
        weights=top.text('weights'),
        quantized_engine=top.choice('quantized_engine', *_ENGINES, default=''),
        input=network_input,
        output=network_output,
        labels=top.choice('labels', 'coco_category_id', 'index'),
        paste=top.choice('paste', 'detectron2', 'torchvision'),
    )
    top.finish()
    return description


class _Fields:
    """The fields of one section of a description, checked as they are taken."""

    def __init__(self, path: Path, prefix: str, fields: Mapping[str, Any]) -> None:
        self._path = path
        self._prefix = prefix
        self._fields = dict(fields)

    def _take(self, key: str) -> Any:
        if key not in self._fields:
            raise ConfigError(f'{self._path}: {self._prefix}{key}: expected a value, found none')
        return self._fields.pop(key)

    def _error(self, key: str, expected: str, value: object) -> ConfigError:
        return ConfigError(
            f'{self._path}: {self._prefix}{key}: expected {expected}, found {repr(value)[:80]}'
        )

    def finish(self) -> None:
        """Refuse what was not taken."""
        for key in self._fields:
            raise ConfigError(
                f'{self._path}: {self._prefix}{one_line(key)}: expected a field of a model '
                'description, found an unknown one'
            )

    def section(self, key: str) -> _Fields:
        value = self._take(key)
        if not isinstance(value, dict):
            raise self._error(key, 'fields under it', value)
        return _Fields(self._path, f'{self._prefix}{key}.', value)

    def text(self, key: str) -> str:
        value = self._take(key)
        if not isinstance(value, str) or not value:
            raise self._error(key, 'a text', value)
        return value

    def choice(self, key: str, *choices: str, default: str | None = None) -> Any:
        if default is not None and key not in self._fields:
            return default
        value = self._take(key)
        if value not in choices:
            raise self._error(key, ' or '.join(choices), value)
        return value

    def numbers(self, key: str, count: Literal[1, 3], *, positive: bool = False) -> Any:
        value = self._take(key)
        values = value if isinstance(value, list) else [value]
        if (
            (count > 1) != isinstance(value, list)
            or len(values) != count
            or not all(type(v) in (int, float) and abs(v) < 1e9 for v in values)
            or (positive and not all(v > 0 for v in values))
        ):
            kind = 'positive number' if positive else 'number'
            raise self._error(key, f'{count} {kind}{"s" if count > 1 else ""}', value)
        return tuple(float(v) for v in values)

    def side(self, key: str) -> int:
        value = self._take(key)
        if type(value) is not int or not 1 <= value <= 65536:
            raise self._error(key, 'pixels', value)
        return value

    def indices(self, key: str) -> tuple[int, ...]:
        value = self._take(key)
        if not isinstance(value, list) or not all(type(v) is int for v in value):
            raise self._error(key, 'a list of integers', value)
        return tuple(value)
