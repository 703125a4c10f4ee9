# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Records MMDetection's answers for ``test/engine/test_mmdetection_recorded.py``.

By hand, after ``make test-oracles`` has installed it::

    PYTHONPATH=.:test .venv/bin/python test/oracles/record.py

Every case is a config of MMDetection's own with narrow layers, so that ``make test`` runs it in a
second; nothing else of it is changed.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from figures import compare
from matching import Found
from mmdetection_oracle import (
    build_model,
    find,
    import_mmdetection,
    network_input,
    prepare,
    read_config,
)
from recorded_mmdetection import FOLDER, drawn_image, drawn_weight, write_recorded
from torch import Tensor, nn

# Of every case: narrow necks and heads, few classes, few proposals, and a small network input.
NARROW = {
    'model.neck.out_channels': 16,
    'model.rpn_head.in_channels': 16,
    'model.rpn_head.feat_channels': 16,
    'model.roi_head.bbox_roi_extractor.out_channels': 16,
    'model.roi_head.bbox_head.in_channels': 16,
    'model.roi_head.bbox_head.fc_out_channels': 32,
    'model.roi_head.bbox_head.num_classes': 6,
    'model.roi_head.mask_roi_extractor.out_channels': 16,
    'model.roi_head.mask_head.in_channels': 16,
    'model.roi_head.mask_head.conv_out_channels': 16,
    'model.roi_head.mask_head.num_classes': 6,
    'model.test_cfg.rpn.max_per_img': 400,
    'model.test_cfg.rcnn.score_thr': 0.3,
    'model.test_cfg.rcnn.max_per_img': 40,
}
RESNET = {'model.backbone.base_channels': 16}
# Config, changes, scale of the resize (long, short), and height and width of the picture.
CASES: dict[str, tuple[str, dict[str, object], tuple[int, int], tuple[int, int]]] = {
    'r18': (
        'mask-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco',
        {**RESNET, 'model.neck.in_channels': [16, 32, 64, 128]},
        (233, 150),
        (171, 262),
    ),
    'r50': (
        'mask-rcnn_r50_fpn_1x_coco',
        {**RESNET, 'model.neck.in_channels': [64, 128, 256, 512]},
        (233, 170),
        (101, 149),
    ),
    'r50-caffe': (
        'mask-rcnn_r50-caffe_fpn_1x_coco',
        {**RESNET, 'model.neck.in_channels': [64, 128, 256, 512]},
        (233, 170),
        (231, 157),
    ),
    'x101': (
        'mask-rcnn_x101-32x4d_fpn_1x_coco',
        {'model.backbone.depth': 50, 'model.backbone.groups': 8},
        (125, 96),
        (131, 243),
    ),
    's50': (
        'mask-rcnn_s50_fpn_syncbn-backbone+head_ms-1x_coco',
        {'model.roi_head.bbox_head.conv_out_channels': 16},
        (127, 93),
        (150, 201),
    ),
    'swin': (
        'mask-rcnn_swin-t-p4-w7_fpn_1x_coco',
        {
            'model.backbone.embed_dims': 24,
            'model.backbone.depths': [2, 2, 2, 2],
            'model.neck.in_channels': [24, 48, 96, 192],
        },
        (233, 190),
        (103, 121),
    ),
    'convnext': (
        'mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco',
        {
            'model.backbone.arch': {
                '_delete_': True,
                'depths': [1, 1, 2, 1],
                'channels': [24, 48, 64, 80],
            },
            'model.neck.in_channels': [24, 48, 64, 80],
        },
        (199, 150),
        (233, 147),
    ),
}
# Spread of what the last layers give, and what is added to their biases.
SPREAD = {
    'rpn_head.rpn_cls': (3.0, 0.0),
    'rpn_head.rpn_reg': (0.15, 0.0),
    'roi_head.bbox_head.fc_cls': (3.0, 0.0),
    'roi_head.bbox_head.fc_reg': (0.5, 0.0),
    'roi_head.mask_head.conv_logits': (4.0, 5.0),
}
# Of the proposals, those that score above one half.
CONFIDENT_SHARE = 0.12


