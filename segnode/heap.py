# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The C library's heap, kept from growing in a process that runs for weeks.

A frame's buffers come from the C library's heap and go back to it. Those of the next size do not
fit into the holes, between which small things live on (oneDNN keeps 1,024 compiled primitives),
so that the heap grows although no more of it is in use. Frames of sizes that come again fit.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections import deque
from collections.abc import Callable
from typing import Any

# More than eight cameras have, each at a few resolutions.
_SIZES_IN_USE = 64
# A trim takes some 15 ms of a CPU, and what it gives back has to be got anew.
_SIZES_A_TRIM = 4
# In glibc's malloc.h.
_M_ARENA_MAX = -8
_ARENAS = 2


class Heap:
    """Trims the heap now and then while new sizes come; it costs nothing while they do not."""

    def __init__(self) -> None:
        self._trim = _malloc_trim()
        self._sizes: deque[tuple[int, ...]] = deque(maxlen=_SIZES_IN_USE)
        self._new = 0

    def after_frame(self, *size: int) -> None:
        """Note that a frame of some size has been worked on."""
        if size in self._sizes:
            return
        self._sizes.append(size)
        self._new += 1
        if self._trim is not None and self._new % _SIZES_A_TRIM == 0:
            self._trim(0)


def share_arenas() -> None:
    """Have all threads of the process share two arenas of glibc's, before they allocate.

    By default it makes up to eight a core, and what a thread frees in one helps no other: the
    memory of a node crept up by some 200 MB whenever new threads came, as with each activation.
    ``MALLOC_ARENA_MAX`` in the environment goes before.
    """
    if 'MALLOC_ARENA_MAX' not in os.environ:
        with contextlib.suppress(AttributeError, OSError):  # Another C library.
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Give the heap's holes back to the system, as after a model or threads have gone."""
    gc.collect()  # First what only refers to itself.
    if (trim := _malloc_trim()) is not None:
        trim(0)


def _malloc_trim() -> Callable[[int], Any] | None:
    """Return glibc's ``malloc_trim``, which does not hold Python's lock; others have none."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None
    trim.argtypes = (ctypes.c_size_t,)
    return trim
