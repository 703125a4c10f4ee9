# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode convert``: its options, and the way from files to a bag or back."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segnode.cli import Parser, note, say
from segnode.errors import ConfigError, ImageError
from segnode.output_files import Inputs, check_writable, is_own_json, write_json, write_whole
from segnode.picture_files import find_images

if TYPE_CHECKING:
    from segnode.convert.frames import Clock, Frame, Place, Written
    from segnode.evaluation.annotations import GroundTruth

RATE_HZ = Fraction(10)
TOPIC = '/camera/image'
FRAME_ID = 'camera'
START_S = Fraction(1_700_000_000)
QUALITY = 95
CLASS = 'object'

_EXAMPLES = f"""\
  segnode convert photos/ bag
  segnode convert val2017/ --annotations instances_val2017.json --rate 5 bag
  segnode convert drive.mp4 bag --topic /front/image --frame-id front_optical
  segnode convert recorded_bag/ instances.json --labels /camera/labels --class cone

Of a folder every image is taken, in the order of names, without its subfolders. The first stamp
is {START_S} s (14 November 2023), each later one a multiple of 1 / rate behind it to the nearest
nanosecond, so that the same files give the same bag, byte for byte. A video has its own rate.

JPEG files and PNG files of 8 bits pass unchanged, on the topic with /compressed behind it. What
the node would see otherwise than predict goes there as a PNG of what predict sees: pictures that
an EXIF orientation turns, which the node passes over, CMYK, 16 bits and all other formats. So
annotations that fit one fit the other. --raw writes sensor_msgs/Image bgr8 instead.

With --annotations the folder of the bag gets an instances.json, for `evaluate --annotations`: the
entries of the pictures that are in the bag, each with the topic, the number and the stamp of its
message. With --labels the result is such a file, out of a topic of label images (0 is background,
every other value an object). An image that cannot be read is named and left out, and the exit
code is 1. Earlier bags and files of this command are replaced, others never.
"""

_OPTIONS = {
    'images': ('rate', 'topic', 'frame_id', 'start_stamp', 'raw', 'annotations'),
    'a video': ('rate', 'topic', 'frame_id', 'start_stamp', 'raw', 'quality'),
    '--labels': ('labels', 'class_name'),
}
"""What may be given besides the paths and ``--json``, by what is converted."""
_FLAGS = {'class_name': '--class', 'frame_id': '--frame-id', 'start_stamp': '--start-stamp'}

_NUMBER = re.compile(r'[0-9]{1,12}(\.[0-9]{1,12})?(/[0-9]{1,12})?')
_TOPIC = re.compile(r'(/[A-Za-z_][A-Za-z0-9_]*)+')
_OWN_SUMMARY = r'\{"output": "'


