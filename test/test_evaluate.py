# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode evaluate`` on bags of rendered scenes, through everything that a user's bag goes."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pycocotools import mask as coco_mask
from rendered_bag import START_NS, TOPIC, scene_frames, stamp_of, write_annotations, write_bag

from segnode.__main__ import main
from segnode.bags.bag import open_bag
from segnode.bags.images import read_labels
from segnode.config import Config
from segnode.engine import Engine
from segnode.evaluation.frames import FrameRow, read_frames
from segnode.image import Image

ROOT = Path(__file__).resolve().parents[1]
IMAGE_HW = (240, 320)
FRAMES = 10
SETTINGS = ('--device', 'cpu', '--short-side', '240', '--score-threshold', '0.3')


@pytest.fixture(scope='module')
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp('bags') / 'drive', scene_frames(FRAMES, IMAGE_HW))


@pytest.fixture(scope='module')
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('truth') / 'instances.json'
    return write_annotations(path, scene_frames(FRAMES, IMAGE_HW))


@pytest.fixture(scope='module')
def evaluated(bag: Path, annotations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('run') / 'out'
    options = ('--annotations', str(annotations), '--output', str(out))
    assert main(['evaluate', str(bag), *options, *SETTINGS]) == 0
    return out


def summary_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / 'summary.json').read_text())
    return found


def rows_of(out: Path) -> list[FrameRow]:
    return list(read_frames(out / 'frames.csv'))


def test_every_frame_is_answered_as_the_engine_does(evaluated: Path) -> None:
    engine = Engine(
        Config(device='cpu').replace({'resolution.short_side': 240, 'filter.score_threshold': 0.3})
    )
    results = json.loads((evaluated / 'results.json').read_text())
    rows = rows_of(evaluated)
    assert [row.stamp_ns for row in rows] == [stamp_of(k) for k in range(FRAMES)]
    assert all(row.processed and row.clock == 'stamp' for row in rows)
    total = 0
    for row, frame in zip(rows, scene_frames(FRAMES, IMAGE_HW), strict=True):
        (expected,) = engine.predict([Image(frame.image, 'bgr')])
        found = [r for r in results if r['image_id'] == row.frame]
        total += len(found)
        assert row.kept == len(found) == len(expected.detections)
        assert (row.height, row.width) == IMAGE_HW
        assert (row.network_height, row.network_width) == expected.network_hw
        for k, entry in enumerate(found):
            assert entry['stamp_ns'] == row.stamp_ns
            assert entry['topic'] == TOPIC
            assert entry['score'] == pytest.approx(float(expected.detections.scores[k]))
            np.testing.assert_array_equal(
                coco_mask.decode(entry['segmentation']), expected.mask(k)
            )
    assert total == len(results) > FRAMES
    summary = summary_of(evaluated)
    assert summary['counts']['kept'] == sum(summary['classes'].values()) == total


def test_scores_are_those_of_the_frames(evaluated: Path, annotations: Path) -> None:
    from segnode.evaluation.annotations import Annotations
    from segnode.evaluation.metrics import average_precision

    summary = summary_of(evaluated)
    truth = Annotations.read(annotations)
    results = json.loads((evaluated / 'results.json').read_text())
    for name, kind in (('box', 'bbox'), ('mask', 'segm')):
        expected = average_precision(truth, results, kind, range(FRAMES))  # type: ignore[arg-type]
        assert summary[f'{name}_ap'] == pytest.approx(expected.ap, abs=1e-9)
        assert summary[f'{name}_ap50'] == pytest.approx(expected.ap50, abs=1e-9)
        assert 0.2 < expected.ap < 1
        # An answer comes after its frame, so that the frame is scored against an earlier one.
        assert summary[f'streaming_{name}_ap'] < summary[f'{name}_ap']
    assert summary['truth']['matched'] == summary['scores']['images'] == FRAMES


