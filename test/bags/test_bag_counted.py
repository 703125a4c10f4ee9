# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Messages that an index counts do not vanish without a word."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from made_bags import ROS1, Message, random_messages, write_db3, write_mcap, write_ros1
from rosbags import rosbag1
from seeds import fresh_seeds
from test_mcap_damage import placed_chunks, read

from segnode.bags.bag import open_bag
from segnode.bags.tally import NOT_THERE
from segnode.errors import BagError

SEED = fresh_seeds(1)[0]


@pytest.mark.parametrize('compression', ['none', 'lz4', 'zstd'])
@pytest.mark.parametrize('is_closed', [True, False])
def test_zeros_over_the_head_of_a_chunk(tmp_path: Path, compression: str, is_closed: bool) -> None:
    messages = random_messages(np.random.default_rng(SEED), 44)
    path = write_mcap(tmp_path / 'a.mcap', messages, compression, chunk_size=900)
    chunks = placed_chunks(path)
    data = bytearray(path.read_bytes())
    # The last but one: an earlier one may be the only one that names a topic.
    start = chunks[-2].start + 9
    data[start : start + 64] = bytes(64)
    path.write_bytes(data if is_closed else data[: chunks[-1].end])
    found, bag = read(path)
    lost = len(chunks[-2].ends)
    assert len(found) == 44 - lost
    assert bag.damage.skipped == {NOT_THERE: lost}
    assert bag.damage.last_ns == messages[-1].log_ns
    # Of the topics that are asked for alone.
    with open_bag(path, print) as bag:
        camera = sum(r.topic.name == '/camera' for r in bag.records(['/camera']))
        assert camera + bag.damage.skipped[NOT_THERE] == sum(
            m.topic == '/camera' for m in messages
        )
        # Not of one that nobody has read to its end.
        next(iter(bag.records(bag.topics)))
        assert bag.damage.skipped[NOT_THERE] == 0


def test_an_undamaged_part_beside_it_hides_nothing(tmp_path: Path) -> None:
    messages = random_messages(np.random.default_rng(SEED), 60)
    for part in range(2):
        write_mcap(tmp_path / f'bag_{part}.mcap', messages[part::2], chunk_size=900)
    path = tmp_path / 'bag_0.mcap'
    chunk = placed_chunks(path)[-2]
    data = bytearray(path.read_bytes())
    data[chunk.start + 9 : chunk.start + 73] = bytes(64)
    path.write_bytes(data)
    found, bag = read(tmp_path)
    assert len(found) == 60 - len(chunk.ends)
    assert bag.damage.skipped == {NOT_THERE: len(chunk.ends)}


@pytest.mark.parametrize('compression', ['none', 'lz4', 'bz2'])
def test_a_chunk_of_a_ros1_bag_that_is_not_there(tmp_path: Path, compression: str) -> None:
    messages = random_messages(np.random.default_rng(SEED), 44, store=ROS1)
    path = write_ros1(tmp_path / 'a.bag', messages, compression, chunk_size=900)
    with rosbag1.Reader(path) as reader:
        info = sorted(reader.chunk_infos, key=lambda info: info.pos)[-2]
    data = bytearray(path.read_bytes())
    data[info.pos : info.pos + 4] = bytes(4)
    path.write_bytes(data)
    found, bag = read(path)
    lost = sum(info.connection_counts.values())
    assert len(found) == 44 - lost
    assert bag.damage.skipped == {NOT_THERE: lost}


def test_lines_of_a_database_that_its_index_has_lost(tmp_path: Path) -> None:
    messages = random_messages(np.random.default_rng(SEED), 20)
    database = write_db3(tmp_path / 'a.db3', messages)
    # As where a page of the index is an earlier one.
    database.execute('PRAGMA writable_schema = ON')
    ((sql,),) = database.execute("SELECT sql FROM sqlite_master WHERE type = 'index'")
    name = sql.split()[2]
    database.execute(
        "UPDATE sqlite_master SET sql = ? WHERE type = 'index'",
        (f'{sql} WHERE timestamp < {messages[12].log_ns}',),
    )
    database.commit()
    database.close()
    database = sqlite3.connect(tmp_path / 'a.db3')
    database.execute(f'REINDEX {name}')
    database.execute('PRAGMA writable_schema = ON')
    database.execute("UPDATE sqlite_master SET sql = ? WHERE type = 'index'", (sql,))
    database.commit()
    database.close()
    found, bag = read(tmp_path / 'a.db3')
    assert len(found) + bag.damage.skipped[NOT_THERE] == 20
    assert len(found) == sum(m.log_ns < messages[12].log_ns for m in messages)


@pytest.mark.parametrize('storage', ['mcap', 'lz4', 'ros1', 'db3'])
def test_zeros_anywhere_are_noticed(tmp_path: Path, storage: str) -> None:
    rng = np.random.default_rng(SEED)
    messages = random_messages(rng, 44, store=ROS1)
    data = written(tmp_path / 'a', storage, messages)
    for _ in range(30):
        damaged = bytearray(data)
        start = int(rng.integers(20, len(data) - 64))
        damaged[start : start + 64] = bytes(64)
        (tmp_path / 'b').write_bytes(damaged)
        try:
            found, bag = read(tmp_path / 'b')
        except BagError:
            continue
        assert len(found) == 44 or bag.damage


def written(path: Path, storage: str, messages: list[Message]) -> bytes:
    if storage == 'ros1':
        write_ros1(path, messages, chunk_size=900)
    elif storage == 'db3':
        write_db3(path, messages).close()
    else:
        write_mcap(path, messages, storage if storage == 'lz4' else 'none', chunk_size=900)
    return path.read_bytes()
