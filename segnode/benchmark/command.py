# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode benchmark``: options, and what is printed and written."""

from __future__ import annotations

import argparse
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segnode.benchmark.report import PLOT_SUFFIXES, is_own_plot
from segnode.benchmark.request import NodeRequest, Request
from segnode.cli import (
    Parser,
    add_config_options,
    config_from,
    given_settings,
    note,
    say,
)
from segnode.config import Config
from segnode.errors import ConfigError
from segnode.output_files import Inputs, check_writable, is_own_json, write_json

REFERENCES = (
    *('detectron2', 'detectron2-best', 'torchvision', 'torchvision-best'),
    *('openvino', 'openvino-int8', 'onnxruntime', 'onnxruntime-int8'),
)
_LARGEST_SIDE = 4096
_OWN_JSON = r'\{"machine": \{"system": "'
# What the references have no equal of, or what the benchmark sets itself.
_REFUSED = {
    'resolution.short_side': 'the frames are of --shapes and are not resized',
    'resolution.long_side': 'the frames are of --shapes and are not resized',
    'filter.min_mask_area': 'the references have no such filter',
    'filter.max_mask_area': 'the references have no such filter',
    'filter.classes': 'the references have no such filter',
    'mask_threshold': 'the references take 0.5',
}

_EXAMPLES = """\
  segnode benchmark
  segnode benchmark --model mask_rcnn_R_50_FPN_3x --plant --shapes 480x640,800x1344 \\
      --detections 5,20,100 --batch 1,4 --against detectron2,torchvision --json b.json
  segnode benchmark --model config.yaml --weights model.pth --against detectron2 --plot b.png
  segnode benchmark --parts --device cpu --against detectron2
  segnode benchmark --node --model null --json n.json

how it measures:
  One process. Every contender has the same weights, takes the same uint8 frames on the host and
  gives the same on the host: boxes, scores, classes and one full-size label image. They take
  turns within every round, and a ratio is the median over rounds of (theirs / segnode's): above 1
  segnode is faster. The first rounds warm up and are not counted. Before timing, segnode and a
  reference as it comes must give equal answers in fp32, or nothing is timed.

  A shape is that of the frames and of the network's input: nothing is resized.
  --plant needs no weights: they are made from a fixed seed, and after the box head has done its
  work the same fixed boxes take the place of its answer in every contender, so that all have the
  number of masks that --detections says. Without it the model's own weights run on a rendered
  scene, and what they find is printed.

references:
  detectron2, torchvision            as they come, in fp32
  detectron2-best, torchvision-best  half precision, channels_last, layers compiled; on a GPU they
                                     come along with the plain ones
  openvino, onnxruntime              the same model as `segnode export` makes it, in fp32, or in
                                     INT8 (openvino-int8, ...), its ranges from the frames here;
                                     with its own weights mask AP on these frames goes beside it
  Detectron2 is looked for in SEGNODE_DETECTRON2, among the installed packages, and where
  `make setup-test` puts it.

not in the figures: decoding and publishing of messages, loading, warm-up, capture and compiling.

the whole node (--node), which needs ROS 2:
  A camera, the node and a subscriber are a process each, over DDS of a domain of their own, and so
  is a relay: a bare rclpy node that passes the bytes of an image on, the floor for a node in
  Python. The camera plays four frames of a rendered scene, in BGR or as JPEG, at --rate to node
  and relay in turns, so that neither disturbs the other; the one that waits is idle. An age is
  from the image's stamp, taken as it is published, to the later one of detections and
  instance_mask at the subscriber, or to the relayed image. The overhead is the difference of the
  medians: what the node costs above the transport. With --model null, which has no network, that
  is everything but the network. Frames that a newer one replaced are counted as dropped. CPU is
  processor time of the process, all cores and threads, a frame.
  The node takes the shipped config/seg.yaml first, and the options here go over it. Several
  cameras (--cameras) play the same frames, one after the other within a period.
  Not in the figures: a camera driver's own work, a network between machines, other subscribers.
"""

# Which options belong to which of the two: the engine alone, or the whole node.
_ENGINE_OPTIONS = ('plant', 'detections', 'batch', 'against', 'parts', 'frames', 'plot')
_NODE_OPTIONS = ('transports', 'cameras', 'rate', 'seconds')
TRANSPORTS = ('raw', 'compressed')
_MOST_CAMERAS = 8


