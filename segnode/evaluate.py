# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode evaluate``: a rosbag through the node's pipeline, for accuracy and latency at once."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segnode.bags.topics import shown
from segnode.cli import (
    Parser,
    add_config_options,
    config_from,
    note,
    say,
    stage_table,
    table,
)
from segnode.errors import ConfigError
from segnode.live.grey_values import FEWEST_BITS, FULL_BITS
from segnode.output_files import (
    Inputs,
    check_apart,
    check_outside,
    check_own_folder,
    check_writable,
    is_own_json,
    write_json,
)

_EXAMPLES = """\
  segnode evaluate drive.mcap
  segnode evaluate drive/ --topic /front/image_raw --start 30 --end 90 --every 3
  segnode evaluate drive/ --annotations instances.json --model mask_rcnn_R_50_FPN_3x --output r50
  segnode evaluate drive/ --annotations instances.json --latencies jetson/frames.csv
  segnode convert photos/ --annotations instances.json --rate 5 bag  # a bag out of pictures

A BAG is a folder of rosbag2 or a file: .mcap, .db3 or ROS 1's .bag, compressed or not. No ROS is
needed. Every image of every topic goes through the node's own steps, in the order in which it
was recorded; none is dropped for being late, and the same bag gives the same answers every time
on one machine at one precision and number of threads. Settings that are not given are the
model's own: a score threshold of 0.05 for Detectron2's, where the node's file sets 0.5.

The folder of --output gets:
  report.html   the page to look at: the bag's health, latency, what was filtered, scores, pictures
  summary.json  the figures        frames.csv    a line a frame: times, counts, why it was left out
  results.json  COCO results       config.yaml   what it was made with
  params.yaml   the settings, for `ros2 launch segnode seg.launch.py params_file:=...`
  bag/          detections, masks, overlays and Foxglove annotations, stamped as the input

Times are of decoding and of the engine; transport and publishing come on top on a robot.
--annotations takes COCO instances. An annotated image belongs to a frame by its `stamp_ns`, by
`frame` (its number among the topic's images, from 0) or by either in its file name, and frames
without annotations count neither way. Streaming AP scores each frame against the newest answer
that was there at its time (Li et al., Towards Streaming Perception, 2020): accuracy and latency
in one figure. With --latencies it is that of the machine that took so long.

Exit code 0 where frames were answered, 1 where none was, they kept failing, or no annotation
belongs to any. An earlier folder of
this command is replaced, other files never.
"""

_OWN_JSON = (
    r'\{"box_ap": [^,]+, "box_ap50": [^,]+, "mask_ap": [^,]+, "mask_ap50": [^,]+, "streaming'
)
_SHOWN_CLASSES = 10


