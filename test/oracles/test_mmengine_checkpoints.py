# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Checkpoints as mmengine's own runner writes them in a training."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import ModuleType

import pytest
import torch
from mmdetection_oracle import build_model, checkpoint_of, read_config
from record import NARROW, RESNET

from segnode.checkpoint import load_model
from segnode.checkpoint.coco_classes import COCO_CLASS_NAMES
from segnode.checkpoint.mmdetection import to_mmdetection
from segnode.config import Config

NAME = 'mask-rcnn_r50_fpn_1x_coco'
CHANGES = {
    **NARROW,
    **RESNET,
    'model.neck.in_channels': [64, 128, 256, 512],
    'model.roi_head.bbox_head.num_classes': 80,
    'model.roi_head.mask_head.num_classes': 80,
}


@pytest.fixture
def trained(
    mmdetection: ModuleType, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """What the runner leaves behind after two steps of a training."""
    from mmdet.models import MaskRCNN
    from mmengine.runner import Runner

    # The real loss calls compiled operators; what a runner writes does not depend on it.
    monkeypatch.setattr(
        MaskRCNN,
        'loss',
        lambda self, *_: {'loss_toy': sum(p.square().mean() for p in self.parameters())},
    )
    config = read_config(NAME, CHANGES)
    config.work_dir = str(tmp_path)
    dataset = config.train_dataloader.dataset
    dataset.data_root = str(shared / 'data' / 'coco_tiny_val')
    dataset.ann_file, dataset.data_prefix = 'instances.json', {'img': 'images/'}
    config.train_dataloader.update(batch_size=1, num_workers=0, persistent_workers=False)
    config.train_cfg = {'type': 'IterBasedTrainLoop', 'max_iters': 2}
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    config.default_hooks.checkpoint.update(interval=2, by_epoch=False)
    config.default_hooks.logger.update(interval=1)
    runner = Runner.from_cfg(config)
    runner.train()
    path = tmp_path / 'iter_2.pth'
    torch.save(runner.model.state_dict(), tmp_path / 'state.pth')
    return path


def test_a_training_loads(trained: Path) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r'HistoryBuffer|numpy|getattr'):
        torch.load(trained, weights_only=True)
    model = load_model(Config(model=str(trained)))
    assert model.class_names == COCO_CLASS_NAMES
    assert model.category_ids is not None
    state = torch.load(trained.parent / 'state.pth', weights_only=True)
    theirs = to_mmdetection(model.state_dict, model.architecture)
    for name, tensor in theirs.items():
        assert torch.equal(tensor, state[name]), name
    beside = {name for name in state.keys() - theirs if not name.endswith('num_batches_tracked')}
    assert beside == set()


def test_a_text_taken_behind_the_model_is_the_same(
    mmdetection: ModuleType, tmp_path: Path
) -> None:
    """Building a model writes settings into its config once more, which decide nothing there."""
    from mmdet.registry import MODELS

    before, after = read_config(NAME, CHANGES), read_config(NAME, CHANGES)
    MODELS.build(after.model)
    assert before.pretty_text != after.pretty_text
    architectures = []
    for index, config in enumerate((before, after)):
        path = tmp_path / f'{index}.pth'
        torch.save(checkpoint_of(config, build_model(before).state_dict()), path)
        architectures.append(load_model(Config(model=str(path))).architecture)
    assert architectures[0] == architectures[1]
