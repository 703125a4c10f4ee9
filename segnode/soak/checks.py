# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the soak holds the node's answers and numbers against: pure functions, each a promise."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segnode.live.accounting import DROP_REASONS

PARTS = ('detections', 'mask', 'times')
"""What is published for every frame that is answered."""

WARM_UP_S = 20.0
SETTLING = 1 / 3
"""Share of a life in which the allocator grows into its shape: until every thread has had its
arenas, every size its buffers, and the model was loaded anew a few times."""
SLOPE_AFTER_S = 240.0
"""A line through less than this says more of the noise than of the trend."""
SLOPE_LIMIT_MIB_PER_MIN = 1.0
MEMORY_ROOM = 0.15
MEMORY_ROOM_MIB = 64.0
FEWEST_IN_THIRD = 2
FILES_ROOM = 8
UNLABELLED = 5
"""Detections of which none owns a pixel: covered or thin ones may be so, but not so many."""
THREADS_ROOM = 4


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame as the camera told it before it went out.

    Attributes:
        kind: `frame`, or the name of its fault.
        answer_hw: size of the answer that it has to get, None where it has to be dropped.
        stamp_ns: of its header.
        sent_s: monotonic time.
        picture: which of its camera's pictures it is, -1 for none of them.
    """

    kind: str
    answer_hw: tuple[int, int] | None
    stamp_ns: int
    sent_s: float
    picture: int = -1


def counts_of(values: Mapping[str, str]) -> dict[str, int]:
    """Return the accounting in a status' values; `message_lost` is 0 where it is unknown."""
    lost = values.get('message_lost', '0')
    return {
        **{
            key: int(value)
            for key, value in values.items()
            if key in ('received', 'published', 'in_flight') or key in _DROPPED
        },
        'message_lost': int(lost) if lost.isdigit() else 0,
    }


_DROPPED = frozenset(f'dropped_{reason}' for reason in DROP_REASONS)


def dropped(counts: Mapping[str, int]) -> int:
    """Return the frames that were dropped, for whatever reason."""
    return sum(count for key, count in counts.items() if key in _DROPPED)


def identity_problem(counts: Mapping[str, int]) -> str:
    """Return how a status breaks the accounting identity, empty where it holds."""
    missing = {'received', 'published', 'in_flight', *_DROPPED} - set(counts)
    if missing:
        return f'expected {", ".join(sorted(missing))} in the diagnostics, found none'
    negative = [key for key, count in counts.items() if count < 0]
    if negative:
        return f'expected counts of 0 or more, found {negative[0]} {counts[negative[0]]}'
    right = counts['published'] + dropped(counts) + counts['in_flight']
    if counts['received'] != right:
        return (
            f'received {counts["received"]} is not published {counts["published"]} + dropped '
            f'{dropped(counts)} + in flight {counts["in_flight"]}'
        )
    return ''


