# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What an annotated image says of the frame of a bag that it is: a stamp, or a frame number.

Fields come before the file name, and stamps before numbers. Recorders and extractors name files
by nanoseconds, by ``sec.nsec``, by milliseconds (13 digits) or by counting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from segnode.evaluation.entries import AnnotatedImage
from segnode.evaluation.segmentation import integer

STAMP_FIELD = 'the stamps of the annotated images'
NUMBER_FIELD = 'the frame numbers of the annotated images'
STAMP_NAME = 'the stamps in the file names'
NUMBER_NAME = 'the numbers at the end of the file names'
KINDS = (STAMP_FIELD, NUMBER_FIELD, STAMP_NAME, NUMBER_NAME)
"""In the order in which an image is asked for them."""
NUMBER_KINDS = (NUMBER_FIELD, NUMBER_NAME)

_NS = 10**9
_LATEST_S = 10**10
# Integers of so many digits are no seconds; which unit they are in, the bag has to tell.
_LEAST_DIGITS = 13
_MOST_DIGITS = 19
# What Roboflow makes of a name, without the extension: frame_7_jpg.rf.0a1b2c.
_ROBOFLOW = re.compile(r'[_.-](?:jpe?g|png|bmp)\.rf\.\w+$', re.IGNORECASE)
_EXTENSION = re.compile(r'\.[A-Za-z]\w*$')
_DECIMAL_SECONDS = re.compile(r'(?<!\d)(\d{9,10}\.\d{3,9}|\d{1,8}\.\d{9})$')
_SEC_NSEC = re.compile(r'(?<!\d)(\d{9,10})[_-](\d{7,9})$')
_DIGITS = re.compile(rf'(?<!\d)(\d{{{_LEAST_DIGITS},{_MOST_DIGITS}}})(?!\d)')
_NUMBER = re.compile(r'(?<!\d)(\d{1,12})$')


@dataclass(frozen=True, slots=True)
class FrameKey:
    """What tells an image's frame.

    Attributes:
        kind: one of `KINDS`.
        value: nanoseconds, or the frame's number.
        unit_known: False for the digits of a stamp in nano-, micro- or milliseconds.
        text: as it stands in the file.
    """

    kind: str
    value: int
    unit_known: bool
    text: str


def frame_key(image: AnnotatedImage) -> FrameKey | None:
    """Return what tells an image's frame, None where nothing does."""
    fields = image.frame_keys
    for name in ('stamp_ns', 'timestamp_ns'):
        if (value := _integer(fields.get(name))) is not None:
            return FrameKey(STAMP_FIELD, value, True, f'{name} {value}')
    for name in ('stamp', 'timestamp'):
        if (found := _stamp(fields.get(name))) is not None:
            return FrameKey(STAMP_FIELD, *found, f'{name} {fields[name]}')
    for name in ('frame', 'frame_number'):
        if (value := _integer(fields.get(name))) is not None:
            return FrameKey(NUMBER_FIELD, value, True, f'{name} {value}')
    stem = _ROBOFLOW.sub('', _EXTENSION.sub('', image.file_name))
    if match := _DECIMAL_SECONDS.search(stem):
        return FrameKey(STAMP_NAME, int(Decimal(match[1]) * _NS), True, image.file_name)
    if match := _SEC_NSEC.search(stem):
        return FrameKey(STAMP_NAME, int(match[1]) * _NS + int(match[2]), True, image.file_name)
    if digits := _DIGITS.findall(stem):
        return FrameKey(STAMP_NAME, int(digits[-1]), False, image.file_name)
    if match := _NUMBER.search(stem):
        return FrameKey(NUMBER_NAME, int(match[1]), True, image.file_name)
    return None


def _stamp(value: object) -> tuple[int, bool] | None:
    """Return a stamp as nanoseconds, or digits of an unknown unit, and whether it is known."""
    if isinstance(value, Mapping):
        return _parts(value)
    digits = _integer(value)
    if digits is not None and len(str(digits)) >= _LEAST_DIGITS:
        return digits, False
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        # By its text, as a float has no nanoseconds left beside those of 55 years.
        seconds = Decimal(str(value).strip())
        return (int(seconds * _NS), True) if 0 <= seconds < _LATEST_S else None
    except InvalidOperation:
        return None


def _parts(value: Mapping[str, Any]) -> tuple[int, bool] | None:
    for sec_name, nsec_name in (('sec', 'nanosec'), ('secs', 'nsecs'), ('sec', 'nsec')):
        sec, nsec = _integer(value.get(sec_name)), _integer(value.get(nsec_name))
        if sec is not None and nsec is not None:
            return sec * _NS + nsec, True
    return None


def _integer(value: object) -> int | None:
    try:
        # A float does not hold the last digits of nanoseconds, a text does.
        if isinstance(value, str) and re.fullmatch(r'\s*\d{1,19}\s*', value):
            return int(value)
        found = None if isinstance(value, bool) else integer(value)
    except ValueError:
        return None
    return found if found is not None and 0 <= found < 10**_MOST_DIGITS else None
