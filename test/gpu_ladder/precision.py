# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Checks of half precision: the network stage by stage, and answers by average precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from gpu_ladder import limits
from gpu_ladder.answers import mask_iou
from gpu_ladder.average_precision import average_precision
from gpu_ladder.engines import Climb, run_stages
from gpu_ladder.outcome import Result, judged
from segnode.engine import Prediction


def check_stages(climb: Climb, precision: str) -> Result:
    """Every stage of the network, from equal inputs."""
    network = climb.network(precision)
    found = run_stages(network, climb.reference.stage_inputs)
    figures: dict[str, Any] = {'fusion': network.fusion, 'float32_layers': network.float32_layers}
    most = {}
    for name, expected in climb.reference.stage_outputs.items():
        figures[f'{name}_mean'], figures[f'{name}_max'] = deviation(expected, found[name])
        most[f'{name}_mean'], most[f'{name}_max'] = limits.DEVIATION[precision]
    return judged(figures, most=most)


def check_answers(climb: Climb, precision: str) -> Result:
    """Average precision, and how many instances come again, over all scenes."""
    engine, scenes = climb.engine(precision), climb.reference.scenes
    images = climb.images(len(scenes))
    answers = [engine.segment([image])[0] for image in images]
    predicted = [engine.predict([image])[0] for image in images]
    figures: dict[str, Any] = {'scenes': len(scenes)}
    for kind in ('box', 'mask'):
        ap = average_precision(scenes, answers, kind)
        ap_fp32 = average_precision(scenes, climb.reference.answers, kind)
        figures |= {f'{kind}_ap': ap, f'{kind}_ap_fp32': ap_fp32}
        figures[f'{kind}_ap_apart'] = abs(ap - ap_fp32)
    figures['matched'] = matched_share(climb.reference.predicted, predicted)
    most = dict.fromkeys(('box_ap_apart', 'mask_ap_apart'), limits.AP_APART)
    return judged(figures, least={'matched': limits.HALF_MATCHED}, most=most)


def deviation(expected: Sequence[Tensor], found: Sequence[Tensor]) -> tuple[float, float]:
    """Return mean and greatest deviation in standard deviations, of the worst of several."""
    pairs = []
    for a, b in zip(expected, found, strict=True):
        apart = (a.float() - b.float().cpu()).abs() / a.float().std().clamp(min=1e-6)
        pairs.append((float(apart.mean()), float(apart.max())))
    # Of these maxima NaN is the greatest.
    mean, greatest = np.array(pairs).max(0)
    return float(mean), float(greatest)


def matched_share(expected: Sequence[Prediction], answers: Sequence[Prediction]) -> float:
    """Return the share of expected instances whose class, box, score and mask came again."""
    matched = total = 0
    for one, other in zip(expected, answers, strict=True):
        a, b = one.detections, other.detections
        boxes = np.abs(a.boxes_xyxy[:, None] - b.boxes_xyxy[None]).max(-1)
        scores = np.abs(a.scores[:, None] - b.scores[None])
        fits = (boxes <= limits.HALF_PX) & (scores <= limits.HALF_SCORE)
        fits &= a.class_ids[:, None] == b.class_ids[None]
        for k, m in zip(*fits.nonzero(), strict=True):
            fits[k, m] = mask_iou(one.mask(int(k)), other.mask(int(m))) >= limits.HALF_IOU
        matched += int(fits.any(1).sum())
        total += len(a)
    return matched / max(total, 1)
