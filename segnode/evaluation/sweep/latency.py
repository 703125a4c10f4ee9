# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""How long a frame takes with each row's settings, measured in turns on the same frames.

What is timed goes from the decoded image to the answer on the host. Decoding, waiting and
publishing are left out: they are the same in all rows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from tqdm import tqdm

from segnode.config import Config
from segnode.errors import OutOfMemoryError, SegnodeError, first_line
from segnode.evaluation.frames import FrameRow
from segnode.evaluation.replay import Replay, Request
from segnode.live.pipeline import Decoded, segment
from segnode.percentiles import percentiles

if TYPE_CHECKING:
    from segnode.bags.record import Header
    from segnode.engine import Engine

FRAMES_A_TURN: Final = 5
"""So many frames a row has in a turn: one alone would find its settings cold."""


def choose_sample(frames: Sequence[FrameRow], count: int) -> list[FrameRow]:
    """Return at most ``count`` of the processed frames, evenly over the run."""
    processed = [frame for frame in frames if frame.processed]
    step = len(processed) / min(count, len(processed) or 1)
    return [processed[int((k + 0.5) * step)] for k in range(min(count, len(processed)))]


def decode_sample(selection: Request, sample: Sequence[FrameRow]) -> list[Decoded[Header]]:
    """Return the chosen frames, decoded as the replay does.

    Raises:
        BagError: a bag cannot be read any more.
    """
    chosen, decoded = {frame.frame for frame in sample}, []
    # What is odd about the bags was said when all of them was read.
    with Replay(selection, lambda _: None) as source:
        for row, record in source.frames():
            if row.frame not in chosen:
                continue
            frame = source.decode(row, record)
            if frame is not None:
                decoded.append(frame)
            if len(decoded) == len(chosen):
                break
    return decoded


def session(
    engine: Engine, configs: Mapping[str, Config], sample: Sequence[Decoded[Header]]
) -> dict[str, Any]:
    """Time the rows of one engine, as `measure`.

    Returns:
        ``session``, the time at which it began, and ``rows``, what `measure` returns.
    """
    began = datetime.now(timezone.utc).isoformat(timespec='milliseconds')
    return {'session': began, 'rows': measure(engine, configs, sample)}


def measure(
    engine: Engine,
    configs: Mapping[str, Config],
    sample: Sequence[Decoded[Header]],
) -> dict[str, dict[str, Any]]:
    """Time the rows of one engine in turns.

    In a turn a row has a frame of each size that warms up and ``FRAMES_A_TURN`` that count, so
    that a machine that grows slower or faster hits all rows alike. Nothing of a session that
    ends before its last turn is kept: rows of two sessions cannot be compared. A row that fails
    has no further turns.

    Args:
        engine: of all rows; it ends with the settings of the last one.
        configs: the rows' settings by name.
        sample: decoded frames, none for no turns.

    Returns:
        By name ``turns_ms`` (a list of milliseconds a turn) or ``failed`` (why).
    """
    times: dict[str, dict[str, Any]] = {name: {'turns_ms': []} for name in configs}
    turns = -(-len(sample) // FRAMES_A_TURN)
    if sample:
        engine.reserve(len(configs) * len({_kind(frame) for frame in sample}))
    to_do = [(turn, name) for turn in range(turns) for name in configs]
    for turn, name in tqdm(to_do, desc='latency', unit='turn', disable=None, leave=False):
        if 'failed' in times[name]:
            continue
        try:
            turn_ms = _turn_ms(engine, configs[name], sample[turn::turns])
        except SegnodeError as error:
            times[name] = {'failed': first_line(error)}
            continue
        times[name]['turns_ms'].append(turn_ms)
    return times


def summary(turns_ms: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return min, p50 and p95 of all frames in milliseconds."""
    every = [ms for turn in turns_ms for ms in turn]
    p50, p95 = percentiles(every, 50, 95)
    return {'min': min(every), 'p50': p50, 'p95': p95}


def _turn_ms(engine: Engine, config: Config, frames: Sequence[Decoded[Header]]) -> list[float]:
    engine.configure(config)
    for attempt in range(2):
        try:
            for frame in {_kind(frame): frame for frame in frames}.values():
                segment([frame], engine)
            break
        except OutOfMemoryError:
            # What the other rows had built was freed with it.
            if attempt:
                raise
    times_ms = []
    for frame in frames:
        began_s = time.perf_counter()
        segment([frame], engine)
        times_ms.append((time.perf_counter() - began_s) * 1e3)
    return times_ms


def _kind(frame: Decoded[Header]) -> tuple[int, int, str]:
    image = frame.image
    return image.height, image.width, image.order
