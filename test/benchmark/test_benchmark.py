# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The benchmark: what it counts, what it refuses, and that contenders do the same."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from narrow_checkpoint import ARCHITECTURE, write_checkpoint
from torch import nn

from segnode.__main__ import main
from segnode.benchmark.contenders import Answer, Case, SegnodeContender, check_counts, check_equal
from segnode.benchmark.floor import floor_ms, known_peak
from segnode.benchmark.measure import Spread, count_calls, paired_ratio, time_rounds
from segnode.benchmark.parts import parts
from segnode.benchmark.planted import PlantedDetections, render_frames
from segnode.benchmark.references import merge_masks
from segnode.benchmark.torchvision import Torchvision
from segnode.checkpoint import NativeModel
from segnode.checkpoint.planting import plant_weights
from segnode.checkpoint.torchvision import fit_weights, to_torchvision
from segnode.config import Config
from segnode.engine import Engine
from segnode.engine.null import blob_masks
from segnode.errors import ConfigError, MeasurementError
from segnode.kernels.preprocess import preprocess
from segnode.model.architecture import TORCHVISION, Architecture, Pooler
from segnode.model.backbone_specs import ResNetSpec, SwinSpec
from segnode.model.box_head import BoxDetections
from segnode.model.costs import count_costs

HW = (96, 128)
NARROW = dataclasses.replace(ARCHITECTURE, rpn_pre_nms_topk=200, rpn_post_nms_topk=40)
# Stride in the 3x3, as the figures below count it.
R50 = Architecture(backbone=ResNetSpec(stride_in_1x1=False))
R18_TORCHVISION = Architecture(
    semantics=TORCHVISION,
    backbone=ResNetSpec(depth=18, res2_out_channels=64),
    fpn_channels=16,
    rpn_min_size=1e-3,
    rpn_pre_nms_topk=200,
    rpn_post_nms_topk=40,
    box_pooler=Pooler(resolution=7, sampling_ratio=2, aligned=False, levels='torchvision'),
    box_fc_dims=(16, 16),
    mask_pooler=Pooler(resolution=14, sampling_ratio=2, aligned=False, levels='torchvision'),
    mask_conv_dims=(16, 16),
    num_classes=3,
    color='RGB',
    pixel_mean=(123.675, 116.28, 103.53),
    pixel_std=(58.395, 57.12, 57.375),
)


def planted_model(architecture: Architecture, seed: int = 0) -> NativeModel:
    (frame,) = render_frames(HW, 1)
    return NativeModel(
        architecture=architecture,
        state_dict=plant_weights(architecture, preprocess(frame, HW, architecture)[None], seed),
        class_names=tuple(f'class_{index}' for index in range(architecture.num_classes)),
        category_ids=None,
        name='planted',
        weights_path=Path('(planted)'),
        weights_sha256='',
        licence='',
    )


def benchmark(capsys: pytest.CaptureFixture[str], tmp_path: Path, *args: str) -> dict[str, Any]:
    model = write_checkpoint(tmp_path)
    target = tmp_path / 'benchmark.json'
    fixed = ['--model', str(model), '--device', 'cpu', '--proposals', '50', '--frames', '2']
    code = main(['benchmark', *fixed, '--json', str(target), *args])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    result: dict[str, Any] = json.loads(target.read_text())
    last = captured.out.splitlines()[-1]
    assert last.startswith(
        f'benchmark: rows={len(result["rows"])} parts={len(result["parts"])} least_ratio_p50='
    )
    return result


# --- the floor


