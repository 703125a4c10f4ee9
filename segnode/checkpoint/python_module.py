# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A Python config's statements, followed as far as they are plain; nothing is called or imported.

Names share containers as they do in Python. Whatever is not followed makes all that it could
change ``Unresolved``, by whatever name it is reached.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segnode.checkpoint.message import one_line
from segnode.checkpoint.python_values import BaseDict, Budget, Lost, Unresolved, add, of_base
from segnode.errors import CheckpointError

DUMP: Final = (
    "give MMDetection's dump of it, which has everything in one file: the .py that training wrote "
    'beside the checkpoint, or what tools/misc/print_config.py --save-path writes'
)
# By these any name can be changed without being named.
_ANYTHING: Final = frozenset({'exec', 'eval', 'globals', 'locals', 'vars'})
# What gives a name to something otherwise than by ast.Name.
_NAMING: Final = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef),
    *(ast.ExceptHandler, ast.MatchAs, ast.MatchStar),
)
# What runs later, if at all, with what its names stand for then.
_LATER: Final = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef),
    *(ast.Lambda, ast.GeneratorExp),
)
# What MMEngine puts into texts.
_PLACE: Final = re.compile(
    r'\{\{\s*(fileDirname|fileBasename|fileBasenameNoExtension|fileExtname)\s*\}\}'
)


@dataclass(slots=True)
class _Place:
    """Where an assignment to a part of a value goes."""

    container: Any
    key: Any


