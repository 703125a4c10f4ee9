# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The engine on a narrow network with planted weights: filters, batches, odd images, settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matching import Found, assert_same_instances
from narrow_checkpoint import ARCHITECTURE, write_checkpoint
from pictures import rendered
from pycocotools import mask as coco_mask

from segnode.checkpoint.planting import plant_weights
from segnode.config import Config
from segnode.engine import Engine, Prediction, Segmentation
from segnode.errors import CheckpointError, ConfigError, DeviceError
from segnode.image import Image
from segnode.kernels.preprocess import preprocess, resized_hw

IMAGE_HW = (240, 330)
SHORT_SIDE = 192
STAGES = ['upload', 'preprocess', 'backbone', 'rpn', 'box_head', 'filter', 'mask_head', 'paste']


@pytest.fixture(scope='module')
def images() -> list[Image]:
    return [rendered(index, IMAGE_HW) for index in range(3)]


@pytest.fixture(scope='module')
def state(images: list[Image]) -> dict[str, torch.Tensor]:
    hw = resized_hw(IMAGE_HW, SHORT_SIDE, 1333)
    batch = torch.stack([preprocess(image, hw, ARCHITECTURE) for image in images])
    return plant_weights(ARCHITECTURE, batch, seed=1)


@pytest.fixture(scope='module')
def config(tmp_path_factory: pytest.TempPathFactory, state: dict[str, torch.Tensor]) -> Config:
    path = write_checkpoint(tmp_path_factory.mktemp('narrow'), state)
    return Config(model=str(path), device='cpu', precision='fp32').replace(
        {'resolution.short_side': SHORT_SIDE, 'filter.score_threshold': 0.3}
    )


@pytest.fixture(scope='module', params=[False, True], ids=['dynamic', 'static'])
def shared_engine(request: pytest.FixtureRequest, config: Config) -> Engine:
    return Engine(config, static=request.param)


@pytest.fixture
def engine(shared_engine: Engine, config: Config) -> Iterator[Engine]:
    """An engine with its first settings."""
    yield shared_engine
    shared_engine.configure(config)


def painted(prediction: Prediction) -> np.ndarray:
    """Return the label image from whole masks, the highest score last."""
    labels = np.zeros(prediction.image_hw, dtype=np.uint16)
    for k in range(len(prediction.detections) - 1, -1, -1):
        labels[prediction.mask(k)] = k + 1
    return labels


def assert_consistent(segmentation: Segmentation, prediction: Prediction) -> None:
    ours, theirs = segmentation.detections, prediction.detections
    for name in ('boxes_xyxy', 'scores', 'class_ids', 'mask_areas'):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_array_equal(segmentation.label_image, prediction.label_image())
    np.testing.assert_array_equal(segmentation.label_image, painted(prediction))
    assert segmentation.counts == prediction.counts
    assert segmentation.network_hw == prediction.network_hw


def test_label_image_is_made_of_the_whole_masks(engine: Engine, images: list[Image]) -> None:
    for image in images:
        (segmentation,), (prediction,) = engine.segment([image]), engine.predict([image])
        assert len(segmentation.detections) >= 5
        assert_consistent(segmentation, prediction)
        detections = segmentation.detections
        assert detections.boxes_xyxy.dtype == np.float32
        assert detections.scores.dtype == np.float32
        assert detections.class_ids.dtype == detections.mask_areas.dtype == np.int64
        assert (detections.scores[:-1] >= detections.scores[1:]).all()
        assert (detections.scores > 0.3).all()
        assert segmentation.label_image.dtype == np.uint16
        assert segmentation.label_image.shape == IMAGE_HW
        assert segmentation.network_hw == (192, 264)
        low, high = detections.boxes_xyxy[:, :2], detections.boxes_xyxy[:, 2:]
        assert (low >= 0).all()
        assert (high <= [330, 240]).all()
        assert (low < high).all()
        for k in range(len(detections)):
            mask = prediction.mask(k)
            assert mask.sum() == detections.mask_areas[k]
            rle = prediction.rle(k)
            assert rle['size'] == list(IMAGE_HW)
            np.testing.assert_array_equal(coco_mask.decode(rle), mask)


