# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The demo: scoring by hand, and the whole of it over real DDS."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from segnode.__main__ import main
from segnode.demo.command import Answer, Material, read_answers, render_scene, score
from segnode.demo.processes import Phase, environments, free_domain_id
from segnode.demo.scene import CLASS_NAMES, DEMO_SEEDS, Scene, coco_annotations
from segnode.ros_distribution import profile_variable

LAST_LINE = re.compile(
    r'demo: frames=(\d+) published=(\d+) dropped=(\d+) mask_ap=(0\.\d+|1\.0+|-) '
    r'box_ap=(0\.\d+|1\.0+|-) age_p50_ms=(\d+) rate_hz=([\d.]+) burst_received=(\d+) '
    r'burst_published=(\d+) burst_dropped=(\d+) overlay=(.+)'
)
SMALL = ('--short-side', '160', '--device', 'cpu')


@pytest.fixture(scope='module')
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Material, Path]:
    """Return four rendered frames, and answers that know the truth of the first three."""
    folder = tmp_path_factory.mktemp('played')
    material = render_scene(4, 4, folder / 'frames')
    with (folder / 'answers.jsonl').open('w') as answers:
        for index, frame in enumerate(Scene(DEMO_SEEDS[4], (480, 640)).frames(3)):
            cv2.imwrite(str(folder / f'{1000 + index}.png'), frame.instance_map.astype(np.uint16))
            detections = [
                {'class': CLASS_NAMES[c], 'score': 0.9, 'box_xyxy': box.tolist()}
                for c, box in zip(frame.class_ids, frame.boxes_xyxy, strict=True)
            ]
            row = {'stamp_ns': 1000 + index, 'age_s': 0.1, 'detections': detections}
            answers.write(json.dumps(row) + '\n')
    return material, folder


def sent(count: int) -> Phase:
    return Phase('steady', [(index, 1000 + index) for index in range(count)])


def test_rendered_frames_come_with_their_truth(played: tuple[Material, Path]) -> None:
    material, _ = played
    assert material.annotations is not None
    assert len(material.paths) == len(material.annotations.images) == 4
    frame = Scene(DEMO_SEEDS[4], (480, 640)).frame(2)
    assert np.array_equal(cv2.imread(str(material.paths[2])), frame.image)
    assert (material.paths[0].parent / 'instances.json').is_file()


def test_true_answers_score_one(played: tuple[Material, Path]) -> None:
    material, folder = played
    box, mask = score(material, sent(3), read_answers(folder))
    assert box.ap == pytest.approx(1.0)
    assert mask.ap == pytest.approx(1.0)


def test_a_frame_without_an_answer_is_missed(played: tuple[Material, Path]) -> None:
    material, folder = played
    box, mask = score(material, sent(4), read_answers(folder))
    assert 0.5 < box.ap < 0.95
    assert 0.5 < mask.ap < 0.95


def test_masks_and_boxes_are_scored_apart(played: tuple[Material, Path], tmp_path: Path) -> None:
    material, folder = played
    answers = read_answers(folder)
    blank = tmp_path / 'blank.png'
    cv2.imwrite(str(blank), np.zeros((480, 640), np.uint16))
    without = {stamp: Answer(answer.detections, blank) for stamp, answer in answers.items()}
    box, mask = score(material, sent(3), without)
    assert box.ap == pytest.approx(1.0)
    assert mask.ap == 0


def test_without_annotations_there_is_no_score(played: tuple[Material, Path]) -> None:
    material, folder = played
    box, mask = score(Material(material.paths, None), sent(3), read_answers(folder))
    assert box.ap is None
    assert mask.ap is None


