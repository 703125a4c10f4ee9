# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Which rows one run answers, and a row's results out of those of a looser run.

In every backend a frame passes the score threshold, NMS within each class, the classes to keep,
the cut at ``max_instances`` and the limits of the mask's area, in this order. Hence, for equal
other settings:

- A higher threshold leaves a prefix by score of what NMS looks at. NMS is greedy from the highest
  score on, so that its answer is the prefix of the looser one.
- An area limit comes last and sees each mask alone: nothing else moves up for what it takes out.
- Classes do not meet in NMS, but they do in the cut: without the cut a choice of classes leaves
  just theirs, and a frame that it may have touched has lost some. Only a run whose frames all
  stayed below ``max_instances`` answers for a choice of classes.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segnode.config import Config
from segnode.engine.settings import InferenceSettings
from segnode.evaluation.frames import FrameRow
from segnode.evaluation.results_file import read_results

_THRESHOLD = 'filter.score_threshold'
_AREAS = ('filter.min_mask_area', 'filter.max_mask_area')
_CLASSES = 'filter.classes'
_DERIVED = (_THRESHOLD, *_AREAS, _CLASSES)

Entry = dict[str, Any]


def effective(settings: InferenceSettings, class_names: Sequence[str]) -> dict[str, Any]:
    """Return a row's effective settings as JSON has them; a ``max_mask_area`` of 0 is off."""
    values = dataclasses.asdict(settings)
    largest = settings.max_mask_area
    values['max_mask_area'] = int(largest) if math.isfinite(largest) else 0
    values['classes'] = [class_names[index] for index in sorted(settings.classes)]
    return values


@dataclass(frozen=True, slots=True)
class Limits:
    """What a row keeps of a looser run's results.

    Attributes:
        score_threshold: a score must exceed it, both as float32, as the engine compares them.
        min_mask_area: pixels.
        max_mask_area: pixels, 0 where it is off.
        classes: their names.
    """

    score_threshold: float
    min_mask_area: int
    max_mask_area: int
    classes: frozenset[str]

    @classmethod
    def of(cls, effective: Mapping[str, Any]) -> Limits:
        """Return those of a row's effective settings, from `effective`."""
        return cls(
            effective['score_threshold'],
            effective['min_mask_area'],
            effective['max_mask_area'],
            frozenset(effective['classes']),
        )

    def keeps(self, entry: Entry) -> bool:
        """Return whether an entry of the results stays."""
        return (
            bool(np.float32(entry['score']) > np.float32(self.score_threshold))
            and self.min_mask_area <= entry['area']
            and (not self.max_mask_area or entry['area'] <= self.max_mask_area)
            and entry['category_name'] in self.classes
        )


@dataclass(frozen=True, slots=True)
class LooseRun:
    """A run that answers for some rows.

    Attributes:
        config: its settings.
        rows: positions of the rows.
    """

    config: Config
    rows: tuple[int, ...]


def plan_runs(
    configs: Sequence[Config],
    settings: Sequence[InferenceSettings],
    *,
    each_choice_of_classes: bool = False,
) -> list[LooseRun]:
    """Return the fewest runs that answer for all rows.

    Args:
        configs: of the rows.
        settings: the same, effective.
        each_choice_of_classes: whether every choice of classes takes a run of its own.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for position, config in enumerate(configs):
        apart = set(_DERIVED) - ({_CLASSES} if each_choice_of_classes else set())
        fixed = {name: value for name, value in config.flat().items() if name not in apart}
        groups[json.dumps(fixed)].append(position)
    return [
        LooseRun(_loosest(configs, settings, group), tuple(group)) for group in groups.values()
    ]


def _loosest(
    configs: Sequence[Config], settings: Sequence[InferenceSettings], group: Sequence[int]
) -> Config:
    choices = {configs[position].filter.classes for position in group}
    changes = dict.fromkeys(_AREAS, 0) | {
        _THRESHOLD: min(settings[position].score_threshold for position in group),
        _CLASSES: choices.pop() if len(choices) == 1 else (),
    }
    return configs[group[0]].replace(changes)


def answers_for_classes(frames: Iterable[FrameRow], max_instances: int) -> bool:
    """Return whether no frame of a run of all classes may have lost any to the cut."""
    return all(frame.detected < max_instances for frame in frames)


def frames_of(path: Path) -> Iterator[tuple[int, list[Entry]]]:
    """Yield each frame that has results, and its entries in their order, one frame in memory.

    Args:
        path: the ``results.json`` of a run.

    Raises:
        ConfigError: it is none.
    """
    for frame, entries in itertools.groupby(read_results(path), lambda e: int(e['image_id'])):
        yield frame, list(entries)


def derived_results(path: Path, limits: Limits) -> Iterator[tuple[int, list[Entry]]]:
    """Yield each frame's entries of a row out of a looser run's ``results.json``."""
    for frame, entries in frames_of(path):
        if kept := [entry for entry in entries if limits.keeps(entry)]:
            yield frame, kept
