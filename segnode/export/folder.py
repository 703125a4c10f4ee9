# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Writing an exported folder: the programs first, the manifest last."""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from segnode import __version__
from segnode.checkpoint import NativeModel
from segnode.checkpoint.exported import (
    MANIFEST,
    SCHEMA,
    SUFFIXES,
    Format,
    Manifest,
    PartEntry,
    description_sha256,
)
from segnode.checkpoint.plain_data import KIND, to_plain
from segnode.checkpoint.weights_file import digest
from segnode.errors import OutputError
from segnode.export.parts import PartProgram
from segnode.export.programs import Writer
from segnode.output_files import make_own_folder, make_part_folder, write_whole

FOLDER_KIND: Final = 'export'
# The one file of a whole network, which has no manifest.
WHOLE: Final = 'mask_rcnn.onnx'


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Give a folder to write; its files replace those of an earlier export when all went well.

    Whatever ends the work before that leaves the earlier export as it was, and of a new one
    nothing. Files that neither of them has stay.

    Raises:
        ConfigError: the folder holds files of somebody else, or cannot be made.
        OutputError: it cannot be written.
    """
    existed = path.is_dir()
    make_own_folder(path, FOLDER_KIND)
    part = make_part_folder(path)
    done = False
    try:
        yield part
        _replace(path, part)
        done = True
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if not (done or existed):
            shutil.rmtree(path, ignore_errors=True)


def _replace(path: Path, part: Path) -> None:
    """Put an earlier export aside and a new one in its place, or all back where that fails."""
    new = sorted(file.name for file in part.iterdir())
    aside = part / 'earlier'
    try:
        aside.mkdir()
        # Without a manifest, files of two exports cannot be taken for a whole one: it goes first,
        # and comes last.
        for name in sorted(_written(path) | {*new}, key=lambda name: name != MANIFEST):
            if (path / name).is_file():
                (path / name).replace(aside / name)
        for name in sorted(new, key=lambda name: name == MANIFEST):
            (part / name).replace(path / name)
    except BaseException as error:
        # What was moved is seen from where it lies, as Ctrl-C comes at any place.
        for name in new:
            if not (part / name).exists():
                (path / name).replace(part / name)
        for file in sorted(aside.glob('*'), key=lambda file: file.name == MANIFEST):
            file.replace(path / file.name)
        if isinstance(error, OSError):
            raise OutputError(f'{path}: cannot be written ({error.strerror})') from None
        raise


def _written(path: Path) -> set[str]:
    """Return the names of the files that an earlier export may have written."""
    names = {MANIFEST, WHOLE}
    try:
        parts = json.loads((path / MANIFEST).read_bytes())['parts']
        listed = {name for part in parts for name in part['files']}
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return names
    suffixes = {suffix for each in SUFFIXES.values() for suffix in each}
    return names | {
        name
        for name in listed
        if isinstance(name, str) and Path(name).name == name and Path(name).suffix in suffixes
    }


class ExportFolder:
    """One folder in the making."""

    def __init__(self, path: Path, writer: Writer) -> None:
        """Take an empty folder, see ``staged``."""
        self.path, self._writer = path, writer
        self._entries: dict[str, PartEntry] = {}

    def add(self, part: PartProgram, converted: Any) -> None:
        """Write a part, over an earlier form of it."""
        files = self._writer.save(converted, self.path / part.file_stem)
        self._entries[part.file_stem] = PartEntry(
            name=part.name,
            files=tuple(file.name for file in files),
            sha256=tuple(digest(file, 'sha256') for file in files),
            network_hw=part.network_hw,
        )

    def finish(
        self,
        model: NativeModel,
        form: Format,
        precision: str,
        shapes: Sequence[tuple[int, int]],
        further: Mapping[str, Any],
    ) -> None:
        """Write the manifest; what is ``further`` in it is for people."""
        names = model.class_names
        manifest = to_plain(
            Manifest(
                schema=SCHEMA,
                format=form,
                precision=precision,  # type: ignore[arg-type]
                model=model.name,
                weights_sha256=model.weights_sha256,
                licence=model.licence,
                class_names=names,
                architecture=model.architecture,
                description_sha256=description_sha256(to_plain(model.architecture), names),
                shapes=tuple(shapes),
                parts=tuple(self._entries.values()),
            )
        )
        del manifest[KIND]
        versions = {
            'segnode': __version__,
            'python': platform.python_version(),
            'torch': torch.__version__,
            **self._writer.versions,
        }
        content = {**manifest, 'versions': versions, **further}
        text = json.dumps(content, indent=1, allow_nan=False)
        write_whole(self.path / MANIFEST, f'{text}\n'.encode())