@pytest.mark.parametrize(
    ('image_hw', 'gflop'),
    [
        ((800, 1344), {'backbone': 297, 'rpn': 106, 'box_head': 28.6, 'mask_head': 106}),
        ((480, 640), {'backbone': 85, 'rpn': 30, 'box_head': 28.6, 'mask_head': 106}),
    ],
)
def test_operations_of_the_parts(image_hw: tuple[int, int], gflop: dict[str, float]) -> None:
    layers = count_costs(R50, image_hw, proposals=1000, masks=100).layers
    for part, expected in gflop.items():
        counted = sum(layer.flop for layer in layers if layer.part == part) / 1e9
        assert counted == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ('name', 'processors', 'ms'),
    [
        ('NVIDIA H200', 132, (0.15, 0.19, 0.55, 0.75)),
        ('NVIDIA GeForce RTX 3060 Laptop GPU', 30, (4.4, 5.6, 16.7, 22.8)),
        ('Orin', 16, (2.7, 3.8, 10.9, 14.0)),
        ('Orin', 8, (6.9, 8.8, 26, 36)),
    ],
)
def test_floor(name: str, processors: int, ms: tuple[float, ...]) -> None:
    peak = known_peak(name, processors)
    assert peak is not None
    r18 = Architecture(backbone=ResNetSpec(depth=18, res2_out_channels=64))
    r101 = dataclasses.replace(R50, backbone=dataclasses.replace(R50.backbone, depth=101))
    cases = ((r18, (480, 640)), (R50, (480, 640)), (R50, (800, 1344)), (r101, (800, 1344)))
    for (architecture, image_hw), expected in zip(cases, ms, strict=True):
        layers = count_costs(architecture, image_hw, proposals=300, masks=20).layers
        assert floor_ms(layers, peak) == pytest.approx(expected, rel=0.2)


def test_floor_grows_with_the_batch_but_for_the_weights() -> None:
    peak = known_peak('NVIDIA H200', 132)
    assert peak is not None
    one, four = (
        floor_ms(count_costs(R50, (480, 640), images=n, proposals=300, masks=20).layers, peak)
        for n in (1, 4)
    )
    assert 3 * one < four < 4 * one


def test_unknown_devices_have_no_peak() -> None:
    assert known_peak('NVIDIA GeForce GTX 1080', 20) is None
    assert known_peak('Orin', 4) is None


# --- measuring


def test_paired_ratio_is_of_rounds_and_not_of_medians() -> None:
    ours, theirs = np.array([1.0, 10.0, 2.0]), np.array([3.0, 20.0, 10.0])
    ratio = paired_ratio(theirs, ours)
    assert ratio.p50 == pytest.approx(3.0)
    assert ratio.p5 == pytest.approx(2.1)
    assert ratio.p95 == pytest.approx(4.8)
    assert Spread.of(np.array([7.0])) == Spread(7.0, 7.0, 7.0)


def test_contenders_take_turns() -> None:
    calls: list[tuple[str, int]] = []
    times = time_rounds(
        [lambda n: calls.append(('a', n)), lambda n: calls.append(('b', n))], iter(range(3))
    )
    assert calls == [('a', 0), ('b', 0), ('b', 1), ('a', 1), ('a', 2), ('b', 2)]
    assert times.shape == (3, 2)
    assert (times > 0).all()


def test_operators_are_counted_without_those_inside_of_others() -> None:
    x = torch.rand(8, 8)
    layer = nn.Linear(8, 8)
    counts = count_calls(lambda: torch.relu(layer(x)) + 1, torch.device('cpu'))
    assert counts == {'operators': 3}


# --- planting


def test_planted_boxes_lie_in_the_frame_and_repeat() -> None:
    for count in (1, 20, 100):
        planted, again = (PlantedDetections(count, (480, 640), 80) for _ in range(2))
        x0, y0, x1, y1 = planted.boxes.T
        assert ((x0 >= 0) & (y0 >= 0) & (x1 <= 640) & (y1 <= 480)).all()
        assert ((x1 - x0 >= 4) & (y1 - y0 >= 4)).all()
        assert (np.diff(planted.scores) < 0).all()
        assert set(planted.class_ids.tolist()) <= set(range(80))
        np.testing.assert_array_equal(planted.boxes, again.boxes)


