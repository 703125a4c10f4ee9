# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The database of a rosbag2 (sqlite3, suffix db3), read without changing anything beside it."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from segnode.bags.damage import Damage
from segnode.bags.decompress import LARGEST
from segnode.bags.failures import ROOM_REMEDY, MachineError, unreadable
from segnode.bags.record import Record, Topic
from segnode.bags.sqlite_log import SqliteLog, read_log
from segnode.bags.tally import Tally
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
_FULL, _CANNOT_OPEN = 'database or disk is full', 'unable to open database file'


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
            damage: gets what is found damaged, here and while messages are read.
            report: takes a remark.

        Raises:
            BagError: it is cut, damaged, or no bag.
        """
        self._path, self._damage, self._tally = path, damage, Tally(damage)
        self._stack = ExitStack()
        self._passed = 0.0
        try:
            log = self._find(report)
            with self._connected() as database:
                if log is not None:
                    self._note_lost_of_log(database, log)
                self._check_tables(database)
                self._read_topics(database)
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
        """Delete the copy of the file where there is one."""
        self._stack.close()

    def passed(self) -> float:
        """Return how much of the file has been read, from 0 to 1."""
        return self._passed

    def records(self, names: Collection[str]) -> Iterator[Record]:
        """Yield the messages of some topics in log order."""
        return self._tally.counted(self._records(names), self.topics, names)

    def _records(self, names: Collection[str]) -> Iterator[Record]:
        self._passed = 0.0
        wanted = [key for key, topic in self._topics.items() if topic.name in names]
        # Without an index of the log times it is numbers alone that SQLite sorts, on the disk
        # where they are many; the messages are fetched one by one.
        try:
            with self._connected() as database:
                order = database.execute(
                    'SELECT rowid, topic_id, timestamp, length(data) FROM messages '
                    f'WHERE topic_id IN ({", ".join(map(str, wanted))}) ORDER BY timestamp, rowid'
                )
                rows = max(1, self._last_row - self._first_row)
                for row, key, log_ns, length in order:
                    self._passed = (row - self._first_row) / rows
                    if not isinstance(log_ns, int) or (length or 0) > LARGEST:
                        self._tally.skip('its line in the database is not a message')
                        continue
                    data = self._data(database, row)
                    if data is not None:
                        yield Record(self._topics[key], log_ns, data)
        except _FAILURES as error:
            reason = self._unreadable(error)
            if isinstance(reason, MachineError):
                raise reason from None
            self._damage.remark(str(reason))
        self._passed = 1.0

    def _data(self, database: sqlite3.Connection, row: int) -> bytes | None:
        """Return the data of a message, None for one that is counted as not readable."""
        try:
            (data,) = database.execute(
                'SELECT data FROM messages WHERE rowid = ?', (row,)
            ).fetchone()
        except (*_FAILURES, TypeError):
            self._tally.skip('its part of the database is damaged')
            return None
        if not isinstance(data, bytes):
            self._tally.skip('its line in the database is not a message')
            return None
        return data

    def _find(self, report: Callable[[str], None]) -> SqliteLog | None:
        """Note where the database is read, and return what its log holds where it has one."""
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
                    reason = unreadable(path, error)
                    if not isinstance(reason, MachineError):
                        raise reason from None
                    needed = sum(each.stat().st_size for each in (path, *journals))
                    raise MachineError(
                        f'{path}: expected room for a copy of {needed >> 20} MiB in {folder}, '
                        f'found none ({error.strerror}); {ROOM_REMEDY}'
                    ) from None
            self._uri = (Path(folder) / path.name).as_uri()
            log = Path(folder) / f'{path.name}{_JOURNALS[0]}'
            return read_log(log) if log.is_file() else None
        self._check_length()
        self._uri = f'{path.resolve().as_uri()}?immutable=1'
        return None

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Open the database for as long as it is read: a bag may have many."""
        database = sqlite3.connect(self._uri, uri=True, check_same_thread=False)
        try:
            database.text_factory = lambda text: text.decode(errors='replace')
            # What a file brings along is data: no view, trigger or function of its own is run.
            database.execute('PRAGMA trusted_schema = OFF')
            database.execute('PRAGMA query_only = ON')
            yield database
        finally:
            database.close()

    def _note_lost_of_log(self, database: sqlite3.Connection, log: SqliteLog) -> None:
        """Note how much of the log SQLite does not take, as only it knows."""
        # The second number counts the frames up to the last change that is whole; -1 for no log.
        _, taken, _ = database.execute('PRAGMA wal_checkpoint').fetchone()
        taken = max(0, taken)
        if left := log.left(taken):
            self._damage.unreadable_bytes += left
            self._damage.remark(
                f'{self._path.name}{_JOURNALS[0]}: {left} of its {log.size} bytes '
                f'({max(0, log.frames - taken)} of {log.frames} frames) are damaged, or behind '
                'damage, or of a change that was not completed; what they held is lost'
            )

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

    def _check_tables(self, database: sqlite3.Connection) -> None:
        """Raise BagError unless what is read are plain tables with the columns of a rosbag2."""
        for table, columns in _COLUMNS.items():
            kind = database.execute(
                'SELECT type, rootpage FROM sqlite_master WHERE name = ?', (table,)
            ).fetchone()
            found = {
                str(name): hidden
                for _, name, *_, hidden in database.execute(f'PRAGMA table_xinfo({table})')
            }
            is_plain = (
                kind is not None and kind[0] == 'table' and kind[1] and not any(found.values())
            )
            if not is_plain or not found.keys() >= set(columns):
                raise BagError(
                    f'{self._path}: expected the tables of a rosbag2, found a database without '
                    f'a table {table} of {", ".join(columns)}'
                )

    def _read_topics(self, database: sqlite3.Connection) -> None:
        lines = database.execute('SELECT id, name, type, serialization_format FROM topics')
        found = {
            key: Topic(str(name), normal_type(str(type_name)), str(encoding or 'cdr'))
            for key, name, type_name, encoding in lines
            if isinstance(key, int)
        }
        integers = "FILTER (WHERE typeof(timestamp) = 'integer')"
        tallies = {
            key: (count, first, last)
            for key, count, first, last in database.execute(
                f'SELECT topic_id, count(*), min(timestamp) {integers}, '
                f'max(timestamp) {integers} FROM messages GROUP BY topic_id'
            )
        }
        self._topics = {
            key: Topic(t.name, t.type_name, t.encoding, tallies.get(key, (0,))[0])
            for key, t in found.items()
        }
        if unknown := sum(tally[0] for key, tally in tallies.items() if key not in found):
            self._damage.remark(f'{self._path.name}: {unknown} messages are of no topic')
        times = [
            tallies[key][1:] for key in found if key in tallies and tallies[key][1] is not None
        ]
        self.span_ns: tuple[int, int] | None = None
        if times:
            self.span_ns = min(first for first, _ in times), max(last for _, last in times)
        rows = database.execute('SELECT min(rowid), max(rowid) FROM messages').fetchone()
        self._first_row, self._last_row = (row or 0 for row in rows)

    def _unreadable(self, error: Exception) -> BagError:
        if str(error) == _FULL:
            return MachineError(
                f'{self._path}: expected room in the folder for temporary files to put its '
                f'messages in order, found none; {ROOM_REMEDY}'
            )
        if str(error) == _CANNOT_OPEN:
            # It does not say why; the system does.
            try:
                self._path.open('rb').close()
            except OSError as reason:
                return unreadable(self._path, reason)
        return BagError(
            f'{self._path}: cannot be read to its end as a database ({shown(str(error))}); '
            "copy it again from where it was recorded, or try sqlite3's .recover"
        )


def _has_bytes(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