def test_what_does_not_add_up_is_said() -> None:
    phase = sent(3)
    phase.received, phase.published, phase.dropped = 3, 2, {'superseded': 1, 'error': 0}
    phase.answers = {1000: (0.1, 5.0), 1001: (0.1, 5.5)}
    assert phase.problems() == []
    assert phase.answered_hz == pytest.approx(2.0)
    phase.published = 3
    assert len(phase.problems()) == 2
    phase.dropped = {}
    assert phase.problems() == ['steady: published 3, the planner got 2']
    phase.answers[1002] = (0.1, 6.0)
    assert phase.problems() == []
    phase.received = phase.published = 2
    del phase.answers[1002]
    assert phase.problems() == []
    assert phase.lost == 1
    assert Phase('burst').answered_hz == 0


def test_the_camera_gets_a_bare_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setenv('ROS_DOMAIN_ID', '0')
    monkeypatch.setenv('FASTDDS_BUILTIN_TRANSPORTS', 'LARGE_DATA')
    profile = profile_variable()
    monkeypatch.delenv(profile, raising=False)
    full, bare = environments(tmp_path)
    assert full['OMP_NUM_THREADS'] == '1'
    assert 'OMP_NUM_THREADS' not in bare
    assert 'FASTDDS_BUILTIN_TRANSPORTS' not in bare
    assert Path(bare[profile]).is_file()
    assert full['ROS_DOMAIN_ID'] == bare['ROS_DOMAIN_ID'] != '0'
    monkeypatch.setenv(profile, '/own.xml')
    assert environments(tmp_path)[1][profile] == '/own.xml'


def test_a_domain_that_is_used_or_kept_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as marks:
        monkeypatch.setattr('segnode.demo.processes._marks', marks)
        first = free_domain_id()
        others = [domain for domain in range(10, 102) if domain != first]
        monkeypatch.setattr(random.SystemRandom, 'sample', lambda *_: [first, *others])
        # It is kept for whoever asked.
        assert free_domain_id() != first
        marks.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
            participant.bind(('', 7410 + 250 * first))
            assert free_domain_id() != first
        assert free_domain_id() == first


def children(output: Path) -> list[int]:
    """Return the processes that a demo with this output folder has started and that live."""
    found = []
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            if f'ROS_LOG_DIR={output}'.encode() in (folder / 'environ').read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.ros
@pytest.mark.timed
def test_the_scene_through_the_real_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, target = tmp_path / 'demo', tmp_path / 'demo.json'
    # Slower than the machine can, which may have other work.
    arguments = ['--frames', '12', '--rate', '4', '--output', str(output), '--json', str(target)]
    assert main(['demo', *arguments, '--short-side', '320', '--device', 'cpu']) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    match = LAST_LINE.fullmatch(lines[-1])
    assert match, lines[-1]
    frames, published, dropped = (int(match[k]) for k in (1, 2, 3))
    # All of them, where the machine has nothing else to do.
    assert frames == published + dropped == 12
    assert published >= 9
    mask_ap, box_ap = float(match[4]), float(match[5])
    assert min(mask_ap, box_ap) > 0.2
    assert float(match[7]) > 1
    assert int(match[8]) == int(match[9]) + int(match[10])
    assert int(match[10]) > 0
    report = json.loads(target.read_text())
    assert report['mask_ap'] == pytest.approx(mask_ap, abs=1e-3)
    assert report['steady']['sent'] == 12
    assert report['burst']['sent'] == 60
    assert report['diagnostics']['model'] == 'mask_rcnn_demo'
    assert {'decode', 'backbone', 'rpn', 'mask_head', 'paste', 'publish'} <= set(
        report['stages_ms']
    )
    assert any(line.startswith('backbone ') for line in lines)
    assert cv2.imread(match[11]).shape == (480, 640, 3)
    assert children(output) == []
    # The folder is a data set of its own: predict scores what the camera showed.
    assert (output / 'frames' / 'instances.json').is_file()
    for log in ('camera.log', 'node.log', 'planner.log'):
        assert 'Traceback' not in (output / log).read_text()