def main(args: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, or 1 when an image could not be used.

    Raises:
        SegnodeError: nothing could be done at all.
    """
    # Sources may stand before and behind options.
    options = _parser().parse_intermixed_args(args)
    kind = _kind(options)
    convert = {'images': _images, 'a video': _video, '--labels': _labels}[kind]
    summary: dict[str, Any] = {'output': str(options.output)} | convert(options)
    if options.json is not None:
        write_json(options.json, summary)
    left_out = sum(summary['left_out'].values())
    say(
        f'convert: frames={summary["frames"]} topics={len(summary["topics"])} '
        f'bytes={summary["bytes"]} left_out={left_out}'
    )
    return 1 if left_out else 0


def _parser() -> Parser:
    parser = Parser(
        'convert',
        'Turn images or a video into a bag, or the label images of a bag into annotations.',
        _EXAMPLES,
    )
    add = parser.add_argument
    add('sources', nargs='+', type=Path, metavar='SOURCE', help='images, folders, a video, a bag')
    add('output', type=Path, metavar='BAG', help='folder of the new bag; with --labels a file')
    add('--rate', type=_number, metavar='HZ', help=f'frames a second, as 30000/1001 ({RATE_HZ})')
    add('--topic', metavar='NAME', help=f'raw topic of the camera ({TOPIC})')
    add('--frame-id', metavar='TEXT', help=f'frame of the headers ({FRAME_ID})')
    add('--start-stamp', type=_number, metavar='S', help=f'of the first frame ({START_S})')
    add('--raw', action='store_true', help='write raw images instead of JPEG and PNG')
    add('--quality', type=int, metavar='1..100', help=f"of a video's JPEGs ({QUALITY})")
    add('--annotations', type=Path, metavar='FILE', help='COCO instances of the images')
    add('--labels', metavar='TOPIC', help='of label images to make annotations of')
    add('--class', dest='class_name', metavar='NAME', help=f'of these objects ({CLASS})')
    add('--json', type=Path, metavar='FILE', help='write a summary')
    return parser


def _number(text: str) -> Fraction:
    """Return a positive number as it is written, without rounding."""
    try:
        if _NUMBER.fullmatch(text) and (value := Fraction(text)) > 0:
            return value
    except (ValueError, ZeroDivisionError):
        pass
    raise argparse.ArgumentTypeError(f'expected a positive number such as 12.5, found {text!r}')


def _kind(options: argparse.Namespace) -> str:
    """Return what is converted.

    Raises:
        ConfigError: an option does not go with it, or has no usable value.
    """
    from segnode.convert.video import VIDEO_SUFFIXES

    videos = [path for path in options.sources if path.suffix.lower() in VIDEO_SUFFIXES]
    videos = [path for path in videos if not path.is_dir()]
    kind = '--labels' if options.labels is not None else 'a video' if videos else 'images'
    if kind != 'images' and len(options.sources) > 1:
        what = 'a bag with --labels' if kind == '--labels' else f'the video {videos[0]}'
        raise ConfigError(f'expected {what} alone, found {len(options.sources)} sources')
    for name in dict.fromkeys(name for names in _OPTIONS.values() for name in names):
        if getattr(options, name) not in (None, False) and name not in _OPTIONS[kind]:
            flag = _FLAGS.get(name, f'--{name}')
            goes = ' or '.join(other for other, names in _OPTIONS.items() if name in names)
            raise ConfigError(f'{flag}: expected with {goes}, found with {kind}; leave it out')
    if options.topic is not None and not _TOPIC.fullmatch(options.topic):
        raise ConfigError(
            f'--topic: expected an absolute name such as {TOPIC}, found {options.topic!r}'
        )
    if options.quality is not None and not 1 <= options.quality <= 100:
        raise ConfigError(f'--quality: expected 1 to 100, found {options.quality}')
    return kind


def _images(options: argparse.Namespace) -> dict[str, Any]:
    from segnode.convert.pictures import picture_frames

    paths = find_images(options.sources, note)
    inputs = Inputs([*paths, *([options.annotations] if options.annotations else [])])
    _check_outputs(options, inputs)
    clock, place = _clock(options, RATE_HZ), _place(options)
    truth = None
    if options.annotations is not None:
        from segnode.evaluation.annotations import GroundTruth

        truth = GroundTruth.read(options.annotations, paths, note)
    left_out: Counter[str] = Counter()
    frames = picture_frames(paths, note, left_out, raw=place.raw)
    written = _write_bag(options, frames, len(paths), clock, place, truth)
    return _summary(options, written, clock, place) | {'left_out': dict(left_out)}


def _video(options: argparse.Namespace) -> dict[str, Any]:
    from segnode.convert.video import Video

    (path,) = options.sources
    _check_outputs(options, Inputs([path]))
    place = _place(options)
    with Video(path) as video:
        clock = _clock(options, options.rate or video.rate_hz())
        frames = video.frames(note, quality=options.quality or QUALITY, raw=place.raw)
        written = _write_bag(options, frames, video.announced or None, clock, place)
    return _summary(options, written, clock, place) | {'left_out': {}}


def _write_bag(
    options: argparse.Namespace,
    frames: Iterable[Frame],
    total: int | None,
    clock: Clock,
    place: Place,
    truth: GroundTruth | None = None,
) -> list[Written]:
    """Write the bag and its annotations; return what is in it."""
    from tqdm import tqdm

    from segnode.bags.writer import BagWriter
    from segnode.convert.frames import write_frames

    annotations = _annotations_path(options.output)
    with BagWriter(options.output) as writer:
        bar = tqdm(frames, total=total, unit='frame', disable=None, leave=False)
        written = list(write_frames(bar, writer, place, clock))
        if not written:
            raise ImageError(
                f'{", ".join(map(str, options.sources))}: expected at least one frame that can '
                'be read, found none; no bag is written'
            )
        # They would be those of an earlier bag.
        annotations.unlink(missing_ok=True)
    if truth is not None:
        from segnode.convert.truth import annotations_of_frames, marked

        dataset = annotations_of_frames(options.annotations, truth, written, place.topic, note)
        write_whole(annotations, _as_text(marked(dataset)))
    return written


def _labels(options: argparse.Namespace) -> dict[str, Any]:
    """Write annotations out of a topic of label images."""
    from segnode.bags.bag import open_bag
    from segnode.convert.truth import OWN_BEGINNING, marked
    from segnode.evaluation.label_truth import annotations_of_labels

    (path,) = options.sources
    with open_bag(path, note) as bag:
        inputs = Inputs(bag.files)
        check_writable(options.output, inputs, is_own_json(OWN_BEGINNING))
        inputs.add(options.output)
        check_writable(options.json, inputs, is_own_json(_OWN_SUMMARY))
        dataset = annotations_of_labels(
            bag, options.labels, note, class_name=options.class_name or CLASS
        )
        left_out = dict(bag.damage.skipped)
    data = _as_text(marked(dataset))
    write_whole(options.output, data)
    return {
        'frames': len(dataset['images']),
        'topics': [options.labels],
        'bytes': len(data),
        'annotations': len(dataset['annotations']),
        'left_out': left_out,
    }


def _summary(
    options: argparse.Namespace, written: Sequence[Written], clock: Clock, place: Place
) -> dict[str, Any]:
    files = [path for path in options.output.glob('*.mcap') if path.is_file()]
    return {
        'frames': len(written),
        'topics': [place.topic],
        'type': place.type_name,
        'bytes': sum(path.stat().st_size for path in files),
        'rate_hz': float(clock.rate_hz),
        'first_ns': written[0].stamp_ns,
        'last_ns': written[-1].stamp_ns,
    }


def _clock(options: argparse.Namespace, rate_hz: Fraction) -> Clock:
    from segnode.convert.frames import Clock

    start_ns = round((options.start_stamp or START_S) * 1_000_000_000)
    return Clock(start_ns, options.rate or rate_hz)


def _place(options: argparse.Namespace) -> Place:
    from segnode.convert.frames import Place

    frame_id = FRAME_ID if options.frame_id is None else options.frame_id
    return Place.of(options.topic or TOPIC, frame_id, raw=options.raw)


def _check_outputs(options: argparse.Namespace, inputs: Inputs) -> None:
    """Make sure that a bag and a summary can be written over nothing that is read.

    Raises:
        ConfigError: they cannot.
    """
    for name in ('bag.mcap', 'metadata.yaml', 'instances.json'):
        if options.output / name in inputs:
            raise ConfigError(
                f'{options.output}: expected another folder than that of the inputs, as this run '
                f'reads {name} there; choose another'
            )
    inputs.add(options.output / 'instances.json')
    check_writable(options.json, inputs, is_own_json(_OWN_SUMMARY))


def _annotations_path(bag: Path) -> Path:
    return bag / 'instances.json'


def _as_text(dataset: dict[str, Any]) -> bytes:
    return f'{json.dumps(dataset)}\n'.encode()
