# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a sweep has done already: results under a name made of all that they hang on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from segnode.output_files import write_json


def digest(parts: Mapping[str, Any]) -> str:
    """Return a name for what hangs on ``parts``: equal for equal ones, else another."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_saved(path: Path) -> dict[str, Any] | None:
    """Return what `write_json` wrote there, None where there is nothing whole."""
    try:
        value = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def saved(path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what is saved under a path, computed and written first where it is not there yet.

    Raises:
        OutputError: it cannot be written.
    """
    value = read_saved(path)
    if value is None:
        value = compute()
        write_json(path, value)
    return value