@pytest.mark.ros
@pytest.mark.timed
def test_photographs_of_any_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, output = tmp_path / 'photos', tmp_path / 'out'
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number, shape in enumerate([(120, 160, 3), (161, 90, 3), (64, 64, 3)]):
        cv2.imwrite(str(photos / f'{number}.png'), rng.integers(0, 256, shape, np.uint8))
    (photos / '3.jpg').write_bytes(b'no picture')
    truth = coco_annotations([])
    truth['images'] = [{'id': 1, 'file_name': '0.png', 'height': 120, 'width': 160}]
    truth['categories'].append({'id': 99, 'name': 'unicorn'})
    outline = [[9, 9, 39, 9, 39, 29, 9, 29]]
    truth['annotations'] = [{'image_id': 1, 'category_id': 99, 'segmentation': outline}]
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    given = ['--annotations', str(tmp_path / 'truth.json'), '--rate', '2']
    code = main(['demo', '--images', str(photos), '--output', str(output), *given, *SMALL])
    captured = capsys.readouterr()
    assert code == 0
    match = LAST_LINE.fullmatch(captured.out.splitlines()[-1])
    assert match, captured.out
    assert [match[k] for k in (1, 2, 3, 4, 5)] == ['3', '3', '0', '0.000', '0.000']
    assert 'no class of the model, so that all count as missed: unicorn (1 obj' in captured.err
    assert '3.jpg' in captured.err
    rows = [json.loads(line) for line in (output / 'answers' / 'answers.jsonl').open()]
    shapes = {
        cv2.imread(str(output / 'answers' / f'{row["stamp_ns"]}.png'), -1).shape for row in rows
    }
    assert shapes == {(120, 160), (161, 90), (64, 64)}


@pytest.mark.ros
def test_a_node_that_cannot_start_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, output = tmp_path / 'w.safetensors', tmp_path / 'out'
    weights.write_bytes(b'nothing of use')
    code = main(['demo', '--frames', '1', '--output', str(output), '--weights', str(weights)])
    assert code == 1
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if 'error' in line]
    # Starting it again would not help.
    assert line.startswith('segnode: error: the node ended with code 2: ')
    assert 'w.safetensors' in line
    assert str(output / 'node.log') in line
    assert 'Traceback' not in err
    assert children(output) == []


def segments(processes: list[int]) -> dict[int, set[str]]:
    """Return the shared memory that each process has of the middleware."""
    mapped = {}
    for process in processes:
        try:
            lines = Path(f'/proc/{process}/maps').read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue  # It was one on its way to its program.
        names = {line.split()[-1] for line in lines if re.search('/dev/shm/fast(dds|rtps)_', line)}
        mapped[process] = {name for name in names if 'port' not in name}
    return mapped


@pytest.mark.ros
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_demo(number: signal.Signals, tmp_path: Path) -> None:
    output = tmp_path / 'out'
    # So slow that it cannot end by itself before all three processes were seen at work.
    show = ('--frames', '120', '--rate', '5')
    command = [sys.executable, '-m', 'segnode', 'demo', *show, *SMALL]
    demo = subprocess.Popen(
        [*command, '--output', str(output)], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    end = time.monotonic() + 240
    # A node that still loads its model may not end within the time that it gives itself.
    while not list(output.glob('answers/*.png')) and time.monotonic() < end:
        time.sleep(0.1)
    memory = segments(children(output))
    assert len(memory) == 3
    assert all(memory.values())
    demo.send_signal(number)
    _, err = demo.communicate(timeout=120)
    assert demo.returncode == (-9 if number == signal.SIGKILL else 130)
    assert 'Traceback' not in err
    end = time.monotonic() + 60
    while children(output) and time.monotonic() < end:
        time.sleep(0.2)
    assert children(output) == []
    # 64 MB each: what stays behind fills a container's /dev/shm within a few starts.
    assert not [name for names in memory.values() for name in names if Path(name).exists()]
