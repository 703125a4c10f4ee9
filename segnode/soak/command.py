# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode soak``: the real node under images and faults from other processes, checked.

This process imports no ROS: it directs the others, counts what they tell, and judges.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
import re
import shutil
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from segnode.checkpoint.load import DEMO_MODEL
from segnode.cli import (
    Parser,
    add_config_options,
    given_settings,
    note,
    terminated_as_interrupted,
)
from segnode.config import Config, user_path
from segnode.demo.processes import require_ros
from segnode.live.schedule import MOST_CAMERAS
from segnode.output_files import (
    Inputs,
    check_outside,
    check_own_folder,
    check_writable,
    is_own_json,
    make_own_folder,
    write_json,
)
from segnode.soak.accounts import LOST_MEANS
from segnode.soak.frames import camera_pictures, pictures
from segnode.soak.operations import Operations
from segnode.soak.report import MEMORY_MEANS, result, show
from segnode.soak.run import Soak
from segnode.soak.stage import SoakError, Stage

IMAGE_HW = (480, 640)
SHORTEST_S = 5.0
HIGHEST_HZ = 200.0
INTERRUPTED = 130
MOST_TOLD = 20
SMALLEST_SIDE = 32
# Of it the cameras' decks are made, each fault's whole image among them.
LARGEST_AREA = 4096 * 4096
_OWN_JSON = r'\{"ok": (true|false), "seconds": [\d.]+, "seed": \d+, "lost": '

_EXAMPLES = f"""\
  segnode soak --seconds 120 --cameras 3 --faults --json soak.json
  segnode soak --seconds 28800 --faults --model config.yaml --weights w.pth --shape 720x1280
  segnode soak --seconds 60 --faults --seed 4711 --output soak-logs/

The node runs in a process of its own, in a ROS domain of its own that only this machine sees;
other processes play its cameras, subscribe, call its services and are killed. Each camera has its
own size: that of --shape, three quarters of it, half of it. The node takes config/seg.yaml and
what you give here. One run of its process is a life; the first one gets half of the time, so that
its memory tells something. The same seed draws the same faults; what they meet depends on time.

Checked, always: the accounting identity in every status; that no count goes back; that every
answer is whole (detections, instance_mask, stage_times), joins by stamp and frame id, and has its
image's size; that ids are 1 to n, no label is above n, and some are there; that a picture has as
many detections as before where nothing else happened; that the newest image is answered; what has
to come of each fault; that nothing is lost; the level ERROR without a cause; exit codes,
tracebacks, memory, file descriptors and threads.

{LOST_MEANS}

{textwrap.fill(f'Memory is {MEMORY_MEANS}.', 98)}

The table has how many faults of each kind there were, and how many were seen to come out right.
An image that was superseded before the node looked at it is not confirmed, and no finding, but a
kind of which five and more came and none was confirmed is; so is whatever came out wrong. Exit
code 0 only without findings. Ctrl-C ends it early, with the results so far. Logs go to a temporary
folder, which is removed when all is well.
"""