@pytest.mark.parametrize('capacity', [0, 3, 10])
def test_planted_detections_take_the_shape_of_what_was_found(capacity: int) -> None:
    planted = PlantedDetections(3, HW, 5)
    found = BoxDetections(
        boxes=torch.rand(2, capacity, 4),
        scores=torch.rand(2, capacity),
        class_ids=torch.zeros(2, capacity, dtype=torch.int64),
        valid=torch.zeros(2, capacity, dtype=torch.bool),
        filtered_class=torch.zeros(2, dtype=torch.int64),
        overflow=torch.zeros(2, dtype=torch.bool),
    )
    answer = planted.replace(found)
    assert answer.boxes.shape == (2, max(capacity, 3), 4)
    assert answer.valid.sum(1).tolist() == [3, 3]
    for field in ('boxes', 'scores', 'class_ids'):
        values = getattr(answer, field)
        assert values.dtype == getattr(found, field).dtype
        for n in range(2):
            np.testing.assert_array_equal(values[n][answer.valid[n]], getattr(planted, field))
    assert planted.replace(found).boxes is answer.boxes


@pytest.mark.parametrize('static', [False, True])
@pytest.mark.parametrize('batch', [1, 2])
def test_engine_answers_what_is_planted(static: bool, batch: int) -> None:
    model = planted_model(NARROW)
    contender = SegnodeContender(
        Engine(Config(device='cpu', precision='fp32'), model=model, static=static)
    )
    for count in (4, 9):
        planted = PlantedDetections(count, HW, 3)
        contender.prepare(Case(image_hw=HW, batch=batch, planted=planted))
        answers = contender.run(render_frames(HW, batch))
        assert len(answers) == batch
        for answer in answers:
            np.testing.assert_allclose(answer.boxes, planted.boxes, atol=1e-4)
            np.testing.assert_array_equal(answer.scores, planted.scores)
            np.testing.assert_array_equal(answer.class_ids, planted.class_ids)
            assert answer.labels.max() <= count
            assert (answer.labels > 0).any()


# --- references


def test_merging_masks_gives_a_pixel_to_the_first() -> None:
    masks = torch.rand(5, 7, 9) > 0.6
    labels = merge_masks(masks)
    assert labels.dtype == np.uint16
    for y in range(7):
        for x in range(9):
            owners = masks[:, y, x].nonzero().flatten().tolist()
            assert labels[y, x] == (owners[0] + 1 if owners else 0)
    assert not merge_masks(masks[:0]).any()
    assert merge_masks(masks[:0]).shape == (7, 9)


def test_weights_go_to_torchvision_and_back() -> None:
    architecture = dataclasses.replace(
        R18_TORCHVISION,
        backbone=dataclasses.replace(R18_TORCHVISION.backbone, depth=50, res2_out_channels=256),
    )
    from segnode.checkpoint.torchvision import ARCHITECTURE as PUBLISHED
    from segnode.model.mask_rcnn import expected_state_dict

    generator = torch.Generator().manual_seed(0)
    names = expected_state_dict(PUBLISHED)
    state = {name: torch.rand(shape, generator=generator) for name, shape in names.items()}
    _, back = fit_weights(to_torchvision(state), Path('weights'), published=False)
    assert architecture.semantics == PUBLISHED.semantics
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize(
    'change',
    [{}, {'rpn_conv_dims': (-1, -1), 'box_conv_dims': (16, 16, 16, 16), 'box_fc_dims': (16,)}],
    ids=['v1', 'v2'],
)
def test_torchvision_agrees(change: dict[str, Any]) -> None:
    model = planted_model(dataclasses.replace(R18_TORCHVISION, **change))
    engine = Engine(Config(device='cpu', precision='fp32'), model=model)
    ours = SegnodeContender(engine)
    cpu = torch.device('cpu')
    theirs = Torchvision(model.architecture, model.state_dict, engine.settings, cpu, best=False)
    case = Case(image_hw=HW, batch=2, planted=PlantedDetections(6, HW, 3))
    frames = render_frames(HW, 2)
    for contender in (ours, theirs):
        contender.prepare(case)
    assert check_equal(ours.run(frames), theirs.run(frames), 'torchvision') > 0.999
    # Planting ends, and each finds what it finds.
    unplanted = Case(image_hw=HW, batch=2, planted=None)
    for contender in (ours, theirs):
        contender.prepare(unplanted)
    check_equal(ours.run(frames), theirs.run(frames), 'torchvision')


