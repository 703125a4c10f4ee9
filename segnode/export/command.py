# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode export``: options, and what is printed and written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from segnode.cli import Parser, add_config_options, config_from, note, say
from segnode.errors import ConfigError
from segnode.output_files import (
    Inputs,
    check_apart,
    check_outside,
    check_own_folder,
    check_writable,
    is_own_json,
    shown,
    write_json,
)

if TYPE_CHECKING:
    from segnode.evaluation.annotations import Annotations
    from segnode.export.request import Calibration
    from segnode.image import Image

_EXAMPLES = """\
  segnode export --format openvino --output forklift_ov --model config.yaml --weights model.pth
  segnode export --format openvino --precision int8 --calibrate frames/ --output forklift_int8 \\
      --model config.yaml --weights model.pth
  segnode predict photo.jpg --model forklift_int8 --overlay out/
  segnode node --ros-args -p model:=forklift_int8
  segnode export --format onnx --whole --shapes 480x640 --output whole

The dense parts of the network become programs of OpenVINO or of ONNX Runtime. Selection, NMS,
RoIAlign, paste and filters stay segnode's own, so that in fp32 the answers are the native ones and
every setting works as before. The folder needs no other file to run.

INT8 takes the ranges of what passes the network from your own frames (--calibrate: of every five
pictures four give ranges, and one checks). Layers that rank stay in fp32. Where mask AP falls by
too much, of what --annotations says or else of what the network finds in fp32, the layers that 8
bits disturb most stay in fp32 too, and are printed.

--shapes names sizes of your images. Without it a convolutional network takes any; it is then
compiled for each size when that first comes, which takes seconds.
"""

FORMATS: Final = ('openvino', 'onnx')
PRECISIONS: Final = ('fp32', 'bf16', 'int8')
FOLDER_KIND: Final = 'export'
_OWN_JSON: Final = r'\{"output": "'
MOST_PICTURES: Final = 100
# One of so many pictures checks, the others give ranges.
CHECKED: Final = 5
_RENDERED_HW: Final = (480, 640)


def main(args: Sequence[str]) -> int:
    """Run the command; return 0.

    Raises:
        SegnodeError: the model cannot be exported so.
    """
    parser = Parser(
        'export', "Write a model's dense parts as programs for other engines.", _EXAMPLES
    )
    parser.add_argument('--format', required=True, choices=FORMATS, help='of the programs')
    parser.add_argument(
        '--output', required=True, type=Path, metavar='DIR', help='folder to write'
    )
    parser.add_argument(
        '--calibrate', type=Path, nargs='+', default=[], metavar='IMAGE|FOLDER',
        help='pictures that ranges of INT8 are taken from; some of them check',
    )  # fmt: skip
    parser.add_argument(
        '--check', type=Path, nargs='+', default=[], metavar='IMAGE|FOLDER',
        help='pictures on which the export is compared with fp32 (default: of --calibrate, else '
        'of a rendered scene)',
    )  # fmt: skip
    parser.add_argument(
        '--annotations', type=Path, metavar='FILE',
        help='COCO instances of the pictures that check: AP is of these',
    )  # fmt: skip
    parser.add_argument('--shapes', metavar='HxW,...', help='sizes of images (default: any)')
    parser.add_argument(
        '--whole', action='store_true',
        help='one ONNX of standard operators, images to detections and masks; needs --shapes',
    )  # fmt: skip
    parser.add_argument('--json', type=Path, metavar='FILE', help='write what was measured')
    add_config_options(parser)
    options = parser.parse_args(args)
    config = config_from(options)
    precision = 'fp32' if config.precision == 'auto' else config.precision
    if precision not in PRECISIONS:
        raise ConfigError(f'--precision: expected {", ".join(PRECISIONS)}, found {precision}')
    if precision == 'bf16' and options.format == 'onnx':
        raise ConfigError(
            '--precision: expected fp32 or int8 with --format onnx, as ONNX Runtime has no bf16 '
            'on a processor, found bf16'
        )
    if (precision == 'int8') != bool(options.calibrate):
        raise ConfigError('--calibrate: expected it with --precision int8, and only there')
    shapes = tuple(_shape(text) for text in (options.shapes or '').split(',') if text.strip())
    if options.whole and (options.format != 'onnx' or precision != 'fp32' or len(shapes) != 1):
        raise ConfigError('--whole: expected --format onnx, fp32 and one size of --shapes with it')
    given = [*options.calibrate, *options.check]
    check_own_folder(options.output, FOLDER_KIND)
    check_apart(options.output, *given, options.annotations)
    inputs = Inputs.of(config, options.annotations)
    check_outside(options.json, options.output)
    check_writable(options.json, inputs, is_own_json(_OWN_JSON))

    # Torch takes seconds to import: after every mistake in the options has been found.
    from segnode.checkpoint import NativeModel, load_model
    from segnode.export.request import Request
    from segnode.export.run import export

    model = load_model(config.replace({'precision': 'auto'}), note)
    if not isinstance(model, NativeModel):
        raise ConfigError(
            f'--model: expected a model that segnode runs itself, found {model.name}, which is an '
            'exported one already or has no network'
        )
    calibration, check, truth = _pictures(options, shapes, model.class_names)
    if options.whole:
        from segnode.export.whole import export_whole

        result = export_whole(config, model, shapes[0], options.output, check, note)
    else:
        request = Request(
            form=options.format,
            precision=precision,
            shapes=shapes,
            output=options.output,
            calibration=calibration,
            check=check,
            truth=truth,
            search=True,
        )
        result = export(config, model, request, note, _progress)
    _print(result)
    if options.json is not None:
        write_json(options.json, result)
    return 0


