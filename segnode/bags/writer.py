# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Bags written without ROS: rosbag2 folders with one mcap file, its chunks compressed by zstd.

Equal messages give equal files, whatever their folder is called. ``ros2 bag`` of Humble and later
and Foxglove read them: every topic carries the definition of its type.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from segnode.bags.message_types import LABEL_INFO, typestore
from segnode.errors import OutputError
from segnode.output_files import FOLDER_MARK, MARK, is_own_folder, make_own_folder

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

# The last version that Humble reads as well: later ones write the QoS in another form.
_METADATA_VERSION: Final = 8
_NAME = 'bag'
_METADATA = 'metadata.yaml'
_UNSPECIFIED = QosTime(0, 0)
# A player offers it so again: whoever comes late still gets the last one.
_LATCHED = Qos(
    history=QosHistory.KEEP_LAST,
    depth=1,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.TRANSIENT_LOCAL,
    deadline=_UNSPECIFIED,
    lifespan=_UNSPECIFIED,
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=_UNSPECIFIED,
    avoid_ros_namespace_conventions=False,
)


def remove_bag(folder: Path) -> None:
    """Remove an earlier bag of `BagWriter`, and nothing else; nothing happens without one.

    Raises:
        OutputError: it cannot be removed.
    """
    if not folder.is_dir() or not is_own_folder(folder, 'bag'):
        return
    try:
        for name in (_METADATA, f'{_NAME}.mcap', FOLDER_MARK):
            (folder / name).unlink(missing_ok=True)
        # Files of somebody else stay.
        with contextlib.suppress(OSError):
            folder.rmdir()
    except OSError as error:
        raise OutputError(f'{folder}: cannot be removed ({error.strerror})') from None


class BagWriter:
    """A bag that grows aside and takes its place when it is closed, whole or not at all.

    Used as a context manager, an exception leaves an earlier bag as it was.
    """

    def __init__(self, folder: Path) -> None:
        """Begin a bag.

        Args:
            folder: of the bag; a new or empty one, or an earlier one of segnode's.

        Raises:
            ConfigError: it holds files that are not segnode's, or cannot be made or written.
            OutputError: nothing can be written there.
        """
        self._is_new = not folder.exists()
        make_own_folder(folder, 'bag')
        self._folder = folder
        self._messages = 0
        self._connections: dict[str, Connection] = {}
        self._part = folder / f'.{MARK}-{secrets.token_hex(6)}.part'
        # rosbags calls the file as its folder.
        self._writer: Writer | None = Writer(
            self._part / _NAME, version=_METADATA_VERSION, storage_plugin=StoragePlugin.MCAP
        )
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with self._or_nothing():
            self._writer.open()

    def write(self, topic: str, type_name: str, message: bytes, log_ns: int) -> None:
        """Append a message.

        Args:
            topic: with its leading slash.
            type_name: one of `segnode.bags.message_types`, the same at every message of a topic.
            message: serialised as CDR.
            log_ns: when it was recorded, nanoseconds; before 1970, which mcap has not, is 0.

        Raises:
            OutputError: it cannot be written; the bag is gone.
        """
        assert self._writer is not None, 'the bag is closed'
        with self._or_nothing():
            connection = self._connections.get(topic)
            if connection is None:
                connection = self._writer.add_connection(
                    topic,
                    type_name,
                    typestore=typestore(),
                    offered_qos_profiles=[_LATCHED] if type_name == LABEL_INFO else [],
                )
                self._connections[topic] = connection
            assert connection.msgtype == type_name, 'a topic has one type'
            self._writer.write(connection, max(0, log_ns), message)
            self._messages += 1

    def close(self) -> None:
        """Put the bag into its place; nothing happens where it is closed already.

        Raises:
            OutputError: it cannot be written; the bag is gone.
        """
        if self._writer is None:
            return
        with self._or_nothing():
            if not self._messages:
                # Else it would begin in the year 2262.
                self._writer.min_timestamp = 0
            self._writer.close()
            whole = self._part / _NAME
            # In this order a folder with a metadata.yaml always has the file that it describes.
            (self._folder / _METADATA).unlink(missing_ok=True)
            for name in (f'{_NAME}.mcap', _METADATA):
                (whole / name).replace(self._folder / name)
        self._writer = None
        shutil.rmtree(self._part, ignore_errors=True)

    def abandon(self) -> None:
        """Leave no trace of the bag, and an earlier one as it was."""
        writer, self._writer = self._writer, None
        if writer is not None:
            # Closing writes what is left to write, which fails again on a full disk.
            with contextlib.suppress(OSError, ValueError):
                writer.abort()
            shutil.rmtree(self._part, ignore_errors=True)
            if self._is_new:
                (self._folder / FOLDER_MARK).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    self._folder.rmdir()

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    @contextlib.contextmanager
    def _or_nothing(self) -> Iterator[None]:
        """Leave no half bag behind whatever fails, and say what the system says."""
        try:
            yield
        except BaseException as error:
            self.abandon()
            if isinstance(error, OSError):
                raise OutputError(
                    f'{self._folder}: this bag cannot be written ({error.strerror or error})'
                ) from None
            raise
