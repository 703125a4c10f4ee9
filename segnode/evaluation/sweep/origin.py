# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a sweep's results hang on: model, bags, ground truth, machine and code."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import segnode
from segnode import __version__
from segnode.checkpoint import Model
from segnode.engine import Engine
from segnode.errors import ConfigError
from segnode.evaluation.replay import Request
from segnode.hardware.machine import describe_machine


def run_origin(engine: Engine, model: Model, selection: Request) -> dict[str, Any]:
    """Return what a run hangs on beside its settings.

    Args:
        engine: that runs.
        model: that it was made of.
        selection: frames.

    Raises:
        ConfigError: a bag, or a file of segnode, is not there any more.
    """
    machine = describe_machine(engine.device)
    names = ('python', 'torch', 'torchvision', 'numpy', 'device', 'processor', 'cpus', 'threads')
    try:
        bags = [identity(path) for path in selection.bags]
        code = code_sha256()
    except OSError as error:
        raise ConfigError(f'{error.filename}: cannot be read ({error.strerror})') from None
    # The model's files by what they say: a path tells nothing of a changed description.
    told = {f.name: getattr(model, f.name) for f in fields(model) if f.name != 'state_dict'}
    return {
        'segnode': (__version__, code),
        'model': told,
        'machine': {name: machine.get(name) for name in (*names, 'gpu', 'cuda', 'cudnn')},
        'precision': engine.precision,
        'bags': bags,
        'topics': selection.topics,
        'range': (selection.start_s, selection.end_s, selection.every),
        'mono16_bits': selection.mono16_bits,
    }


def truth_origin(selection: Request) -> dict[str, Any]:
    """Return what scores hang on beside the results."""
    annotations = selection.annotations
    return {
        'annotations': None if annotations is None else identity(annotations),
        'label_topic': selection.label_topic,
        'window_ms': selection.window_ms,
    }


def identity(path: Path) -> list[tuple[str, int, int]]:
    """Return path, size and time of change (ns) of a file, or of all files in a folder.

    Raises:
        OSError: it cannot be examined.
    """
    whole = path.resolve()
    files = sorted(p for p in whole.rglob('*') if p.is_file()) if whole.is_dir() else [whole]
    return [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]


def code_sha256(package: Path = Path(segnode.__file__).parent) -> str:
    """Return the hash of all that a package runs: of two commits, and of what is not committed.

    Args:
        package: folder of an imported package, whose caches do not count.

    Raises:
        OSError: a file cannot be read.
    """
    found = hashlib.sha256()
    for path in sorted(package.rglob('*')):
        if path.is_file() and '__pycache__' not in path.parts:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found.update(f'{path.relative_to(package)}\n{content}\n'.encode())
    return found.hexdigest()
