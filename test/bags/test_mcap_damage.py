# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""MCAP files that are cut, damaged or made to do harm."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
import zstandard
from made_bags import IMAGE, Message, random_messages, write_mcap
from mcap.opcode import Opcode
from mcap.reader import make_reader
from mcap.records import Chunk
from mcap.stream_reader import StreamReader
from seeds import fresh_seeds

from segnode.bags.bag import Bag, open_bag
from segnode.errors import BagError

MAGIC = b'\x89MCAP0\r\n'
SEED = fresh_seeds(1)[0]


UNPACK = {'none': bytes, 'lz4': lz4.frame.decompress, 'zstd': zstandard.decompress}


@dataclass(frozen=True)
class Placed:
    """A chunk of a whole file: where it is, and where each of its messages ends in its records."""

    start: int
    data_start: int
    end: int
    data: bytes
    records: bytes
    ends: tuple[int, ...]


def record(opcode: int, data: bytes, length: int | None = None) -> bytes:
    return struct.pack('<BQ', opcode, len(data) if length is None else length) + data


def text(value: str) -> bytes:
    return struct.pack('<I', len(value.encode())) + value.encode()


def placed_chunks(path: Path) -> list[Placed]:
    """By mcap's own index and the offsets that the writer noted behind each chunk."""
    data = path.read_bytes()
    with path.open('rb') as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None
    offsets: dict[int, list[int]] = {}
    number = -1
    for each in StreamReader(io.BytesIO(data), emit_chunks=True).records:
        if isinstance(each, Chunk):
            number += 1
        elif type(each).__name__ == 'MessageIndex':
            offsets.setdefault(number, []).extend(offset for _, offset in each.records)
    found = []
    for number, index in enumerate(summary.chunk_indexes):
        end = index.chunk_start_offset + index.chunk_length
        packed = data[end - index.compressed_size : end]
        records = UNPACK[index.compression or 'none'](packed)
        ends = []
        for offset in sorted(offsets[number]):
            (length,) = struct.unpack_from('<Q', records, offset + 1)
            ends.append(offset + 9 + length)
        start = index.chunk_start_offset
        place = Placed(start, end - len(packed), end, packed, records, tuple(ends))
        found.append(place)
    return found


def damaged(rng: np.random.Generator, data: bytes, chunk: Placed, compression: str) -> bytearray:
    """Return a file with a byte of a chunk changed so that it gives other records, or none.

    Another offset of lz4 may copy the same bytes from another place.
    """
    while True:
        position = int(rng.integers(len(chunk.data)))
        changed = bytearray(chunk.data)
        changed[position] ^= 0xFF
        try:
            is_damaged = UNPACK[compression](bytes(changed)) != chunk.records
        except (RuntimeError, zstandard.ZstdError):
            is_damaged = True
        if is_damaged:
            return bytearray(data[: chunk.data_start] + changed + data[chunk.end :])


def messages_before(chunks: list[Placed], cut: int, compression: str) -> int:
    """How many messages can be had of a file that ends at ``cut``."""
    count = 0
    for chunk in chunks:
        if chunk.end <= cut:
            count += len(chunk.ends)
        elif cut > chunk.data_start and compression != 'zstd':
            there = chunk.data[: cut - chunk.data_start]
            if compression == 'lz4':
                there = lz4.frame.LZ4FrameDecompressor().decompress(there)
            count += sum(end <= len(there) for end in chunk.ends)
    return count


def read(path: Path) -> tuple[list[tuple[str, int, bytes]], Bag]:
    with open_bag(path, print) as bag:
        found = [(r.topic.name, r.log_ns, r.data) for r in bag.records(bag.topics)]
        # What was found damaged is counted once, however often it is read.
        again = [(r.topic.name, r.log_ns, r.data) for r in bag.records(bag.topics)]
        assert again == found
        return found, bag


def expected(messages: list[Message]) -> list[tuple[str, int, bytes]]:
    return [(m.topic, m.log_ns, m.data) for m in messages]


