# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Exported programs behind the engine: layouts, masks of both kinds, answers that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from exported_models import script
from torch import Tensor, nn

from segnode.config import Config
from segnode.engine import Engine
from segnode.errors import CheckpointError, ConfigError, SegnodeError
from segnode.image import Image

SIDE = 64
BOXES = [[4.0, 8.0, 36.0, 40.0], [20.0, 20.0, 60.0, 52.0]]


class Answer(nn.Module):
    """Answers what it was made with, and fails on a black image."""

    def __init__(self, **outputs: Any) -> None:
        super().__init__()
        given = {
            'boxes': torch.tensor(BOXES),
            'scores': torch.tensor([0.6, 0.9]),
            'labels': torch.tensor([1, 2]),
            'masks': torch.full((2, 1, 28, 28), 0.75),
        } | outputs
        for name, value in given.items():
            self.register_buffer(name, value)

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        if bool((image == 0).all()):
            raise RuntimeError('nothing to stack')
        return {
            'boxes': self.boxes,
            'scores': self.scores,
            'labels': self.labels,
            'masks': self.masks,
        }


class ListOfChw(Answer):
    def forward(self, images: list[Tensor]) -> dict[str, Tensor]:
        return self.outputs(images[0])


class Chw(Answer):
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        assert image.dim() == 3
        found = self.outputs(image)
        return found['boxes'], found['labels'], found['scores'], found['masks']


class Nchw(Answer):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        assert images.shape[0] == 1
        assert images.dim() == 4
        found = self.outputs(images)
        return found['boxes'], found['labels'], found['scores'], found['masks']


