# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Exports of other backbones, and what they are compared on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from matching import Found, assert_same_instances
from small_exports import CONVNEXT, FORMATS, HW, SMALL, SWIN, request, silently, small_model

from segnode.benchmark.planted import render_frames
from segnode.checkpoint.exported import MANIFEST, Format
from segnode.config import Config
from segnode.engine import Engine
from segnode.evaluation.annotations import Annotations
from segnode.export.run import export
from segnode.model.backbone_specs import BackboneSpec


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize('backbone', [SWIN, CONVNEXT], ids=['swin', 'convnext'])
def test_other_backbones_answer_as_the_native_ones(
    backbone: BackboneSpec, form: Format, tmp_path: Path
) -> None:
    model = small_model(architecture=dataclasses.replace(SMALL, backbone=backbone))
    wanted = request(form, tmp_path / 'e', shapes=(HW,), check=())
    export(Config(), model, wanted, lambda _: None, silently)
    engine = Engine(Config(model=str(tmp_path / 'e')))
    native = Engine(Config(precision='fp32', device='cpu'), model=model)
    frames = render_frames(HW, 2)
    ours, theirs = engine.predict(frames), native.predict(frames)
    assert sum(len(each.detections) for each in theirs) > 5
    for a, b in zip(ours, theirs, strict=True):
        assert_same_instances(Found.of_prediction(a), Found.of_prediction(b))


def truth(*sizes: tuple[int, int]) -> Annotations:
    """One box in each picture, its side telling which it is."""

    def instance(n: int) -> dict[str, Any]:
        side = 10 + n
        corners = [5, 5, 5 + side, 5, 5 + side, 5 + side, 5, 5 + side]
        return {
            'id': n + 1, 'image_id': n, 'category_id': 0, 'iscrowd': 0,
            'bbox': [5, 5, side, side], 'area': side**2, 'segmentation': [corners],
        }  # fmt: skip

    return Annotations.from_coco(
        {
            'images': [
                {'id': n, 'file_name': str(n), 'height': height, 'width': width}
                for n, (height, width) in enumerate(sizes)
            ],
            'annotations': [instance(n) for n in range(len(sizes))],
            'categories': [{'id': 0, 'name': 'a'}],
        }
    )


def test_pictures_of_other_sizes_do_not_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segnode.export import run

    given: list[Any] = []
    reference = run.Reference
    monkeypatch.setattr(run, 'Reference', lambda *args: given.append(args[2]) or reference(*args))
    sizes = ((200, 150), HW, (90, 200), HW)
    check = [render_frames(hw, 1)[0] for hw in sizes]
    said: list[str] = []
    wanted = request('openvino', tmp_path / 'e', shapes=(HW,), check=check, truth=truth(*sizes))
    result = export(Config(), small_model(), wanted, said.append, silently)
    assert result['agreement']['pictures'] == 2
    assert '2 of 4 pictures do not check: they make no network input of 96x128, ' in said[0]
    (kept,) = given
    assert list(kept.images) == [0, 1]
    assert [i['image_id'] for i in kept.instances] == [0, 1]
    assert [i['bbox'][2] for i in kept.instances] == [11, 13]
    assert result['agreement'] == json.loads((tmp_path / 'e' / MANIFEST).read_text())['agreement']


def test_no_picture_of_the_size_is_no_comparison(tmp_path: Path) -> None:
    said: list[str] = []
    wanted = request('openvino', tmp_path / 'e', shapes=(HW,), check=render_frames((200, 150), 2))
    result = export(Config(), small_model(), wanted, said.append, silently)
    assert result['agreement'] is None
    assert said[0].startswith('2 of 2 pictures do not check')
