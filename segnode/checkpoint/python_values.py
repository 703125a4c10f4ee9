# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Values of configs: how they are shared, lost, copied, added and merged, within bounds."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any, Final

from segnode.errors import CheckpointError

_MOST_VALUES: Final = 300_000
_DEEPEST: Final = 60
_LARGEST_NUMBER: Final = 2**63
_DELETE: Final = '_delete_'


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Stands for a value that only running its config would tell.

    Attributes:
        what: stands there.
        source: its config.
        line: in it.
    """

    what: str
    source: str
    line: int

    def __repr__(self) -> str:
        """Return what a message says of it."""
        return f'{self.what} (line {self.line} of {self.source}), which is never run'


class Budget:
    """How many values a config may still have; texts count by their length.

    Attributes:
        source: the config, for the message.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._left = _MOST_VALUES

    def spend(self, count: int = 1) -> None:
        """Take some of it.

        Raises:
            CheckpointError: none is left.
        """
        self._left -= count
        if self._left < 0:
            raise CheckpointError(
                f'{self.source}: expected a config, found one of more than {_MOST_VALUES} values'
            )

    def charge(self, value: Any) -> None:
        """Take as much as a copy would have, so that a name used often is paid for each time."""
        self.copied(value, Lost())

    def copied(self, value: Any, lost: Lost, depth: int = 0) -> Any:
        """Return a copy that shares nothing, with ``Unresolved`` in place of what is lost."""
        self.spend(1 + len(value) // 16 if isinstance(value, str) else 1)
        if depth > _DEEPEST:
            raise CheckpointError(f'{self.source}: expected a config, found values nested deeply')
        value = lost.found(value)
        if isinstance(value, dict):
            return {key: self.copied(each, lost, depth + 1) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.copied(each, lost, depth + 1) for each in value)
        return value


class BaseDict(dict[Any, Any]):
    """A mapping of a base, whose keys are attributes, too."""


class Lost:
    """Containers that something unknown may have changed, by whatever name they are reached."""

    def __init__(self) -> None:
        # Kept alive, as another container could get the identity of one that is gone.
        self._containers: dict[int, tuple[Any, Unresolved]] = {}

    def add(self, value: Any, why: Unresolved) -> None:
        """Lose a container and all that it holds."""
        waiting = [value]
        while waiting:
            each = waiting.pop()
            if isinstance(each, dict | list | tuple) and id(each) not in self._containers:
                self._containers[id(each)] = each, why
                waiting += each.values() if isinstance(each, dict) else each

    def found(self, value: Any) -> Any:
        """Return a value, ``Unresolved`` if it is lost; a tuple itself does not change."""
        if isinstance(value, dict | list) and id(value) in self._containers:
            return self._containers[id(value)][1]
        return value


def of_base(value: Any, lost: Lost) -> Any:
    """Return what a value becomes in a base: mappings and lists that are of none are copied."""
    value = lost.found(value)
    if isinstance(value, list | tuple):
        return type(value)(of_base(each, lost) for each in value)
    if type(value) is dict:
        return BaseDict({key: of_base(each, lost) for key, each in value.items()})
    return value


def add(left: Any, operator: ast.operator, right: Any, budget: Budget) -> Any:
    """Return the result of a calculation, None where it is none of those that configs need.

    Numbers are added, subtracted, multiplied and divided; texts, lists and tuples are joined, and
    repeated.
    """
    if type(left) in (int, float) and type(right) in (int, float):
        return _number(left, operator, right)
    joins = isinstance(operator, ast.Add) and type(left) is type(right)
    if joins and isinstance(left, str | list | tuple):
        budget.spend(len(left) + len(right))
        return left + right
    if isinstance(operator, ast.Mult):
        if type(left) is int:
            left, right = right, left
        if isinstance(left, str | list | tuple) and type(right) is int:
            budget.spend(max(len(left), 1) * max(right, 0))
            repeated = left * right
            budget.charge(repeated)  # One value in many places costs more than the place.
            return repeated
    return None


def _number(left: float, operator: ast.operator, right: float) -> float | None:
    result: float | None = None
    if isinstance(operator, ast.Add):
        result = left + right
    elif isinstance(operator, ast.Sub):
        result = left - right
    elif isinstance(operator, ast.Mult):
        result = left * right
    elif isinstance(operator, ast.Div) and right:
        result = left / right
    elif isinstance(operator, ast.FloorDiv) and right:
        result = left // right
    return result if result is not None and abs(result) < _LARGEST_NUMBER else None


def merge(given: dict[str, Any], base: dict[str, Any], source: str) -> dict[str, Any]:
    """Return a config's values laid over those of its base, as MMEngine does.

    Mappings are merged key by key, unless ``_delete_`` stands in the upper one.

    Args:
        given: of the config.
        base: of its base.
        source: the config, for the message.

    Raises:
        CheckpointError: a mapping would be merged with something else.
    """
    merged = dict(base)
    for key, value in given.items():
        below = merged.get(key)
        if not isinstance(value, dict):
            merged[key] = value
        elif key not in merged:
            merged[key] = _without_delete(value)
        elif isinstance(delete := value.get(_DELETE), Unresolved):
            merged[key] = delete
        elif delete:
            merged[key] = _without_delete(value)
        elif isinstance(below, Unresolved):
            continue
        elif not isinstance(below, dict):
            raise CheckpointError(
                f'{source}: {key}: expected another value than a dict, or _delete_ in it, as the '
                f'base has {describe(below)}'
            )
        else:
            upper = {name: each for name, each in value.items() if name != _DELETE}
            merged[key] = merge(upper, below, source)
    return merged


def _without_delete(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_delete(each) for key, each in value.items() if key != _DELETE}
    return value


def describe(value: Any, limit: int = 80) -> str:
    """Return a value for a message, cut to ``limit``."""
    if isinstance(value, Unresolved):
        return repr(value)
    if isinstance(value, dict):
        kind = value.get('type')
        named = f' of type {kind!r}' if isinstance(kind, str) else ''
        return f'a dict{named[:limit]}'
    text = repr(value)
    return text if len(text) <= limit else f'{text[: limit - 3]}...'
