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
from segnode.doctor.finding import Finding
from segnode.errors import FetchError, SegnodeError
from segnode.hardware.board import read_board

if TYPE_CHECKING:
    from segnode.checkpoint import Model
    from segnode.engine.settings import InferenceSettings
    from segnode.model.architecture import Architecture

    Network: TypeAlias = tuple[Architecture, InferenceSettings]


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
    from segnode.engine.exported import fixed_sizes

    sizes = fixed_sizes(model) if isinstance(model, ExportedModel) else ()
    return sizes[0] if sizes else (480, 640)


def _offline(config: Config) -> str:
    """Return how weights come to a machine without a network."""
    from segnode.checkpoint import PRESETS

    what = config.model if config.model in PRESETS and not config.weights else config.weights
    return (
        f'where there is a network: SEGNODE_CACHE=weights segnode fetch {what}; then '
        'rsync -a weights/ THIS_MACHINE:.cache/segnode/'
    )


def limits(config: Config, network: Network | None) -> Iterator[Finding]:
    """Say of a Jetson how it is set, and of a known GPU what it allows at best."""
    try:
        from segnode.benchmark.floor import device_peak
        from segnode.doctor.board import board_findings, read_torch
        from segnode.doctor.roofline import board_peak, roofline, roofline_finding
        from segnode.engine.device import select_device

        board = read_board()
        peak = device_peak(select_device(config.device)) if board is None else board_peak(board)
        least = None if network is None or peak is None else roofline(*network, peak)
        if board is not None:
            needed = 0.0 if least is None else least.needed_mib
            yield from board_findings(board, read_torch(), needed)
        if least is not None and peak is not None:
            yield from roofline_finding(least, peak)
    except (ImportError, OSError, RuntimeError, SegnodeError):
        return  # Said of torch, or of the device.


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
            f'segnode fetch --refresh {shown(url)}',
        )
    else:
        yield Finding('ok', 'weights', f'{found}, {fresh.text or "as on the server"}')
