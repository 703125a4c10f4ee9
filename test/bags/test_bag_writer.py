# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Bags as rosbags and the mcap package read them, and what becomes of them when work fails."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from mcap.records import ChunkIndex
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability
from rosbags.rosbag2 import Reader
from seeds import fresh_seeds
from test_bag_messages import CLASS_NAMES, HEADER, random_detections

from segnode.bags import messages
from segnode.bags.message_types import DETECTIONS, DIAGNOSTICS, IMAGE_ANNOTATIONS, LABEL_INFO
from segnode.bags.record import COMPRESSED_IMAGE, IMAGE, Header
from segnode.bags.writer import BagWriter
from segnode.errors import ConfigError, OutputError
from segnode.output_files import FOLDER_MARK


def answers(seed: int, frames: int = 20) -> list[tuple[str, str, bytes, int]]:
    """Return what a run writes, as arguments of ``write``, a message of every type a frame."""
    random = np.random.default_rng(seed)
    written = []
    for k in range(frames):
        header = Header(HEADER.stamp_ns + k * 50_000_000, 'cam')
        found = random_detections(seed + k, int(random.integers(0, 5)))
        labels = random.integers(0, 6, (240, 320), np.uint16)
        for topic, type_name, message in (
            ('/detections', DETECTIONS, messages.detections_message(header, found, CLASS_NAMES)),
            ('/mask', IMAGE, messages.instance_mask_message(header, labels)),
            (
                '/times',
                DIAGNOSTICS,
                messages.stage_times_message(header, 'segnode', {'rpn': 1.0}, (240, 320), {}),
            ),
            (
                '/overlay/compressed',
                COMPRESSED_IMAGE,
                messages.overlay_jpeg(header, np.repeat(labels[..., None], 3, 2).astype(np.uint8)),
            ),
            (
                '/annotations',
                IMAGE_ANNOTATIONS,
                messages.image_annotations_message(header, found, CLASS_NAMES),
            ),
        ):
            written.append((topic, type_name, message, header.stamp_ns + 7))
    info = messages.label_info_message(HEADER, CLASS_NAMES, 0.5)
    return [('/label_info', LABEL_INFO, info, HEADER.stamp_ns), *written]


def write(folder: Path, records: list[tuple[str, str, bytes, int]]) -> None:
    with BagWriter(folder) as writer:
        for record in records:
            writer.write(*record)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


@pytest.mark.parametrize('seed', fresh_seeds(2))
def test_rosbags_and_mcap_read_what_was_written(seed: int, tmp_path: Path) -> None:
    records = answers(seed)
    write(tmp_path / 'bag', records)
    with Reader(tmp_path / 'bag') as reader:
        found = [(c.topic, c.msgtype, bytes(data), ns) for c, ns, data in reader.messages()]
        assert reader.message_count == len(records)
    assert sorted(found) == sorted(records)
    assert [ns for *_, ns in found] == sorted(ns for *_, ns in records)
    with (tmp_path / 'bag' / 'bag.mcap').open('rb') as stream:
        mcap = make_reader(stream, validate_crcs=True)
        summary = mcap.get_summary()
        read = [
            (channel.topic, schema.name, message.data, message.log_time)
            for schema, channel, message in mcap.iter_messages()
        ]
        assert mcap.get_header().profile == 'ros2'
    assert sorted(read) == sorted(records)
    assert summary is not None
    chunks: list[ChunkIndex] = summary.chunk_indexes
    assert len(chunks) > 1
    assert {chunk.compression for chunk in chunks} == {'zstd'}
    assert sum(c.compressed_size for c in chunks) < sum(c.uncompressed_size for c in chunks)


def test_every_topic_carries_what_is_needed_to_read_it(tmp_path: Path) -> None:
    """AnyReader without a store of types knows those of the bag alone."""
    write(tmp_path / 'bag', answers(0, frames=2))
    with AnyReader([tmp_path / 'bag']) as reader:
        read: dict[str, Any] = {}
        for connection, _, data in reader.messages():
            read[connection.topic] = reader.deserialize(data, connection.msgtype)
    assert len(read) == 6
    assert read['/mask'].width == 320
    assert read['/label_info'].class_map[2].class_name == 'Kübel'
    assert {value.key for value in read['/times'].status[0].values} >= {'rpn_ms', 'total_ms'}


