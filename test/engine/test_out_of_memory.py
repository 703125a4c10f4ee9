# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Out of memory is one typed error, after which engine and node go on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from segnode.config import Config
from segnode.demo.processes import free_domain_id
from segnode.engine import Engine
from segnode.errors import ConfigError, OutOfMemoryError
from segnode.image import Image

FRAME = Image(np.zeros((96, 128, 3), dtype=np.uint8), 'bgr')


@pytest.fixture(scope='module')
def engine() -> Engine:
    return Engine(Config(precision='fp32').replace({'resolution.short_side': 96}))


@pytest.mark.parametrize('static', [False, True])
def test_an_allocation_that_fails_is_one_typed_error(
    static: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real allocation, of more than any machine has."""
    engine = Engine(Config(precision='fp32'), static=static)
    engine.segment([FRAME])
    backbone = engine._backend.network.model.backbone

    def forward(*_: object) -> list[torch.Tensor]:
        return [torch.empty((2**50,))]

    with monkeypatch.context() as patch:
        patch.setattr(backbone, 'forward', forward)
        with pytest.raises(OutOfMemoryError, match=r'lower resolution\.short_side'):
            engine.segment([FRAME])
    assert len(engine.segment([FRAME])) == 1


@pytest.mark.parametrize(
    'raised',
    [
        torch.OutOfMemoryError('CUDA out of memory'),
        torch.OutOfMemoryError('Compile with TORCH_USE_CUDA_DSA'),
        torch.OutOfMemoryError(),
        MemoryError(),
    ],
    ids=repr,
)
def test_whoever_raises_it(
    engine: Engine, raised: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def label(*_: object, **__: object) -> None:
        raise raised

    with monkeypatch.context() as patch:
        patch.setattr(engine._backend, 'label', label)
        with pytest.raises(OutOfMemoryError, match='short side 96'):
            engine.segment([FRAME])
    assert len(engine.segment([FRAME])) == 1


@pytest.mark.parametrize('method', ['segment', 'predict'])
@pytest.mark.parametrize('step', ['paste_masks', 'label_image'])
def test_the_paste_raises_it_as_well(
    engine: Engine, step: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError

    raised: Exception | None = None
    with monkeypatch.context() as patch:
        patch.setattr(f'segnode.engine.pasting.{step}', refuse)
        try:
            getattr(engine, method)([FRAME])
        except Exception as error:  # noqa: BLE001 - which one is the question
            raised = error
    if (step, method) == ('label_image', 'predict'):
        assert raised is None  # It pastes no label image before it is asked for one.
    else:
        assert isinstance(raised, OutOfMemoryError), f'{step} ended {method} with {raised!r}'
    assert len(engine.segment([FRAME])) == 1


def test_a_memory_limit_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match='memory_limit_mb: expected 0 on cpu'):
        Engine(Config(device='cpu', memory_limit_mb=500))


@pytest.fixture
def ros() -> Iterator[None]:
    import rclpy

    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    arguments = ['--ros-args', '-p', 'autostart:=false', '-p', 'resolution.short_side:=120']
    rclpy.init(args=arguments, domain_id=free_domain_id())
    yield
    rclpy.shutdown()


@pytest.mark.ros
def test_the_node_steps_down_and_its_parameter_says_so(ros: None) -> None:
    from segnode.ros.node import SegmentationNode

    node = SegmentationNode(fail=lambda: None)
    try:
        node.trigger_configure()
        node.trigger_activate()
        assert node._engine is not None
        assert node._worker is not None
        for expected in (96, 96):
            node._worker._fail(0, OutOfMemoryError('cpu ran out of memory'))
            assert node._engine.settings.short_side == expected
            assert node.get_parameter('resolution.short_side').value == expected
    finally:
        node.close(5.0)
        node.destroy_node()
