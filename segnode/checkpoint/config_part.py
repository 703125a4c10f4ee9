# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""One mapping of an MMDetection config, whose keys are checked as they are taken.

What is left when all known keys were taken might change the answer, so it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from segnode.checkpoint.message import one_line
from segnode.checkpoint.python_module import DUMP
from segnode.checkpoint.python_values import Unresolved, describe
from segnode.errors import ConfigError

# Keys that any part may have: where its first weights came from, and whose classes are meant.
_EVERYWHERE: Final = ('init_cfg', '_scope_', 'pretrained')
# Whose types a name may stand for; what others call by the same name may be anything.
_LIBRARIES: Final = ('', 'mmdet', 'mmcv', 'mmengine')
_CLASSIFIERS: Final = ('mmpretrain', 'mmcls')
# A smaller one divides by next to nothing.
_SMALLEST: Final = 1e-6
REQUIRED: Final = object()


class ConfigPart:
    """A mapping below the name under which the config has it."""

    def __init__(self, content: dict[Any, Any], name: str, source: str) -> None:
        """Take a mapping.

        Args:
            content: the mapping.
            name: dotted, empty for the whole config.
            source: the config, for messages.
        """
        self._content = content
        self._name = name
        self._source = source
        self._taken = set(_EVERYWHERE)

    def error(self, key: str, expected: str, hint: str = '') -> ConfigError:
        """Return the refusal of a key's value."""
        found = describe(self._content[key]) if key in self._content else 'none'
        if isinstance(self._content.get(key), Unresolved):
            hint = DUMP
        name = f'{self._name}.{key}' if self._name else key
        more = f'; {hint}' if hint else ''
        return ConfigError(
            f'{self._source}: {one_line(name)}: expected {expected}, found {found}{more}'
        )

    def has(self, key: str) -> bool:
        """Tell whether a key has a value other than None."""
        return self._content.get(key) is not None

    def value(self, key: str, default: Any = REQUIRED, expected: str = 'a value') -> Any:
        """Return the value of a key, or MMDetection's default."""
        self._taken.add(key)
        value = self._content.get(key, default)
        if value is REQUIRED or isinstance(value, Unresolved):
            raise self.error(key, expected)
        return value

    def ignore(self, *keys: str) -> None:
        """Take keys whose values do not change the answer."""
        self._taken.update(keys)

    def end(self) -> None:
        """Refuse what is left.

        Raises:
            ConfigError: a key is not known here.
        """
        for key in self._content:
            if key not in self._taken:
                raise self.error(str(key), 'no such key, as it may change the answer')

    def part(self, key: str, expected: str = 'a dict') -> ConfigPart:
        """Return the mapping of a key."""
        value = self.value(key, expected=expected)
        if not isinstance(value, dict):
            raise self.error(key, expected)
        name = f'{self._name}.{key}' if self._name else key
        return ConfigPart(value, name, self._source)

    def parts(self, key: str, expected: str = 'a list of dicts') -> list[ConfigPart]:
        """Return the mappings of a key's list."""
        values = self.value(key, expected=expected)
        if not isinstance(values, list | tuple) or not all(isinstance(v, dict) for v in values):
            raise self.error(key, expected)
        name = f'{self._name}.{key}' if self._name else key
        return [
            ConfigPart(value, f'{name}[{index}]', self._source)
            for index, value in enumerate(values)
        ]

    def kind(self, expected: str, *known: str, default: Any = REQUIRED) -> str:
        """Return the part's ``type`` without the library in front of it.

        Args:
            expected: for the message.
            known: types that are run; ``mmpretrain.`` in front of one stands for any name of
                that library.
            default: where there is none.

        Raises:
            ConfigError: it is another, or one of another library.
        """
        value = self.value('type', default, expected)
        if not isinstance(value, str):
            raise self.error('type', expected)
        library, _, name = value.rpartition('.')
        library = library.partition('.')[0]
        wanted = f'mmpretrain.{name}' if library in _CLASSIFIERS else name
        if library not in _LIBRARIES + _CLASSIFIERS or wanted not in known:
            raise self.error('type', expected)
        return name

    def only(self, key: str, default: Any, *values: Any, hint: str = '') -> None:
        """Refuse a value other than the default and ``values``, of which lists may be tuples."""
        choices = [_plain(each) for each in (default, *values) if each is not REQUIRED]
        expected = ' or '.join(map(repr, choices))
        value = _plain(self.value(key, default, expected))
        if not any(value == each and type(value) is type(each) for each in choices):
            raise self.error(key, expected, hint)

    def choice(self, key: str, default: Any, *choices: Any) -> Any:
        """Return a value that is one of ``choices``."""
        expected = f'{"one of " if len(choices) > 1 else ""}{", ".join(map(repr, choices))}'
        value = self.value(key, default, expected)
        if not any(value == each and type(value) is type(each) for each in choices):
            raise self.error(key, expected)
        return value

    def flag(self, key: str, default: Any) -> bool:
        """Return True or False."""
        return bool(self.choice(key, default, True, False))

    def integer(self, key: str, default: Any, low: int, high: int) -> int:
        """Return a whole number within bounds."""
        expected = f'an integer from {low} to {high}'
        value = self.value(key, default, expected)
        if type(value) is not int or not low <= value <= high:
            raise self.error(key, expected)
        return value

    def number(self, key: str, default: Any, low: float, high: float) -> float:
        """Return a number within bounds."""
        expected = f'a number from {low:g} to {high:g}'
        value = self.value(key, default, expected)
        if type(value) not in (int, float) or not low <= value <= high:
            raise self.error(key, expected)
        return float(value)

    def numbers(
        self, key: str, default: Any, count: int | None = None, *, positive: bool = False
    ) -> tuple[float, ...]:
        """Return a list of numbers, ``count`` of them or any number but 0."""
        expected = f'{count or "some"} numbers{f" from {_SMALLEST:g} up" if positive else ""}'
        value = self.value(key, default, expected)
        if (
            not isinstance(value, list | tuple)
            or len(value) != (count or len(value))
            or not value
            or not all(
                type(v) in (int, float) and abs(v) < 1e9 and (v >= _SMALLEST or not positive)
                for v in value
            )
        ):
            raise self.error(key, expected)
        return tuple(float(v) for v in value)

    def integers(self, key: str, default: Any, count: int, high: int) -> tuple[int, ...]:
        """Return ``count`` whole numbers from 1 to ``high``."""
        expected = f'{count} integers from 1 to {high}'
        value = self.value(key, default, expected)
        if (
            not isinstance(value, list | tuple)
            or len(value) != count
            or not all(type(v) is int and 0 < v <= high for v in value)
        ):
            raise self.error(key, expected)
        return tuple(value)

    def square(self, key: str, default: Any) -> int:
        """Return the side of what may be written as a side or as two equal ones."""
        value = self.value(key, default, 'a side')
        sides: Sequence[Any] = value if isinstance(value, list | tuple) else (value, value)
        if len(sides) != 2 or sides[0] != sides[1] or type(sides[0]) is not int:
            raise self.error(key, 'a side, or two equal ones')
        if not 1 <= sides[0] <= 256:
            raise self.error(key, 'a side from 1 to 256')
        return int(sides[0])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
