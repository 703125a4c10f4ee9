# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Bags of every storage and compression, against the libraries' own readers."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
import zstandard
from made_bags import (
    IMAGE,
    ROS1,
    TEXT,
    Message,
    add_to_db3,
    random_messages,
    text_bytes,
    write_db3,
    write_mcap,
    write_ros1,
    write_rosbag2,
)
from mcap.reader import NonSeekingReader
from rosbags import rosbag1, rosbag2
from seeds import fresh_seeds

from segnode.bags import decompress
from segnode.bags.bag import Bag, open_bag
from segnode.bags.topics import image_topics
from segnode.errors import BagError

SEEDS = fresh_seeds(1)
SECOND = 10**9

Found = list[tuple[str, int, bytes]]


def read(path: Path, names: tuple[str, ...] = ()) -> tuple[Found, Bag, list[str]]:
    """What a bag holds in its order, the bag, closed, and what it reported."""
    reports: list[str] = []
    with open_bag(path, reports.append) as bag:
        found = [(r.topic.name, r.log_ns, r.data) for r in bag.records(names or bag.topics)]
        assert bag.progress() == 1
        # Once more from the start.
        again = [(r.topic.name, r.log_ns, r.data) for r in bag.records(names or bag.topics)]
        assert again == found
    return found, bag, reports


def expected(messages: list[Message]) -> Found:
    return [(m.topic, m.log_ns, m.data) for m in sorted(messages, key=lambda m: m.log_ns)]


def rosbag2_reads(path: Path) -> Found:
    with rosbag2.Reader(path) as reader:
        return [
            (c.topic, time, bytes(data)) for c, time, data in reader.messages(reader.connections)
        ]


def unharmed(bag: Bag) -> bool:
    return not bag.damage and bag.damage.last_ns is None


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize(
    ('storage', 'compression'),
    [
        ('mcap', 'none'),
        ('mcap', 'file'),
        ('mcap', 'message'),
        ('mcap', 'storage'),
        ('sqlite3', 'none'),
        ('sqlite3', 'file'),
        ('sqlite3', 'message'),
    ],
)
def test_folders_as_rosbags_reads_them(
    tmp_path: Path, seed: int, storage: str, compression: str
) -> None:
    messages = random_messages(np.random.default_rng(seed))
    folder = write_rosbag2(tmp_path / 'bag', messages, storage, compression)
    found, bag, _ = read(folder)
    assert found == rosbag2_reads(folder) == expected(messages)
    assert unharmed(bag)
    assert {name: topic.messages for name, topic in bag.topics.items()} == {
        name: sum(m.topic == name for m in messages) for name in {m.topic for m in messages}
    }
    assert bag.span_ns == (messages[0].log_ns, messages[-1].log_ns)
    camera, _, _ = read(folder, ('/camera', '/not_there'))
    assert camera == [each for each in found if each[0] == '/camera']
    # The file alone, without what the metadata say of it.
    (file,) = (each for each in folder.iterdir() if each.name != 'metadata.yaml')
    assert read(file)[0] == found


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('profile', ['', 'ros1', 'ros2'])
@pytest.mark.parametrize('compression', ['none', 'lz4', 'zstd'])
@pytest.mark.parametrize(
    'options',
    [
        {},
        {'use_chunking': False},
        {'use_statistics': False},
        {'repeat_channels': False},
        {'repeat_schemas': False},
        {'chunk_size': 1},
        {'chunk_size': 1 << 20},
    ],
    ids=str,
)
def test_mcap_in_log_order_as_its_own_reader_has_it(
    tmp_path: Path, seed: int, profile: str, compression: str, options: dict[str, int]
) -> None:
    rng = np.random.default_rng(seed)
    messages = random_messages(rng, disorder_ns=200_000_000)
    path = write_mcap(tmp_path / 'a.mcap', messages, compression, profile, **options)
    found, bag, _ = read(path)
    with path.open('rb') as stream:
        oracle = [
            (channel.topic, message.log_time, message.data)
            for _, channel, message in NonSeekingReader(stream).iter_messages()
        ]
    assert found == oracle == expected(messages)
    assert unharmed(bag)
    assert bag.topics['/camera'].type_name == IMAGE
    assert bag.topics['/chatter'].messages == sum(m.topic == '/chatter' for m in messages)


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('compression', ['none', 'lz4', 'bz2'])
def test_ros1_as_rosbags_reads_it(tmp_path: Path, seed: int, compression: str) -> None:
    messages = random_messages(np.random.default_rng(seed), disorder_ns=200_000_000, store=ROS1)
    path = write_ros1(tmp_path / 'a.bag', messages, compression)
    found, bag, _ = read(path)
    with rosbag1.Reader(path) as reader:
        oracle = [(c.topic, time, bytes(data)) for c, time, data in reader.messages()]
    assert found == oracle == expected(messages)
    assert unharmed(bag)
    camera = bag.topics['/camera']
    assert (camera.type_name, camera.encoding, camera.is_image) == (IMAGE, 'ros1', True)
    assert camera.messages == sum(m.topic == '/camera' for m in messages)


