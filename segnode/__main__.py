# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The command line: ``python -m segnode COMMAND``."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from segnode.errors import ConfigError, SegnodeError


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its module has ``main(args) -> exit code`` and is imported when chosen."""

    module: str
    summary: str


COMMANDS = {
    'node': Command(
        'segnode.ros.process', 'the ROS 2 node: image topic in, masks out (needs ROS)'
    ),
    'predict': Command('segnode.predict', 'images -> COCO results, overlays, AP'),
    'evaluate': Command(
        'segnode.evaluate', 'a rosbag -> accuracy, latency, streaming AP and a report'
    ),
    'convert': Command(
        'segnode.convert.command', 'images or a video -> a bag; label images -> annotations'
    ),
    'demo': Command('segnode.demo.command', 'the shipped model on a camera topic (needs ROS)'),
    'benchmark': Command(
        'segnode.benchmark.command', 'times the engine, against others, or the whole node (--node)'
    ),
    'soak': Command('segnode.soak.command', 'drives the node with faults, and checks (needs ROS)'),
    'sweep': Command('segnode.sweep', 'settings against each other on a bag, and the one to take'),
    'export': Command(
        'segnode.export.command', 'the model for OpenVINO and ONNX Runtime, in INT8 too'
    ),
    'describe': Command(
        'segnode.describe', 'writes the description of an exported model by running it'
    ),
    'doctor': Command('segnode.doctor.command', 'checks this machine and says what to do'),
    'models': Command('segnode.models.command', 'families and presets: AP, costs, licences'),
    'fetch': Command('segnode.fetch', 'weights into the cache, for machines without a network'),
}

_NODE_HELP = """\
usage: segnode node [--sros2-policy FILE] [--ros-args ...]

The ROS 2 node: subscribes to a camera's image topic and publishes instance masks, detections
and timings under its own name. What follows `node` are ROS arguments; they go over the shipped
config/seg.yaml, which is taken first. Exit code 0 after a signal, 2 for a fault that starting it
again cannot mend (arguments, parameters, model, installation), 1 for others.

options:
  --sros2-policy FILE   write what the node with these arguments publishes, subscribes and
                        answers as a policy for SROS 2, and end

examples:
  segnode node --ros-args -r image:=/camera/image_raw
  segnode node --ros-args --params-file own.yaml -p device:=cuda:0 -r __ns:=/front
  ros2 param describe /segnode filter.score_threshold   # every parameter, while it runs
"""


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f'  {name.ljust(width)}  {command.summary}' for name, command in COMMANDS.items()]
    return '\n'.join(
        (
            'usage: segnode COMMAND [options]      (segnode is `python -m segnode`)',
            '',
            'Instance masks for robots: Mask R-CNN on camera images, as a ROS 2 node and offline.',
            '',
            'commands:',
            *lines,
            '',
            'options:',
            '  -h, --help   this text; `segnode COMMAND --help` has the options and examples',
            '  --version    the version',
            '',
            'examples:',
            '  segnode doctor',
            '  segnode predict photo.jpg --overlay out/',
            '  segnode node --ros-args -r image:=/camera/image_raw',
            '',
        )
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 on success, 1 when the work failed, 2 on wrong use, 130 after Ctrl-C.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    # A name or a path may hold what the terminal's encoding lacks.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == 'strict':
            stream.reconfigure(errors='backslashreplace')
    try:
        code = _dispatch(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone; the interpreter must not meet the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (SegnodeError, OSError) as error:
        return _fail(str(error), 2 if isinstance(error, ConfigError) else 1)
    return code


def _dispatch(args: list[str]) -> int:
    if args and args[0] in ('-h', '--help'):
        sys.stdout.write(_help())
        return 0
    if args == ['--version']:
        from segnode import __version__

        sys.stdout.write(f'segnode {__version__}\n')
        return 0
    known = f'expected one of {", ".join(COMMANDS)} (see segnode --help)'
    if not args:
        return _fail(f'no command given; {known}', 2)
    name, rest = args[0], args[1:]
    if name not in COMMANDS:
        return _fail(f'unknown command {name!r}; {known}', 2)
    if name == 'node' and rest in (['-h'], ['--help']):
        sys.stdout.write(_NODE_HELP)
        return 0
    try:
        return int(importlib.import_module(COMMANDS[name].module).main(rest))
    except ImportError as error:
        # The node's 2 keeps a launch file from starting it again, which would not mend that.
        return _fail(_import_remedy(name, error), 2 if name == 'node' else 1)
    except SystemExit as stop:  # argparse leaves this way
        return stop.code if isinstance(stop.code, int) else 1


def _import_remedy(command: str, error: ImportError) -> str:
    missing = error.name or str(error)
    if command == 'node' and not missing.startswith(('torch', 'numpy', 'cv2', 'PIL', 'segnode')):
        return (
            f'the node needs ROS 2, and {missing} cannot be imported here: source a ROS 2 '
            'installation first, or run `make setup` in the checkout and use .venv/bin/python'
        )
    return f'{missing} cannot be imported ({error}); install it, or run `make setup`'


def _fail(message: str, code: int) -> int:
    line = ' '.join(message.split())
    sys.stderr.write(f'segnode: error: {line}\n')
    return code


def node() -> int:
    """Console script ``node``."""
    return main(['node', *sys.argv[1:]])


def predict() -> int:
    """Console script ``predict``."""
    return main(['predict', *sys.argv[1:]])


def evaluate() -> int:
    """Console script ``evaluate``."""
    return main(['evaluate', *sys.argv[1:]])


def convert() -> int:
    """Console script ``convert``."""
    return main(['convert', *sys.argv[1:]])


def demo() -> int:
    """Console script ``demo``."""
    return main(['demo', *sys.argv[1:]])


def benchmark() -> int:
    """Console script ``benchmark``."""
    return main(['benchmark', *sys.argv[1:]])


def soak() -> int:
    """Console script ``soak``."""
    return main(['soak', *sys.argv[1:]])


def sweep() -> int:
    """Console script ``sweep``."""
    return main(['sweep', *sys.argv[1:]])


def export() -> int:
    """Console script ``export``."""
    return main(['export', *sys.argv[1:]])


def describe() -> int:
    """Console script ``describe``."""
    return main(['describe', *sys.argv[1:]])


def doctor() -> int:
    """Console script ``doctor``."""
    return main(['doctor', *sys.argv[1:]])


def models() -> int:
    """Console script ``models``."""
    return main(['models', *sys.argv[1:]])


def fetch() -> int:
    """Console script ``fetch``."""
    return main(['fetch', *sys.argv[1:]])


if __name__ == '__main__':
    sys.exit(main())
