# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Fetching a weights file into a cache, and saying when the server has another one.

Beside each cached file stands a record of what the server said of it (``NAME.json``). A cached
file never waits for a network: it is handed out first and the server asked afterwards. Files
without a record, from an older cache or put there by hand, are taken, too.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import http.client
import json
import os
import secrets
import shutil
import threading
import time
import urllib.error
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import IO, Final, Literal

import safetensors
from tqdm import tqdm

from segnode.checkpoint.web import (
    NETWORK_ERRORS,
    Answer,
    open_url,
    reason,
    shown,
    split_url,
    what_came,
)
from segnode.checkpoint.weights_file import digest, weights_kind
from segnode.errors import CheckpointError, FetchError

_TIMEOUT_S: Final = 30.0
# Of a start that has a cached file to go on with.
_REFRESH_TIMEOUT_S: Final = 10.0
_CHECK_TIMEOUT_S: Final = 5.0
_BLOCK: Final = 1 << 18
# A part that grew no more for so long is left of a process that was killed.
_ABANDONED_S: Final = 600.0
# How often it is told how much has come, where there is no progress bar.
_REPORTED_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Checksum:
    """The beginning of a file's published digest: it finds damage, not forgery.

    Attributes:
        algorithm: a name that ``hashlib`` knows.
        prefix: its first hexadecimal digits.
    """

    algorithm: str
    prefix: str

    def found_in(self, path: Path) -> str:
        """Return as many digits of a file's digest as are published."""
        return digest(path, self.algorithm)[: len(self.prefix)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What was known of a file when it was fetched.

    Attributes:
        url: where from, without credentials and query.
        etag: the server's name of this version, empty for none.
        last_modified: the server's date of it, empty for none.
        length: bytes.
        sha256: hexadecimal digest.
        fetched_at: UTC, ISO 8601.
    """

    url: str
    etag: str
    last_modified: str
    length: int
    sha256: str
    fetched_at: str


@dataclass(frozen=True, slots=True)
class Cached:
    """A file of the cache.

    Attributes:
        path: where it lies.
        status: ``fetched`` for the first time, ``there`` already, ``unchanged`` on the server,
            or ``replaced`` by what the server has now.
    """

    path: Path
    status: Literal['fetched', 'there', 'unchanged', 'replaced']


@dataclass(frozen=True, slots=True)
class Freshness:
    """Whether a server still has the file that is cached.

    Attributes:
        state: ``unknown`` where the server does not say, ``unasked`` where it cannot be asked.
        text: a line for the user, empty for ``same``.
    """

    state: Literal['same', 'changed', 'unknown', 'unasked']
    text: str


def cache_folder() -> Path:
    """Return where fetched files are kept: SEGNODE_CACHE, else segnode in the user's cache.

    Raises:
        CheckpointError: the user has no home folder.
    """
    own = os.environ.get('SEGNODE_CACHE')
    try:
        if own:
            return Path(own).expanduser()
        return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'segnode'
    except RuntimeError:
        raise CheckpointError(
            'expected a folder for fetched weights, found no home folder of this user; '
            'set SEGNODE_CACHE to a folder'
        ) from None


def cached_path(url: str) -> Path:
    """Return where the file of a URL is kept; equal names of different URLs do not collide.

    Raises:
        CheckpointError: no http(s) URL, or no place for a cache.
    """
    parts = split_url(url)
    name = PurePosixPath(parts.path).name
    # As long as a file system takes, with the record's ending.
    name = name.encode()[-200:].decode(errors='ignore')
    name = 'weights' if name in ('', '.', '..') else name
    user, at, _ = parts.netloc.rpartition('@')
    # A token may change, the file stays the same.
    key = url.replace(f'{user}{at}', '', 1)
    return cache_folder() / hashlib.sha256(key.encode()).hexdigest()[:8] / name


def record_path(path: Path) -> Path:
    """Return where the record of a cached file stands."""
    return path.with_name(path.name + '.json')


def read_record(path: Path) -> Record | None:
    """Return the record of a cached file, None where there is none that fits it."""
    try:
        stored = json.loads(record_path(path).read_text(encoding='utf-8'))
        record = Record(**{field.name: stored[field.name] for field in fields(Record)})
        size = path.stat().st_size
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    texts: tuple[object, ...] = (
        record.url,
        record.etag,
        record.last_modified,
        record.sha256,
        record.fetched_at,
    )
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        return None
    # Headers are made of them.
    plain = (record.etag + record.last_modified).isascii()
    return record if plain and record.length == size else None


def date_of(path: Path) -> str:
    """Return when a cached file was fetched, as its record or else the file system has it."""
    when = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
    record = read_record(path)
    if record is not None:
        with contextlib.suppress(ValueError, OverflowError):
            when = datetime.fromisoformat(record.fetched_at).astimezone(timezone.utc)
    return f'{when:%Y-%m-%d %H:%M} UTC'


def cached_files() -> list[Path]:
    """Return the files of the cache, without records and what is half fetched.

    Raises:
        CheckpointError: the folder cannot be read.
    """
    folder = cache_folder()
    try:
        files = [path for path in folder.glob('*/*') if path.is_file()]
    except OSError as error:
        raise CheckpointError(f'{folder}: cannot be read ({error.strerror})') from None
    return sorted(path for path in files if path.suffix not in ('.json', '.part'))


def fetch(
    url: str,
    checksum: Checksum | None,
    report: Callable[[str], None] = lambda _: None,
    *,
    refresh: bool = False,
) -> Path:
    """Return the cached file of a URL, fetching it if it is not there yet.

    A cached file is handed out without waiting for a network. Where nothing is published of it,
    the server is asked meanwhile, in a thread, whether it has another one.

    Args:
        url: http or https.
        checksum: what is published of the file: such a file never changes.
        report: is told in a line what is done and found, also from the thread.
        refresh: wait for the server and take its file where it has changed; the cached one where
            that fails.

    Raises:
        CheckpointError: the file cannot be fetched or is not the published one.
    """
    path = cached_path(url)
    there = _is_there(path)
    if not there:
        report(f'fetching {shown(url)} into {path.parent}')
    try:
        cached = provide(url, checksum, report, refresh=refresh)
    except CheckpointError as error:
        if not (there and refresh) or _damage(path, checksum):
            raise
        report(f'{error} and runs')
        return path
    if cached.status == 'unchanged':
        report(f'{shown(url)} has not changed, the cached file of {date_of(path)} runs')
    elif cached.status == 'replaced':
        report(f'{shown(url)} has changed, the new file runs')
    elif cached.status == 'there' and checksum is None:
        _check_meanwhile(url, report)
    return path


def provide(
    url: str,
    checksum: Checksum | None,
    report: Callable[[str], None] = lambda _: None,
    *,
    refresh: bool,
) -> Cached:
    """Fetch a file that is not cached, or with ``refresh`` one that the server has anew.

    A progress bar goes to stderr where that is a terminal, and lines to ``report`` where it is
    not. The file appears in the cache whole and checked, or not at all; one that is replaced stays
    whole for whoever has it open.

    Raises:
        CheckpointError: it cannot be fetched, is not the published one, or no weights.
    """
    path = cached_path(url)
    there = _is_there(path)
    damage = _damage(path, checksum) if there else ''
    if damage and not refresh:
        raise CheckpointError(
            f'{path}: {damage}; remove the file to have it fetched again, or give --refresh'
        )
    if there and not damage and (checksum or not refresh):
        return Cached(path, 'there')
    by_hand = f'fetch it by hand and save it as {path}, or name your copy with --weights'
    before = digest(path, 'sha256') if there else ''
    known = read_record(path)
    if damage or (known is not None and known.sha256 != before):
        known = None  # The record is of another file than the one that lies there.
    try:
        fetched = _download(url, path, checksum, known, report)
    except _NotWritableError as error:
        stays = (
            f'; the cached file of {date_of(path)} stays'
            if there and not damage
            else '; set SEGNODE_CACHE to another folder, or name your copy with --weights'
        )
        raise CheckpointError(f'{error}{stays}') from None
    except NETWORK_ERRORS as error:
        why = str(error) if isinstance(error, _UnusableError) else reason(error)
        if there and not damage:
            raise CheckpointError(
                f'{shown(url)}: cannot be fetched again ({why}); '
                f'the cached file of {date_of(path)} stays'
            ) from None
        raise FetchError(f'{shown(url)}: cannot be fetched ({why}); {by_hand}') from None
    if not there:
        return Cached(path, 'fetched')
    return Cached(path, 'replaced' if fetched and fetched.sha256 != before else 'unchanged')


def freshness(url: str) -> Freshness:
    """Ask a server whether it still has the file that is cached; nothing is fetched or written."""
    path = cached_path(url)
    date = date_of(path)
    try:
        same = _same(read_record(path), path, _ask(url))
    except NETWORK_ERRORS as error:
        why = str(error) if isinstance(error, _UnusableError) else reason(error)
        text = f'runs the cached file of {date}, could not ask {shown(url)} ({why})'
        return Freshness('unasked', text)
    if same:
        return Freshness('same', '')
    if same is None:
        return Freshness(
            'unknown',
            f'runs the cached file of {date}; {shown(url)} does not say whether it has changed '
            '(no ETag, no date), --refresh fetches it again',
        )
    return Freshness(
        'changed',
        f'runs the cached file of {date}, but {shown(url)} has changed since: take the new one '
        f'by `segnode fetch --refresh {shown(url)}`, or --refresh (the parameter refresh)',
    )


class _UnusableError(OSError):
    """What came is not to be kept; the text says why and what to do."""


class _NotWritableError(Exception):
    """The cache folder takes no file; the text names it."""


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _NotWritableError(
            f'{folder}: expected a cache folder to write to, found: '
            f'{error.strerror or type(error).__name__}'
        ) from None


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise CheckpointError(
            f'{path}: cannot be read ({error.strerror}); set SEGNODE_CACHE to another folder, '
            'or name your copy with --weights'
        ) from None


def _damage(path: Path, checksum: Checksum | None) -> str:
    """Return what is wrong with a cached file, nothing where it can be used."""
    try:
        if checksum is not None:
            found = checksum.found_in(path)
            published = f'expected {checksum.algorithm} {checksum.prefix}... as published'
            return '' if found == checksum.prefix else f'{published}, found {found}...'
        return _not_weights(path)
    except OSError as error:
        raise CheckpointError(f'{path}: cannot be read ({error.strerror})') from None


def _not_weights(path: Path) -> str:
    if weights_kind(path) != 'unknown':
        return ''
    with path.open('rb') as stream:
        head = stream.read(4096)
    nowhere = 'http://localhost'
    return f'expected weights: {what_came(head, Answer("", "", None, ""), nowhere, nowhere)}'


def _download(
    url: str,
    path: Path,
    checksum: Checksum | None,
    known: Record | None,
    report: Callable[[str], None],
) -> Record | None:
    """Fetch a file; return None where the server still has the ``known`` one."""
    folder = path.parent
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob('*.part'):
            with contextlib.suppress(FileNotFoundError):  # Another process was faster.
                if time.time() - part.stat().st_mtime > _ABANDONED_S:
                    part.unlink()
        part = folder / f'{path.name}.{secrets.token_hex(4)}.part'
        stream = part.open('xb')
    try:
        with stream:
            timeout_s = _REFRESH_TIMEOUT_S if path.exists() else _TIMEOUT_S
            record = _receive(url, stream, part, known, timeout_s, report)
        if record is None:
            return None
        if checksum is not None and (damage := _damage(part, checksum)):
            raise _UnusableError(damage)
        with _writing(folder):
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    # Without a record the file is as good, so that a disk that just became full does no harm.
    with contextlib.suppress(OSError):
        _write_record(path, record)
    return record


def _receive(
    url: str,
    stream: IO[bytes],
    part: Path,
    known: Record | None,
    timeout_s: float,
    report: Callable[[str], None],
) -> Record | None:
    """Write what a server sends to ``part``; return None where it has nothing new."""
    try:
        response = open_url(url, timeout_s, _conditions(known))
    except NETWORK_ERRORS as error:
        if known is not None and getattr(error, 'code', None) == 304:
            return None
        raise
    with response:
        if response.status != 200:
            raise _UnusableError(f'HTTP {response.status}, which has no file')
        answer = Answer.of(response.headers)
        free = shutil.disk_usage(part.parent).free
        if answer.length is not None and answer.length > free:
            raise _NotWritableError(
                f'{part.parent}: expected {answer.length / 1e6:.0f} MB of room for '
                f'{shown(url)}, found {free / 1e6:.0f} MB'
            )
        state, size = hashlib.sha256(usedforsecurity=False), 0
        of = '' if answer.length is None else f' of {answer.length / 1e6:.0f}'
        reported_s = time.monotonic()
        with tqdm(
            total=answer.length,
            unit='B',
            unit_scale=True,
            desc=part.name.rpartition('.')[0].rpartition('.')[0],
            disable=None,
        ) as progress:
            while True:
                block = response.read(_BLOCK)
                with _writing(part.parent):
                    stream.write(block)
                    stream.flush()
                # Known before the rest of a wrong file is fetched.
                if size == 0 and weights_kind(part) == 'unknown':
                    raise _UnusableError(what_came(block, answer, url, response.geturl()))
                if not block:
                    break
                state.update(block)
                size += len(block)
                progress.update(len(block))
                if progress.disable and time.monotonic() - reported_s > _REPORTED_S:
                    reported_s = time.monotonic()
                    report(f'{size / 1e6:.0f}{of} MB of {shown(url)} fetched')
        with _writing(part.parent):
            # A robot may lose its power at any time; the name must not outlive the content.
            os.fsync(stream.fileno())
    if answer.length not in (None, size):
        raise _UnusableError(f'{size} of {answer.length} bytes came')
    if answer.length is None and not _ends_well(part):
        raise _UnusableError(f'the connection ended early, after {size} bytes')
    return Record(
        url=shown(url),
        etag=answer.etag,
        last_modified=answer.last_modified,
        length=size,
        sha256=state.hexdigest(),
        fetched_at=datetime.now(timezone.utc).isoformat(timespec='seconds'),
    )


def _ends_well(path: Path) -> bool:
    """Return whether a file of which no length is known is whole, as far as its format tells."""
    if weights_kind(path) == 'safetensors':
        try:
            with safetensors.safe_open(path, framework='np'):
                return True
        except safetensors.SafetensorError:
            return False
    with path.open('rb') as stream:
        zipped = stream.read(2) == b'PK'
    return zipfile.is_zipfile(path) if zipped else True


def _write_record(path: Path, record: Record) -> None:
    target = record_path(path)
    part = target.with_name(f'{target.name}.{secrets.token_hex(4)}.part')
    try:
        part.write_text(json.dumps(asdict(record), indent=2) + '\n', encoding='utf-8')
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _conditions(known: Record | None) -> dict[str, str]:
    """Return the headers that ask for a file only where it is not the known one."""
    if known is None:
        return {}
    conditions = {'If-None-Match': known.etag, 'If-Modified-Since': known.last_modified}
    return {name: value for name, value in conditions.items() if value}


def _ask(url: str) -> Answer:
    """Return what a server says of a file."""
    try:
        response = open_url(url, _CHECK_TIMEOUT_S, {}, 'HEAD')
    except NETWORK_ERRORS as error:
        if not isinstance(error, urllib.error.HTTPError | http.client.HTTPException):
            raise
        # Some refuse HEAD, and signed links are for GET alone: one byte is asked for then.
        response = open_url(url, _CHECK_TIMEOUT_S, {'Range': 'bytes=0-0'})
    # Closed without reading: a server that ignores the range would send the whole file.
    with response:
        answer = Answer.of(response.headers)
    if answer.content_type in ('text/html', 'application/xhtml+xml'):
        raise _UnusableError('a web page answered, such as a login or a proxy')
    return answer


def _same(known: Record | None, path: Path, answer: Answer) -> bool | None:
    """Return whether a server's file is the cached one, None where it cannot be told."""
    if answer.length not in (None, path.stat().st_size):
        return False
    if known is not None and known.etag and answer.etag:
        return known.etag.removeprefix('W/') == answer.etag.removeprefix('W/')
    if known is not None and known.last_modified and answer.last_modified:
        return known.last_modified == answer.last_modified
    if known is None and answer.last_modified:
        with contextlib.suppress(ValueError, OverflowError):
            changed = parsedate_to_datetime(answer.last_modified).timestamp()
            return changed <= path.stat().st_mtime
    return None


# Held for good once the process ends, as stderr may be gone then.
_saying = threading.Lock()
atexit.register(_saying.acquire, timeout=0.5)


def _check_meanwhile(url: str, report: Callable[[str], None]) -> None:
    """Ask for a file's freshness in a thread that no one waits for."""

    def ask() -> None:
        try:
            found = freshness(url)
            if found.text:
                with _saying:
                    report(found.text)
        except Exception:  # noqa: BLE001 - a remark is not worth a traceback in the user's log
            return

    # Where there is no room for a thread, a robot has other worries.
    with contextlib.suppress(RuntimeError):
        threading.Thread(target=ask, name='weights check', daemon=True).start()
