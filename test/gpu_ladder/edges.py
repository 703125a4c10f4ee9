# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Where frames meet the host: what they are decoded into, and what is begun before the packet."""

from __future__ import annotations

import statistics

import torch

from gpu_ladder import limits
from gpu_ladder.engines import Climb, Image, score_threshold, speculating
from gpu_ladder.outcome import Result, SkipCheck, judged
from gpu_ladder.poison import identical
from gpu_ladder.timing import time_frames
from segnode.engine import Engine

# Frames that are held at a time.
HELD = 10


def check_lent(climb: Climb) -> Result:
    """Frames in memory that the device fetches them from, each and together with others."""
    engine, images = climb.engine('fp32'), climb.images(limits.COMPARED)
    if engine.lend is None:
        raise SkipCheck(f'nothing is lent on device {climb.device}')
    plain = [engine.segment([image])[0] for image in images]
    together = engine.segment(images[:2])
    lent = [_lent(engine, images[number % len(images)]) for number in range(HELD)]
    answers = [engine.segment([image])[0] for image in lent[: len(images)]]
    mixed = engine.segment([lent[0], images[1]])
    pairs = zip((*plain, *together), (*answers, *mixed), strict=True)
    figures = {
        'same': int(all(identical(one, other) for one, other in pairs)),
        'places': len({image.pixels.ctypes.data for image in lent}),
        'pinned': sum(torch.from_numpy(image.pixels).is_pinned() for image in lent),
        'upload_ms_lent': _upload_ms(engine, lent[: len(images)]),
        'upload_ms_staged': _upload_ms(engine, images),
    }
    pinned = HELD if climb.on_gpu else 0
    return judged(figures, least={'same': 1, 'places': HELD, 'pinned': pinned})


def check_speculation(climb: Climb) -> Result:
    """Label images that are begun before the packet change no bit, and what they take."""
    if not climb.has_graphs:
        raise SkipCheck(f'nothing is begun ahead on device {climb.device}')
    engine, images = climb.engine('fp32'), climb.images(limits.COMPARED)
    answers = []
    for wanted in (False, True):
        with speculating(wanted):
            # Few and many and none, each twice, so that guesses are wrong and right.
            for threshold in (*limits.THRESHOLDS, 1.0, limits.THRESHOLDS[0]):
                with score_threshold(engine, threshold):
                    answers += engine.segment(images[:1]) + engine.segment(images[:1])
    half = len(answers) // 2
    pairs = zip(answers[:half], answers[half:], strict=True)
    timed, took_ms = climb.engine(limits.TIMED), {}
    for wanted in (False, True) * 2:
        with speculating(wanted):
            # The first guesses from the frames of before.
            found = time_frames(timed, images[:1], 1 + max(1, limits.ROUNDS // 4))[1:]
        took_ms.setdefault(wanted, []).extend(ms for _, ms in found)
    figures = {
        'same': int(all(identical(one, other) for one, other in pairs)),
        'instances': sorted({len(answer.detections) for answer in answers}),
        'frame_ms_speculated': statistics.median(took_ms[True]),
        'frame_ms_after_the_packet': statistics.median(took_ms[False]),
    }
    return judged(figures, least={'same': 1})


def _lent(engine: Engine, image: Image) -> Image:
    """Return an image in what the engine lends, as a camera's is decoded."""
    assert engine.lend is not None
    pixels = engine.lend(image.pixels.nbytes).reshape(image.pixels.shape)
    pixels[:] = image.pixels
    return Image(pixels, image.order)


def _upload_ms(engine: Engine, images: list[Image]) -> float:
    timed = time_frames(engine, images, limits.FRAMES // 3)
    # Without external events there is only what comes behind.
    return statistics.median(answer.stage_ms.get('upload', 0.0) for answer, _ in timed)