class ListOfDict(Answer):
    def forward(self, inputs: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        return [self.outputs(inputs[0]['image'])]


class TupleOfDict(Answer):
    def forward(self, inputs: tuple[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        return [self.outputs(inputs[0]['image'])]


PROGRAMS = {
    'list_of_chw': (ListOfChw, [], ('boxes', 'scores', 'labels', 'masks')),
    'chw': (Chw, [], (0, 2, 1, 3)),
    'nchw': (Nchw, [], (-4, 2, 1, 3)),
    'list_of_dict': (ListOfDict, [0], ('boxes', 'scores', 'labels', 'masks')),
    'list_of_dict, a tuple': (TupleOfDict, [0], ('boxes', 'scores', 'labels', 'masks')),
}


def open_engine(
    folder: Path, case: str = 'list_of_chw', /, report: Any = None, **changes: Any
) -> Engine:
    """Describe a program and open it; what is no field of the description is an output."""
    program, select, keys = PROGRAMS[case]
    outputs = {k: changes.pop(k) for k in [*changes] if isinstance(changes[k], Tensor)}
    content = {
        'backend': 'torchscript',
        'weights': script(program(**outputs), folder / 'program.pt').name,
        'input': {
            'layout': case.partition(',')[0],
            'color': 'rgb',
            'scale': 1,
            'mean': [0, 0, 0],
            'std': [1, 1, 1],
            'short_side': SIDE,
            'long_side': 4 * SIDE,
        },
        'output': {
            'select': select,
            **dict(zip(('boxes', 'scores', 'labels', 'masks'), keys, strict=True)),
        },
        'labels': 'coco_category_id',
        'paste': 'detectron2',
    } | changes
    path = folder / 'model.yaml'
    path.write_text(yaml.safe_dump(content))
    return Engine(Config(model=str(path), device='cpu'), report)


def grey(height: int, width: int) -> Image:
    return Image(np.full((height, width, 3), 90, np.uint8), 'rgb')


@pytest.mark.parametrize('case', list(PROGRAMS))
def test_every_layout_runs(tmp_path: Path, case: str) -> None:
    try:
        engine = open_engine(tmp_path, case)
    except SegnodeError as error:
        pytest.fail(str(error))
    (found,) = engine.predict([grey(2 * SIDE, 3 * SIDE)])
    # Highest score first, in pixels of the image, which is twice the input.
    assert found.detections.scores.tolist() == pytest.approx([0.9, 0.6])
    assert found.detections.class_ids.tolist() == [1, 0]
    assert found.detections.boxes_xyxy.tolist() == [[40, 40, 120, 104], [8, 16, 72, 80]]
    # Pasted softly, a corner pixel of 0.75 falls below one half.
    assert found.detections.mask_areas.tolist() == [80 * 64 - 4, 64 * 64 - 4]


@pytest.mark.parametrize(
    ('labels', 'expected'), [('index', [2, 1]), ('index_from_1', [1, 0])], ids=str
)
def test_labels_count_from_0_or_1(tmp_path: Path, labels: str, expected: list[int]) -> None:
    try:
        engine = open_engine(tmp_path, labels=labels, classes=3)
    except SegnodeError as error:
        pytest.fail(str(error))
    (found,) = engine.predict([grey(SIDE, SIDE)])
    assert found.detections.class_ids.tolist() == expected


def test_names_of_the_description(tmp_path: Path) -> None:
    names = ['cone', 'ball', 'box']
    said: list[str] = []
    engine = open_engine(
        tmp_path, labels='index', classes=3, class_names=names, report=said.append
    )
    assert engine.class_names == ('cone', 'ball', 'box')
    assert not any('class_0' in line for line in said)
    open_engine(tmp_path, labels='index', classes=3, report=said.append)
    assert any('class_0 to class_2' in line for line in said)


@pytest.mark.parametrize('dtype', [torch.bool, torch.float32, torch.uint8])
@pytest.mark.parametrize('dims', [3, 4])
@pytest.mark.parametrize('image_hw', [(SIDE, 3 * SIDE // 2), (2 * SIDE, 3 * SIDE)], ids=str)
def test_whole_masks(
    tmp_path: Path, dtype: torch.dtype, dims: int, image_hw: tuple[int, int]
) -> None:
    masks = torch.zeros(2, 1, SIDE, 96)
    masks[0, 0, 10:30, 5:25] = 1
    masks[1, 0, 20:40, 15:55] = 1
    masks = masks.to(dtype) if dims == 4 else masks[:, 0].to(dtype)
    engine = open_engine(tmp_path, masks=masks)
    with pytest.raises(CheckpointError, match='masks: pasted'):
        engine.predict([grey(*image_hw)])
    content = yaml.safe_load((tmp_path / 'model.yaml').read_text()) | {'masks': 'pasted'}
    del content['paste']
    (tmp_path / 'model.yaml').write_text(yaml.safe_dump(content))
    engine = Engine(Config(model=str(tmp_path / 'model.yaml'), device='cpu'))
    (found,) = engine.predict([grey(*image_hw)])
    factor = image_hw[0] // SIDE
    # Interpolated to another size, a corner loses a pixel.
    expected = np.array([20 * 40, 20 * 20]) * factor**2
    assert np.abs(found.detections.mask_areas - expected).max() <= 4 * (factor - 1)
    rows, columns = np.nonzero(found.mask(0))
    assert (rows.min(), rows.max() + 1) == (20 * factor, 40 * factor)
    assert (columns.min(), columns.max() + 1) == (15 * factor, 55 * factor)
    (labelled,) = engine.segment([grey(*image_hw)])
    assert (labelled.label_image == 1).sum() == found.detections.mask_areas[0]
    smallest = int(expected[1]) + 1
    engine.configure(engine.config.replace({'filter.min_mask_area': smallest}))
    (found,) = engine.predict([grey(*image_hw)])
    assert found.detections.scores.tolist() == pytest.approx([0.9])
    assert found.counts.filtered_area == 1


@pytest.mark.parametrize(
    ('changes', 'part'),
    [
        ({'masks': torch.ones(2, 1, SIDE, SIDE)}, '(whole masks are `masks: pasted`), found a te'),
        ({'masks': torch.full((2, 1, 28, 28), -7.5)}, "masks from 0 to 1 as 'masks', found -7.5"),
        ({'masks': torch.full((2, 1, 28, 28), torch.nan)}, 'found nan to nan'),
        ({'scores': torch.tensor([0.5, 87.0])}, "scores from 0 to 1 as 'scores', found 0.5 to 87"),
        ({'boxes': torch.tensor(BOXES) / SIDE}, '; they look relative to the image'),
        (
            {'boxes': torch.tensor([[40.0, 40, 20, 20], [1, 1, 9, 9]])},
            '; is that (x, y, width, height)?',
        ),
        ({'boxes': torch.tensor(BOXES) * 3}, "in pixels of the 64 x 64 input as 'boxes', found"),
        (
            {'labels': torch.tensor([0, 3]), 'labels_kind': 'index', 'classes_kind': 3},
            'labels as index (0 to 2), found [3]',
        ),
        (
            {'labels': torch.tensor([0, 3]), 'labels_kind': 'index_from_1', 'classes_kind': 3},
            'labels as index_from_1 (1 to 3), found [0]',
        ),
        (
            {'masks': torch.ones(2, 1, 28, 28), 'masks_kind': 'pasted'},
            "masks of the input's size (64, 64)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_an_answer_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], part: str
) -> None:
    outputs = {k: v for k, v in changes.items() if isinstance(v, Tensor)}
    engine = open_engine(tmp_path, **outputs)
    content = yaml.safe_load((tmp_path / 'model.yaml').read_text())
    content |= {k.removesuffix('_kind'): v for k, v in changes.items() if k not in outputs}
    (tmp_path / 'model.yaml').write_text(yaml.safe_dump(content))
    engine = Engine(Config(model=str(tmp_path / 'model.yaml'), device='cpu'))
    with pytest.raises(CheckpointError) as caught:
        engine.predict([grey(SIDE, SIDE)])
    assert part in str(caught.value)
    assert str(tmp_path / 'program.pt') in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_failing_on_an_empty_picture_ends_no_start(tmp_path: Path) -> None:
    said: list[str] = []
    engine = open_engine(tmp_path, report=said.append)
    try:
        engine.warm_up((48, 64))
    except CheckpointError as error:
        pytest.fail(f'the start ended: {error}')
    assert any('on an empty picture' in line and 'nothing to stack' in line for line in said)
    (found,) = engine.segment([grey(48, 64)])
    assert len(found.detections) == 2
    with pytest.raises(CheckpointError, match='the program failed'):
        engine.segment([Image(np.zeros((48, 64, 3), np.uint8), 'rgb')])


def test_a_program_is_run_as_it_is(tmp_path: Path) -> None:
    """In training mode a program may do something else: it is the user's choice."""

    class Mode(ListOfChw):
        def forward(self, images: list[Tensor]) -> dict[str, Tensor]:
            found = self.outputs(images[0])
            if self.training:
                found['scores'] = found['scores'] / 2
            return found

    open_engine(tmp_path)
    script(Mode(), tmp_path / 'program.pt')
    engine = Engine(Config(model=str(tmp_path / 'model.yaml'), device='cpu'))
    (found,) = engine.predict([grey(SIDE, SIDE)])
    assert found.detections.scores.tolist() == pytest.approx([0.45, 0.3])


def test_settings_of_the_program_stay_unset(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    for setting in ({'filter.nms_threshold': 0.3}, {'proposals': 100}):
        with pytest.raises(ConfigError, match='an exported model has its own inside'):
            engine.configure(engine.config.replace(setting))


PADDING: dict[str, dict[str, Tensor]] = {
    'no area, label -1': {
        'boxes': torch.tensor([*BOXES, [0.0, 0.0, 0.0, 0.0]]),
        'scores': torch.tensor([0.6, 0.9, 0.0]),
        'labels': torch.tensor([1, 2, -1]),
    },
    'score -1, far away': {
        'boxes': torch.tensor([*BOXES, [0.0, 0.0, 1e6, 1e6]]),
        'scores': torch.tensor([0.6, 0.9, -1.0]),
        'labels': torch.tensor([1, 2, 0]),
    },
    'no numbers': {
        'boxes': torch.tensor([*BOXES, [torch.nan] * 4]),
        'scores': torch.tensor([0.6, 0.9, 0.5]),
        'labels': torch.tensor([1, 2, 1]),
        'masks': torch.cat(
            [torch.full((2, 1, 28, 28), 0.75), torch.full((1, 1, 28, 28), torch.nan)]
        ),
    },
    'labels as fractions': {'labels': torch.tensor([1.0, 2.0])},
    'halves': {
        'boxes': torch.tensor(BOXES).half(),
        'scores': torch.tensor([0.6, 0.9]).half(),
        'masks': torch.full((2, 1, 28, 28), 0.75).half(),
    },
    'a quantized mask': {
        'masks': torch.quantize_per_tensor(torch.full((2, 1, 28, 28), 0.75), 0.25, 0, torch.quint8)
    },
}


@pytest.mark.parametrize('case', list(PADDING))
@pytest.mark.filterwarnings('ignore')
def test_padding_is_left_out(tmp_path: Path, case: str) -> None:
    outputs = dict(PADDING[case])
    if len(outputs.get('boxes', BOXES)) == 3:
        outputs.setdefault('masks', torch.full((3, 1, 28, 28), 0.75))
    engine = open_engine(tmp_path, **outputs)
    (found,) = engine.predict([grey(SIDE, SIDE)])
    assert found.detections.scores.tolist() == pytest.approx([0.9, 0.6], abs=1e-3)
    assert found.detections.class_ids.tolist() == [1, 0]
    assert found.detections.mask_areas.tolist() == [40 * 32, 32 * 32]


NOTHING: dict[str, dict[str, Tensor]] = {
    'flat': {'boxes': torch.zeros(0), 'masks': torch.zeros(0)},
    'of every class': {'boxes': torch.zeros(0, 4), 'masks': torch.zeros(0, 80, 28, 28)},
    'oblong': {'boxes': torch.zeros(0, 4), 'masks': torch.zeros(0, 1, 28, 14)},
}


@pytest.mark.parametrize('masks', ['crops', 'pasted'])
@pytest.mark.parametrize('case', list(NOTHING))
def test_nothing_has_any_shape(tmp_path: Path, case: str, masks: str) -> None:
    empty = {'scores': torch.zeros(0), 'labels': torch.zeros(0, dtype=torch.int64)}
    engine = open_engine(tmp_path, **NOTHING[case], **empty)
    content = yaml.safe_load((tmp_path / 'model.yaml').read_text()) | {'masks': masks}
    (tmp_path / 'model.yaml').write_text(yaml.safe_dump(content))
    engine = Engine(Config(model=str(tmp_path / 'model.yaml'), device='cpu'))
    engine.warm_up((SIDE, SIDE))
    (found,) = engine.segment([grey(SIDE, SIDE)])
    assert len(found.detections) == 0
    assert not found.label_image.any()


@pytest.mark.parametrize(
    ('changes', 'part'),
    [
        (
            {'scores': torch.tensor([1, 0])},
            "scores, which are fractions, as 'scores', found [1, 0]",
        ),
        ({'labels': torch.tensor([1.7, 2.2])}, 'labels as coco_category_id (1 to 90), found [1.7'),
        (
            {'scores': torch.tensor([-0.5, -2.0])},
            "scores from 0 to 1 as 'scores', found -2 to -0.5",
        ),
        ({'scores': torch.tensor([0.5, torch.nan])}, "scores from 0 to 1 as 'scores', found nan"),
        ({'masks': torch.zeros(2, 1, 0, 0)}, "square crops as 'masks'"),
        (
            # Relative boxes are seen beside padding, too.
            {
                'boxes': torch.tensor([[0.1, 0.1, 0.5, 0.5], [0.2, 0.2, 0.9, 0.9], [0.0] * 4]),
                'scores': torch.tensor([0.6, 0.9, 0.0]),
                'labels': torch.tensor([1, 2, 0]),
                'masks': torch.full((3, 1, 28, 28), 0.75),
            },
            '; they look relative to the image',
        ),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else '',
)
def test_an_answer_of_other_things_is_refused(
    tmp_path: Path, changes: dict[str, Tensor], part: str
) -> None:
    engine = open_engine(tmp_path, **changes)
    with pytest.raises(CheckpointError) as caught:
        engine.predict([grey(SIDE, SIDE)])
    assert part in str(caught.value)


def test_what_is_fine_is_not_refused(tmp_path: Path) -> None:
    """Boxes of objects that are cut off, corners swapped by rounding, one tiny box."""
    for boxes in (
        [[-3.0, 0.0, 68.0, 64.0], [20.0, 20.0, 80.0, 52.0]],
        [[4.0, 8.0, 36.0, 40.0], [20.0, 20.0, 19.9999, 52.0]],
        [[0.0, 0.0, 0.5, 0.5], [20.0, 20.0, 60.0, 52.0]],
    ):
        engine = open_engine(tmp_path, boxes=torch.tensor(boxes))
        assert len(engine.predict([grey(SIDE, SIDE)])[0].detections) >= 1
    engine = open_engine(tmp_path, boxes=torch.tensor(BOXES) / 2.5)
    engine.configure(engine.config.replace({'resolution.short_side': 28}))
    assert len(engine.predict([grey(28, 28)])[0].detections) == 2


class Batched(Answer):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        assert images.dim() == 4
        found = self.outputs(images)
        return (
            found['boxes'][None],
            found['labels'][None],
            found['scores'][None],
            found['masks'][None],
        )


class Normed(ListOfChw):
    def __init__(self, **outputs: Any) -> None:
        super().__init__(**outputs)
        self.norm = nn.BatchNorm2d(3)


class NoForward(nn.Module):
    @torch.jit.export
    def infer(self, image: Tensor) -> Tensor:
        return image


def test_answers_may_keep_the_batch(tmp_path: Path) -> None:
    PROGRAMS['nchw, batched'] = (Batched, [], (0, 2, 1, 3))
    try:
        engine = open_engine(tmp_path, 'nchw, batched')
    finally:
        del PROGRAMS['nchw, batched']
    (found,) = engine.predict([grey(SIDE, SIDE)])
    assert found.detections.scores.tolist() == pytest.approx([0.9, 0.6])


def test_norms_in_training_mode_are_said(tmp_path: Path) -> None:
    open_engine(tmp_path)
    for program, expected in ((Normed(), 1), (Normed().eval(), 0)):
        script(program, tmp_path / 'program.pt')
        said: list[str] = []
        Engine(Config(model=str(tmp_path / 'model.yaml'), device='cpu'), said.append)
        assert sum('in training mode' in line for line in said) == expected


def test_a_program_without_forward_is_refused(tmp_path: Path) -> None:
    open_engine(tmp_path)
    script(NoForward(), tmp_path / 'program.pt')
    with pytest.raises(CheckpointError, match='a method forward, found none'):
        Engine(Config(model=str(tmp_path / 'model.yaml'), device='cpu'))
