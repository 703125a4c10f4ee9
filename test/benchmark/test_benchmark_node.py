# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``benchmark --node``: the real node between real processes, and what is refused."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
from pathlib import Path

import pytest

from segnode.__main__ import main
from segnode.benchmark.node import _check, write_frames
from segnode.benchmark.report import node_stage_table, node_table
from segnode.benchmark.request import NodeRequest
from segnode.benchmark.rig import Series, cpu_ms
from segnode.errors import MeasurementError
from segnode.picture_files import read_image

COUNTS = ('sent', 'received', 'published', 'dropped')


@pytest.mark.ros
@pytest.mark.timed
def test_two_cameras_through_the_real_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        'tempfile.TemporaryDirectory', lambda **_: contextlib.nullcontext(str(tmp_path))
    )
    target = tmp_path / 'node.json'
    arguments = ['--model', 'null:2', '--short-side', '64', '--min-mask-area', '1']
    rig = ['--shapes', '96x128,120x80', '--transports', 'compressed', '--cameras', '2']
    series = ['--rate', '10', '--seconds', '1', '--json', str(target)]
    code = main(['benchmark', '--node', *arguments, *rig, *series])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    result = json.loads(target.read_text())
    assert result['machine']['rclpy']
    assert result['machine']['rmw'].startswith('rmw_')
    assert 'node and relay in turns' in result['protocol']
    assert [row['shape'] for row in result['rows']] == ['96x128', '120x80']
    for row in result['rows']:
        assert (row['transport'], row['model'], row['cameras']) == ('compressed', 'null:2', 2)
        # A JPEG.
        assert 500 < row['image_bytes'] < 80 * 120 * 3
        assert row['sent'] == 2 * 2 * 5
        # On a machine that others keep busy a frame may be replaced by the next one.
        assert row['sent'] >= row['received'] == row['published'] + row['dropped']
        assert row['dropped'] == sum(row['dropped_by_reason'].values())
        assert row['published'] > 0
        # Masks without a pixel fall to the filter that was given.
        assert 15 <= row['instances'] <= 20
        assert 0 < row['relay_ms_p50'] <= row['relay_ms_p95']
        assert 2 < row['age_ms_p50'] <= row['age_ms_p95']
        assert row['overhead_ms_p50'] == pytest.approx(row['age_ms_p50'] - row['relay_ms_p50'])
        assert len(row['overhead_ms_rounds']) == 5
        assert row['published_hz'] > 0
        stages = row['stage_ms']
        assert stages.keys() >= {'wait', 'decode', 'preprocess', 'paste', 'publish', 'total'}
        assert stages['network'] >= 2
        assert row['cpu_ms'] > row['relay_cpu_ms'] >= 0
        assert row['shape'] in captured.out
    most = max(row['overhead_ms_p50'] for row in result['rows'])
    last = captured.out.splitlines()[-1]
    assert last == f'benchmark: rows=2 most_overhead_ms_p50={most:.1f}'
    # What the planted answers are worth is said where people look.
    log = (tmp_path / 'compressed' / 'node.log').read_text()
    assert '[WARN]' in log
    assert 'nothing is detected' in log


@pytest.mark.ros
def test_a_node_that_cannot_start_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long the processes import before they answer.
    monkeypatch.setattr('segnode.benchmark.rig.ANSWER_TIMEOUT_S', 0.1)
    # Only the node knows which classes there are.
    code = main(['benchmark', '--node', '--model', 'null', '--classes', 'unicorn'])
    err = capsys.readouterr().err
    assert code == 1
    (line,) = [line for line in err.splitlines() if 'error' in line]
    assert line.startswith('segnode: error: the node ended with code 2: ')
    assert 'unicorn' in line
    assert 'Traceback' not in err


@pytest.mark.ros
def test_frames_are_messages_of_the_pictures(tmp_path: Path) -> None:
    from rclpy.serialization import deserialize_message

    from segnode.ros.benchmark_camera import serialised_image, stamped
    from segnode.ros.benchmark_peer import image_topic

    for transport in ('raw', 'compressed'):
        files = write_frames(tmp_path, (48, 64), transport)
        assert len(set(files)) == 4
        for file in files:
            picture = read_image(file)
            assert (picture.height, picture.width) == (48, 64)
        kind, _ = image_topic('/image', transport)
        data = serialised_image(files[0], transport)
        message = deserialize_message(stamped(data, 12_000_000_345), kind)
        assert (message.header.stamp.sec, message.header.stamp.nanosec) == (12, 345)
        if transport == 'raw':
            first = read_image(files[0])
            assert message.encoding == f'{first.order}8'
            assert bytes(message.data) == first.pixels.tobytes()
        else:
            assert bytes(message.data) == files[0].read_bytes()
        message.header.stamp.sec = message.header.stamp.nanosec = 0
        assert message == deserialize_message(data, kind)


