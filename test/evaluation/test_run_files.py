# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The files that a run streams: frames and results, written and read back."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from segnode.errors import ConfigError
from segnode.evaluation.frames import FrameRow, FramesWriter, read_frames
from segnode.evaluation.results_file import ResultsWriter, read_results


def rows() -> list[FrameRow]:
    common = {'bag': 0, 'topic': '/front, "left"/image', 'clock': 'stamp'}
    return [
        FrameRow(frame=0, number=0, stamp_ns=0, log_ns=5, time_ns=5, status='decode',
                 reason='expected a whole JPEG,\nfound "none"', **common),
        FrameRow(frame=1, number=1, stamp_ns=2**62, log_ns=7, time_ns=2**62, height=480, width=640,
                 network_height=240, network_width=320, detected=9, kept=5, filtered_class=3,
                 filtered_area=1, stage_ms={'decode': 1.25, 'backbone': 30.0}, **common),
    ]  # fmt: skip


def test_frames_come_back_as_they_were(tmp_path: Path) -> None:
    stream = io.StringIO()
    writer = FramesWriter(stream, ['decode', 'backbone'])
    for row in rows():
        writer.write(row)
    path = tmp_path / 'frames.csv'
    path.write_text(stream.getvalue(), newline='')
    assert list(read_frames(path)) == rows()
    lines = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert [line['total_ms'] for line in lines] == ['', '31.250']
    assert lines[1]['backbone_ms'] == '30.000'


@pytest.mark.parametrize('text', ['', 'a,b\n1,2\n', '\0\1\2', 'frame,bag\nx,y\n'])
def test_another_file_is_no_frames_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / 'frames.csv'
    path.write_text(text)
    with pytest.raises(ConfigError, match=r'expected a frames\.csv of segnode'):
        list(read_frames(path))


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    stream = io.StringIO()
    FramesWriter(stream, []).write(rows()[0])
    path = tmp_path / 'frames.csv'
    path.write_text(stream.getvalue().replace('\n0,0,', '\n0,zero,'))
    with pytest.raises(ConfigError, match=r'expected a frames\.csv of segnode'):
        list(read_frames(path))


@pytest.mark.parametrize('count', [0, 1, 5])
def test_results_are_json_as_a_whole_and_line_by_line(count: int, tmp_path: Path) -> None:
    entries = [
        {'image_id': k, 'category_id': 1, 'category_name': 'a,\n]', 'score': 0.5, 'area': 9,
         'segmentation': {}}
        for k in range(count)
    ]  # fmt: skip
    stream = io.StringIO()
    writer = ResultsWriter(stream)
    for entry in entries:
        writer.write([entry])
    writer.end()
    assert json.loads(stream.getvalue()) == entries
    assert len(stream.getvalue().splitlines()) == count + 2
    path = tmp_path / 'results.json'
    path.write_text(stream.getvalue())
    assert list(read_results(path)) == entries


@pytest.mark.parametrize('text', ['', '{}', '[\n', '[\n{"a":1},\n', '[\n{"a":\n]\n', '[\n1\n]\n'])
def test_another_file_is_no_results_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / 'results.json'
    path.write_text(text)
    with pytest.raises(ConfigError, match=r'expected the results\.json of a run'):
        list(read_results(path))