def main(args: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, or 1 when a promise was broken.

    Raises:
        SegnodeError: a process of the soak failed, or an input cannot be used.
    """
    options = _options(args)
    settings = given_settings(options)
    config = Config().replace(settings)
    check_outside(options.json, options.output)
    check_writable(options.json, Inputs.of(config), is_own_json(_OWN_JSON))
    if options.output is not None:
        check_own_folder(options.output, 'soak')
    require_ros('soak')
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    folder = _folder(options.output)
    note(f'seed {seed}; logs in {folder}')
    with terminated_as_interrupted():
        found = _soak(options, settings, seed, folder)
    if found['ok'] and not found['interrupted'] and options.output is None:
        shutil.rmtree(folder)
    show(found, folder)
    if options.json is not None:
        write_json(options.json, found)
    return exit_code(found)


def exit_code(found: dict[str, Any]) -> int:
    """Return the command's exit code for a result."""
    if found['interrupted']:
        return INTERRUPTED
    return 0 if found['ok'] else 1


def _soak(
    options: argparse.Namespace, settings: dict[str, Any], seed: int, folder: Path
) -> dict[str, Any]:
    """Play, and return the result."""
    weights, left_out = _removable_weights(settings, folder) if options.faults else (None, [])
    rendered = pictures(seed, options.shape)
    shown = {f'camera_{i}': camera_pictures(rendered, i) for i in range(options.cameras)}
    rng = random.Random(seed)
    start_s = time.monotonic()
    with Stage(folder, shown, options.faults, _given(settings)) as stage:
        operations = Operations(stage, rng, own_model='model' in settings)
        with _progress(stage, operations, options.seconds) as tell:
            soak = Soak(
                stage,
                operations,
                rng,
                seconds=options.seconds,
                rate_hz=options.rate,
                faults=options.faults,
                weights=weights,
                tell=tell,
            )
            interrupted = False
            try:
                soak.run()
            except KeyboardInterrupt:
                if not stage.has_been_ready():
                    raise
                interrupted = True
                stage.finish()
            except SoakError as error:
                if not stage.has_been_ready():
                    raise
                # Hours may lie behind it, and what they showed counts.
                stage.findings.append(str(error))
                stage.finish()
    return result(
        stage,
        operations,
        interrupted=interrupted,
        seconds=time.monotonic() - start_s,
        seed=seed,
        rate_hz=options.rate,
        left_out=left_out,
    )


def _options(args: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        'soak', 'Images and faults through the real node, and all of it checked.', _EXAMPLES
    )
    add = parser.add_argument
    add('--seconds', type=float, metavar='N', required=True, help='how long, from the start on')
    add('--cameras', type=int, metavar='K', default=2, help=f'1 to {MOST_CAMERAS} [2]')
    add('--rate', type=float, metavar='HZ', default=5.0, help='images a second of each camera [5]')
    add('--faults', action='store_true', help='inject faults; else images alone')
    add('--seed', type=int, metavar='S', help='draws everything [a new one, which is printed]')
    add('--shape', type=_shape, metavar='HxW', default=IMAGE_HW, help='image size [480x640]')
    add('--output', type=Path, metavar='DIR', help='keep the logs here [a temporary folder]')
    add('--json', type=Path, metavar='FILE', help='write all figures')
    add_config_options(parser)
    options = parser.parse_args(args)
    if not SHORTEST_S <= options.seconds < math.inf:
        parser.error(f'--seconds: expected {SHORTEST_S:g} or more, found {options.seconds:g}')
    if not 1 <= options.cameras <= MOST_CAMERAS:
        parser.error(f'--cameras: expected 1 to {MOST_CAMERAS}, found {options.cameras}')
    if not 0.1 <= options.rate <= HIGHEST_HZ:
        parser.error(f'--rate: expected 0.1 to {HIGHEST_HZ:g} Hz, found {options.rate:g}')
    if options.seed is not None and options.seed < 0:
        parser.error(f'--seed: expected 0 or more, found {options.seed}')
    return options


def _shape(text: str) -> tuple[int, int]:
    found = re.fullmatch(r'(\d{1,4})x(\d{1,4})', text)
    height, width = (int(found[1]), int(found[2])) if found else (0, 0)
    if not min(height, width) >= SMALLEST_SIDE:
        raise argparse.ArgumentTypeError(
            f'expected HxW of {SMALLEST_SIDE} to 9999 pixels each, found {text!r}'
        )
    if height * width > LARGEST_AREA:
        raise argparse.ArgumentTypeError(
            f'expected at most as many pixels as 4096x4096 has, found {text!r}'
        )
    return height, width


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    # An empty list has no type in a parameter file; the shipped file leaves lists empty anyway.
    return {
        name: list(v) if isinstance(v, tuple) else v for name, v in settings.items() if v != ()
    }


def _folder(output: Path | None) -> Path:
    """Return the folder for logs.

    Raises:
        ConfigError: it cannot be taken.
    """
    if output is None:
        return Path(tempfile.mkdtemp(prefix='segnode-soak-'))
    make_own_folder(output, 'soak')
    return output.resolve()


def _removable_weights(settings: dict[str, Any], folder: Path) -> tuple[Path | None, list[str]]:
    """Let the node load its weights by a link of the soak's own; return it, or why there is none.

    What the link leads to is only read.
    """
    given = str(settings.get('weights', ''))
    if given:
        target = user_path(given)
    elif 'model' not in settings:
        target = DEMO_MODEL.with_suffix('.safetensors')
    else:
        return None, ['weights_removed: only with --weights FILE, or with the embedded model']
    if not target.is_file():
        return None, [f'weights_removed: {given} is no file of this machine']
    link = folder / f'weights{target.suffix}'
    link.unlink(missing_ok=True)
    link.symlink_to(target.resolve())
    settings['weights'] = str(link)
    return link, []


@contextlib.contextmanager
def _progress(
    stage: Stage, operations: Operations, seconds: float
) -> Iterator[Callable[[float], None]]:
    """Say what is found as it is found; on a terminal, also how much time is left."""
    from tqdm import tqdm

    told: set[str] = set()
    shown = '{desc}: {percentage:3.0f}%|{bar}| {postfix}'
    with tqdm(total=seconds, desc='soak', bar_format=shown, disable=None, leave=False) as bar:

        def tell(passed_s: float) -> None:
            findings = stage.all_findings()
            for text in findings:
                if text not in told and len(told) < MOST_TOLD:
                    told.add(text)
                    note(f'finding: {text}')
            left_s = max(0, round(seconds - passed_s))
            accounts = stage.accounts.values()
            sent = sum(account.next_number for account in accounts)
            faults = sum(sum(account.injected.values()) for account in accounts)
            bar.n = min(seconds, passed_s)
            bar.set_postfix_str(
                f'{left_s // 60}:{left_s % 60:02d} left, life {stage.life.number}, {sent} images, '
                f'{faults + sum(operations.injected.values())} faults, '
                f'{len(findings)} findings'
            )

        yield tell
