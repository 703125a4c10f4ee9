# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Configs of MMDetection, which are Python, read without running them.

What a checkpoint carries is plain: assignments of literals and of ``dict(...)``. What people write
has earlier names, sums, ``_base_`` files and what these define, too. All else makes a value
``Unresolved``: it is refused where it is needed, and only there.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from pathlib import Path
from typing import Any, Final

from segnode.checkpoint.message import one_line
from segnode.checkpoint.python_module import DUMP, PythonModule
from segnode.checkpoint.python_values import Budget, Unresolved, describe, merge
from segnode.checkpoint.weights_file import check_file
from segnode.errors import CheckpointError
from segnode.text_files import read_at_most

_LARGEST: Final = 512 << 10
_MOST_FILES: Final = 64
_DEEPEST_BASE: Final = 16
# Python's parser and its trees nest by operators and by these words; brackets it counts itself.
_MOST_OPERATORS: Final = 2000
_LONGEST_NUMBER: Final = 64
_NESTING: Final = frozenset({'not', 'lambda', 'if', 'elif', 'else', 'for', 'await', 'yield'})
_FLAT: Final = frozenset(',()[]{}=:;')
_PATH_LINE: Final = re.compile(r'^[\w./~+\\:-]+\.py[ \t]*$', re.M)


def read_python_config(path: Path) -> dict[str, Any]:
    """Return the values of a config file, laid over those of its ``_base_`` files.

    Returns:
        Values by name: dicts, lists, tuples, texts, numbers, None, and ``Unresolved`` anywhere.

    Raises:
        CheckpointError: a file is missing, too large, no Python, or its own base.
    """
    return _Files().read(path, ())


def parse_python_config(text: str, source: str) -> dict[str, Any]:
    """Return the values of a config's text that a checkpoint carries.

    Args:
        text: as MMDetection dumps it; lines that are a path, which early versions put in front,
            are left out.
        source: names it in messages.

    Raises:
        CheckpointError: it is too large, no Python, or names bases, which are not there.
    """
    if len(text) > _LARGEST:
        raise CheckpointError(
            f'{source}: expected a config, found one of more than {_LARGEST >> 10} KiB'
        )
    tree = _parse(_PATH_LINE.sub('', text), source)
    if _base_names(tree, source):
        raise CheckpointError(
            f'{source}: expected a whole config, found one with _base_ files; {DUMP}'
        )
    module = PythonModule(source, Path(), {}, Budget(source))
    module.run(tree.body)
    return module.results()[0]


class _Files:
    """The files of one config."""

    def __init__(self) -> None:
        self._count = 0
        self._budget = Budget('')

    def read(self, path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
        """Return the values of a file over those of its bases."""
        check_file(path, 'a config')
        resolved = path.resolve()
        self._count += 1
        if resolved in chain or len(chain) == _DEEPEST_BASE or self._count > _MOST_FILES:
            raise CheckpointError(
                f'{path}: expected other configs as _base_, found one that is its own base, or '
                f'more than {_MOST_FILES} files'
            )
        data = read_at_most(path, _LARGEST)
        if data is None:
            raise CheckpointError(
                f'{path}: expected a config, found a file of more than {_LARGEST >> 10} KiB'
            )
        try:
            tree = _parse(data.decode('utf-8-sig'), str(path))
        except UnicodeDecodeError:
            raise CheckpointError(
                f'{path}: expected a config in UTF-8, found other bytes'
            ) from None
        base: dict[str, Any] = {}
        for name in _base_names(tree, str(path)):
            given = self.read(_base_path(path, name), (*chain, resolved))
            # What both import, say, is no value of a config, or none that is known.
            twice = [
                key
                for key in sorted(base.keys() & given.keys())
                if not (isinstance(base[key], Unresolved) and isinstance(given[key], Unresolved))
            ]
            if twice:
                raise CheckpointError(
                    f'{path}: _base_: expected each key in one base alone, found '
                    f'{one_line(twice[0])} in two'
                )
            base |= given
        self._budget.source = str(path)
        module = PythonModule(str(path), path, base, self._budget)
        module.run(tree.body)
        names, base = module.results()
        names.pop('_base_', None)
        return merge(names, base, str(path))


def _base_path(path: Path, name: str) -> Path:
    if '://' in name or '::' in name:
        raise CheckpointError(
            f'{path}: _base_: expected a file, found {one_line(name)}, which is never fetched; '
            f'{DUMP}'
        )
    base = path.parent / name
    try:
        found = base.is_file()
    except OSError:  # too long a name
        found = False
    if base.suffix != '.py' or not found:
        raise CheckpointError(
            f'{path}: _base_: expected a Python config, found '
            f'{"another file" if found else "no such file"}: {one_line(base)}; {DUMP}'
        )
    return base


def _parse(text: str, source: str) -> ast.Module:
    """Return the tree of a text, whose depth and numbers are bounded before it is parsed."""
    operators, before = 0, ''
    expected = f'{source}: expected a Python config, found'
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NUMBER and len(token.string) > _LONGEST_NUMBER:
                raise CheckpointError(f'{expected} a number of {len(token.string)} letters')
            nests = token.type == tokenize.OP and token.string not in _FLAT
            # A call of what a call returned, and so on; parts of a formatted text, too.
            chained = token.string in ('(', '[', '{') and before in (')', ']', '}')
            operators += nests or chained or token.string in _NESTING
            if token.type == tokenize.STRING and 'f' in token.string[:2].lower():
                operators += token.string.count('{')
            before = token.string
            if operators > _MOST_OPERATORS:
                raise CheckpointError(f'{expected} more than {_MOST_OPERATORS} operators')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of odd escapes
            return ast.parse(text)
    except (SyntaxError, tokenize.TokenError, ValueError, MemoryError, RecursionError) as error:
        line = f' in line {error.lineno}' if isinstance(error, SyntaxError) else ''
        raise CheckpointError(f'{expected} none{line} ({one_line(error)}); {DUMP}') from None


def _base_names(tree: ast.Module, source: str) -> list[str]:
    """Return what ``_base_`` names."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == '_base_' for target in statement.targets
        ):
            value = PythonModule(source, Path(source), {}, Budget(source)).run_alone(statement)
            names = [value] if isinstance(value, str) else value
            if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
                raise CheckpointError(
                    f'{source}: _base_: expected names of configs, found {describe(value)}; {DUMP}'
                )
            return list(names)
    return []