def test_the_same_bag_gives_the_same_answers(
    evaluated: Path, bag: Path, annotations: Path, tmp_path: Path
) -> None:
    out = tmp_path / 'again'
    options = ('--annotations', str(annotations), '--output', str(out))
    assert main(['evaluate', str(bag), *options, *SETTINGS]) == 0
    first = (evaluated / 'results.json').read_bytes()
    assert (out / 'results.json').read_bytes() == first
    for name in ('box_ap', 'mask_ap', 'frames', 'processed', 'skipped', 'counts', 'scores'):
        assert summary_of(out)[name] == summary_of(evaluated)[name]


def test_the_output_bag_has_what_the_node_would_publish(evaluated: Path) -> None:
    rows = rows_of(evaluated)
    with open_bag(evaluated / 'bag', lambda _: None) as bag:
        assert {name: topic.messages for name, topic in bag.topics.items()} == {
            f'/segnode/{name}': FRAMES
            for name in (
                'detections', 'instance_mask', 'stage_times', 'annotations', 'overlay/compressed',
            )
        }  # fmt: skip
        masks = list(bag.records(['/segnode/instance_mask']))
    for row, record in zip(rows, masks, strict=True):
        header, labels = read_labels(record)
        assert (header.stamp_ns, header.frame_id) == (row.stamp_ns, 'camera')
        assert record.log_ns == row.log_ns
        assert labels.shape == IMAGE_HW
        assert labels.max() <= row.kept


def test_the_robot_gets_the_evaluated_settings(evaluated: Path) -> None:
    told = yaml.safe_load((evaluated / 'params.yaml').read_text())['/**']['ros__parameters']
    assert told == {'model': '', 'resolution.short_side': 240, 'filter.score_threshold': 0.3}
    config = yaml.safe_load((evaluated / 'config.yaml').read_text())
    assert config['asked_for']['filter.score_threshold'] == 0.3
    assert config['settings']['resolution.short_side'] == 240
    assert len(config['weights_sha256']) == 64
    assert config['left_off'] == {
        'latency_budget_ms': 0, 'max_age_ms': 0, 'overlap': False, 'max_batch': 1,
    }  # fmt: skip
    page = (evaluated / 'report.html').read_text()
    assert 'segnode evaluate' in page


def test_every_frame_left_out_has_its_reason(tmp_path: Path, capsys: Any) -> None:
    bag = write_bag(tmp_path / 'bag', scene_frames(10, IMAGE_HW), broken=(4, 6))
    options = ('--start', '0.15', '--end', '0.85', '--every', '2', '--no-bag')
    out = tmp_path / 'out'
    assert main(['evaluate', str(bag), *options, '--output', str(out), *SETTINGS]) == 0
    rows = rows_of(out)
    statuses = {row.number: row.status for row in rows}
    assert statuses == {
        0: 'range', 1: 'range', 2: 'processed', 3: 'every', 4: 'decode', 5: 'every', 6: 'decode',
        7: 'every', 8: 'processed', 9: 'range',
    }  # fmt: skip
    assert all(row.reason for row in rows if not row.processed)
    summary = summary_of(out)
    assert summary['skipped'] == {'range': 3, 'every': 3, 'decode': 2}
    assert summary['frames'] == summary['processed'] + sum(summary['skipped'].values()) == 10
    captured = capsys.readouterr()
    assert 'evaluate: frames=10 processed=2 skipped=8' in captured.out
    assert 'left out 2: decode: ' in captured.err
    assert not (out / 'bag').exists()


