# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode predict``: images in, COCO results, overlays and average precision out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segnode.cli import (
    Parser,
    add_config_options,
    config_from,
    given_settings,
    note,
    say,
    stage_summary,
    stage_table,
    table,
)
from segnode.errors import (
    ImageError,
    OutputError,
    SegnodeError,
    first_line,
    is_out_of_memory,
)
from segnode.output_files import Inputs, check_writable, is_own_json, write_json
from segnode.overlay_files import overlay_paths, write_overlay
from segnode.picture_files import Remarks, distinct_names, find_images, read_image

if TYPE_CHECKING:
    from segnode.engine import Engine, Prediction
    from segnode.evaluation.annotations import Annotations, GroundTruth
    from segnode.evaluation.entries import Id
    from segnode.image import Image

_EXAMPLES = """\
  segnode predict photo.jpg --overlay out/
  segnode predict photos/ --json results.json --score-threshold 0.5
  segnode predict val2017/ --annotations instances_val2017.json --model mask_rcnn_R_50_FPN_3x
  segnode predict val2017/ --model config.yaml --weights model_final.pth --device cuda:0

Settings that are not given are the model's own, and the precision is fp32, so that the answer is
the reference's; --precision auto gives the node's. Of a folder every image is taken, in the order
of names, without its subfolders. With --annotations, exactly the images given are scored: one
that cannot be read counts as missed, one without annotations is left out.

An image that fails is named and counted, and the others are done; after Ctrl-C what is done is
written. In the results image_id is the position of an image, and file_name its name, with folders
where two images have the same name; with --annotations both are the annotations'. Earlier results
of this command are replaced, other files never: --json refuses them, and a picture whose name is
taken gets a number. --overlay takes no folder whose images are read.
"""

_TEXT = r'"(?:[^"\\]|\\.)*"'
_OWN_JSON = (
    r'\[\]\s*$|\{"results": \[|'
    rf'\[\{{"image_id": (?:-?\d+|{_TEXT}), "file_name": {_TEXT}, '
    rf'"category_id": (?:-?\d+|{_TEXT}), "category_name": "'
)
_SAME_FAILURES = 10
"""So many images in a row fail alike when the device or the disk is at fault, not an image."""


@dataclass(slots=True)
class _Run:
    """What a run over images gathers."""

    results: list[dict[str, Any]] = field(default_factory=list)
    stages_ms: list[dict[str, float]] = field(default_factory=list)
    image_ms: list[float] = field(default_factory=list)
    scored_ids: set[Id] = field(default_factory=set)
    failed: int = 0
    last_failure: str = ''
    failures_in_a_row: int = 0
    remarks: Remarks = field(default_factory=lambda: Remarks(note))

    @property
    def begun(self) -> bool:
        """Whether at least one image was dealt with."""
        return bool(self.image_ms or self.failed)

    def fail(self, path: Path, error: Exception) -> bool:
        """Name and count an image that failed.

        Returns:
            Whether so many in a row failed alike that the next one would, too.
        """
        text = str(error)
        if not isinstance(error, SegnodeError):
            text = f'{type(error).__name__}: {first_line(error)}'
        text = text.removeprefix(f'{path}: ')
        note(f'error: {path}: {text}')
        self.failed += 1
        # The next image may be whole, or smaller.
        of_this_image = isinstance(error, ImageError) or is_out_of_memory(error)
        reason = '' if of_this_image else text.rpartition(': ')[2]
        self.failures_in_a_row = self.failures_in_a_row + 1 if reason == self.last_failure else 1
        self.last_failure = reason
        return bool(reason) and self.failures_in_a_row == _SAME_FAILURES


