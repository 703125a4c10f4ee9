# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A file of a bag as bytes at offsets."""

from __future__ import annotations

import os
from pathlib import Path


class FileBytes:
    """An open file.

    Attributes:
        path: of the file.
        size: its bytes.
    """

    def __init__(self, path: Path) -> None:
        """Open a file."""
        self.path = path
        self._file = path.open('rb')
        self.size = os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, fewer where it begins or ends."""
        if offset < 0:
            return b''
        self._file.seek(offset)
        return self._file.read(max(0, min(length, self.size - offset)))
