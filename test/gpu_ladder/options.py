# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What is to be climbed, and how thoroughly: the command line and its help."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_ladder import limits
from gpu_ladder.engines import SEEDS, named_architecture, select_device
from gpu_ladder.rungs import RUNGS
from segnode.cli import Parser, check_writable
from segnode.config import Config
from segnode.errors import ConfigError

CHECKOUT = Path(__file__).resolve().parents[2]
JSON = Path('test/benchmark_results/gpu.json')
STEPS = ('ladder', 'tests', 'benchmark')

_EPILOG = """\
examples:
  make gpu                                        # everything, by .venv's Python or python3
  python3 test/gpu_ladder --steps ladder          # without pytest and the benchmark
  python3 test/gpu_ladder --rungs plain,triton --checks fp32,kernel --steps ladder
  python3 test/gpu_ladder --minutes 60            # time for every case of the benchmark

what it does:
  It climbs from what can hardly go wrong to what is fastest, each rung in a process of its own:

    plain           SEGNODE_TRITON=0 SEGNODE_GRAPHS=0
    triton          SEGNODE_GRAPHS=0
    graphs          SEGNODE_TRITON=0
    triton-graphs   the engine as it comes

  On each it first compares answers with fp32 on the CPU: every operator alone, the network stage
  by stage from equal inputs, whole frames in fp32 without TF32, then fp16 and bf16 by average
  precision. It fills free memory with NaN before every layer, to see whether anything is read
  before it is written, and watches stage times and memory. Then it times whole frames and stages.
  What fails is written down, and the next check and the next rung are tried all the same. A check
  that hangs is ended after its budget, and the process begun anew behind it.

  After the ladder come `pytest -m gpu`, where there is a pytest, and the benchmark, on the highest
  rung that passed, case by case, the most telling first; cases that do not fit into --minutes are
  left out. Where Detectron2 cannot be imported it runs against torchvision alone.

what it leaves:
  FILE of --json, written anew after every check, and FILE's name with _benchmark beside it. A file
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
    """Return what the command line asks for.

    Raises:
        ConfigError: a value is out of range.
    """
    parser = Parser('gpu', '', '')
    parser.prog = 'gpu_ladder'
    parser.description = (
        'Check and time segnode on a GPU, from plain operators up to Triton and CUDA graphs, then '
        'run the tests for a GPU and the benchmark.'
    )
    parser.epilog = _EPILOG
    timed = 'mask_rcnn_R_50_FPN_3x'
    for name, kind, default, metavar, text in (
        ('minutes', float, 20.0, 'X', 'for everything (default 20)'),
        ('json', Path, CHECKOUT / JSON, 'FILE', f'default {JSON}'),
        ('device', str, 'cuda', 'DEVICE', 'cuda or cuda:N; cpu tries this script itself'),
        ('steps', str, ','.join(STEPS), 'A,B', f'some of {", ".join(STEPS)}'),
        ('rungs', str, ','.join(RUNGS), 'A,B', f'some of {", ".join(RUNGS)}'),
        ('checks', str, '', 'A,B', 'only those with one of these in their name'),
        ('scenes', int, 24, 'N', 'judged by average precision (default 24)'),
        ('shapes', str, '480x640,800x1344', 'HxW,...', 'timed (default both)'),
        ('trained', str, '', 'MODEL', 'judged (default: the embedded model)'),
        ('timed', str, timed, 'MODEL', f'timed, with planted weights (default {timed})'),
    ):
        parser.add_argument(f'--{name}', type=kind, default=default, metavar=metavar, help=text)
    text = 'run the rungs in this process: for a debugger; a fault of the device ends all'
    parser.add_argument('--in-process', action='store_true', help=text)
    given = vars(parser.parse_args(arguments))
    for name, least, most in (('minutes', 0.1, math.inf), ('scenes', limits.COMPARED, len(SEEDS))):
        if not least <= given[name] <= most:
            bounds = f'at least {least:g} and at most {most:g}'
            raise ConfigError(f'--{name}: expected {bounds}, found {given[name]:g}')
    given['steps'] = _some('--steps', given['steps'], STEPS)
    given['rungs'] = _some('--rungs', given['rungs'], tuple(RUNGS))
    given['checks'] = tuple(filter(None, map(str.strip, given['checks'].split(','))))
    given['shapes'] = tuple(map(_shape, given['shapes'].split(',')))
    return Options(**given)


def check_machine(options: Options) -> None:
    """Refuse before long work what is not there: models, the device, the folder of the file.

    Raises:
        SegnodeError: what is missing.
    """
    for model in (options.trained, options.timed):
        named_architecture(Config(model=model))
    # With its index, as asking which one is current would take memory on it.
    select_device('cuda:0' if options.device == 'cuda' else options.device)
    check_writable(options.json)


def shape_name(shape: tuple[int, int]) -> str:
    """Return a shape as it stands on the command line."""
    return f'{shape[0]}x{shape[1]}'


def _some(option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Return what of ``known`` is named, in its order."""
    named = [item.strip() for item in text.split(',')]
    for name in named:
        if name not in known:
            raise ConfigError(f'{option}: expected some of {", ".join(known)}, found {name!r}')
    return tuple(name for name in known if name in named)


def _shape(text: str) -> tuple[int, int]:
    found = re.fullmatch(r'(\d{2,4})x(\d{2,4})', text.strip())
    if found is None or not all(32 <= int(side) <= 4096 for side in found.groups()):
        raise ConfigError(f'--shapes: expected HxW of 32 to 4096, as in 480x640, found {text!r}')
    return int(found[1]), int(found[2])