def test_types_of_old_recorders_and_other_schemas(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    messages = [
        Message(m.topic, m.type_name.replace('/msg/', '/'), m.log_ns, m.data)
        for m in random_messages(rng)
    ]
    others = [
        Message('/proto', 'foxglove.PosesInFrame', messages[0].log_ns, b'\x0a\x00'),
        Message('/add/_service_event', 'example/srv/Add_Event', messages[1].log_ns, b'\0\1\0\0'),
        Message('/odd', 'custom_msgs/msg/NobodyKnows', messages[2].log_ns, b''),
    ]
    write_db3(tmp_path / 'a.db3', [*messages, *others]).close()
    for path in (tmp_path / 'a.db3', write_mcap(tmp_path / 'a.mcap', [*messages, *others])):
        found, bag, _ = read(path)
        assert found == expected([*messages, *others])
        assert bag.topics['/camera'].type_name == IMAGE
        assert bag.topics['/chatter'].type_name == TEXT
        assert bag.topics['/proto'].type_name == 'foxglove.PosesInFrame'
        assert [topic.name for topic in image_topics(bag)] == ['/camera']


def test_a_protobuf_channel_is_no_image_topic(tmp_path: Path) -> None:
    path = write_mcap(
        tmp_path / 'a.mcap', [Message('/a', IMAGE, 1, b'')], encoding='protobuf', profile=''
    )
    with open_bag(path, print) as bag, pytest.raises(BagError, match=r'/a \(sensor_msgs/msg'):
        image_topics(bag)


def split(tmp_path: Path, count: int = 12) -> tuple[Path, list[Message]]:
    """A folder of ``count`` parts, without metadata."""
    messages = random_messages(np.random.default_rng(3), 4 * count)
    folder = tmp_path / 'bag'
    folder.mkdir()
    for part in range(count):
        write_mcap(folder / f'bag_{part}.mcap', messages[4 * part : 4 * part + 4], 'zstd')
    return folder, messages


def write_metadata(folder: Path, names: list[str], head: str = 'storage_identifier: mcap') -> None:
    listed = ''.join(f'    - {name}\n' for name in names)
    (folder / 'metadata.yaml').write_text(
        f'rosbag2_bagfile_information:\n  {head}\n  relative_file_paths:\n{listed}'
        '  message_count: 0\n  topics_with_message_count: []\n'
    )


@pytest.mark.parametrize(
    ('metadata', 'says'),
    [
        (None, 'has no metadata.yaml'),
        ('', 'lists no files'),
        ('{', 'is no YAML'),
        ('[' * 20_000, 'nested too deeply'),
        ('a' * 300_000, 'more than 256 KiB'),
        ('a: 1', 'lists no files'),
        ('rosbag2_bagfile_information: [1, 2]', 'lists no files'),
        ('rosbag2_bagfile_information: {relative_file_paths: 3}', 'lists no files'),
        ('rosbag2_bagfile_information: {relative_file_paths: [x.mcap]}', 'names other files'),
        ('!!python/object/apply:os.system [exit]', 'lists no files'),
        ('? [1]\n: 2', 'lists no files'),
    ],
    ids=lambda value: str(value)[:30],
)
def test_metadata_that_are_missing_or_wrong(
    tmp_path: Path, metadata: str | None, says: str
) -> None:
    folder, messages = split(tmp_path)
    if metadata is not None:
        (folder / 'metadata.yaml').write_text(metadata)
    found, bag, reports = read(folder)
    assert found == expected(messages)
    # By their numbers, not by the alphabet.
    assert [file.name for file in bag.files] == [f'bag_{part}.mcap' for part in range(12)]
    assert says in '\n'.join(reports)
    assert unharmed(bag)


@pytest.mark.parametrize(
    'head', ['storage_identifier: ""', 'version: 99', 'storage_identifier: sqlite3']
)
def test_metadata_that_do_not_matter(tmp_path: Path, head: str) -> None:
    folder, messages = split(tmp_path)
    # Older ones name the folder, too; neither their order nor their counts are relied on.
    write_metadata(folder, [f'bag/bag_{part}.mcap' for part in reversed(range(12))], head)
    found, bag, reports = read(folder)
    assert found == expected(messages)
    assert unharmed(bag)
    assert reports == []


def test_a_missing_part_and_one_too_many(tmp_path: Path) -> None:
    folder, messages = split(tmp_path)
    write_metadata(folder, [f'bag_{part}.mcap' for part in range(11)])
    (folder / 'bag_4.mcap').unlink()
    found, bag, reports = read(folder)
    assert found == expected(messages[:16] + messages[20:44])
    assert bag.damage.remarks == ['the part bag_4.mcap is missing']
    assert bag.damage.last_ns == messages[43].log_ns
    assert 'bag_11.mcap is not listed' in reports[0]


def test_parts_that_overlap_in_time_and_one_that_is_broken(tmp_path: Path) -> None:
    folder = tmp_path / 'bag'
    folder.mkdir()
    messages = random_messages(np.random.default_rng(1), 30)
    for part in range(3):
        write_mcap(folder / f'bag_{part}.mcap', messages[part::3])
    (folder / 'bag_3.mcap').write_bytes(b'')
    write_metadata(folder, [f'bag_{part}.mcap' for part in range(4)])
    found, bag, _ = read(folder)
    assert found == expected(messages)
    (remark,) = bag.damage.remarks
    assert 'an empty file' in remark


@pytest.mark.parametrize('suffix', ['.mcap', '.db3', '.bag'])
@pytest.mark.parametrize('compression', ['zstd', 'lz4'])
def test_a_file_that_is_compressed_as_a_whole(
    tmp_path: Path, suffix: str, compression: str
) -> None:
    messages = random_messages(np.random.default_rng(2), store=ROS1)
    path = tmp_path / f'a{suffix}'
    if suffix == '.mcap':
        write_mcap(path, messages)
    elif suffix == '.db3':
        write_db3(path, messages).close()
    else:
        write_ros1(path, messages)
    compress = zstandard.compress if compression == 'zstd' else lz4.frame.compress
    packed = tmp_path / f'packed{suffix}.{compression}'
    packed.write_bytes(compress(path.read_bytes()))
    before = set(tmp_path.iterdir())
    found, bag, reports = read(packed)
    assert found == expected(messages)
    assert unharmed(bag)
    assert 'is unpacked in' in reports[0]
    folder = Path(reports[0].rpartition(' ')[2])
    assert not folder.exists()
    assert set(tmp_path.iterdir()) == before


def test_the_first_bytes_tell_and_not_the_name(tmp_path: Path) -> None:
    messages = random_messages(np.random.default_rng(2))
    write_mcap(tmp_path / 'a.db3', messages)
    write_db3(tmp_path / 'a.mcap', messages).close()
    assert read(tmp_path / 'a.db3')[0] == read(tmp_path / 'a.mcap')[0] == expected(messages)


@pytest.mark.parametrize('name', ['a.mcap', 'a.db3', 'a.bag', 'a.mcap.zstd'])
@pytest.mark.parametrize('content', [b'', b'\0', b'text', b'#ROSBAG V1.2\n', b'#ROSBAG V2.0\n'])
def test_files_that_are_no_bag(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    if content == b'#ROSBAG V2.0\n':
        # One that was cut: it has nothing.
        _, bag, _ = read(tmp_path / name)
        assert bag.topics == {}
        assert len(bag.damage.remarks) == 1
        return
    with pytest.raises(BagError, match=r'expected a (bag|ROS 1 bag)') as caught:
        open_bag(tmp_path / name, print)
    assert '\n' not in str(caught.value)


def test_folders_that_are_no_bag_or_several(tmp_path: Path) -> None:
    with pytest.raises(BagError, match='found nothing there'):
        open_bag(tmp_path / 'nowhere', print)
    with pytest.raises(BagError, match='a folder without one'):
        open_bag(tmp_path, print)
    messages = random_messages(np.random.default_rng(2), 3)
    for name in ('b', 'a'):
        write_rosbag2(tmp_path / 'many' / name, messages)
    with pytest.raises(BagError, match='a folder of bags: a, b; give one'):
        open_bag(tmp_path / 'many', print)
    for name in ('run.mcap', 'walk.mcap'):
        write_mcap(tmp_path / name, messages)
    with pytest.raises(BagError, match=r'found several: run\.mcap, walk\.mcap; give one'):
        open_bag(tmp_path, print)


def test_names_with_the_time_of_day_are_no_parts(tmp_path: Path) -> None:
    messages = random_messages(np.random.default_rng(2), 6)
    for number in (3, 4, 5):
        write_mcap(tmp_path / f'bag_{number}.mcap', messages[2 * number - 6 : 2 * number - 4])
    assert read(tmp_path)[0] == expected(messages)
    write_mcap(tmp_path / 'bag_55.mcap', messages)
    with pytest.raises(BagError, match=r'found several: bag_3\.mcap, bag_4\.mcap, .*give one'):
        open_bag(tmp_path, print)


@pytest.mark.parametrize('compression', ['zstd', 'lz4'])
def test_a_compressed_file_that_is_cut_or_finds_no_room(
    tmp_path: Path, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    messages = [Message('/a', IMAGE, number, rng.bytes(20_000)) for number in range(40)]
    whole = write_mcap(tmp_path / 'a.mcap', messages).read_bytes()
    compress = zstandard.compress if compression == 'zstd' else lz4.frame.compress
    packed = tmp_path / f'packed.mcap.{compression}'
    packed.write_bytes(compress(whole)[: len(whole) * 6 // 10])
    found, bag, _ = read(packed)
    assert 15 < len(found) < 30
    assert found == expected(messages[: len(found)])
    assert bag.damage.remarks
    assert bag.damage.last_ns == len(found) - 1
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage)
    with pytest.raises(BagError, match=r'expected room for .*TMPDIR'):
        open_bag(packed, print)


def test_a_database_without_an_index_is_put_in_order(tmp_path: Path) -> None:
    messages = random_messages(np.random.default_rng(4), disorder_ns=3 * SECOND)
    write_db3(tmp_path / 'a.db3', messages, index=False).close()
    found, bag, _ = read(tmp_path / 'a.db3')
    assert found == expected(messages)
    assert unharmed(bag)
    assert list(tmp_path.iterdir()) == [tmp_path / 'a.db3']


def test_memory_does_not_grow_with_a_database_without_an_index(tmp_path: Path) -> None:
    for count in (10, 100):
        data = bytes(1 << 19)
        messages = (Message('/a', IMAGE, 10**9 - number, data) for number in range(count))
        write_db3(tmp_path / f'{count}.db3', messages, index=False).close()
    code = (
        'import pathlib, sys; from segnode.bags.bag import open_bag\n'
        'for count in (10, 100):\n'
        '    with open_bag(pathlib.Path(sys.argv[1]) / f"{count}.db3", print) as bag:\n'
        '        assert sum(1 for _ in bag.records(bag.topics)) == count\n'
        '    status = pathlib.Path("/proc/self/status").read_text()\n'
        '    print(status.partition("VmHWM:")[2].split()[0])'  # ru_maxrss begins with the parent's
    )
    command = [sys.executable, '-c', code, str(tmp_path)]
    small, large = map(int, subprocess.check_output(command, text=True).split())
    # KiB; the larger one holds 45 MiB more.
    assert large - small < 8 << 10


@pytest.mark.parametrize('storage', ['mcap', 'unchunked', 'lz4', 'ros1'])
def test_memory_does_not_grow_with_length(tmp_path: Path, storage: str) -> None:
    peaks = []
    for count in (60, 240):
        path = tmp_path / str(count)
        data = np.random.default_rng(0).bytes(100_000)
        messages = [Message('/a', IMAGE, number, data) for number in range(count)]
        if storage == 'ros1':
            write_ros1(path, messages)
        else:
            compression = 'lz4' if storage == 'lz4' else 'none'
            write_mcap(path, messages, compression, use_chunking=storage != 'unchunked')
        tracemalloc.start()
        try:
            with open_bag(path, print) as bag:
                assert sum(1 for _ in bag.records(bag.topics)) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    # A few messages more or less; the longer one holds 18 MB more.
    assert peaks[1] < peaks[0] + 500_000


def test_messages_that_are_still_in_the_log_of_a_database(tmp_path: Path) -> None:
    messages = random_messages(np.random.default_rng(5), 40)
    recorded = tmp_path / 'recorded.db3'
    database = write_db3(recorded, messages[:30])
    database.execute('PRAGMA journal_mode = WAL')
    add_to_db3(database, messages[30:])
    folder = tmp_path / 'bag'
    folder.mkdir()
    # As after a loss of power: nobody has closed it.
    for suffix in ('', '-wal'):
        shutil.copyfile(f'{recorded}{suffix}', folder / f'bag_0.db3{suffix}')
    database.close()
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert before['bag_0.db3-wal']
    found, bag, reports = read(folder)
    assert found == expected(messages)
    assert unharmed(bag)
    assert 'bag_0.db3-wal holds a part of it' in '\n'.join(reports)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize('share', [0.001, 0.01, 0.3, 0.6, 0.99])
def test_a_database_that_is_cut_is_one_clear_error(tmp_path: Path, share: float) -> None:
    path = tmp_path / 'a.db3'
    write_db3(path, random_messages(np.random.default_rng(6), 200)).close()
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BagError, match=r'cut off|expected a bag') as caught:
        open_bag(path, print)
    assert '\n' not in str(caught.value)


def test_a_database_that_is_damaged_inside_ends_in_its_messages_or_one_error(
    tmp_path: Path,
) -> None:
    path = tmp_path / 'a.db3'
    write_db3(path, random_messages(np.random.default_rng(6), 200)).close()
    rng = np.random.default_rng(fresh_seeds(1)[0])
    data = path.read_bytes()
    for _ in range(20):
        damaged = bytearray(data)
        start = int(rng.integers(100, len(data) - 600))
        damaged[start : start + 500] = rng.bytes(500)
        path.write_bytes(damaged)
        with suppress(BagError):
            found, bag, _ = read(path)
            assert len(found) == 200 or bag.damage


@pytest.mark.parametrize(
    'script',
    [
        'CREATE TABLE topics(id, name, type, serialization_format);'
        'CREATE VIEW messages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n)'
        ' SELECT i AS topic_id, i AS timestamp, i AS data FROM n',
        'CREATE TABLE topics(id, name, type, serialization_format);'
        'CREATE TABLE messages(topic_id, timestamp,'
        ' data GENERATED ALWAYS AS (zeroblob(900000000)) VIRTUAL)',
        'CREATE TABLE other(a)',
        'CREATE TABLE topics(id, name);CREATE TABLE messages(id)',
    ],
)
def test_a_database_that_is_no_bag_is_not_queried(tmp_path: Path, script: str) -> None:
    database = sqlite3.connect(tmp_path / 'a.db3')
    database.executescript(script)
    database.close()
    with pytest.raises(BagError, match='expected the tables of a rosbag2'):
        open_bag(tmp_path / 'a.db3', print)


def test_a_complaint_that_quotes_the_damage_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / 'a.db3'
    write_db3(path, random_messages(np.random.default_rng(6), 20)).close()
    data = path.read_bytes()
    for damaged in (b'CREATE \xfdABLE topics', b'CREATE TABLE to\x1b\nics'):
        path.write_bytes(data.replace(b'CREATE TABLE topics', damaged))
        with pytest.raises(BagError, match='as a database') as caught:
            open_bag(path, print)
        assert str(caught.value).isprintable()


def test_lines_of_a_database_that_are_no_message(tmp_path: Path) -> None:
    messages = random_messages(np.random.default_rng(6), 10)
    database = write_db3(tmp_path / 'a.db3', messages)
    for values in ((1, 'noon', b''), (1, 5, 'text'), (9, 5, b'')):
        database.execute('INSERT INTO messages(topic_id, timestamp, data) VALUES(?, ?, ?)', values)
    database.commit()
    database.close()
    found, bag, _ = read(tmp_path / 'a.db3')
    assert found == expected(messages)
    assert bag.damage.skipped == {'its line in the database is not a message': 2}
    assert bag.damage.remarks == ['a.db3: 1 messages are of no topic']


def test_a_compressed_message_that_is_damaged_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompress, 'LARGEST', 4 << 20)
    messages = random_messages(np.random.default_rng(7), 20)
    packed = [
        Message(m.topic, m.type_name, m.log_ns, zstandard.compress(m.data)) for m in messages
    ]
    cut = packed[8]
    packed[8] = Message(cut.topic, cut.type_name, cut.log_ns, cut.data[:-5])
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 18)) * 20
    packed[9] = Message(packed[9].topic, packed[9].type_name, packed[9].log_ns, bomb)
    found, bag, _ = read(write_mcap(tmp_path / 'a.mcap', packed))
    assert found == expected(messages[:8] + messages[10:])
    assert bag.damage.skipped == {'its compressed data are damaged': 2}
    assert bag.damage.last_ns == messages[-1].log_ns


