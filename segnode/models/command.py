# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode models``: families and presets, what is published of them, and what they cost."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segnode.cli import Parser, config_from, note, say, table, terminated_as_interrupted
from segnode.config import Config
from segnode.errors import ConfigError
from segnode.output_files import check_writable, is_own_json, write_json

if TYPE_CHECKING:
    from segnode.model.architecture import Architecture
    from segnode.models.rows import Row
    from segnode.models.timing import Timing

_LARGEST_SIDE = 8192
_FRAMES = 20
_EXAMPLES = """\
  segnode models                         # all of them
  segnode models swin convnext           # by a part of the name or family
  segnode models 'mask-rcnn_*_1x_*'      # by a glob
  segnode models --size 720x1280         # what another network input costs
  segnode models r50 --time --size 480x640 --json models.json

On paper: shapes alone decide, nothing is fetched, and no weights are needed. GFLOP count two
operations a multiplication with addition, in backbone and FPN, RPN, 1000 boxes and 100 masks; what
lies between them (resize, RoIAlign, NMS, paste), norms and activations are not counted. Sides are
padded as the network pads them.

Memory on paper is that of the weights in FP16 and of the tensors that live at one time at
800x1344, from layer to layer, pooled boxes among them. Attention's matrices count, which fused
kernels never write. Not in it: workspaces of convolutions, the context of the device (some
hundred MB with CUDA), copies that captured graphs keep, and what lies between the dense parts. A
GPU needs more, and --time measures how much.

--time plants random weights and runs frames of the first --size through the engine: host to
host, without decoding and publishing, with the model's own thresholds, which most often let the
100 instances pass that a frame may have. Each network has a process of its own. Its memory is, on
a GPU, the most that PyTorch held there; on a CPU, how far the process grew from before the network
was built, weights and loading included. Presets of one network (1x, 3x) are timed once. Threads:
OMP_NUM_THREADS.

--json also has each URL, and the size of the file where it is in the cache (segnode fetch).

Exit codes: 0 all is listed (and timed), 1 a network could not be timed or --device is not there,
2 wrong use, 130 after Ctrl-C; what has been timed by then is told and written.
"""


