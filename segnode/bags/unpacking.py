# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Files of a bag that are compressed as a whole, decompressed beside the bag's folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import lz4.frame  # type: ignore[import-untyped]
import zstandard
from tqdm import tqdm

from segnode.bags.decompress import MAGICS, DamagedDataError, pieces
from segnode.bags.failures import ROOM_REMEDY, MachineError, unreadable
from segnode.errors import BagError

_SPARE_BYTES = 1 << 28
# Of a frame's header, in both formats.
_LONGEST_HEAD = 32
# A block of zstd, 128 KiB, takes 4 bytes at least: who announces more is damaged.
_BEST_RATIO = 1 << 15


def check_room(files: Iterable[Path]) -> None:
    """Make sure, before long work, that there is room for files unpacked, as far as they tell.

    Args:
        files: of a bag; only those that are compressed as a whole need any.

    Raises:
        MachineError: there is not.
    """
    needed = sum(map(_announced_bytes, files))
    if not needed:
        return
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free - _SPARE_BYTES
    if needed > free:
        raise MachineError(
            f'{folder}: expected room for {_mib(needed)} of unpacked files, found '
            f'{_mib(max(0, free))}; {ROOM_REMEDY}'
        )


def unpacked(path: Path, compression: str, folder: Path, remark: Callable[[str], None]) -> Path:
    """Write a compressed file to a folder, decompressed, and return where; cut where it is.

    Args:
        path: the file.
        compression: ``zstd`` or ``lz4``.
        folder: for what it holds.
        remark: takes a sentence about what is lost.

    Raises:
        BagError: it does not decompress.
        MachineError: there is no room.
    """
    target = folder / path.stem
    written = 0
    try:
        with (
            path.open('rb') as source,
            target.open('wb') as file,
            tqdm(
                total=path.stat().st_size, unit='B', unit_scale=True, disable=None, leave=False
            ) as bar,
        ):
            for piece in pieces(source, compression):
                bar.update(source.tell() - bar.n)
                written += len(piece)
                if shutil.disk_usage(folder).free < len(piece) + _SPARE_BYTES:
                    raise _no_room(path, folder, written)
                file.write(piece)
    except DamagedDataError as error:
        # What came before may be worth reading.
        if not written:
            raise BagError(f'{path}: expected {compression} data, but {error}') from None
        remark(f'{path.name}: its end is lost: {error}')
    except OSError as error:
        if isinstance(reason := unreadable(path, error), MachineError):
            raise _no_room(path, folder, written) from None
        raise reason from None
    return target


def _no_room(path: Path, folder: Path, written: int) -> MachineError:
    needed = max(_announced_bytes(path), written)
    return MachineError(
        f'{path}: expected room for it to be unpacked in {folder}, {_mib(needed)} or more and '
        f'{_mib(_SPARE_BYTES)} to spare, found none after {_mib(written)}; {ROOM_REMEDY}'
    )


def _announced_bytes(path: Path) -> int:
    """Return what a compressed file says that it becomes, 0 for another or for nonsense."""
    try:
        with path.open('rb') as file:
            head = file.read(_LONGEST_HEAD)
        if MAGICS.get(head[:4]) == 'lz4':
            size = int(lz4.frame.get_frame_info(head)['content_size'])
        else:
            size = zstandard.frame_content_size(head)
    except (zstandard.ZstdError, RuntimeError, OSError):
        return 0
    return size if 0 < size < _BEST_RATIO * path.stat().st_size else 0


def _mib(size: int) -> str:
    return f'{-(-size >> 20)} MiB'
