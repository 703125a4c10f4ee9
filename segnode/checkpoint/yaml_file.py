# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Reading YAML as plain data: no object is ever built from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from segnode.checkpoint.message import one_line
from segnode.checkpoint.weights_file import check_file
from segnode.errors import CheckpointError

_LARGEST = 256 << 10
# A file of 500 bytes can mean billions of values, by aliases of aliases.
_MOST_VALUES = 100_000
# A number of base 60, such as 1:1:1, takes time that grows with the square of its length.
_LONGEST_PLAIN = 4096


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader that also takes the Python tags which name plain data."""


_TAGS = {
    'tuple': 'seq',
    'list': 'seq',
    'dict': 'map',
    'str': 'str',
    'unicode': 'str',
    'bool': 'bool',
    'int': 'int',
    'long': 'int',
    'float': 'float',
    'none': 'null',
}
_TAG = 'tag:yaml.org,2002:'
_PlainLoader.yaml_constructors = _PlainLoader.yaml_constructors | {
    f'{_TAG}python/{python}': yaml.SafeLoader.yaml_constructors[f'{_TAG}{plain}']
    for python, plain in _TAGS.items()
}


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Args:
        path: the file.
        what: what the file should be, for the message.

    Raises:
        CheckpointError: no file, not YAML, no mapping of names, or a tag that would build an
            object or call a function.
    """
    check_file(path, what)
    expected = f'{path}: expected {what}, found'
    try:
        if path.stat().st_size > _LARGEST:
            raise CheckpointError(f'{expected} a file of more than {_LARGEST >> 10} KiB')
        root = yaml.compose(path.read_bytes(), _PlainLoader)
        if root is not None and _values(root, {}) > _MOST_VALUES:
            raise CheckpointError(f'{expected} aliases that make more than {_MOST_VALUES} values')
        if root is not None and (longest := _longest_plain(root)) > _LONGEST_PLAIN:
            raise CheckpointError(f'{expected} a value of {longest} letters without quotes')
        content = _PlainLoader('').construct_document(root) if root is not None else None
    except yaml.constructor.ConstructorError as error:
        tag = str(error.problem).partition("tag '")[2].partition("'")[0]
        found = f'the tag {tag.removeprefix(_TAG)}, which is never built' if tag else ''
        problem = one_line(found or error.problem)
        raise CheckpointError(f'{expected} {problem}{_line(error)}') from None
    except yaml.MarkedYAMLError as error:
        problem = one_line(error.problem)
        raise CheckpointError(f'{expected} broken YAML: {problem}{_line(error)}') from None
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        raise CheckpointError(f'{expected} broken YAML: {one_line(error)}') from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f'{expected} YAML without keys and values at its top')
    return content


def _values(node: yaml.Node, counted: dict[yaml.Node, int]) -> int:
    """Return how many values a node stands for, each as often as it is named."""
    if node not in counted:
        counted[node] = _MOST_VALUES  # Whoever meets it while it is counted is inside of itself.
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        counted[node] = 1 + sum(_values(child, counted) for child in children)
    return counted[node]


def _longest_plain(root: yaml.Node) -> int:
    """Return the length of the longest value that stands without quotes."""
    longest, seen, left = 0, {root}, [root]
    while left:
        node = left.pop()
        if isinstance(node, yaml.ScalarNode):
            longest = max(longest, 0 if node.style else len(node.value))
            continue
        children = node.value
        if isinstance(node, yaml.MappingNode):
            children = [each for pair in children for each in pair]
        left += [child for child in children if child not in seen]
        seen.update(children)
    return longest


def _line(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    return '' if mark is None else f' in line {mark.line + 1}'