def main(args: Sequence[str]) -> int:
    """Run the command; return 0.

    Raises:
        SegnodeError: nothing could be measured.
    """
    parser = _parser()
    options = parser.parse_args(args)
    config = config_from(options)
    if options.node:
        return _benchmark_node(options, config)
    _refuse_others(options, _NODE_OPTIONS, 'expected --node with it')
    request = _request(options)
    _refuse(options)
    _check_outputs(options, config)
    # The profiler tells of every start and stop, unless told before torch is imported.
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')
    # Torch takes seconds to import: after every mistake in the options has been found.
    from segnode.benchmark.run import run

    with warnings.catch_warnings():
        # The references warn of what becomes of their own calls.
        warnings.simplefilter('ignore')
        result = run(config, request, report=note)
    _print(result)
    if options.json is not None:
        write_json(options.json, result)
    if options.plot is not None:
        from segnode.benchmark.report import plot

        plot(options.plot, result['rows'], result['parts'])
    ratios = [
        each['ratio_p50']
        for entry in (*result['rows'], *result['parts'])
        for each in entry['against'].values()
    ]
    least = f'{min(ratios):.2f}' if ratios else '-'
    say(
        f'benchmark: rows={len(result["rows"])} parts={len(result["parts"])} '
        f'least_ratio_p50={least}'
    )
    return 0


def _benchmark_node(options: argparse.Namespace, config: Config) -> int:
    _refuse_others(options, _ENGINE_OPTIONS, 'expected it not to be given with --node')
    request = _node_request(options)
    check_writable(options.json, Inputs.of(config), is_own_json(_OWN_JSON))
    from segnode.benchmark.node import run_node

    result = run_node(config, given_settings(options), request, note)
    if options.json is not None:
        write_json(options.json, result)
    _print_node(result)
    worst = max(result['rows'], key=lambda row: float(row['overhead_ms_p50']))
    say(
        f'benchmark: rows={len(result["rows"])} '
        f'most_overhead_ms_p50={worst["overhead_ms_p50"]:.1f}'
    )
    return 0


def _parser() -> Parser:
    parser = Parser('benchmark', 'Time the engine by stage, and against others.', _EXAMPLES)
    parser.add_argument(
        '--plant', action='store_true', help='plant weights and detections; no weights are needed'
    )
    parser.add_argument(
        '--shapes',
        metavar='HxW,...',
        help='sizes of frame and network input (default 480x640); of the images alone with --node '
        '(default 480x640,720x1280,1080x1920)',
    )
    parser.add_argument(
        '--detections', metavar='N,...', help='detections to plant in a frame (default 20)'
    )
    parser.add_argument('--batch', metavar='N,...', help='frames in one call (default 1)')
    parser.add_argument(
        '--against', metavar='NAME,...', help=f'references: {", ".join(REFERENCES)}'
    )
    parser.add_argument(
        '--parts', action='store_true', help='preprocess and paste on their own (alone: only them)'
    )
    parser.add_argument(
        '--frames',
        type=int,
        metavar='N',
        help='timed rounds of each case (default 20 on a CPU, 200 on a GPU)',
    )
    parser.add_argument(
        '--node', action='store_true', help='time the whole node over DDS, against a bare relay'
    )
    parser.add_argument(
        '--transports',
        metavar='NAME,...',
        help='with --node: raw, compressed (default raw,compressed)',
    )
    parser.add_argument(
        '--cameras', type=int, metavar='N', help='with --node: cameras of the node (default 1)'
    )
    parser.add_argument(
        '--rate', type=float, metavar='HZ', help='with --node: of each camera (default 30)'
    )
    parser.add_argument(
        '--seconds',
        type=float,
        metavar='S',
        help='with --node: for which the node, and the relay, is played to in a row (default 10)',
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='draw them (.png, .svg, .pdf)')
    add_config_options(parser)
    return parser


def _check_outputs(options: argparse.Namespace, config: Config) -> None:
    inputs = Inputs.of(config)
    check_writable(options.json, inputs, is_own_json(_OWN_JSON))
    if options.plot is None:
        return
    if options.plot.suffix not in PLOT_SUFFIXES:
        raise ConfigError(
            f'--plot: expected a name that ends in {", ".join(PLOT_SUFFIXES)}, '
            f'found {options.plot}'
        )
    if options.json is not None:
        inputs.add(options.json)
    check_writable(options.plot, inputs, is_own_plot)


