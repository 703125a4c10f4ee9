# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode predict``: images in, COCO results, overlays and average precision out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from segnode.cli import (
    Parser,
    add_config_options,
    check_writable,
    config_from,
    given_settings,
    make_folder,
    note,
    say,
    stage_summary,
    stage_table,
    table,
    write_json,
)
from segnode.errors import ImageError
from segnode.picture_files import find_images

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
"""


@dataclass(slots=True)
class _Run:
    """What a run over images gathers."""

    results: list[dict[str, Any]] = field(default_factory=list)
    stages_ms: list[dict[str, float]] = field(default_factory=list)
    image_ms: list[float] = field(default_factory=list)
    scored_ids: set[Id] = field(default_factory=set)
    failed: int = 0


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
    check_writable(options.json)
    images = find_images(options.images)
    if options.overlay is not None:
        make_folder(options.overlay)
    truth = _read_annotations(options.annotations, images)

    # Torch takes seconds to import: after every mistake in the options has been found.
    from segnode.checkpoint import NativeModel, load_model
    from segnode.engine import Engine

    model = load_model(config, note)
    if isinstance(model, NativeModel) and 'precision' not in given_settings(options):
        config = config.replace({'precision': 'fp32'})
    engine = Engine(config, report=note, model=model)
    run = _predict(engine, images, truth, options.overlay)
    _print_tables(engine, run)
    report: Any = run.results
    if truth is not None:
        report = _score(truth.annotations, run)
    if options.json is not None:
        write_json(options.json, report)
    p50 = f'{np.median(run.image_ms):.1f}' if run.image_ms else '-'
    say(
        f'predict: images={len(run.image_ms)} instances={len(run.results)} failed={run.failed} '
        f'milliseconds_p50={p50}'
    )
    return 1 if run.failed else 0


def _read_annotations(path: Path | None, images: Sequence[Path]) -> GroundTruth | None:
    if path is None:
        return None
    from segnode.evaluation.annotations import GroundTruth

    return GroundTruth.read(path, images, note)


def _predict(
    engine: Engine, paths: list[Path], truth: GroundTruth | None, overlay: Path | None
) -> _Run:
    from tqdm import tqdm

    from segnode.evaluation.metrics import coco_results, common_categories
    from segnode.picture_files import read_image

    names = engine.class_names
    categories: Sequence[Id | None] = engine.category_ids or range(len(names))
    if truth is not None:
        categories = common_categories(names, truth.annotations, truth.image_ids, note)
    run = _Run()
    drawn: set[str] = set()
    for position, path in enumerate(tqdm(paths, unit='image', disable=None, leave=False)):
        image_id: Id = position
        file_name = path.name
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
            image = read_image(path)
            if annotated is not None:
                check_size(path, image, annotated.image_hw)
        except ImageError as error:
            note(f'error: {error}')
            run.failed += 1
            continue
        if not run.image_ms:
            engine.warm_up((image.height, image.width))
        start = time.perf_counter()
        (prediction,) = engine.predict([image])
        run.image_ms.append((time.perf_counter() - start) * 1e3)
        run.stages_ms.append(prediction.stage_ms)
        run.results += coco_results(
            prediction.detections,
            (prediction.rle(i) for i in range(len(prediction.detections))),
            image_id=image_id,
            file_name=file_name,
            class_names=names,
            category_ids=categories,
        )
        if overlay is not None:
            target = next(name for name in _file_names(path.stem) if name not in drawn)
            drawn.add(target)
            _write_overlay(overlay / target, image, prediction, names)
    return run


def check_size(path: Path, image: Image, image_hw: tuple[int, int]) -> None:
    """Raise ImageError unless an image has the annotated (H, W)."""
    if (image.height, image.width) != image_hw:
        raise ImageError(
            f'{path}: expected {image_hw[1]} x {image_hw[0]} pixels as annotated, '
            f'found {image.width} x {image.height}'
        )


def _file_names(stem: str) -> Iterator[str]:
    """Yield ``stem.jpg``, then numbered ones: two folders may hold the same name."""
    yield f'{stem}.jpg'
    number = 2
    while True:
        yield f'{stem}_{number}.jpg'
        number += 1


def _write_overlay(
    path: Path, image: Image, prediction: Prediction, class_names: Sequence[str]
) -> None:
    from segnode.live.overlay import draw_overlay

    labels = prediction.label_image()
    write_picture(path, draw_overlay(image, prediction.detections, labels, class_names))


def write_picture(path: Path, bgr: npt.NDArray[np.uint8]) -> None:
    """Write a (H, W, 3) uint8 BGR picture; the suffix picks the format.

    Raises:
        ImageError: the file cannot be written.
    """
    _, data = cv2.imencode(path.suffix, bgr)
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise ImageError(f'{path}: cannot be written ({error.strerror})') from None


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
