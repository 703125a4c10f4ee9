# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``benchmark --node``: the whole node over DDS, against a bare relay of the same images."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from segnode.benchmark.planted import FRAMES, render_frames
from segnode.benchmark.request import NodeRequest
from segnode.benchmark.rig import Rig, Series
from segnode.benchmark.rows import NodeRow
from segnode.checkpoint.load import DEMO_MODEL, named_model
from segnode.checkpoint.null import is_null, null_model
from segnode.config import Config
from segnode.demo.processes import require_ros
from segnode.engine.device import select_device
from segnode.errors import MeasurementError
from segnode.hardware.machine import describe_machine
from segnode.percentiles import Percentiles

# What is between two turns of the node is a turn of the relay.
ROUNDS = 5
WARM_UP_S = 1.0
# What image_transport takes where nothing is set.
JPEG_QUALITY = 95
FILES = {'raw': ('png', []), 'compressed': ('jpg', [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])}


def run_node(
    config: Config,
    settings: Mapping[str, Any],
    request: NodeRequest,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Measure every combination of transport and shape.

    Args:
        config: the model and its settings.
        settings: those of them that were given, which the node gets as parameters.
        request: what is to be measured.
        report: is told what is being done.

    Returns:
        ``machine``, ``model``, ``protocol`` and ``rows``, ready for JSON.

    Raises:
        SegnodeError: a process does not do its part, or frames are unaccounted for.
    """
    require_ros('benchmark --node')
    # Before anything is started, as the node's own complaint would come late.
    null = is_null(config.model)
    if null:
        null_model(config)
    else:
        named_model(config.model)
    machine = describe_machine(select_device('cpu' if null else config.device), 'rclpy')
    model = config.model or DEMO_MODEL.stem
    rows: list[NodeRow] = []
    with tempfile.TemporaryDirectory(prefix='segnode-benchmark-') as folder:
        for transport in request.transports:
            report(f'starting the node, a relay, a camera and a subscriber ({transport})')
            own = Path(folder, transport)
            own.mkdir()
            with Rig(own, settings, transport, request.cameras) as rig:
                for image_hw in request.shapes:
                    files = write_frames(own, image_hw, transport)
                    rows.append(_measure(rig, model, image_hw, transport, files, request))
                machine['rmw'] = rig.rmw
    frames = request.frames(ROUNDS)
    return {
        'machine': machine,
        'model': model,
        'protocol': (
            f'camera, node and subscriber a process each, and a relay that passes bytes on; node '
            f'and relay in turns, {ROUNDS} times {frames} frames each of every camera at '
            f'{request.rate_hz:g} Hz after {WARM_UP_S:g} s of warm-up; age: from the stamp at '
            f'publication to the later one of detections and instance_mask at the subscriber'
        ),
        'rows': [row.json() for row in rows],
    }


def write_frames(folder: Path, image_hw: tuple[int, int], transport: str) -> list[Path]:
    """Write pictures of a rendered scene in a size, and return their files."""
    suffix, options = FILES[transport]
    files = []
    for number, image in enumerate(render_frames(image_hw, FRAMES)):
        path = folder / f'{image_hw[0]}x{image_hw[1]}_{number}.{suffix}'
        cv2.imwrite(str(path), image.pixels, options)
        files.append(path)
    return files


def _measure(
    rig: Rig,
    model: str,
    image_hw: tuple[int, int],
    transport: str,
    files: Sequence[Path],
    request: NodeRequest,
) -> NodeRow:
    rate_hz, frames = request.rate_hz, request.frames(ROUNDS)
    shape = 'x'.join(map(str, image_hw))
    rig.warm_up(files, max(1, round(rate_hz * WARM_UP_S)), rate_hz)
    before = rig.settle()
    series: dict[str, list[Series]] = {'relay': [], 'node': []}
    bar = tqdm(list(_turns()), desc=f'{shape} {transport}', unit='turn', disable=None, leave=False)
    for target in bar:
        series[target].append(rig.play(target, files, frames, rate_hz))
    after = rig.settle()
    counts = {key: after[key] - before[key] for key in after}
    node, relay = series['node'], series['relay']
    _check(f'{shape} {transport}', counts, node, relay)
    ages = Percentiles.interpolated([age for each in node for age in each.ages_ms])
    floor = Percentiles.interpolated([age for each in relay for age in each.ages_ms])
    overheads_ms = [
        statistics.median(ours.ages_ms) - statistics.median(theirs.ages_ms)
        for ours, theirs in zip(node, relay, strict=True)
    ]
    return NodeRow(
        shape=shape,
        transport=transport,
        model=model,
        cameras=request.cameras,
        rate_hz=rate_hz,
        image_bytes=node[0].image_bytes,
        sent=sum(each.sent for each in node),
        received=counts['received'],
        published=counts['published'],
        dropped={
            key.removeprefix('dropped_'): count
            for key, count in counts.items()
            if key.startswith('dropped_') and count
        },
        instances=statistics.median(n for each in node for n in each.instances),
        age_ms=ages,
        relay_ms=floor,
        overheads_ms=overheads_ms,
        published_hz=statistics.median(each.rate_hz for each in node),
        stage_ms=_mean_stages([stages for each in node for stages in each.stages_ms]),
        cpu_ms=_cpu_ms(node),
        relay_cpu_ms=_cpu_ms(relay),
    )


def _turns() -> Iterator[str]:
    """Yield who is next; who goes first changes from round to round."""
    for number in range(ROUNDS):
        pair = ('relay', 'node')
        yield from pair if number % 2 == 0 else reversed(pair)


def _check(
    label: str, counts: Mapping[str, int], node: Sequence[Series], relay: Sequence[Series]
) -> None:
    """Refuse figures of frames that nobody can account for.

    Raises:
        MeasurementError: the node's counts do not add up, or something did not arrive.
    """
    dropped = sum(count for key, count in counts.items() if key.startswith('dropped_'))
    arrived = sum(len(each.ages_ms) for each in node)
    if counts['received'] != counts['published'] + dropped or arrived != counts['published']:
        raise MeasurementError(
            f'{label}: the node received {counts["received"]} frames, published '
            f'{counts["published"]} and dropped {dropped}, and {arrived} answers arrived'
        )
    for name, each in chain((('node', s) for s in node), (('relay', s) for s in relay)):
        if not each.ages_ms:
            raise MeasurementError(
                f'{label}: expected answers of the {name} in every turn, found none in one; '
                'give a lower --rate or more --seconds'
            )


def _cpu_ms(series: Sequence[Series]) -> float | None:
    taken = [each.cpu_ms for each in series if each.cpu_ms is not None]
    return sum(taken) / sum(each.sent for each in series) if len(taken) == len(series) else None


def _mean_stages(stages_ms: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(chain.from_iterable(stages_ms))
    return {name: statistics.fmean(each.get(name, 0.0) for each in stages_ms) for name in names}
