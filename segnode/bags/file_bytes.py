# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A file of a bag as bytes at offsets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from segnode.bags.failures import unreadable


class FileBytes:
    """A file, open from its first use on.

    Attributes:
        path: of the file.
        size: its bytes.
    """

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            OSError: it cannot be read.
        """
        self.path = path
        self._file: BinaryIO | None = path.open('rb')
        self.size = os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file until it is read again: a bag may have more parts than may be open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, fewer where it begins or ends.

        Raises:
            BagError: it cannot be opened again.
            OSError: it cannot be read.
        """
        if offset < 0:
            return b''
        if self._file is None:
            try:
                self._file = self.path.open('rb')
            except OSError as error:
                raise unreadable(self.path, error) from None
        self._file.seek(offset)
        return self._file.read(max(0, min(length, self.size - offset)))
