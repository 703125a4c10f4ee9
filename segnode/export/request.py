# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What an export is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segnode.checkpoint.exported import Format
from segnode.checkpoint.weights_file import digest
from segnode.evaluation.annotations import Annotations
from segnode.image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What ranges are taken from.

    Attributes:
        pictures: decoded.
        sha256: of the files, in order.
    """

    pictures: Sequence[Image]
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be exported.

    Attributes:
        form: of the programs.
        precision: fp32, bf16 or int8.
        shapes: H and W of images, empty for any.
        output: the folder.
        calibration: for int8.
        check: pictures on which the export is compared with float32, empty for none.
        truth: annotations of these, image ids their positions; None takes float32's answers.
        search: keep layers in float32 where INT8 loses too much; off for planted weights.
    """

    form: Format
    precision: str
    shapes: tuple[tuple[int, int], ...]
    output: Path
    calibration: Calibration | None
    check: Sequence[Image]
    truth: Annotations | None
    search: bool


def hash_files(paths: Iterable[Path]) -> str:
    """Return one digest of many files' contents, in order."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(bytes.fromhex(digest(path, 'sha256')))
    return whole.hexdigest()
