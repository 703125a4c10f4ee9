# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Videos into bags."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_convert import START_NS, messages, run, stamp_ns

from segnode.convert.video import Video, gaps_between
from segnode.errors import ConfigError
from segnode.live.image_message import decode_compressed


def write_video(path: Path, code: str, frames: int = 9, rate_hz: float = 12.5) -> Path:
    """Write frames whose grey level is 20 x their number."""
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), rate_hz, (64, 48))
    if not video.isOpened():
        pytest.skip(f'this OpenCV writes no {code}')
    for k in range(frames):
        video.write(np.full((48, 64, 3), 20 * k, np.uint8))
    video.release()
    return path


@pytest.mark.parametrize(('name', 'code'), [('v.mp4', 'mp4v'), ('v.avi', 'MJPG')])
@pytest.mark.parametrize('raw', [False, True])
def test_every_frame_in_order_at_the_rate_of_the_video(
    name: str, code: str, raw: bool, tmp_path: Path
) -> None:
    video = write_video(tmp_path / name, code)
    assert run(video, tmp_path / 'bag', *(['--raw'] if raw else [])) == 0
    found = messages(tmp_path / 'bag')
    expected = '/camera/image' if raw else '/camera/image/compressed'
    assert {topic for topic, *_ in found} == {expected}
    pictures = [
        m.data if raw else decode_compressed(format=m.format, data=bytes(m.data)).pixels
        for *_, m in found
    ]
    levels = [float(np.mean(pixels)) for pixels in pictures]
    np.testing.assert_allclose(levels, 20 * np.arange(9), atol=4)
    assert [stamp_ns(m) for *_, m in found] == [START_NS + k * 80_000_000 for k in range(9)]


def test_rate_and_quality_can_be_chosen_and_it_repeats(tmp_path: Path) -> None:
    video = write_video(tmp_path / 'v.avi', 'MJPG')
    sizes = []
    for name, quality in (('a', 95), ('b', 95), ('c', 5)):
        options = ['--rate', '4', '--quality', quality, '--json', tmp_path / 's.json']
        assert run(video, *options, tmp_path / name) == 0
        sizes.append(sum(len(m.data) for *_, m in messages(tmp_path / name)))
    summary = json.loads((tmp_path / 's.json').read_text())
    assert summary['last_ns'] - summary['first_ns'] == 2 * 10**9
    assert sizes[0] == sizes[1] > sizes[2]
    assert (tmp_path / 'a/bag.mcap').read_bytes() == (tmp_path / 'b/bag.mcap').read_bytes()


def test_a_video_that_ends_early_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A raw AVI whose header still says 9 frames."""
    video = write_video(tmp_path / 'v.avi', 'MJPG')
    data = video.read_bytes()
    video.write_bytes(data[: len(data) * 3 // 4])
    code = run(video, tmp_path / 'bag')
    err = capsys.readouterr().err
    assert code == 1
    if not (tmp_path / 'bag').exists():  # Another FFmpeg refuses it.
        assert 'expected' in err
        return
    count = len(messages(tmp_path / 'bag'))
    assert 0 < count < 9
    assert f'{count} of the 9 frames that its header says can be read' in err


@pytest.mark.parametrize(('name', 'code'), [('v.mkv', 'MJPG'), ('v.avi', 'MJPG')])
def test_frames_that_are_missing_inside_a_video_are_counted(
    name: str, code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / name
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*code), 12.5, (64, 48))
    if not writer.isOpened():
        pytest.skip(f'this OpenCV writes no {code}')
    random = np.random.default_rng(0)
    for _ in range(40):
        writer.write(random.integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()
    data = bytearray(video.read_bytes())
    start, end = len(data) * 4 // 10, len(data) * 6 // 10
    data[start:end] = bytes(end - start)
    video.write_bytes(data)
    assert run(video, tmp_path / 'bag', '--json', tmp_path / 's.json') == 1
    captured = capsys.readouterr()
    found = len(messages(tmp_path / 'bag'))
    assert 0 < found < 40
    left_out = json.loads((tmp_path / 's.json').read_text())['left_out']
    assert left_out == {'frames that the video says and that cannot be read': 40 - found}
    assert f'left_out={40 - found}' in captured.out
    assert f'{found} of the 40 frames that its header says can be read' in captured.err
    assert 'stamps are too early' in captured.err
    if name == 'v.mkv':  # Its frames have times of their own.
        assert f'{40 - found} are missing behind frame ' in captured.err


@pytest.mark.parametrize(
    ('name', 'announced', 'missing'), [('v.mkv', 11, 0), ('v.mkv', 40, 31), ('v.avi', 11, 2)]
)
def test_a_length_that_may_be_that_of_the_sound_is_not_counted(
    name: str, announced: int, missing: int, tmp_path: Path
) -> None:
    reports: list[str] = []
    left_out: Counter[str] = Counter()
    with Video(write_video(tmp_path / name, 'MJPG')) as video:
        video.announced = announced
        frames = video.frames(reports.append, left_out, quality=90, raw=True)
        assert sum(1 for _ in frames) == 9
    assert left_out.total() == missing
    (line,) = reports
    assert f'9 of the {announced} frames' in line


@pytest.mark.parametrize(
    ('periods', 'gaps'),
    [
        ([], {}),
        ([3], {}),
        ([0, 1, 2.01, 2.99], {}),
        ([0, 1, 4, 5, 7], {1: 2, 3: 1}),
        ([0, 0, 0, 5], {}),
        ([0, 5, 4], {}),
        ([0, math.nan, 9], {}),
    ],
)
def test_gaps_are_those_between_times_of_frames(
    periods: list[float], gaps: dict[int, int]
) -> None:
    assert gaps_between([80 * each for each in periods], 12.5) == gaps


@pytest.mark.parametrize('content', [b'', b'no video at all', None])
def test_what_is_no_video_is_refused(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / 'v.mp4').write_bytes(content)
    assert run(tmp_path / 'v.mp4', tmp_path / 'bag') == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'segnode: error: {tmp_path / "v.mp4"}: expected a video')
    assert not (tmp_path / 'bag').exists()


def test_the_libraries_behind_opencv_stay_silent(tmp_path: Path) -> None:
    """In a process of its own, as they read once how much they are to say."""
    (tmp_path / 'v.mp4').write_bytes(b'no video at all')
    words = [sys.executable, '-m', 'segnode', 'convert', 'v.mp4', 'bag']
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ('said', 'meant'),
    [(30000 / 1001, Fraction(30000, 1001)), (25.0, Fraction(25)), (12.5, Fraction(25, 2)),
     (1e-4, Fraction(1e-4))],
)  # fmt: skip
def test_a_rate_is_what_its_floating_point_means(
    said: float, meant: Fraction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Video(write_video(tmp_path / 'v.avi', 'MJPG')) as video:
        monkeypatch.setattr(video, '_capture', Says(said))
        assert video.rate_hz() == meant


@pytest.mark.parametrize('said', [0.0, -1.0, math.nan, math.inf, 1e9])
def test_a_video_without_a_rate_asks_for_one(
    said: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Video(write_video(tmp_path / 'v.avi', 'MJPG')) as video:
        monkeypatch.setattr(video, '_capture', Says(said))
        with pytest.raises(ConfigError, match='give --rate'):
            video.rate_hz()


class Says:
    """An open video that says a rate."""

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz

    def get(self, _: int) -> float:
        return self._rate_hz

    def release(self) -> None:
        pass