def test_whole_masks_come_beside_the_label_image(engine: Engine, images: list[Image]) -> None:
    for image in images:
        (segmentation,) = engine.segment([image], whole_masks=True)
        (prediction,) = engine.predict([image])
        assert_consistent(segmentation, prediction)
        assert segmentation.crops is not None
        assert len(segmentation.crops) == len(prediction.crops) >= 2
        for ours, theirs in zip(segmentation.crops, prediction.crops, strict=True):
            assert (ours.top, ours.left, ours.area) == (theirs.top, theirs.left, theirs.area)
            np.testing.assert_array_equal(ours.pixels, theirs.pixels)
        # What the device was asked a second time for is not timed.
        assert set(segmentation.stage_ms) == set(engine.segment([image])[0].stage_ms)


def test_batches_answer_as_one_by_one(engine: Engine, images: list[Image]) -> None:
    one_by_one = [Found.of_prediction(engine.predict([image])[0]) for image in images]
    for together, alone in zip(engine.predict(images), one_by_one, strict=True):
        assert_same_instances(Found.of_prediction(together), alone)
    labels = [engine.segment([image])[0].label_image for image in images]
    for together, alone in zip(engine.segment(images), labels, strict=True):
        assert (together.label_image != alone).mean() < 1e-3


def test_colour_orders_may_differ_within_a_batch(engine: Engine, images: list[Image]) -> None:
    swapped = Image(np.ascontiguousarray(images[0].pixels[..., ::-1]), 'rgb')
    first, second = engine.predict([images[0], swapped])
    assert_same_instances(Found.of_prediction(second), Found.of_prediction(first))
    (alone,) = engine.predict([swapped])
    assert_same_instances(Found.of_prediction(alone), Found.of_prediction(first))


def test_rows_may_be_padded(engine: Engine, images: list[Image]) -> None:
    padded = np.zeros((IMAGE_HW[0], IMAGE_HW[1] + 7, 3), dtype=np.uint8)
    padded[:, : IMAGE_HW[1]] = images[1].pixels
    view = padded[:, : IMAGE_HW[1]]
    view.flags.writeable = False
    (a,), (b,) = engine.segment([Image(view, 'bgr')]), engine.segment([images[1]])
    np.testing.assert_array_equal(a.label_image, b.label_image)
    np.testing.assert_array_equal(a.detections.scores, b.detections.scores)


def test_images_of_two_sizes_are_refused(engine: Engine, images: list[Image]) -> None:
    other = rendered(0, (200, 330))
    for run in (engine.segment, engine.predict):
        with pytest.raises(ConfigError, match=r'one size, found \[\(200, 330\), \(240, 330\)\]'):
            run([images[0], other])
        with pytest.raises(ConfigError):
            run([])


