# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode convert``: the way from files to a bag, and from a bag to annotations."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from segnode.cli import note, say
from segnode.convert.options import (
    CLASS,
    FRAME_ID,
    IMAGES,
    LABELS,
    QUALITY,
    RATE_HZ,
    START_S,
    TOPIC,
    VIDEO,
    read_options,
)
from segnode.errors import ConfigError, ImageError
from segnode.output_files import (
    Inputs,
    check_outside,
    check_writable,
    is_own_json,
    write_json,
    write_whole,
)
from segnode.picture_files import find_images

if TYPE_CHECKING:
    from segnode.convert.frames import Clock, Frame, Place, Written
    from segnode.evaluation.annotations import GroundTruth

_ANNOTATIONS = 'instances.json'
_OWN_SUMMARY = r'\{"output": "'


def main(args: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, or 1 when an image or a frame could not be used.

    Raises:
        SegnodeError: nothing could be done at all.
    """
    options = read_options(args)
    convert = {IMAGES: _images, VIDEO: _video, LABELS: _labels}[options.kind]
    summary: dict[str, Any] = {'output': str(options.output)} | convert(options)
    if options.json is not None:
        write_json(options.json, summary)
    left_out = sum(summary['left_out'].values())
    say(
        f'convert: frames={summary["frames"]} topics={len(summary["topics"])} '
        f'bytes={summary["bytes"]} left_out={left_out}'
    )
    return 1 if left_out else 0


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
        left_out: Counter[str] = Counter()
        quality = options.quality or QUALITY
        frames = video.frames(note, left_out, quality=quality, raw=place.raw)
        written = _write_bag(options, frames, video.announced or None, clock, place)
    return _summary(options, written, clock, place) | {'left_out': dict(left_out)}


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

    annotations = options.output / _ANNOTATIONS
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
        left_out = Counter(bag.damage.skipped)
        messages = bag.topics[options.labels].messages or 0
        if (rest := messages - len(dataset['images']) - left_out.total()) > 0:
            left_out['label images that cannot be used'] = rest
    data = _as_text(marked(dataset))
    write_whole(options.output, data)
    return {
        'frames': len(dataset['images']),
        'topics': [options.labels],
        'bytes': len(data),
        'annotations': len(dataset['annotations']),
        'left_out': dict(left_out),
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
        ConfigError: they cannot, or there are annotations that are not segnode's.
    """
    for name in ('bag.mcap', 'metadata.yaml', _ANNOTATIONS):
        if options.output / name in inputs:
            raise ConfigError(
                f'{options.output}: expected another folder than that of the inputs, as this run '
                f'reads {name} there; choose another'
            )
    annotations = options.output / _ANNOTATIONS
    if os.path.lexists(annotations):
        from segnode.convert.truth import OWN_BEGINNING

        # Those of an earlier bag go, with or without new ones.
        check_writable(annotations, inputs, is_own_json(OWN_BEGINNING))
    check_outside(options.json, options.output)
    check_writable(options.json, inputs, is_own_json(_OWN_SUMMARY))


def _as_text(dataset: dict[str, Any]) -> bytes:
    return f'{json.dumps(dataset)}\n'.encode()
