# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Overlays as files: one picture for every image, among no images and over nobody's files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segnode.errors import ConfigError
from segnode.live.overlay import draw_overlay
from segnode.output_files import Inputs, is_replaceable, make_folder, shown
from segnode.written_pictures import is_own_picture, write_picture

if TYPE_CHECKING:
    from segnode.engine import Prediction
    from segnode.image import Image


def overlay_paths(
    folder: Path | None,
    given: Sequence[Path],
    images: Sequence[Path],
    inputs: Inputs,
    report: Callable[[str], None],
) -> list[Path]:
    """Return where the picture of each image goes, in a folder that is made; [] for nowhere.

    Args:
        folder: for the pictures, None for none.
        given: the files and folders that the user named.
        images: the files among and in them.
        inputs: all that is read.
        report: is told in a line of names that had to be others.

    Raises:
        ConfigError: a picture would lie among the images, or the folder cannot be made.
    """
    if folder is None:
        return []
    # The next run of the folder would take the overlays for images.
    folders = {os.path.realpath(path) for path in (*given, *(image.parent for image in images))}
    if os.path.realpath(folder) in folders:
        raise ConfigError(
            f'{folder}: expected another folder for --overlay than those whose images are read'
        )
    replaced = [path for path in images if folder / f'{path.stem}.jpg' in inputs]
    if replaced:
        raise ConfigError(
            f'{folder}: expected another folder for --overlay: the picture of {replaced[0]} would '
            'replace a file that is read'
        )
    make_folder(folder)
    names = list(_free_names((path.stem for path in images), folder, inputs))
    numbered = [
        f'{path} in {name}'
        for path, (name, is_plain) in zip(images, names, strict=True)
        if not is_plain
    ]
    if numbered:
        report(
            f'{folder}: {len(numbered)} pictures get a number, as their names are taken '
            f'({shown(numbered)})'
        )
    return [folder / name for name, _ in names]


def _free_names(stems: Iterable[str], folder: Path, inputs: Inputs) -> Iterator[tuple[str, bool]]:
    """Yield a picture's name for every stem, numbered where the plain one cannot be taken.

    Two stems may be equal, and a file may lie there that is an input or not segnode's own.

    Yields:
        The name, and whether it is the plain one.
    """
    taken: set[str] = set()
    for stem in stems:
        number = 1
        while True:
            name = f'{stem}.jpg' if number == 1 else f'{stem}_{number}.jpg'
            path = folder / name
            # Some file systems take `A.jpg` and `a.jpg` for one file.
            is_free = name.casefold() not in taken and path not in inputs
            if is_free and is_replaceable(path, is_own_picture):
                break
            number += 1
        taken.add(name.casefold())
        yield name, number == 1


def write_overlay(
    path: Path, image: Image, prediction: Prediction, class_names: Sequence[str]
) -> None:
    """Write an image with what was found in it.

    Raises:
        OutputError: it cannot be written.
    """
    labels = prediction.label_image()
    write_picture(path, draw_overlay(image, prediction.detections, labels, class_names))
