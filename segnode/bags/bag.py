# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A bag as a stream of messages: rosbag2 and ROS 1, whole or damaged, without ROS."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from segnode.bags.damage import Damage
from segnode.bags.decompress import DamagedDataError, decompressed_message
from segnode.bags.failures import MachineError, unreadable
from segnode.bags.files import bag_files, file_kind
from segnode.bags.log_order import merged
from segnode.bags.mcap_file import McapFile
from segnode.bags.record import Record, Topic
from segnode.bags.ros1_file import Ros1File
from segnode.bags.sqlite_file import SqliteFile
from segnode.bags.topics import by_name, shown
from segnode.bags.unpacking import check_room, unpacked
from segnode.errors import BagError


class BagFile(Protocol):
    """An open file of a bag, whatever its storage."""

    span_ns: tuple[int, int] | None

    @property
    def topics(self) -> list[Topic]:
        """Its topics; names may repeat."""

    def records(self, names: Collection[str]) -> Iterator[Record]:
        """Yield the messages of some topics in log order."""

    def passed(self) -> float:
        """Return how much of it has been read, from 0 to 1."""

    def close(self) -> None:
        """Close it."""


_STORAGES: dict[str, Callable[[Path, Damage, Callable[[str], None]], BagFile]] = {
    'mcap': McapFile,
    'sqlite3': SqliteFile,
    'ros1': Ros1File,
}


class Bag:
    """An open bag; ``open_bag`` makes one.

    Attributes:
        path: as it was given.
        files: what is read, in the order of the parts.
        topics: by name; where a name has several types, that of its images.
        damage: what could not be read so far, of the files and by the latest ``records``.
        span_ns: log times of the first and the last message of all topics, None for none.
    """

    def __init__(self, path: Path) -> None:
        """Prepare a bag without files."""
        self.path = path
        self.files: tuple[Path, ...] = ()
        self.topics: dict[str, Topic] = {}
        self.damage = Damage()
        self.span_ns: tuple[int, int] | None = None
        self._stack = ExitStack()
        self._storages: list[tuple[BagFile, int]] = []
        self._damage_of_files = Damage()

    def __enter__(self) -> Bag:
        """Return the bag."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the bag."""
        self.close()

    def close(self) -> None:
        """Close its files, and delete what was unpacked."""
        self._stack.close()

    def records(self, names: Collection[str]) -> Iterator[Record]:
        """Yield the messages of some topics in the order of their log times.

        It may be called again, and begins at the start; names that the bag does not have are
        passed over. What turns out to be damaged is noted in ``damage``; a message that an index
        counts and that nothing else is known of is noted at the end.

        Raises:
            BagError: the system does not let a file be read.
        """
        try:
            yield from self._records(frozenset(names))
        except (OSError, MemoryError) as error:
            raise unreadable(self.path, error) from None

    def _records(self, names: Collection[str]) -> Iterator[Record]:
        self.damage.become(self._damage_of_files)
        last_ns: int | None = None
        for record in merged(
            [storage for storage, _ in self._storages],
            lambda storage: storage.span_ns[0] if storage.span_ns else 0,
            lambda storage: storage.records(names),
        ):
            data = record.data
            if record.topic.encoding == 'cdr':
                try:
                    data = decompressed_message(data)
                except DamagedDataError:
                    self.damage.skipped['its compressed data are damaged'] += 1
                    continue
            last_ns = record.log_ns
            if self.damage:
                self.damage.last_ns = last_ns
            yield record if data is record.data else Record(record.topic, record.log_ns, data)
        if self.damage:
            self.damage.last_ns = last_ns

    def progress(self) -> float:
        """Return how much of the bag ``records`` has passed, from 0 to 1."""
        total = sum(size for _, size in self._storages)
        return sum(storage.passed() * size for storage, size in self._storages) / max(1, total)

    def _open(self, report: Callable[[str], None]) -> None:
        self.files = tuple(bag_files(self.path, self.damage.remark, report))
        errors = []
        check_room(self.files)
        for file in self.files:
            size = file.stat().st_size
            try:
                self._storages.append((self._open_file(file, report), size))
            except MachineError:
                # What is not read for this reason is not lost.
                raise
            except BagError as error:
                errors.append(error)
                self.damage.remark(str(error))
                self.damage.unreadable_bytes += size
        if not self._storages:
            raise errors[0]
        self.topics = by_name(topic for storage, _ in self._storages for topic in storage.topics)
        for storage, _ in self._storages:
            for topic in storage.topics:
                if topic.type_name != self.topics[topic.name].type_name:
                    report(
                        f'{self.path}: {shown(topic.name)} has messages of several types, one is '
                        f'{shown(topic.type_name)}'
                    )
        spans = [storage.span_ns for storage, _ in self._storages if storage.span_ns]
        if spans:
            self.span_ns = min(first for first, _ in spans), max(last for _, last in spans)
        self._damage_of_files = self.damage.copy()

    def _open_file(self, file: Path, report: Callable[[str], None]) -> BagFile:
        kind = file_kind(file)
        if kind in ('zstd', 'lz4'):
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix='segnode-bag-'))
            report(f'{file}: is unpacked in {folder}')
            file = unpacked(file, kind, Path(folder), self.damage.remark)
            kind = file_kind(file)
        if kind not in _STORAGES:
            with file.open('rb') as stream:
                head = stream.read(8)
            raise BagError(
                f'{file}: expected a bag (mcap, sqlite3 or ROS 1), found '
                f'{f"a file that begins with {head.hex()}" if head else "an empty file"}'
            )
        try:
            storage = _STORAGES[kind](file, self.damage, report)
        except OSError as error:
            raise unreadable(file, error) from None
        self._stack.callback(storage.close)
        return storage


def open_bag(path: Path, report: Callable[[str], None]) -> Bag:
    """Open a bag: a folder of a rosbag2, or one file.

    Args:
        path: mcap, sqlite3 or ROS 1, also compressed as a whole with zstd or lz4.
        report: takes a remark about how it is read, one line.

    Raises:
        BagError: there is none, or more than one, or nothing of it can be read, or the machine
            lacks room or open files for it.
    """
    bag = Bag(path)
    try:
        bag._open(report)
    except (OSError, MemoryError) as error:
        bag.close()
        raise unreadable(path, error) from None
    except BaseException:
        bag.close()
        raise
    return bag
