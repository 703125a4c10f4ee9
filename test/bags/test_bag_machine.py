# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the machine lacks is an error and no damage, and bags ask for little."""

from __future__ import annotations

import errno
import io
import os
import resource
import shutil
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
import zstandard
from made_bags import IMAGE, ROS1, Message, random_messages, write_db3, write_mcap, write_ros1

from segnode.bags import bag as bag_module
from segnode.bags import unpacking
from segnode.bags.bag import open_bag
from segnode.bags.decompress import LARGEST, decompressed
from segnode.bags.failures import MachineError
from segnode.bags.mcap_file import McapFile
from segnode.bags.sqlite_file import SqliteFile
from segnode.errors import BagError
from segnode.image import MAX_PIXELS

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    'zstd': zstandard.compress,
    'lz4': lz4.frame.compress,
}


def packed_parts(folder: Path, compression: str) -> None:
    """Write two parts that are compressed as a whole, the second one of 4 MB."""
    folder.mkdir()
    for number, size in enumerate((10, 1 << 20)):
        data = np.random.default_rng(0).bytes(size)
        messages = [Message('/a', IMAGE, 10 * number + k, data) for k in range(4)]
        part = write_mcap(folder / f'bag_{number}.mcap', messages)
        (folder / f'bag_{number}.mcap.{compression}').write_bytes(
            PACKERS[compression](part.read_bytes())
        )
        part.unlink()


@pytest.mark.parametrize('compression', ['zstd', 'lz4'])
@pytest.mark.parametrize('announced', [True, False])
def test_too_little_room_for_a_part_is_no_damage(
    tmp_path: Path, compression: str, announced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed_parts(tmp_path / 'bag', compression)
    # Room for the first part only.
    usage = shutil.disk_usage(tmp_path)._replace(free=(1 << 28) + (1 << 20) + 10_000)
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage)
    if not announced:
        monkeypatch.setattr(unpacking, '_announced_bytes', lambda _: 0)

        def used(folder: Path) -> object:
            there = sum(file.stat().st_size for file in Path(folder).iterdir())
            return usage._replace(free=usage.free - there)

        monkeypatch.setattr(shutil, 'disk_usage', used)
    with pytest.raises(BagError, match=r'expected room for .* MiB .*found .*TMPDIR') as caught:
        open_bag(tmp_path / 'bag', print)
    assert '\n' not in str(caught.value)


def test_a_full_disk_is_no_damage(tmp_path: Path) -> None:
    packed_parts(tmp_path / 'bag', 'zstd')
    opened = Path.open

    def full(path: Path, mode: str = 'r') -> object:
        if mode == 'wb':
            return Full(path, mode)
        return opened(path, mode)

    class Full(io.FileIO):
        def write(self, data: object) -> int:
            if self.tell() or len(data) > 10_000:  # type: ignore[arg-type]
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, 'open', full)
        with pytest.raises(MachineError, match=r'expected room .* or more .*TMPDIR'):
            open_bag(tmp_path / 'bag', print)


@pytest.mark.parametrize('number', [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC])
def test_what_the_system_lacks_is_no_damage(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in range(2):
        write_mcap(tmp_path / f'bag_{part}.mcap', [Message('/a', IMAGE, part, b'a')])

    def fails(path: Path, *rest: object) -> McapFile:
        if path.name == 'bag_1.mcap':
            raise OSError(number, os.strerror(number))
        return McapFile(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setitem(bag_module._STORAGES, 'mcap', fails)
    with pytest.raises(MachineError, match=os.strerror(number)):
        open_bag(tmp_path, print)


@contextmanager
def open_files(more: int) -> Iterator[None]:
    """Allow so many more files to be open than there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptor = os.dup(0)
    os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize('storage', ['mcap', 'db3', 'bag'])
def test_a_bag_may_have_more_parts_than_may_be_open(tmp_path: Path, storage: str) -> None:
    messages = random_messages(np.random.default_rng(3), 24, store=ROS1)
    for part in range(12):
        path, some = tmp_path / f'bag_{part}.{storage}', messages[2 * part : 2 * part + 2]
        if storage == 'mcap':
            write_mcap(path, some)
        elif storage == 'db3':
            write_db3(path, some).close()
        else:
            write_ros1(path, some)
    with open_files(6), open_bag(tmp_path, print) as bag:
        for _ in range(2):
            found = [(r.topic.name, r.log_ns, r.data) for r in bag.records(bag.topics)]
            assert found == [(m.topic, m.log_ns, m.data) for m in messages]
        assert not bag.damage
        # One that is left in the middle holds up nobody.
        first = next(iter(bag.records(bag.topics)))
        assert first.log_ns == messages[0].log_ns
    with open_files(6), open_bag(tmp_path, print) as bag:
        taken = list(all_that_may_be_open())
        try:
            with pytest.raises(MachineError, match='ulimit -n'):
                list(bag.records(bag.topics))
        finally:
            for descriptor in taken:
                os.close(descriptor)


def all_that_may_be_open() -> Iterator[int]:
    with suppress(OSError):
        while True:
            yield os.dup(0)


def test_a_database_whose_messages_find_no_room_to_be_sorted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_db3(tmp_path / 'a.db3', random_messages(np.random.default_rng(4), 9)).close()
    with open_bag(tmp_path / 'a.db3', print) as bag:
        monkeypatch.setattr(SqliteFile, '_data', says_full)
        with pytest.raises(MachineError, match=r'expected room in .*TMPDIR'):
            list(bag.records(bag.topics))


def says_full(*_: object) -> None:
    raise sqlite3.OperationalError('database or disk is full')


def test_a_message_may_be_as_large_as_an_image_and_not_much_larger() -> None:
    assert 4 * MAX_PIXELS < LARGEST <= 8 * MAX_PIXELS


@pytest.mark.parametrize('compression', ['zstd', 'lz4'])
def test_data_are_decompressed_without_a_second_copy(compression: str) -> None:
    size = 32 << 20
    packed = PACKERS[compression](bytes(size))
    tracemalloc.start()
    try:
        assert len(decompressed(packed, compression, size)) == size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.25 * size + (4 << 20)
