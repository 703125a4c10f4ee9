# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What is to be climbed, and how thoroughly: the command line and its help."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gpu_ladder import limits
from gpu_ladder.engines import named_architecture, select_device
from gpu_ladder.rungs import RUNGS
from segnode.cli import Parser
from segnode.config import Config
from segnode.output_files import check_writable

CHECKOUT = Path(__file__).resolve().parents[2]
JSON = Path('test/benchmark_results/gpu.json')
STEPS = ('ladder', 'tests', 'benchmark')

_EPILOG = """\
examples:
  make gpu                                        # everything, by .venv's Python or python3
  python3 test/gpu_ladder --steps ladder          # without pytest and the benchmark
  python3 test/gpu_ladder --rungs plain,triton --checks fp32,kernel --steps ladder
  python3 test/gpu_ladder --minutes 60            # time for every case of the benchmark

rungs, each in a process of its own:
  plain           SEGNODE_TRITON=0 SEGNODE_GRAPHS=0
  triton          SEGNODE_GRAPHS=0
  graphs          SEGNODE_TRITON=0
  triton-graphs   the engine as it comes

What fails or hangs is written down, and the next check and the next rung are tried all the same.
The benchmark runs on the highest rung that passed, case by case, the most telling first. It leaves
FILE of --json, written anew after every check, and FILE's name with _benchmark beside it; a file
that exists is never overwritten: gpu.json becomes gpu-2.json.

exit code: 0 everything passed, 1 something failed or did not fit into the time, 2 wrong use.
Cases of the benchmark that did not fit, and what this machine cannot do, count as neither.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says."""

    minutes: float
    json: Path
    device: str
    steps: tuple[str, ...]
    rungs: tuple[str, ...]
    checks: tuple[str, ...]
    scenes: int
    shapes: tuple[tuple[int, int], ...]
    trained: str
    timed: str
    in_process: bool


def parse(arguments: Sequence[str]) -> Options:
    """Return what the command line asks for; it leaves by SystemExit where that is wrong."""
    parser = Parser('gpu', '', '')
    parser.prog = 'gpu_ladder'
    parser.description = (
        'Check and time segnode on a GPU, from plain operators up to Triton and CUDA graphs, then '
        'run the tests for a GPU and the benchmark.'
    )
    parser.epilog = _EPILOG
    timed, scenes = 'mask_rcnn_R_50_FPN_3x', partial(_number, int, limits.COMPARED)
    for name, kind, default, metavar, text in (
        ('minutes', partial(_number, float, 0.1), '20', 'X', 'for everything (default 20)'),
        ('json', Path, CHECKOUT / JSON, 'FILE', f'default {JSON}'),
        ('device', str, 'cuda', 'DEVICE', 'cuda or cuda:N; cpu tries this script itself'),
        ('steps', partial(_some, STEPS), ','.join(STEPS), 'A,B', f'some of {", ".join(STEPS)}'),
        ('rungs', partial(_some, RUNGS), ','.join(RUNGS), 'A,B', f'some of {", ".join(RUNGS)}'),
        ('checks', _words, '', 'A,B', 'only those with one of these in their name'),
        ('scenes', scenes, '24', 'N', 'judged by average precision, 200 at most (default 24)'),
        ('shapes', _shapes, '480x640,800x1344', 'HxW,...', 'timed (default both)'),
        ('trained', str, '', 'MODEL', 'judged (default: the embedded model)'),
        ('timed', str, timed, 'MODEL', f'timed, with planted weights (default {timed})'),
    ):
        parser.add_argument(f'--{name}', type=kind, default=default, metavar=metavar, help=text)
    text = 'run the rungs in this process: for a debugger; a fault of the device ends all'
    parser.add_argument('--in-process', action='store_true', help=text)
    return Options(**vars(parser.parse_args(arguments)))


def check_machine(options: Options) -> None:
    """Refuse before long work what is not there: models, the device, the folder of the file.

    Raises:
        SegnodeError: what is missing.
    """
    for model in (options.trained, options.timed):
        named_architecture(Config(model=model))
    # With its index, as asking which one is current would take memory on it.
    select_device('cuda:0' if options.device == 'cuda' else options.device)
    # Where it exists, a number is added to the name.
    check_writable(options.json, own=lambda _: True)


def shape_name(shape: tuple[int, int]) -> str:
    """Return a shape as it stands on the command line."""
    return f'{shape[0]}x{shape[1]}'


def _number(kind: type, least: float, text: str) -> Any:
    number = float(text) if re.fullmatch(r'\d+(\.\d+)?', text) else math.nan
    if not least <= number < math.inf:
        raise ArgumentTypeError(f'expected at least {least:g}, found {text}')
    return kind(number)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(',') if word.strip())


def _some(known: Iterable[str], text: str) -> tuple[str, ...]:
    """Return what of ``known`` is named, in its order."""
    for name in set(_words(text)).difference(known):
        raise ArgumentTypeError(f'expected some of {", ".join(known)}, found {name!r}')
    return tuple(name for name in known if name in _words(text))


def _shapes(text: str) -> tuple[tuple[int, int], ...]:
    shapes = re.findall(r'(\d{2,4})x(\d{2,4})(?:,|$)', text)
    found = tuple((int(height), int(width)) for height, width in shapes)
    sides = [side for shape in found for side in shape]
    if ','.join(map(shape_name, found)) != text or min(sides) < 32 or max(sides) > 4096:
        raise ArgumentTypeError(f'expected HxW,... of 32 to 4096, as in 480x640, found {text!r}')
    return found
