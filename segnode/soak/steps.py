# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What one camera sends in one round: images at its rate, and then some in quiet."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from segnode.soak.faults import STAMPS
from segnode.soak.frames import ORDINARY, PICTURES, Frame

Step = tuple[int, str, float]
"""Index in the deck, which stamp, seconds since the frame before."""

QUIET_S = 0.5
"""At least between two images in quiet, each of which is done when the next one comes."""
GAP_S = 0.15
"""In quiet between two that have to be refused, which takes next to nothing."""
REFUSED = 10
ANSWERED = 1
"""Faulty images of a camera in a round: to be dropped, and to be answered for each cause."""
BURST = (5, 20)


def busy_steps(
    rng: random.Random, seconds: float, gap_s: float, *, burst: bool, refused: Sequence[int]
) -> list[Step]:
    """Return images at a camera's rate, with a burst and frames to be refused among them."""
    count = max(1, math.ceil(seconds / gap_s))
    steps: list[Step] = [(rng.randrange(PICTURES), 'now', gap_s) for _ in range(count)]
    if burst:
        at = rng.randrange(count)
        steps[at:at] = [(rng.randrange(PICTURES), 'now', 0.0)] * rng.randint(*BURST)
    for index in refused:
        steps.insert(rng.randrange(count), (index, 'now', gap_s / 2))
    return steps


def quiet_steps(rng: random.Random, busy_s: float, share: float) -> list[Step]:
    """Return two pictures that come one by one, the second one twice.

    Had each the results of the frame before, the second one would have the first one's, then its
    own.

    Args:
        rng: draws.
        busy_s: what the images of all cameras take together.
        share: of that time, by which the camera is behind the first one: they take turns.
    """
    one, other = rng.sample(range(PICTURES), 2)
    return [(one, 'now', busy_s * (1 + share)), (other, 'now', busy_s), (other, 'now', busy_s)]


def quiet_faults(
    rng: random.Random, frames: Sequence[Frame], busy_s: float, refused: Sequence[int]
) -> list[Step]:
    """Return frames to be refused, and then some with faults that have to be answered."""
    answered = [(index, 'now') for index in drawn(rng, frames, ANSWERED, refused=False)]
    stamped = [(rng.randrange(PICTURES), stamp) for stamp in rng.sample(STAMPS, ANSWERED)]
    return [
        *((index, 'now', GAP_S if number else busy_s) for number, index in enumerate(refused)),
        *((index, stamp, busy_s) for index, stamp in (*answered, *stamped)),
    ]


def drawn(rng: random.Random, frames: Sequence[Frame], count: int, *, refused: bool) -> list[int]:
    """Return frames of a deck, all to be dropped or all to be answered, each kind in its turn."""
    found = [
        i
        for i, frame in enumerate(frames)
        if frame.kind != ORDINARY and (frame.answer_hw is None) == refused
    ]
    kinds = sorted({frames[i].kind for i in found})
    if not kinds:
        return []
    chosen = kinds * (count // len(kinds)) + rng.sample(kinds, count % len(kinds))
    rng.shuffle(chosen)
    return [rng.choice([i for i in found if frames[i].kind == kind]) for kind in chosen]