def main(args: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, 1 where no frame was answered or they kept failing, 130 after Ctrl-C.

    Raises:
        SegnodeError: nothing could be done at all.
    """
    parser = Parser('evaluate', "Replay bags through the node's pipeline, and score.", _EXAMPLES)
    parser.add_argument('bags', nargs='+', type=Path, metavar='BAG')
    add_selection_options(parser)
    parser.add_argument(
        '--output',
        type=Path,
        default=Path('segnode-evaluate'),
        metavar='DIR',
        help='folder of the run (default: %(default)s)',
    )
    parser.add_argument(
        '--latencies',
        type=_latencies,
        metavar='FILE|MS',
        help='frames.csv of another machine, or milliseconds a frame, for streaming AP',
    )
    parser.add_argument(
        '--no-bag', action='store_true', help='write no output bag, and so no pictures'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write summary.json there, too')
    add_config_options(parser)
    options = parser.parse_args(args)
    config = config_from(options)
    check_selection(options)
    inputs = Inputs.of(config, options.annotations, *options.bags)
    latencies = options.latencies if isinstance(options.latencies, Path) else None
    inputs.add(*([latencies] if latencies else []))
    check_apart(options.output, *options.bags, options.annotations, latencies)
    check_own_folder(options.output, 'evaluate')
    check_outside(options.json, options.output)
    check_writable(options.json, inputs, is_own_json(_OWN_JSON))

    # Torch takes seconds to import: after every mistake in the options has been found.
    from segnode.engine import Engine
    from segnode.evaluation.replay import Replay
    from segnode.evaluation.report import write_report
    from segnode.evaluation.run import REPORT, evaluate
    from segnode.live.labels import undrawable

    request = request_from(
        options,
        latencies=options.latencies,
        command=shlex.join(['segnode', 'evaluate', *args]),
        output_bag=not options.no_bag,
    )
    Replay(request, lambda _: None).close()  # What is wrong with a bag comes before the model.
    engine = Engine(config, report=note)
    if line := undrawable(engine.class_names):
        note(line)

    def conclude(folder: Path) -> None:
        write_report(folder, note)

    summary = evaluate(engine, request, options.output, note, conclude)
    if options.json is not None:
        write_json(options.json, summary)
    _print(summary)
    say(f'written: {options.output / REPORT} and more in {options.output}')
    say(_last_line(summary))
    if summary['stopped'].startswith('interrupted'):
        return 130
    failed = summary['stopped'] or summary['unscored'] or not summary['processed']
    return 1 if failed else 0


def add_selection_options(parser: argparse.ArgumentParser) -> None:
    """Add what chooses frames of bags and their ground truth."""
    parser.add_argument(
        '--topic',
        action='append',
        default=[],
        metavar='TOPIC',
        help='image topic, may be given several times (default: all of the bag)',
    )
    parser.add_argument(
        '--start',
        type=float,
        default=0.0,
        metavar='S',
        help="skip so much after each bag's first image",
    )
    parser.add_argument(
        '--end', type=float, metavar='S', help="stop so long after each bag's first image"
    )
    parser.add_argument(
        '--every', type=int, default=1, metavar='N', help="each topic's first of every N frames"
    )
    parser.add_argument(
        '--mono16-bits',
        type=int,
        default=FULL_BITS,
        metavar='N',
        help='bits in use of 16-bit grey images, 8 to 16 (default: %(default)s)',
    )
    truth = parser.add_mutually_exclusive_group()
    truth.add_argument('--annotations', type=Path, metavar='FILE', help='COCO instances')
    truth.add_argument(
        '--label-topic', default='', metavar='TOPIC', help='label images in the bag as the truth'
    )
    parser.add_argument(
        '--window-ms',
        type=float,
        default=20.0,
        metavar='MS',
        help="most that an annotated stamp may differ from its frame's (default: %(default)g)",
    )


def check_selection(options: argparse.Namespace) -> None:
    """Check what `add_selection_options` added.

    Raises:
        ConfigError: a number is out of range, or a file or a folder is missing.
    """
    start, end = options.start, options.end
    if not math.isfinite(start) or start < 0:
        raise ConfigError(f'--start: expected seconds from 0, found {start:g}')
    if end is not None and not end > start:
        raise ConfigError(f'--end: expected seconds after --start ({start:g}), found {end:g}')
    if options.every < 1:
        raise ConfigError(f'--every: expected 1 or more, found {options.every}')
    if not FEWEST_BITS <= options.mono16_bits <= FULL_BITS:
        raise ConfigError(
            f'--mono16-bits: expected {FEWEST_BITS} to {FULL_BITS}, found {options.mono16_bits}'
        )
    if not 0 <= options.window_ms < math.inf:
        raise ConfigError(f'--window-ms: expected 0 or more, found {options.window_ms:g}')
    for path in (*options.bags, options.annotations):
        if path is not None and not path.exists():
            raise ConfigError(f'{path}: no such file or folder')


def request_from(options: argparse.Namespace, **more: Any) -> Any:
    """Return the `evaluation.replay.Request` of options and of what else is given."""
    from segnode.evaluation.replay import Request

    return Request(
        bags=tuple(options.bags),
        topics=tuple(options.topic),
        start_s=options.start,
        end_s=options.end,
        every=options.every,
        mono16_bits=options.mono16_bits,
        annotations=options.annotations,
        label_topic=options.label_topic,
        window_ms=options.window_ms,
        **more,
    )


def _latencies(text: str) -> Path | float:
    try:
        milliseconds = float(text)
    except ValueError:
        path = Path(text)
        if not path.is_file():
            raise argparse.ArgumentTypeError(
                f'expected milliseconds or a frames.csv, found {text!r}'
            ) from None
        return path
    if not 0 < milliseconds < math.inf:
        raise argparse.ArgumentTypeError(f'expected more than 0 milliseconds, found {text}')
    return milliseconds


def _print(summary: dict[str, Any]) -> None:
    """Write the tables for people."""
    say(
        f'model {summary["model"]}, weights {summary["weights_sha256"][:12]}, '
        f'{summary["device"]}, {summary["precision"]}, {summary["threads"]} threads'
    )
    say()
    rows = [
        (
            shown(topic),
            str(health['frames']),
            '-' if health['rate_hz'] is None else f'{health["rate_hz"]:.2f}',
            str(health['gap_count']),
            str(health['duplicates']),
            str(health['backward']),
            ', '.join(f'{n} {clock}' for clock, n in health['clock'].items() if n),
        )
        for topic, health in summary['health'].items()
    ]
    say(table(('topic', 'frames', 'Hz', 'gaps', 'same', 'back', 'time by'), rows))
    for bag in summary['bags']:
        for remark in bag['damage']['remarks']:
            note(f'{bag["path"]}: {remark}')
    if summary['stage_ms']:
        say()
        say(stage_table(summary['stage_ms'] | {'total': summary['total_ms']}))
    if summary['classes']:
        say()
        counts = list(summary['classes'].items())
        rows_of_classes = [(name, str(n)) for name, n in counts[:_SHOWN_CLASSES]]
        if len(counts) > _SHOWN_CLASSES:
            rest = sum(n for _, n in counts[_SHOWN_CLASSES:])
            rows_of_classes.append((f'{len(counts) - _SHOWN_CLASSES} more classes', str(rest)))
        say(table(('class', 'instances'), rows_of_classes))
    if summary['scores']:
        say()
        scores = [
            (
                name,
                *(
                    _figure(summary[f'{part}{name}_{key}'])
                    for part, key in (('', 'ap'), ('', 'ap50'), ('streaming_', 'ap'))
                ),
            )
            for name in ('box', 'mask')
        ]
        say(table((f'{summary["scores"]["images"]} frames', 'AP', 'AP50', 'streaming AP'), scores))
    for reason, count in summary['reasons'].items():
        note(f'left out {count}: {reason}')
    if summary['stopped']:
        note(f'ended early: {summary["stopped"]}')
    say()


def _figure(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'


def _last_line(summary: dict[str, Any]) -> str:
    parts = [f'{name}={summary[name]}' for name in ('frames', 'processed')]
    parts.append(f'skipped={sum(summary["skipped"].values())}')
    if summary['scores']:
        names = ('box_ap', 'mask_ap', 'streaming_box_ap', 'streaming_mask_ap')
        parts += [f'{name}={_figure(summary[name])}' for name in names]
    if summary['total_ms']:
        parts.append(f'milliseconds_p50={summary["total_ms"]["p50"]:.1f}')
    return f'evaluate: {" ".join(parts)}'
