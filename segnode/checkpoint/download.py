# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Fetching a weights file into a cache, once."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from tqdm import tqdm

from segnode.checkpoint.weights_file import digest
from segnode.errors import CheckpointError

_TIMEOUT_S = 30.0


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


def cache_folder() -> Path:
    """Return where fetched files are kept: SEGNODE_CACHE, else segnode in the user's cache."""
    own = os.environ.get('SEGNODE_CACHE')
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'segnode'


def cached_path(url: str) -> Path:
    """Return where the file of a URL is kept; equal names of different URLs do not collide."""
    name = PurePosixPath(urlsplit(url).path).name or 'weights'
    return cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:8] / name


def fetch(url: str, checksum: Checksum | None) -> Path:
    """Return the cached file of a URL, fetching it if it is not there yet.

    A progress bar goes to stderr where that is a terminal. The file appears in the cache whole
    and checked, or not at all.

    Raises:
        CheckpointError: the file cannot be fetched or is not the published one.
    """
    path = cached_path(url)
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _download(url, path, checksum)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise CheckpointError(
                f'{url}: cannot be fetched ({reason}); fetch it by hand and save it as {path}, '
                'or name your copy with --weights'
            ) from None
    elif checksum and (found := checksum.found_in(path)) != checksum.prefix:
        raise CheckpointError(
            f'{path}: expected {checksum.algorithm} {checksum.prefix}... as published, '
            f'found {found}...; remove the file to have it fetched again'
        )
    return path


def _download(url: str, path: Path, checksum: Checksum | None) -> None:
    with (
        urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response,
        tempfile.NamedTemporaryFile(dir=path.parent, suffix='.part', delete=False) as part,
    ):
        try:
            size = int(response.headers.get('Content-Length') or 0)
            with tqdm(
                total=size or None, unit='B', unit_scale=True, desc=path.name, disable=None
            ) as progress:
                while block := response.read(1 << 18):
                    part.write(block)
                    progress.update(len(block))
            if size and part.tell() != size:
                raise OSError(f'{part.tell()} of {size} bytes came')
            part.close()
            if checksum and (found := checksum.found_in(Path(part.name))) != checksum.prefix:
                raise OSError(
                    f'expected {checksum.algorithm} {checksum.prefix}... as published, '
                    f'found {found}...'
                )
            Path(part.name).replace(path)
        finally:
            Path(part.name).unlink(missing_ok=True)
