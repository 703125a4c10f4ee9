# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Files of ``torch.save``, of both its formats, without ``torch.load``.

Since 1.6 they are zip archives of a pickle and a record a storage; before, pickles one after the
other with the storages behind them (``torch/serialization.py``). Only what is asked for is read.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

import numpy as np
import torch
from torch import Tensor

from segnode.checkpoint.unpickler import Storage, Unpickler

_LOCAL_HEADER: Final = struct.Struct('<4s22xHH')
_SIGNATURE: Final = b'PK\x03\x04'
_PICKLE: Final = 'data.pkl'
_PROTOCOL: Final = 1001
_ORDERS: Final = (b'little', b'big')


def read_zip(path: Path) -> object:
    """Return the content of a zip archive; its tensors are ``StoredTensor``.

    Raises:
        pickle.UnpicklingError: damaged; others of what damaged pickles and archives raise, too.
    """
    archive = _Archive(path)
    return Unpickler(io.BytesIO(archive.record(_PICKLE)), archive).load()


def read_legacy(path: Path) -> object:
    """Return the content of a file of the older format; its tensors are ``StoredTensor``.

    Raises:
        pickle.UnpicklingError: damaged; others of what damaged pickles raise, too.
    """
    storages = _Appended(path)
    with path.open('rb') as stream:
        Unpickler(stream).load()  # the magic number, by which the file was told
        if Unpickler(stream).load() != _PROTOCOL:
            raise pickle.UnpicklingError('another protocol')
        Unpickler(stream).load()  # of the machine; storages are little-endian whatever it was
        unpickler = Unpickler(stream, storages)
        content = unpickler.load()
        keys = Unpickler(stream).load()
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise pickle.UnpicklingError('no list of storages')
        storages.find(stream, keys, unpickler.found)
    return content


class _Storages:
    """The storages of a file, each read once; altogether no more than the file has."""

    order: bytes = b'little'

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = path.stat().st_size
        self._read: dict[str, bytearray] = {}
        self._swapped: dict[tuple[str, int], bytearray] = {}

    def read(self, begin: int, size: int, crc: int = 0) -> bytearray:
        """Return bytes of the file; a CRC of 0 was not computed."""
        self._left -= size
        if size < 0 or self._left < 0:
            raise pickle.UnpicklingError('more claimed than the file has')
        data = bytearray(size)
        with self._path.open('rb') as stream:
            stream.seek(begin)
            if stream.readinto(data) != size:
                raise EOFError('it ends within its storages')
        if crc and zlib.crc32(data) != crc:
            raise pickle.UnpicklingError('a wrong checksum')
        return data

    def storage(self, key: str) -> bytearray:
        """Return the bytes of a storage."""
        raise NotImplementedError

    def elements(self, storage: Storage, dtype: torch.dtype) -> Tensor:
        """Return a storage as (count,) elements of ``dtype``."""
        if storage.key not in self._read:
            self._read[storage.key] = self.storage(storage.key)
        data = self._read[storage.key]
        begin = storage.first * storage.dtype.itemsize
        size = storage.count * storage.dtype.itemsize
        if begin + size > len(data):
            raise pickle.UnpicklingError('more claimed than a storage has')
        count = size // dtype.itemsize
        if count == 0:
            return torch.empty(0, dtype=dtype)
        if self.order.decode() != sys.byteorder:
            place = storage.key, dtype.itemsize
            if place not in self._swapped:
                self._swapped[place] = _swapped(data, dtype.itemsize)
            data = self._swapped[place]
        return torch.frombuffer(data, dtype=dtype, count=count, offset=begin)


def _swapped(data: bytearray, itemsize: int) -> bytearray:
    """Return the bytes of elements in the other order."""
    array = np.frombuffer(data, np.uint8, len(data) // itemsize * itemsize)
    return bytearray(array.reshape(-1, itemsize)[:, ::-1].tobytes())


class _Archive(_Storages):
    """A zip archive whose records are stored as they are: a compressed one may claim any size."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
        # All lie in one folder: the pickle's.
        folders = [r.filename[: -len(_PICKLE)] for r in records if r.filename.endswith(_PICKLE)]
        if not folders:
            raise pickle.UnpicklingError(f'no {_PICKLE} in it')
        self._records = {record.filename.removeprefix(folders[0]): record for record in records}
        if 'byteorder' in self._records:
            self.order = bytes(self.record('byteorder'))
        if self.order not in _ORDERS:
            raise pickle.UnpicklingError('another byte order')

    def record(self, name: str) -> bytearray:
        """Return one of the archive's files."""
        record = self._records[name]
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
            raise pickle.UnpicklingError('a compressed record')
        header = self.read(record.header_offset, _LOCAL_HEADER.size)
        signature, name_size, extra_size = _LOCAL_HEADER.unpack(header)
        if signature != _SIGNATURE:
            raise pickle.UnpicklingError('a record without its header')
        begin = record.header_offset + _LOCAL_HEADER.size + name_size + extra_size
        return self.read(begin, record.file_size, record.CRC)

    def storage(self, key: str) -> bytearray:
        return self.record(f'data/{key}')


class _Appended(_Storages):
    """The storages behind the pickles of a file of the older format."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._places: dict[str, tuple[int, int]] = {}

    def find(self, stream: IO[bytes], keys: list[str], found: Mapping[str, Storage]) -> None:
        """Note where each storage lies.

        Args:
            stream: behind the pickles.
            keys: of the storages, in their order.
            found: what the pickle says of them.
        """
        size = self._path.stat().st_size
        for key in keys:
            if key not in found:
                raise pickle.UnpicklingError('a storage of an unknown kind')
            (count,) = struct.unpack('<q', stream.read(8))
            length = count * found[key].dtype.itemsize
            self._places[key] = stream.tell(), length
            if length < 0 or stream.tell() + length > size:
                raise EOFError('it ends within its storages')
            stream.seek(length, io.SEEK_CUR)

    def storage(self, key: str) -> bytearray:
        return self.read(*self._places[key])
