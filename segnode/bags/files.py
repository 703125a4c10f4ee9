# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Which files a bag consists of, and of which kind each is: by its first bytes, not its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from segnode.bags import mcap_records, ros1_records, sqlite_file
from segnode.bags.decompress import MAGICS
from segnode.bags.failures import unreadable
from segnode.bags.metadata import METADATA, listed_files
from segnode.bags.topics import shown
from segnode.errors import BagError

_KINDS = {
    mcap_records.MAGIC: 'mcap',
    sqlite_file.MAGIC: 'sqlite3',
    ros1_records.MAGIC: 'ros1',
    **MAGICS,
}
_SUFFIXES = ('.mcap', '.db3', '.bag', '.mcap.zstd', '.db3.zstd', '.mcap.lz4', '.db3.lz4')
_PART = re.compile(r'(?P<bag>.*?)(?:_(?P<number>\d+))?(?P<suffix>\.[^\d].*)?')
_SHOWN_BAGS = 8


def file_kind(path: Path) -> str:
    """Return ``mcap``, ``sqlite3``, ``ros1``, ``zstd``, ``lz4``, or nothing for another file.

    Raises:
        BagError: it cannot be read.
    """
    try:
        with path.open('rb') as file:
            head = file.read(max(map(len, _KINDS)))
    except OSError as error:
        raise unreadable(path, error) from None
    return next((kind for magic, kind in _KINDS.items() if head.startswith(magic)), '')


def bag_files(
    path: Path, remark: Callable[[str], None], report: Callable[[str], None]
) -> list[Path]:
    """Return the files of a bag in their order.

    Args:
        path: a file, or the folder of a rosbag2.
        remark: takes a sentence about what is lost.
        report: takes a sentence about what is done instead.

    Raises:
        BagError: there is no bag, or more than one.
    """
    if not path.exists():
        raise BagError(f'{path}: expected a bag, found nothing there')
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise BagError(f'{path}: expected a bag, found neither a file nor a folder')
    there = _bag_files_in(path)
    if not there:
        raise _no_bag(path)
    listed = _listed_files(path, report)
    files, missing = [], []
    for name in listed:
        # The files may have been compressed or unpacked since.
        names = (name, name.removesuffix('.zstd'), f'{name}.zstd')
        found = next((there[each] for each in names if each in there), None)
        if found is None:
            missing.append(name)
        else:
            files.append(found)
    if files:
        for name in missing:
            remark(f'the part {shown(name)} is missing')
        left = [name for name, file in there.items() if file not in files]
        if left:
            report(f'{path}: {_names(left)} is not listed in {METADATA} and is not read')
        return files
    if listed:
        report(f'{path}: {METADATA} names other files and is not used')
    return _parts(path, list(there.values()))


def _bag_files_in(folder: Path) -> dict[str, Path]:
    """Return by name the files of a folder that are bags or should be."""
    try:
        files = sorted(folder.iterdir(), key=_part_order)
    except OSError as error:
        raise unreadable(folder, error) from None
    return {
        file.name: file
        for file in files
        if file.is_file()
        and (file.name.endswith(_SUFFIXES) or file_kind(file) in ('mcap', 'sqlite3', 'ros1'))
    }


def _listed_files(folder: Path, report: Callable[[str], None]) -> list[str]:
    """Return the names of the parts that the metadata list, none where they are of no use."""
    if not (folder / METADATA).is_file():
        report(f'{folder}: has no {METADATA}, so that its files are read in the order of names')
        return []
    try:
        return listed_files(folder / METADATA)
    except ValueError as error:
        report(f'{folder / METADATA}: is not used: {error}')
        return []


def _parts(folder: Path, files: list[Path]) -> list[Path]:
    """Return files that are parts of one recording, as far as their names tell."""
    others = _bags_below(folder)
    numbers = [_part_order(file)[1] for file in files]
    # Names that end in the second at which a recording began have numbers, too, but with gaps.
    is_split = max(numbers) - min(numbers) < 2 * len(files)
    if others or len({_part(file) for file in files}) > 1 or not is_split:
        names = _names([file.name for file in files] + others)
        raise BagError(f'{folder}: expected one bag, found several: {names}; give one of them')
    return files


def _part(file: Path) -> tuple[str, str]:
    match = _PART.fullmatch(file.name)
    return (match['bag'], match['suffix'] or '') if match else (file.name, '')


def _part_order(file: Path) -> tuple[str, int, str]:
    match = _PART.fullmatch(file.name)
    if match is None:
        return file.name, 0, ''
    return match['bag'], int(match['number'] or -1), file.name


def _no_bag(folder: Path) -> BagError:
    expected = f'{folder}: expected a bag (mcap, db3 or ROS 1 bag), found'
    if bags := _bags_below(folder):
        return BagError(f'{expected} a folder of bags: {_names(bags)}; give one of them')
    return BagError(f'{expected} a folder without one')


def _bags_below(folder: Path) -> list[str]:
    """Return the names of folders in a folder that hold bags."""
    folders = [each for each in sorted(folder.iterdir()) if each.is_dir()]
    return [each.name for each in folders if _bag_files_in(each)]


def _names(names: list[str]) -> str:
    more = len(names) - _SHOWN_BAGS
    text = ', '.join(map(shown, names[:_SHOWN_BAGS]))
    return f'{text} and {more} more' if more > 0 else text
