# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What segnode names of PyTorch is there in the PyTorch at hand, or listed as a feature.

A network runs but a part of the code; an old PyTorch (`make test-old`) has to have the rest, too.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import segnode
from segnode.torch_features import FEATURES

PACKAGE = Path(segnode.__file__).parent
LISTED = {feature.name for feature in FEATURES if not feature.present()}


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield every ``torch.a.b`` with its line; of ``torch.ops`` nothing is known beforehand."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts: list[str] = []
            value: ast.expr = node
            while isinstance(value, ast.Attribute):
                parts.insert(0, value.attr)
                value = value.value
            if isinstance(value, ast.Name) and value.id == 'torch' and parts[0] != 'ops':
                yield node.lineno, '.'.join(['torch', *parts])


def resolves(name: str) -> bool:
    found: object = torch
    walked = 'torch'
    for part in name.split('.')[1:]:
        walked += f'.{part}'
        if hasattr(found, part):
            found = getattr(found, part)
        elif walked in LISTED:
            return True
        else:
            try:
                found = importlib.import_module(walked)
            except ImportError:
                return False
    return True


def imports(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Yield line, module and name of what is imported from PyTorch."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] == 'torch':
            yield from ((node.lineno, node.module or '', name.name) for name in node.names)


def test_a_name_that_is_not_there_is_found() -> None:
    found = {name for _, name in names(ast.parse('torch.compiler.is_flying()'))}
    assert 'torch.compiler.is_flying' in found
    assert not resolves('torch.compiler.is_flying')
    assert resolves('torch.nn.functional.relu')


def test_every_name_is_there() -> None:
    if torch.version.hip is not None:
        pytest.skip('ROCm leaves some out, where segnode asks first')
    missing = [
        f'{path.relative_to(PACKAGE)}:{line} {name}'
        for path in sorted(PACKAGE.rglob('*.py'))
        for line, name in names(ast.parse(path.read_text(encoding='utf-8')))
        if not resolves(name)
    ]
    assert not missing


def test_every_import_is_there() -> None:
    missing = [
        f'{path.relative_to(PACKAGE)}:{line} {module}.{name}'
        for path in sorted(PACKAGE.rglob('*.py'))
        for line, module, name in imports(ast.parse(path.read_text(encoding='utf-8')))
        if not hasattr(importlib.import_module(module), name) and not resolves(f'{module}.{name}')
    ]
    assert not missing
