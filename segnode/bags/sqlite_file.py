# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The database of a rosbag2 (sqlite3, suffix db3), read without changing anything beside it."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path

from segnode.bags.damage import Damage
from segnode.bags.decompress import LARGEST
from segnode.bags.record import Record, Topic
from segnode.bags.topics import normal_type, shown
from segnode.errors import BagError

MAGIC = b'SQLite format 3\0'

# What a recorder that was interrupted leaves: without it, the database lacks its last messages,
# or holds half of a change.
_JOURNALS = ('-wal', '-journal')
_COLUMNS = {
    'topics': ('id', 'name', 'type', 'serialization_format'),
    'messages': ('topic_id', 'timestamp', 'data'),
}
# What SQLite says of a damaged file may quote it, which Python takes for text.
_FAILURES = (sqlite3.Error, UnicodeDecodeError)


class SqliteFile:
    """An open database of a rosbag2.

    Attributes:
        topics: a topic for every line of its table.
        span_ns: log times of the first and the last message, None where there is none.
    """

    def __init__(self, path: Path, damage: Damage, report: Callable[[str], None]) -> None:
        """Open a file.

        Args:
            path: the file.
            damage: gets what is found damaged while messages are read.
            report: takes a remark.

        Raises:
            BagError: it is cut, damaged, or no bag.
        """
        self._path, self._damage = path, damage
        self._stack = ExitStack()
        self._passed = 0.0
        try:
            self._database = self._connect(report)
            self._check_tables()
            self._read_topics()
        except _FAILURES as error:
            self.close()
            raise self._unreadable(error) from None
        except BaseException:
            self.close()
            raise

    @property
    def topics(self) -> list[Topic]:
        """A topic for every line of the table of topics."""
        return list(self._topics.values())

    def close(self) -> None:
        """Close the file, and delete its copy where there is one."""
        self._stack.close()

    def passed(self) -> float:
        """Return how much of the file has been read, from 0 to 1."""
        return self._passed

    def records(self, names: Collection[str]) -> Iterator[Record]:
        """Yield the messages of some topics in log order."""
        self._passed = 0.0
        wanted = [key for key, topic in self._topics.items() if topic.name in names]
        # Without an index of the log times it is numbers alone that SQLite sorts, on the disk
        # where they are many; the messages are fetched one by one.
        try:
            order = self._database.execute(
                'SELECT rowid, topic_id, timestamp, length(data) FROM messages '
                f'WHERE topic_id IN ({", ".join(map(str, wanted))}) ORDER BY timestamp, rowid'
            )
            for row, key, log_ns, length in order:
                self._passed = (row - self._first_row) / max(1, self._last_row - self._first_row)
                if not isinstance(log_ns, int) or (length or 0) > LARGEST:
                    self._damage.skipped['its line in the database is not a message'] += 1
                    continue
                data = self._data(row)
                if data is not None:
                    yield Record(self._topics[key], log_ns, data)
        except _FAILURES as error:
            self._damage.remark(str(self._unreadable(error)))
        self._passed = 1.0

    def _data(self, row: int) -> bytes | None:
        """Return the data of a message, None for one that is counted as not readable."""
        try:
            (data,) = self._database.execute(
                'SELECT data FROM messages WHERE rowid = ?', (row,)
            ).fetchone()
        except (*_FAILURES, TypeError):
            self._damage.skipped['its part of the database is damaged'] += 1
            return None
        if not isinstance(data, bytes):
            self._damage.skipped['its line in the database is not a message'] += 1
            return None
        return data

    def _connect(self, report: Callable[[str], None]) -> sqlite3.Connection:
        path = self._path
        journals = [Path(f'{path}{suffix}') for suffix in _JOURNALS]
        journals = [journal for journal in journals if _has_bytes(journal)]
        if journals:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix='segnode-bag-'))
            report(
                f'{path}: the recording was interrupted and {journals[0].name} holds a part of '
                f'it, so that both are read from a copy in {folder}'
            )
            for file in (path, *journals):
                try:
                    shutil.copyfile(file, Path(folder) / file.name)
                except OSError as error:
                    raise BagError(
                        f'{path}: cannot be copied to {folder} ({error.strerror}); make room '
                        'there, or name another place in TMPDIR'
                    ) from None
            uri = (Path(folder) / path.name).as_uri()
        else:
            self._check_length()
            uri = f'{path.resolve().as_uri()}?immutable=1'
        database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        self._stack.callback(database.close)
        database.text_factory = lambda text: text.decode(errors='replace')
        # What a file brings along is data: no view, trigger or function of its own is run.
        database.execute('PRAGMA trusted_schema = OFF')
        database.execute('PRAGMA query_only = ON')
        return database

    def _check_length(self) -> None:
        """Raise BagError where the file is shorter than it says (sqlite.org/fileformat.html)."""
        with self._path.open('rb') as file:
            head = file.read(100)
        size = self._path.stat().st_size
        page = int.from_bytes(head[16:18], 'big')
        pages = int.from_bytes(head[28:32], 'big')
        says = pages * (1 << 16 if page == 1 else page)
        is_valid = head[24:28] == head[92:96]
        if len(head) < 100 or (is_valid and size < says):
            raise BagError(
                f'{self._path}: expected a database of {says if len(head) == 100 else 100} bytes '
                f'or more, found {size}: it is cut off; copy it again from where it was recorded'
            )

    def _check_tables(self) -> None:
        """Raise BagError unless what is read are plain tables with the columns of a rosbag2."""
        for table, columns in _COLUMNS.items():
            kind = self._database.execute(
                'SELECT type, rootpage FROM sqlite_master WHERE name = ?', (table,)
            ).fetchone()
            found = {
                str(name): hidden
                for _, name, *_, hidden in self._database.execute(f'PRAGMA table_xinfo({table})')
            }
            is_plain = (
                kind is not None and kind[0] == 'table' and kind[1] and not any(found.values())
            )
            if not is_plain or not found.keys() >= set(columns):
                raise BagError(
                    f'{self._path}: expected the tables of a rosbag2, found a database without '
                    f'a table {table} of {", ".join(columns)}'
                )

    def _read_topics(self) -> None:
        lines = self._database.execute('SELECT id, name, type, serialization_format FROM topics')
        found = {
            key: Topic(str(name), normal_type(str(type_name)), str(encoding or 'cdr'))
            for key, name, type_name, encoding in lines
            if isinstance(key, int)
        }
        tallies = {
            key: (count, first, last)
            for key, count, first, last in self._database.execute(
                'SELECT topic_id, count(*), min(timestamp), max(timestamp) '
                "FROM messages WHERE typeof(timestamp) = 'integer' GROUP BY topic_id"
            )
        }
        self._topics = {
            key: Topic(t.name, t.type_name, t.encoding, tallies.get(key, (0,))[0])
            for key, t in found.items()
        }
        if unknown := sum(tally[0] for key, tally in tallies.items() if key not in found):
            self._damage.remark(f'{self._path.name}: {unknown} messages are of no topic')
        times = [tallies[key][1:] for key in found if key in tallies]
        self.span_ns: tuple[int, int] | None = None
        if times:
            self.span_ns = min(first for first, _ in times), max(last for _, last in times)
        rows = self._database.execute('SELECT min(rowid), max(rowid) FROM messages').fetchone()
        self._first_row, self._last_row = (row or 0 for row in rows)

    def _unreadable(self, error: Exception) -> BagError:
        return BagError(
            f'{self._path}: cannot be read to its end as a database ({shown(str(error))}); '
            "copy it again from where it was recorded, or try sqlite3's .recover"
        )


def _has_bytes(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