@pytest.mark.parametrize('compression', ['none', 'lz4', 'zstd'])
def test_a_file_that_is_cut_anywhere_gives_what_is_there(tmp_path: Path, compression: str) -> None:
    rng = np.random.default_rng(SEED)
    messages = random_messages(rng, 40)
    path = write_mcap(tmp_path / 'whole.mcap', messages, compression, chunk_size=900)
    chunks = placed_chunks(path)
    data = path.read_bytes()
    assert len(chunks) > 3
    borders = [border + d for c in chunks for border in (c.start, c.end) for d in (-1, 0, 1)]
    cuts = [
        *borders,
        *rng.integers(0, len(data), 60).tolist(),
        len(data) - 1,
        int(0.6 * len(data)),
    ]
    cut_file = tmp_path / 'cut.mcap'
    for cut in cuts:
        cut_file.write_bytes(data[:cut])
        if cut < len(MAGIC):
            with pytest.raises(BagError, match='expected a bag'):
                open_bag(cut_file, print)
            continue
        found, bag = read(cut_file)
        assert len(found) == messages_before(chunks, cut, compression)
        assert found == expected(messages[: len(found)])
        assert not bag.damage.skipped
        if len(found) < len(messages):
            assert len(bag.damage.remarks) == 1
            assert f'at byte {cut}' in bag.damage.remarks[0]
            assert bag.damage.last_ns == (messages[len(found) - 1].log_ns if found else None)


@pytest.mark.parametrize('compression', ['none', 'lz4'])
def test_blocks_of_a_large_chunk_that_is_cut(tmp_path: Path, compression: str) -> None:
    rng = np.random.default_rng(SEED)
    messages = [Message('/a', IMAGE, n, rng.bytes(9000)) for n in range(60)]
    path = write_mcap(tmp_path / 'a.mcap', messages, compression, chunk_size=1 << 20)
    (chunk,) = placed_chunks(path)
    cut = int(0.6 * path.stat().st_size)
    path.write_bytes(path.read_bytes()[:cut])
    found, bag = read(path)
    assert found == expected(messages[: messages_before([chunk], cut, compression)])
    assert 25 < len(found) < 40
    if compression == 'none':
        assert bag.damage.unreadable_bytes == cut - chunk.data_start - chunk.ends[len(found) - 1]
    else:
        assert bag.damage.unreadable_bytes < 9100


def test_the_bytes_of_a_cut_chunk_are_counted(tmp_path: Path) -> None:
    messages = random_messages(np.random.default_rng(SEED), 40)
    path = write_mcap(tmp_path / 'a.mcap', messages, 'zstd', chunk_size=900)
    chunk = placed_chunks(path)[2]
    path.write_bytes(path.read_bytes()[: chunk.end - 7])
    _, bag = read(path)
    assert bag.damage.unreadable_bytes == chunk.end - 7 - chunk.start


@pytest.mark.parametrize('compression', ['none', 'lz4', 'zstd'])
@pytest.mark.parametrize('is_closed', [True, False])
def test_a_damaged_chunk_is_skipped_and_counted(
    tmp_path: Path, compression: str, is_closed: bool
) -> None:
    rng = np.random.default_rng(SEED)
    messages = random_messages(rng, 40)
    path = write_mcap(tmp_path / 'a.mcap', messages, compression, chunk_size=900)
    chunks = placed_chunks(path)
    # The last but one: an earlier one may be the only one that names a topic.
    chunk = chunks[-2]
    data = damaged(rng, path.read_bytes(), chunk, compression)
    path.write_bytes(data if is_closed else data[: chunks[-1].end])
    found, bag = read(path)
    first = sum(len(each.ends) for each in chunks[:-2])
    after = first + len(chunk.ends)
    assert found == expected(messages[:first] + messages[after:])
    assert bag.damage.skipped == {'in a damaged chunk': after - first}
    assert bag.damage.unreadable_bytes == chunk.end - chunk.start
    assert f'the chunk at byte {chunk.start} cannot be read' in ' '.join(bag.damage.remarks)
    assert bag.damage.last_ns == messages[-1].log_ns
    # Only what was asked for counts.
    with open_bag(path, print) as bag:
        camera = sum(r.topic.name == '/camera' for r in bag.records(['/camera']))
        lost = bag.damage.skipped['in a damaged chunk']
        assert camera + lost == sum(m.topic == '/camera' for m in messages)