def spread_once(name: str) -> Callable[[nn.Module, object, Tensor], Tensor | None]:
    """Return a hook that centres and rescales a layer when it first runs."""
    spread, shift = SPREAD[name]
    done = False

    def hook(layer: nn.Module, _: object, output: Tensor) -> Tensor | None:
        nonlocal done
        if done:
            return None
        done = True
        channels = output.transpose(0, 1).flatten(1)
        mean = channels.mean(1)
        scale = spread / (channels - mean[:, None]).std()
        layer.weight.mul_(scale)
        layer.bias.copy_((layer.bias - mean) * scale + shift)
        broadcast = (1, -1, *[1] * (output.ndim - 2))
        output = (output - mean.view(broadcast)) * scale + shift
        if name.endswith('fc_cls'):
            bias = background_bias(output)
            layer.bias[-1] += bias
            output[:, -1] += bias
        return output

    return hook


def background_bias(logits: Tensor) -> float:
    """Return the least of some numbers that leaves no more than the wanted share confident."""
    for bias in np.arange(-4.0, 16.0, 0.25):
        shifted = logits.clone()
        shifted[:, -1] += bias
        best = shifted.softmax(1)[:, :-1].max(1).values
        if (best > 0.5).float().mean() <= CONFIDENT_SHARE:
            return float(bias)
    raise ValueError('expected classes that some bias of the background outweighs')


@torch.no_grad()
def record(name: str) -> None:
    """Write one case."""
    config_name, changes, scale, image_hw = CASES[name]
    config = read_config(config_name, {**NARROW, **changes})
    (resize,) = (
        step for step in config.test_dataloader.dataset.pipeline if step['type'] == 'Resize'
    )
    resize['scale'] = scale
    config.test_pipeline = config.test_dataloader.dataset.pipeline
    model = build_model(config)
    state = model.state_dict()
    shapes = {
        key: tuple(tensor.shape)
        for key, tensor in state.items()
        if not key.endswith(('num_batches_tracked', 'relative_position_index'))
    }
    drawn = {key: torch.from_numpy(drawn_weight(key, shape)) for key, shape in shapes.items()}
    model.load_state_dict({**state, **drawn}, strict=True)
    seed = list(CASES).index(name)
    data = prepare(config, drawn_image(seed, image_hw))
    hooks = [
        model.get_submodule(layer).register_forward_hook(spread_once(layer)) for layer in SPREAD
    ]
    model.test_step(data)
    for hook in hooks:
        hook.remove()
    answer = find(model, data)
    last_layers = {
        f'{layer}.{kind}': model.get_submodule(layer).get_parameter(kind).numpy()
        for layer in SPREAD
        for kind in ('weight', 'bias')
    }
    check_stability(model, data, answer)
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f'{name}.npz'
    write_recorded(
        path,
        config.pretty_text,
        shapes,
        last_layers,
        (seed, *image_hw),
        network_input(model, data),
        answer,
    )
    sys.stdout.write(
        f'{path.name}: {path.stat().st_size} bytes, {len(answer.scores)} instances, scores '
        f'{answer.scores.min():.3f} to {answer.scores.max():.3f}, '
        f'{answer.masks.mean():.3f} of the pixels\n'
    )


def check_stability(model: nn.Module, data: dict[str, Any], answer: Found) -> None:
    """Refuse a case that another machine's rounding would answer differently.

    All weights move about as far as float32 rounds, and the same instances have to come out.
    """
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        moved = copy.deepcopy(model)
        for parameter in moved.parameters():
            parameter.mul_(1 + 1e-6 * torch.randn(parameter.shape, generator=generator))
        figures = compare(find(moved, data), answer)
        sys.stdout.write(f'  {figures}\n')
        assert figures.lone == (), 'expected the same instances; take another seed'


def main(names: list[str]) -> None:
    """Record the named cases, or all."""
    import_mmdetection()
    for name in names or CASES:
        record(name)


if __name__ == '__main__':
    main(sys.argv[1:])
