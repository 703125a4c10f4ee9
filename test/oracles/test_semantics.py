# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Each step that MMDetection takes in its own way, against its own code on random inputs."""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch
from mmdetection_oracle import build_model, read_config, stable_sort
from seeds import fresh_seeds
from torch import Tensor

from segnode.kernels.plain.nms import nms
from segnode.model.anchors import make_anchors
from segnode.model.architecture import MMDETECTION, Architecture, Pooler
from segnode.model.boxes import decode_boxes
from segnode.model.pooler import assign_levels
from segnode.model.rpn import anchor_rows, select_proposals

IMAGE_HW = (179, 250)  # before padding to 192 x 256
SIZES = [(48, 64), (24, 32), (12, 16), (6, 8), (3, 4)]
POOLER = Pooler(resolution=7, levels='mmdetection')
pytestmark = pytest.mark.usefixtures('mmdetection')


def test_anchors() -> None:
    from mmdet.models.task_modules.prior_generators import AnchorGenerator

    theirs = AnchorGenerator(
        strides=[4, 8, 16, 32, 64], ratios=[0.5, 1.0, 2.0], scales=[8, 16]
    ).grid_priors(SIZES, device='cpu')
    architecture = Architecture(
        semantics=MMDETECTION,
        anchor_sizes=tuple((8.0 * s, 16.0 * s) for s in (4, 8, 16, 32, 64)),
    )
    ours = make_anchors(architecture, SIZES, torch.device('cpu'))
    torch.testing.assert_close(ours, torch.cat(theirs), rtol=0, atol=1e-4)


@pytest.mark.parametrize('seed', fresh_seeds(2))
def test_deltas(seed: int) -> None:
    from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder

    generator = torch.Generator().manual_seed(seed)
    corner, side = torch.rand((2, 500, 2), generator=generator) * 300
    boxes = torch.cat((corner, corner + side), 1)
    deltas = torch.randn((500, 4), generator=generator) * 25
    coder = DeltaXYWHBBoxCoder(target_stds=(0.1, 0.1, 0.2, 0.2))
    ours = decode_boxes(deltas, boxes, (10.0, 10.0, 5.0, 5.0), clamp_shrinking=True)
    torch.testing.assert_close(ours, coder.decode(boxes, deltas), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize('seed', fresh_seeds(2))
def test_levels(seed: int) -> None:
    from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

    extractor = SingleRoIExtractor(
        roi_layer={'type': 'RoIAlign', 'output_size': 7, 'sampling_ratio': 0},
        out_channels=8,
        featmap_strides=[4, 8, 16, 32],
    )
    generator = torch.Generator().manual_seed(seed)
    sides = torch.exp(torch.rand((2000, 2), generator=generator) * math.log(2000))
    exact = torch.tensor([0.0, 56.0, 112.0, 224.0, 448.0, 896.0])[:, None].expand(-1, 2)
    boxes = torch.cat((torch.zeros((2006, 2)), torch.cat((sides, exact))), 1)
    rois = torch.cat((torch.zeros((2006, 1)), boxes), 1)
    assert torch.equal(assign_levels(boxes, POOLER), extractor.map_roi_levels(rois, 4))


@pytest.mark.parametrize('spread', [3.0, 12.0], ids=['apart', 'often equal'])
@pytest.mark.parametrize('seed', fresh_seeds(2))
def test_proposals(seed: int, spread: float) -> None:
    config = read_config('mask-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco')
    head = build_model(config).rpn_head
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn((1, 3, *size), generator=generator) * spread for size in SIZES]
    deltas = [torch.randn((1, 12, *size), generator=generator) * 0.6 for size in SIZES]
    meta = {'img_shape': IMAGE_HW, 'ori_shape': IMAGE_HW, 'scale_factor': (1.0, 1.0)}
    with torch.inference_mode(), mock.patch.object(Tensor, 'sort', stable_sort):
        (theirs,) = head.predict_by_feat(logits, deltas, batch_img_metas=[meta])
    architecture = Architecture(semantics=MMDETECTION)
    anchors = make_anchors(architecture, SIZES, torch.device('cpu'))
    rows = anchor_rows(logits, deltas)
    ours = select_proposals(*rows, anchors, IMAGE_HW, architecture, 1000, nms)
    boxes, scores = ours.boxes[ours.valid], ours.scores[ours.valid]
    # They shift each level's boxes apart and suppress at once, which rounds: a close call of a
    # thousand may fall otherwise, and all behind it move up.
    found = torch.cat((boxes, 1e3 * scores[:, None]), 1)
    expected = torch.cat((theirs.bboxes, 1e3 * theirs.scores[:, None]), 1)
    distances = torch.cdist(expected, found, p=math.inf)
    assert (distances.min(0).values > 2e-3).sum() <= 3
    assert (distances.min(1).values > 2e-3).sum() <= 3
