# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The node over real DDS with networks that are no ResNets, on planted weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('rclpy', reason='needs ROS 2')

from pictures import rendered
from ros_harness import Peer, bgr_message, label_image, start_node

from segnode.checkpoint import preset_architecture
from segnode.checkpoint.mmdetection import to_mmdetection
from segnode.checkpoint.planting import plant_weights
from segnode.config import Config
from segnode.engine import Engine
from segnode.kernels.preprocess import preprocess, resized_hw

pytestmark = pytest.mark.ros

SHORT_SIDE = 128
IMAGE_HW = (150, 190)

SCORE_THRESHOLD = 0.2


@pytest.mark.parametrize(
    'model',
    [
        'mask-rcnn_swin-t-p4-w7_fpn_1x_coco',
        'mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco',
    ],
)
def test_it_publishes_what_the_engine_finds(model: str, tmp_path: Path) -> None:
    image, architecture = rendered(3, IMAGE_HW), preset_architecture(model)
    network_hw = resized_hw(IMAGE_HW, SHORT_SIDE, 1333, architecture.semantics.resize)
    x = preprocess(image, network_hw, architecture)
    state = to_mmdetection(plant_weights(architecture, x[None], seed=0), architecture)
    weights = tmp_path / 'planted.pth'
    torch.save({'meta': {}, 'state_dict': state}, weights)
    changes = {
        'resolution.short_side': SHORT_SIDE,
        'filter.score_threshold': SCORE_THRESHOLD,
        'filter.max_instances': 20,
        'proposals': 200,
    }
    config = Config(model=model, weights=str(weights), device='cpu', precision='fp32')
    (expected,) = Engine(config.replace(changes)).segment([image])
    options = {'model': model, 'weights': weights, 'device': 'cpu', 'precision': 'fp32', **changes}
    arguments = ' '.join(f'-p {name}:={value}' for name, value in options.items())
    node = '/of_' + model.split('_')[1].partition('-')[0]
    with (
        start_node(tmp_path / 'log', f'-r __node:={node[1:]} {arguments}') as process,
        Peer('of_new_families') as peer,
    ):
        process.wait_for('active')
        peer.watch(node)
        camera = peer.camera()
        answers = peer.exchange(camera, bgr_message(peer.header(), image.pixels), node)
    weights.unlink()
    found = answers['detections'].detections
    assert len(found) == len(expected.detections) >= 5
    scores = [each.results[0].hypothesis.score for each in found]
    np.testing.assert_allclose(scores, expected.detections.scores, atol=1e-5)
    labels = label_image(answers['instance_mask'])
    assert (labels != expected.label_image).mean() < 1e-3
    assert labels.any()
