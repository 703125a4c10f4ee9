# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode demo``: a camera, the real node and a planner, each in a process of its own.

This process imports no ROS: it renders the scene, directs the three, and scores what the planner
wrote down.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import yaml

from segnode.cli import (
    Parser,
    add_config_options,
    given_settings,
    note,
    say,
    stage_summary,
    stage_table,
    table,
)
from segnode.config import Config
from segnode.demo.processes import Phase, Show, progress, require_ros
from segnode.demo.scene import DEMO_SEEDS, Scene, coco_annotations
from segnode.errors import AnnotationError, ConfigError, ImageError, SegnodeError
from segnode.evaluation.annotations import Annotations, GroundTruth
from segnode.evaluation.metrics import (
    AveragePrecision,
    average_precision,
    categories_by_name,
    coco_results,
    common_categories,
    label_image_rles,
)
from segnode.output_files import (
    Inputs,
    check_outside,
    check_own_folder,
    check_writable,
    is_own_folder,
    is_own_json,
    make_folder,
    make_own_folder,
    write_json,
    write_whole,
)
from segnode.percentiles import Percentiles
from segnode.picture_files import Remarks, find_images, read_image
from segnode.predict import check_size
from segnode.shipped import shipped_file
from segnode.written_pictures import is_own_picture, write_picture

IMAGE_HW = (480, 640)
SCENES = len(DEMO_SEEDS)
WARM_UP_FRAMES = 12
LOAD = 0.3
"""Share of what the machine can do that the steady part asks for."""
SCENE_RATE_HZ = (2.2, 30.0)
PHOTO_RATE_HZ = (0.1, 30.0)
BURST_FACTOR = 5.0
BURST_FRAMES = 60
BURST_IMAGES = 30
OVERLAY_SCORE = 0.5
OUTPUT = Path('segnode-demo')
_WRITTEN = (
    'answers/answers.jsonl',
    'camera.json',
    'camera.log',
    'node.log',
    'overlay.png',
    'parameters.yaml',
    'planner.log',
)
"""What every run writes anew in the output folder."""
_OWN_JSON = r'\{"frames": \d+, "published": \d+, "dropped": '

_EXAMPLES = """\
  segnode demo
  segnode demo --frames 300 --seed 3 --output /tmp/demo --json demo.json
  segnode demo --images photos/ --model mask_rcnn_R_50_FPN_3x
  segnode demo --images val/ --annotations instances.json --model config.yaml --weights w.pth

The scene runs with the shipped config/seg.yaml. Photographs run with the model's own thresholds
and resolution, as in `segnode predict`, so that the scores compare. Options beat both. The steady
part plays at a fixed rate, by default 30% of what the warm-up measured (the scene at 2.2 Hz or
more); the burst plays five times as fast as the machine can follow. The last line counts the
steady part and the burst; mask_ap and box_ap are `-` without annotations.
--output takes a new folder or an earlier one of the demo, which it writes anew.
"""


@dataclass(frozen=True, slots=True)
class Material:
    """What the camera plays, and the truth about it where it is known."""

    paths: list[Path]
    annotations: Annotations | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the planner got for one frame: rows as it wrote them, and the label image's file."""

    detections: list[dict[str, Any]]
    label_path: Path

    def label_image(self) -> npt.NDArray[np.uint16]:
        """Return the (H, W) uint16 label image."""
        labels = cv2.imread(str(self.label_path), cv2.IMREAD_UNCHANGED)
        if labels is None:
            raise ImageError(f'{self.label_path}: cannot be read')
        return np.asarray(labels, np.uint16)