@pytest.mark.parametrize(
    'change',
    [
        {'backbone': ResNetSpec(depth=50, res2_out_channels=64)},
        {'backbone': ResNetSpec(depth=18, stem_out_channels=32, res2_out_channels=64)},
        {'backbone': SwinSpec()},
        {'fpn_fuse': 'avg'},
        {'box_conv_dims': (16,)},
        {'mask_cls_agnostic': True},
    ],
)
def test_networks_that_torchvision_has_not(change: dict[str, Any]) -> None:
    architecture = dataclasses.replace(R18_TORCHVISION, **change)
    settings = Engine(Config(device='cpu', precision='fp32'), model=planted_model(NARROW)).settings
    with pytest.raises(ConfigError, match='torchvision cannot build this network'):
        Torchvision(architecture, {}, settings, torch.device('cpu'), best=False)


def answer(**changes: Any) -> Answer:
    fields = {
        'boxes': np.array([[1, 2, 30, 40]], np.float32),
        'scores': np.array([0.9], np.float32),
        'class_ids': np.array([1]),
        'labels': np.ones((50, 60), np.uint16),
    }
    return Answer(**{**fields, **changes})


@pytest.mark.parametrize(
    ('other', 'problem'),
    [
        (answer(scores=np.zeros(0), boxes=np.zeros((0, 4)), class_ids=np.zeros(0)), 'detections'),
        (answer(class_ids=np.array([2])), 'other classes'),
        (answer(boxes=np.array([[1, 2, 30, 40.2]])), r'boxes 0\.2 px apart'),
        (answer(scores=np.array([0.8])), r'scores 0\.1 apart'),
        (answer(labels=np.eye(50, 60, dtype=np.uint16)), 'pixels'),
    ],
)
def test_what_differs_is_not_timed(other: Answer, problem: str) -> None:
    assert check_equal([answer()], [answer()], 'other') == 1.0
    with pytest.raises(MeasurementError, match=problem):
        check_equal([answer()], [other], 'other')


def test_counts_must_be_the_planted_ones() -> None:
    check_counts([answer()], PlantedDetections(1, HW, 3), 'other')
    check_counts([answer()], None, 'other')
    with pytest.raises(MeasurementError, match='expected the 2 planted detections, found 1'):
        check_counts([answer()], PlantedDetections(2, HW, 3), 'other')


# --- parts


def test_parts_agree_with_detectron2() -> None:
    found = list(parts(Architecture(), torch.device('cpu'), detectron2=True))
    assert [(part.name, part.image_hw, part.count, part.network_hw) for part in found] == [
        ('preprocess', (1080, 1920), 1, (480, 853)),
        ('preprocess', (1080, 1920), 1, (750, 1333)),
        ('paste', (480, 640), 20, None),
        ('paste', (480, 640), 100, None),
        ('paste', (1080, 1920), 20, None),
        ('paste', (1080, 1920), 100, None),
    ]
    for part in found[:4]:
        assert list(part.calls) == ['segnode', 'detectron2']
        part.check()


def test_masks_fill_most_of_their_box() -> None:
    share = (blob_masks(20) >= 0.5).mean((1, 2))
    assert (share > 0.3).all()
    assert (share < 0.95).all()


# --- the command