def series(ages: int, sent: int = 5) -> Series:
    return Series(sent, [1.0] * ages, [20] * ages, 30.0, [], 100, None)


def test_frames_that_nobody_accounts_for_are_refused() -> None:
    counts = {'received': 5, 'published': 4, 'dropped_superseded': 1, 'in_flight': 0}
    _check('480x640 raw', counts, [series(4)], [series(5)])
    with pytest.raises(MeasurementError, match='received 5 frames, published 3 and dropped 1'):
        _check('480x640 raw', counts | {'published': 3}, [series(3)], [series(5)])
    with pytest.raises(MeasurementError, match='and 3 answers arrived'):
        _check('480x640 raw', counts, [series(3)], [series(5)])
    with pytest.raises(MeasurementError, match='answers of the relay in every turn'):
        _check('480x640 raw', counts, [series(4)], [series(5), series(0)])


def test_a_round_has_two_frames_or_more() -> None:
    request = NodeRequest(shapes=(), transports=(), cameras=1, rate_hz=30.0, seconds=10.0)
    assert request.frames(5) == 60
    assert (
        NodeRequest(shapes=(), transports=(), cameras=1, rate_hz=1.0, seconds=1.0).frames(5) == 2
    )


def test_processor_time_grows_with_work() -> None:
    before = cpu_ms(os.getpid())
    assert before is not None
    while (cpu_ms(os.getpid()) or 0) < before + 30:
        sum(range(10_000))
    assert cpu_ms(2**22 + 1) is None


def test_tables_have_a_line_a_row() -> None:
    row = dict.fromkeys(COUNTS, 300) | {
        'shape': '720x1280',
        'transport': 'raw',
        'cameras': 1,
        'published_hz': 29.97,
        'age_ms_p50': 8.44,
        'age_ms_p95': 9.0,
        'relay_ms_p50': 2.4,
        'overhead_ms_p50': 6.04,
        'stage_ms': {'decode': 0.5, 'publish': 1.25},
        'cpu_ms': 9.0,
        'relay_cpu_ms': None,
    }
    lines = node_table([row]).splitlines()
    assert lines[1].split() == [
        *('720x1280', 'raw', '1', '300', '300', '300', '300'),
        *('30.0', '8.4', '9.0', '2.4', '6.0'),
    ]
    other = row | {'stage_ms': {'wait': 0.1}}
    stages = node_stage_table([row, other]).splitlines()
    assert stages[0].split()[:6] == ['shape', 'transport', 'cameras', 'decode', 'publish', 'wait']
    assert stages[1].split()[3:] == ['0.50', '1.25', '0.00', '9.0', '-']


@pytest.mark.parametrize(
    ('args', 'problem'),
    [
        (['--node', '--plant'], '--plant: expected it not to be given with --node'),
        (['--node', '--detections', '5'], '--detections: '),
        (['--node', '--batch', '2'], '--batch: '),
        (['--node', '--against', 'detectron2'], '--against: '),
        (['--node', '--parts'], '--parts: '),
        (['--node', '--frames', '5'], '--frames: '),
        (['--node', '--plot', 'b.png'], '--plot: '),
        (['--rate', '5'], '--rate: expected --node with it'),
        (['--seconds', '5'], '--seconds: expected --node'),
        (['--cameras', '2'], '--cameras: expected --node'),
        (['--transports', 'raw'], '--transports: expected --node'),
        (['--node', '--transports', 'smoke'], "--transports: expected raw, compressed, found 'sm"),
        (['--node', '--transports', 'raw,raw'], 'once'),
        (['--node', '--shapes', '480'], '--shapes: expected height x width'),
        (['--node', '--cameras', '9'], '--cameras: expected 1 to 8, found 9'),
        (['--node', '--cameras', '0'], '--cameras: '),
        (['--node', '--rate', '0'], '--rate: expected 0.1 to 1000, found 0'),
        (['--node', '--rate', 'nan'], '--rate: '),
        (['--node', '--seconds', '-1'], '--seconds: '),
        (['--node', '--model', 'null:abc'], 'as in null:30'),
        (['--node', '--model', 'nothing'], 'expected a file or a preset'),
        (['--node', '--json', '/nowhere/n.json'], '/nowhere'),
        (['--node', '--score-threshold', '7'], 'score_threshold'),
    ],
)
def test_wrong_use_is_one_line(
    args: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if args[1:2] == ['--model'] and importlib.util.find_spec('rclpy') is None:
        pytest.skip('needs rclpy, which is looked for before the model')
    assert main(['benchmark', *args]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith('segnode: error: ')
    assert problem in line
    assert captured.out == ''