def _request(options: argparse.Namespace) -> Request:
    if options.detections is not None and not options.plant:
        raise ConfigError('--detections needs --plant: a trained model finds what it finds')
    if options.frames is not None and options.frames < 1:
        raise ConfigError(f'--frames: expected at least 1, found {options.frames}')
    references = tuple(name for name in _items('--against', options.against or '') if name)
    for name in references:
        if name not in REFERENCES:
            raise ConfigError(f'--against: expected {", ".join(REFERENCES)}, found {name!r}')
    cases = (options.shapes, options.detections, options.batch)
    only_parts = options.parts and not options.plant and cases == (None, None, None)
    shapes: tuple[tuple[int, int], ...] = ()
    if not only_parts:
        shapes = tuple(_shape(item) for item in _items('--shapes', options.shapes or '480x640'))
    counts = tuple(
        _count('--detections', n) for n in _items('--detections', options.detections or '20')
    )
    return Request(
        shapes=shapes,
        detections=counts if options.plant else (None,),
        batches=tuple(_count('--batch', n) for n in _items('--batch', options.batch or '1')),
        references=references,
        parts=options.parts,
        rounds=options.frames or 0,
    )


def _node_request(options: argparse.Namespace) -> NodeRequest:
    transports = tuple(_items('--transports', options.transports or ','.join(TRANSPORTS)))
    for name in transports:
        if name not in TRANSPORTS:
            raise ConfigError(f'--transports: expected {", ".join(TRANSPORTS)}, found {name!r}')
    shapes = _items('--shapes', options.shapes or '480x640,720x1280,1080x1920')
    return NodeRequest(
        shapes=tuple(_shape(item) for item in shapes),
        transports=transports,
        cameras=int(_within('--cameras', options.cameras, 1, 1, _MOST_CAMERAS)),
        rate_hz=_within('--rate', options.rate, 30.0, 0.1, 1000.0),
        seconds=_within('--seconds', options.seconds, 10.0, 0.1, 3600.0),
    )


def _within(option: str, given: float | None, default: float, low: float, high: float) -> float:
    value = default if given is None else given
    if not low <= value <= high:  # NaN is not, either.
        raise ConfigError(f'{option}: expected {low:g} to {high:g}, found {value:g}')
    return value


def _refuse_others(options: argparse.Namespace, names: Sequence[str], problem: str) -> None:
    for name in names:
        if getattr(options, name) not in (None, False):
            raise ConfigError(f'--{name}: {problem}')


def _items(option: str, text: str) -> list[str]:
    items = [item.strip() for item in text.split(',')]
    twice = sorted({item for item in items if items.count(item) > 1})
    if twice:
        raise ConfigError(f'{option}: expected each value once, found {twice[0]!r} again')
    return items


def _shape(text: str) -> tuple[int, int]:
    found = re.fullmatch(r'(\d{1,5})x(\d{1,5})', text)
    height, width = (int(side) for side in found.groups()) if found else (0, 0)
    if not (32 <= height <= _LARGEST_SIDE and 32 <= width <= _LARGEST_SIDE):
        raise ConfigError(
            f'--shapes: expected height x width of 32 to {_LARGEST_SIDE}, as in 480x640, found '
            f'{text!r}'
        )
    return height, width


def _count(option: str, text: str) -> int:
    if not re.fullmatch(r'\d{1,4}', text) or int(text) < 1:
        raise ConfigError(f'{option}: expected numbers of 1 and more, found {text!r}')
    return int(text)


def _refuse(options: argparse.Namespace) -> None:
    given = given_settings(options)
    for name, reason in _REFUSED.items():
        if given.get(name, Config().flat()[name]) != Config().flat()[name]:
            raise ConfigError(f'{name}: expected it not to be set for a benchmark: {reason}')


def _print_node(result: dict[str, Any]) -> None:
    from segnode.benchmark import report

    machine = result['machine']
    device = machine.get('gpu') or machine['processor']
    say(f'{result["model"]} on {machine["device"]} ({device}), {machine["rmw"]}')
    say(result['protocol'])
    say()
    say(report.node_table(result['rows']))
    say()
    say("the node's own stages, ms (mean):")
    say(report.node_stage_table(result['rows']))


def _print(result: dict[str, Any]) -> None:
    from segnode.benchmark import report

    rows, parts, machine = result['rows'], result['parts'], result['machine']
    device = machine.get('gpu') or machine['processor']
    say(f'{result["model"]} on {machine["device"]} ({device}), torch {machine["torch"]}')
    say(result['protocol'])
    if rows:
        say()
        say(report.timing_table(rows))
        say()
        say('segnode by stage, ms (p50):')
        say(report.stage_table(rows))
        say()
        say('in one call:')
        say(report.call_table(rows))
    if parts:
        say()
        say(report.part_table(parts))
    lines = list(report.remarks(rows))
    if lines:
        say()
    for line in lines:
        say(line)
