# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the commands share: options made from the configuration, tables and progress."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from segnode.config import Config, Parameter, parameters
from segnode.percentiles import Percentiles

_TYPES = {int: ('N', int), float: ('X', float), str: ('TEXT', str), tuple: ('A,B,...', str)}
_METAVARS = {'model': 'MODEL', 'weights': 'FILE', 'device': 'DEVICE'}


class Parser(argparse.ArgumentParser):
    """A parser that answers wrong use with one line and exit code 2."""

    def __init__(self, command: str, description: str, examples: str) -> None:
        """Prepare a parser; ``examples`` end its help, free text may follow them."""
        super().__init__(
            prog=f'segnode {command}',
            description=description,
            epilog=f'examples:\n{examples}',
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and one line that says what is wrong and where help is."""
        sys.stderr.write(f'segnode: error: {message} (see {self.prog} --help)\n')
        raise SystemExit(2)


def option_name(parameter: Parameter) -> str:
    """Return the command-line option of a setting: ``filter.max_instances`` -> that last part."""
    return '--' + parameter.name.rpartition('.')[2].replace('_', '-')


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add one option for every setting of ``Config``; what is not given stays unset."""
    group = parser.add_argument_group('model and settings')
    for parameter in parameters(Config):
        if isinstance(parameter.default, bool):
            group.add_argument(
                option_name(parameter),
                dest=parameter.name,
                default=argparse.SUPPRESS,
                action=argparse.BooleanOptionalAction,
                help=parameter.description.replace('%', '%%'),
            )
            continue
        metavar, kind = _TYPES[type(parameter.default)]
        unit = f' [{parameter.unit}]' if parameter.unit else ''
        group.add_argument(
            option_name(parameter),
            dest=parameter.name,
            default=argparse.SUPPRESS,
            type=kind,
            choices=parameter.choices or None,
            metavar=None if parameter.choices else _METAVARS.get(parameter.name, metavar),
            help=(parameter.description + unit).replace('%', '%%'),
        )


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that stand on the command line, by dotted name.

    Raises:
        ConfigError: a value is out of range.
    """
    values: dict[str, Any] = {}
    for parameter in parameters(Config):
        if hasattr(options, parameter.name):
            value = getattr(options, parameter.name)
            if isinstance(parameter.default, tuple):
                value = tuple(item.strip() for item in value.split(',') if item.strip())
            values[parameter.name] = parameter.validate(value)
    return values


def config_from(options: argparse.Namespace) -> Config:
    """Return the configuration that the command line asks for.

    Raises:
        ConfigError: a value is out of range, or two of them do not go together.
    """
    return Config().replace(given_settings(options))


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end what is done meanwhile as Ctrl-C does; for the main thread."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def say(text: str = '') -> None:
    """Write a line of a command's result to stdout."""
    sys.stdout.write(text + '\n')


def note(text: str) -> None:
    """Write a remark to stderr, clear of a progress bar."""
    from tqdm import tqdm

    tqdm.write(f'segnode: {text}', file=sys.stderr)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return text columns: the first one flush left, the others flush right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return '\n'.join(
        '  '.join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def stage_summary(stages_ms: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return p50, p95 and max in milliseconds of every stage over frames, in stage order."""
    names = dict.fromkeys(name for stages in stages_ms for name in stages)
    summary = {}
    for name in names:
        values = [stages[name] for stages in stages_ms if name in stages]
        found = Percentiles.interpolated(values)
        summary[name] = {'p50': found.p50, 'p95': found.p95, 'max': found.max}
    return summary


def stage_table(summary: Mapping[str, Mapping[str, float]]) -> str:
    """Return the table of `stage_summary`."""
    rows = [
        (name, f'{ms["p50"]:.1f}', f'{ms["p95"]:.1f}', f'{ms["max"]:.1f}')
        for name, ms in summary.items()
    ]
    return table(('stage', 'p50 ms', 'p95 ms', 'max ms'), rows)
