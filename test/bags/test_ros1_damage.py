# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""ROS 1 bags that are cut, not closed, damaged or made to do harm."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from made_bags import ROS1, Message, random_messages, write_ros1
from rosbags import rosbag1
from seeds import fresh_seeds

from segnode.bags.bag import Bag, open_bag
from segnode.errors import BagError

SEED = fresh_seeds(1)[0]
START = b'#ROSBAG V2.0\n'


def read(path: Path) -> tuple[list[tuple[str, int, bytes]], Bag]:
    with open_bag(path, print) as bag:
        return [(r.topic.name, r.log_ns, r.data) for r in bag.records(bag.topics)], bag


def expected(messages: list[Message]) -> list[tuple[str, int, bytes]]:
    return [(m.topic, m.log_ns, m.data) for m in messages]


def chunk_ends(path: Path) -> list[tuple[int, int]]:
    """Where each chunk ends, and how many messages it has, by rosbags."""
    with rosbag1.Reader(path) as reader:
        return [
            (
                reader.chunks[info.pos].datapos + reader.chunks[info.pos].datasize,
                sum(info.connection_counts.values()),
            )
            for info in sorted(reader.chunk_infos, key=lambda info: info.pos)
        ]


@pytest.mark.parametrize('compression', ['none', 'lz4', 'bz2'])
def test_a_bag_that_is_cut_anywhere_gives_what_is_there(tmp_path: Path, compression: str) -> None:
    rng = np.random.default_rng(SEED)
    messages = random_messages(rng, 40, store=ROS1)
    path = write_ros1(tmp_path / 'a.bag', messages, compression, chunk_size=900)
    data = path.read_bytes()
    ends = chunk_ends(path)
    assert len(ends) > 3
    borders = [end + d for end, _ in ends for d in (-1, 0, 1)]
    for cut in [*borders, *rng.integers(len(START), len(data), 60).tolist(), len(data) - 1]:
        (tmp_path / 'cut.bag').write_bytes(data[:cut])
        found, bag = read(tmp_path / 'cut.bag')
        if compression == 'none':
            whole = sum(data.index(m.data) + len(m.data) <= cut for m in messages)
            assert len(found) == whole
        else:
            # A chunk that is cut may give some.
            whole = sum(count for end, count in ends if end <= cut)
            following = next((count for end, count in ends if end > cut), 0)
            assert whole <= len(found) <= whole + following
        assert found == expected(messages[: len(found)])
        assert bag.damage.remarks or len(found) == len(messages)


def test_a_bag_that_was_never_closed(tmp_path: Path) -> None:
    messages = random_messages(np.random.default_rng(SEED), 40, store=ROS1)
    path = write_ros1(tmp_path / 'a.bag', messages, chunk_size=900)
    data = bytearray(path.read_bytes())
    with rosbag1.Reader(path) as reader:
        last = max(info.pos for info in reader.chunk_infos)
        chunk = reader.chunks[last]
    # As rosbag leaves it: no index, and a chunk whose length is not yet known.
    position = data.index(b'index_pos=') + len(b'index_pos=')
    data[position : position + 8] = bytes(8)
    data[chunk.datapos - 4 : chunk.datapos] = bytes(4)
    position = data.index(b'size=', last) + len(b'size=')
    data[position : position + 4] = bytes(4)
    path.write_bytes(data[: chunk.datapos + chunk.datasize])
    found, bag = read(path)
    assert found == expected(messages)
    assert 'was not closed' in bag.damage.remarks[0]


@pytest.mark.parametrize('compression', ['lz4', 'bz2'])
def test_a_damaged_chunk_is_skipped_and_counted(tmp_path: Path, compression: str) -> None:
    messages = random_messages(np.random.default_rng(SEED), 40, store=ROS1)
    path = write_ros1(tmp_path / 'a.bag', messages, compression, chunk_size=900)
    data = bytearray(path.read_bytes())
    (_, first), (_, second) = chunk_ends(path)[:2]
    with rosbag1.Reader(path) as reader:
        start = sorted(chunk.datapos for chunk in reader.chunks.values())[1]
    # A ROS 1 bag has no checksums: what still decompresses is taken for what it was.
    data[start : start + 8] = bytes(8)
    path.write_bytes(data)
    found, bag = read(path)
    assert found == expected(messages[:first] + messages[first + second :])
    assert bag.damage.skipped == {'in a damaged chunk': second}
    assert bag.damage.last_ns == messages[-1].log_ns


def test_random_bytes_end_in_a_result(tmp_path: Path) -> None:
    rng = np.random.default_rng(SEED)
    messages = random_messages(rng, 20, store=ROS1)
    for compression in ('none', 'lz4', 'bz2'):
        path = tmp_path / f'{compression}.bag'
        data = write_ros1(path, messages, compression).read_bytes()
        for _ in range(60):
            damaged = bytearray(data)
            start = int(rng.integers(4096, len(data) - 8))
            damaged[start : start + int(rng.integers(1, 9))] = rng.bytes(8)
            path.write_bytes(damaged)
            found, _ = read(path)
            assert len(found) <= len(messages)


def field(name: str, value: bytes) -> bytes:
    return struct.pack('<I', len(name) + 1 + len(value)) + name.encode() + b'=' + value


def record(header: bytes, data: bytes = b'', length: int | None = None) -> bytes:
    length = len(data) if length is None else length
    return struct.pack('<I', len(header)) + header + struct.pack('<I', length) + data


HUGE = b'\xff\xff\xff\xff'
CHUNK = field('op', b'\5') + field('compression', b'none') + field('size', HUGE)


@pytest.mark.parametrize(
    'data',
    [
        HUGE,
        record(b'', b'', 0xFFFFFFFF),
        record(field('op', b''), b''),
        record(HUGE + b'op=\5'),
        record(field('op', b'\3') + field('index_pos', HUGE * 2)),
        record(field('op', b'\3')),
        record(CHUNK, b'', 0xFFFFFFFF),
        record(CHUNK, b'abc'),
        record(field('op', b'\5'), b'abc'),
        record(field('op', b'\7') + field('topic', b'\xff'), b'abc'),
        record(field('op', b'\2') + field('conn', b'\1'), b'abc'),
        record(field('op', b'\x99')) * 1000,
    ],
    ids=lambda data: data[:16].hex(),
)
def test_a_hostile_bag_costs_no_memory(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / 'a.bag'
    path.write_bytes(START + data)
    tracemalloc.start()
    try:
        found, bag = read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == []
    assert bag.damage
    assert peak < 32 << 20


def test_an_encrypted_bag_says_so(tmp_path: Path) -> None:
    head = field('op', b'\3') + field('encryptor', b'rosbag/AesCbcEncryptor')
    (tmp_path / 'a.bag').write_bytes(START + record(head))
    with pytest.raises(BagError, match='found an encrypted one'):
        open_bag(tmp_path / 'a.bag', print)
