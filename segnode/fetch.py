# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode fetch``: weights into the cache, before a machine without a network needs them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segnode.cli import Parser, note, say, table
from segnode.errors import CheckpointError, ConfigError
from segnode.output_files import check_writable, is_own_json, write_json

if TYPE_CHECKING:
    from segnode.checkpoint.download import Checksum

_EXAMPLES = """\
  segnode fetch mask_rcnn_R_50_FPN_3x
  segnode fetch https://example.com/forklift.pth --json fetched.json
  segnode fetch --refresh https://example.com/forklift.pth
  segnode fetch --list

A laptop has the network, a robot has not:

  laptop$ SEGNODE_CACHE=weights segnode fetch mask_rcnn_R_50_FPN_3x
  laptop$ ssh robot mkdir -p .cache/segnode
  laptop$ rsync -a weights/ robot:.cache/segnode/
  robot$  segnode doctor --model mask_rcnn_R_50_FPN_3x

The robot then finds the file where it would have put it itself. A file is kept only where it is
whole, is the published one (presets), and is no web page or error of a server. Fetched files go to
SEGNODE_CACHE, else to segnode in XDG_CACHE_HOME or ~/.cache.

Exit codes: 0 all files are there, 1 some could not be fetched (the others were), 2 wrong use.
"""


@dataclass(frozen=True, slots=True)
class _Target:
    """What is to be fetched: its printable name, URL, and what its publisher says of it."""

    name: str
    url: str
    checksum: Checksum | None
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """What became of a file, as ``--json`` writes it; sizes in bytes, no text where unknown."""

    name: str
    url: str
    path: str
    status: str
    size: int
    sha256: str
    licence: str
    fetched_at: str
    note: str


def main(args: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, or 1 when a file could not be fetched.

    Raises:
        ConfigError: something else than presets and URLs is named.
    """
    parser = Parser(
        'fetch',
        'Fetch weights into the cache, for a machine that has no network when it starts.',
        _EXAMPLES,
    )
    parser.add_argument('names', nargs='*', metavar='PRESET|URL', help='what to fetch')
    parser.add_argument(
        '--refresh', action='store_true', help='fetch again what has changed on its server'
    )
    parser.add_argument('--list', action='store_true', help='list the cache and fetch nothing')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write what is said, in full')
    options = parser.parse_args(args)
    if options.list and (options.names or options.refresh):
        parser.error('--list: expected alone, found with something to fetch')
    if not options.list and not options.names:
        parser.error('expected a preset or a URL to fetch, or --list, found neither')
    check_writable(options.json, own=is_own_json(r'\[\]\s*$|\[\{"name": '))
    if options.list:
        rows = _list()
    else:
        rows = [
            _fetch(target, refresh=options.refresh)
            for target in {target.url: target for target in map(_target, options.names)}.values()
        ]
    if options.json is not None:
        write_json(options.json, [asdict(row) for row in rows])
    if options.list:
        return 0
    counts = Counter(row.status for row in rows)
    say('fetch: ' + ' '.join(f'{status}={number}' for status, number in counts.items()))
    return 1 if counts['failed'] else 0


def _target(name: str) -> _Target:
    from segnode.checkpoint.presets import (
        PRESETS,
        published_checksum,
        published_url,
        unknown_model,
    )
    from segnode.checkpoint.web import shown, split_url

    if name in PRESETS:
        preset = PRESETS[name]
        return _Target(name, preset.url, preset.checksum, preset.licence)
    url = published_url(name)
    if '://' in url:
        try:
            split_url(url)
        except CheckpointError as error:
            raise ConfigError(str(error)) from None
        licence = next((p.licence for p in PRESETS.values() if p.url == url), '')
        return _Target(shown(name), url, published_checksum(url), licence)
    if not name or Path(name).exists() or name.endswith(('.yaml', '.yml')):
        raise ConfigError(
            f'{name or "an empty name"}: expected a preset or a URL of weights, found a path; '
            'a file needs no fetching: give it to a command as --model or --weights'
        )
    raise ConfigError(unknown_model(name).replace('expected a file or', 'expected a URL or'))


def _fetch(target: _Target, *, refresh: bool) -> _Row:
    """Fetch a file and say what became of it; an error is said, and is a row, too."""
    from segnode.checkpoint.download import freshness, provide

    try:
        cached = provide(target.url, target.checksum, refresh=refresh)
    except CheckpointError as error:
        note(f'error: {error}')
        return _row(target, None, 'failed', str(error))
    remark = ''
    if cached.status == 'there' and target.checksum is None:
        remark = freshness(target.url).text
    row = _row(target, cached.path, cached.status, remark)
    said = {
        'fetched': 'fetched',
        'there': 'was there already',
        'unchanged': 'was there already, and has not changed on the server',
        'replaced': 'had changed on the server, and was fetched again',
    }
    say(f'{row.name}: {said[row.status]}')
    say(f'  path     {row.path}')
    say(f'  size     {row.size / 1e6:.1f} MB ({row.size} bytes)')
    say(f'  sha256   {row.sha256}')
    if row.licence:
        say(f'  licence  {row.licence}')
    sys.stdout.flush()
    if remark:
        note(remark)
    return row


def _row(target: _Target, path: Path | None, status: str, remark: str) -> _Row:
    from segnode.checkpoint.download import read_record
    from segnode.checkpoint.web import shown
    from segnode.checkpoint.weights_file import digest

    record = read_record(path) if path else None
    return _Row(
        name=target.name,
        url=shown(target.url) if target.url else '',
        path=str(path.absolute()) if path else '',
        status=status,
        size=path.stat().st_size if path else 0,
        sha256=digest(path, 'sha256') if path else '',
        licence=target.licence,
        fetched_at=record.fetched_at if record else '',
        note=remark,
    )


def _list() -> list[_Row]:
    """Say what the cache holds."""
    from segnode.checkpoint.download import (
        cache_folder,
        cached_files,
        cached_path,
        date_of,
        read_record,
    )
    from segnode.checkpoint.presets import PRESETS

    presets = {cached_path(preset.url): name for name, preset in PRESETS.items()}
    folder, rows = cache_folder(), []
    for path in cached_files():
        record, name = read_record(path), presets.get(path, '')
        target = _Target(
            name or path.name,
            PRESETS[name].url if name else (record.url if record else ''),
            None,
            PRESETS[name].licence if name else '',
        )
        rows.append(_row(target, path, 'there', ''))
    if not rows:
        say(f'{folder}: nothing has been fetched yet')
        return rows
    say(f'{folder}:')
    say(
        table(
            ('file', 'MB', 'fetched', 'sha256', 'from'),
            (
                (
                    str(Path(row.path).relative_to(folder.absolute())),
                    f'{row.size / 1e6:.1f}',
                    date_of(Path(row.path)),
                    row.sha256[:12],
                    row.url or '(not recorded)',
                )
                for row in rows
            ),
        )
    )
    return rows
