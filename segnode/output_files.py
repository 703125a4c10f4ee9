# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Files that the commands write: over nothing that is not segnode's own, whole or not at all.

What a command reads is never written. Of the files that lie where a result goes, only an earlier
result is replaced: a picture is known by a mark in it, JSON by how it begins, a folder of many
files by a text file in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TextIO

from segnode.config import Config, user_path
from segnode.errors import ConfigError, OutputError

MARK = 'segnode'
"""Stands in every picture that segnode writes."""
# Of a file that is being written.
_PART: Final = re.compile(rf'\.{MARK}-[0-9a-f]+\.part')
FOLDER_MARK = 'written-by-segnode.txt'
_FOLDER_TEXT = (
    'segnode writes this folder, and replaces at its next run what it wrote here before.\n'
    'Keep nothing of your own in it.\n'
)
_KIND = 'Written by: '
_SHORT = 4096
_SHOWN = 3


class Inputs:
    """The files that a command reads, however a path names them: links, case, ``..``."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths: set[str] = set()
        self._files: set[tuple[int, int]] = set()
        self.add(*paths)

    @classmethod
    def of(cls, config: Config, *paths: Path | None) -> Inputs:
        """Return those that the configuration names, and further ones."""
        named = (config.model, config.weights, *config.class_names)
        files = [user_path(name) for name in named if name]
        # Those of os.path are False, and raise nothing, for what cannot be examined.
        files = [path for path in files if os.path.isfile(path)]  # noqa: PTH113
        return cls([*files, *(path for path in paths if path is not None)])

    def add(self, *paths: Path) -> None:
        """Take further files; what a command writes as well, so that no two results meet."""
        for path in paths:
            self._paths.add(os.path.realpath(path))
            with contextlib.suppress(OSError):
                found = path.stat()
                self._files.add((found.st_dev, found.st_ino))

    def __contains__(self, path: Path) -> bool:
        if os.path.realpath(path) in self._paths:
            return True
        try:
            found = path.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) in self._files


def check_writable(
    path: Path | None,
    inputs: Inputs | None = None,
    own: Callable[[Path], bool] = lambda _: False,
) -> None:
    """Make sure, before long work, that a result can be written at its end.

    Args:
        path: where to, None for nowhere.
        inputs: what the command reads.
        own: tells an earlier result, which may be replaced, from another file.

    Raises:
        ConfigError: it is read as well or is somebody else's, the folder does not exist or cannot
            be written, or the path is a folder.
    """
    if path is None:
        return
    if inputs is not None and path in inputs:
        raise ConfigError(
            f'{path}: expected a file for a result, found one that this run reads or writes '
            'already; choose another path'
        )
    if os.path.isdir(path):  # noqa: PTH112 - also where it cannot be examined
        raise ConfigError(f'{path}: expected a file to write, found a folder')
    if not os.path.isdir(path.parent):  # noqa: PTH112
        raise ConfigError(f'{path}: the folder {path.parent} does not exist; make it first')
    exists = os.path.exists(path)  # noqa: PTH110
    if not os.access(path.parent, os.X_OK) or not os.access(
        path if exists else path.parent, os.W_OK
    ):
        raise ConfigError(f'{path}: no permission to write there; choose another path')
    if os.path.isfile(path) and not is_replaceable(path, own):  # noqa: PTH113
        raise ConfigError(
            f'{path}: expected a new file or an earlier result of this command, found another '
            'file; choose another path, or move that file away'
        )


def make_folder(path: Path) -> None:
    """Make a folder for results, with its parents.

    Raises:
        ConfigError: it cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigError(
            f'{path}: expected a folder to write, found a file; choose another path'
        ) from None
    except OSError as error:
        raise ConfigError(f'{path}: cannot make this folder ({error.strerror})') from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f'{path}: no permission to write there; choose another folder')


def make_own_folder(path: Path, kind: str) -> None:
    """Make a folder that is one command's alone, or take an earlier one of it again.

    What a run that was killed left unfinished in it is removed.

    Args:
        path: of the folder.
        kind: whose it is, in a word.

    Raises:
        ConfigError: it holds files of somebody else, or cannot be made or written.
    """
    check_own_folder(path, kind)
    make_folder(path)
    remove_parts(path)
    write_whole(path / FOLDER_MARK, f'{_FOLDER_TEXT}{_KIND}{kind}\n'.encode())


def remove_parts(path: Path) -> None:
    """Remove from a folder of segnode's own what was being written when a process was killed."""
    with contextlib.suppress(OSError):
        for left in path.iterdir():
            if not _PART.fullmatch(left.name):
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def make_part_folder(path: Path) -> Path:
    """Make a folder inside an own one for what is not whole yet.

    Raises:
        OutputError: it cannot be made.
    """
    part = path / f'.{MARK}-{secrets.token_hex(6)}.part'  # as _PART
    try:
        part.mkdir()
    except OSError as error:
        raise OutputError(f'{path}: cannot be written ({error.strerror})') from None
    return part


