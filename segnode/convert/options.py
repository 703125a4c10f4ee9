# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The options of ``segnode convert``, and which of them go together."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from segnode.cli import Parser
from segnode.errors import ConfigError

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

IMAGES, VIDEO, LABELS = 'images', 'a video', '--labels'
OPTIONS = {
    IMAGES: ('rate', 'topic', 'frame_id', 'start_stamp', 'raw', 'annotations'),
    VIDEO: ('rate', 'topic', 'frame_id', 'start_stamp', 'raw', 'quality'),
    LABELS: ('labels', 'class_name'),
}
"""What may be given besides the paths and ``--json``, by what is converted."""
_FLAGS = {'class_name': '--class', 'frame_id': '--frame-id', 'start_stamp': '--start-stamp'}

_FASTEST_HZ = 1_000_000
_NUMBER = re.compile(r'[0-9]{1,12}(\.[0-9]{1,12})?(/[0-9]{1,12})?')
_TOPIC = re.compile(r'(/[A-Za-z_][A-Za-z0-9_]*)+')


def read_options(args: Sequence[str]) -> argparse.Namespace:
    """Return the options, ``kind`` among them: what is converted, one of `OPTIONS`.

    Raises:
        ConfigError: an option does not go with it, or has no usable value.
    """
    # Sources may stand before and behind options.
    options = _parser().parse_intermixed_args(args)
    options.kind = _kind(options)
    return options


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
    """Return what is converted; it raises what `read_options` does."""
    from segnode.convert.video import VIDEO_SUFFIXES

    videos = [path for path in options.sources if path.suffix.lower() in VIDEO_SUFFIXES]
    videos = [path for path in videos if not path.is_dir()]
    kind = LABELS if options.labels is not None else VIDEO if videos else IMAGES
    if kind != IMAGES and len(options.sources) > 1:
        what = 'a bag with --labels' if kind == LABELS else f'the video {videos[0]}'
        raise ConfigError(f'expected {what} alone, found {len(options.sources)} sources')
    for name in dict.fromkeys(name for names in OPTIONS.values() for name in names):
        if getattr(options, name) not in (None, False) and name not in OPTIONS[kind]:
            flag = _FLAGS.get(name, f'--{name}')
            goes = ' or '.join(other for other, names in OPTIONS.items() if name in names)
            raise ConfigError(f'{flag}: expected with {goes}, found with {kind}; leave it out')
    if options.topic is not None and not _TOPIC.fullmatch(options.topic):
        raise ConfigError(
            f'--topic: expected an absolute name such as {TOPIC}, found {options.topic!r}'
        )
    if options.frame_id is not None and not options.frame_id.isprintable():
        raise ConfigError(f'--frame-id: expected a text, found {options.frame_id!r}')
    if options.rate is not None and options.rate > _FASTEST_HZ:
        raise ConfigError(f'--rate: expected at most {_FASTEST_HZ}, found {float(options.rate):g}')
    if options.quality is not None and not 1 <= options.quality <= 100:
        raise ConfigError(f'--quality: expected 1 to 100, found {options.quality}')
    return kind
