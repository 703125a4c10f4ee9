# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Whether the messages that a file's index counts have all been seen."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from segnode.bags.damage import Damage
from segnode.bags.record import Record, Topic

NOT_THERE = 'counted by the index and not there'
"""Why a message was skipped that nothing else tells of."""


class Tally:
    """Counts the messages of one file while they are read."""

    def __init__(self, damage: Damage) -> None:
        """Begin; ``damage`` gets what is skipped."""
        self._damage = damage
        self._skipped = 0

    def skip(self, reason: str, count: int = 1) -> None:
        """Count messages that cannot be read."""
        self._damage.skipped[reason] += count
        self._skipped += count

    def counted(
        self, records: Iterable[Record], topics: Iterable[Topic], names: Collection[str]
    ) -> Iterator[Record]:
        """Yield messages, and count at their end those that should have been among them.

        Args:
            records: of one pass over the file, for which `skip` is called meanwhile.
            topics: of the file, with what its index counts.
            names: of the topics that are read.
        """
        known = [topic.messages for topic in topics if topic.name in names]
        self._skipped = read = 0
        for record in records:
            read += 1
            yield record
        if None in known:
            return
        missing = sum(filter(None, known)) - read - self._skipped
        if missing > 0:
            self._damage.skipped[NOT_THERE] += missing
