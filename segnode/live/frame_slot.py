# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The place where a camera's newest frame waits: it holds one, and a newer one replaces it."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar('T')


class FrameSlot(Generic[T]):
    """Hand the newest item from one thread to another; older ones are given back."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._item: T | None = None
        self._closed = False

    def put(self, item: T) -> T | None:
        """Store ``item`` and return the one that is dropped for it.

        That is the older item that waited, None where none did, and ``item`` itself once the slot
        is closed.
        """
        with self._condition:
            if self._closed:
                return item
            replaced, self._item = self._item, item
            self._condition.notify()
            return replaced

    def take(self) -> T | None:
        """Wait for an item and remove it; None once the slot is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._item is not None)
            item, self._item = self._item, None
            return item

    def close(self) -> T | None:
        """End all waiting; return the item that nobody took."""
        with self._condition:
            self._closed = True
            item, self._item = self._item, None
            self._condition.notify_all()
            return item
