# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Writing an exported folder: the programs first, the manifest last."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from segnode import __version__
from segnode.checkpoint import NativeModel
from segnode.checkpoint.exported import MANIFEST, SCHEMA, Format, Manifest, PartEntry
from segnode.checkpoint.plain_data import KIND, to_plain
from segnode.checkpoint.weights_file import digest
from segnode.export.parts import PartProgram
from segnode.export.programs import Writer
from segnode.output_files import make_own_folder, write_whole

FOLDER_KIND = 'export'


class ExportFolder:
    """One folder in the making."""

    def __init__(self, path: Path, writer: Writer) -> None:
        """Make the folder, or empty an earlier one of programs.

        Raises:
            ConfigError: it holds files of somebody else, or cannot be made.
        """
        make_own_folder(path, FOLDER_KIND)
        self.path, self._writer = path, writer
        # Without a manifest, what is left of an earlier export cannot be taken for a whole one.
        (path / MANIFEST).unlink(missing_ok=True)
        for suffix in ('xml', 'bin', 'onnx'):
            for file in path.glob(f'*.{suffix}'):
                file.unlink()
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
        manifest = to_plain(
            Manifest(
                schema=SCHEMA,
                format=form,
                precision=precision,  # type: ignore[arg-type]
                model=model.name,
                weights_sha256=model.weights_sha256,
                licence=model.licence,
                class_names=model.class_names,
                architecture=model.architecture,
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
