# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""MMDetection 3.3 itself, on the CPU and without the compiled part of mmcv.

mmcv-lite holds all of mmcv's Python. The two operators that a Mask R-CNN calls of ``mmcv._ext``
are torchvision's here; both libraries compute them by the same formulas.
"""

from __future__ import annotations

import copy
import importlib.metadata
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
import torchvision
from matching import Found
from torch import Tensor, nn

from segnode.image import Image

# What MMDetection's own runs print in the same way.
VERSIONS = ('mmdet', 'mmengine', 'mmcv-lite', 'mmpretrain', 'torch', 'torchvision')


def import_mmdetection() -> ModuleType:
    """Return the package, its models registered; others of its kin import as usual from then on.

    It comes from the folder in ``SEGNODE_MMDETECTION``, by default from where
    ``make test-oracles`` installs it beside the packages of ``.venv``.
    """
    folder = os.environ.get('SEGNODE_MMDETECTION') or str(Path(sys.prefix) / 'mmdetection')
    if not (Path(folder) / 'mmdet').is_dir():
        raise FileNotFoundError(f'expected mmdet in {folder}, found none: run `make test-oracles`')
    if folder not in sys.path:
        # Behind all others: what .venv has is what segnode is tested with.
        sys.path.append(folder)
    sys.modules.setdefault('mmcv._ext', _operators())
    # A copy of the standard library's for older interpreters.
    sys.modules.setdefault('importlib_metadata', importlib.metadata)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        import mmdet
        from mmdet.utils import register_all_modules

        register_all_modules()
    logging.getLogger('mmengine').setLevel(logging.ERROR)
    return mmdet


def versions() -> dict[str, str]:
    """Return the versions of all that decides the answer."""
    return {name: importlib.metadata.version(name) for name in VERSIONS}


def _operators() -> ModuleType:
    """Return what stands for ``mmcv._ext``."""
    module = ModuleType('mmcv._ext')
    # mmcv looks whether the module could be found.
    module.__spec__ = ModuleSpec(module.__name__, None)

    def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
        assert offset == 0
        return torchvision.ops.nms(boxes, scores, iou_threshold)

    def roi_align_forward(
        features: Tensor, rois: Tensor, output: Tensor, *_: Tensor, **options: Any
    ) -> None:
        assert options['pool_mode'] == 1, 'expected averages'
        output.copy_(
            torchvision.ops.roi_align(
                features,
                rois,
                (options['aligned_height'], options['aligned_width']),
                options['spatial_scale'],
                options['sampling_ratio'],
                options['aligned'],
            )
        )

    def refuse(name: str) -> Callable[..., None]:
        if name.startswith('__'):
            raise AttributeError(name)

        def call(*_: object, **__: object) -> None:
            raise NotImplementedError(f'mmcv._ext.{name} is compiled, and not here')

        return call

    for operator in (nms, roi_align_forward):
        setattr(module, operator.__name__, operator)
    # Others are looked up on import; no Mask R-CNN calls them.
    module.__dict__['__getattr__'] = refuse
    return module


def read_config(name: str, changes: Mapping[str, object] | None = None) -> Any:
    """Return the config (``mmengine.Config``) of a name, which fetches nothing.

    Args:
        name: of one of MMDetection's own configs, without folder and ``.py``.
        changes: new values of keys, dotted.
    """
    import mmdet
    from mmengine.config import Config

    (path,) = (Path(mmdet.__file__).parent / '.mim' / 'configs').rglob(f'{name}.py')
    config = Config.fromfile(path)
    config.merge_from_dict({'model.backbone.init_cfg': None, **(changes or {})})
    return config


def build_model(config: Any) -> nn.Module:
    """Return the network of a config, ready for inference."""
    from mmdet.registry import MODELS

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        # Some parts write into the config that they are built from.
        model = MODELS.build(copy.deepcopy(config.model))
    # Swin's own `eval` returns nothing.
    model.eval()
    return model


def checkpoint_of(config: Any, state: Mapping[str, Tensor]) -> dict[str, object]:
    """Return what MMDetection publishes as a ``.pth`` of a config and weights."""
    from mmdet.registry import DATASETS

    dataset_meta = DATASETS.get('CocoDataset').METAINFO
    if (classes := config.model.roi_head.bbox_head.num_classes) != len(dataset_meta['classes']):
        dataset_meta = {'classes': tuple(f'class {index}' for index in range(classes))}
    meta = {
        'cfg': config.pretty_text,
        'dataset_meta': dataset_meta,
        'mmdet_version': importlib.metadata.version('mmdet'),
    }
    return {'meta': meta, 'state_dict': dict(state)}


def prepare(config: Any, image: Image) -> dict[str, Any]:
    """Return an image as MMDetection's test pipeline hands it on: resized uint8 and its sizes."""
    from mmcv.transforms import Compose

    steps = [dict(step) for step in config.test_dataloader.dataset.pipeline]
    steps[0] = {'type': 'mmdet.LoadImageFromNDArray'}
    pixels = image.pixels if image.order == 'bgr' else image.pixels[..., ::-1]
    data = Compose(steps)({'img': np.ascontiguousarray(pixels), 'img_id': 0})
    return {'inputs': [data['inputs']], 'data_samples': [data['data_samples']]}


def network_input(model: nn.Module, data: dict[str, Any]) -> Tensor:
    """Return the (3, H', W') float32 input that its preprocessor makes of prepared data."""
    with torch.inference_mode():
        return model.data_preprocessor(data)['inputs'][0]


def stable_sort(tensor: Tensor, dim: int = -1, *, descending: bool = False) -> Any:
    """Sort with equal numbers in the order that they had."""
    return torch.sort(tensor, dim=dim, descending=descending, stable=True)


def find(model: nn.Module, data: dict[str, Any]) -> Found:
    """Return MMDetection's instances of prepared data.

    It sorts scores without asking for an order of equal ones, of which large probabilities are
    many: theirs then differs from one processor to another. Here the first comes first.
    """
    with torch.inference_mode(), mock.patch.object(Tensor, 'sort', stable_sort):
        (answer,) = model.test_step(data)
    found = answer.pred_instances
    return Found(
        found.bboxes.numpy(), found.scores.numpy(), found.labels.numpy(), found.masks.numpy()
    )
