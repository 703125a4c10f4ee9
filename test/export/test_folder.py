# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A folder that is exported to again: the earlier export or the new one, and the user's files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segnode.checkpoint.exported import MANIFEST
from segnode.errors import OutputError
from segnode.export.folder import WHOLE, staged

OLD = ('trunk.xml', 'trunk.bin', 'mask_head.xml', 'mask_head.bin')
NEW = ('trunk.onnx', 'mask_head.onnx')


def fill(folder: Path, files: tuple[str, ...], text: str) -> None:
    for name in files:
        (folder / name).write_text(text)
    (folder / MANIFEST).write_text(json.dumps({'parts': [{'files': files}], 'made': text}))


def contents(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): f.read_text() for f in folder.rglob('*') if f.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One with an earlier export."""
    with staged(tmp_path / 'e') as place:
        fill(place, OLD, 'old')
    return tmp_path / 'e'


def test_files_of_the_users_stay(folder: Path) -> None:
    mine = ('pytorch_model.bin', 'labels.xml', 'net.onnx', 'sub.onnx/x.onnx')
    (folder / 'sub.onnx').mkdir()
    for name in mine:
        (folder / name).write_text('mine')
    with staged(folder) as place:
        fill(place, NEW, 'new')
    found = contents(folder)
    assert {name for name in found if found[name] == 'mine'} == {*mine}
    assert set(found) - {*mine} == {*NEW, MANIFEST, 'written-by-segnode.txt'}
    # A whole network has no manifest; the next export replaces it nevertheless.
    with staged(folder) as place:
        (place / WHOLE).write_text('whole')
    assert set(contents(folder)) - {*mine} == {WHOLE, 'written-by-segnode.txt'}
    with staged(folder) as place:
        fill(place, OLD, 'old')
    assert set(contents(folder)) - {*mine} == {*OLD, MANIFEST, 'written-by-segnode.txt'}


@pytest.mark.parametrize('new', [NEW, OLD])
@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError(28, 'No space left on device')])
@pytest.mark.parametrize('moved', [False, True])
def test_whatever_ends_the_exchange_leaves_one_of_them_whole(
    new: tuple[str, ...],
    error: BaseException,
    moved: bool,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = contents(folder)
    move = Path.replace
    for last in range(len(OLD) + 1 + len(new) + 1):
        calls: list[Path] = []

        def replace(path: Path, target: Path, last: int = last, calls: list[Path] = calls) -> Path:
            calls.append(path)
            if len(calls) - 1 != last:
                return move(path, target)
            if moved:
                move(path, target)
            raise error

        with pytest.raises((KeyboardInterrupt, OutputError)), staged(folder) as place:  # noqa: PT012
            fill(place, new, 'new')
            monkeypatch.setattr(Path, 'replace', replace)
        monkeypatch.undo()
        assert contents(folder) == before, last
    with staged(folder) as place:
        fill(place, new, 'new')
    assert set(contents(folder)) == {*new, MANIFEST, 'written-by-segnode.txt'}


def test_a_folder_in_the_place_of_a_program(folder: Path) -> None:
    (folder / 'trunk.onnx').mkdir()
    before = contents(folder)
    with pytest.raises(OutputError, match='cannot be written'), staged(folder) as place:
        fill(place, NEW, 'new')
    assert contents(folder) == before


@pytest.mark.parametrize(
    'text', ['', '[', '[]', '{"parts": 3}', '{"parts": [{"files": [["a"], "../x.bin", 5]}]}']
)
def test_a_manifest_that_is_none(text: str, folder: Path) -> None:
    (folder / MANIFEST).write_text(text)
    (folder.parent / 'x.bin').write_text('mine')
    with staged(folder) as place:
        fill(place, NEW, 'new')
    assert (folder.parent / 'x.bin').read_text() == 'mine'
    assert set(contents(folder)) == {*OLD, *NEW, MANIFEST, 'written-by-segnode.txt'}