def _pictures(
    options: Any, shapes: Sequence[tuple[int, int]], class_names: Sequence[str]
) -> tuple[Calibration | None, list[Image], Annotations | None]:
    """Return what ranges are taken from, what is compared on, and what is true of that."""
    from segnode.export.request import Calibration, hash_files
    from segnode.picture_files import find_images, read_image

    ranges: list[Path] = []
    check: list[Path] = []
    if options.calibrate:
        ranges = _spread(find_images(options.calibrate, note))
        if not options.check and len(ranges) >= CHECKED:
            check = ranges[CHECKED - 1 :: CHECKED]
            ranges = [path for path in ranges if path not in check]
        elif not options.check:
            note(
                f'INT8 was not checked: fewer than {CHECKED} pictures, so that those that give '
                'ranges have to check as well'
            )
            check = ranges
    if options.check:
        check = _spread(find_images(options.check, note))
    calibration = None
    if ranges:
        pictures = [read_image(path) for path in _progress(ranges, 'reading')]
        calibration = Calibration(pictures=pictures, sha256=hash_files(ranges))
    if not check:
        if options.annotations is not None:
            raise ConfigError('--annotations: expected --check or --calibrate with it')
        return calibration, _rendered(shapes), None
    truth = None
    if options.annotations is not None:
        check, truth = _annotated(options.annotations, check, class_names)
    return calibration, [read_image(path) for path in check], truth


def _rendered(shapes: Sequence[tuple[int, int]]) -> list[Image]:
    """Return frames of a rendered scene, of the sizes that the export is for."""
    from segnode.benchmark.planted import render_frames

    return [frame for hw in shapes or [_RENDERED_HW] for frame in render_frames(hw)]


def _annotated(
    path: Path, pictures: Sequence[Path], class_names: Sequence[str]
) -> tuple[list[Path], Annotations]:
    """Return the annotated ones of pictures, and their truth with positions for image ids."""
    from segnode.evaluation.annotations import GroundTruth
    from segnode.export.parity import reindexed

    found = GroundTruth.read(path, pictures, note)
    ids = {path: found.images[path] for path in pictures if found.images.get(path)}
    if not ids:
        raise ConfigError(f'{path}: expected annotations of pictures that check, found none')
    categories = found.annotations.categories
    if not set(categories) & set(class_names):
        raise ConfigError(
            f'{path}: expected categories of the model ({shown(class_names)}), found none of them '
            f'({shown(categories) or "none at all"}); give class_names, or other annotations'
        )
    truth = reindexed(found.annotations, [image.id for image in ids.values()])
    return list(ids), truth


def _spread(paths: list[Path]) -> list[Path]:
    """Return at most so many of pictures, spread evenly."""
    step = max(len(paths) / MOST_PICTURES, 1.0)
    count = min(len(paths), MOST_PICTURES)
    return [paths[int(n * step)] for n in range(count)]


def _shape(text: str) -> tuple[int, int]:
    found = re.fullmatch(r'(\d{1,5})x(\d{1,5})', text.strip())
    height, width = (int(side) for side in found.groups()) if found else (0, 0)
    if not (32 <= height <= 8192 and 32 <= width <= 8192):
        raise ConfigError(
            f'--shapes: expected height x width of images, as in 480x640, found {text!r}'
        )
    return height, width


def _progress(items: Iterable[Any], label: str) -> Iterable[Any]:
    from tqdm import tqdm

    bar: Iterable[Any] = tqdm(items, desc=label, unit='picture', disable=None, leave=False)
    return bar


def _print(result: dict[str, Any]) -> None:
    say(
        f'{result["model"]} in {result["output"]}: {result["format"]}, {result["precision"]}, '
        f'{result["bytes"] / 1e6:.1f} MB'
    )
    sizes = ', '.join(f'{h}x{w}' for h, w in result['shapes']) or 'any size'
    say(f'network input {sizes}; parts {", ".join(result["parts"])}')
    if result['whole']:
        say(f'pixels in the order {result["channels"]}')
    if result['calibration']:
        say(f'ranges from {result["calibration"]["pictures"]} pictures')
    if result['float32_layers']:
        say(f'layers in fp32: {", ".join(result["float32_layers"])}')
    for line in _agreement(result['agreement']):
        say(line)
    model = shlex.quote(result['output'])
    use = '' if result['whole'] else f'; try: segnode predict photo.jpg --model {model}'
    say(f'export: wrote {result["output"]}{use}')


def _agreement(found: dict[str, Any] | None) -> Iterator[str]:
    """Yield what a comparison with the native network in float32 gave."""
    if found is None:
        yield 'not compared with native fp32, as no picture makes this network input'
        return
    yield (
        f'beside native fp32 on {found["pictures"]} pictures: {found["matched"]} of '
        f'{found["instances_fp32"]} instances found again ({found["instances"]} in all)'
    )
    if 'mask_iou' not in found:
        yield (
            f'of these, boxes at most {found["box_px"]:.2g} px apart, scores at most '
            f'{found["score"]:.2g}, mask probabilities at most {found["mask_probability"]:.2g}'
        )
        return
    yield (
        f'of these, boxes {found["box_px_p50"]:.2g} px apart and at most {found["box_px"]:.3g}, '
        f'scores at most {found["score"]:.2g}, mask IoU {found["mask_iou_p50"]:.4f} and at least '
        f'{found["mask_iou"]:.4f}'
    )
    if found['mask_ap'] is not None:
        truth = 'as annotated' if found['annotated'] else "of fp32's own confident instances"
        yield f'mask AP {found["mask_ap"]:.3f}, fp32 {found["mask_ap_fp32"]:.3f} ({truth})'
