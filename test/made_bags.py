# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Bags of every kind for tests, made by the libraries that robots' own are read with."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags import rosbag1, rosbag2
from rosbags.typesys import Stores, get_typestore

ROS1, ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.LATEST)
IMAGE, COMPRESSED, TEXT = (
    'sensor_msgs/msg/Image',
    'sensor_msgs/msg/CompressedImage',
    'std_msgs/msg/String',
)
COMPRESSIONS = {
    'none': CompressionType.NONE,
    'lz4': CompressionType.LZ4,
    'zstd': CompressionType.ZSTD,
}


@dataclass(frozen=True)
class Message:
    topic: str
    type_name: str
    log_ns: int
    data: bytes


def header(store: Any, stamp_ns: int, frame_id: str = 'camera') -> Any:
    stamp = store.types['builtin_interfaces/msg/Time'](
        sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9
    )
    number = {'seq': 7} if store is ROS1 else {}
    return store.types['std_msgs/msg/Header'](stamp=stamp, frame_id=frame_id, **number)


def serialised(store: Any, message: Any, type_name: str) -> bytes:
    if store is ROS1:
        return bytes(store.serialize_ros1(message, type_name))
    return bytes(store.serialize_cdr(message, type_name))


def image_bytes(
    store: Any,
    pixels: np.ndarray[Any, Any],
    encoding: str = 'bgr8',
    stamp_ns: int = 0,
    step: int = 0,
    is_bigendian: bool = False,
) -> bytes:
    message = store.types[IMAGE](
        header=header(store, stamp_ns),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(is_bigendian),
        step=step or pixels[0].nbytes,
        data=np.frombuffer(pixels.tobytes(), np.uint8),
    )
    return serialised(store, message, IMAGE)


def compressed_bytes(store: Any, image_format: str, file: bytes, stamp_ns: int = 0) -> bytes:
    message = store.types[COMPRESSED](
        header=header(store, stamp_ns), format=image_format, data=np.frombuffer(file, np.uint8)
    )
    return serialised(store, message, COMPRESSED)


def text_bytes(store: Any, text: str) -> bytes:
    return serialised(store, store.types[TEXT](data=text), TEXT)


def random_messages(
    rng: np.random.Generator, count: int = 24, disorder_ns: int = 0, store: Any = ROS2
) -> list[Message]:
    """Pictures of a camera and texts, 50 ms apart, each moved by up to ``disorder_ns``.

    The first two are one of each, in any order: a topic that comes late is lost with the chunk
    that names it.
    """
    found = []
    text_number = int(rng.integers(2))
    for number in range(count):
        log_ns = 10**18 + number * 50_000_000 + int(rng.integers(0, disorder_ns + 1))
        if number == text_number if number < 2 else rng.random() < 0.3:
            data = text_bytes(store, f'number {number}')
            found.append(Message('/chatter', TEXT, log_ns, data))
        else:
            pixels = rng.integers(0, 255, (4, 5, 3), np.uint8)
            found.append(
                Message('/camera', IMAGE, log_ns, image_bytes(store, pixels, stamp_ns=number + 1))
            )
    return found


def write_mcap(
    path: Path,
    messages: Iterable[Message],
    compression: str = 'none',
    profile: str = 'ros2',
    chunk_size: int = 600,
    encoding: str = 'cdr',
    **options: Any,
) -> Path:
    with path.open('wb') as stream:
        writer = McapWriter(
            stream, chunk_size=chunk_size, compression=COMPRESSIONS[compression], **options
        )
        writer.start(profile=profile, library='test')
        channels: dict[str, int] = {}
        for message in messages:
            if message.topic not in channels:
                schema = writer.register_schema(message.type_name, f'{profile or "ros2"}msg', b'')
                channels[message.topic] = writer.register_channel(message.topic, encoding, schema)
            writer.add_message(
                channels[message.topic], message.log_ns, message.data, message.log_ns
            )
        writer.finish()
    return path


def write_rosbag2(
    folder: Path, messages: Sequence[Message], storage: str = 'mcap', compression: str = 'none'
) -> Path:
    plugin = rosbag2.StoragePlugin[storage.upper()]
    writer = rosbag2.Writer(folder, version=9, storage_plugin=plugin)
    mode = rosbag2.CompressionMode[compression.upper()]
    writer.set_compression(mode, rosbag2.CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for message in messages:
            if message.topic not in connections:
                connections[message.topic] = writer.add_connection(
                    message.topic, message.type_name, typestore=ROS2
                )
            writer.write(connections[message.topic], message.log_ns, message.data)
    return folder


def write_ros1(
    path: Path, messages: Sequence[Message], compression: str = 'none', chunk_size: int = 600
) -> Path:
    writer = rosbag1.Writer(path)
    writer.chunk_threshold = chunk_size
    if compression != 'none':
        writer.set_compression(rosbag1.Writer.CompressionFormat[compression.upper()])
    with writer:
        connections: dict[str, Any] = {}
        for message in messages:
            if message.topic not in connections:
                connections[message.topic] = writer.add_connection(
                    message.topic, message.type_name, typestore=ROS1
                )
            writer.write(connections[message.topic], message.log_ns, message.data)
    return path


def write_db3(
    path: Path, messages: Iterable[Message], *, index: bool = True, encoding: str = 'cdr'
) -> sqlite3.Connection:
    """Return the database open, as a recorder has it."""
    database = sqlite3.connect(path)
    database.executescript(
        'CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,'
        ' serialization_format TEXT NOT NULL);'
        'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,'
        ' timestamp INTEGER NOT NULL, data BLOB NOT NULL);'
    )
    if index:
        database.execute('CREATE INDEX timestamp_idx ON messages (timestamp ASC)')
    add_to_db3(database, messages, encoding)
    return database


def add_to_db3(
    database: sqlite3.Connection, messages: Iterable[Message], encoding: str = 'cdr'
) -> None:
    topics = {name: key for key, name in database.execute('SELECT id, name FROM topics')}
    for message in messages:
        if message.topic not in topics:
            topics[message.topic] = len(topics) + 1
            row = (topics[message.topic], message.topic, message.type_name, encoding)
            database.execute('INSERT INTO topics VALUES(?, ?, ?, ?)', row)
        database.execute(
            'INSERT INTO messages(topic_id, timestamp, data) VALUES(?, ?, ?)',
            (topics[message.topic], message.log_ns, message.data),
        )
    database.commit()
