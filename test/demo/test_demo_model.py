# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The embedded model as it is shipped, and the script that trains one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open

import segnode.demo
from segnode.checkpoint.detectron2_config import read_config
from segnode.config import Config
from segnode.demo.scene import CLASS_NAMES, VALIDATION_SEEDS, Scene
from segnode.demo.train import (
    ARCHITECTURE,
    MODEL_NAME,
    Run,
    Trainer,
    detectron2_config,
    main,
    score,
    train,
)
from segnode.engine import Engine
from segnode.image import Image

FOLDER = Path(segnode.demo.__file__).parent
WEIGHTS = FOLDER / f'{MODEL_NAME}.safetensors'


def test_the_file_is_small_and_half_precision() -> None:
    assert WEIGHTS.stat().st_size <= 8_000_000
    with safe_open(WEIGHTS, 'pt') as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert json.loads(file.metadata()['class_names']) == list(CLASS_NAMES)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert sum(tensor.numel() for tensor in tensors.values()) < 3_000_000


def test_its_config_tells_what_training_would_write(tmp_path: Path) -> None:
    written = tmp_path / f'{MODEL_NAME}.yaml'
    written.write_text(yaml.safe_dump(detectron2_config(ARCHITECTURE)))
    shipped = read_config(FOLDER / f'{MODEL_NAME}.yaml')
    assert shipped.architecture == read_config(written).architecture == ARCHITECTURE
    assert shipped.weights == read_config(written).weights == WEIGHTS.name


def test_it_is_what_the_engine_takes_without_a_model() -> None:
    engine = Engine(Config(device='cpu'))
    assert engine.weights_path.samefile(WEIGHTS)
    assert engine.class_names == CLASS_NAMES


def test_it_finds_the_objects_of_unseen_scenes() -> None:
    box_ap, mask_ap = score(FOLDER / f'{MODEL_NAME}.yaml', VALIDATION_SEEDS[100:110])
    assert mask_ap >= 0.7
    assert box_ap >= 0.6


@pytest.mark.parametrize('processes', [1, 2])
def test_training_writes_a_model_that_loads(tmp_path: Path, processes: int) -> None:
    run = Run(
        out=tmp_path,
        steps=2,
        scenes=1,
        processes=processes,
        norm_batches=1,
        validation_scenes=1,
    )
    folder = train(run)
    for rank in range(processes):
        lines = (tmp_path / f'log{rank}.jsonl').read_text().splitlines()
        assert [json.loads(line)['step'] for line in lines] == [1, 2]
        assert all(np.isfinite(list(json.loads(line).values())).all() for line in lines)
    engine = Engine(Config(model=str(folder / f'{MODEL_NAME}.yaml'), device='cpu'))
    frame = Scene(VALIDATION_SEEDS[0]).frame(0)
    assert engine.segment([Image(frame.image, 'bgr')])[0].label_image.shape == (480, 640)


def test_a_resumed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    first = Trainer(ARCHITECTURE, steps=10, seed=3)
    first.step = 4
    first.save(tmp_path / 'checkpoint.pt')
    second = Trainer(ARCHITECTURE, steps=10, seed=4)
    second.load(tmp_path / 'checkpoint.pt')
    assert second.step == 4
    assert second.progress == 0.4
    for one, two in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert second.rng.integers(1 << 30) == first.rng.integers(1 << 30)


def test_wrong_use_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (['--steps', 'many'], ['--steps', '0'], ['--resume']):
        with pytest.raises(SystemExit) as caught:
            main(['--out', str(tmp_path), *wrong])
        assert caught.value.code == 2
    assert 'nothing to resume' in capsys.readouterr().err
