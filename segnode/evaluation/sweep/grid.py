# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The rows of a sweep: every combination of the values that are to be varied."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from segnode.config import Config, Parameter, parameters
from segnode.errors import ConfigError

MOST_ROWS: Final = 1000

_BOOLEANS = {'true': True, 'false': False}
# What changes no frame's answer or time.
_NOT_VARIED = ('refresh', 'memory_limit_mb')


@dataclass(frozen=True, slots=True)
class Row:
    """A combination.

    Attributes:
        varied: the values that tell it from the others, by dotted name.
        config: all of its settings.
    """

    varied: dict[str, Any]
    config: Config


def parse_variations(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Return the values of every setting that is to be varied, by dotted name.

    Args:
        texts: ``NAME=V,V`` each, where NAME is a setting's dotted name or the last part of it as
            its option has it; the names of a list of names are divided by ``+``, and nothing at
            all is an empty list.

    Raises:
        ConfigError: an unknown or repeated name, or a value that does not fit.
    """
    variations: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        name, equals, values = text.partition('=')
        if not equals:
            raise ConfigError(f'--vary: expected NAME=VALUE,VALUE, found {text!r}')
        parameter = _parameter(name.strip())
        if parameter.name in variations:
            raise ConfigError(f'--vary: expected each setting once, found {parameter.name} again')
        found = (_value(parameter, value.strip()) for value in values.split(','))
        variations[parameter.name] = tuple(dict.fromkeys(found))
    return variations


def make_rows(
    base: Config, variations: Mapping[str, Sequence[Any]]
) -> tuple[list[Row], list[str]]:
    """Return the rows in the order of their values, the last setting's changing fastest.

    Args:
        base: has all that is not varied.
        variations: values by dotted name, from `parse_variations`.

    Returns:
        The rows, and why combinations were left out whose values do not go together.

    Raises:
        ConfigError: there are more than ``MOST_ROWS``, or none.
    """
    count = math.prod(len(values) for values in variations.values())
    if count > MOST_ROWS:
        factors = ' x '.join(str(len(values)) for values in variations.values())
        raise ConfigError(
            f'--vary: expected at most {MOST_ROWS} combinations, found {count} ({factors}); '
            'give fewer values'
        )
    rows, left_out = [], []
    for values in itertools.product(*variations.values()):
        varied = dict(zip(variations, values, strict=True))
        try:
            rows.append(Row(varied, base.replace(varied)))
        except ConfigError as error:
            left_out.append(f'{label(varied)}: {error}')
    if not rows:
        raise ConfigError(f'--vary: expected values that go together, found none ({left_out[0]})')
    return rows, left_out


def label(varied: Mapping[str, Any]) -> str:
    """Return a row's values for people: ``short_side=240 min_mask_area=200``."""
    return ' '.join(f'{short_name(name)}={shown(value)}' for name, value in varied.items())


def short_name(name: str) -> str:
    """Return the last part of a dotted name, which no two settings share."""
    return name.rpartition('.')[2]


def shown(value: object) -> str:
    """Return a value as ``--vary`` takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f'{value:g}'
    if isinstance(value, tuple | list):
        return '+'.join(value) or 'all'
    return str(value)


def _parameter(name: str) -> Parameter:
    known = {p.name: p for p in parameters(Config) if p.name not in _NOT_VARIED}
    plain = name.removeprefix('--').replace('-', '_')
    options = {short_name(dotted): dotted for dotted in known}
    if plain in known:
        return known[plain]
    if plain in options:
        return known[options[plain]]
    near = difflib.get_close_matches(plain, [*known, *options], n=1)
    meant = f'did you mean {options.get(near[0], near[0])}?' if near else _listed(known)
    raise ConfigError(f'--vary: expected the name of a setting, found {name!r}; {meant}')


def _listed(names: Iterable[str]) -> str:
    return f'known are {", ".join(names)}'


def _value(parameter: Parameter, text: str) -> Any:
    """Return a value of a setting.

    Raises:
        ConfigError: it does not fit.
    """
    kind = type(parameter.default)
    value: object = text
    if kind is tuple:
        value = [item.strip() for item in text.split('+') if item.strip()]
    elif kind is bool:
        value = _BOOLEANS.get(text.lower(), text)
    elif kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            what = 'a whole number' if kind is int else 'a number'
            raise ConfigError(f'{parameter.name}: expected {what}, found {text!r}') from None
    return parameter.validate(value)
