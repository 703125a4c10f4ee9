# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What is lost of the write-ahead log of a database, against SQLite's own reading."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from made_bags import Message, add_to_db3, random_messages, write_db3
from seeds import fresh_seeds

from segnode.bags.bag import Bag, open_bag
from segnode.bags.sqlite_log import read_log

SEED = fresh_seeds(1)[0]
PAGE = 4096
FRAME = 24 + PAGE


def interrupted(folder: Path, messages: list[Message]) -> Path:
    """A database as after a loss of power, its last 30 messages in the log, one a change."""
    folder.mkdir(exist_ok=True)
    database = write_db3(folder / 'recorded', messages[:-30])
    database.execute('PRAGMA synchronous = OFF')
    database.execute('PRAGMA journal_mode = WAL')
    for message in messages[-30:]:
        add_to_db3(database, [message])
    database.commit()
    for suffix in ('', '-wal'):
        shutil.copyfile(folder / f'recorded{suffix}', folder / f'a.db3{suffix}')
    database.close()
    return folder / 'a.db3-wal'


def read(path: Path) -> tuple[int, Bag]:
    with open_bag(path, print) as bag:
        return sum(1 for _ in bag.records(bag.topics)), bag


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return interrupted(tmp_path, random_messages(np.random.default_rng(SEED), 60))


def test_a_whole_log_is_taken(log: Path) -> None:
    found, bag = read(log.with_name('a.db3'))
    assert found == 60
    assert not bag.damage
    assert log.stat().st_size == 32 + FRAME * read_log(log).frames
    assert read_log(log).frames >= 30


@pytest.mark.parametrize('part', ['page', 'salt', 'checksum'])
def test_what_is_behind_a_damaged_frame_is_counted(log: Path, part: str) -> None:
    data = bytearray(log.read_bytes())
    frames = read_log(log).frames
    bad = int(np.random.default_rng(SEED).integers(3, frames - 3))
    data[32 + FRAME * bad + {'page': 24 + 100, 'salt': 8, 'checksum': 16}[part]] ^= 0x55
    log.write_bytes(data)
    found, bag = read(log.with_name('a.db3'))
    assert found < 60
    assert bag.damage.unreadable_bytes % FRAME == 0
    # A change of more frames than one goes as a whole.
    assert FRAME * (frames - bad) <= bag.damage.unreadable_bytes <= FRAME * (frames - bad + 5)
    (remark,) = bag.damage.remarks
    assert f'a.db3-wal: {bag.damage.unreadable_bytes} of its {len(data)} bytes' in remark
    assert f'of {frames} frames' in remark


def test_a_log_without_its_head_is_lost_as_a_whole(log: Path) -> None:
    data = bytearray(log.read_bytes())
    data[0] ^= 0xFF
    log.write_bytes(data)
    found, bag = read(log.with_name('a.db3'))
    assert found < 60
    assert bag.damage.unreadable_bytes == len(data)


def test_a_frame_that_is_cut_is_counted(log: Path) -> None:
    data = log.read_bytes()
    log.write_bytes(data[: -FRAME + 1000])
    _, bag = read(log.with_name('a.db3'))
    assert bag.damage.unreadable_bytes % FRAME == 1000


def test_what_a_log_held_at_an_earlier_time_is_not_lost(tmp_path: Path) -> None:
    messages = random_messages(np.random.default_rng(SEED), 60)
    database = write_db3(tmp_path / 'recorded', messages[:10])
    database.execute('PRAGMA journal_mode = WAL')
    add_to_db3(database, messages[10:50])
    database.commit()
    database.execute('PRAGMA wal_checkpoint(RESTART)').fetchall()
    size = (tmp_path / 'recorded-wal').stat().st_size
    add_to_db3(database, messages[50:])
    database.commit()
    for suffix in ('', '-wal'):
        shutil.copyfile(tmp_path / f'recorded{suffix}', tmp_path / f'a.db3{suffix}')
    database.close()
    log = read_log(tmp_path / 'a.db3-wal')
    assert log.size == size > 32 + FRAME * log.frames
    found, bag = read(tmp_path / 'a.db3')
    assert found == 60
    assert not bag.damage
