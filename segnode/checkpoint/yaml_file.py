# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Reading YAML as plain data: no object is ever built from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from segnode.checkpoint.weights_file import check_file
from segnode.errors import CheckpointError

_LARGEST = 1 << 20


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
    """PyYAML's safe loader that also takes the Python tags which name plain data."""


for _tag, _construct in {
    'tuple': yaml.SafeLoader.construct_yaml_seq,
    'list': yaml.SafeLoader.construct_yaml_seq,
    'dict': yaml.SafeLoader.construct_yaml_map,
    'str': yaml.SafeLoader.construct_yaml_str,
    'unicode': yaml.SafeLoader.construct_yaml_str,
    'bool': yaml.SafeLoader.construct_yaml_bool,
    'int': yaml.SafeLoader.construct_yaml_int,
    'long': yaml.SafeLoader.construct_yaml_int,
    'float': yaml.SafeLoader.construct_yaml_float,
    'none': yaml.SafeLoader.construct_yaml_null,
}.items():
    _PlainLoader.add_constructor(f'tag:yaml.org,2002:python/{_tag}', _construct)


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
            raise CheckpointError(f'{expected} a file of more than {_LARGEST >> 20} MiB')
        content = yaml.load(path.read_bytes(), _PlainLoader)
    except yaml.constructor.ConstructorError as error:
        tag = str(error.problem).partition("tag '")[2].partition("'")[0]
        found = (
            f'the tag {tag.rpartition("2002:")[2]}, which is never built' if tag else error.problem
        )
        raise CheckpointError(f'{expected} {found}{_line(error)}') from None
    except yaml.MarkedYAMLError as error:
        raise CheckpointError(f'{expected} broken YAML: {error.problem}{_line(error)}') from None
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        reason = str(error).partition('\n')[0] or type(error).__name__
        raise CheckpointError(f'{expected} broken YAML: {reason}') from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f'{expected} YAML without keys and values at its top')
    return content


def _line(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    return '' if mark is None else f' in line {mark.line + 1}'
