# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Decompression, against the libraries and against what would not fit."""

from __future__ import annotations

import bz2
import io
import tracemalloc
from collections.abc import Callable

import lz4.frame
import numpy as np
import pytest
import zstandard
from seeds import fresh_seeds

from segnode.bags import decompress
from segnode.bags.decompress import (
    DamagedDataError,
    decompressed,
    decompressed_beginning,
    decompressed_message,
    pieces,
)

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    'none': bytes,
    'zstd': zstandard.compress,
    'lz4': lz4.frame.compress,
    'bz2': bz2.compress,
}
SEED = fresh_seeds(1)[0]


def some_bytes(size: int) -> bytes:
    rng = np.random.default_rng(SEED)
    return bytes(size // 2) + rng.bytes(size - size // 2)


@pytest.mark.parametrize('compression', COMPRESS)
@pytest.mark.parametrize('size', [0, 1, 1000, (3 << 20) + 7])
def test_what_was_compressed_comes_back(compression: str, size: int) -> None:
    data = some_bytes(size)
    packed = COMPRESS[compression](data)
    assert decompressed(packed, compression) == data
    assert decompressed(packed, compression, size) == data
    assert decompressed_beginning(packed, compression) == data
    for other in (size + 1, size - 1):
        with pytest.raises(DamagedDataError, match=r'bytes'):
            decompressed(packed, compression, other)


@pytest.mark.parametrize('compression', ['zstd', 'lz4'])
def test_frames_behind_each_other(compression: str) -> None:
    frames = [some_bytes(size) for size in (10, 300_000, 0, 70)]
    packed = b''.join(map(COMPRESS[compression], frames))
    assert b''.join(pieces(io.BytesIO(packed), compression)) == b''.join(frames)


@pytest.mark.parametrize('compression', ['zstd', 'lz4', 'bz2'])
def test_a_beginning_gives_a_beginning(compression: str) -> None:
    data = some_bytes(3 << 20)
    packed = COMPRESS[compression](data)
    found = decompressed_beginning(packed[: len(packed) * 2 // 3], compression)
    assert len(found) > len(data) // 3
    assert data.startswith(found)
    assert decompressed_beginning(b'nonsense', compression) == b''


@pytest.mark.parametrize('compression', ['zstd', 'lz4', 'bz2'])
def test_what_becomes_too_much_is_refused_before_it_is_there(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompress, 'LARGEST', 3 << 20)
    packed = COMPRESS[compression](bytes(64 << 20))
    tracemalloc.start()
    try:
        for size in (None, 1 << 60, 100):
            with pytest.raises(DamagedDataError, match='becomes more than'):
                decompressed(packed, compression, size)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_an_unknown_compression_is_named() -> None:
    with pytest.raises(DamagedDataError, match="compression is 'snappy'"):
        decompressed(b'', 'snappy')


@pytest.mark.parametrize('compression', ['zstd', 'lz4'])
def test_a_message_is_decompressed_where_it_is_compressed(compression: str) -> None:
    for data in (b'', b'\0', b'\0\1\0\0abc'):
        assert decompressed_message(data) is data
        assert decompressed_message(COMPRESS[compression](data)) == data
    packed = COMPRESS[compression](some_bytes(200_000))
    if compression == 'zstd':
        with pytest.raises(DamagedDataError, match='and not 200000'):
            decompressed_message(packed[:-9])
    for damaged in (packed[:4], packed[:5]):
        with pytest.raises(DamagedDataError):
            decompressed_message(damaged)
