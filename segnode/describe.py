# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode describe``: writes the description of an exported program by running it."""

from __future__ import annotations

import shlex
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from segnode.cli import Parser, config_from, note, say
from segnode.errors import ConfigError
from segnode.output_files import Inputs, check_writable, is_own_json, write_json, write_whole

_EXAMPLES = """\
  segnode describe forklift.pt                      # writes forklift.yaml beside it
  segnode describe forklift.pt --class-names names.txt --image photo.jpg
  segnode describe d2go.pt --labels coco_category_id --image street.jpg --output d2go.yaml
  segnode predict photo.jpg --model forklift.yaml --overlay out/

A TorchScript file does not say how it takes an image, nor where in its answer the boxes lie. This
command runs it - its code runs, so name only files that you trust - on generated pictures of two
sizes, recognises boxes, scores, labels and masks, and writes what it found, with a remark where
something is assumed. Sides of the network's input, and colour order and scale where the program
does not tell them, are for you to check: --image shows the last two, with a picture of what the
model was trained for.
"""


_BEGINS = b'backend: "torchscript"'


def main(args: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0.

    Raises:
        SegnodeError: the program cannot be described.
    """
    parser = Parser('describe', 'Write the description of an exported model.', _EXAMPLES)
    parser.add_argument('program', type=Path, metavar='EXPORT.pt', help='TorchScript file')
    parser.add_argument(
        '--output', type=Path, metavar='FILE', help='description to write; default: EXPORT.yaml'
    )
    parser.add_argument(
        '--image', type=Path, nargs='+', default=[], metavar='IMAGE',
        help='pictures that show colour order and scale',
    )  # fmt: skip
    parser.add_argument(
        '--class-names', default='', metavar='A,B,...|FILE', help='names, in the order of labels'
    )
    parser.add_argument(
        '--labels', metavar='KIND',
        help='what a label stands for: coco_category_id, index, or index_from_1',
    )  # fmt: skip
    parser.add_argument('--device', default='cpu', help='where to run it; default: cpu')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write what was found, too')
    options = parser.parse_args(args)
    config = config_from(options)
    if not options.program.name:
        raise ConfigError(f'{options.program}: expected a TorchScript file, found a folder')
    output = options.output or options.program.with_suffix('.yaml')
    inputs = Inputs.of(config, options.program, *options.image)
    check_writable(output, inputs, own=_is_description)
    if output.exists():
        raise ConfigError(
            f'{output}: there is a description already, and it may hold your edits; move it, or '
            'give another --output'
        )
    inputs.add(output)
    check_writable(options.json, inputs, is_own_json(r'\{"tried": \['))

    # Torch takes seconds to import: after every mistake in the options has been found.
    from segnode.checkpoint.class_names import class_names
    from segnode.checkpoint.model import Labels
    from segnode.checkpoint.torchscript import description_text, read_description
    from segnode.checkpoint.weights_file import check_file
    from segnode.engine.device import select_device
    from segnode.engine.torchscript_probe import probe_program
    from segnode.picture_files import read_image

    if options.labels not in (None, *get_args(Labels)):
        raise ConfigError(
            f'--labels: expected one of {", ".join(get_args(Labels))}, found {options.labels}'
        )
    check_file(options.program, 'a TorchScript program')
    names = config.class_names and class_names(
        config.class_names, {}, None, note, is_coco=lambda: False
    )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # What PyTorch thinks of the program's code.
        probed = probe_program(
            options.program,
            weights=_beside(options.program, output),
            pictures=[read_image(path) for path in options.image],
            class_names=names,
            labels=options.labels,
            device=select_device(config.device),
        )
    for line in probed.tried:
        say(f'  {line}')
    text = description_text(probed.description, probed.remarks)
    with tempfile.TemporaryDirectory() as folder:
        checked = Path(folder, output.name)
        write_whole(checked, text.encode())
        read_description(checked)
    check_writable(output)  # Once more: trying the program took its time.
    write_whole(output, text.encode())
    say()
    say(text)
    if options.json is not None:
        write_json(options.json, {'tried': probed.tried, 'remarks': probed.remarks})
    model = shlex.quote(str(output))
    say(f'describe: wrote {output}; try: segnode predict photo.jpg --model {model} --overlay out')
    return 0


def _is_description(path: Path) -> bool:
    with path.open('rb') as file:
        return file.read(len(_BEGINS)) == _BEGINS


def _beside(program: Path, output: Path) -> str:
    """Return how the description names the program: relative where it lies beside or below."""
    # A link keeps its own name: what it points at may be called by a hash.
    program, folder = program.parent.resolve() / program.name, output.resolve().parent
    return str(program.relative_to(folder) if program.is_relative_to(folder) else program)
