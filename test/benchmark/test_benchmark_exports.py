# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Exports in the benchmark: mask AP beside their times, where weights can tell."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_exports import HW, small_model

from segnode.__main__ import main
from segnode.benchmark import exports
from segnode.benchmark.contenders import Case
from segnode.benchmark.exports import ExportContender
from segnode.benchmark.planted import render_frames, rendered_truth
from segnode.config import Config
from segnode.demo.scene import CLASS_NAMES
from segnode.export.request import Request


def test_truth_of_the_frames() -> None:
    truth = rendered_truth(HW)
    assert list(truth.images) == [0, 1, 2, 3]
    assert {tuple(each['segmentation']['size']) for each in truth.instances} == {HW}
    assert {frame.pixels.shape[:2] for frame in render_frames(HW)} == {HW}
    assert list(truth.categories) == list(CLASS_NAMES)
    assert {each['image_id'] for each in truth.instances} == {0, 1, 2, 3}
    for each in truth.instances:
        left, top, width, height = each['bbox']
        assert 0 <= left < left + width <= HW[1]
        assert 0 <= top < top + height <= HW[0]


@pytest.mark.parametrize(
    ('planted', 'names', 'pictures', 'annotated'),
    [(True, CLASS_NAMES, 0, False), (False, CLASS_NAMES, 4, True), (False, 'abcde', 4, False)],
)
def test_what_an_export_is_compared_on(
    planted: bool,
    names: tuple[str, ...],
    pictures: int,
    annotated: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Request] = []

    def stop(_: Config, __: object, wanted: Request, *___: object) -> None:
        asked.append(wanted)
        raise KeyboardInterrupt

    monkeypatch.setattr(exports, 'export', stop)
    model = dataclasses.replace(small_model(), class_names=tuple(names))
    contender = ExportContender('openvino-int8', model, Config(), lambda _: None, planted=planted)
    with pytest.raises(KeyboardInterrupt):
        contender.prepare(Case(image_hw=HW, batch=1, planted=None))
    (wanted,) = asked
    assert len(wanted.check) == pictures
    assert (wanted.truth is not None) == annotated


def test_mask_ap_beside_the_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / 'b.json'
    args = ['--shapes', '192x256', '--frames', '1', '--device', 'cpu', '--json', str(target)]
    assert main(['benchmark', '--against', 'onnxruntime', *args]) == 0
    said = capsys.readouterr().out
    (row,) = json.loads(target.read_text())['rows']
    assert 'mask_ap' not in row
    found: dict[str, Any] = row['against']['onnxruntime']
    assert found['annotated']
    assert found['mask_ap'] == pytest.approx(found['mask_ap_fp32'], abs=1e-3)
    assert 0.2 < found['mask_ap'] < 1
    assert 'mask AP (native fp32)' in said
    assert f'{found["mask_ap"]:.3f} ({found["mask_ap_fp32"]:.3f})' in said
    assert "mask AP is of the scene's truth" in said


def test_frames_are_those_that_they_were() -> None:
    import cv2

    from segnode.demo.scene import DEMO_SEEDS, Scene
    from segnode.engine.null import SEED

    frame = Scene(DEMO_SEEDS[SEED]).frame(7).image
    expected = cv2.resize(frame, HW[::-1])
    np.testing.assert_array_equal(render_frames(HW, 2)[1].pixels, expected)