def main(args: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, or 1 when an image could not be used.

    Raises:
        SegnodeError: nothing could be done at all.
    """
    parser = Parser('predict', 'Segment images, offline, with the engine of the node.', _EXAMPLES)
    parser.add_argument('images', nargs='+', type=Path, metavar='IMAGE|FOLDER')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write COCO results')
    parser.add_argument('--overlay', type=Path, metavar='DIR', help='write pictures with masks')
    parser.add_argument(
        '--annotations', type=Path, metavar='FILE', help='COCO instances: print box and mask AP'
    )
    add_config_options(parser)
    options = parser.parse_args(args)
    config = config_from(options)
    images = find_images(options.images, note)
    inputs = Inputs.of(config, options.annotations, *images)
    overlays = overlay_paths(options.overlay, options.images, images, inputs, note)
    inputs.add(*overlays)
    check_writable(options.json, inputs, is_own_json(_OWN_JSON))
    truth = _read_annotations(options.annotations, images)

    # Torch takes seconds to import: after every mistake in the options has been found.
    from segnode.checkpoint import NativeModel, load_model
    from segnode.engine import Engine

    model = load_model(config, note)
    if isinstance(model, NativeModel) and 'precision' not in given_settings(options):
        config = config.replace({'precision': 'fp32'})
    engine = Engine(config, report=note, model=model)
    run, interrupted = _Run(), False
    try:
        _predict(engine, images, truth, overlays, run)
    except KeyboardInterrupt:
        interrupted = True
        note(f'interrupted: {len(run.image_ms)} of {len(images)} images are done')
    finally:
        # Whatever ended the run, nothing that is finished is lost.
        if run.begun:
            _conclude(engine, run, truth, options.json)
    if interrupted:
        return 130
    return 1 if run.failed else 0


def _conclude(
    engine: Engine, run: _Run, truth: GroundTruth | None, json_path: Path | None
) -> None:
    """Write the results, print the tables and the last line."""
    run.remarks.close()
    _print_tables(engine, run)
    report: Any = run.results
    if truth is not None:
        report = _score(truth.annotations, run)
    if json_path is not None:
        write_json(json_path, report)
    p50 = f'{np.median(run.image_ms):.1f}' if run.image_ms else '-'
    say(
        f'predict: images={len(run.image_ms)} instances={len(run.results)} failed={run.failed} '
        f'milliseconds_p50={p50}'
    )


def _read_annotations(path: Path | None, images: Sequence[Path]) -> GroundTruth | None:
    if path is None:
        return None
    from segnode.evaluation.annotations import GroundTruth

    return GroundTruth.read(path, images, note)


def _predict(
    engine: Engine,
    paths: list[Path],
    truth: GroundTruth | None,
    overlays: list[Path],
    run: _Run,
) -> None:
    from tqdm import tqdm

    from segnode.evaluation.metrics import coco_results, common_categories
    from segnode.live.labels import undrawable

    names = engine.class_names
    categories: Sequence[Id | None] = engine.category_ids or range(len(names))
    if truth is not None:
        categories = common_categories(names, truth.annotations, truth.image_ids, note)
    if overlays and (line := undrawable(names)):
        note(line)
    file_names = distinct_names(paths)
    for position, path in enumerate(tqdm(paths, unit='image', disable=None, leave=False)):
        image_id: Id = position
        file_name = file_names[position]
        annotated = None
        try:
            if truth is not None:
                annotated = truth.images.get(path)
                if annotated is None:
                    continue
                image_id, file_name = annotated.id, annotated.file_name
                if image_id in run.scored_ids:
                    raise ImageError(f'{path}: given twice, an image is scored once')
                run.scored_ids.add(image_id)
            image = read_image(path, run.remarks)
            if annotated is not None:
                check_size(path, image, annotated.image_hw)
            prediction = _segment(engine, image, run)
            run.results += coco_results(
                prediction.detections,
                (prediction.rle(i) for i in range(len(prediction.detections))),
                image={'image_id': image_id, 'file_name': file_name},
                class_names=names,
                category_ids=categories,
            )
            if overlays:
                write_overlay(overlays[position], image, prediction, names)
        except Exception as error:  # noqa: BLE001 - no image stops the others
            if not run.fail(path, error):
                continue
            if not isinstance(error, OutputError):
                left = len(paths) - position - 1
                note(f'stopped, as {_SAME_FAILURES} images in a row failed alike; {left} are left')
                break
            note(f'no more overlays, as {_SAME_FAILURES} in a row could not be written')
            overlays = []
        except KeyboardInterrupt:
            # An image in the middle of its work was neither found nor missed.
            run.scored_ids.difference_update([] if annotated is None else [annotated.id])
            raise
        else:
            run.last_failure = ''


def _segment(engine: Engine, image: Image, run: _Run) -> Prediction:
    """Run the engine on an image, warmed up before the first, and note its times."""
    if not run.image_ms:
        engine.warm_up((image.height, image.width))
    start = time.perf_counter()
    (prediction,) = engine.predict([image])
    run.image_ms.append((time.perf_counter() - start) * 1e3)
    run.stages_ms.append(prediction.stage_ms)
    return prediction


def check_size(path: Path, image: Image, image_hw: tuple[int, int]) -> None:
    """Raise ImageError unless an image has the annotated (H, W)."""
    if (image.height, image.width) != image_hw:
        raise ImageError(
            f'{path}: expected {image_hw[1]} x {image_hw[0]} pixels as annotated, '
            f'found {image.width} x {image.height}'
        )


def _print_tables(engine: Engine, run: _Run) -> None:
    s = engine.settings
    say(
        f'model {engine.model_name}, {len(engine.class_names)} classes, weights '
        f'{engine.weights_sha256[:12]}, {engine.device}, {engine.precision}; '
        f'sides {s.short_side} to {s.long_side} px, score threshold {s.score_threshold:g}'
    )
    if not run.image_ms:
        return
    say()
    say(stage_table(stage_summary(run.stages_ms)))
    counts = Counter(result['category_name'] for result in run.results)
    if counts:
        say()
        rows = [(name, str(count)) for name, count in counts.most_common(10)]
        if len(counts) > 10:
            rest = sum(count for _, count in counts.most_common()[10:])
            rows.append((f'{len(counts) - 10} more classes', str(rest)))
        say(table(('class', 'instances'), rows))
    say()


def _score(annotations: Annotations, run: _Run) -> dict[str, Any]:
    from segnode.evaluation.metrics import average_precision

    images = run.scored_ids
    if len(images) < len(annotations.images):
        note(f'scored on the {len(images)} images given of {len(annotations.images)} annotated')
    box = average_precision(annotations, run.results, 'bbox', images)
    mask = average_precision(annotations, run.results, 'segm', images)
    rows = [
        (name, *('-' if value is None else f'{value:.3f}' for value in (score.ap, score.ap50)))
        for name, score in (('box', box), ('mask', mask))
    ]
    say(table((f'{len(images)} images', 'AP', 'AP50'), rows))
    say()
    return {
        'results': run.results,
        'box_ap': box.ap,
        'box_ap50': box.ap50,
        'mask_ap': mask.ap,
        'mask_ap50': mask.ap50,
        'images': len(images),
        'milliseconds_p50': float(np.median(run.image_ms)) if run.image_ms else None,
    }