@pytest.mark.parametrize('compression', ['none', 'lz4', 'zstd'])
def test_messages_whose_topic_a_damaged_chunk_alone_names_are_counted(
    tmp_path: Path, compression: str
) -> None:
    rng = np.random.default_rng(SEED)
    late = int(rng.integers(20, 50))
    messages = [
        Message('/camera' if n < late else '/named_late', IMAGE, n, rng.bytes(90))
        for n in range(60)
    ]
    path = write_mcap(tmp_path / 'a.mcap', messages, compression, chunk_size=900)
    chunks = placed_chunks(path)
    firsts = [sum(len(c.ends) for c in chunks[:n]) for n in range(len(chunks) + 1)]
    number = next(n for n, chunk in enumerate(chunks) if b'/named_late' in chunk.records)
    chunk = chunks[number]
    data = damaged(rng, path.read_bytes(), chunk, compression)
    before, behind = messages[: firsts[number]], messages[firsts[number + 1] :]
    # The index at the end of the file names it, too.
    path.write_bytes(data)
    found, _ = read(path)
    assert found == expected(before + behind)
    path.write_bytes(data[: chunks[-1].end])
    found, bag = read(path)
    assert found == expected(before)
    assert bag.damage.skipped['its topic is not known'] == len(behind) > 0


def test_messages_without_chunks_that_are_cut_or_broken(tmp_path: Path) -> None:
    messages = random_messages(np.random.default_rng(SEED), 40, disorder_ns=300_000_000)
    path = write_mcap(tmp_path / 'a.mcap', messages, use_chunking=False)
    data = path.read_bytes()
    ends = [data.index(m.data) + len(m.data) for m in messages]
    path.write_bytes(data[: ends[25] + 40])
    found, bag = read(path)
    assert found == expected(sorted(messages[:26], key=lambda m: m.log_ns))
    assert bag.damage.unreadable_bytes == 40
    # One message is no message any more, and the file has its end, which counts them. (What
    # comes behind a message is the next one, where that one's topic has been there before.)
    last = next(
        n for n in range(9, 39) if messages[n + 1].topic in {m.topic for m in messages[: n + 1]}
    )
    lost = bytearray(data)
    lost[ends[last]] = 0x7F
    path.write_bytes(lost)
    found, bag = read(path)
    assert len(found) == 39
    assert bag.damage.remarks == ['a.mcap: 39 of its 40 messages are there']
    # The length of that message is nonsense, and the file has its end.
    path.write_bytes(data[: ends[last] + 1] + b'\xff' * 8 + data[ends[last] + 9 :])
    found, bag = read(path)
    assert found == expected(sorted(messages[: last + 1], key=lambda m: m.log_ns))
    assert bag.damage.remarks == [f'a.mcap: is damaged from byte {ends[last]} on']
    assert bag.damage.unreadable_bytes == len(data) - ends[last]


def test_messages_outside_of_the_chunks_of_an_index_are_read(tmp_path: Path) -> None:
    messages = random_messages(np.random.default_rng(SEED), 30)
    path = write_mcap(tmp_path / 'a.mcap', messages)
    data = path.read_bytes()
    chunks = placed_chunks(path)
    more = Message('/camera', IMAGE, messages[-1].log_ns + 1, b'more')
    channel = 2 if messages[0].topic == '/chatter' else 1
    inserted = record(Opcode.MESSAGE, struct.pack('<HIQQ', channel, 0, more.log_ns, 0) + more.data)
    # In front of the end of the data; the summary moves.
    end = data.rindex(struct.pack('<BQ', Opcode.DATA_END, 4))
    assert end > chunks[-1].end
    footer = len(data) - len(MAGIC) - 20
    (summary,) = struct.unpack_from('<Q', data, footer)
    moved = struct.pack('<Q', summary + len(inserted))
    path.write_bytes(data[:end] + inserted + data[end:footer] + moved + data[footer + 8 :])
    found, bag = read(path)
    assert found == expected([*messages, more])
    assert not bag.damage


def test_zeros_at_the_end_as_after_a_loss_of_power(tmp_path: Path) -> None:
    messages = random_messages(np.random.default_rng(SEED), 20)
    path = write_mcap(tmp_path / 'a.mcap', messages, 'lz4')
    end = placed_chunks(path)[-1].end
    path.write_bytes(path.read_bytes()[:end] + bytes(100_000))
    found, bag = read(path)
    assert found == expected(messages)
    assert bag.damage.unreadable_bytes == 100_000


def chunk_record(records: bytes, compression: str, size: int, length: int | None = None) -> bytes:
    head = struct.pack('<QQQI', 0, 0, size, 0) + text(compression)
    return record(Opcode.CHUNK, head + struct.pack('<Q', len(records)) + records, length)


