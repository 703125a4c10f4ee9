# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode evaluate`` on bags of rendered scenes, through everything that a user's bag goes."""

from __future__ import annotations

import itertools
import json
import os
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
from segnode.bags import messages
from segnode.bags.bag import open_bag
from segnode.bags.images import read_labels
from segnode.bags.record import IMAGE, Header
from segnode.bags.writer import BagWriter
from segnode.cli import note
from segnode.config import Config
from segnode.engine import Engine
from segnode.evaluation.frames import FrameRow, read_frames
from segnode.evaluation.replay import Replay, Request
from segnode.image import Image
from segnode.output_files import make_own_folder

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
    # Not ru_maxrss, which begins with what the parent had.
    program = (
        'import pathlib, sys; from segnode.__main__ import main; code = main(sys.argv[1:]); '
        'status = pathlib.Path("/proc/self/status").read_text(); '
        'print(int(status.partition("VmHWM:")[2].split()[0]) / 1024, file=sys.stderr); '
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
    assert (out / 'report.html').is_file()
    with open_bag(out / 'bag', lambda _: None) as written:
        assert written.topics['/segnode/detections'].messages == summary['processed']


def test_frames_left_out_at_the_start_leave_the_times_of_the_rest(tmp_path: Path) -> None:
    frames = scene_frames(1, (48, 64)) * 40
    bag = write_bag(tmp_path / 'bag', frames)
    out = tmp_path / 'out'
    null = ('--model', 'null:120', '--device', 'cpu', '--short-side', '64', '--no-bag')
    assert main(['evaluate', str(bag), '--start', '3.05', '--output', str(out), *null]) == 0
    summary = summary_of(out)
    assert (summary['processed'], summary['skipped']) == (9, {'range': 31})
    assert all(row.total_ms > 120 for row in rows_of(out) if row.processed)
    # 120 ms and more at 10 Hz: some frame is never worked on.
    assert summary['streaming']['missed'] > 0
    again = tmp_path / 'again'
    options = ('--latencies', str(out / 'frames.csv'), '--output', str(again))
    assert main(['evaluate', str(bag), *options, *null]) == 0


def test_rows_that_wait_for_the_first_answer_lie_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('segnode.evaluation.run._HELD_BYTES', 100)
    bag = write_bag(tmp_path / 'bag', scene_frames(1, (48, 64)) * 20)
    out = tmp_path / 'out'
    options = ('--start', '1.55', '--no-bag', '--output', str(out))
    assert main(['evaluate', str(bag), *options, '--model', 'null', '--device', 'cpu']) == 0
    assert [row.number for row in rows_of(out)] == list(range(20))
    assert [row.processed for row in rows_of(out)] == [False] * 16 + [True] * 4


def stamped_bag(folder: Path, stamps_ns: list[int], logs_ns: list[int]) -> Path:
    (frame,) = scene_frames(1, (48, 64))
    with BagWriter(folder) as bag:
        for stamp_ns, log_ns in zip(stamps_ns, logs_ns, strict=True):
            message = messages.image_message(Header(stamp_ns, 'camera'), frame.image, 'bgr8')
            bag.write(TOPIC, IMAGE, message, log_ns)
    return folder


def null_run(bag: Path | list[Path], out: Path, *options: str) -> dict[str, Any]:
    bags = [str(path) for path in (bag if isinstance(bag, list) else [bag])]
    null = ('--model', 'null', '--device', 'cpu', '--no-bag', '--output', str(out))
    assert main(['evaluate', *bags, *null, *options]) == 0
    return summary_of(out)


@pytest.mark.parametrize('count', [1, 6])
def test_stamps_since_boot(count: int, tmp_path: Path) -> None:
    stamps = [5_000_000_000 + k * 100_000_000 for k in range(count)]
    logs = [START_NS + k * 100_000_000 for k in range(count)]
    summary = null_run(stamped_bag(tmp_path / 'bag', stamps, logs), tmp_path / 'out')
    histogram = summary['health'][TOPIC]['delay_ms']['histogram']
    assert sum(histogram['counts']) == count
    assert histogram['edges'][0] == pytest.approx((START_NS - 5_000_000_000) / 1e6, rel=1e-9)


def test_an_earlier_bag_may_come_second(tmp_path: Path) -> None:
    late, early = (
        stamped_bag(tmp_path / name, stamps, stamps)
        for name, stamps in (
            ('late', [stamp_of(k + 9000) for k in range(5)]),
            ('early', [stamp_of(k) for k in range(5)]),
        )
    )
    summary = null_run([late, early], tmp_path / 'out')
    assert (summary['processed'], summary['skipped']) == (10, {})
    # The pause between two recordings is neither a gap nor a step back.
    health = summary['health'][TOPIC]
    assert (health['gap_count'], health['backward']) == (0, 0)
    # A range is one of each bag.
    assert null_run([early, late], tmp_path / 'range', '--end', '0.25')['processed'] == 6


def test_one_stamp_of_another_clock_delays_no_other_frame(tmp_path: Path) -> None:
    stamps = [stamp_of(k) for k in range(20)]
    logs = [stamp + 4_000_000 for stamp in stamps]
    found = []
    for name, wrong in (('right', {}), ('zero', {4: 0}), ('ahead', {4: stamps[4] + 10**15})):
        given = [wrong.get(k, stamp) for k, stamp in enumerate(stamps)]
        bag = stamped_bag(tmp_path / name, given, logs)
        streaming = null_run(bag, tmp_path / f'{name}-out', '--latencies', '30')['streaming']
        found.append([streaming[key] for key in ('worked_on', 'missed', 'in_time')])
        assert streaming['mean_lag_ms'] == pytest.approx(100, abs=1)
    assert found[0] == found[1] == found[2] == [20, 0, 1.0]


def test_the_robot_gets_what_belongs_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stamps = [stamp_of(k) for k in range(2)]
    bag = stamped_bag(tmp_path / 'bag', stamps, stamps)
    (tmp_path / 'names.txt').write_text('\n'.join(f'thing {k}' for k in range(80)))
    # A folder that is called like the model is none.
    options = ('--mono16-bits', '12', '--class-names', 'names.txt')
    null_run(bag, Path('null'), *options)
    text = (tmp_path / 'null' / 'params.yaml').read_text()
    told = yaml.safe_load(text)['/**']['ros__parameters']
    assert told['model'] == 'null'
    assert told['mono16_bits'] == 12
    assert told['class_names'] == [str(tmp_path / 'names.txt')]
    assert 'Evaluated on cpu' in text


def test_a_time_that_no_recorder_has_is_counted(tmp_path: Path) -> None:
    from mcap.writer import Writer

    (frame,) = scene_frames(1, (48, 64))
    path = tmp_path / 'bag.mcap'
    with path.open('wb') as stream:
        writer = Writer(stream)
        writer.start(profile='ros2')
        schema = writer.register_schema('sensor_msgs/msg/Image', 'ros2msg', b'')
        channel = writer.register_channel(TOPIC, 'cdr', schema)
        for log_ns in (START_NS, 2**63 + 5):
            message = messages.image_message(Header(0, 'camera'), frame.image, 'bgr8')
            writer.add_message(channel, log_ns, message, log_ns)
        writer.finish()
    summary = null_run(path, tmp_path / 'out')
    assert (summary['processed'], summary['skipped']) == (1, {'decode': 1})


def test_topics_that_only_one_of_the_bags_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = scene_frames(2, (48, 64))
    bags = [write_bag(tmp_path / name, frames, (f'/{name}/image',)) for name in ('a', 'b')]
    assert null_run(bags, tmp_path / 'all')['processed'] == 4
    assert null_run(bags, tmp_path / 'one', '--topic', '/a/image')['processed'] == 2
    assert f'{bags[1]}: left out, as it has none of the image topics' in capsys.readouterr().err
    none = ['evaluate', *map(str, bags), '--topic', '/c/image', '--output', str(tmp_path / 'c')]
    assert main(none) == 1
    assert 'expected images on /c/image' in capsys.readouterr().err


def test_label_images_alone_are_no_camera(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(tmp_path / 'bag', scene_frames(1, (48, 64)), (), labels=True)
    options = ('--label-topic', '/truth/instance_mask', '--output', str(tmp_path / 'out'))
    assert main(['evaluate', str(bag), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert 'expected images beside the label images' in line


def test_folders_of_other_commands_are_somebody_elses(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_own_folder(tmp_path / 'sweep', 'sweep')
    (tmp_path / 'sweep' / 'params.yaml').write_text('mine')
    assert main(['evaluate', str(bag), '--output', str(tmp_path / 'sweep')]) == 2
    assert "an earlier one of segnode's evaluate" in capsys.readouterr().err
    assert (tmp_path / 'sweep' / 'params.yaml').read_text() == 'mine'


def test_a_folder_of_which_only_a_part_of_the_mark_was_written_is_taken(
    bag: Path, tmp_path: Path
) -> None:
    """As it is left by a process that was killed right then."""
    out = tmp_path / 'out'
    out.mkdir()
    (out / '.segnode-0123456789ab.part').write_text('segnode wri')
    assert main(['evaluate', str(bag), '--model', 'null', '--output', str(out)]) == 0
    assert not list(out.glob('.*'))


def test_no_earlier_answers_stay_beside_new_ones(tmp_path: Path) -> None:
    stamps = [stamp_of(k) for k in range(2)]
    bag, out = stamped_bag(tmp_path / 'bag', stamps, stamps), tmp_path / 'out'
    null = ['evaluate', str(bag), '--model', 'null', '--device', 'cpu', '--output', str(out)]
    assert main(null) == 0
    assert (out / 'bag' / 'metadata.yaml').is_file()
    (out / 'bag' / 'notes.txt').write_text('mine')
    assert main([*null, '--no-bag']) == 0
    assert [path.name for path in (out / 'bag').iterdir()] == ['notes.txt']


def test_latencies_are_of_the_same_frames_or_said_to_be_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stamps = [stamp_of(k) for k in range(3)]
    bags = [
        stamped_bag(tmp_path / name, stamps, [stamp + late_ns for stamp in stamps])
        for name, late_ns in (('a', 1_000_000), ('b', 2_000_000))
    ]
    null_run(bags[0], tmp_path / 'first')
    times = ('--latencies', str(tmp_path / 'first' / 'frames.csv'))
    for bag, said in zip(bags, ('of the same frames in', 'as those are others'), strict=True):
        null_run(bag, tmp_path / f'{bag.name}-again', *times)
        assert said in capsys.readouterr().err


def test_values_of_twelve_bits_are_told_wherever_they_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (64, 64), np.uint16)
    with BagWriter(tmp_path / 'bag') as bag:
        for k in range(40):
            message = messages.image_message(Header(stamp_of(k), 'thermal'), values, 'mono16')
            bag.write(TOPIC, IMAGE, message, stamp_of(k))
    # As if another camera had gone on for long after it.
    monkeypatch.setattr('segnode.live.grey_values._TELLS_FOR_S', 1.0)
    with Replay(Request(bags=(tmp_path / 'bag',)), note) as replay:
        for row, record in replay.frames():
            replay.decode(row, record)
        time.sleep(1.1)
    assert f'{TOPIC}: ' in capsys.readouterr().err


def test_ctrl_c_in_the_middle_of_a_frame_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = BagWriter.write, itertools.count()

    def interrupted(self: BagWriter, *arguments: Any) -> None:
        if next(calls) == 12:  # In the third frame, of five messages each.
            os.kill(os.getpid(), signal.SIGINT)
        write(self, *arguments)

    stamps = [stamp_of(k) for k in range(6)]
    bag, out = stamped_bag(tmp_path / 'bag', stamps, stamps), tmp_path / 'out'
    monkeypatch.setattr(BagWriter, 'write', interrupted)
    before = signal.getsignal(signal.SIGINT)
    null = ('--model', 'null', '--device', 'cpu')
    assert main(['evaluate', str(bag), '--output', str(out), *null]) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert summary_of(out)['processed'] == len(rows_of(out)) == 3
    assert (out / 'report.html').is_file()
    with open_bag(out / 'bag', lambda _: None) as written:
        assert {topic.messages for topic in written.topics.values()} == {3}
