# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Text of files and of other libraries' errors, made fit for a message of one line."""

from __future__ import annotations


def one_line(text: object, limit: int = 120) -> str:
    """Return the printable characters of the first non-empty line, cut to ``limit``."""
    lines = [line for line in str(text).splitlines() if line.strip()]
    first = ''.join(c for c in (lines or [type(text).__name__])[0].strip() if c.isprintable())
    return first if len(first) <= limit else f'{first[: limit - 3]}...'
