# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The names of a rosbag2's files in its metadata, the only thing that is taken from there.

Recorders that were killed leave none, tools leave wrong ones; the files themselves tell topics,
types, times and compression.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import yaml

METADATA = 'metadata.yaml'

_LARGEST = 256 << 10


def listed_files(path: Path) -> list[str]:
    """Return the names of the files that metadata list, each once and without their folder.

    Args:
        path: of ``metadata.yaml``.

    Raises:
        ValueError: they list none; the text says why, as a part of a sentence.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f'it has more than {_LARGEST >> 10} KiB')
        # Its nodes alone: no value is ever built from them.
        node = yaml.compose(path.read_bytes(), yaml.SafeLoader)
    except yaml.YAMLError:
        raise ValueError('it is no YAML') from None
    except RecursionError:
        raise ValueError('it is nested too deeply') from None
    except OSError as error:
        raise ValueError(f'it cannot be read: {error.strerror}') from None
    listed = _value(_value(node, 'rosbag2_bagfile_information'), 'relative_file_paths')
    each = listed.value if isinstance(listed, yaml.SequenceNode) else []
    names = [PurePosixPath(file.value).name for file in each if isinstance(file, yaml.ScalarNode)]
    if not names:
        raise ValueError('it lists no files')
    return list(dict.fromkeys(names))


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """Return what a mapping has for a key, None where there is no such thing."""
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)