def test_figures_of_a_planted_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Compiling takes a minute; what is left is the other half of a reference at its best.
    def refuse(module: nn.Module) -> None:
        def fail(*args: object) -> None:
            raise RuntimeError('no compiler here')

        module.__dict__['forward'] = fail

    monkeypatch.setattr(nn.Module, 'compile', refuse)
    picture = tmp_path / 'benchmark.png'
    result = benchmark(
        capsys,
        tmp_path,
        *('--plant', '--shapes', '96x128', '--detections', '3,5', '--batch', '1,2'),
        *('--against', 'detectron2,detectron2-best', '--plot', str(picture)),
    )
    assert picture.stat().st_size > 1000
    assert result['parts'] == []
    machine = result['machine']
    assert machine['torch'] == torch.__version__.partition('+')[0]
    assert machine['processor']
    assert machine['threads'] == torch.get_num_threads()
    rows = result['rows']
    assert [(row['shape'], row['detections'], row['batch']) for row in rows] == [
        ('96x128', 3, 1),
        ('96x128', 3, 2),
        ('96x128', 5, 1),
        ('96x128', 5, 2),
    ]
    for row in rows:
        assert row['device'] == 'cpu'
        assert row['precision'] in ('bf16', 'fp32')
        assert 0 < row['ms_p5'] <= row['ms_p50'] <= row['ms_p95']
        assert row['stages'].keys() >= {'preprocess', 'backbone', 'rpn', 'box_head', 'mask_head'}
        assert sum(row['stages'].values()) <= 1.5 * row['ms_p95']
        assert row['calls']['operators'] > 100
        assert row['floor_ms'] is None
        assert row['gflop'] > 0
        assert row['failed'] == {}
        assert list(row['against']) == ['detectron2', 'detectron2-best']
        for reference in row['against'].values():
            assert 0 < reference['ratio_p5'] <= reference['ratio_p50'] <= reference['ratio_p95']
            assert reference['ms_p50'] > 0
        assert row['against']['detectron2']['precision'] == 'fp32'
        assert row['against']['detectron2']['agreement_fp32'] > 0.999
        (remark,) = row['against']['detectron2-best']['notes']
        assert 'not compiled, as that failed (RuntimeError: no compiler here)' in remark


def test_figures_of_a_model_with_its_own_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = benchmark(capsys, tmp_path, '--shapes', '64x96', '--precision', 'fp32')
    (row,) = result['rows']
    assert row['against'] == {}
    assert row['precision'] == 'fp32'
    assert row['detections'] >= 0


@pytest.mark.parametrize(
    ('args', 'problem'),
    [
        (['--shapes', '480'], '--shapes: expected height x width'),
        (['--shapes', '480x640,'], '--shapes'),
        (['--shapes', '8x8'], '--shapes'),
        (['--shapes', '99999x99999'], '--shapes'),
        (['--shapes', '-480x640'], '--shapes'),
        (['--shapes', '64x96,64x96'], 'once'),
        (['--detections', '5'], '--detections needs --plant'),
        (['--plant', '--detections', '0'], '--detections: expected numbers of 1 and more'),
        (['--plant', '--detections', '5,x'], "found 'x'"),
        (['--plant', '--detections', '101'], 'expected at most 100'),
        (['--plant', '--weights', 'w.pth'], '--weights'),
        (['--batch', '0'], '--batch'),
        (['--frames', '0'], '--frames'),
        (['--frames', 'many'], '--frames'),
        (['--against', 'tensorrt'], "found 'tensorrt'"),
        (['--against', 'torchvision'], '--plant'),
        (['--plant', '--against', 'torchvision'], 'torchvision cannot build this network'),
        (['--short-side', '480'], 'resolution.short_side'),
        (['--min-mask-area', '5'], 'filter.min_mask_area'),
        (['--json', '/nowhere/b.json'], '/nowhere'),
        (['--plot', '/nowhere/b.png'], '/nowhere'),
        (['--nonsense'], '--nonsense'),
    ],
)
def test_wrong_use_is_one_line(
    args: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_checkpoint(tmp_path)
    assert main(['benchmark', '--model', str(model), '--device', 'cpu', *args]) == 2
    captured = capsys.readouterr()
    line = captured.err.splitlines()[-1]
    assert line.startswith('segnode: error: ')
    assert problem in line
    assert 'Traceback' not in captured.err
    assert captured.out == ''


def test_a_detectron2_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('SEGNODE_DETECTRON2', str(tmp_path))
    assert main(['benchmark', '--parts', '--device', 'cpu', '--against', 'detectron2']) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert 'expected the package detectron2' in line
    assert 'SEGNODE_DETECTRON2' in line


def test_presets_need_no_weights_when_planted(capsys: pytest.CaptureFixture[str]) -> None:
    args = ['--model', 'maskrcnn_resnet50_fpn', '--plant', '--against', 'detectron2']
    assert main(['benchmark', '--parts', '--device', 'cpu', *args[:2]]) == 2
    assert "Detectron2's family" in capsys.readouterr().err