def check_own_folder(path: Path, kind: str) -> None:
    """Make sure, before long work, that `make_own_folder` will do; nothing is left of the trial.

    Raises:
        ConfigError: it holds files of somebody else, or cannot be made or written.
    """
    if not is_own_folder(path, kind):
        raise ConfigError(
            f"{path}: expected a new or empty folder or an earlier one of segnode's {kind} (with "
            f'{FOLDER_MARK} in it), found other files; choose another folder'
        )
    place = path
    while not os.path.lexists(place):
        place = place.parent
    if not os.path.isdir(place):  # noqa: PTH112 - also where it cannot be examined
        raise ConfigError(f'{path}: expected a folder to write, found a file; choose another path')
    # Rights do not tell everything: in /proc nobody makes a folder.
    trial = place / f'.{MARK}-{secrets.token_hex(6)}.part'  # as _PART
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        raise ConfigError(
            f'{path}: expected a folder that can be written ({error.strerror}); choose another '
            'folder'
        ) from None


def check_apart(folder: Path, *inputs: Path | None) -> None:
    """Make sure that a folder of results neither is, holds nor lies in what a command reads.

    Raises:
        ConfigError: it does.
    """
    own = Path(os.path.realpath(folder))
    for path in inputs:
        read = None if path is None else Path(os.path.realpath(path))
        if read is not None and (own == read or own in read.parents or read in own.parents):
            raise ConfigError(
                f'{folder}: expected a folder apart from what this run reads, found {path} there; '
                'choose another folder'
            )


def check_outside(path: Path | None, folder: Path | None) -> None:
    """Make sure that a result lies outside of a folder that the command writes itself.

    Raises:
        ConfigError: it does not.
    """
    if path is None or folder is None:
        return
    if Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents:
        raise ConfigError(
            f'{path}: expected a path outside of {folder}, whose files this command writes '
            'itself, found one in it; choose another path'
        )


def is_own_folder(path: Path, kind: str) -> bool:
    """Return whether a folder is missing, empty or one command's own, as `make_own_folder`."""
    mark = path / FOLDER_MARK
    try:
        # A process that was killed between making and marking it leaves a part of the mark.
        if not path.is_dir() or all(_PART.fullmatch(each.name) for each in path.iterdir()):
            return True
        if not mark.is_file():
            return False
        _, said, whose = mark.read_text(encoding='utf-8', errors='replace').partition(_KIND)
        # The first ones did not say whose they are.
        return not said or whose.strip() == kind
    except OSError:
        return False


def is_replaceable(path: Path, own: Callable[[Path], bool]) -> bool:
    """Return whether nobody loses anything when a path is written."""
    try:
        return not os.path.lexists(path) or path.stat().st_size == 0 or own(path)
    except OSError:
        return False


def is_own_json(beginning: str) -> Callable[[Path], bool]:
    """Return what tells an earlier result by the regular expression that JSON begins with."""

    def own(path: Path) -> bool:
        with path.open('rb') as file:
            head = file.read(_SHORT).decode('utf-8', 'replace')
        return re.match(beginning, head) is not None

    return own


def write_json(path: Path, value: object) -> None:
    """Write a machine-readable result, whole or not at all; it must hold no NaN.

    Raises:
        OutputError: it cannot be written.
    """
    write_whole(path, f'{json.dumps(value, allow_nan=False)}\n'.encode())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that whatever goes wrong leaves the earlier one or the new one.

    Raises:
        OutputError: it cannot be written.
    """
    # A link stays, and what it names is written.
    target = Path(os.path.realpath(path))
    if stream := _stream_of(target):
        stream.write(data.decode())
        return
    part = target.with_name(f'.{MARK}-{secrets.token_hex(6)}.part')  # as _PART
    try:
        if target.exists() and not (target.is_file() and os.access(target.parent, os.W_OK)):
            # A device or a pipe; or a file in a folder where no other can be made.
            target.write_bytes(data)
            return
        try:
            part.write_bytes(data)
            if target.exists():
                shutil.copymode(target, part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f'{path}: cannot be written ({error.strerror})') from None


def _stream_of(path: Path) -> TextIO | None:
    """Return the stream that goes to a file: replacing it would lose what it wrote before."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            if path.is_file() and os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                return stream
    return None


def shown(items: Iterable[object]) -> str:
    """Return the first few of many things, for a line of text."""
    texts = [str(item) for item in items]
    return ', '.join(texts[:_SHOWN]) + (', ...' if len(texts) > _SHOWN else '')
