# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Dataclasses as plain data, JSON's types alone, and back: an architecture in a manifest."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar('T')

# Names the class, as a field may hold one of several.
KIND = 'kind'
_LARGEST = 1 << 31


def to_plain(value: Any) -> Any:
    """Return dataclasses, tuples, numbers and texts as what JSON holds."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {KIND: type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [to_plain(each) for each in value]
    return value


def from_plain(kind: type[T], value: object, where: str) -> T:
    """Return the dataclass that plain data stands for.

    Args:
        kind: its class.
        value: from ``to_plain``, or from anybody.
        where: of the value, for messages.

    Raises:
        ValueError: a field is missing, unknown or of another type; its text has all three.
    """
    built: T = _build(kind, value, where)
    return built


def _build(kind: Any, value: object, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    if origin in (Union, types.UnionType):
        return _build_one_of(arguments, value, where)
    if origin is Literal and any(
        value == each and type(value) is type(each) for each in arguments
    ):
        return value
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is Ellipsis:
            arguments = arguments[:1] * len(value)
        if len(arguments) == len(value):
            pairs = zip(arguments, value, strict=True)
            return tuple(_build(k, v, f'{where}[{n}]') for n, (k, v) in enumerate(pairs))
    # Python's own numbers have no end, and those of the network's do.
    small = not isinstance(value, int) or abs(value) <= _LARGEST
    if kind is float and type(value) in (int, float) and small and math.isfinite(value):  # type: ignore[arg-type]
        return float(value)  # type: ignore[arg-type]
    if small and kind in (int, str, bool, type(None)) and type(value) is kind:
        return value
    raise ValueError(f'{where}: expected {_named(kind)}, found {_short(value)}')


def _short(value: object) -> str:
    # An int of too many digits cannot be made a text.
    large = isinstance(value, int) and abs(value) > _LARGEST
    return 'a number far too large' if large else repr(str(value)[:60])


def _build_dataclass(kind: Any, value: object, where: str) -> Any:
    names = {field.name for field in dataclasses.fields(kind)}
    if not isinstance(value, Mapping) or value.get(KIND) != kind.__name__:
        raise ValueError(f'{where}: expected {kind.__name__}, found {str(value)[:60]!r}')
    if different := sorted(str(name) for name in names ^ (set(value) - {KIND})):
        raise ValueError(f'{where}: expected other fields, {", ".join(different)} differ')
    hints = get_type_hints(kind)
    return kind(**{name: _build(hints[name], value[name], f'{where}.{name}') for name in names})


def _build_one_of(kinds: tuple[Any, ...], value: object, where: str) -> Any:
    found = value.get(KIND) if isinstance(value, Mapping) else None
    for kind in kinds:
        if found is not None and getattr(kind, '__name__', '') == found:
            return _build_dataclass(kind, value, where)
        if found is None and not dataclasses.is_dataclass(kind):
            try:
                return _build(kind, value, where)
            except ValueError:
                continue
    raise ValueError(
        f'{where}: expected one of {", ".join(map(_named, kinds))}, found {_short(value)}'
    )


def _named(kind: Any) -> str:
    return getattr(kind, '__name__', '') if isinstance(kind, type) else str(kind)