def test_several_cameras_and_bags(tmp_path: Path) -> None:
    frames = scene_frames(3, IMAGE_HW)
    bags = [
        write_bag(tmp_path / 'a', frames, ('/front/image_raw', '/rear/image_raw')),
        write_bag(tmp_path / 'b', frames, ('/front/image_raw',), compressed=True),
    ]
    out = tmp_path / 'out'
    assert main(['evaluate', *map(str, bags), '--output', str(out), *SETTINGS]) == 0
    found = [(row.bag, row.topic, row.number) for row in rows_of(out)]
    assert sorted(found) == [
        *((0, topic, k) for topic in ('/front/image_raw', '/rear/image_raw') for k in range(3)),
        *((1, '/front/image_raw/compressed', k) for k in range(3)),
    ]
    results = json.loads((out / 'results.json').read_text())

    def answers(bag: int, topic: str) -> list[Any]:
        ids = [row.frame for row in rows_of(out) if (row.bag, row.topic) == (bag, topic)]
        return [
            (r['bbox'], r['score'], r['segmentation']) for r in results if r['image_id'] in ids
        ]

    # The camera and the transport of an image change nothing of its answer.
    front = answers(0, '/front/image_raw')
    assert front
    assert answers(0, '/rear/image_raw') == answers(1, '/front/image_raw/compressed') == front
    with open_bag(out / 'bag', lambda _: None) as bag:
        assert '/segnode/rear_image_raw/detections' in bag.topics
    only = tmp_path / 'only'
    options = ('--topic', '/rear/image_raw', '--no-bag', '--output', str(only))
    assert main(['evaluate', str(bags[0]), *options, *SETTINGS]) == 0
    assert {row.topic for row in rows_of(only)} == {'/rear/image_raw'}


def test_frames_without_annotations_count_neither_way(
    bag: Path, evaluated: Path, tmp_path: Path
) -> None:
    some = write_annotations(tmp_path / 'some.json', scene_frames(FRAMES, IMAGE_HW), every=5)
    out = tmp_path / 'out'
    options = ('--annotations', str(some), '--output', str(out), '--no-bag')
    assert main(['evaluate', str(bag), *options, *SETTINGS]) == 0
    summary = summary_of(out)
    assert summary['truth']['annotated'] == summary['truth']['matched'] == FRAMES / 5
    assert summary['processed'] == FRAMES
    assert (out / 'results.json').read_bytes() == (evaluated / 'results.json').read_bytes()