def main(args: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, or 1 when a frame is unaccounted for.

    Raises:
        SegnodeError: a process failed, or an input cannot be used.
    """
    options = _options(args)
    settings = given_settings(options)
    config = Config().replace(settings)
    output = (options.output or _free_output()).resolve()
    _check_outputs(options, config, output)
    require_ros()
    if options.images is None:
        make_own_folder(output, 'demo')
        material = render_scene(options.seed, options.frames or 150, output / 'frames')
        floor, ceiling = SCENE_RATE_HZ
    else:
        material = photographs(options.images, options.annotations, options.frames)
        make_own_folder(output, 'demo')
        settings = {**_scalars(Config().flat()), **settings}
        floor, ceiling = PHOTO_RATE_HZ
    with Show(output, material.paths, _parameter_files(settings, output)) as show:
        note('starting camera, node and planner')
        show.start()
        compare_classes(material, show.class_names)
        count = len(material.paths)
        some = np.linspace(0, count - 1, min(WARM_UP_FRAMES, count)).astype(int)
        frame_s = show.warm_up(some.tolist())
        rate_hz = options.rate or min(max(LOAD / frame_s, floor), ceiling)
        note(f'{frame_s * 1e3:.0f} ms a frame; playing {count} frames at {rate_hz:.1f} Hz')
        steady = show.play('steady', range(count), rate_hz, preload=False)
        rate_hz = BURST_FACTOR / frame_s
        note(f'a burst of {BURST_FRAMES} frames at {rate_hz:.1f} Hz')
        indices = [index % min(count, BURST_IMAGES) for index in range(BURST_FRAMES)]
        burst = show.play('burst', indices, rate_hz, preload=True)
        show.stop()
    return _report(material, steady, burst, output, options.json)


def _free_output() -> Path:
    """Return the default folder, numbered where other files than the demo's lie in it."""
    output, number = OUTPUT, 2
    while not is_own_folder(output, 'demo'):
        output, number = OUTPUT.with_name(f'{OUTPUT.name}-{number}'), number + 1
    if output != OUTPUT:
        note(f"{OUTPUT} holds files that are not known as the demo's: taking {output}")
    return output


def _check_outputs(options: argparse.Namespace, config: Config, output: Path) -> None:
    """Refuse what would replace a file that the demo reads, or that is somebody else's.

    Raises:
        ConfigError: names it.
    """
    inputs = Inputs.of(config, options.annotations)
    if options.images is not None:
        inputs.add(*(options.images.iterdir() if options.images.is_dir() else [options.images]))
    check_outside(options.json, output)
    check_writable(options.json, inputs, is_own_json(_OWN_JSON))
    for name in _WRITTEN:
        if output / name in inputs:
            raise ConfigError(
                f'{output}: expected another --output: {output / name} is read, and would be '
                'replaced'
            )
    check_own_folder(output, 'demo')


def _options(args: Sequence[str]) -> argparse.Namespace:
    parser = Parser('demo', 'Camera, node and planner over DDS, scored and timed.', _EXAMPLES)
    add = parser.add_argument
    add('--images', type=Path, metavar='FOLDER', help='photographs to play, not the scene')
    add('--annotations', type=Path, metavar='FILE', help='COCO instances of the photographs')
    add('--frames', type=int, metavar='N', help='frames of the steady part [150, all photographs]')
    add('--rate', type=float, metavar='HZ', help='rate of the steady part [what the machine can]')
    add('--seed', type=int, metavar='N', default=0, help='which scene, 0 to 999 [0]')
    add('--output', type=Path, metavar='DIR', help=f'[{OUTPUT}]')
    add('--json', type=Path, metavar='FILE', help='write all figures')
    add_config_options(parser)
    options = parser.parse_args(args)
    if options.annotations is not None and options.images is None:
        parser.error('--annotations: needs --images; the scene brings its own')
    if options.frames is not None and options.frames < 1:
        parser.error(f'--frames: expected 1 or more, found {options.frames}')
    if options.rate is not None and not 0 < options.rate < math.inf:
        parser.error(f'--rate: expected more than 0 Hz, found {options.rate}')
    if not 0 <= options.seed < SCENES:
        parser.error(f'--seed: expected 0 to {SCENES - 1}, found {options.seed}')
    return options


def _scalars(values: dict[str, Any]) -> dict[str, Any]:
    # An empty list has no type in a parameter file; the shipped file leaves lists empty anyway.
    return {name: value for name, value in values.items() if not isinstance(value, tuple)}


def render_scene(seed: int, count: int, folder: Path) -> Material:
    """Render a scene that no training has seen, as PNG files with annotations beside them.

    Raises:
        ConfigError: the folder cannot be written.
    """
    make_folder(folder)
    note(f'rendering {count} frames of scene {seed}')
    for old in folder.glob('[0-9][0-9][0-9][0-9][0-9][0-9].png'):
        if is_own_picture(old):
            old.unlink()
    paths = [folder / f'{index:06d}.png' for index in range(count)]
    frames = Scene(DEMO_SEEDS[seed], IMAGE_HW).frames(count)

    def written() -> Any:
        for path, frame in zip(progress(paths, 'render'), frames, strict=True):
            write_picture(path, frame.image)
            yield frame

    dataset = coco_annotations(written())
    for item, path in zip(dataset['images'], paths, strict=True):
        item['file_name'] = path.name
    write_json(folder / 'instances.json', dataset)
    return Material(paths, Annotations.from_coco(dataset, 'scene'))


def photographs(folder: Path, annotations: Path | None, limit: int | None) -> Material:
    """Take the images of a folder, without those that cannot be read or scored.

    Raises:
        ImageError: there is none.
        AnnotationError: the annotations cannot be used.
    """
    found = find_images([folder], note)
    truth = None if annotations is None else GroundTruth.read(annotations, found, note)
    paths, remarks = [], Remarks(note)
    for path in progress(found, 'read', 'image'):
        try:
            image = read_image(path, remarks)
            annotated = truth.images.get(path) if truth else None
            if annotated is not None:
                check_size(path, image, annotated.image_hw)
        except ImageError as error:
            note(f'left out: {error}')
        else:
            paths.append(path.absolute())
    remarks.close()
    if not paths:
        raise ImageError(f'{folder}: expected images, found none that can be read')
    return Material(paths[:limit], truth.annotations if truth else None)


def _parameter_files(settings: dict[str, Any], output: Path) -> list[Path]:
    """Return the shipped parameters and a file of what beats them."""
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    files = [shipped_file('config/seg.yaml')]
    if values:
        files.append(output / 'parameters.yaml')
        text = yaml.safe_dump({'/**': {'ros__parameters': values}}, sort_keys=False)
        write_whole(files[-1], text.encode())
    return files


def read_answers(folder: Path) -> dict[int, Answer]:
    """Return what the planner wrote down, by stamp in nanoseconds."""
    answers = {}
    for line in (folder / 'answers.jsonl').read_text(encoding='utf-8').splitlines():
        row = json.loads(line)
        stamp_ns = row['stamp_ns']
        answers[stamp_ns] = Answer(row['detections'], folder / f'{stamp_ns}.png')
    return answers


def compare_classes(material: Material, class_names: Sequence[str]) -> None:
    """Say which classes the node or the annotations alone have, as the score suffers from it."""
    if material.annotations is None:
        return
    images = [material.annotations.find(path) for path in material.paths]
    image_ids = {image.id for image in images if image is not None}
    try:
        common_categories(class_names, material.annotations, image_ids, note)
    except AnnotationError as error:
        # The times are worth the run all the same.
        note(f'the score will be 0: {error}')


def score(
    material: Material, steady: Phase, answers: dict[int, Answer]
) -> tuple[AveragePrecision, AveragePrecision]:
    """Return box and mask AP of the steady part; a frame without an answer counts as missed."""
    annotations = material.annotations
    if annotations is None:
        return AveragePrecision(None, None), AveragePrecision(None, None)
    seen = {row['class'] for answer in answers.values() for row in answer.detections}
    names = sorted(seen | set(annotations.categories))
    categories = categories_by_name(names, annotations)
    results, image_ids, not_annotated = [], [], 0
    for index, stamp_ns in progress(steady.sent, 'score'):
        image = annotations.find(material.paths[index])
        if image is None:
            not_annotated += 1
            continue
        image_ids.append(image.id)
        answer = answers.get(stamp_ns)
        if answer is None:
            continue
        results += coco_results(
            detections_of(answer, names),
            label_image_rles(answer.label_image(), len(answer.detections)),
            image={'image_id': image.id, 'file_name': image.file_name},
            class_names=names,
            category_ids=categories,
        )
    if not_annotated:
        note(f'left out of the score: {not_annotated} images without annotations')
    return (
        average_precision(annotations, results, 'bbox', image_ids),
        average_precision(annotations, results, 'segm', image_ids),
    )


def detections_of(answer: Answer, names: Sequence[str]) -> Any:
    """Return an answer's rows as the engine's ``Detections``; ``names`` gives the class ids."""
    from segnode.engine import Detections

    rows = answer.detections
    return Detections(
        boxes_xyxy=np.array([row['box_xyxy'] for row in rows], np.float32).reshape(-1, 4),
        scores=np.array([row['score'] for row in rows], np.float32),
        class_ids=np.array([names.index(row['class']) for row in rows], np.int64),
        mask_areas=np.zeros(len(rows), np.int64),
    )


def draw(path: Path, image_path: Path, answer: Answer) -> None:
    """Write the picture of a frame with what the planner got, scores of 0.5 and more."""
    from segnode.live.labels import undrawable
    from segnode.live.overlay import draw_overlay

    count = sum(row['score'] >= OVERLAY_SCORE for row in answer.detections)
    shown = Answer(answer.detections[:count], answer.label_path)
    labels = answer.label_image()
    labels[labels > count] = 0
    names = sorted({row['class'] for row in shown.detections})
    if line := undrawable(names):
        note(line)
    picture = draw_overlay(read_image(image_path), detections_of(shown, names), labels, names)
    write_picture(path, picture)


def _report(
    material: Material, steady: Phase, burst: Phase, output: Path, json_path: Path | None
) -> int:
    answers = read_answers(output / 'answers')
    if not steady.answers:
        raise SegnodeError(f'no frame came back; see {output / "node.log"}')
    box, mask = score(material, steady, answers)
    overlay = output / 'overlay.png'
    index, stamp = max(
        ((i, s) for i, s in steady.sent if s in steady.answers),
        key=lambda item: sum(r['score'] >= OVERLAY_SCORE for r in answers[item[1]].detections),
    )
    draw(overlay, material.paths[index], answers[stamp])
    stages = stage_summary(steady.stages_ms)
    age_ms = Percentiles.interpolated([age_s * 1e3 for age_s, _ in steady.answers.values()])
    if stages:
        say(stage_table(stages))
        say()
    say(_accounts(steady, burst))
    say()
    line = {
        'frames': len(steady.sent),
        'published': len(steady.answers),
        'dropped': steady.dropped_total + steady.lost,
        'mask_ap': mask.ap,
        'box_ap': box.ap,
        'age_p50_ms': round(float(age_ms.p50)),
        'rate_hz': steady.answered_hz,
        'burst_received': burst.received,
        'burst_published': burst.published,
        'burst_dropped': burst.dropped_total,
        'overlay': str(overlay),
    }
    if json_path is not None:
        more = {
            'mask_ap50': mask.ap50,
            'box_ap50': box.ap50,
            'age_p95_ms': float(age_ms.p95),
            'steady': steady.summary(),
            'burst': burst.summary(),
            'stages_ms': stages,
            'diagnostics': burst.diagnostics,
        }
        write_json(json_path, line | more)
    problems = [*steady.problems(), *burst.problems()]
    for problem in problems:
        note(f'error: {problem}')
    if line['dropped']:
        note('this machine did not follow the steady part; try a smaller --rate or --short-side')
    if not burst.dropped_total:
        note('this machine followed the burst, so nothing had to be dropped')
    say('demo: ' + ' '.join(f'{key}={_text(value)}' for key, value in line.items()))
    return 1 if problems else 0


def _accounts(*phases: Phase) -> str:
    """Return the table of where the frames of each part went."""
    reasons = list(dict.fromkeys(reason for phase in phases for reason in phase.dropped))
    rows = [
        (
            phase.name,
            *(str(n) for n in (len(phase.sent), phase.lost, phase.received, phase.published)),
            *(str(phase.dropped.get(reason, 0)) for reason in reasons),
            f'{phase.sent_hz:.1f}',
        )
        for phase in phases
    ]
    return table(('part', 'sent', 'lost', 'received', 'published', *reasons, 'sent Hz'), rows)


def _text(value: object) -> str:
    if value is None:
        return '-'
    return f'{value:.3f}' if isinstance(value, float) else str(value)
