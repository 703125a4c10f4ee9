# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a killed process leaves in shared memory, tens of megabytes each time, and nobody frees."""

from __future__ import annotations

import contextlib
import fcntl
import re
from pathlib import Path

_SEGMENT = re.compile(r'/dev/shm/fast(?:dds|rtps)_[0-9a-f]{16}(?=\s|$)')


def mapped_segments(process_id: int) -> set[Path]:
    """Return the segments of Fast DDS that a process has mapped: its own and its peers'."""
    try:
        maps = Path('/proc', str(process_id), 'maps').read_text(encoding='utf-8', errors='replace')
    except OSError:
        return set()
    return {Path(found) for found in _SEGMENT.findall(maps)}


def remove_orphans(segments: set[Path]) -> int:
    """Remove those segments whose owner has gone, and return how many they were.

    The owner holds a lock on a file beside its segment for as long as it lives; `fastdds shm
    clean` tells orphans by it, too.
    """
    removed = 0
    for segment in segments:
        lock = segment.with_name(f'{segment.name}_el')
        with contextlib.suppress(OSError), lock.open('rb') as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            segment.unlink()
            lock.unlink()
            removed += 1
    return removed