def test_metadata_is_of_a_version_that_humble_reads(tmp_path: Path) -> None:
    records = answers(0, frames=3)
    write(tmp_path / 'bag', records)
    text = (tmp_path / 'bag' / 'metadata.yaml').read_text()
    found = yaml.safe_load(text)['rosbag2_bagfile_information']
    assert found['version'] == 8
    assert (found['storage_identifier'], found['compression_mode']) == ('mcap', '')
    assert found['relative_file_paths'] == ['bag.mcap']
    assert found['message_count'] == len(records)
    times = [ns for *_, ns in records]
    assert found['starting_time']['nanoseconds_since_epoch'] == min(times)
    assert found['duration']['nanoseconds'] == max(times) - min(times)


def test_a_player_offers_label_info_to_those_who_come_late(tmp_path: Path) -> None:
    write(tmp_path / 'bag', answers(0, frames=1))
    with Reader(tmp_path / 'bag') as reader:
        offered = {c.topic: c.ext.offered_qos_profiles for c in reader.connections}
    assert [qos.durability for qos in offered['/label_info']] == [QosDurability.TRANSIENT_LOCAL]
    assert not offered['/mask']


def test_equal_messages_give_equal_files(tmp_path: Path) -> None:
    for name in ('one', 'another'):
        write(tmp_path / name, answers(5))
    assert files(tmp_path / 'one') == files(tmp_path / 'another')
    write(tmp_path / 'one', answers(6))
    assert files(tmp_path / 'one') != files(tmp_path / 'another')


def test_a_bag_of_nothing_is_a_bag(tmp_path: Path) -> None:
    write(tmp_path / 'bag', [])
    with Reader(tmp_path / 'bag') as reader:
        assert list(reader.messages()) == []
    metadata = yaml.safe_load((tmp_path / 'bag' / 'metadata.yaml').read_text())
    start = metadata['rosbag2_bagfile_information']['starting_time']
    assert start == {'nanoseconds_since_epoch': 0}


def test_a_time_before_1970_is_0(tmp_path: Path) -> None:
    topic, type_name, message, _ = answers(0, frames=1)[0]
    write(tmp_path / 'bag', [(topic, type_name, message, -5)])
    with Reader(tmp_path / 'bag') as reader:
        assert [ns for _, ns, _ in reader.messages()] == [0]


def test_a_bag_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    earlier, later = answers(1, frames=2), answers(2, frames=30)
    bag = tmp_path / 'bag'
    write(bag, earlier)
    before = files(bag)
    writer = BagWriter(bag)
    for record in later:
        writer.write(*record)
    during = files(bag)
    assert {name: during[name] for name in before} == before
    writer.close()
    writer.close()
    assert set(files(bag)) == set(before)
    assert files(bag) != before


def test_what_fails_leaves_no_bag_and_an_earlier_one(tmp_path: Path) -> None:
    def fail(bag: Path) -> None:
        with BagWriter(bag) as writer:
            for record in answers(2, frames=30):
                writer.write(*record)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path / 'new')
    assert not (tmp_path / 'new').exists()
    write(tmp_path / 'bag', answers(1, frames=2))
    before = files(tmp_path / 'bag')
    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path / 'bag')
    assert files(tmp_path / 'bag') == before


def test_what_a_killed_run_left_goes_with_the_next(tmp_path: Path) -> None:
    write(tmp_path / 'bag', answers(1, frames=2))
    writer = BagWriter(tmp_path / 'bag')
    writer.write(*answers(2, frames=1)[0])
    assert any('.part' in name for name in files(tmp_path / 'bag'))
    write(tmp_path / 'bag', answers(1, frames=2))
    assert set(files(tmp_path / 'bag')) == {'bag.mcap', 'metadata.yaml', FOLDER_MARK}


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'mine.txt').write_text('mine')
    with pytest.raises(ConfigError, match='expected a new or empty folder'):
        BagWriter(tmp_path)
    assert files(tmp_path) == {'mine.txt': b'mine'}


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let the system refuse files of more than a few bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize('size', [500, 150_000, 1_400_000])
def test_a_full_disk_is_one_line_and_leaves_the_earlier_bag(size: int, tmp_path: Path) -> None:
    """Wherever it is full: at the file's head, within its chunks, or at their end."""
    write(tmp_path / 'bag', answers(1, frames=1))
    before = files(tmp_path / 'bag')
    pictures = np.random.default_rng(0).integers(0, 256, (20, 250, 300), np.uint8)
    noise = [messages.image_message(HEADER, picture, 'mono8') for picture in pictures]
    records = [('/noise', IMAGE, message, k) for k, message in enumerate(noise)]
    with file_size_limit(size), pytest.raises(OutputError, match='cannot be written') as caught:
        write(tmp_path / 'bag', records)
    assert str(tmp_path / 'bag') in str(caught.value)
    assert files(tmp_path / 'bag') == before
