# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a checkpoint of MMDetection says of itself beside its weights, under ``meta``.

Of ``meta`` only texts, numbers and containers are looked at; what else is in it was never built.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from segnode.checkpoint.coco_classes import COCO_CLASS_NAMES
from segnode.checkpoint.python_config import parse_python_config
from segnode.errors import CheckpointError

# 3.x and 2.x; both have the config as a text.
_CONFIG_KEYS: Final = ('cfg', 'config')
_MOST_NAMES: Final = 65_535
_FIRST_WITH_BACKGROUND_LAST: Final = 2
_UPGRADE: Final = (
    "expected the background as the last class, found an MMDetection 1.x's, which has it first; "
    'convert the file with tools/model_converters/upgrade_model_version.py of MMDetection 2.x, '
    'and check its config, as 1.x places anchors otherwise'
)


def stored_config(meta: Mapping[Any, Any], path: Path) -> dict[str, Any] | None:
    """Return the values of the config that a checkpoint carries, None where it has none.

    Raises:
        CheckpointError: the text is no config.
    """
    for key in _CONFIG_KEYS:
        text = meta.get(key)
        if isinstance(text, str) and text.strip():
            return parse_python_config(text, f'{path}: meta[{key!r}]')
    return None


def stored_names(meta: Mapping[Any, Any]) -> dict[str, str]:
    """Return the class names of a checkpoint as metadata, empty where it has none."""
    return _names(meta.get('dataset_meta')) or _names(meta)


def config_names(config: Mapping[str, Any], classes: int) -> dict[str, str]:
    """Return the class names of a config's test data as metadata.

    Args:
        config: its values.
        classes: how many names are wanted; others are of other data.
    """
    loader, data = config.get('test_dataloader'), config.get('data')
    place = loader.get('dataset') if isinstance(loader, Mapping) else None
    if place is None and isinstance(data, Mapping):
        place = data.get('test')
    while isinstance(place, Mapping):
        found = _names(place.get('metainfo')) or _names(place)
        if found:
            return found if len(json.loads(found['class_names'])) == classes else {}
        place = place.get('dataset')
    return {}


def _names(place: object) -> dict[str, str]:
    """Return the class names that stand in a mapping, empty where there are none."""
    for key in ('classes', 'CLASSES'):
        names = place.get(key) if isinstance(place, Mapping) else None
        # Of one class it is often the bare name, for want of a comma.
        names = [names] if isinstance(names, str) else names
        if (
            isinstance(names, list | tuple)
            and 0 < len(names) <= _MOST_NAMES
            and all(isinstance(name, str) for name in names)
        ):
            # Early versions wrote COCO's names without spaces.
            if tuple(name.replace('_', ' ') for name in names) == COCO_CLASS_NAMES:
                names = COCO_CLASS_NAMES
            return {'class_names': json.dumps(list(names))}
    return {}


def check_background(
    meta: Mapping[Any, Any], tensors: Mapping[str, Tensor], classes: int, path: Path
) -> None:
    """Refuse a checkpoint that has the background first, as all had before 2.0.

    Between 2.0 and 2.4 it was first in the RPN's labels alone, of which a sigmoid's one output
    knows nothing.

    Args:
        meta: of the file.
        tensors: of the file.
        classes: number of foreground classes that the config says.
        path: the file, for the message.

    Raises:
        CheckpointError: the version or the shapes say so.
    """
    version = meta.get('mmdet_version')
    major = re.match(r'v?(\d{1,4})\.', version) if isinstance(version, str) else None
    # Scores have one more row in all versions, boxes and masks in 1.x alone.
    with_background = _rows(tensors, 'bbox_head.fc_cls') == classes + 1 and (
        _rows(tensors, 'mask_head.conv_logits') == classes + 1
        or _rows(tensors, 'bbox_head.fc_reg') == 4 * (classes + 1)
    )
    if with_background or (major and int(major[1]) < _FIRST_WITH_BACKGROUND_LAST):
        raise CheckpointError(f'{path}: {_UPGRADE}')


def check_classes(tensors: Mapping[str, Tensor], classes: int, path: Path) -> None:
    """Refuse a checkpoint of another number of classes than its config says.

    Raises:
        CheckpointError: it is one.
    """
    rows = _rows(tensors, 'bbox_head.fc_cls')
    if rows not in (None, classes + 1):
        raise CheckpointError(
            f'{path}: roi_head.bbox_head.fc_cls: expected {classes} classes and the background, '
            f'as num_classes of the config says, found {rows} rows; change the config, or take '
            'the one that the weights were trained with'
        )


def _rows(tensors: Mapping[str, Tensor], layer: str) -> int | None:
    """Return how many outputs a layer of the heads has, None if not told."""
    bias = tensors.get(f'roi_head.{layer}.bias')
    return len(bias) if bias is not None and bias.ndim == 1 else None