def backward_problem(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Return which count went back within one life of the node, empty where none did."""
    for key, count in before.items():
        if key not in ('in_flight', 'message_lost') and after.get(key, 0) < count:
            return f'{key} went back from {count} to {after.get(key, 0)}'
    return ''


def answer_problems(number: int, sent: Sent, answer: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what is wrong with the answer to a frame.

    Args:
        number: of the frame.
        sent: what the camera sent.
        answer: what came by part, each as the watcher told it.
    """
    name, found = f'frame {number} ({sent.kind})', []
    if sent.answer_hw is None:
        found.append(f'{name}: expected to be dropped as decode, found an answer')
    absent = [part for part in PARTS if part not in answer]
    if absent:
        found.append(f'{name}: {" and ".join(absent)} never came, the rest of its answer did')
    for part, event in answer.items():
        if event['stamp_ns'] != sent.stamp_ns:
            found.append(
                f'{name}: {part} has the stamp {event["stamp_ns"]}, its image {sent.stamp_ns}'
            )
    mask, detections = answer.get('mask'), answer.get('detections')
    if detections is not None and not detections['ids_right']:
        found.append(f'{name}: detections[k-1] is not named k, or has another header')
    if mask is None:
        return found
    if 'problem' in mask:
        return [*found, f'{name}: {mask["problem"]}']
    if sent.answer_hw is not None and tuple(mask['size_hw']) != sent.answer_hw:
        found.append(
            f'{name}: instance_mask is {mask["size_hw"]}, its image {list(sent.answer_hw)}'
        )
    if detections is not None:
        # An instance that others cover owns no pixel, so values may be absent, but none beyond.
        high = max(mask['labels'], default=0)
        if high > detections['count']:
            found.append(f'{name}: label {high} of {detections["count"]} detections')
        if not high and detections['count'] >= UNLABELLED:
            found.append(f'{name}: no label of {detections["count"]} detections')
    return found


def sameness_problems(
    sent: Mapping[int, Sent], answers: Mapping[int, Mapping[str, Mapping[str, Any]]]
) -> list[str]:
    """Return where a picture had different results, with nothing changed between.

    An answer with the results of another frame under the newest header is known by it.

    Args:
        sent: frames by number, of one camera and one quiet stretch.
        answers: by number, the parts that came.
    """
    found = []
    first: dict[tuple[int, int, int], int] = {}
    for number in sorted(answers.keys() & sent.keys()):
        parts, picture = answers[number], sent[number].picture
        if picture < 0 or not {'detections', 'times'} <= parts.keys():
            continue
        # The latency budget may have chosen another input, which finds other things.
        height, width = parts['times']['network_hw']
        before = first.setdefault((picture, height, width), number)
        counts = [answers[n]['detections']['count'] for n in (before, number)]
        if counts[0] != counts[1]:
            found.append(
                f'frame {number} has {counts[1]} detections, frame {before} of the same picture '
                f'had {counts[0]}'
            )
    return found


@dataclass(frozen=True, slots=True)
class Sample:
    """The node's process at rest: seconds since it was ready, and what it holds."""

    second: float
    memory_mib: float
    files: int
    threads: int


@dataclass(frozen=True, slots=True)
class Growth:
    """What a series of one life did after its warm-up.

    Attributes:
        samples: how many were looked at.
        minutes: the time between the first and the last of them.
        p50: of the values.
        max: of the values.
        slope_per_min: Theil-Sen slope after `SETTLING`; None below `SLOPE_AFTER_S`.
    """

    samples: int
    minutes: float
    p50: float
    max: float
    slope_per_min: float | None


def growth(seconds: Sequence[float], values: Sequence[float]) -> Growth | None:
    """Return what a series did after `WARM_UP_S`; None for fewer than two samples then.

    The slope is the median of the slopes of all pairs (Theil, Sen): a third of the values may be
    off without bending it.
    """
    kept = [(s, v) for s, v in zip(seconds, values, strict=True) if s >= WARM_UP_S]
    if len(kept) < 2:
        return None
    fitted = [(s, v) for s, v in kept if s >= SETTLING * kept[-1][0]]
    # Every so many, so that hours do not make millions of pairs.
    thinned = fitted[:: 1 + len(fitted) // 400]
    slopes = [
        (b[1] - a[1]) / (b[0] - a[0])
        for i, a in enumerate(thinned)
        for b in thinned[i + 1 :]
        if b[0] > a[0]
    ]
    known = slopes and fitted[-1][0] - fitted[0][0] >= SLOPE_AFTER_S
    return Growth(
        samples=len(kept),
        minutes=(kept[-1][0] - kept[0][0]) / 60,
        p50=statistics.median(v for _, v in kept),
        max=max(v for _, v in kept),
        slope_per_min=statistics.median(slopes) * 60 if known else None,
    )


def growth_problems(samples: Sequence[Sample]) -> list[str]:
    """Return what grew in one life of the node that should not have."""
    seconds = [sample.second for sample in samples]
    found = []
    memory = growth(seconds, [sample.memory_mib for sample in samples])
    if memory is not None:
        room = max(MEMORY_ROOM_MIB, MEMORY_ROOM * memory.p50)
        if memory.max > memory.p50 + room:
            found.append(
                f'memory: at most {memory.max:.0f} MiB after the warm-up, more than {room:.0f} '
                f'above its median of {memory.p50:.0f}'
            )
        slope = memory.slope_per_min
        if slope is not None and slope > SLOPE_LIMIT_MIB_PER_MIN:
            found.append(f'memory: grows by {slope:.2f} MiB a minute')
    for name, room, values in (
        ('file descriptors', FILES_ROOM, [float(sample.files) for sample in samples]),
        ('threads', THREADS_ROOM, [float(sample.threads) for sample in samples]),
    ):
        later = [v for s, v in zip(seconds, values, strict=True) if s >= WARM_UP_S]
        third = len(later) // 3
        if third < FEWEST_IN_THIRD:
            continue
        first, last = statistics.median(later[:third]), statistics.median(later[-third:])
        if last > first + room:
            found.append(f'{name}: {first:.0f} in the first third, {last:.0f} in the last')
    return found


def growth_left_out(samples: Sequence[Sample]) -> list[str]:
    """Return what `growth_problems` cannot tell of a life, for want of samples."""
    seconds = [sample.second for sample in samples]
    later = sum(second >= WARM_UP_S for second in seconds)
    memory = growth(seconds, [sample.memory_mib for sample in samples])
    found = []
    if memory is None:
        found.append(f'bound of memory: no life was longer than {WARM_UP_S:.0f} s')
    if memory is None or memory.slope_per_min is None:
        found.append(
            f'slope of memory: no life left {SLOPE_AFTER_S / 60:.0f} minutes after its first third'
        )
    if later // 3 < FEWEST_IN_THIRD:
        found.append(
            f'growth of file descriptors and threads: {later} samples after {WARM_UP_S:.0f} s, '
            f'{3 * FEWEST_IN_THIRD} needed'
        )
    return found
