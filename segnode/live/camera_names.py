# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What cameras are called that have no name of their own: as their topics tell them apart."""

from __future__ import annotations

import re
from collections.abc import Sequence

NAME = re.compile('[A-Za-z][A-Za-z0-9_]*')
"""What a camera may be called, as it stands in topics."""
# Last parts of an image topic that say what the image is, and not which camera's.
_IMAGE_WORDS = re.compile(r'image(_\w+)?|compressed|rgb|color|raw')


def names_of_topics(topics: Sequence[str]) -> list[str]:
    """Return a name for each camera: the shortest part of its topic that tells it from others.

    ``/front/image_raw`` and ``/rear/image_raw`` are ``front`` and ``rear``.
    """
    parts = []
    for topic in topics:
        words = [word for word in topic.strip('~/').split('/') if word]
        while len(words) > 1 and _IMAGE_WORDS.fullmatch(words[-1]):
            words.pop()
        parts.append(words or ['camera'])
    longest = max(map(len, parts))
    names: list[str] = []
    for length in range(1, longest + 1):
        names = ['_'.join(words[-length:]) for words in parts]
        if len(set(names)) == len(names):
            break
    if len(set(names)) != len(names):
        # Names that differ in what is left out alone, as left/image_raw and left/image_color.
        names = [topic.strip('~/').replace('/', '_') for topic in topics]
    if len(set(names)) != len(names) or not all(map(NAME.fullmatch, names)):
        names = [f'camera_{number}' for number in range(len(topics))]
    return names