def test_latencies_of_another_machine(bag: Path, annotations: Path, tmp_path: Path) -> None:
    found = {}
    for ms in ('1', '20', '50', '350'):
        out = tmp_path / ms
        options = ('--annotations', str(annotations), '--latencies', ms, '--no-bag')
        assert main(['evaluate', str(bag), *options, '--output', str(out), *SETTINGS]) == 0
        found[ms] = summary_of(out)['streaming_box_ap']
    # At 10 Hz all that comes before the next frame is as good, and later is worse.
    assert found['1'] == found['20'] == found['50'] > found['350']


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (lambda f: [str(f / 'none')], 'no such file or folder'),
        (lambda f: [str(f / 'bag'), '--topic', '/other'], TOPIC),
        (lambda f: [str(f / 'bag'), '--every', '0'], '--every: expected 1 or more'),
        (lambda f: [str(f / 'bag'), '--start', 'nan'], '--start: expected seconds'),
        (lambda f: [str(f / 'bag'), '--end', '-1'], '--end: expected seconds after'),
        (lambda f: [str(f / 'bag'), '--latencies', '0'], 'expected more than 0 milliseconds'),
        (lambda f: [str(f / 'bag'), '--latencies', 'no.csv'], 'expected milliseconds or a'),
        (lambda f: [str(f / 'bag'), '--output', str(f / 'bag')], 'expected a folder apart'),
        (lambda f: [str(f / 'bag'), '--output', str(f)], 'expected a folder apart'),
        (lambda f: [str(f / 'bag'), '--output', str(f / 'mine')], 'found other files'),
        (lambda f: [str(f / 'bag'), '--mono16-bits', '3'], '--mono16-bits: expected 8 to 16'),
    ],
)
def test_wrong_use_is_one_line(
    options: Callable[[Path], list[str]],
    expected: str,
    bag: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bag, tmp_path / 'bag')
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'notes.txt').touch()
    assert main(['evaluate', *options(tmp_path)]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('segnode: error: ')
    assert expected in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ['bag', 'mine']


def test_a_bag_of_broken_images_ends_in_a_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(tmp_path / 'bag', scene_frames(3, IMAGE_HW), broken=(0, 1, 2))
    out = tmp_path / 'out'
    assert main(['evaluate', str(bag), '--output', str(out), *SETTINGS]) == 1
    assert summary_of(out)['skipped'] == {'decode': 3}
    assert json.loads((out / 'results.json').read_text()) == []
    assert 'Traceback' not in capsys.readouterr().err
    assert START_NS in {row.log_ns - 4_000_000 for row in rows_of(out)}


def test_label_images_in_the_bag_are_a_ground_truth(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(tmp_path / 'bag', scene_frames(FRAMES, IMAGE_HW), labels=True)
    out = tmp_path / 'out'
    options = ('--label-topic', '/truth/instance_mask', '--no-bag', '--output', str(out))
    assert main(['evaluate', str(bag), *options, *SETTINGS]) == 0, capsys.readouterr().err
    summary, annotated = summary_of(out), summary_of(evaluated)
    # The label images are no camera, and what they hold is what the COCO file holds.
    assert summary['frames'] == summary['truth']['matched'] == FRAMES
    for name in ('box_ap', 'mask_ap'):
        assert summary[name] == pytest.approx(annotated[name], abs=1e-6)


def test_annotations_that_fit_no_frame_lose_nothing_else(
    bag: Path, annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = json.loads(annotations.read_text())
    for image in dataset['images']:
        image['stamp_ns'] += 3_600_000_000_000
    (tmp_path / 'late.json').write_text(json.dumps(dataset))
    out = tmp_path / 'out'
    options = ('--annotations', str(tmp_path / 'late.json'), '--no-bag', '--output', str(out))
    assert main(['evaluate', str(bag), *options, '--model', 'null', '--device', 'cpu']) == 1
    summary = summary_of(out)
    assert summary['processed'] == FRAMES
    assert summary['box_ap'] is None
    assert summary['unscored']
    assert 'not scored: ' in capsys.readouterr().err
    assert (out / 'report.html').is_file()


def peak_mb(bag: Path, out: Path) -> float:
    """Run the command in a process of its own; return the most memory that it had."""
    program = (
        'import resource, sys; from segnode.__main__ import main; code = main(sys.argv[1:]); '
        'print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr); '
        'sys.exit(code)'
    )
    line = [sys.executable, '-c', program, 'evaluate', str(bag), '--output', str(out)]
    options = ['--model', 'null', '--device', 'cpu', '--short-side', '64']
    done = subprocess.run([*line, *options], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return float(done.stderr.splitlines()[-1])


def test_memory_does_not_grow_with_the_length_of_a_bag(tmp_path: Path) -> None:
    frames = scene_frames(2, (480, 640))
    sizes = {
        count: peak_mb(
            write_bag(tmp_path / f'bag{count}', itertools.islice(itertools.cycle(frames), count)),
            tmp_path / f'out{count}',
        )
        for count in (20, 200)
    }
    # All frames together are 184 MB; so many are held nowhere.
    assert sizes[200] < sizes[20] + 60


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', scene_frames(2, IMAGE_HW) * 100)
    out = tmp_path / 'out'
    line = [sys.executable, '-m', 'segnode', 'evaluate', str(bag), '--output', str(out)]
    options = ['--model', 'null:50', '--device', 'cpu', '--short-side', '64']
    with subprocess.Popen([*line, *options], cwd=ROOT, stderr=subprocess.PIPE, text=True) as child:
        part = out / '.frames.csv.part'
        end_s = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size) and time.monotonic() < end_s:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        assert child.stderr is not None
        err = child.stderr.read()
        assert child.wait(60) == 130, err
    assert 'Traceback' not in err
    summary = summary_of(out)
    assert 'interrupted' in summary['stopped']
    assert 0 < summary['processed'] == len(rows_of(out)) < 200
    assert not list(out.glob('.*.part'))
    with open_bag(out / 'bag', lambda _: None) as written:
        assert written.topics['/segnode/detections'].messages == summary['processed']
