# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What of a bag could not be read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_MOST_REMARKS = 50


@dataclass(slots=True)
class Damage:
    """What was lost of a bag, as far as it can be told.

    Attributes:
        remarks: a sentence each.
        unreadable_bytes: of its files, as they lie on the disk; of a compressed chunk that is cut,
            the bytes behind its last whole message, decompressed.
        skipped: messages of the topics asked for that are known and could not be read, by reason.
        last_ns: log time of the last message read, None where nothing was lost.
    """

    remarks: list[str] = field(default_factory=list)
    unreadable_bytes: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    last_ns: int | None = None

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self.remarks or self.unreadable_bytes or self.skipped)

    def remark(self, sentence: str) -> None:
        """Add a sentence, once; a file may be damaged in more places than anybody reads of."""
        if sentence in self.remarks or len(self.remarks) > _MOST_REMARKS:
            return
        full = len(self.remarks) == _MOST_REMARKS
        self.remarks.append('there is more that is not listed here' if full else sentence)

    def copy(self) -> Damage:
        """Return what is known so far."""
        skipped = Counter(self.skipped)
        return Damage(list(self.remarks), self.unreadable_bytes, skipped, self.last_ns)

    def become(self, other: Damage) -> None:
        """Forget what was found since ``other`` was copied."""
        self.remarks[:] = other.remarks
        self.unreadable_bytes = other.unreadable_bytes
        self.skipped.clear()
        self.skipped.update(other.skipped)
        self.last_ns = other.last_ns