@pytest.mark.parametrize('image_hw', [(1, 1), (1, 300), (37, 3), (33, 65)])
def test_tiny_images(engine: Engine, config: Config, image_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = Image(rng.integers(0, 256, (*image_hw, 3), dtype=np.uint8), 'rgb')
    engine.configure(
        config.replace(
            {
                'filter.score_threshold': 0.0,
                'resolution.short_side': 32,
                'resolution.long_side': 96,
                'filter.max_instances': 10,
            }
        )
    )
    (segmentation,), (prediction,) = engine.segment([image]), engine.predict([image])
    assert_consistent(segmentation, prediction)
    assert segmentation.label_image.shape == image_hw
    assert len(segmentation.detections) > 0


def test_no_detections(engine: Engine, config: Config, images: list[Image]) -> None:
    engine.configure(config.replace({'filter.score_threshold': 1.0}))
    (segmentation,), (prediction,) = engine.segment(images[:1]), engine.predict(images[:1])
    assert_consistent(segmentation, prediction)
    assert len(segmentation.detections) == 0
    assert segmentation.detections.boxes_xyxy.shape == (0, 4)
    assert not segmentation.label_image.any()
    assert segmentation.counts.detected == segmentation.counts.kept == 0


def test_one_image_of_a_batch_without_detections(engine: Engine, images: list[Image]) -> None:
    black = Image(np.zeros((*IMAGE_HW, 3), dtype=np.uint8), 'bgr')
    (alone,) = engine.predict([black])
    together = engine.predict([images[0], black, images[1]])
    assert_same_instances(Found.of_prediction(together[1]), Found.of_prediction(alone))
    assert len(together[0].detections) > 0
    assert len(together[2].detections) > 0


@pytest.mark.parametrize('static', [False, True], ids=['dynamic', 'static'])
def test_no_proposals(
    tmp_path: Path, state: dict[str, torch.Tensor], images: list[Image], static: bool
) -> None:
    """Every anchor is moved out of the image: nothing reaches the heads."""
    weights = {name: tensor.clone() for name, tensor in state.items()}
    weights['proposal_generator.rpn_head.anchor_deltas.weight'].zero_()
    weights['proposal_generator.rpn_head.anchor_deltas.bias'].fill_(0)[0::4] = -1e4
    path = write_checkpoint(tmp_path, weights)
    engine = Engine(Config(model=str(path), device='cpu', precision='fp32'), static=static)
    for segmentation in engine.segment(images[:2]):
        assert len(segmentation.detections) == 0
        assert not segmentation.label_image.any()


def test_mask_areas_filter(engine: Engine, config: Config, images: list[Image]) -> None:
    (everything,) = engine.predict(images[:1])
    areas = everything.detections.mask_areas
    low, high = (int(area) for area in np.quantile(areas, [0.3, 0.8]))
    engine.configure(config.replace({'filter.min_mask_area': low, 'filter.max_mask_area': high}))
    (segmentation,), (prediction,) = engine.segment(images[:1]), engine.predict(images[:1])
    assert_consistent(segmentation, prediction)
    stay = (areas >= low) & (areas <= high)
    assert 0 < stay.sum() < len(areas)
    np.testing.assert_array_equal(segmentation.detections.mask_areas, areas[stay])
    np.testing.assert_array_equal(
        segmentation.detections.boxes_xyxy, everything.detections.boxes_xyxy[stay]
    )
    counts = segmentation.counts
    assert counts.detected == len(areas)
    assert counts.kept == stay.sum()
    assert counts.filtered_area == (~stay).sum()


def test_classes_filter(engine: Engine, config: Config, images: list[Image]) -> None:
    """The allow-list acts before the limit on instances and after the NMS."""
    (everything,) = engine.predict(images[:1])
    present = np.unique(everything.detections.class_ids)
    assert len(present) > 1
    name = engine.class_names[present[0]]
    engine.configure(config.replace({'filter.classes': [name]}))
    (some,) = engine.segment(images[:1])
    wanted = everything.detections.class_ids == present[0]
    np.testing.assert_array_equal(
        some.detections.boxes_xyxy, everything.detections.boxes_xyxy[wanted]
    )
    assert some.counts.filtered_class == (~wanted).sum()
    assert some.counts.kept == wanted.sum()


def test_instances_are_limited_by_score(
    engine: Engine, config: Config, images: list[Image]
) -> None:
    (everything,) = engine.segment(images[:1])
    for limit in (1, 3):
        engine.configure(config.replace({'filter.max_instances': limit}))
        (few,) = engine.segment(images[:1])
        np.testing.assert_array_equal(few.detections.scores, everything.detections.scores[:limit])
        assert few.label_image.max() <= limit


def test_thresholds_and_resolution(engine: Engine, config: Config, images: list[Image]) -> None:
    (everything,) = engine.segment(images[:1])
    scores = everything.detections.scores
    middle = float((scores[4] + scores[5]) / 2)
    engine.configure(config.replace({'filter.score_threshold': middle}))
    (some,) = engine.segment(images[:1])
    np.testing.assert_array_equal(some.detections.scores, scores[:5])
    engine.configure(config.replace({'mask_threshold': 0.9}))
    (thin,) = engine.segment(images[:1])
    assert thin.detections.mask_areas.sum() < everything.detections.mask_areas.sum()
    engine.configure(config.replace({'filter.nms_threshold': 0.0}))
    (apart,) = engine.segment(images[:1])
    assert 0 < len(apart.detections) < len(scores)
    engine.configure(config.replace({'resolution.short_side': 96}))
    (small,) = engine.segment(images[:1])
    assert small.network_hw == (96, 132)
    assert small.label_image.shape == IMAGE_HW
    engine.configure(config)
    (again,) = engine.segment(images[:1])
    np.testing.assert_array_equal(again.detections.boxes_xyxy, everything.detections.boxes_xyxy)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'filter.classes': ['cat'], 'filter.score_threshold': 0.9}, 'filter.classes'),
        ({'model': 'other', 'filter.score_threshold': 0.9}, 'model: a change needs a restart'),
        ({'precision': 'bf16', 'device': 'auto'}, 'device, precision: a change needs a restart'),
    ],
)
def test_a_refused_change_leaves_everything(
    engine: Engine, config: Config, changes: dict[str, Any], message: str
) -> None:
    settings = engine.settings
    with pytest.raises(ConfigError, match=message):
        engine.configure(config.replace(changes))
    assert engine.settings is settings
    assert engine.config == config


