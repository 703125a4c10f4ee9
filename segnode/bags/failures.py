# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Why a file of a bag cannot be read: the file's fault, or that of the machine that reads it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from segnode.errors import BagError

_REMEDIES = {
    errno.EMFILE: 'allow more open files with ulimit -n',
    errno.ENFILE: 'close other programs, or allow more open files with fs.file-max',
    errno.ENOMEM: 'free some memory',
}
_FULL = {errno.ENOSPC, errno.EDQUOT}

ROOM_REMEDY = 'make room there, or name another place in TMPDIR'
"""What to do where the folder for temporary files is full, a part of a sentence."""


class MachineError(BagError):
    """The machine lacks what it takes to read a bag, of which nothing is known to be damaged."""


def unreadable(path: Path, error: OSError | MemoryError) -> BagError:
    """Return what to raise where the system does not let a file be read.

    Args:
        path: of the file.
        error: what the system says.
    """
    if isinstance(error, MemoryError):
        error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    text = f'{path}: cannot be read ({error.strerror or error})'
    if error.errno in _FULL:
        return MachineError(f'{text}; {ROOM_REMEDY}')
    if error.errno in _REMEDIES:
        return MachineError(f'{text}; {_REMEDIES[error.errno]}')
    return BagError(text)