def test_image_topics_names_what_there_is(tmp_path: Path) -> None:
    messages = random_messages(np.random.default_rng(8), 20)
    with open_bag(write_mcap(tmp_path / 'a.mcap', messages), print) as bag:
        assert [topic.name for topic in image_topics(bag)] == ['/camera']
        assert [topic.name for topic in image_topics(bag, ['/camera', '/camera'])] == ['/camera']
        with pytest.raises(BagError, match=r'on /chatter, found a topic of std_msgs/msg/String;'):
            image_topics(bag, ['/chatter'])
        with pytest.raises(BagError, match=r'found no such topic; .* images on /camera \(sens'):
            image_topics(bag, ['/camera', '/front'])
    texts = [Message(f'/t\x1b[31m\n{n}', TEXT, n, text_bytes(ROS1, 'a')) for n in range(12)]
    with open_bag(write_mcap(tmp_path / 'b.mcap', texts), print) as bag:
        with pytest.raises(BagError, match='and 4 more; give another bag') as caught:
            image_topics(bag)
        assert str(caught.value).isprintable()
    write_mcap(tmp_path / 'c.mcap', [])
    with (
        open_bag(tmp_path / 'c.mcap', print) as bag,
        pytest.raises(BagError, match='no topics'),
    ):
        image_topics(bag)


@pytest.mark.parametrize(
    ('name', 'topics', 'messages'),
    [
        ('test_bag_mcap', 94, 188),
        ('sample.db3', 5, 5),
        ('service_events_mcap', 5, 10),
        ('mcap_split_wbag', 8, 6074),
    ],
)
def test_recorded_bags(shared: Path, name: str, topics: int, messages: int) -> None:
    found, bag, _ = read(shared / 'data' / 'bags' / name)
    assert (len(bag.topics), len(found)) == (topics, messages)
    assert [time for _, time, _ in found] == sorted(time for _, time, _ in found)
    assert unharmed(bag)
    for file in bag.files:
        with rosbag2.Reader(file) as reader:
            assert reader.message_count <= len(found)