def test_a_frame_keeps_the_settings_that_it_began_with(
    engine: Engine, config: Config, images: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may change the settings while a frame is under way."""
    (before,) = engine.segment(images[:1])
    label = engine._backend.label

    def meddle(*args: Any, **how: Any) -> Any:
        engine.configure(
            config.replace({'filter.min_mask_area': 10**6, 'resolution.short_side': 96})
        )
        return label(*args, **how)

    monkeypatch.setattr(engine._backend, 'label', meddle)
    (during,) = engine.segment(images[:1])
    monkeypatch.undo()
    np.testing.assert_array_equal(during.label_image, before.label_image)
    assert during.network_hw == before.network_hw
    (after,) = engine.segment(images[:1])
    assert len(after.detections) == 0
    assert after.network_hw == (96, 132)


def test_stage_times(engine: Engine, images: list[Image]) -> None:
    for answer in (engine.segment(images[:1])[0], engine.predict(images[:1])[0]):
        assert set(STAGES) <= set(answer.stage_ms)
        assert all(elapsed >= 0 for elapsed in answer.stage_ms.values())
    names = list(engine.segment(images[:1])[0].stage_ms)
    order = [names.index(name) for name in STAGES[2:]]
    assert order == sorted(order)


def test_what_an_engine_tells(engine: Engine, config: Config) -> None:
    assert engine.class_names == ('class_0', 'class_1', 'class_2')
    assert engine.category_ids is None
    assert engine.weights_path.name == 'model.pth'
    assert len(engine.weights_sha256) == 64
    assert engine.device == torch.device('cpu')
    assert engine.precision == 'fp32'
    assert engine.config == config
    assert engine.settings.short_side == SHORT_SIDE
    assert engine.settings.long_side == 1333
    assert engine.memory() == {'in_use': 0, 'peak': 0}
    engine.warm_up((48, 64))


@pytest.mark.parametrize(
    ('device', 'error'),
    [
        ('cuda:99', DeviceError),
        ('gpu', ConfigError),
        ('cpu:1', ConfigError),
        ('meta', ConfigError),
        ('', ConfigError),
        ('cuda:-1', ConfigError),
    ],
)
def test_devices_that_are_not_there(config: Config, device: str, error: type[Exception]) -> None:
    with pytest.raises(error, match='device') as raised:
        Engine(Config(model=config.model, device=device))
    assert '\n' not in str(raised.value)


def test_settings_that_do_not_fit_the_device(config: Config) -> None:
    with pytest.raises(ConfigError, match='memory_limit_mb'):
        Engine(config.replace({'memory_limit_mb': 100}))


def test_the_report_names_the_model(config: Config) -> None:
    lines: list[str] = []
    Engine(config, lines.append)
    assert any('model.pth' in line for line in lines)


@pytest.mark.parametrize('name', ['auto', 'cuda', 'cuda:0'])
def test_a_gpu_takes_its_memory_limit(
    config: Config, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start-up as far as the weights, with PyTorch's own demand for a device's index."""
    limits: list[tuple[float, int]] = []

    def limit(fraction: float, device: torch.device) -> None:
        limits.append((fraction, torch.cuda._utils._get_device_index(device)))

    def stop(*_: object) -> None:
        raise CheckpointError('as far as this')

    properties = SimpleNamespace(total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 0)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda _: properties)
    monkeypatch.setattr(torch.cuda, 'set_per_process_memory_fraction', limit)
    monkeypatch.setattr('segnode.engine.engine.load_model', stop)
    ended: Exception | None = None
    try:
        Engine(Config(device=name, memory_limit_mb=2048))
    except Exception as error:  # noqa: BLE001 - which one is the question
        ended = error
    assert isinstance(ended, CheckpointError), f'start-up on {name} ended with: {ended}'
    assert limits == [(0.25, 0)]
