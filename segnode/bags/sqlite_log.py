# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""How much the write-ahead log of a database holds (sqlite.org/fileformat2.html, section 4).

SQLite takes its frames up to the first one that is damaged, and says nothing of those behind it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct('>8I')
_FRAME = struct.Struct('>6I')
_MAGICS = (0x377F0682, 0x377F0683)
# The first salt goes up by one whenever a log begins anew, over what it held before.
_GENERATIONS = 1 << 16


@dataclass(frozen=True, slots=True)
class SqliteLog:
    """A log.

    Attributes:
        size: bytes of the file.
        frames: how many it holds, up to the last one that is not left of an earlier time.
        frame_bytes: of each, 0 where the log has no header.
    """

    size: int
    frames: int
    frame_bytes: int

    def left(self, taken: int) -> int:
        """Return the bytes that are not taken where SQLite takes a number of frames."""
        if not self.frame_bytes:
            return self.size
        start = _HEADER.size + self.frame_bytes * taken
        return max(0, min(self.size, _HEADER.size + self.frame_bytes * self.frames) - start)


def read_log(path: Path) -> SqliteLog:
    """Return what a log holds.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open('rb') as file:
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size:
            return SqliteLog(size, 0, 0)
        magic, _, page, _, *salts, _, _ = _HEADER.unpack(head)
        if magic not in _MAGICS or not 512 <= page <= 1 << 16 or page & (page - 1):
            return SqliteLog(size, 0, 0)
        frame_bytes = _FRAME.size + page
        frames = 0
        for number in range((size - _HEADER.size) // frame_bytes + 1):
            file.seek(_HEADER.size + number * frame_bytes)
            head = file.read(_FRAME.size)
            if len(head) < _FRAME.size:
                break
            _, _, *found, _, _ = _FRAME.unpack(head)
            is_earlier = 0 < (salts[0] - found[0]) % (1 << 32) < _GENERATIONS
            if found == salts or (any(head) and not is_earlier):
                frames = number + 1
    return SqliteLog(size, frames, frame_bytes)
