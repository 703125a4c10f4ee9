# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The model ``null``: all of a frame's way but the network, for measurements and tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from segnode.checkpoint.class_names import class_names
from segnode.checkpoint.model import NullModel
from segnode.config import Config
from segnode.errors import ConfigError

CLASSES: Final = 20
LONGEST_WAIT_MS: Final = 60_000
_NONE: Final = '(none)'
# What has no meaning without a network.
_REFUSED: Final = ('weights', 'precision', 'norm_eps', 'backend', 'memory_limit_mb')


def is_null(name: str) -> bool:
    """Return whether a model's name asks for no network."""
    return name.partition(':')[0] == 'null'


def null_model(config: Config) -> NullModel:
    """Return what ``null`` or ``null:MS`` stands for.

    Raises:
        CheckpointError: the file of class names cannot be read.
        ConfigError: the wait is no number of milliseconds, or something is set that only a
            network has.
    """
    unset = Config().flat()
    for key in _REFUSED:
        if config.flat()[key] != unset[key]:
            raise ConfigError(
                f'{key}: expected it unset with model {config.model!r}, which has no network, '
                f'found {config.flat()[key]!r}'
            )
    if not config.device.startswith(('auto', 'cpu')):
        raise ConfigError(
            f'device: expected auto or cpu with model {config.model!r}, which has no network, '
            f'found {config.device!r}'
        )
    return NullModel(
        class_names=class_names(
            config.class_names or tuple(f'class_{index}' for index in range(CLASSES)),
            {},
            None,
            lambda _: None,
            is_coco=lambda: False,
        ),
        category_ids=None,
        name=config.model,
        weights_path=Path(_NONE),
        weights_sha256=_NONE,
        wait_ms=_wait_ms(config.model),
    )


def _wait_ms(name: str) -> float:
    _, colon, text = name.partition(':')
    if not colon:
        return 0.0
    if not re.fullmatch(r'\d{1,6}(\.\d{1,6})?', text) or float(text) > LONGEST_WAIT_MS:
        raise ConfigError(
            f'model: expected null, or null:MS with 0 to {LONGEST_WAIT_MS} milliseconds to wait '
            f'in place of a network, as in null:30, found {name!r}'
        )
    return float(text)