def main(args: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, 1 when a network could not be timed, 130 when Ctrl-C left some untimed.

    Raises:
        ConfigError: a pattern fits no preset, or a size is none.
        DeviceError: the device is not there.
    """
    parser = Parser(
        'models',
        'List families and presets: AP as published, parameters, operations, memory, licence.',
        _EXAMPLES,
    )
    parser.add_argument(
        'names', nargs='*', metavar='NAME', help='glob or part of a name or family; default all'
    )
    parser.add_argument(
        '--size',
        default='800x1344,480x640',
        metavar='HxW,...',
        help="the network's input, up to three (default: %(default)s)",
    )
    parser.add_argument('--time', action='store_true', help='measure what a frame costs here')
    parser.add_argument(
        '--frames',
        type=int,
        default=argparse.SUPPRESS,
        metavar='N',
        help=f'frames that --time takes (default: {_FRAMES})',
    )
    parser.add_argument(
        '--device',
        default=argparse.SUPPRESS,
        metavar='DEVICE',
        help='of --time: auto, cpu, cuda or cuda:N (default: auto)',
    )
    parser.add_argument(
        '--precision',
        default=argparse.SUPPRESS,
        choices=('auto', 'fp16', 'bf16', 'fp32'),
        help='of --time (default: auto)',
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write what is said, in full')
    options = parser.parse_args(args)
    if not options.time:
        for name in ('frames', 'device', 'precision'):
            if hasattr(options, name):
                parser.error(f'--{name}: expected it with --time alone, which measures')
    sizes = _sizes(options.size)
    frames = getattr(options, 'frames', _FRAMES)
    if not 1 <= frames <= 10_000:
        raise ConfigError(f'--frames: expected 1 to 10000, found {frames}')
    check_writable(options.json, own=is_own_json(r'\{"models": '))
    config = config_from(options)

    from segnode.engine.device import select_device
    from segnode.models.rows import chosen_presets, human_table

    if options.time:
        config = _at_size(config, sizes[0])
        select_device(config.device)  # Refuses what is not there, before long work.
    rows = _count(chosen_presets(options.names), sizes)
    say(human_table(rows, sizes))
    timings: dict[Architecture, Timing] = {}
    result: dict[str, Any] = {'models': [row.json(sizes) for row in rows]}
    if options.time:
        timings = _time(rows, sizes[0], config, frames)
        result['machine'] = _say_timings(rows, timings, sizes[0], config)
        for row, entry in zip(rows, result['models'], strict=True):
            timing = timings.get(row.preset.architecture)
            entry['time'] = None if timing is None else timing.json()
    if options.json is not None:
        write_json(options.json, result)
    if options.time and any(row.preset.architecture not in timings for row in rows):
        return 130
    return 1 if any(timing.error for timing in timings.values()) else 0


def _sizes(text: str) -> list[tuple[int, int]]:
    sizes = []
    for item in text.split(','):
        found = re.fullmatch(r'\s*(\d{1,5})x(\d{1,5})\s*', item)
        height, width = (int(side) for side in found.groups()) if found else (0, 0)
        if not (32 <= height <= _LARGEST_SIDE and 32 <= width <= _LARGEST_SIDE):
            raise ConfigError(
                f'--size: expected height x width of 32 to {_LARGEST_SIDE}, as in 480x640, found '
                f'{item!r}'
            )
        sizes.append((height, width))
    if len(sizes) > 3 or len(set(sizes)) < len(sizes):
        raise ConfigError(f'--size: expected up to three different sizes, found {text!r}')
    return sizes


def _at_size(config: Config, size: tuple[int, int]) -> Config:
    """Return the configuration for a network input of that size."""
    sides = {'resolution.short_side': min(size), 'resolution.long_side': max(size)}
    try:
        return config.replace(sides)
    except ConfigError as error:
        raise ConfigError(f'--size {size[0]}x{size[1]}: {error}') from None


def _count(presets: dict[str, Any], sizes: list[tuple[int, int]]) -> list[Row]:
    from tqdm import tqdm

    from segnode.models.rows import make_rows

    networks = len({preset.architecture for preset in presets.values()})
    with tqdm(total=networks, desc='counting', unit='network', disable=None, leave=False) as bar:
        return make_rows(presets, sizes, lambda: bar.update(1))


def _time(
    rows: list[Row], size: tuple[int, int], config: Config, frames: int
) -> dict[Architecture, Timing]:
    """Time each network once, in the order of the rows; Ctrl-C and SIGTERM leave out the rest."""
    from tqdm import tqdm

    from segnode.models.timing import time_architecture

    timings: dict[Architecture, Timing] = {}
    networks = {row.preset.architecture: row.name for row in reversed(rows)}
    order = dict.fromkeys(row.preset.architecture for row in rows)
    try:
        with (
            terminated_as_interrupted(),
            tqdm(order, unit='network', disable=None, leave=False) as bar,
        ):
            for architecture in bar:
                name = networks[architecture]
                bar.set_description(name)
                timings[architecture] = time_architecture(architecture, size, config, frames)
                if timings[architecture].error:
                    note(f'error: {name}: {timings[architecture].error}')
    except KeyboardInterrupt:
        note(f'interrupted: {len(timings)} of {len(order)} networks are timed')
    return timings


def _say_timings(
    rows: list[Row],
    timings: dict[Architecture, Timing],
    size: tuple[int, int],
    config: Config,
) -> dict[str, Any]:
    """Print what was measured; return the machine that it was measured on."""
    from segnode.engine.device import select_device
    from segnode.hardware.machine import describe_machine
    from segnode.models.rows import shown_size
    from segnode.models.timing import Timing

    machine = describe_machine(select_device(config.device))
    cells = []
    for row in rows:
        timing = timings.get(row.preset.architecture, Timing())
        cells.append(
            (
                row.name,
                timing.precision or '-',
                _number(timing.ms_p50, 1),
                _number(timing.ms_p95, 1),
                _number(timing.instances, 0),
                _number(None if timing.peak_bytes is None else timing.peak_bytes / 1e6, 0),
            )
        )
    timed = next((t for t in timings.values() if not t.error), None)
    say()
    if timed is not None:
        where = machine.get('gpu') or machine['processor'] or 'unknown processor'
        say(
            f'Measured on {timed.device} ({where}), {timed.threads} threads, {shown_size(size)}, '
            f'{timed.frames} frames, planted weights:'
        )
    say(table(('model', 'format', 'p50 ms', 'p95 ms', 'instances', 'peak MB'), cells))
    return machine


def _number(value: float | None, digits: int) -> str:
    return '-' if value is None else f'{value:.{digits}f}'
