# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode sweep``: settings against each other on a bag, and the one to take."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segnode.cli import Parser, add_config_options, config_from, given_settings, note, say
from segnode.config import user_path
from segnode.errors import ConfigError
from segnode.evaluate import add_selection_options, check_selection, request_from
from segnode.evaluation.sweep.grid import Row, label, make_rows, parse_variations
from segnode.output_files import (
    Inputs,
    check_apart,
    check_outside,
    check_own_folder,
    check_writable,
    is_own_json,
    make_own_folder,
    write_json,
)

_EXAMPLES = """\
  segnode sweep drive.mcap --vary short_side=240,320,480 --vary min_mask_area=0,200,1000
  segnode sweep drive/ --annotations instances.json --budget-ms 50 --output sweep \\
      --vary resolution.short_side=320,480,640 --vary precision=fp32,bf16
  segnode sweep drive/ --metric agreement --vary classes=cone,cone+ball --vary proposals=100,1000
  ros2 launch segnode seg.launch.py params_file:=sweep/params.yaml image_topic:=/camera/image_raw

Every combination of the values is a row. --vary takes a setting by its name in config/seg.yaml
or the last part of it; names within one list of names have a + between them, and nothing is the
empty list. Settings that are not given are the model's own.

How good a row is: with --annotations or --label-topic, AP (--metric mask_ap, box_ap or
streaming_mask_ap, which takes the row's own median latency). Without, agreement with the most
expensive row: F1 of instances at mask IoU 0.5 and equal class, which is not accuracy. Rows that
differ in score threshold, mask area or classes alone share one run, where that gives exactly what
a run of their own would.

How fast: every row is timed on --latency-frames frames, decoded beforehand, from the image to the
answer on the host. Rows of one engine take turns, all in one session: where one has no latency
yet, as it is new or the timing was broken off, all of them are timed anew. Engines (models,
precisions, devices) come one after the other; the table names the session of each row then.

The folder of --output gets sweep.csv, sweep.json, pareto.svg and params.yaml, the recommended row
for the node. It is the best one of those whose p95 latency is within --budget-ms, or of all. Runs
and finished rows stay in the folder: after Ctrl-C or a crash the same command goes on from there.
Changed bags, models, class names or versions of segnode start anew.

Exit code 0, or 1 where a row failed or none is within the budget, which writes no params.yaml.
"""

_OWN_JSON = r'\{"rows": \[\{"settings": \{'


def main(args: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, 1 where a row failed or none fits the budget, 130 after Ctrl-C.

    Raises:
        SegnodeError: nothing could be done at all.
    """
    options = _parser().parse_args(args)
    rows, left_out = _rows(options)
    metric = _metric(options)
    check_selection(options)
    inputs = Inputs.of(rows[0].config, options.annotations, *options.bags)
    models = {name for row in rows for name in (row.config.model, row.config.weights)}
    inputs.add(*(user_path(name) for name in models if name))
    check_apart(options.output, *options.bags, options.annotations)
    check_own_folder(options.output, 'sweep')
    check_outside(options.json, options.output)
    check_writable(options.json, inputs, is_own_json(_OWN_JSON))

    # Torch takes seconds to import: after every mistake in the options has been found.
    from segnode.evaluation.replay import Replay
    from segnode.evaluation.sweep.report import Question, sweep_table, write_report
    from segnode.evaluation.sweep.run import sweep

    selection = request_from(options)
    Replay(selection, lambda _: None).close()  # What is wrong with a bag comes before the model.
    make_own_folder(options.output, 'sweep')
    for line in left_out:
        note(f'left out {line}')
    try:
        results, compared = sweep(
            rows,
            selection,
            options.output,
            note,
            latency_frames=options.latency_frames,
            agreements=metric == 'agreement',
        )
    except KeyboardInterrupt:
        note('interrupted: runs and finished rows stay; the same command goes on from here')
        return 130
    question = Question(
        metric=metric,
        budget_ms=options.budget_ms,
        command=shlex.join(['segnode', 'sweep', *args]),
        bags=tuple(map(str, options.bags)),
        latency_frames=options.latency_frames,
        left_out=tuple(left_out),
        node_parameters={'mono16_bits': options.mono16_bits},
    )
    report = write_report(options.output, rows, results, compared, question)
    if options.json is not None:
        write_json(options.json, report)
    say(sweep_table(report))
    return _conclude(report, options)


def _parser() -> Parser:
    parser = Parser('sweep', 'Compare settings on the frames of bags.', _EXAMPLES)
    parser.add_argument('bags', nargs='+', type=Path, metavar='BAG')
    parser.add_argument(
        '--vary',
        action='append',
        required=True,
        metavar='NAME=V,V',
        help='a setting and its values; may be given several times',
    )
    add_selection_options(parser)
    parser.add_argument(
        '--metric',
        choices=('mask_ap', 'box_ap', 'streaming_mask_ap', 'agreement'),
        help='what makes a row better (default: mask_ap, without ground truth agreement)',
    )
    parser.add_argument(
        '--budget-ms', type=float, metavar='N', help='most that the p95 latency may be'
    )
    parser.add_argument(
        '--latency-frames',
        type=int,
        default=30,
        metavar='N',
        help='frames that latency is measured on (default: %(default)s)',
    )
    parser.add_argument(
        '--output',
        type=Path,
        default=Path('segnode-sweep'),
        metavar='DIR',
        help='folder of the sweep (default: %(default)s)',
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write sweep.json there, too')
    add_config_options(parser)
    return parser


def _rows(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    variations = parse_variations(options.vary)
    both = sorted(set(variations) & set(given_settings(options)))
    if both:
        raise ConfigError(
            f'{both[0]}: expected it once, found it as an option and in --vary; give one of them'
        )
    if options.latency_frames < 1:
        raise ConfigError(f'--latency-frames: expected 1 or more, found {options.latency_frames}')
    budget_ms = options.budget_ms
    if budget_ms is not None and not 0 < budget_ms < math.inf:
        raise ConfigError(f'--budget-ms: expected more than 0, found {budget_ms:g}')
    return make_rows(config_from(options), variations)


def _metric(options: argparse.Namespace) -> str:
    has_truth = options.annotations is not None or bool(options.label_topic)
    metric: str = options.metric or ('mask_ap' if has_truth else 'agreement')
    if metric != 'agreement' and not has_truth:
        raise ConfigError(
            f'--metric {metric}: expected --annotations or --label-topic beside it, found neither'
        )
    return metric


def _conclude(report: dict[str, Any], options: argparse.Namespace) -> int:
    """Say what the table means and what to take; return the exit code."""
    folder, chosen = options.output, report['recommended']
    say()
    say(f'{report["metric"]}: {report["metric_is"]}')
    say(f'latency: {report["latency_is"]}')
    failed = [row for row in report['rows'] if row['failed']]
    for row in failed:
        note(f'{label(row["settings"])} failed: {row["failed"]}')
    if chosen is None:
        within = '' if options.budget_ms is None else f' within {options.budget_ms:g} ms'
        say(f'recommended: none, as no row has a latency and a value{within}')
    else:
        say(f'recommended: {label(chosen["settings"])}, {chosen["reason"]}')
        say(f'  ros2 launch segnode seg.launch.py params_file:={folder / "params.yaml"}')
    derived = sum(row['derived'] for row in report['rows'])
    say(
        f'sweep: rows={len(report["rows"])} derived={derived} failed={len(failed)} '
        f'front={sum(row["pareto"] for row in report["rows"])} written={folder}'
    )
    return 0 if chosen is not None and not failed else 1
