# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The script behind ``make gpu``, with an emulated device or a plain CPU in the GPU's place."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from emulated_graphs import EmulatedCuda
from gpu_ladder import (
    answers,
    average_precision,
    checks,
    engines,
    limits,
    operators,
    poison,
    processes,
    reference,
)
from gpu_ladder.__main__ import main
from gpu_ladder.engines import Climb
from gpu_ladder.options import parse
from gpu_ladder.reference import Reference
from gpu_ladder.rungs import SWITCHES
from seeds import fresh_seeds

import segnode
from segnode.demo.scene import CLASS_NAMES, Scene, SceneFrame, coco_annotations
from segnode.engine import Detections, Engine, Segmentation
from segnode.evaluation import metrics
from segnode.evaluation.annotations import Annotations
from segnode.evaluation.metrics import coco_results, label_image_rles
from segnode.kernels.operators import Operators, select_operators

DEMO = Path(segnode.__file__).parent / 'demo'
# Few candidates and small frames: what an emulated capture costs grows with both.
MODEL = f"""\
_BASE_: {DEMO / 'mask_rcnn_demo.yaml'}
INPUT: {{MIN_SIZE_TEST: 64, MAX_SIZE_TEST: 128}}
MODEL:
  WEIGHTS: {DEMO / 'mask_rcnn_demo.safetensors'}
  RPN: {{PRE_NMS_TOPK_TEST: 30, POST_NMS_TOPK_TEST: 20}}
TEST: {{DETECTIONS_PER_IMAGE: 10}}
"""
SMALL = {
    'HALF': ('bf16',),
    'TIMED': 'bf16',
    'THRESHOLDS': (0.5, 0.0),
    'COMPARED': 2,
    'POISON': ((2**12, 4),),
    'SCENE_HW': (96, 128),
    'FRAMES': 6,
    'ROUNDS': 2,
}
RUNGS = ['plain', 'triton', 'graphs', 'triton-graphs']


@pytest.fixture(scope='module', autouse=True)
def one_thread() -> Iterator[None]:
    """Several that wait for each other take many times as long beside another busy process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes long: a half format, capacities, poison, fusion."""
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    for name, value in SMALL.items():
        monkeypatch.setattr(limits, name, value)
    monkeypatch.setattr('segnode.engine.static.CAPACITIES', (4,))
    # Fused convolutions are tried out whenever an engine is built.
    monkeypatch.setattr('segnode.engine.network.fuse_convolutions', lambda model: 'none')


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> EmulatedCuda:
    cuda = EmulatedCuda()
    cuda.install(monkeypatch)
    return cuda


