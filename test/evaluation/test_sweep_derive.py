# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""That a row's results out of a looser run are those of a run of its own, to the last bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from seeds import fresh_seeds

from segnode.config import Config
from segnode.demo.scene import DEMO_SEEDS, Scene
from segnode.engine import Engine
from segnode.engine.answers import crop_rle
from segnode.evaluation.frames import FrameRow
from segnode.evaluation.metrics import coco_results
from segnode.evaluation.results_file import ResultsWriter, read_results
from segnode.evaluation.sweep.derive import (
    Limits,
    answers_for_classes,
    derived_results,
    effective,
    plan_runs,
)
from segnode.image import Image

IMAGE_HW = (96, 128)
BASE = Config().replace({'device': 'cpu', 'resolution.short_side': 96})
VARIED = ('filter.score_threshold', 'filter.min_mask_area', 'filter.max_mask_area')


@pytest.fixture(scope='module', params=['fp32', 'bf16', 'static', 'null'])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == 'null':
        return Engine(BASE.replace({'model': 'null'}))
    if request.param == 'static':
        return Engine(BASE, static=True)
    return Engine(BASE.replace({'precision': request.param}))


@pytest.fixture(scope='module')
def images() -> list[Image]:
    scene = Scene(DEMO_SEEDS[5], IMAGE_HW)
    return [Image(frame.image, 'bgr') for frame in scene.frames(2)]


@pytest.fixture(scope='module')
def null() -> Engine:
    """An engine without a network: what is planned does not hang on it."""
    return Engine(BASE.replace({'model': 'null'}))


def of_engine(config: Config, engine: Engine) -> Config:
    own = engine.config
    return config.replace({'model': own.model, 'precision': own.precision})


def run(engine: Engine, config: Config, images: list[Image]) -> tuple[list[Any], list[FrameRow]]:
    """Return entries and frames of a run with a configuration."""
    engine.configure(of_engine(config, engine))
    entries, frames = [], []
    for frame, image in enumerate(images):
        (answer,) = engine.segment([image], whole_masks=True)
        assert answer.crops is not None
        entries += coco_results(
            answer.detections,
            [crop_rle(crop, IMAGE_HW) for crop in answer.crops],
            image={'image_id': frame, 'topic': '/image', 'stamp_ns': frame},
            class_names=engine.class_names,
            category_ids=range(len(engine.class_names)),
        )
        frames.append(
            FrameRow(frame=frame, bag=0, topic='/image', number=frame, stamp_ns=0, log_ns=0,
                     time_ns=0, detected=answer.counts.detected)
        )  # fmt: skip
    return entries, frames


def write(path: Path, entries: list[Any]) -> Path:
    with path.open('w') as stream:
        writer = ResultsWriter(stream)
        writer.write(entries)
        writer.end()
    return path


def limits_of(engine: Engine) -> Limits:
    return Limits.of(effective(engine.settings, engine.class_names))


def derive(path: Path, limits: Limits) -> list[Any]:
    return [entry for _, entries in derived_results(path, limits) for entry in entries]


def draws(rng: random.Random, loose: list[Any], count: int) -> Iterator[dict[str, Any]]:
    """Yield limits that some instance just keeps or misses, in any order, then all at once."""
    entry, other = rng.choice(loose), rng.choice(loose)
    low, high = sorted((entry['area'], other['area']))
    kinds: list[dict[str, Any]] = [
        {'filter.score_threshold': entry['score']},
        {'filter.min_mask_area': high},
        {'filter.max_mask_area': max(low, 1)},
    ]
    rng.shuffle(kinds)
    together = {
        'filter.score_threshold': rng.uniform(0.05, 0.9),
        'filter.min_mask_area': low + 1,
        'filter.max_mask_area': high + 1,
    }
    yield from [*kinds, together][:count]


