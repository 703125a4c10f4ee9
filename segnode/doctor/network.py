# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What ``segnode doctor`` says of the model, its weights, and what the machine allows it.

What needs PyTorch is imported where it is used: ``doctor`` answers without it, too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from segnode.config import Config
from segnode.doctor.board import memory_finding
from segnode.doctor.finding import Finding
from segnode.errors import FetchError, SegnodeError
from segnode.hardware.board import Board

if TYPE_CHECKING:
    from segnode.checkpoint import Model
    from segnode.engine.settings import InferenceSettings
    from segnode.model.architecture import Architecture

    Network: TypeAlias = tuple[Architecture, InferenceSettings]


# Without ROS no `segnode` is on the path.
_FETCH = '.venv/bin/python -m segnode fetch'


def run_model(config: Config) -> tuple[Finding, Network | None]:
    """Load the model and run one empty image; return what of it a roofline needs, too."""
    try:
        import numpy as np

        from segnode.checkpoint import NativeModel, load_model
        from segnode.engine import Engine
        from segnode.image import Image

        warnings: list[str] = []
        loaded = load_model(config, lambda _: None)
        engine = Engine(config, model=loaded, warn=warnings.append)
        height, width = _image_hw(loaded)
        engine.warm_up((height, width))
        start = time.perf_counter()
        engine.segment([Image(np.zeros((height, width, 3), np.uint8), 'bgr')])
        took_ms = (time.perf_counter() - start) * 1e3
    except ImportError as error:
        problem = f'cannot be run ({error})'
        return Finding('FAIL', 'model', problem, 'mend the lines above first'), None
    except FetchError as error:
        return Finding('FAIL', 'model', str(error), _offline(config)), None
    except SegnodeError as error:
        return Finding('FAIL', 'model', str(error), 'give another --model or --weights'), None
    except (RuntimeError, AttributeError, MemoryError) as error:
        # Of PyTorch: no kernel for this GPU, no memory, a release that lacks something.
        problem = f'cannot be run ({type(error).__name__}: {str(error) or "no message"})'
        remedy = 'mend the lines above first; where memory ran out lower resolution.short_side'
        return Finding('FAIL', 'model', problem, remedy), None
    if warnings:
        remedy = 'give another --model to detect something'
        return Finding('warn', 'model', warnings[0], remedy), None
    found = Finding(
        'ok',
        'model',
        f'{engine.model_name}, weights {engine.weights_sha256[:12]}, {engine.precision}, '
        f'{took_ms:.0f} ms for an empty {width} x {height} image',
    )
    if not isinstance(loaded, NativeModel):
        return found, None
    return found, (loaded.architecture, engine.settings)


def _image_hw(model: Model) -> tuple[int, int]:
    """Return the size of an image that a model takes: one of its own where it has only such."""
    from segnode.checkpoint import ExportedModel

    sizes = model.shapes if isinstance(model, ExportedModel) else ()
    return sizes[0] if sizes else (480, 640)


def _offline(config: Config) -> str:
    """Return how weights come to a machine without a network."""
    from segnode.checkpoint import PRESETS

    what = config.model if config.model in PRESETS and not config.weights else config.weights
    return (
        f'in a checkout where there is a network: SEGNODE_CACHE=weights {_FETCH} {what}; then '
        'ssh THIS_MACHINE mkdir -p .cache/segnode; rsync -a weights/ THIS_MACHINE:.cache/segnode/'
    )


def limits(config: Config, network: Network | None, board: Board | None) -> Iterator[Finding]:
    """Say what a known GPU allows the network at best, and whether a board's memory is enough."""
    if network is None:
        return
    try:
        from segnode.benchmark.floor import device_peak
        from segnode.doctor.roofline import board_peak, roofline, roofline_finding
        from segnode.engine.device import select_device

        peak = device_peak(select_device(config.device)) if board is None else board_peak(board)
        if peak is None:
            return
        least = roofline(*network, peak)
    except (ImportError, OSError, RuntimeError, SegnodeError):
        return  # Said of torch, or of the device.
    if board is not None:
        before = [finding.level for finding in memory_finding(board)]
        after = memory_finding(board, least.needed_mib)
        yield from (f for f, level in zip(after, before, strict=True) if f.level != level)
    yield from roofline_finding(least, peak)


def fetched_weights(config: Config) -> Iterator[Finding]:
    """Say of weights from the cache what they are of, and whether their server has others."""
    try:
        from segnode.checkpoint import PRESETS
        from segnode.checkpoint.download import cached_path, date_of, freshness
        from segnode.checkpoint.presets import published_checksum, published_url
        from segnode.checkpoint.web import shown
    except (ImportError, OSError):
        return  # Said of the model already.
    preset = PRESETS.get(config.model)
    url = published_url(config.weights or (preset.url if preset else ''))
    try:
        path = cached_path(url) if url.startswith(('http://', 'https://')) else None
    except SegnodeError:
        return
    if path is None or not path.is_file():
        return
    found = f'{path}, {path.stat().st_size / 1e6:.1f} MB of {date_of(path)}'
    if published_checksum(url) is not None:
        yield Finding('ok', 'weights', f'{found}, published')
        return
    fresh = freshness(url)
    if fresh.state == 'changed':
        yield Finding(
            'warn',
            'weights',
            f'{found}, {shown(url)} has changed since',
            f'{_FETCH} --refresh {shown(url)}',
        )
    else:
        yield Finding('ok', 'weights', f'{found}, {fresh.text or "as on the server"}')
