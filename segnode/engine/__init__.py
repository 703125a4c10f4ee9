# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A model on a device, from images to masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segnode.engine.answers import Detections, Prediction, Segmentation
    from segnode.engine.engine import Engine

__all__ = ['Detections', 'Engine', 'Prediction', 'Segmentation']


def __getattr__(name: str) -> Any:
    """Import the engine when it is asked for: who wants a device alone needs little of it."""
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from segnode.engine import answers, engine

    return getattr(engine if name == 'Engine' else answers, name)