@pytest.mark.parametrize('seed', fresh_seeds(1))
@pytest.mark.parametrize('most', [0, 3], ids=['all', 'three at most'])
def test_thresholds_and_areas_are_exact(
    engine: Engine,
    images: list[Image],
    most: int,
    seed: int,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    rng = random.Random(seed)
    base = BASE.replace({'filter.max_instances': most, 'filter.score_threshold': 0.05})
    loose, _ = run(engine, base, images)
    assert len(loose) >= 3
    path = write(tmp_path / 'results.json', loose)
    # A device's path takes long on a CPU.
    static = request.node.callspec.params['engine'] == 'static'
    for changes in draws(rng, loose, 1 if static else 4):
        own, _ = run(engine, base.replace(changes), images)
        assert derive(path, limits_of(engine)) == own, changes


@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_classes_are_exact_below_the_cut(
    engine: Engine,
    images: list[Image],
    seed: int,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    rng = random.Random(seed)
    base = BASE.replace({'filter.score_threshold': 0.05})
    loose, frames = run(engine, base, images)
    assert answers_for_classes(frames, engine.settings.max_instances)
    path = write(tmp_path / 'results.json', loose)
    found = sorted({entry['category_name'] for entry in loose})
    static = request.node.callspec.params['engine'] == 'static'
    for changes in draws(rng, loose, 1 if static else 2):
        chosen = tuple(rng.sample(found, rng.randint(1, len(found))))
        own, _ = run(engine, base.replace({**changes, 'filter.classes': chosen}), images)
        assert derive(path, limits_of(engine)) == own, (chosen, changes)


def test_a_frame_at_the_cut_does_not_answer_for_classes(
    engine: Engine, images: list[Image], tmp_path: Path
) -> None:
    everything, _ = run(engine, BASE.replace({'filter.score_threshold': 0.05}), images)
    # In the first frame the best alone stays, and the others would move up for its class.
    best = everything[0]
    other = next(
        entry['category_name']
        for entry in everything
        if entry['image_id'] == best['image_id']
        and entry['category_name'] != best['category_name']
    )
    base = BASE.replace({'filter.score_threshold': 0.05, 'filter.max_instances': 1})
    loose, frames = run(engine, base, images)
    assert not answers_for_classes(frames, 1)
    path = write(tmp_path / 'results.json', loose)
    own, _ = run(engine, base.replace({'filter.classes': (other,)}), images)
    assert derive(path, limits_of(engine)) != own


def planned(configs: list[Config], null: Engine, **more: bool) -> list[tuple[Any, ...]]:
    settings = []
    for config in configs:
        null.configure(of_engine(config, null))
        settings.append(null.settings)
    return [
        (*(run.config.flat()[name] for name in (*VARIED, 'filter.classes')), run.rows)
        for run in plan_runs(configs, settings, **more)
    ]


def test_rows_that_differ_in_derived_limits_share_the_loosest_run(null: Engine) -> None:
    first, second = null.class_names[:2]
    configs = [
        BASE.replace(changes)
        for changes in (
            {'filter.score_threshold': 0.5, 'filter.min_mask_area': 200},
            {'filter.score_threshold': 0.3, 'filter.max_mask_area': 900},
            {'filter.score_threshold': 0.4, 'filter.classes': (first,)},
            {'filter.score_threshold': 0.4, 'filter.max_instances': 7},
            {'filter.score_threshold': 0.9, 'filter.classes': (second,),
             'filter.max_instances': 7},
            {'resolution.short_side': 64, 'filter.score_threshold': 0.9,
             'filter.classes': (first,)},
        )
    ]  # fmt: skip
    assert planned(configs, null) == [
        (0.3, 0, 0, (), (0, 1, 2)),
        (0.4, 0, 0, (), (3, 4)),
        # All rows want these classes alone, so that the run does, too.
        (0.9, 0, 0, (first,), (5,)),
    ]
    assert planned(configs, null, each_choice_of_classes=True) == [
        (0.3, 0, 0, (), (0, 1)),
        (0.4, 0, 0, (first,), (2,)),
        (0.4, 0, 0, (), (3,)),
        (0.9, 0, 0, (second,), (4,)),
        (0.9, 0, 0, (first,), (5,)),
    ]


def test_a_threshold_left_to_the_model_is_the_models(null: Engine) -> None:
    configs = [BASE.replace({'filter.score_threshold': value}) for value in (-1.0, 0.99)]
    null.configure(of_engine(configs[0], null))
    models = null.settings.score_threshold
    assert planned(configs, null) == [(models, 0, 0, (), (0, 1))]


def test_results_are_read_back_by_frame(tmp_path: Path) -> None:
    rle = {'size': [4, 4], 'counts': '0S1'}
    entries = [
        {
            'image_id': frame, 'topic': '/image', 'stamp_ns': frame, 'category_id': 0,
            'category_name': 'a', 'bbox': [0, 0, 4, 4], 'score': 0.5, 'area': 9,
            'segmentation': rle,
        }
        for frame in (0, 0, 2, 7)
    ]  # fmt: skip
    path = write(tmp_path / 'results.json', entries)
    assert list(read_results(path)) == entries
    limits = Limits(0.0, 0, 0, frozenset('a'))
    assert [(frame, len(each)) for frame, each in derived_results(path, limits)] == [
        (0, 2), (2, 1), (7, 1),
    ]  # fmt: skip
    assert list(derived_results(write(tmp_path / 'none.json', []), limits)) == []
