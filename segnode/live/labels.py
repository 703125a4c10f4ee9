# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Class names as they can be drawn: each with a font of this machine that has its letters."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import PIL.features
from PIL import ImageFont

from segnode.output_files import shown

# For all class names together: nobody waits longer for the look of a label.
_SEARCH_S = 5.0
_PROBE_SIZE = 16
# No font has a letter for it, so that its glyph is the box for a missing one.
_NO_CHARACTER = '\U0010ffff'


@dataclass(frozen=True, slots=True)
class Label:
    """What is drawn for a class.

    Attributes:
        text: its name, or its number where no font has the letters of the name.
        font_file: the font's file, '' for the one that Pillow brings.
        is_name: the text is the name.
    """

    text: str
    font_file: str
    is_name: bool


@lru_cache(maxsize=16)
def class_labels(class_names: tuple[str, ...]) -> tuple[Label, ...]:
    """Return the label of every class. The first call for some names may look for fonts."""
    search = FontSearch()
    return tuple(_label(index, name, search) for index, name in enumerate(class_names))


def undrawable(class_names: Sequence[str]) -> str:
    """Look for the fonts that class names need; return a line on those without, or ''."""
    labels = class_labels(tuple(class_names))
    names = [n for n, label in zip(class_names, labels, strict=True) if not label.is_name]
    if not names:
        return ''
    return (
        f'no font of this machine can draw {len(names)} class names ({shown(names)}): the overlay '
        'has their numbers; install a font that has these letters, such as fonts-noto-cjk'
    )


@lru_cache(maxsize=64)
def label_font(size: int, font_file: str = '') -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Return a font of a size in pixels; without a file Pillow's own.

    Before Pillow 10.1 that has one size only.
    """
    if font_file:
        return ImageFont.truetype(font_file, size)
    try:
        return ImageFont.load_default(size)
    except TypeError:
        return ImageFont.load_default()


def _label(index: int, name: str, search: FontSearch) -> Label:
    text = ''.join(c for c in unicodedata.normalize('NFC', name) if not _is_hint(c))
    font_file = search.font_for(''.join(sorted(set(text))))
    # Without this library Pillow writes such scripts backwards, letter by letter.
    backwards = any(unicodedata.bidirectional(c) in ('R', 'AL') for c in text)
    if font_file is None or (backwards and not PIL.features.check('raqm')):
        return Label(f'class {index}', '', is_name=False)
    return Label(text, font_file, is_name=True)


def _is_hint(character: str) -> bool:
    """Return whether a character only picks the style of the one before it."""
    return '\ufe00' <= character <= '\ufe0f'


class FontSearch:
    """A search for fonts, of bounded time; what it found is tried first for other names."""

    def __init__(self) -> None:
        """Start the time."""
        self._end_s = time.monotonic() + _SEARCH_S
        self._found: dict[str, None] = {}
        self._asks_fontconfig = True
        self._all: list[str] | None = None

    def font_for(self, characters: str) -> str | None:
        """Return a font that has all characters, or None; '' is Pillow's own."""
        own: Any = label_font(_PROBE_SIZE)
        if characters.isascii() or _covers(own, characters):
            return ''
        if not PIL.features.check('freetype2'):
            return None
        for font_file in self._candidates(characters):
            if time.monotonic() > self._end_s:
                break
            try:
                font = ImageFont.truetype(font_file, _PROBE_SIZE)
            except (OSError, ValueError):
                continue  # Colour bitmaps of one size, or damaged.
            # The score stands behind the name.
            if _covers(font, characters + '0123456789.'):
                self._found[font_file] = None
                return font_file
        return None

    def _candidates(self, characters: str) -> Iterator[str]:
        """Yield font files, plain upright ones first: those that fontconfig names, or all."""
        yield from list(self._found)
        left_s = self._end_s - time.monotonic()
        found = None
        if self._asks_fontconfig and left_s > 0:
            found = _fontconfig(characters, left_s)
        if found is None:
            # It will not answer the next time, either.
            self._asks_fontconfig = False
            if self._all is None:
                folders = _font_folders()
                self._all = [str(path) for folder in folders for path in _font_files(folder)]
            found = self._all
        yield from sorted(found, key=_rank)


def _covers(font: Any, characters: str) -> bool:
    """Return whether a font draws every character as something else than a missing one."""
    if not isinstance(font, ImageFont.FreeTypeFont):
        return False
    missing = bytes(font.getmask(_NO_CHARACTER))
    for character in characters:
        mask = bytes(font.getmask(character))
        if not character.isspace() and (mask == missing or not any(mask)):
            return False
    return True


def _fontconfig(characters: str, timeout_s: float) -> list[str] | None:
    """Return the font files that have all characters, None where fontconfig cannot be asked."""
    program = shutil.which('fc-list')
    if program is None:
        return None
    charset = ' '.join(f'{ord(character):x}' for character in characters)
    try:
        answer = subprocess.run(
            [program, '--format', '%{file}\n', f':charset={charset}'],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return list(dict.fromkeys(line for line in answer.stdout.splitlines() if line))


def _font_folders() -> Iterator[Path]:
    home = Path(os.environ.get('HOME', '/nonexistent'))
    if sys.platform == 'darwin':
        yield from (Path('/System/Library/Fonts'), Path('/Library/Fonts'), home / 'Library/Fonts')
    else:
        yield from (Path('/usr/share/fonts'), Path('/usr/local/share/fonts'))
        yield from (home / '.local/share/fonts', home / '.fonts')


def _font_files(folder: Path) -> Iterator[Path]:
    for suffix in ('ttf', 'otf', 'ttc'):
        yield from folder.rglob(f'*.{suffix}')


def _rank(font_file: str) -> tuple[bool, bool, int, str]:
    name = Path(font_file).stem.lower()
    styled = any(word in name for word in ('bold', 'italic', 'oblique', 'light', 'thin', 'cond'))
    return styled, 'mono' in name or 'serif' in name, len(name), font_file