@pytest.fixture(scope='module')
def prepared(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """What the rungs are compared with, once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(limits, name, value)
        # Planting weights takes long, and trained ones will do.
        patch.setattr(engines, 'plant_model', engines.load_model)
        folder = tmp_path_factory.mktemp('reference')
        return reference.prepare(parse(arguments(folder)))


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch, prepared: Reference) -> None:
    monkeypatch.setattr(reference, 'prepare', lambda options: prepared)


def arguments(folder: Path, *more: str, checks: str = '') -> list[str]:
    (folder / 'model.yaml').write_text(MODEL)
    model = str(folder / 'model.yaml')
    return [
        *('--device', 'cpu', '--in-process', '--steps', 'ladder'),
        *('--json', str(folder / 'gpu.json'), '--checks', checks),
        *('--scenes', '2', '--shapes', '64x96', '--trained', model, '--timed', model, *more),
    ]


def read(folder: Path, name: str = 'gpu.json') -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text())
    return found


def results(data: dict[str, Any], rung: str) -> dict[str, dict[str, Any]]:
    (entry,) = [each for each in data['rungs'] if each['name'] == rung]
    return {result['name']: result for result in (*entry['checks'], *entry['timings'])}


def statuses(data: dict[str, Any], rung: str) -> dict[str, str]:
    return {name: result['status'] for name, result in results(data, rung).items()}


def test_every_rung_is_climbed(
    emulated: EmulatedCuda,
    ready: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(arguments(tmp_path))
    data, out = read(tmp_path), capsys.readouterr().out
    assert code == data['summary']['exit_code'] == 0, data['summary']['look_at']
    assert data['complete']
    assert data['machine']['torch'] in data['versions']['torch'] == torch.__version__
    assert data['summary']['highest_rung_passed'] == 'triton-graphs'
    assert [entry['name'] for entry in data['rungs']] == RUNGS
    names = [step.name for step in checks.steps_of(parse(arguments(tmp_path)))]
    assert len(names) > 15
    for entry in data['rungs']:
        switches = {'SEGNODE_TRITON', 'SEGNODE_GRAPHS'} - set(entry['environment'])
        assert ('SEGNODE_GRAPHS' in switches) == ('graphs' in entry['name'])
        assert ('SEGNODE_TRITON' in switches) == ('triton' in entry['name'])
        assert entry['operators'] == 'PyTorch (no kernels for device cpu)'
        found = results(data, entry['name'])
        assert sorted(found) == sorted(names)
        for name, result in found.items():
            skipped = 'graphs' in entry['name'] and name.endswith('poison')
            assert result['status'] == ('skipped' if skipped else 'passed'), (entry['name'], name)
            assert skipped or result['seconds'] > 0
            assert name in out
        (timing,) = entry['timings']
        figures = timing['figures']
        assert set(figures['stages_ms']) > {'backbone', 'rpn', 'box_head', 'mask_head', 'paste'}
        assert figures['detections'] == 10
        assert 0 < figures['frame_ms']['p50'] <= figures['frame_ms']['p95']
        assert figures['memory']['in_use'] == 0
    launches = {rung: results(data, rung)['graphs']['figures']['graph_launches'] for rung in RUNGS}
    assert launches == {'plain': 0, 'triton': 0, 'graphs': 2, 'triton-graphs': 2}
    (slowest,) = data['summary']['look_at']
    assert slowest.startswith('slowest at 64x96 on triton-graphs: ')
    assert slowest in out
    assert out.splitlines()[-1].startswith('gpu: passed=')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['gpu.json', 'model.yaml']


def spoil(monkeypatch: pytest.MonkeyPatch, spoilt: Callable[[Operators], Operators]) -> None:
    """Have engines and checks take other operators."""

    def select(device: torch.device) -> Operators:
        return spoilt(select_operators(device))

    monkeypatch.setattr(engines, 'select_operators', select)
    monkeypatch.setattr('segnode.kernels.operators.select_operators', select)


def test_a_failure_and_a_wrong_answer_are_recorded_and_the_climb_goes_on(
    emulated: EmulatedCuda,
    ready: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def raising(*_: object, **__: object) -> Any:
        raise RuntimeError('no kernel image\nis available')

    def shifted(*inputs: Any, **options: Any) -> Any:
        labels, areas = select_operators(torch.device('cpu')).paste_labels(*inputs, **options)
        return labels.view(torch.int16).roll(9, -1).view(torch.uint16), areas

    def spoilt(operators: Operators) -> Operators:
        switches = {name for name in SWITCHES if name in os.environ}
        if switches == {'SEGNODE_GRAPHS'}:
            return replace(operators, roi_align=raising)
        if switches == {'SEGNODE_TRITON'}:
            return replace(operators, paste_labels=shifted)
        return operators

    spoil(monkeypatch, spoilt)
    checks = 'kernel roi,kernel paste,fp32 scenes,fp32 empty'
    assert main(arguments(tmp_path, checks=checks)) == 1
    data, (out, err) = read(tmp_path), capsys.readouterr()
    assert data['complete']
    assert [entry['status'] for entry in data['rungs']] == ['passed', 'failed', 'failed', 'passed']
    assert data['summary']['highest_rung_passed'] == 'triton-graphs'

    raised = results(data, 'triton')
    assert statuses(data, 'triton') == {
        'operators': 'passed',
        'graphs': 'failed',
        'kernel roi_align': 'failed',
        'kernel paste': 'passed',
        'fp32 scenes': 'failed',
        'fp32 empty': 'failed',
    }
    error = raised['fp32 scenes']['error']
    assert (error['type'], error['line']) == ('RuntimeError', 'no kernel image')
    assert any('raising' in line for line in error['traceback'])

    wrong = results(data, 'graphs')
    assert {name for name, r in wrong.items() if r['status'] == 'failed'} == {
        'kernel paste',
        'fp32 scenes',
        'fp32 empty',
    }
    assert wrong['kernel paste']['figures']['labels'] < 0.999
    assert wrong['kernel paste']['limit']['labels'] == '>= 0.999'
    assert wrong['fp32 scenes']['figures']['matched'] == 1
    assert 'labels: expected >= 0.999' in wrong['fp32 scenes']['error']['line']

    text = '\n'.join(data['summary']['look_at'])
    assert 'triton: graphs, kernel roi_align, fp32 scenes, fp32 empty: RuntimeError: no' in text
    assert 'SEGNODE_TRITON=0 works meanwhile' in text
    assert 'graphs: kernel paste: WrongAnswer' in text
    assert 'SEGNODE_GRAPHS=0 works meanwhile' in text
    assert 'alone, too, fails: paste' in text
    assert text.replace('\n', '\n  ') in out
    assert 'FAILED' in out
    assert 'triton: fp32 scenes: RuntimeError: no kernel image' in err


@pytest.mark.parametrize('name', ['select_proposals', 'select_detections', 'choose'])
def test_a_choice_that_differs_is_found(
    ready: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Be it two of equal score that have changed places."""

    def swapped(*inputs: Any, **options: Any) -> Any:
        found = getattr(select_operators(torch.device('cpu')), name)(*inputs, **options)
        boxes = found.boxes.clone()
        if boxes.shape[1] > 1:
            boxes[:, [0, 1]] = boxes[:, [1, 0]]
        return found._replace(boxes=boxes) if name == 'choose' else replace(found, boxes=boxes)

    spoil(monkeypatch, lambda operators: replace(operators, **{name: swapped}))
    checks = 'kernel select,kernel choose'
    assert main(arguments(tmp_path, '--rungs', 'plain', checks=checks)) == 1
    data = read(tmp_path)
    wrong = {key for key, each in statuses(data, 'plain').items() if each == 'failed'}
    assert wrong == {f'kernel {name}'}
    assert results(data, 'plain')[f'kernel {name}']['error']['type'] == 'WrongAnswer'


def test_a_layer_that_reads_free_memory_is_named(
    ready: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free = [0.0]
    fill_free_memory = poison.fill_free_memory

    def fill(device: torch.device) -> None:
        fill_free_memory(device)
        free[0] = np.nan

    network_of = Climb.network

    def network(climb: Any, precision: str) -> Any:
        found = network_of(climb, precision)
        # As with an output that takes part with a factor of 0.
        found.model.backbone.fpn_output3.fused = lambda conv, x, _: (
            torch.conv2d(x, conv.weight, conv.bias, padding=conv.padding) + 0 * free[0]
        )
        return found

    monkeypatch.setattr(poison, 'fill_free_memory', fill)
    monkeypatch.setattr(Climb, 'network', network)
    assert main(arguments(tmp_path, '--rungs', 'plain', checks='fp32 poison')) == 1
    result = results(read(tmp_path), 'plain')['fp32 poison']
    assert result['figures']['repeats'] == 1
    assert result['figures']['same'] == 0
    assert 'layers_with_nan: expected <= 0, found' in result['error']['line']
    assert '(first in backbone.fpn_output3)' in result['error']['line']


def test_an_engine_without_captures_is_no_rung_with_graphs(
    emulated: EmulatedCuda, ready: None, tmp_path: Path
) -> None:
    emulated.supported = False
    code = main(arguments(tmp_path, '--rungs', 'graphs', checks='kernel nms'))
    data = read(tmp_path)
    assert code == 1
    assert statuses(data, 'graphs') == {
        'operators': 'passed',
        'graphs': 'failed',
        'kernel nms': 'skipped',
    }
    error = results(data, 'graphs')['graphs']['error']
    assert 'graph_launches: expected >= 1, found 0 (no CUDA graphs here' in error['line']


def test_what_is_interrupted_leaves_what_was_done(
    ready: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(climb: Any) -> Any:
        assert results(read(tmp_path), 'plain')['kernel nms']['status'] == 'passed'
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(operators, 'check_paste', interrupted)
    assert main(arguments(tmp_path, checks='kernel')) == 130
    data = read(tmp_path)
    assert data['interrupted']
    assert not data['complete']
    assert data['summary']['rungs'] == {'plain': 'unfinished'}
    assert list(results(data, 'plain')) == [
        'operators',
        'graphs',
        'kernel preprocess',
        'kernel nms',
        'kernel select_proposals',
        'kernel select_detections',
        'kernel choose',
        'kernel max_pool',
        'kernel add_enlarged',
        'kernel roi_align',
    ]
    assert not list(tmp_path.glob('*.part'))


def test_a_reference_that_fails_is_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def failing(options: Any) -> Any:
        raise RuntimeError('no memory')

    monkeypatch.setattr(reference, 'prepare', failing)
    assert main(arguments(tmp_path)) == 1
    assert read(tmp_path)['error']['line'] == 'no memory'
    assert read(tmp_path)['summary']['look_at'] == ['RuntimeError: no memory']


CHILD = """\
import os, sys, time
sys.path[:0] = [{folder!r}]
from gpu_ladder import operators
from gpu_ladder.__main__ import main

def hang(climb):
    time.sleep(60)

operators.check_preprocess = hang
operators.check_nms = lambda climb: os.abort()
sys.exit(main())
"""


def test_a_rung_outlives_checks_that_hang_or_die(
    ready: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The rung runs in processes of its own, which see these checks and this script's others."""
    script = tmp_path / 'child.py'
    script.write_text(CHILD.format(folder=str(processes.PROGRAM.parent)))
    steps_of = checks.steps_of

    def hasty(options: Any) -> list[Any]:
        return [
            replace(step, budget_s=1.0) if step.name == 'kernel preprocess' else step
            for step in steps_of(options)
        ]

    monkeypatch.setattr(checks, 'steps_of', hasty)
    monkeypatch.setattr(processes, 'PROGRAM', script)
    given = arguments(tmp_path, '--rungs', 'plain', checks='kernel')
    given.remove('--in-process')
    assert main(given) == 1
    data = read(tmp_path)
    found = results(data, 'plain')
    assert {name: result['status'] for name, result in found.items()} == {
        'operators': 'passed',
        'graphs': 'passed',
        'kernel preprocess': 'failed',
        'kernel nms': 'failed',
        'kernel select_proposals': 'passed',
        'kernel select_detections': 'passed',
        'kernel choose': 'passed',
        'kernel max_pool': 'passed',
        'kernel add_enlarged': 'passed',
        'kernel roi_align': 'passed',
        'kernel paste': 'passed',
    }
    hanging, died = (found[f'kernel {name}']['error'] for name in ('preprocess', 'nms'))
    assert hanging['type'] == 'Hanging'
    assert hanging['line'] == 'no answer in 1 s'
    assert any('in hang' in line for line in hanging['traceback'])
    assert died['type'] == 'ProcessLost'
    assert 'SIGABRT' in died['line']
    assert data['summary']['rungs'] == {'plain': 'failed'}


def test_what_a_device_cannot_do_is_no_failure(ready: None, tmp_path: Path) -> None:
    given = arguments(tmp_path, '--rungs', 'plain,graphs', checks='kernel nms')
    assert main(given) == 0
    data = read(tmp_path)
    assert data['summary']['rungs'] == {'plain': 'passed', 'graphs': 'skipped'}
    assert data['summary']['look_at'] == ['graphs: left out: no graphs on device cpu']


class Commands:
    """Stands for the processes that are started after the ladder."""

    def __init__(self, detectron2: bool) -> None:
        self.detectron2 = detectron2
        self.ran: list[list[str]] = []
        self.environments: list[dict[str, str]] = []

    def __call__(
        self, command: list[str], limit_s: float, environment: dict[str, str], log: Path
    ) -> dict[str, Any]:
        code, line = 0, 'well'
        if '-c' in command:
            code, line = int(not self.detectron2), 'ConfigError: expected the package detectron2'
        else:
            self.ran.append(command)
            self.environments.append(environment)
        if 'pytest' in command:
            code, line = 1, '1 failed'
        if '--json' in command:
            shape = [command[command.index('--shapes') + 1]] if '--shapes' in command else []
            figures = {
                'machine': {},
                'rows': [{'shape': each} for each in shape],
                'parts': [] if shape else [{'name': 'paste'}],
            }
            Path(command[-1]).write_text(json.dumps(figures))
        return {'exit_code': code, 'limit_s': limit_s, 'seconds': 1.0, 'last_lines': [line]}


@pytest.mark.parametrize('detectron2', [True, False])
def test_tests_and_benchmark_come_after_the_ladder(
    detectron2: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands = Commands(detectron2)
    monkeypatch.setattr(processes, 'run', commands)
    assert main(arguments(tmp_path, '--steps', 'tests,benchmark')) == 1
    data = read(tmp_path)
    assert [step['status'] for step in data['steps']] == ['failed', *['passed'] * 7]
    assert 'pytest: exit code 1: 1 failed' in data['summary']['look_at'][0]
    tests, first, parts = commands.ran[:3]
    assert tests[1:5] == ['-m', 'pytest', '-m', 'gpu']
    assert {'test/engine/test_gpu_engine.py', 'test/kernels/test_kernels.py'} <= set(tests)
    assert 'test/test_gpu_ladder.py' not in tests
    assert '--plant' in first
    against = 'detectron2,torchvision' if detectron2 else 'torchvision'
    assert first[first.index('--against') + 1] == against
    assert '--parts' in parts
    assert ('--against' in parts) == detectron2
    joined = read(tmp_path, 'gpu_benchmark.json')
    assert (len(joined['rows']), len(joined['parts'])) == (6, 1)
    assert data['benchmark']['json'] == 'gpu_benchmark.json'
    assert ('torchvision alone' in capsys.readouterr().err) != detectron2


def test_the_benchmark_runs_on_the_highest_rung_that_passed(
    ready: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands = Commands(detectron2=False)
    monkeypatch.setattr(processes, 'run', commands)
    steps = ('--steps', 'ladder,benchmark', '--rungs', 'plain')
    assert main(arguments(tmp_path, *steps, checks='kernel nms')) == 0
    given = {name: commands.environments[0].get(name) for name in SWITCHES}
    assert given == {'SEGNODE_TRITON': '0', 'SEGNODE_GRAPHS': '0'}


def test_what_does_not_fit_into_the_time_is_left_out(
    ready: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands = Commands(detectron2=False)
    monkeypatch.setattr(processes, 'run', commands)
    monkeypatch.setattr(limits, 'RUNG_S', 0.0)
    # None of the six seconds passes, whatever else the machine does.
    for module in ('__main__', 'afterwards'):
        clock = SimpleNamespace(monotonic=lambda: 0.0)
        monkeypatch.setattr(f'gpu_ladder.{module}.time', clock)
    more = ('--minutes', '0.1', '--steps', 'ladder,tests,benchmark', '--rungs', 'plain')
    assert main(arguments(tmp_path, *more, checks='kernel')) == 1
    data = read(tmp_path)
    assert set(statuses(data, 'plain').values()) == {'skipped'}
    assert data['summary']['rungs'] == {'plain': 'unfinished'}
    assert {step['status'] for step in data['steps']} == {'skipped'}
    assert not commands.ran
    assert 'plain: 11 not run from operators on: no time' in data['summary']['look_at'][0]
    assert 'no time: 6 s are left, it needs 30 s' in capsys.readouterr().out


def test_processes_are_run_and_ended(tmp_path: Path) -> None:
    log = tmp_path / 'log'
    code = "import sys; print('one\\rtwo'); sys.exit(3)"
    done = processes.run([sys.executable, '-c', code], 30.0, {}, log)
    assert (done['exit_code'], done['last_lines']) == (3, ['two'])
    sleep = [sys.executable, '-c', 'import time; time.sleep(60)']
    done = processes.run(sleep, 1.0, {}, log)
    assert done['exit_code'] is None
    assert done['seconds'] < 10


def test_no_file_is_overwritten(
    ready: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'gpu.json').write_text('old')
    (tmp_path / 'gpu-2_benchmark.json').write_text('old')
    given = arguments(tmp_path, '--rungs', 'plain', checks='kernel nms')
    assert main(given) == 0
    assert (tmp_path / 'gpu.json').read_text() == 'old'
    assert read(tmp_path, 'gpu-3.json')['complete']
    assert 'gpu-3.json' in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ('wrong', 'said'),
    [
        (['--rungs', 'plain,fast'], '--rungs: expected some of plain, triton'),
        (['--shapes', '480'], '--shapes: expected HxW'),
        (['--scenes', '0'], '--scenes: expected at least'),
        (['--minutes', 'nan'], '--minutes: expected at least'),
        (['--device', 'gpu'], 'device: expected'),
        (['--timed', 'mask_rcnn'], 'mask_rcnn'),
        (['--json', '/nowhere/gpu.json'], 'does not exist'),
        (['--fast'], 'unrecognized arguments'),
    ],
)
def test_wrong_use(
    wrong: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments(tmp_path), *wrong]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count('\n') == 1
    assert not (tmp_path / 'gpu.json').exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['--json', str(tmp_path / 'gpu.json')]) == 1
    err = capsys.readouterr().err
    assert err.startswith('gpu_ladder: error: device cuda')
    assert err.count('\n') == 1
    assert not list(tmp_path.iterdir())


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['--help']) == 0
    out = capsys.readouterr().out
    for word in (*RUNGS, 'make gpu', 'exit code', 'SEGNODE_TRITON=0 SEGNODE_GRAPHS=0'):
        assert word in out


def guessed(frame: SceneFrame, rng: np.random.Generator) -> Segmentation:
    """An answer that is right in part: boxes and masks moved, scores drawn, classes mixed up."""
    count = len(frame.class_ids)
    scores = rng.uniform(0.3, 1, count).astype(np.float32)
    boxes = frame.boxes_xyxy + rng.normal(0, 3, (count, 4)).astype(np.float32)
    wrong = rng.random(count) < 0.2
    # One at least, else all may be right in the rare draw in which nothing moves far.
    wrong[0] = True
    order = np.argsort(-scores)
    number = np.zeros(count + 1, np.uint16)
    number[order + 1] = np.arange(1, count + 1)
    labels = number[np.roll(frame.instance_map, int(rng.integers(-4, 5)), 1)]
    class_ids = np.where(wrong, (frame.class_ids + 1) % len(CLASS_NAMES), frame.class_ids)
    areas = np.zeros(count, np.int64)
    found = Detections(boxes[order], scores[order], class_ids[order], areas)
    return Segmentation(found, labels, {}, frame.instance_map.shape, {})


@pytest.mark.parametrize('seed', fresh_seeds(3))
def test_average_precision_is_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [Scene(each, (240, 320)).frame(3) for each in engines.SEEDS[:3]]
    guesses = [guessed(frame, rng) for frame in scenes]
    truth = Annotations.from_coco(coco_annotations(scenes))
    entries = [
        entry
        for image_id, answer in enumerate(guesses)
        for entry in coco_results(
            answer.detections,
            label_image_rles(answer.label_image, len(answer.detections)),
            image={'image_id': image_id, 'file_name': ''},
            class_names=CLASS_NAMES,
            category_ids=range(len(CLASS_NAMES)),
        )
    ]
    for kind, iou_type in (('box', 'bbox'), ('mask', 'segm')):
        expected = metrics.average_precision(truth, entries, iou_type, range(len(scenes))).ap
        found = average_precision.average_precision(scenes, guesses, kind)
        assert found == pytest.approx(expected, abs=1e-6)
        assert 0 < found < 1


def test_answers_are_compared_as_sets(prepared: Reference) -> None:
    config = engines.judged_config(parse(['--device', 'cpu']), 'cpu', 'fp32')
    engine = Engine(config.replace({'filter.score_threshold': 0.0}))
    answer = prepared.compared[0.0][0]
    found = answer.detections
    assert len(found) == 10
    assert answers.compare(answer, answer, engine) == {
        'matched': 1.0,
        'labels': 1.0,
        'box_px': 0.0,
        'score': 0.0,
    }

    def changed(**arrays: Any) -> dict[str, float]:
        other = replace(answer, detections=replace(found, **arrays))
        return answers.compare(answer, other, engine)

    boxes = found.boxes_xyxy.copy()
    boxes[0, 0] += 0.2
    assert changed(boxes_xyxy=boxes)['matched'] < 1
    assert changed(boxes_xyxy=boxes)['box_px'] == pytest.approx(0.2, abs=1e-4)
    assert changed(class_ids=(found.class_ids + 1) % 5)['matched'] == 0
    assert changed(scores=found.scores + np.nan)['matched'] == 0
    order = np.arange(10)
    order[:2] = 1, 0
    number = np.append(0, order + 1).astype(np.uint16)
    swapped = Detections(*(getattr(found, name)[order] for name in Detections.__slots__))
    labels = number[answer.label_image]
    other = replace(answer, detections=swapped, label_image=labels)
    assert answers.compare(answer, other, engine)['labels'] == 1
