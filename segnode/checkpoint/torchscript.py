# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Exported (TorchScript) models: their description in YAML; nothing is run here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args

from segnode.checkpoint.message import one_line
from segnode.checkpoint.model import (
    ExportedInput,
    ExportedOutput,
    Labels,
    Layout,
    Masks,
    ModelDescription,
)
from segnode.checkpoint.yaml_file import read_yaml
from segnode.errors import ConfigError

ENGINES: Final = ('fbgemm', 'x86', 'qnnpack', 'onednn')
_MOST_CLASSES: Final = 65_535


def read_description(path: Path) -> ModelDescription:
    """Read a model description.

    Raises:
        CheckpointError: the file is missing or no YAML.
        ConfigError: a field is missing, unknown or has no usable value.
    """
    top = _Fields(path, '', read_yaml(path, 'a model description'))
    given = top.section('input')
    short_side = given.integer('short_side', 0, 65536)
    network_input = ExportedInput(
        layout=given.choice('layout', *get_args(Layout)),
        color=given.choice('color', 'bgr', 'rgb'),
        scale=given.numbers('scale', 1, positive=True)[0],
        mean=given.numbers('mean', 3),
        std=given.numbers('std', 3, positive=True),
        short_side=short_side,
        long_side=given.integer('long_side', 1, 65536, default=None if short_side else 65536),
    )
    given.finish()
    answer = top.section('output')
    network_output = ExportedOutput(
        select=answer.steps('select'),
        boxes=answer.step('boxes'),
        scores=answer.step('scores'),
        labels=answer.step('labels'),
        masks=answer.step('masks'),
    )
    answer.finish()
    top.choice('backend', 'torchscript')
    masks = top.choice('masks', *get_args(Masks), default='crops')
    labels = top.choice('labels', *get_args(Labels))
    description = ModelDescription(
        weights=top.text('weights'),
        quantized_engine=top.choice('quantized_engine', *ENGINES, default=''),
        input=network_input,
        output=network_output,
        labels=labels,
        class_names=top.names('class_names', '' if labels != 'coco_category_id' else labels),
        classes=top.integer('classes', 1, _MOST_CLASSES, default=0),
        masks=masks,
        paste=top.choice(
            'paste',
            'detectron2',
            'torchvision',
            default=None if masks == 'crops' else 'torchvision',
        ),
    )
    top.finish()
    if description.class_names and description.classes not in (0, len(description.class_names)):
        raise ConfigError(
            f'{path}: classes: expected {len(description.class_names)}, the number of '
            f'class_names, found {description.classes}'
        )
    return description


def description_text(description: ModelDescription, remarks: Mapping[str, str]) -> str:
    """Return the YAML that ``read_description`` reads back.

    Args:
        description: what to write.
        remarks: by field, what stands behind it as a comment.
    """
    given, answer = description.input, description.output
    sections: list[tuple[str, dict[str, object]]] = [
        ('', {'backend': 'torchscript', 'weights': description.weights}),
        (
            'input',
            {
                'layout': given.layout,
                'color': given.color,
                'scale': given.scale,
                'mean': list(given.mean),
                'std': list(given.std),
                'short_side': given.short_side,
                'long_side': given.long_side,
            },
        ),
        (
            'output',
            {
                'select': list(answer.select),
                'boxes': answer.boxes,
                'scores': answer.scores,
                'labels': answer.labels,
                'masks': answer.masks,
            },
        ),
        ('', {'masks': description.masks, 'labels': description.labels}),
    ]
    if description.quantized_engine:
        sections[0][1]['quantized_engine'] = description.quantized_engine
    if description.class_names:
        sections[-1][1]['class_names'] = list(description.class_names)
    elif description.classes:
        sections[-1][1]['classes'] = description.classes
    sections[-1][1]['paste'] = description.paste
    lines = []
    for section, fields in sections:
        if section:
            lines.append(f'{section}:')
        for key, value in fields.items():
            name = f'{section}.{key}' if section else key
            # JSON is YAML, and needs no thought about what a text could be taken for.
            text = f'{"  " if section else ""}{key}: {json.dumps(value, ensure_ascii=False)}'
            remark = remarks.get(name, '')
            lines.append(f'{text.ljust(38)}  # {remark}' if remark else text)
    return '\n'.join(lines) + '\n'


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

    def integer(self, key: str, low: int, high: int, *, default: int | None = None) -> int:
        if default is not None and key not in self._fields:
            return default
        value = self._take(key)
        if type(value) is not int or not low <= value <= high:
            raise self._error(key, f'an integer from {low} to {high}', value)
        return value

    def step(self, key: str) -> int | str:
        """Return the key or the number under which something lies."""
        value = self._take(key)
        if type(value) is not int and not (isinstance(value, str) and value):
            raise self._error(key, 'a key or a number', value)
        return value

    def steps(self, key: str) -> tuple[int | str, ...]:
        value = self._take(key)
        if not isinstance(value, list) or not all(type(v) in (int, str) for v in value):
            raise self._error(key, 'a list of numbers and keys', value)
        return tuple(value)

    def names(self, key: str, instead: str) -> tuple[str, ...]:
        """Return a list of texts, empty where it is not given; ``instead`` has its own names."""
        if key not in self._fields:
            return ()
        value = self._take(key)
        if instead:
            raise self._error(key, f'none beside labels: {instead}', value)
        if (
            not isinstance(value, list)
            or not 1 <= len(value) <= _MOST_CLASSES
            or not all(isinstance(v, str) and v.strip() for v in value)
            or len(set(value)) != len(value)
        ):
            raise self._error(key, 'a list of different texts', value)
        return tuple(value)
