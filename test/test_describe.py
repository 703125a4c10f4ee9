# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode describe``: what it recognises, and what it says where it does not.

Exports of the libraries are in test_exported_parity.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from exported_models import TwoBoxes, script
from torch import Tensor, nn

from segnode.__main__ import main
from segnode.checkpoint.torchscript import read_description


class Empty(nn.Module):
    """Finds nothing, whatever it is given."""

    def forward(self, images: list[Tensor]) -> dict[str, Tensor]:
        return {
            'boxes': torch.zeros(0, 4),
            'scores': torch.zeros(0),
            'labels': torch.zeros(0, dtype=torch.long),
            'masks': torch.zeros(0, 1, 28, 28),
        }


class Faulty(nn.Module):
    """Answers with a fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def forward(self, images: list[Tensor]) -> dict[str, Tensor]:
        if self.fault == 'fails':
            raise RuntimeError('a hole in the floor')
        found = {
            'boxes': torch.tensor([[1.0, 2.0, 30.0, 40.0]]),
            'scores': torch.full((1,), 0.5),
            'labels': torch.zeros(1, dtype=torch.long),
            'masks': torch.zeros(1, 1, 28, 28),
        }
        if self.fault == 'no masks':
            del found['masks']
        if self.fault == 'two scores':
            found['quality'] = found.pop('scores')
            found['centreness'] = torch.zeros(1)
        if self.fault == 'logits':
            found['masks'] = found['masks'] - 3
        if self.fault == 'score':
            found['scores'] = found['scores'] + 6.5
        if self.fault == 'label':
            found['labels'] = found['labels'] + 7
        if self.fault == 'relative':
            found = {k: torch.cat([v, v]) for k, v in found.items()}
            found['boxes'] = torch.tensor([[0.1, 0.1, 0.5, 0.5], [0.2, 0.1, 0.5, 0.5]])
        if self.fault == 'oblong':
            found['masks'] = torch.zeros(1, 1, 28, 14)
        return found


class TwoArguments(nn.Module):
    def forward(self, image: Tensor, info: Tensor) -> Tensor:
        return image + info


def describe(program: Path, *options: str) -> dict[str, Any]:
    assert main(['describe', str(program), *options]) == 0
    content: dict[str, Any] = yaml.safe_load(program.with_suffix('.yaml').read_text())
    return content


def test_a_batch_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = script(TwoBoxes(), tmp_path / 'model.pt')
    target = tmp_path / 'found.json'
    names = tmp_path / 'names.txt'
    names.write_text('cone\nball\n')
    found = describe(program, '--class-names', str(names), '--json', str(target))
    assert found['weights'] == 'model.pt'
    assert found['input']['layout'] == 'nchw'
    # The image's size has two numbers, as many as there are boxes here, and is no label.
    assert found['output'] == {'select': [0], 'boxes': 0, 'scores': 4, 'labels': 2, 'masks': 3}
    assert (found['masks'], found['class_names']) == ('crops', ['cone', 'ball'])
    assert read_description(tmp_path / 'model.yaml').class_names == ('cone', 'ball')
    text = (tmp_path / 'model.yaml').read_text()
    for assumed in ('color', 'scale', 'mean', 'short_side', 'paste'):
        assert any(assumed in line and 'assumed' in line for line in text.splitlines()), assumed
    assert json.loads(target.read_text())['remarks']['input.layout']
    assert 'chw: the program failed' in capsys.readouterr().out


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = script(Empty(), tmp_path / 'model.pt')
    (tmp_path / 'model.yaml').write_text('mine')
    assert main(['describe', str(program), '--class-names', 'a,b']) == 2
    assert 'model.yaml: expected a new file' in capsys.readouterr().err
    (tmp_path / 'model.yaml').unlink()
    assert main(['describe', str(program), '--class-names', 'a,b', '--labels', 'index']) == 0
    assert main(['describe', str(program), '--class-names', 'a,b', '--labels', 'index']) == 2
    assert 'it may hold your edits' in capsys.readouterr().err
    (tmp_path / 'model.yaml').write_text('mine')
    assert main(['describe', str(program), '--class-names', 'a,b', '--labels', 'index']) == 2
    assert (tmp_path / 'model.yaml').read_text() == 'mine'
    other = tmp_path / 'below' / 'other.yaml'
    other.parent.mkdir()
    words = ['--class-names', 'a,b', '--labels', 'index', '--output', str(other)]
    assert main(['describe', str(program), *words]) == 0
    # From elsewhere the program is named in full.
    assert yaml.safe_load(other.read_text())['weights'] == str(program.resolve())


def test_a_program_that_finds_nothing(tmp_path: Path) -> None:
    found = describe(script(Empty(), tmp_path / 'm.pt'), '--labels', 'coco_category_id')
    assert found['output'] == {
        'select': [],
        'boxes': 'boxes',
        'scores': 'scores',
        'labels': 'labels',
        'masks': 'masks',
    }
    assert found['labels'] == 'coco_category_id'
    assert 'classes' not in found


@pytest.mark.parametrize(
    ('fault', 'part'),
    [
        ('fails', 'no way of handing over an image worked: list_of_chw: the program failed: '),
        ('no masks', 'found boxes float32 (1, 4), scores float32 (1,), labels int64 (1,)'),
        ('two scores', 'expected one output that can be scores, found 2: quality, centreness'),
        ('logits', "expects masks from 0 to 1 as 'masks', found -3 to -3; let the program end"),
        ('oblong', "expects square crops as 'masks' (whole masks are `masks: pasted`), found a"),
        ('label', 'expects labels as index (0 to 1), found [7] (int64)'),
        ('score', "expects scores from 0 to 1 as 'scores', found 7 to 7"),
        ('relative', "in pixels of the 320 x 256 input as 'boxes', found 0.1 to 0.5; they look r"),
    ],
)
def test_what_is_not_recognised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str, part: str
) -> None:
    program = script(Faulty(fault), tmp_path / 'model.pt')
    words = ['describe', str(program), '--class-names', 'a,b', '--labels', 'index']
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line
    assert not (tmp_path / 'model.yaml').exists()


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = script(Empty(), tmp_path / 'model.pt')
    weights = tmp_path / 'weights.pt'
    torch.save({'a': torch.zeros(1)}, weights)
    two = script(TwoArguments(), tmp_path / 'two.pt')
    for words, code, part in (
        ([program], 2, 'give --class-names, or --labels coco_category_id'),
        ([program, '--class-names', 'a,b'], 2, 'give --labels index or --labels index_from_1'),
        (
            [program, '--class-names', 'a', '--labels', 'coco_category_id'],
            2,
            '--class-names: expected none beside',
        ),
        ([''], 2, 'expected a TorchScript file, found a folder'),
        ([program, '--labels', 'voc'], 2, '--labels: expected one of coco_category_id, index'),
        ([tmp_path / 'none.pt'], 1, 'none.pt: expected a TorchScript program, found no such'),
        ([weights], 1, 'weights.pt: expected a TorchScript program, found'),
        ([two, '--class-names', 'a'], 1, 'expected a program of one argument, the image, found'),
        ([program, '--image', tmp_path / 'no.png', '--class-names', 'a'], 1, 'no.png'),
    ):
        assert main(['describe', *map(str, words)]) == code
        assert part in capsys.readouterr().err


def test_pictures_show_the_scale(shared: Path, tmp_path: Path) -> None:
    """D2Go's program normalises pixels of 0 to 255, and takes 0 to 1 all the same."""
    folder = shared / 'data' / 'd2go_mask_rcnn'
    program = next(folder.glob('*.pt'))
    picture = sorted((shared / 'data' / 'coco_tiny_val' / 'images').glob('*.jpg'))[1]
    output = tmp_path / 'd2go.yaml'
    words = ['--labels', 'coco_category_id', '--image', str(picture), '--output', str(output)]
    engine = torch.backends.quantized.engine
    try:
        assert main(['describe', str(program), *words]) == 0
    finally:
        torch.backends.quantized.engine = engine
    found, by_hand = read_description(output), read_description(folder / 'model.yaml')
    assert found.quantized_engine == by_hand.quantized_engine == 'qnnpack'
    assert (found.output, found.labels) == (by_hand.output, by_hand.labels)
    assert found.input.scale == pytest.approx(by_hand.input.scale)
    assert (found.input.color, found.input.layout) == (by_hand.input.color, by_hand.input.layout)