def hostile_files() -> Iterator[tuple[str, bytes]]:
    huge = 1 << 60
    head = MAGIC + record(Opcode.HEADER, text('ros2') + text('test'))
    message = record(Opcode.MESSAGE, struct.pack('<HIQQ', 1, 0, 5, 5) + b'data')
    yield 'a record of 2^60 bytes', head + record(Opcode.MESSAGE, bytes(22), huge)
    yield 'a message without its head', head + record(Opcode.MESSAGE, b'abc')
    yield 'a message of no channel', head + message
    yield 'a chunk of 2^60 bytes', head + chunk_record(message, '', len(message), huge)
    yield 'a chunk that says 2^60', head + chunk_record(message, '', huge)
    yield 'zstd that says 2^60', head + chunk_record(zstandard.compress(message), 'zstd', huge)
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 26))
    yield 'zstd that becomes more', head + chunk_record(bomb * 20, 'zstd', 1000)
    bomb = lz4.frame.compress(bytes(1 << 26), store_size=False)
    yield 'lz4 that becomes more', head + chunk_record(bomb, 'lz4', 1000)
    frame = b'\x28\xb5\x2f\xfd\xe0' + struct.pack('<Q', huge) + bytes(20)
    yield 'a frame of 2^60 bytes', head + chunk_record(frame, 'zstd', 1 << 20)
    yield 'another compression', head + chunk_record(b'', 'xz', 0)
    yield 'a compression of 4 GB', head + record(Opcode.CHUNK, bytes(28) + b'\xff' * 4)
    yield 'a schema of 4 GB', head + record(Opcode.SCHEMA, b'\1\0' + b'\xff' * 4 + b'name')
    yield (
        'a schema that is no text',
        head + record(Opcode.SCHEMA, b'\1\0' + text('a')[:4] + b'\xff'),
    )
    channel = struct.pack('<HH', 1, 1) + text('/a') + text('cdr')
    yield 'a channel of endless metadata', head + record(Opcode.CHANNEL, channel + b'\xff' * 4)
    loop = record(Opcode.CHANNEL, channel + struct.pack('<I', 0))
    yield 'a type of itself', head + loop + loop + message
    yield 'a chunk within a chunk', head + chunk_record(chunk_record(message, '', 0), '', 0)
    yield 'nothing but records of nothing', head + record(0x7F, b'') * 1000
    yield 'an index of itself', with_index(head, len(head))
    yield 'an index of nowhere', with_index(head, huge)


def with_index(head: bytes, chunk_start: int) -> bytes:
    """A closed file whose index names a chunk at ``chunk_start``."""
    end = head + record(Opcode.DATA_END, bytes(4))
    index = struct.pack('<QQQQIQ', 0, 9, chunk_start, 1 << 60, 0, 0) + text('')
    statistics = struct.pack('<QHIIIIQQI', 1 << 60, 0, 0, 0, 0, 1, 0, 9, 0)
    summary = record(Opcode.CHUNK_INDEX, index + bytes(16)) + record(Opcode.STATISTICS, statistics)
    footer = record(Opcode.FOOTER, struct.pack('<QQI', len(end), 0, 0))
    return end + summary + footer + MAGIC


@pytest.mark.parametrize(
    ('name', 'data'), list(hostile_files()), ids=lambda value: str(value)[:40]
)
def test_a_hostile_file_costs_neither_memory_nor_time(
    tmp_path: Path, name: str, data: bytes
) -> None:
    path = tmp_path / 'a.mcap'
    path.write_bytes(data)
    tracemalloc.start()
    try:
        found, bag = read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20
    assert [data for _, _, data in found] == ([b'data'] if name == 'a type of itself' else [])
    assert bag.damage


def test_random_bytes_end_in_a_result(tmp_path: Path) -> None:
    rng = np.random.default_rng(SEED)
    messages = random_messages(rng, 20)
    for compression in ('none', 'lz4', 'zstd'):
        path = write_mcap(tmp_path / 'a.mcap', messages, compression)
        data = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(data)
            start = int(rng.integers(len(MAGIC), len(data) - 8))
            damaged[start : start + int(rng.integers(1, 9))] = rng.bytes(8)
            path.write_bytes(damaged)
            found, bag = read(path)
            assert len(found) <= len(messages)
            if len(found) < len(messages):
                assert bag.damage
