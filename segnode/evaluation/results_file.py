# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``results.json`` of a run: COCO results as a stream, an entry a line.

It is JSON as a whole, and each line of it alone, so that hours of frames are read and written
without being held.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from segnode.errors import ConfigError

_KEYS = ('image_id', 'category_id', 'category_name', 'score', 'area', 'segmentation')


class ResultsWriter:
    """Writes the list entry by entry."""

    def __init__(self, stream: TextIO) -> None:
        """Begin the list."""
        self._stream = stream
        self._stream.write('[')
        self.written = 0

    def write(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Write the entries of a frame."""
        for entry in entries:
            line = json.dumps(entry, allow_nan=False, separators=(',', ':'))
            self._stream.write(f'{"," if self.written else ""}\n{line}')
            self.written += 1

    def end(self) -> None:
        """End the list."""
        self._stream.write('\n]\n')


def read_results(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a ``results.json`` of a run.

    Raises:
        ConfigError: it is none.
    """
    expected = f'{path}: expected the results.json of a run'
    try:
        with path.open(encoding='utf-8') as stream:
            if stream.readline().strip() != '[':
                raise ConfigError(f'{expected}, found another file')
            for number, line in enumerate(stream, start=2):
                text = line.strip().removesuffix(',')
                if not text:
                    continue
                if text == ']':
                    return
                entry = json.loads(text)
                if not isinstance(entry, dict) or not all(key in entry for key in _KEYS):
                    raise ConfigError(f'{expected}, found another thing in line {number}')
                yield entry
    except (ValueError, RecursionError) as error:
        raise ConfigError(f'{expected}, found a line that is no JSON ({error})') from None
    except OSError as error:
        raise ConfigError(f'{path}: cannot be read ({error.strerror})') from None
    raise ConfigError(f'{expected}, found one without its end')
