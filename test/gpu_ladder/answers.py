# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Checks of whole frames in float32, where answers have to be the same but for rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gpu_ladder import limits
from gpu_ladder.engines import Climb, score_threshold
from gpu_ladder.outcome import Result, judged
from segnode.engine import Detections, Engine, Segmentation

EXACT = {'matched': 1.0, 'labels': limits.EXACT_LABELS}


def check_scenes(climb: Climb) -> Result:
    """Few and many instances, so that all capacities run."""
    engine = climb.engine('fp32')
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    counts = set()
    for threshold, answers in climb.reference.compared.items():
        with score_threshold(engine, threshold):
            for image, expected in zip(climb.images(limits.COMPARED), answers, strict=True):
                (answer,) = engine.segment([image])
                found[threshold < limits.LOW_SCORE].append(compare(expected, answer, engine))
                counts.add(len(answer.detections))
    low = {f'low_score_{name}': value for name, value in worst(found[True]).items()}
    figures = {**worst(found[False]), **low, 'instances': sorted(counts)}
    return judged(figures, least={**EXACT, 'low_score_matched': limits.LOW_MATCHED})


def check_sizes(climb: Climb) -> Result:
    """Frames that are resized, and in the other order of channels."""
    engine = climb.engine('fp32')
    sizes = climb.reference.sizes
    found = [compare(expected, *engine.segment([image]), engine) for image, expected in sizes]
    return judged(worst(found), least=EXACT)


def check_batch(climb: Climb) -> Result:
    """Two frames at once."""
    engine = climb.engine('fp32')
    pairs = zip(climb.reference.answers[:2], engine.segment(climb.images(2)), strict=True)
    found = [compare(expected, answer, engine) for expected, answer in pairs]
    return judged(worst(found), least=EXACT)


def check_empty(climb: Climb) -> Result:
    """A frame in which nothing is found, between two that are full."""
    engine, images = climb.engine('fp32'), climb.images(1)
    engine.segment(images)
    with score_threshold(engine, 1.0):
        (empty,) = engine.segment(images)
    none = {
        'found_in_empty': len(empty.detections),
        'painted_in_empty': int((empty.label_image != 0).sum()),
        'mask_stages_in_empty': len(empty.stage_ms.keys() & {'mask_head', 'paste'}),
    }
    found = compare(climb.reference.answers[0], *engine.segment(images), engine)
    return judged({**found, **none}, least=EXACT, most=dict.fromkeys(none, 0.0))


def check_predict(climb: Climb) -> Result:
    """Whole masks by ``predict``, which pastes on the host."""
    engine = climb.engine('fp32')
    matched, ious = [], []
    expected = climb.reference.predicted[: limits.COMPARED]
    for image, one in zip(climb.images(len(expected)), expected, strict=True):
        (other,) = engine.predict([image])
        pairs = partners(one.detections, other.detections, limits.EXACT_PX, limits.EXACT_SCORE)
        equal = len(one.detections) == len(other.detections)
        matched.append(equal and bool((pairs >= 0).all()))
        ious += [mask_iou(one.mask(a), other.mask(int(b))) for a, b in enumerate(pairs) if b >= 0]
    figures = {'matched': float(np.mean(matched)), 'mask_iou': float(np.min(ious, initial=1.0))}
    return judged(figures, least={'matched': 1.0, 'mask_iou': 0.99})


def check_planted(climb: Climb, shape: tuple[int, int]) -> Result:
    """The masks of the timed network, in half precision, against the CPU's in float32."""
    engine = climb.engine(limits.TIMED, shape)
    (answer,) = engine.segment(climb.reference.frames[shape][:1])
    found = compare(climb.reference.shaped[shape], answer, engine)
    figures = {**found, 'painted_px': int((answer.label_image != 0).sum())}
    least = {'matched': 1.0, 'labels': limits.PLANTED_LABELS, 'painted_px': 1}
    return judged(figures, least=least)


def compare(expected: Segmentation, answer: Segmentation, engine: Engine) -> dict[str, float]:
    """Return how far an answer in float32 is from the expected one.

    Detections are matched as sets, as two near equal scores may come in either order, and labels
    are compared by the match. One whose score is within rounding of what decides whether it is in
    the answer at all may be missing.

    Returns:
        ``matched``: share of both sides' detections that have a partner; ``labels``: share of the
        pixels with the same one; ``box_px``, ``score``: greatest distance to what is nearest.
    """
    a, b = expected.detections, answer.detections
    pairs = partners(a, b, limits.EXACT_PX, limits.EXACT_SCORE)
    due = []
    for side, paired in ((a, pairs >= 0), (b, np.isin(np.arange(len(b)), pairs))):
        least = engine.settings.score_threshold
        if len(side) == engine.settings.max_instances:
            least = max(least, float(side.scores.min()))
        due.append(paired[side.scores > least + limits.EXACT_SCORE])
    every = np.concatenate(due)
    number = np.full(len(b) + 1, -1)
    number[0] = 0
    number[pairs[pairs >= 0] + 1] = np.flatnonzero(pairs >= 0) + 1
    near = partners(a, b, math.inf, math.inf)
    there = near >= 0
    boxes = np.abs(a.boxes_xyxy[there] - b.boxes_xyxy[near[there]])
    scores = np.abs(a.scores[there] - b.scores[near[there]])
    return {
        'matched': float(every.mean()) if len(every) else 1.0,
        'labels': float((number[answer.label_image] == expected.label_image).mean()),
        'box_px': float(boxes.max(initial=0)),
        'score': float(scores.max(initial=0)),
    }


def partners(a: Detections, b: Detections, pixels: float, score: float) -> npt.NDArray[np.int64]:
    """Return (D,) the index in ``b`` of each detection of ``a``, -1 where it has no partner."""
    found = np.full(len(a), -1)
    free = np.ones(len(b), dtype=np.bool_)
    for index in range(len(a)):
        apart = np.abs(a.boxes_xyxy[index] - b.boxes_xyxy).max(-1)
        fits = free & (apart <= pixels) & (np.abs(a.scores[index] - b.scores) <= score)
        fits &= b.class_ids == a.class_ids[index]
        if fits.any():
            found[index] = np.where(fits, apart, np.inf).argmin()
            free[found[index]] = False
    return found


def worst(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the least shares and the greatest distances of several comparisons."""
    return {
        name: (min if name in ('matched', 'labels') else max)(each[name] for each in found)
        for name in found[0]
    }


def mask_iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    """Return the IoU of two masks, 1 where both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0