class PythonModule:
    """One file as it would run, statement by statement.

    Attributes:
        names: what it has defined.
    """

    def __init__(self, source: str, path: Path, base: dict[str, Any], budget: Budget) -> None:
        self.names: dict[str, Any] = {}
        self._source = source
        self._budget = budget
        self._lost = Lost()
        self._base = of_base(base, self._lost)
        # Of functions, which may change it whenever they run.
        self._captured: set[str] = set()
        self._predefined = {
            'fileDirname': path.parent.as_posix(),
            'fileBasename': path.name,
            'fileBasenameNoExtension': path.stem,
            'fileExtname': path.suffix,
        }

    def run(self, statements: Iterable[ast.stmt]) -> None:
        """Follow statements.

        Raises:
            CheckpointError: they import all names of another module, may change any name
                unnamed, or their values are too many or nested too deeply.
        """
        for statement in statements:
            for each in ast.walk(statement):
                if (
                    isinstance(each, ast.Name)
                    and isinstance(each.ctx, ast.Load)
                    and each.id in _ANYTHING
                    and each.id not in self.names
                ):
                    raise CheckpointError(
                        f'{self._source}: line {each.lineno}: expected a config that can be '
                        f'followed, found {each.id}, which may change all of it; {DUMP}'
                    )
            try:
                self._statement(statement)
            except RecursionError:
                raise CheckpointError(
                    f'{self._source}: expected a config, found values nested too deeply in line '
                    f'{statement.lineno}'
                ) from None

    def results(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what the file has defined and what it has made of its base, sharing nothing.

        Raises:
            CheckpointError: they are too many values, or nested too deeply.
        """
        base = self._lost.found(self._base)
        if isinstance(base, Unresolved):
            base = dict.fromkeys(self._base, base)
        return self._budget.copied(self.names, self._lost), self._budget.copied(base, self._lost)

    def run_alone(self, statement: ast.Assign) -> Any:
        """Return what one statement assigns to a name."""
        self.run([statement])
        return next(iter(self.results()[0].values()))

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Assign):
            value = self.value(node.value)
            for target in node.targets:
                self._assign(target, value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._assign(node.target, self.value(node.value))
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            self._augment(node.target, node)
        elif isinstance(node, ast.Delete) and all(isinstance(t, ast.Name) for t in node.targets):
            for target in node.targets:
                assert isinstance(target, ast.Name)
                self.names.pop(target.id, None)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node)
        elif not isinstance(node, ast.Pass) and not (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ):
            self._lose(node)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name == '*':
                raise CheckpointError(
                    f'{self._source}: line {node.lineno}: expected a config that stands alone or '
                    f'on _base_ files, found an import of all names (read_base); {DUMP}'
                )
            name = alias.asname or alias.name.partition('.')[0]
            self.names[name] = self._unresolved(node, f'the import {name}')

    def _augment(self, target: ast.Name, node: ast.AugAssign) -> None:
        """Follow ``name += ...``, which changes a list or a mapping in its place."""
        before, more = self._part(target), self.value(node.value)
        if not isinstance(before, dict | list):
            result = add(before, node.op, more, self._budget)
            self._assign(target, self._unresolved(node, 'a sum') if result is None else result)
        elif (
            isinstance(before, list)
            and isinstance(node.op, ast.Add)
            and isinstance(more, list | tuple)
        ):
            before += more
        else:
            self._lose(node)

    def _lose(self, node: ast.AST) -> None:
        """Forget what a statement may change that is not followed."""
        for each in self._walk(node):
            if isinstance(each, ast.ImportFrom | ast.Import):
                self._import(each)
            elif isinstance(each, ast.Name):
                self._lose_name(each)
            elif isinstance(each, _NAMING) and each.name:
                self.names[each.name] = self._unresolved(each, f'the definition of {each.name}')
            elif isinstance(each, ast.MatchMapping) and each.rest:
                self.names[each.rest] = self._unresolved(each, f'the definition of {each.rest}')

    def _walk(self, node: ast.AST) -> list[ast.AST]:
        """Return a node and all in it; what its functions name they may change later, too."""
        nodes = list(ast.walk(node))
        self._budget.spend(len(nodes))
        if any(isinstance(each, _LATER) for each in nodes):
            self._captured |= {each.id for each in nodes if isinstance(each, ast.Name)}
        return nodes

    def _lose_name(self, node: ast.Name) -> None:
        why = self._unresolved(node, f'what a statement made of {node.id}')
        if node.id == '_base_':
            self._lost.add(self._base, why)
        elif node.id in self.names or isinstance(node.ctx, ast.Store):
            self._lost.add(self.names.get(node.id), why)
            self.names[node.id] = why

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.names[target.id] = value
            if target.id in self._captured:
                self._lose_name(target)
        elif isinstance(target, ast.Tuple | ast.List):
            values = value if isinstance(value, list | tuple) else ()
            same = len(values) == len(target.elts)
            if not same or any(isinstance(part, ast.Starred) for part in target.elts):
                self._lose_target(target, value)
                return
            for part, each in zip(target.elts, values, strict=True):
                self._assign(part, each)
        elif place := self._place(target):
            of_a_base = isinstance(place.container, BaseDict)
            place.container[place.key] = of_base(value, self._lost) if of_a_base else value
        else:
            self._lose_target(target, value)

    def _lose_target(self, target: ast.expr, value: Any) -> None:
        """Forget what is assigned to, and what is from now on reached through it."""
        self._lose(target)
        self._lost.add(value, self._unresolved(target, 'what was put into an unknown place'))

    def _place(self, target: ast.expr) -> _Place | None:
        """Return where ``a['b'] = ...`` or ``_base_.a.b = ...`` goes, None if not told."""
        if isinstance(target, ast.Attribute):
            container = self._part(target.value)
            if isinstance(container, BaseDict):
                return _Place(container, target.attr)
        elif isinstance(target, ast.Subscript):
            container, key = self._part(target.value), self.value(target.slice)
            if isinstance(container, dict) and isinstance(key, str):
                return _Place(container, key)
            if (
                isinstance(container, list)
                and type(key) is int
                and -len(container) <= key < len(container)
            ):
                return _Place(container, key)
        return None

    def _part(self, node: ast.expr) -> Any:
        """Return a value itself by the names and keys that lead to it."""
        if isinstance(node, ast.Name):
            if node.id == '_base_':
                return self._lost.found(self._base)
            if node.id in self.names:
                return self._lost.found(self.names[node.id])
            return self._unresolved(node, f'the name {node.id}')
        if isinstance(node, ast.Attribute):
            container, key = self._part(node.value), node.attr
            if not isinstance(container, BaseDict | Unresolved):
                return self._unresolved(node, 'an attribute')
        elif isinstance(node, ast.Subscript):
            container, key = self._part(node.value), self.value(node.slice)
        else:
            return self._unresolved(node, 'an expression')
        if isinstance(container, Unresolved):
            return container
        try:
            return self._lost.found(container[key])
        except (LookupError, TypeError):
            return self._unresolved(node, 'a part of a value that has none such')

    def value(self, node: ast.expr) -> Any:
        """Return what an expression is; nothing is called."""
        self._budget.spend()
        if isinstance(node, ast.Constant):
            return self._constant(node)
        if isinstance(node, ast.List):
            return self._items(node.elts)
        if isinstance(node, ast.Tuple):
            items = self._items(node.elts)
            return tuple(items) if isinstance(items, list) else items
        if isinstance(node, ast.Dict):
            return self._pairs(zip(node.keys, node.values, strict=True), node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            operand = self.value(node.operand)
            if type(operand) in (int, float):
                return -operand if isinstance(node.op, ast.USub) else operand
        elif isinstance(node, ast.BinOp):
            return self._sum(node.left, node.op, node.right, node)
        elif isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            found = self._part(node)
            self._budget.charge(found)
            return found
        elif isinstance(node, ast.Set) and len(node.elts) == 1:
            # {{_base_.x}} is a set in a set to Python.
            inner = node.elts[0]
            if (
                isinstance(inner, ast.Set)
                and len(inner.elts) == 1
                and _rooted_in_base(inner.elts[0])
            ):
                return self.value(inner.elts[0])
        elif isinstance(node, ast.JoinedStr):
            return self._joined(node)
        self._lose_changed(node)
        return self._unresolved(node, 'an expression')

    def _constant(self, node: ast.Constant) -> Any:
        value = node.value
        if isinstance(value, str):
            self._budget.spend(len(value) // 16)
            if '{{' in value:
                value = _PLACE.sub(lambda match: self._predefined[match[1]], value)
            if '{{' in value and '}}' in value:
                return self._unresolved(node, 'a text with a place for another')
        elif not isinstance(value, bool | int | float | None):
            return self._unresolved(node, f'a value of type {type(value).__name__}')
        return value

    def _items(self, nodes: list[ast.expr]) -> Any:
        items: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                more = self.value(node.value)
                if not isinstance(more, list | tuple):
                    return self._unresolved(node, 'an expression')
                items += more
            else:
                items.append(self.value(node))
        return items

    def _pairs(self, pairs: Iterable[tuple[ast.expr | None, ast.expr]], node: ast.expr) -> Any:
        built: dict[Any, Any] = {}
        for key_node, value_node in pairs:
            value = self.value(value_node)
            if key_node is None:
                if not isinstance(value, dict):
                    return self._unresolved(node, 'a mapping with unknown parts')
                built |= value
                continue
            key = self.value(key_node)
            if not isinstance(key, str | int | float | None):
                return self._unresolved(node, 'a mapping with unknown keys')
            built[key] = value
        return built

    def _call(self, node: ast.Call) -> Any:
        function = node.func.id if isinstance(node.func, ast.Name) else ''
        if function == 'dict' and function not in self.names and len(node.args) < 2:
            built = self.value(node.args[0]) if node.args else {}
            keys = (None if k.arg is None else ast.Constant(k.arg) for k in node.keywords)
            more = self._pairs(
                zip(keys, (k.value for k in node.keywords), strict=True),
                node,
            )
            if isinstance(built, dict) and isinstance(more, dict):
                return built | more
        elif function in ('list', 'tuple') and function not in self.names and not node.keywords:
            items = self.value(node.args[0]) if len(node.args) == 1 else [] if not node.args else 0
            if isinstance(items, list | tuple):
                return list(items) if function == 'list' else tuple(items)
        self._lose_changed(node)
        called = one_line(function or getattr(node.func, 'attr', 'an expression'), 40)
        return self._unresolved(node, f'a call of {called}')

    def _sum(self, left: ast.expr, operator: ast.operator, right: ast.expr, node: ast.AST) -> Any:
        result = add(self.value(left), operator, self.value(right), self._budget)
        return self._unresolved(node, 'a calculation') if result is None else result

    def _joined(self, node: ast.JoinedStr) -> Any:
        parts: list[str] = []
        for each in node.values:
            if isinstance(each, ast.Constant):
                parts.append(str(each.value))
                continue
            value = None
            if isinstance(each, ast.FormattedValue):
                plain = each.conversion == -1 and each.format_spec is None
                value = self.value(each.value) if plain else None
            if type(value) not in (str, int, float):
                return self._unresolved(node, 'a formatted text')
            parts.append(str(value))
        self._budget.spend(sum(map(len, parts)) // 16)
        return ''.join(parts)

    def _lose_changed(self, node: ast.expr) -> None:
        """Forget containers that a call in an expression could change."""
        for each in self._walk(node):
            if isinstance(each, ast.NamedExpr):
                self._lose(each.target)
            elif isinstance(each, ast.Name):
                held = self._base if each.id == '_base_' else self.names.get(each.id)
                self._lost.add(held, self._unresolved(each, f'what a call made of {each.id}'))

    def _unresolved(self, node: ast.AST, what: str) -> Unresolved:
        return Unresolved(one_line(what, 60), self._source, getattr(node, 'lineno', 0))


def _rooted_in_base(node: ast.expr) -> bool:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return isinstance(node, ast.Name) and node.id == '_base_'
