# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The best, the worst and the emptiest frames: one of each quarter of the run, as pictures."""

from __future__ import annotations

import base64
import heapq
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import PIL.Image

from segnode.evaluation.frames import FrameRow
from segnode.evaluation.report.markup import (
    Html,
    count,
    element,
    figure,
    missing,
    moment,
    number,
    section,
)
from segnode.evaluation.report.run_files import Entry
from segnode.image import MAX_PIXELS

Pictures = Callable[[FrameRow], bytes | None]
QUARTERS = 4
WIDEST_PX = 480
LARGEST_BYTES = 40_000
_KINDS = (
    ('best', 'Best', 'the highest mean score, of a few instances rather than of one'),
    ('worst', 'Worst', 'the lowest mean score among frames with instances'),
    ('emptiest', 'Emptiest', 'the fewest instances'),
)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A frame, the number of its instances and their mean score, 0 without any."""

    row: FrameRow
    instances: int
    mean_score: float

    def rank(self, kind: str) -> float:
        """Return how well it serves as an example; higher is better."""
        if kind == 'best':
            return self.mean_score * float(1 - 0.5**self.instances)
        return -self.mean_score if kind == 'worst' else -float(self.instances)


class Gallery:
    """Chooses frames while they pass."""

    def __init__(self, frames: int) -> None:
        self._frames = max(1, frames)
        # By kind and quarter, the best few: one frame may be an example of several kinds.
        self._found: dict[tuple[str, int], list[tuple[float, int, _Candidate]]] = {
            (kind, quarter): [] for kind, _, _ in _KINDS for quarter in range(QUARTERS)
        }

    def add(self, row: FrameRow, entries: Sequence[Entry]) -> None:
        """Take a frame."""
        if not row.processed:
            return
        scores = [entry['score'] for entry in entries]
        candidate = _Candidate(row, len(scores), sum(scores) / max(1, len(scores)))
        quarter = min(QUARTERS - 1, row.frame * QUARTERS // self._frames)
        for kind, _, _ in _KINDS:
            if scores or kind == 'emptiest':
                found = self._found[kind, quarter]
                # The frame's number decides among equals, and no candidates are compared.
                heapq.heappush(found, (candidate.rank(kind), -row.frame, candidate))
                if len(found) > len(_KINDS):
                    heapq.heappop(found)

    def chosen(self) -> dict[str, list[_Candidate]]:
        """Return at most four frames of each kind in their order, none twice."""
        taken: set[int] = set()
        chosen: dict[str, list[_Candidate]] = {kind: [] for kind, _, _ in _KINDS}
        for (kind, _), found in self._found.items():
            for _, _, candidate in sorted(found, reverse=True):
                if candidate.row.frame not in taken:
                    taken.add(candidate.row.frame)
                    chosen[kind].append(candidate)
                    break
        return chosen

    def rows(self) -> list[FrameRow]:
        """Return the frames whose pictures are wanted."""
        return [candidate.row for found in self.chosen().values() for candidate in found]

    def html(self, pictures: Pictures) -> Html:
        """Return the section.

        Args:
            pictures: gives the JPEG of a frame, None where there is none.
        """
        parts: list[Html] = []
        for kind, title, means in _KINDS:
            parts.append(element('h3', title))
            found = self.chosen()[kind]
            if not found:
                parts.append(missing(f'No frame: {_why(kind)}.'))
                continue
            cards = [_card(candidate, pictures(candidate.row)) for candidate in found]
            parts += [
                element('p', f'In each quarter of the run, {means}.', class_='note'),
                element('div', *cards, class_='gallery'),
            ]
        return section('gallery', 'Best, worst and emptiest frames', *parts)


def _why(kind: str) -> str:
    return 'none was processed' if kind == 'emptiest' else 'none that is not shown has an instance'


def _card(candidate: _Candidate, picture: bytes | None) -> Html:
    row = candidate.row
    uri = data_uri(picture) if picture else None
    plural = '' if candidate.instances == 1 else 's'
    instances = f'{count(candidate.instances) if candidate.instances else "no"} instance{plural}'
    image = (
        element('img', src=uri, alt=f'Frame {row.frame} of {row.topic} with {instances} drawn in')
        if uri
        else missing('No picture: the output bag has no overlay of this frame.')
    )
    score = f', mean score {number(candidate.mean_score)}' if candidate.instances else ''
    return figure(
        image,
        f'{instances}{score}; frame {count(row.frame)} of {row.topic}, {moment(row.time_ns)}',
    )


def data_uri(picture: bytes) -> Html | None:
    """Return a picture as a small JPEG in a data URI; None where it cannot be decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with PIL.Image.open(io.BytesIO(picture), formats=('JPEG', 'PNG')) as image:
                if image.width * image.height > MAX_PIXELS:
                    return None
                image.draft('RGB', (WIDEST_PX, WIDEST_PX))
                data = small_jpeg(image.convert('RGB'))
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError):
        return None
    return Html(f'data:image/jpeg;base64,{base64.b64encode(data).decode("ascii")}')


def small_jpeg(image: PIL.Image.Image) -> bytes:
    """Return a JPEG of at most ``WIDEST_PX`` and, where a quality allows it, ``LARGEST_BYTES``."""
    image.thumbnail((WIDEST_PX, WIDEST_PX))
    data = io.BytesIO()
    for quality in (85, 70, 55, 40, 25):
        data = io.BytesIO()
        image.save(data, 'JPEG', quality=quality, optimize=True)
        if data.tell() <= LARGEST_BYTES:
            break
    return data.getvalue()
